//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod dgram;
mod socket;
mod socket_datagrams;
mod stream;
mod tap;

pub use dgram::DgramSpec;
pub use socket::SocketSpec;
pub use stream::{StreamSource, StreamSpec};
pub use tap::{Script, TapSource, TapSpec};

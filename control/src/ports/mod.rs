//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod af_xdp;
mod tap;

pub use af_xdp::{AfXdpSource, AfXdpSpec};
pub use tap::{Script, TapSource, TapSpec};

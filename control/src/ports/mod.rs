//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod af_packet;
mod tap;

pub use af_packet::AfPacketSpec;
pub use tap::{Script, TapSource, TapSpec};

//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod dgram;
mod tap;

pub use dgram::DgramSpec;
pub use tap::{Script, TapSource, TapSpec};

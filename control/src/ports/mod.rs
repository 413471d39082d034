//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod dgram;
mod l2tpv3;
mod tap;
mod vde;

pub use dgram::DgramSpec;
pub use l2tpv3::L2tpv3Spec;
pub use tap::{Script, TapSource, TapSpec};
pub use vde::VdeSpec;

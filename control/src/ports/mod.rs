//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod tap;

pub use tap::{Script, TapSource, TapSpec};

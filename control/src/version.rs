//! Which ringyard this is, in the shape that QMP has for it.

use crate::wire::{VersionInfo, VersionTriple};

/// The package's version: `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `query-version` returns and the greeting contains. The numbers are ours; clients read the product's name from
/// `package`.
pub fn version_info() -> VersionInfo {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    VersionInfo {
        qemu: VersionTriple {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            micro: number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        package: format!("ringyard-{VERSION}"),
    }
}

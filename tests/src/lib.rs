//! The rig that the integration tests share: a monitor client, the switch as a process, network namespaces with raw
//! frames in them, real QEMU guests and DPDK's testpmd. Whatever a test starts through it is gone when the test drops
//! it, and dies with the test process at the latest.
//!
//! Tests that start guests or testpmd hold a [`slot::Slot`] meanwhile: they need the cores to themselves.

pub mod catalogue;
pub mod deadline;
pub mod dpdk;
pub mod exchange;
pub mod faults;
pub mod flow;
pub mod guest;
mod initramfs;
pub mod migration;
pub mod netns;
pub mod ovs;
pub mod packet;
pub mod plug;
pub mod probe;
pub mod process;
#[cfg(target_arch = "x86_64")]
pub mod puppet;
pub mod qmp;
pub mod running;
pub mod schema;
pub mod slot;
pub mod stats;
pub mod switch;
pub mod tools;
pub mod uml;
pub mod vde;

pub use ringyard_benches::error::{self, Doing, Error, Result};

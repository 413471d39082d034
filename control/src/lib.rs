//! The control side of ringyard, a virtual network switch in user space: QMP, the command line, and the one mutable model
//! of the switch. It is what the program `ringyard` is made of, and a library for programs that want a switch inside.
//!
//! # A switch in ten lines
//!
//! A [`Yard`] is a running switch. It is started with the options of `ringyard run`, and changed by the commands of its
//! monitors, whose answers come when frames already pass as they say.
//!
//! ```
//! use std::os::{fd::AsRawFd, unix::net::UnixDatagram};
//! use ringyard_control::Yard;
//! use serde_json::json;
//!
//! let yard = Yard::start(["-hub", "0,learning=off"])?;
//! let mut ends = Vec::new();
//! for id in ["a", "b"] {
//!     let (ours, theirs) = UnixDatagram::pair()?;
//!     let local = json!({"type": "fd", "str": theirs.as_raw_fd().to_string()});
//!     yard.execute("netdev_add", json!({"id": id, "type": "dgram", "local": local}))?;
//!     yard.execute("netdev_add", json!({"id": format!("h{id}"), "type": "hubport", "hubid": 0, "netdev": id}))?;
//!     ends.push(ours);
//! }
//! ends[0].send(&[0xFF; 60])?; // A broadcast: a frame a datagram.
//! assert_eq!(ends[1].recv(&mut [0; 100])?, 60);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A virtual machine's port
//!
//! Whoever runs the machine connects its vhost-user front end to the chardev's socket; events say when it comes and goes.
//!
//! ```
//! use ringyard_control::{Yard, YardError};
//! use serde_json::json;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("vm.sock");
//! let yard = Yard::start([
//!     "-chardev".to_owned(), format!("socket,id=c0,path={},server=on", path.display()),
//!     "-netdev".to_owned(), "vhost-user,id=vm,chardev=c0,queues=2".to_owned(),
//!     "-net".to_owned(), "nic,netdev=vm,macaddr=52:54:00:00:00:01".to_owned(),
//! ])?;
//! let events = yard.events()?; // NETDEV_VHOST_USER_CONNECTED, …
//! # assert!(events.try_recv().is_err());
//!
//! match yard.execute("set_link", json!({"name": "nobody", "up": false})) {
//!     Err(YardError::Command(error)) => assert_eq!(error.desc, "Device 'nobody' not found"),
//!     other => panic!("{other:?}"),
//! }
//! let stats = yard.execute("x-query-stats", json!({"name": "vm"}))?;
//! assert_eq!(stats["ports"][0]["carrier"], false);
//! yard.stop()?; // As dropping it does, which tells nobody of errors.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/embed.rs` is a whole program, with two guests that exchange frames.
//!
//! # `user` netdevs
//!
//! libslirp runs in a process of its own, which is this program once more. So a program that wants `user` netdevs begins
//! with:
//!
//! ```no_run
//! # use std::process::ExitCode;
//! fn main() -> ExitCode {
//!     if let Some(code) = ringyard_control::run_as_helper() {
//!         return code;
//!     }
//!     // …
//! #   ExitCode::SUCCESS
//! }
//! ```
//!
//! # Inside
//!
//! Text becomes typed values here and nowhere else. `json` turns a monitor's bytes into values, `qapi` visits them
//! with the error texts that QMP clients know, `wire` holds one struct for each object of the schema and what it resolves
//! to. `monitor` and `hmp` speak with clients, [`cli`] with whoever starts the program. None of them does any input or
//! output, the configuration file excepted. [`run`] is the thread that all of it meets in.

pub mod bench;
pub mod cli;
pub mod client;
mod complete;
pub mod demo;
pub mod doctor;
mod follow;
mod hmp;
#[doc(hidden)] // For fuzz targets.
pub mod json;
pub mod keeper;
pub mod log;
mod model;
#[doc(hidden)] // For fuzz targets.
pub mod monitor;
mod open;
mod port;
mod ports;
#[doc(hidden)] // For fuzz targets.
pub mod qapi;
pub mod run;
pub mod sandbox;
mod usernet;
mod version;
#[doc(hidden)] // For fuzz targets.
pub mod wire;
mod yard;

use std::process::ExitCode;

use ringyard_drivers::sandbox::opener;
use ringyard_drivers::user::helper;

pub use qapi::{ErrorClass, QapiError, Spot};
pub use wire::Event;
pub use yard::{Yard, YardError};

/// Is the helper of a `user` netdev, or the opener of a confined switch, if this process was started as one; what it ends
/// with. To be called before anything else is done.
pub fn run_as_helper() -> Option<ExitCode> {
    let role = std::env::args_os().nth(1)?;
    match role.to_str() {
        Some(helper::SUBCOMMAND) => Some(helper::main()),
        Some(opener::SUBCOMMAND) => Some(opener::main()),
        _ => None,
    }
}

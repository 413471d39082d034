//! The control side: QMP, the command line, and the one mutable model of the switch.
//!
//! Text becomes typed values here and nowhere else. [`json`] turns a monitor's bytes into values, [`qapi`] visits them
//! with the error texts that QMP clients know, [`wire`] holds one struct for each object of the schema and what it resolves
//! to. [`monitor`] and [`hmp`] speak with clients, [`cli`] with whoever starts the program. None of them does any input or
//! output, the configuration file excepted.

pub mod bench;
pub mod cli;
pub mod client;
mod complete;
pub mod demo;
pub mod doctor;
pub mod follow;
pub mod hmp;
pub mod json;
pub mod log;
pub mod model;
pub mod monitor;
pub mod open;
pub mod port;
pub mod ports;
pub mod qapi;
pub mod run;
pub mod usernet;
pub mod version;
pub mod wire;

//! Frames, ports, hubs, workers and rings: everything that touches a frame.
//!
//! A [`worker`] polls the [`port::Ingress`]es that the current [`snapshot`] gives it. Each poll lends it a
//! [`frame::Burst`] that still lies in the sender's memory; [`forward`] asks the [`hub`] who takes each frame and hands
//! every [`port::Egress`] its share, which is copied once, to where it is going. Control threads never run this code:
//! they build the next snapshot and publish it through [`grace`].

pub mod announce;
mod bells;
pub mod counters;
pub mod drops;
pub mod eventfd;
pub mod fdb;
pub mod filter;
pub mod forward;
pub mod frame;
pub mod grace;
pub mod hold;
pub mod hub;
pub mod mac;
pub mod offload;
pub mod port;
pub mod ring;
pub mod snapshot;
pub mod switch;
pub mod worker;

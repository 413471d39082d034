//! One driver a netdev type, each behind the two traits of the data plane.
//!
//! Opening a port may block, so it happens on threads beside control; a port whose peer comes and goes says so over its
//! [`line::Line`] and never touches the switch itself.

pub mod af_packet;
pub mod af_xdp;
mod arena;
mod bucket;
pub mod capture;
pub mod chardev;
mod datagram;
pub mod dgram;
pub mod errno;
mod flag;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
pub mod ipv4;
pub mod l2tpv3;
pub mod line;
mod links;
pub mod minder;
pub mod netmap;
mod program;
pub mod record;
pub mod sandbox;
mod socket_file;
mod spread;
pub mod store;
pub mod stream;
mod sys;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod user;
pub mod vde;
pub mod vduse;
pub mod vhost_user;
pub mod vhost_vdpa;
mod virtio_net;
mod vring;

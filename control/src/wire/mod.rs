//! One struct for each object of the schema, with the schema's member names, and what each resolves to.
//!
//! `visit` checks types and unknown members, in QEMU's order; `resolve` checks what the object itself can tell and
//! yields a spec that cannot hold nonsense. What needs the model (is the id taken, does the chardev exist) comes between.

mod address;
mod af_packet;
mod af_xdp;
mod announce;
mod bridge;
mod chardev;
mod command;
mod dgram;
mod fd;
mod fdb;
mod hubport;
mod l2tpv3;
mod mac;
mod netdev;
mod netmap;
mod nic;
mod rx_filter;
mod socket;
mod stream;
mod tap;
mod user;
mod user_rule;
mod vde;
mod vduse;
mod vhost_user;
mod vhost_vdpa;
mod vmnet;
mod words;

pub use address::{FdSocketAddress, InetSocketAddress, SocketAddress, UnixSocketAddress, VsockSocketAddress};
pub use af_packet::AfPacket;
pub use af_xdp::AfXdp;
pub use announce::AnnounceSelf;
pub use bridge::Bridge;
pub use chardev::{ChardevAdd, ChardevSpec, SocketBackend, unix_path};
pub use command::{Command, SetLink, XSetWorker};
pub use dgram::Dgram;
pub use fd::{FdRef, check_fd_name};
pub use fdb::{FDB_LIMIT_MAX, XFdbAdd, XFdbDel, XFdbFlush, XQueryFdb, XSetHub};
pub use hubport::Hubport;
pub use l2tpv3::L2tpv3;
pub use mac::{check_unicast, mac_of_number, nic_mac};
pub use netdev::{Members, Netdev, NetdevAdd, NetdevKind, NetdevSpec};
pub use netmap::Netmap;
pub use nic::{Nic, NicSpec};
pub use rx_filter::{XSetRxFilter, rx_filter_info};
pub use socket::Socket;
pub use stream::Stream;
pub use tap::Tap;
pub use user::{Text, User};
pub use user_rule::{host_forward, host_forward_end};
pub use vde::Vde;
pub use vduse::Vduse;
pub use vhost_user::{VhostUser, VhostUserSpec};
pub use vhost_vdpa::VhostVdpa;
pub use vmnet::{VmnetBridged, VmnetHost, VmnetShared};

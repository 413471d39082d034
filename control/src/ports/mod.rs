//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod af_packet;
mod af_xdp;
mod dgram;
mod l2tpv3;
mod netmap;
mod socket;
mod socket_datagrams;
mod stream;
mod tap;
mod user;
mod vde;
mod vduse;
mod vhost_vdpa;

pub use af_packet::AfPacketSpec;
pub use af_xdp::{AfXdpSource, AfXdpSpec};
pub use dgram::DgramSpec;
pub use l2tpv3::L2tpv3Spec;
pub use netmap::NetmapSpec;
pub use socket::SocketSpec;
pub use stream::{StreamSource, StreamSpec};
pub use tap::{Script, TapSource, TapSpec};
pub use user::UserSpec;
pub use vde::VdeSpec;
pub use vduse::VduseSpec;
pub use vhost_vdpa::{FD_ERROR as VDPA_FD_ERROR, VdpaDevice, VhostVdpaSpec};

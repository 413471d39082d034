//! The netdev types that are opened beside control: what their options resolve to, and how that is opened.

mod af_packet;
mod dgram;
mod socket;
mod socket_datagrams;
mod stream;
mod tap;
mod vduse;
mod vhost_vdpa;

pub use af_packet::AfPacketSpec;
pub use dgram::DgramSpec;
pub use socket::SocketSpec;
pub use stream::{StreamSource, StreamSpec};
pub use tap::{Script, TapSource, TapSpec};
pub use vduse::VduseSpec;
pub use vhost_vdpa::{FD_ERROR as VDPA_FD_ERROR, VdpaDevice, VhostVdpaSpec};

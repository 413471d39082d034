//! What is offered to a front end; a bit is offered once it is served.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::virtio_net;

/// Virtio features for `pairs` queue pairs. The link state is the front end's to show (it knows the socket), and so are
/// all other fields of the configuration space, so there is no VIRTIO_NET_F_STATUS or MAC here.
pub(super) fn offered(pairs: usize) -> u64 {
    let several = if pairs > 1 { 1 << VIRTIO_NET_F_MQ } else { 0 };
    FEATURES | several | virtio_net::OFFLOADS
}

/// The protocol features without which there is no such request.
pub(super) fn needed(request: FrontendReq) -> u64 {
    let needed = match request {
        FrontendReq::GET_QUEUE_NUM => VhostUserProtocolFeatures::MQ,
        FrontendReq::RESET_DEVICE => VhostUserProtocolFeatures::RESET_DEVICE,
        FrontendReq::NET_SET_MTU => VhostUserProtocolFeatures::MTU,
        FrontendReq::SEND_RARP => VhostUserProtocolFeatures::RARP,
        FrontendReq::GET_STATUS | FrontendReq::SET_STATUS => VhostUserProtocolFeatures::STATUS,
        FrontendReq::GET_MAX_MEM_SLOTS | FrontendReq::ADD_MEM_REG | FrontendReq::REM_MEM_REG => {
            VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        }
        _ => VhostUserProtocolFeatures::empty(),
    };
    needed.bits()
}

/// VIRTIO_F_RING_PACKED.
pub(super) const PACKED: u64 = 1 << VIRTIO_F_RING_PACKED;
/// VHOST_USER_F_PROTOCOL_FEATURES.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Virtio features for a port of one queue pair.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | PACKED
    | 1 << VIRTIO_F_IN_ORDER
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | PROTOCOL_FEATURES;
/// Protocol features.
pub(super) const PROTOCOL: u64 = VhostUserProtocolFeatures::MQ.bits()
    | VhostUserProtocolFeatures::REPLY_ACK.bits()
    | VhostUserProtocolFeatures::RARP.bits()
    | VhostUserProtocolFeatures::MTU.bits()
    | VhostUserProtocolFeatures::RESET_DEVICE.bits()
    | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS.bits()
    | VhostUserProtocolFeatures::STATUS.bits();

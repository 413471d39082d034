//! What is offered to a front end; a bit is offered once it is served.
//!
//! The control queue, and what belongs to it, is for front ends that hand all queues on. One that answers the guest's
//! commands itself, as QEMU and DPDK do, takes what it knows of these bits and never starts that ring; so nothing follows
//! from the bits alone.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STANDBY, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::log::LOG_ALL;
use super::nic::NicState;
use crate::virtio_net;

/// Virtio features for `pairs` queue pairs and a nic.
pub(super) fn offered(pairs: usize, nic: &NicState) -> u64 {
    let bit_if = |wanted: bool, bit: u32| if wanted { 1 << bit } else { 0 };
    let control = if has_control_queue(pairs) { CONTROL } else { 0 };
    FEATURES
        | control
        | bit_if(pairs > 1, VIRTIO_NET_F_MQ)
        | bit_if(nic.mac.is_some(), VIRTIO_NET_F_MAC)
        | bit_if(nic.standby, VIRTIO_NET_F_STANDBY)
        | virtio_net::OFFLOADS
}

/// Whether there can be a control queue: the messages about a ring's descriptors have 8 bits for its index.
pub(super) fn has_control_queue(pairs: usize) -> bool {
    2 * pairs <= u8::MAX as usize
}

/// The control queue's ring, if there is one with these features: behind all queue pairs that they allow (virtio 1.2,
/// 5.1.2).
pub(super) fn control_queue(features: u64, pairs: usize) -> Option<usize> {
    let has = |bit: u32| features & 1 << bit != 0;
    let allowed = if has(VIRTIO_NET_F_MQ) { pairs } else { 1 };
    has(VIRTIO_NET_F_CTRL_VQ).then_some(2 * allowed)
}

/// How many rings carry frames, from the first: those of as many pairs as there can be.
pub(super) fn data_rings(features: u64, pairs: usize) -> usize {
    control_queue(features, pairs).unwrap_or(2 * pairs)
}

/// The protocol features without which there is no such request.
pub(super) fn needed(request: FrontendReq) -> u64 {
    let needed = match request {
        FrontendReq::GET_QUEUE_NUM => VhostUserProtocolFeatures::MQ,
        FrontendReq::SET_LOG_BASE => VhostUserProtocolFeatures::LOG_SHMFD,
        FrontendReq::RESET_DEVICE => VhostUserProtocolFeatures::RESET_DEVICE,
        FrontendReq::NET_SET_MTU => VhostUserProtocolFeatures::MTU,
        FrontendReq::SEND_RARP => VhostUserProtocolFeatures::RARP,
        FrontendReq::GET_STATUS | FrontendReq::SET_STATUS => VhostUserProtocolFeatures::STATUS,
        FrontendReq::GET_MAX_MEM_SLOTS | FrontendReq::ADD_MEM_REG | FrontendReq::REM_MEM_REG => {
            VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        }
        FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => VhostUserProtocolFeatures::CONFIG,
        FrontendReq::GET_INFLIGHT_FD | FrontendReq::SET_INFLIGHT_FD => {
            VhostUserProtocolFeatures::INFLIGHT_SHMFD
        }
        FrontendReq::SET_BACKEND_REQ_FD => VhostUserProtocolFeatures::BACKEND_REQ,
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
    | 1 << VIRTIO_NET_F_STATUS
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | LOG_ALL
    | PROTOCOL_FEATURES;
/// What comes with a control queue; several queue pairs are offered apart.
const CONTROL: u64 = 1 << VIRTIO_NET_F_CTRL_VQ
    | 1 << VIRTIO_NET_F_CTRL_RX
    | 1 << VIRTIO_NET_F_CTRL_RX_EXTRA
    | 1 << VIRTIO_NET_F_CTRL_VLAN
    | 1 << VIRTIO_NET_F_CTRL_MAC_ADDR
    | 1 << VIRTIO_NET_F_GUEST_ANNOUNCE;
/// Protocol features.
pub(super) const PROTOCOL: u64 = VhostUserProtocolFeatures::MQ.bits()
    | VhostUserProtocolFeatures::LOG_SHMFD.bits()
    | VhostUserProtocolFeatures::REPLY_ACK.bits()
    | VhostUserProtocolFeatures::RARP.bits()
    | VhostUserProtocolFeatures::MTU.bits()
    | VhostUserProtocolFeatures::RESET_DEVICE.bits()
    | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS.bits()
    | VhostUserProtocolFeatures::STATUS.bits()
    | VhostUserProtocolFeatures::CONFIG.bits()
    | VhostUserProtocolFeatures::BACKEND_REQ.bits()
    | VhostUserProtocolFeatures::INFLIGHT_SHMFD.bits();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queue_is_behind_all_pairs_that_are_negotiated() {
        let (control, several) = (1 << VIRTIO_NET_F_CTRL_VQ, 1 << VIRTIO_NET_F_MQ);
        assert_eq!(control_queue(control | several, 4), Some(8));
        assert_eq!(control_queue(control, 4), Some(2));
        assert_eq!(control_queue(several, 4), None);
    }

    #[test]
    fn a_control_queue_that_no_message_reaches_is_not_offered() {
        let nic = NicState::default();
        assert_eq!(offered(127, &nic) & CONTROL, CONTROL);
        assert_eq!(offered(128, &nic) & CONTROL, 0);
    }

    #[test]
    fn what_a_nic_is_decides_what_its_guest_is_offered() {
        let mac = Some(ringyard_dataplane::mac::Mac([2, 0, 0, 0, 0, 1]));
        let with = |nic: NicState| offered(1, &nic) & (1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STANDBY);
        assert_eq!(with(NicState::default()), 0);
        assert_eq!(with(NicState { mac, ..NicState::default() }), 1 << 5);
        assert_eq!(with(NicState { mac, standby: true, link: false }), 1 << 5 | 1 << 62);
    }
}

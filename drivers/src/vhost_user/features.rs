//! What is offered to a front end; a bit is offered once it is served.

use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::ring::RingOptions;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Virtio features for `pairs` queue pairs. The link state is the front end's to show (it knows the socket), and so are
/// all other fields of the configuration space, so there is no VIRTIO_NET_F_STATUS or MAC here.
pub(super) fn offered(pairs: usize) -> u64 {
    let several = if pairs > 1 { 1 << VIRTIO_NET_F_MQ } else { 0 };
    let offloads = SEND.iter().chain(&RECEIVE).fold(0, |bits, (bit, _)| bits | 1 << bit);
    FEATURES | several | offloads
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

/// What virtio features mean to rings.
pub(super) fn options(features: u64) -> RingOptions {
    let has = |bit: u32| features & 1 << bit != 0;
    RingOptions {
        packed: has(VIRTIO_F_RING_PACKED),
        in_order: has(VIRTIO_F_IN_ORDER),
        event_idx: has(VIRTIO_RING_F_EVENT_IDX),
        indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
        mergeable: has(VIRTIO_NET_F_MRG_RXBUF),
        version_1: has(VIRTIO_F_VERSION_1),
        send: offloads(features, &SEND),
        receive: offloads(features, &RECEIVE),
    }
}

/// What the features of `table` that were negotiated amount to.
fn offloads(features: u64, table: &[(u32, Offloads)]) -> Offloads {
    let has = |bit: u32| features & 1 << bit != 0;
    table.iter().fold(Offloads::NONE, |all, &(bit, offloads)| all.with_if(has(bit), offloads)).consistent()
}

/// What a guest may ask of us.
const SEND: [(u32, Offloads); 5] = [
    (VIRTIO_NET_F_CSUM, Offloads::CHECKSUM),
    (VIRTIO_NET_F_HOST_TSO4, Offloads::TSO4),
    (VIRTIO_NET_F_HOST_TSO6, Offloads::TSO6),
    (VIRTIO_NET_F_HOST_ECN, Offloads::ECN),
    (VIRTIO_NET_F_HOST_USO, Offloads::USO4.with(Offloads::USO6)),
];
/// What a guest may take itself.
const RECEIVE: [(u32, Offloads); 6] = [
    (VIRTIO_NET_F_GUEST_CSUM, Offloads::CHECKSUM),
    (VIRTIO_NET_F_GUEST_TSO4, Offloads::TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, Offloads::TSO6),
    (VIRTIO_NET_F_GUEST_ECN, Offloads::ECN),
    (VIRTIO_NET_F_GUEST_USO4, Offloads::USO4),
    (VIRTIO_NET_F_GUEST_USO6, Offloads::USO6),
];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offload_is_offered_and_means_one_side_of_a_ring() {
        let bits = [0, 1, 7, 8, 9, 11, 12, 13, 54, 55, 56].map(|bit| 1u64 << bit);
        assert!(bits.iter().all(|bit| offered(1) & bit != 0));
        assert_eq!(options(offered(1)).send, Offloads::ALL);
        assert_eq!(options(offered(1)).receive, Offloads::ALL);
        assert_eq!(options(1 | 1 << 56).send, Offloads::ALL.without(TCP));
        assert_eq!(options(1 | 1 << 56).receive, Offloads::NONE);
        assert_eq!(options(1 << 1 | 1 << 54).receive, Offloads::CHECKSUM.with(Offloads::USO4));
    }

    #[test]
    fn segmentation_without_the_checksum_is_nothing() {
        let without = options(offered(1) & !(1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM));
        assert_eq!((without.send, without.receive), (Offloads::NONE, Offloads::NONE));
    }

    const TCP: Offloads = Offloads::TSO4.with(Offloads::TSO6).with(Offloads::ECN);
}

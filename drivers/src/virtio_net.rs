//! The features of a virtio-net device that decide what its rings are, whichever end of them is ours.

use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::ring::RingOptions;
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// What virtio features mean to rings.
pub(crate) fn options(features: u64) -> RingOptions {
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

/// The features of both tables.
pub(crate) const OFFLOADS: u64 = bits(&SEND) | bits(&RECEIVE);

const fn bits(table: &[(u32, Offloads)]) -> u64 {
    let (mut all, mut place) = (0, 0);
    while place < table.len() {
        all |= 1 << table[place].0;
        place += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offload_means_one_side_of_a_ring() {
        let bits = [0, 1, 7, 8, 9, 11, 12, 13, 54, 55, 56].map(|bit| 1u64 << bit);
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), OFFLOADS);
        assert_eq!(options(OFFLOADS).send, Offloads::ALL);
        assert_eq!(options(OFFLOADS).receive, Offloads::ALL);
        assert_eq!(options(1 | 1 << 56).send, Offloads::ALL.without(TCP));
        assert_eq!(options(1 | 1 << 56).receive, Offloads::NONE);
        assert_eq!(options(1 << 1 | 1 << 54).receive, Offloads::CHECKSUM.with(Offloads::USO4));
    }

    #[test]
    fn segmentation_without_the_checksum_is_nothing() {
        let without = options(OFFLOADS & !(1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM));
        assert_eq!((without.send, without.receive), (Offloads::NONE, Offloads::NONE));
    }

    const TCP: Offloads = Offloads::TSO4.with(Offloads::TSO6).with(Offloads::ECN);
}

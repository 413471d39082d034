//! What to make of a device: pure arithmetic over what it offers.

use ringyard_dataplane::frame::FRAME_LEN_MAX;
use ringyard_dataplane::ring::DeviceQueue;
use virtio_bindings::virtio_config::{
    VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_ORDER_PLATFORM, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::control::{self, ControlQueue};
use crate::sys::vdpa::{CONFIG_LEN, IovaRange};
use crate::virtio_net::OFFLOADS;

/// How a device is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be acknowledged.
    pub features: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// The control queue's ring, if it has something to tell.
    pub control: Option<u32>,
    /// Entries of each ring, of the control queue's too.
    pub ring_size: u16,
    pub control_size: u16,
    /// Bytes of a receive buffer.
    pub receive_len: usize,
}

impl Plan {
    /// For a device that offers `features` and has `config`, at most `rings` rings if that is known, and rings of at most
    /// `ring_size_max` entries; of whose queue pairs up to `queues` are wanted.
    ///
    /// Errors: we cannot drive it.
    pub(super) fn new(
        offered: u64,
        config: &[u8; CONFIG_LEN],
        rings: Option<u32>,
        ring_size_max: u16,
        queues: u16,
    ) -> Result<Plan, String> {
        if offered & VERSION_1 == 0 {
            return Err(format!("no virtio 1.0 device (features {offered:#x})"));
        }
        if ring_size_max < RING_SIZE_MIN {
            return Err(format!("rings of {ring_size_max} entries, and {RING_SIZE_MIN} are needed"));
        }
        let rings = rings.unwrap_or(u32::MAX);
        if rings < 2 {
            return Err(format!("{rings} rings, and a queue pair has 2"));
        }
        let pairs_max = if offered & MQ == 0 { 1 } else { u16::from_le_bytes([config[8], config[9]]).max(1) };
        // Beyond all pairs that the device has, if we say that we know of several.
        let control_of = |several: bool| if several { 2 * u32::from(pairs_max) } else { 2 };
        let has_control = |several| offered & CTRL_VQ != 0 && control_of(several) < rings;
        let several = queues.min(pairs_max) > 1 && has_control(true);
        let controls = has_control(several) && (several || offered & CTRL_RX != 0);
        let unused = if several { 0 } else { MQ } | if controls { 0 } else { CTRL_VQ | CTRL_RX };
        let features = offered & WANTED & !unused;
        let ring_size = power_of_two_in(ring_size_max);
        let mergeable = features & MRG_RXBUF != 0;
        Ok(Plan {
            features,
            pairs: if several { queues.min(pairs_max).min(QUEUES_MAX) } else { 1 },
            control: controls.then(|| control_of(several)),
            ring_size: ring_size.min(if mergeable { RING_SIZE } else { LONG_RING_SIZE }),
            control_size: ring_size.min(control::RING_SIZE),
            receive_len: if mergeable { BUFFER_LEN } else { NET_HEADER_LEN + FRAME_LEN_MAX },
        })
    }

    /// Where each queue begins in the memory, the control queue last, and how long the memory is.
    pub(super) fn lay_out(&self) -> (Vec<usize>, usize) {
        let receive = DeviceQueue::footprint(self.ring_size, self.receive_len);
        let send = DeviceQueue::footprint(self.ring_size, BUFFER_LEN);
        let mut ends = vec![0];
        let lens = [receive, send].into_iter().cycle().take(2 * usize::from(self.pairs));
        for len in lens.chain([ControlQueue::footprint(self.control_size)]) {
            ends.push(ends[ends.len() - 1] + len);
        }
        let len = ends.pop().unwrap_or_default();
        (ends, len.next_multiple_of(PAGE_LEN as usize))
    }
}

/// Where memory of `len` bytes may begin for a device that reaches `range`.
pub(super) fn place(range: IovaRange, len: usize) -> Result<u64, String> {
    let fits = |start: u64| start.checked_add(len as u64 - 1).is_some_and(|last| last <= range.last);
    let first = range.first.checked_next_multiple_of(PAGE_LEN);
    let place = first
        .map(|first| first.max(IOVA))
        .filter(|&start| fits(start))
        .or(first.filter(|&start| fits(start)));
    place.ok_or_else(|| {
        format!(
            "{len} bytes of memory, and the device reaches addresses from {:#x} to {:#x}",
            range.first, range.last
        )
    })
}

/// The greatest power of two that is not more; of a number that is not 0.
fn power_of_two_in(number: u16) -> u16 {
    1 << number.ilog2()
}

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const MQ: u64 = 1 << VIRTIO_NET_F_MQ;
const CTRL_VQ: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
/// VIRTIO_NET_F_CTRL_RX.
pub(super) const CTRL_RX: u64 = 1 << VIRTIO_NET_F_CTRL_RX;
const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
/// VIRTIO_NET_F_STATUS.
pub(super) const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
/// What is acknowledged where it is offered. VIRTIO_F_ORDER_PLATFORM asks for barriers that hold towards a device that is no
/// processor: on x86 those that there are do.
const WANTED: u64 = VERSION_1
    | 1 << VIRTIO_F_ACCESS_PLATFORM
    | if cfg!(target_arch = "x86_64") { 1 << VIRTIO_F_ORDER_PLATFORM } else { 0 }
    | 1 << VIRTIO_F_RING_PACKED
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_NET_F_MAC
    | STATUS
    | MRG_RXBUF
    | CTRL_VQ
    | CTRL_RX
    | MQ
    | OFFLOADS;
/// Queue pairs, at most.
pub(super) const QUEUES_MAX: u16 = 256;
/// Entries of a ring, at most and at least. A frame of any length goes into a ring of the latter.
const RING_SIZE: u16 = 1024;
const RING_SIZE_MIN: u16 = 32;
/// At most, where each receive buffer has room for the longest frame.
const LONG_RING_SIZE: u16 = 256;
/// Bytes of a transmit buffer, and of a receive buffer where frames are merged over several.
pub(super) const BUFFER_LEN: usize = 4096;
const NET_HEADER_LEN: usize = 12;
const PAGE_LEN: u64 = 4096;
/// Where our memory begins in the device's addresses, if it can: not at 0, which some take for nothing, and far from what
/// some machines keep for interrupts.
const IOVA: u64 = 0x10_0000;

#[cfg(test)]
mod tests {
    use super::*;

    const BASIC: u64 = VERSION_1 | 1 << 33;
    const CONTROLS: u64 = CTRL_VQ | CTRL_RX | MQ;

    fn plan(offered: u64, pairs: u16, rings: Option<u32>, queues: u16) -> Result<Plan, String> {
        let mut config = [0; CONFIG_LEN];
        config[8..10].copy_from_slice(&pairs.to_le_bytes());
        Plan::new(offered, &config, rings, 256, queues)
    }

    #[test]
    fn what_is_not_offered_is_not_asked_for_and_what_is_not_known_is_not_taken() {
        let plan = plan(u64::MAX, 4, Some(9), 4).unwrap();
        assert_eq!(plan.features & !WANTED, 0);
        assert_eq!((plan.pairs, plan.control), (4, Some(8)));
        let bare = super::tests::plan(BASIC, 4, None, 4).unwrap();
        assert_eq!((bare.features, bare.pairs, bare.control), (BASIC, 1, None));
        assert!(
            super::tests::plan(1 << 33, 1, None, 1).is_err_and(|why| why.starts_with("no virtio 1.0 device"))
        );
    }

    #[test]
    fn as_many_pairs_are_used_as_are_wanted_and_there() {
        let offered = BASIC | CONTROLS;
        for (pairs, rings, queues, used, control) in [
            (4, Some(9), 2, 2, Some(8)),
            (4, Some(9), 9, 4, Some(8)),
            (4, Some(9), 1, 1, Some(2)),
            (0, Some(3), 8, 1, Some(2)),
            (1, None, 8, 1, Some(2)),
            // A device that says that it has fewer rings than it needs.
            (4, Some(8), 4, 1, Some(2)),
            (4, Some(2), 4, 1, None),
            (u16::MAX, None, u16::MAX, QUEUES_MAX, Some(2 * 65_535)),
        ] {
            let plan = plan(offered, pairs, rings, queues).unwrap();
            assert_eq!((plan.pairs, plan.control), (used, control), "{pairs} {rings:?} {queues}");
            assert_eq!(plan.features & MQ != 0, used > 1);
            assert_eq!(plan.features & CTRL_VQ != 0, control.is_some());
        }
        let unfiltered = plan(BASIC | CTRL_VQ | MQ, 4, None, 1).unwrap();
        assert_eq!(unfiltered.control, None, "it has nothing to be told");
        assert!(plan(offered, 1, Some(1), 1).is_err());
    }

    #[test]
    fn buffers_take_every_frame() {
        let merged = plan(BASIC | MRG_RXBUF, 1, None, 1).unwrap();
        assert_eq!((merged.receive_len, merged.ring_size), (4096, 256));
        let single = plan(BASIC, 1, None, 1).unwrap();
        assert_eq!(single.receive_len, 12 + FRAME_LEN_MAX);
        let config = [0; CONFIG_LEN];
        let sized = |max| Plan::new(BASIC | MRG_RXBUF, &config, None, max, 1).map(|plan| plan.ring_size);
        assert_eq!([sized(32), sized(300), sized(32_768)], [Ok(32), Ok(256), Ok(1024)]);
        assert!(sized(31).is_err());
        assert!(RING_SIZE_MIN as usize * BUFFER_LEN >= NET_HEADER_LEN + FRAME_LEN_MAX);
    }

    #[test]
    fn queues_lie_side_by_side() {
        let plan = plan(BASIC | CONTROLS | MRG_RXBUF, 2, None, 2).unwrap();
        let (offsets, len) = plan.lay_out();
        assert_eq!((offsets.len(), offsets[0], len % 4096), (5, 0, 0));
        let each = DeviceQueue::footprint(256, 4096);
        assert!(offsets.windows(2).all(|pair| pair[1] - pair[0] == each) && len > offsets[4]);
    }

    #[test]
    fn memory_is_where_the_device_reaches_it() {
        let range = |first, last| IovaRange { first, last };
        assert_eq!(place(range(0, u64::MAX), 0x1000), Ok(0x10_0000));
        assert_eq!(place(range(0x20_0001, u64::MAX), 0x1000), Ok(0x20_1000));
        assert_eq!(place(range(0, 0xffff), 0x1_0000), Ok(0));
        assert!(place(range(0, 0xfffe), 0x1_0000).is_err());
        assert!(place(range(u64::MAX - 5, u64::MAX), 0x1000).is_err());
    }
}

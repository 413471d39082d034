//! Frames on their way in: lent from the slots of the ring that they lie in, and given back to the kernel one by one when
//! they are settled.
//!
//! Each stands behind a virtio-net header, which says what its sender left to its receiver. The VLAN tag that the kernel
//! took out is put back in the slot itself: there is room before the header. A frame that is longer than a slot (one of
//! 64 KiB, to be cut) the kernel keeps aside, and it is read into memory of ours.

use std::os::fd::AsFd;

use libc::{TP_STATUS_COPY, TP_STATUS_LOSING, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID};
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_BYTES, BURST_FRAMES, Burst, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offloads};
use ringyard_dataplane::port::IngressScratch;
use rustix::io::Errno;
use virtio_bindings::virtio_net::VIRTIO_NET_HDR_F_NEEDS_CSUM;

use super::ring::{HEADROOM, Ring, Slot};
use super::socket::Socket;
use crate::sys::message;

/// See the module. One of the port's queues.
pub(super) struct Inbox {
    ring: Ring,
    /// Where the frames lie that are lent, in order.
    extents: [Extent; BURST_FRAMES],
    count: usize,
    /// Frames that are longer than a slot.
    long: Box<[u8]>,
    long_end: usize,
    /// One of these could not be read, and stays in front of those that follow.
    out_of_step: bool,
}

#[derive(Clone, Copy, Default)]
struct Extent {
    /// Of the net header, which the frame follows.
    start: usize,
    /// Of the frame.
    len: usize,
    place: Place,
}

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Long,
    Slot(usize),
}

const TAG_LEN: usize = 4;
const _: () = assert!(HEADROOM == NET_HEADER_LEN + TAG_LEN);
/// What reading one long frame may take: a byte more than the longest, so that a longer one is seen to be.
const LONG_LEN_MAX: usize = HEADROOM + FRAME_LEN_MAX + 1;

impl Inbox {
    pub(super) fn new(ring: Ring) -> Inbox {
        Inbox {
            ring,
            extents: [Extent::default(); BURST_FRAMES],
            count: 0,
            // The last one begins before BURST_BYTES are reached.
            long: vec![0; BURST_BYTES + LONG_LEN_MAX].into(),
            long_end: 0,
            out_of_step: false,
        }
    }

    /// Frames that are to be lent again.
    pub(super) fn held(&self) -> usize {
        self.count
    }

    /// Whether what the kernel keeps aside does not fit the slots any more. Nothing of it is read from then on.
    pub(super) fn is_out_of_step(&self) -> bool {
        self.out_of_step
    }

    /// Takes frames from the ring until a burst is full or there is none. Only when nothing is held, so that the order
    /// stays. Drops are counted in `scratch`, those of the kernel too; how many of ours there were.
    pub(super) fn fill(&mut self, socket: &Socket, scratch: &mut IngressScratch) -> usize {
        let (mut bytes, mut given_up, mut losing) = (0, 0, false);
        self.long_end = 0;
        while self.count < BURST_FRAMES && bytes.max(self.long_end) < BURST_BYTES {
            let Some(slot) = self.ring.take() else { break };
            losing |= slot.status & TP_STATUS_LOSING != 0;
            let found = if slot.status & TP_STATUS_COPY != 0 {
                let found = self.read_long(socket, &slot);
                self.ring.give_back(slot.index);
                found
            } else {
                self.find(&slot)
            };
            match found {
                Ok(extent) => {
                    bytes += extent.len;
                    self.extents[self.count] = extent;
                    self.count += 1;
                }
                Err(reason) => {
                    self.ring.give_back(slot.index);
                    scratch.tally.drop(reason);
                    given_up += 1;
                }
            }
        }
        if losing {
            // Asking also ends the kernel's saying so.
            let lost = socket.lost();
            scratch.tally.drops[DropReason::NoRoom as usize] += lost;
            given_up += lost as usize;
        }
        given_up
    }

    /// A frame in its slot.
    fn find(&mut self, slot: &Slot) -> Result<Extent, DropReason> {
        if slot.frame_len > slot.here_len {
            // Too long for a slot, and the kernel could not keep it aside.
            let too_long = slot.frame_len > FRAME_LEN_MAX;
            return Err(if too_long { DropReason::TooLong } else { DropReason::NoRoom });
        }
        if !self.ring.is_place(slot.start, slot.frame_len) {
            return Err(DropReason::Malformed);
        }
        let end = slot.start + slot.frame_len;
        let bytes = &mut self.ring.bytes_mut(slot.index)[slot.start - HEADROOM..end];
        let start = slot.start - HEADROOM + restore_tag(bytes, slot);
        Ok(Extent { start, len: end - start - NET_HEADER_LEN, place: Place::Slot(slot.index) })
    }

    /// A frame that the kernel kept aside, in the order of the slots.
    fn read_long(&mut self, socket: &Socket, slot: &Slot) -> Result<Extent, DropReason> {
        if self.out_of_step {
            return Err(DropReason::IoError);
        }
        let here = self.long_end;
        let from = here + TAG_LEN;
        let room = &mut self.long[from..here + LONG_LEN_MAX];
        let told = match message::receive(socket.as_fd(), room, libc::MSG_TRUNC) {
            // That of the socket, which comes once and before any frame.
            Err(error) if error != Errno::AGAIN => message::receive(socket.as_fd(), room, libc::MSG_TRUNC),
            received => received,
        }
        .map_err(|error| {
            self.out_of_step = error != Errno::AGAIN;
            DropReason::IoError
        })?;
        let len = told.min(room.len());
        let end = from + len;
        if end < here + HEADROOM {
            return Err(DropReason::Runt);
        }
        if told > len || end - here - HEADROOM > FRAME_LEN_MAX {
            return Err(DropReason::TooLong);
        }
        let start = here + restore_tag(&mut self.long[here..end], slot);
        self.long_end = end.next_multiple_of(64);
        Ok(Extent { start, len: end - start - NET_HEADER_LEN, place: Place::Long })
    }

    /// Lends the frames in order, all that one burst may have. What `forward` leaves unsettled stays. How many are gone.
    pub(super) fn lend(
        &mut self,
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        let before = self.count;
        // Which frames of the extents stand in the burst, one behind the other.
        let mut lent = [0u8; BURST_FRAMES];
        let mut gone = [false; BURST_FRAMES];
        let mut builder = scratch.burst.begin(queue);
        let mut index = 0;
        while index < before && !builder.is_full(1) && !builder.is_full_of_segments() {
            let Extent { start, len, place } = self.extents[index];
            let bytes = match place {
                Place::Slot(slot) => self.ring.bytes(slot),
                Place::Long => &self.long,
            };
            let (net, frame) = bytes[start..start + NET_HEADER_LEN + len].split_at(NET_HEADER_LEN);
            let net: &[u8; NET_HEADER_LEN] = net.try_into().expect("it was split there");
            lent[builder.len()] = index as u8;
            if let Err(reason) = builder.push_asking(net, frame, Offloads::ALL) {
                scratch.tally.drop(reason);
                gone[index] = true;
            }
            index += 1;
        }
        let taken = if builder.is_empty() { Taken::ALL } else { forward(&builder.burst()) };
        for (at, &index) in lent[..builder.len()].iter().enumerate() {
            gone[usize::from(index)] = taken.settled(at);
        }
        self.settle(&gone[..before])
    }

    fn settle(&mut self, gone: &[bool]) -> usize {
        self.count = 0;
        for (index, &gone) in gone.iter().enumerate() {
            let extent = self.extents[index];
            match (gone, extent.place) {
                (true, Place::Slot(slot)) => self.ring.give_back(slot),
                (true, Place::Long) => {}
                (false, _) => {
                    self.extents[self.count] = extent;
                    self.count += 1;
                }
            }
        }
        gone.len() - self.count
    }
}

/// Puts the tag that the kernel took out back behind the addresses of the frame that begins at [`HEADROOM`], and moves what
/// is before it to the front. Where the net header begins now.
fn restore_tag(bytes: &mut [u8], slot: &Slot) -> usize {
    let addresses_end = HEADROOM + 12;
    if slot.status & TP_STATUS_VLAN_VALID == 0 || bytes.len() < addresses_end {
        return TAG_LEN;
    }
    bytes.copy_within(TAG_LEN..addresses_end, 0);
    let told = slot.status & TP_STATUS_VLAN_TPID_VALID != 0 && slot.tag_type != 0;
    let tag_type = if told { slot.tag_type } else { VLAN };
    bytes[addresses_end - TAG_LEN..addresses_end - 2].copy_from_slice(&tag_type.to_be_bytes());
    bytes[addresses_end - 2..addresses_end].copy_from_slice(&slot.tag.to_be_bytes());
    if bytes[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 != 0 {
        let start = u16::from_le_bytes([bytes[6], bytes[7]]).wrapping_add(TAG_LEN as u16);
        bytes[6..8].copy_from_slice(&start.to_le_bytes());
    }
    0
}

/// 802.1Q.
const VLAN: u16 = 0x8100;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(status: u32, tag: u16, tag_type: u16) -> Slot {
        Slot { index: 0, status, frame_len: 60, here_len: 60, start: 66, tag, tag_type }
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0xee; TAG_LEN];
        bytes.extend([0; NET_HEADER_LEN]);
        bytes.extend(0..60);
        bytes
    }

    #[test]
    fn tag_is_put_back_behind_the_addresses() {
        for (status, told, expected) in [
            (TP_STATUS_VLAN_VALID, 0x88a8, 0x8100u16),
            (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0x88a8, 0x88a8),
            (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0, 0x8100),
        ] {
            let mut bytes = bytes();
            assert_eq!(restore_tag(&mut bytes, &slot(status, 0x6abc, told)), 0);
            let frame: Vec<u8> =
                (0..12).chain(expected.to_be_bytes()).chain([0x6a, 0xbc]).chain(12..60).collect();
            assert_eq!(&bytes[..NET_HEADER_LEN], [0; NET_HEADER_LEN]);
            assert_eq!(&bytes[NET_HEADER_LEN..], frame);
        }
    }

    #[test]
    fn header_of_the_kernel_stays_and_its_checksum_moves_with_the_tag() {
        let mut bytes = bytes();
        bytes[TAG_LEN..HEADROOM].copy_from_slice(&[1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
        let mut untagged = bytes.clone();
        assert_eq!(restore_tag(&mut untagged, &slot(0, 5, 0x8100)), TAG_LEN);
        assert_eq!(untagged, bytes);
        assert_eq!(restore_tag(&mut bytes, &slot(TP_STATUS_VLAN_VALID, 5, 0)), 0);
        assert_eq!(&bytes[..NET_HEADER_LEN], [1, 0, 0, 0, 0, 0, 38, 0, 6, 0]);
    }

    #[test]
    fn frame_that_is_cut_in_its_addresses_is_left_alone() {
        let mut bytes = bytes();
        bytes.truncate(HEADROOM + 11);
        let before = bytes[HEADROOM..].to_vec();
        assert_eq!(restore_tag(&mut bytes, &slot(TP_STATUS_VLAN_VALID, 5, 0)), TAG_LEN);
        assert_eq!(bytes[HEADROOM..], before);
    }
}

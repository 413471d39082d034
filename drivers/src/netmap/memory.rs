//! The memory that the kernel shares: rings of slots, and the buffers that these name.
//!
//! It is the kernel's, and for a network card any process's that has netmap ports too, so nothing there is trusted. What
//! a ring looks like is read once, checked against the mapping and kept here; each word that moves is read once, into a
//! local, and checked before it is used. Loom cannot run the other end; that an index hands over what lies before it is in the
//! model of the data plane's rings.

#![allow(unsafe_code)] // memory that others write to

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringyard_dataplane::frame::Piece;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; all access is by atomic words and by copies.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len` bytes of the memory of `fd`.
    pub(super) fn map(fd: BorrowedFd<'_>, len: u64) -> io::Result<Region> {
        let len = usize::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe {
            mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        }?;
        let start = NonNull::new(start.cast()).expect("nothing is mapped at address 0");
        Ok(Region { start, len })
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The 32-bit word at `at`, if it lies in here.
    fn word(&self, at: usize) -> Option<&AtomicU32> {
        self.holds(at, 4, 4).then(|| {
            // SAFETY: inside the mapping and aligned, as just checked; everybody's writes there are of whole words.
            unsafe { AtomicU32::from_ptr(self.start.as_ptr().wrapping_add(at).cast()) }
        })
    }

    /// The 64-bit word at `at`, if it lies in here.
    fn long(&self, at: usize) -> Option<&AtomicU64> {
        self.holds(at, 8, 8).then(|| {
            // SAFETY: as in `word`.
            unsafe { AtomicU64::from_ptr(self.start.as_ptr().wrapping_add(at).cast()) }
        })
    }

    fn holds(&self, at: usize, len: usize, alignment: usize) -> bool {
        at.is_multiple_of(alignment) && at.checked_add(len).is_some_and(|end| end <= self.len)
    }

    fn read(&self, at: usize) -> Result<u32, String> {
        self.word(at)
            .map(|word| word.load(Ordering::Acquire))
            .ok_or_else(|| format!("{at:#x} is not in the memory"))
    }

    fn read_long(&self, at: usize) -> Result<i64, String> {
        let long = self.long(at).map(|long| long.load(Ordering::Acquire).cast_signed());
        long.ok_or_else(|| format!("{at:#x} is not in the memory"))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; what points into it is owned by those that own an `Arc` of it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Into which direction a ring's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Out: a transmit ring.
    Out,
    /// In: a receive ring.
    In,
}

/// A ring that was found sound.
#[derive(Debug)]
pub(super) struct Ring {
    region: Arc<Region>,
    /// Where `struct netmap_ring` begins.
    at: usize,
    slots: u32,
    /// Where buffer 0 begins.
    buffers_at: usize,
    /// Buffers that lie in the mapping, from that one on.
    buffers: u32,
    buffer_len: usize,
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) buffer: u32,
    pub(super) len: u16,
    pub(super) more: bool,
}

impl Ring {
    /// The ring number `index`, the host's counted behind the others, of the `struct netmap_if` at `interface_at`.
    ///
    /// Errors: what is not sound, for people.
    pub(super) fn find(
        region: &Arc<Region>,
        interface_at: u64,
        way: Way,
        index: u32,
    ) -> Result<Ring, String> {
        let interface =
            usize::try_from(interface_at).map_err(|_| "the interface is not in the memory".to_owned())?;
        let field =
            |offset| region.read(interface.checked_add(offset).ok_or("the interface is not in the memory")?);
        let (out, host_out) = (field(IF_TX_RINGS)?, field(IF_HOST_TX_RINGS)?);
        let (inward, host_in) = (field(IF_RX_RINGS)?, field(IF_HOST_RX_RINGS)?);
        if [out, host_out, inward, host_in].iter().any(|count| *count > RINGS_MAX) {
            return Err(format!("there are more than {RINGS_MAX} rings"));
        }
        let (before, count) = match way {
            Way::Out => (0, out + host_out),
            Way::In => (out + host_out, inward + host_in),
        };
        if index >= count {
            return Err(format!("there is no ring {index}"));
        }
        let place = IF_RING_OFS + (before + index) as usize * size_of::<i64>();
        let offset = region.read_long(interface + place)?;
        let at = checked_offset(interface, offset).filter(|at| offset != 0 && at.is_multiple_of(8));
        Ring::check(region.clone(), at.ok_or_else(|| format!("ring {index} is at offset {offset}"))?)
    }

    fn check(region: Arc<Region>, at: usize) -> Result<Ring, String> {
        // In one piece, so that no offset below can overflow.
        if !region.holds(at, RING_SLOTS, 8) {
            return Err(format!("the ring at {at:#x} is not in the memory"));
        }
        let (slots, buffer_len) = (region.read(at + RING_NUM_SLOTS)?, region.read(at + RING_BUF_SIZE)?);
        let buffers_offset = region.read_long(at)?;
        if !(SLOTS_MIN..=SLOTS_MAX).contains(&slots)
            || !region.holds(at, RING_SLOTS + slots as usize * SLOT_LEN, 8)
        {
            return Err(format!("the ring at {at:#x} has {slots} slots"));
        }
        if !(BUFFER_LEN_MIN..=BUFFER_LEN_MAX).contains(&buffer_len) {
            return Err(format!("the ring at {at:#x} has buffers of {buffer_len} bytes"));
        }
        let buffers_at = checked_offset(at, buffers_offset).filter(|start| *start < region.len());
        let buffers_at = buffers_at.ok_or_else(|| format!("the buffers are at offset {buffers_offset}"))?;
        let buffer_len = buffer_len as usize;
        let buffers = u32::try_from((region.len() - buffers_at) / buffer_len).unwrap_or(u32::MAX);
        Ok(Ring { region, at, slots, buffers_at, buffers, buffer_len })
    }

    /// Slots.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of a buffer.
    pub(super) fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// Where we go on at first.
    pub(super) fn head(&self) -> Option<u32> {
        self.index(RING_HEAD)
    }

    /// The first slot that is the kernel's; `None` when the ring has no such slot.
    pub(super) fn tail(&self) -> Option<u32> {
        self.index(RING_TAIL)
    }

    fn index(&self, field: usize) -> Option<u32> {
        // Acquire: what the kernel put into slots before it moved the index is read after it.
        let index = self.at_field(field).load(Ordering::Acquire);
        (index < self.slots).then_some(index)
    }

    /// Says which slot is the first of ours, and which one we want to be woken for.
    pub(super) fn publish(&self, head: u32, cur: u32) {
        // Release: slots and buffers are written first. The kernel looks in our next call.
        self.at_field(RING_CUR).store(cur, Ordering::Release);
        self.at_field(RING_HEAD).store(head, Ordering::Release);
    }

    /// The slot behind `index`.
    pub(super) fn next(&self, index: u32) -> u32 {
        if index + 1 == self.slots { 0 } else { index + 1 }
    }

    /// Slots from `from` on that come before `to`.
    pub(super) fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + self.slots - from }
    }

    /// What the slot `index`, one of the ring's, says.
    pub(super) fn slot(&self, index: u32) -> Slot {
        let at = self.slot_at(index);
        let word = self.region.long(at).map_or(0, |long| long.load(Ordering::Relaxed));
        let [a, b, c, d, len_a, len_b, flags_a, flags_b] = word.to_ne_bytes();
        Slot {
            buffer: u32::from_ne_bytes([a, b, c, d]),
            len: u16::from_ne_bytes([len_a, len_b]),
            more: u16::from_ne_bytes([flags_a, flags_b]) & NS_MOREFRAG != 0,
        }
    }

    /// Says what the buffer of the slot `index` holds.
    pub(super) fn fill_slot(&self, index: u32, len: u16, more: bool) {
        let ([a, b], [c, d]) = (len.to_ne_bytes(), if more { NS_MOREFRAG } else { 0 }.to_ne_bytes());
        let word = u32::from_ne_bytes([a, b, c, d]);
        let at = self.slot_at(index) + SLOT_LEN_AND_FLAGS;
        self.region.word(at).into_iter().for_each(|place| place.store(word, Ordering::Relaxed));
    }

    /// What lies in the buffer of a slot, if there is such a buffer and it has as many bytes.
    pub(super) fn piece(&self, slot: Slot) -> Option<Piece> {
        let start = self.buffer(slot.buffer)?;
        (usize::from(slot.len) <= self.buffer_len).then(|| Piece::at(start, slot.len.into()))
    }

    /// The buffer of that number, [`Self::buffer_len`] bytes, if there is one.
    pub(super) fn buffer(&self, number: u32) -> Option<*mut u8> {
        let at = self.buffers_at + number as usize * self.buffer_len;
        (number < self.buffers).then(|| self.region.start.as_ptr().wrapping_add(at))
    }

    fn slot_at(&self, index: u32) -> usize {
        self.at + RING_SLOTS + (index % self.slots) as usize * SLOT_LEN
    }

    fn at_field(&self, field: usize) -> &AtomicU32 {
        self.region.word(self.at + field).expect("`check` found the ring's head in the mapping")
    }
}

fn checked_offset(from: usize, offset: i64) -> Option<usize> {
    from.checked_add_signed(isize::try_from(offset).ok()?)
}

// `struct netmap_if`: ni_name[16], ni_version, ni_flags, then these; ring_ofs[] are 64-bit words.
pub(super) const IF_TX_RINGS: usize = 24;
pub(super) const IF_RX_RINGS: usize = 28;
pub(super) const IF_HOST_TX_RINGS: usize = 36;
pub(super) const IF_HOST_RX_RINGS: usize = 40;
pub(super) const IF_RING_OFS: usize = 56;
// `struct netmap_ring`: buf_ofs, a 64-bit word, then these; the slots are behind 128 bytes that are aligned to 128. Which
// way a ring goes is not read from `dir`, where the header and the kernel do not mean the same by 0 and 1.
pub(super) const RING_NUM_SLOTS: usize = 8;
pub(super) const RING_BUF_SIZE: usize = 12;
pub(super) const RING_HEAD: usize = 20;
pub(super) const RING_CUR: usize = 24;
pub(super) const RING_TAIL: usize = 28;
pub(super) const RING_SLOTS: usize = 256;
/// `struct netmap_slot`: buf_idx, len, flags, and a 64-bit word that is not used here.
pub(super) const SLOT_LEN: usize = 16;
const SLOT_LEN_AND_FLAGS: usize = 4;
const NS_MOREFRAG: u16 = 0x20;
/// Far more than any port has.
const RINGS_MAX: u32 = 4096;
const SLOTS_MIN: u32 = 2;
const SLOTS_MAX: u32 = 1 << 20;
const BUFFER_LEN_MIN: u32 = 64;
const BUFFER_LEN_MAX: u32 = 1 << 16;

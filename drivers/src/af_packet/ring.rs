//! The receive ring of a packet socket (TPACKET_V2 of packet(7)): slots of one length in memory that the kernel shares
//! with us. A slot is the kernel's or ours, as its status word says; what is ours the kernel neither reads nor writes. The
//! other end being the kernel, loom has no model of it: the status word hands a slot over as an index of the data plane's rings
//! does, which has one.

#![allow(unsafe_code)] // memory shared with the kernel

use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{TP_STATUS_KERNEL, TP_STATUS_USER, tpacket_req, tpacket2_hdr};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sys::option::{self, PACKET_RX_RING};

/// Bytes of a ring, at most.
pub(super) const RING_LEN: usize = 8 << 20;
/// What the kernel allocates at a time; slots divide it.
const BLOCK_LEN: usize = 64 << 10;
/// Bytes of a slot. What is longer comes another way.
const SLOT_LEN_MIN: usize = 2 << 10;
const SLOT_LEN_MAX: usize = 16 << 10;
/// Bytes before a frame that belong to nobody, at least: a header's 10, and a VLAN tag.
pub(super) const HEADROOM: usize = 14;
/// What stands at the beginning of a slot: a header and the address.
const ADDRESS_END: usize = size_of::<tpacket2_hdr>() + size_of::<libc::sockaddr_ll>();

/// See the module.
pub(super) struct Ring {
    memory: *mut u8,
    len: usize,
    slot_len: usize,
    /// Which slots are ours: taken, and not given back.
    taken: Box<[bool]>,
    next: usize,
}

/// A slot that is ours: what the kernel says of the frame in it. None of it is believed before it is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub index: usize,
    /// TP_STATUS_…
    pub status: u32,
    /// Bytes of the frame.
    pub frame_len: usize,
    /// Bytes of it that are in the slot.
    pub here_len: usize,
    /// Where they begin in the slot.
    pub start: usize,
    /// The tag that the kernel took out, where the status says so, and its type.
    pub tag: u16,
    pub tag_type: u16,
}

// SAFETY: the memory is the ring's own mapping, which any thread may use; nothing else of it is shared.
unsafe impl Send for Ring {}

impl Ring {
    /// Gives `socket`, of version TPACKET_V2, a ring with slots for frames of an interface of that MTU.
    pub(super) fn map(socket: BorrowedFd<'_>, mtu: u32) -> Result<Ring, Errno> {
        const OVERHEAD: usize = 160;
        let slot_len = (mtu as usize + OVERHEAD).next_power_of_two().clamp(SLOT_LEN_MIN, SLOT_LEN_MAX);
        let slots = RING_LEN / slot_len;
        let request = tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: (RING_LEN / BLOCK_LEN) as u32,
            tp_frame_size: slot_len as u32,
            tp_frame_nr: slots as u32,
        };
        option::set(socket, PACKET_RX_RING, request)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, where the kernel likes it.
        let memory = unsafe { mmap(ptr::null_mut(), RING_LEN, protection, MapFlags::SHARED, socket, 0) }?;
        Ok(Ring { memory: memory.cast(), len: RING_LEN, slot_len, taken: vec![false; slots].into(), next: 0 })
    }

    /// Takes the next slot if there is a frame in it.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Slot> {
        let index = self.next;
        if self.taken[index] {
            return None;
        }
        // Acquire: what the kernel wrote before it gave the slot to us is seen.
        let status = self.status(index).load(Ordering::Acquire);
        if status & TP_STATUS_USER == 0 {
            return None;
        }
        self.taken[index] = true;
        self.next = if index + 1 == self.taken.len() { 0 } else { index + 1 };
        let header: *const tpacket2_hdr = self.slot(index).cast();
        // SAFETY: a slot begins with this header, at an address that is aligned for it, and is ours: nobody writes.
        let header = unsafe { header.read() };
        Some(Slot {
            index,
            status,
            frame_len: header.tp_len as usize,
            here_len: header.tp_snaplen as usize,
            start: usize::from(header.tp_mac),
            tag: header.tp_vlan_tci,
            tag_type: header.tp_vlan_tpid,
        })
    }

    /// The bytes of a slot that is ours.
    ///
    /// # Panics
    /// If it is the kernel's.
    #[inline]
    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        assert!(self.taken[index], "a slot that was taken");
        // SAFETY: the slot lies in the mapping and is ours, so nobody writes there while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.slot(index), self.slot_len) }
    }

    /// As [`Self::bytes`], to change them; not the kernel's part of the slot.
    #[inline]
    pub(super) fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        assert!(self.taken[index], "a slot that was taken");
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.slot(index), self.slot_len) }
    }

    /// Lets the kernel have a slot again.
    #[inline]
    pub(super) fn give_back(&mut self, index: usize) {
        if std::mem::replace(&mut self.taken[index], false) {
            // Release: whatever we read or wrote there came before.
            self.status(index).store(TP_STATUS_KERNEL, Ordering::Release);
        }
    }

    /// Whether the place of the first of a slot's bytes leaves the kernel's part alone.
    pub(super) fn is_place(&self, start: usize, len: usize) -> bool {
        start >= ADDRESS_END + HEADROOM && start <= self.slot_len && len <= self.slot_len - start
    }

    fn slot(&self, index: usize) -> *mut u8 {
        assert!(index < self.taken.len());
        // SAFETY: the slots lie one behind the other in the mapping, and there are as many.
        unsafe { self.memory.add(index * self.slot_len) }
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the first word of a slot is its status, aligned as the slot is, and is only ever used as an atomic
        // while the kernel may write it.
        unsafe { AtomicU32::from_ptr(self.slot(index).cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `map`, and every borrow of it is over.
        let _ = unsafe { munmap(self.memory.cast(), self.len) };
    }
}

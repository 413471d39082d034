//! A receiving ring of a packet socket, TPACKET_V3 (packet_mmap of the kernel's documentation): the kernel fills blocks
//! with frames and hands them over whole.

#![allow(unsafe_code)] // memory that is shared with the kernel

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{tpacket_req3, tpacket3_hdr};
use ringyard_benches::error::{Doing, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::batch::set_option;

/// A ring and the place where it is read.
pub struct Ring {
    start: *mut u8,
    next: usize,
    /// The block that was lent and not given back.
    lent: Option<usize>,
}

/// A block's frames, by place in the ring's memory.
#[derive(Clone, Copy)]
pub struct Block {
    first: usize,
    /// Frames.
    pub frames: usize,
}

impl Ring {
    /// Gives `socket` a ring.
    pub fn of(socket: &OwnedFd) -> Result<Ring> {
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, version).doing("choosing TPACKET_V3")?;
        let request = tpacket_req3 {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: FRAME_LEN as u32,
            tp_frame_nr: (BLOCKS * BLOCK_LEN / FRAME_LEN) as u32,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        let len = size_of::<tpacket_req3>() as libc::socklen_t;
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_RX_RING);
        // SAFETY: the request lives on the stack for the length of the call, and its length is its own.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const request).cast(), len) };
        if set != 0 {
            return Err(io::Error::last_os_error()).doing("making a receiving ring");
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of the ring that was just made.
        let start =
            unsafe { mmap(std::ptr::null_mut(), BLOCKS * BLOCK_LEN, access, MapFlags::SHARED, socket, 0) };
        Ok(Ring { start: start.doing("mapping a receiving ring")?.cast(), next: 0, lent: None })
    }

    /// The next block that the kernel has handed over. The one before goes back.
    pub fn block(&mut self) -> Option<Block> {
        if let Some(block) = self.lent.take() {
            // Release: the kernel writes here again.
            self.status(block).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        let at = self.next;
        // Acquire: what the block holds was written before.
        if self.status(at).load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        self.lent = Some(at);
        self.next = (at + 1) % BLOCKS;
        let start = at * BLOCK_LEN;
        let first = start + self.word(start + BLOCK_FIRST) as usize;
        Some(Block { first, frames: self.word(start + BLOCK_FRAMES) as usize })
    }

    /// Shows every frame of the block that was lent last.
    pub fn for_each(&self, block: Block, mut take: impl FnMut(&[u8])) {
        let mut at = block.first;
        for _ in 0..block.frames {
            let header = self.header(at);
            take(self.bytes(at + usize::from(header.tp_mac), header.tp_snaplen as usize));
            at += header.tp_next_offset as usize;
        }
    }

    fn status(&self, block: usize) -> &AtomicU32 {
        let at = self.place(block * BLOCK_LEN + BLOCK_STATUS, size_of::<u32>());
        // SAFETY: inside the mapping, aligned, and only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    fn word(&self, at: usize) -> u32 {
        let at = self.place(at, size_of::<u32>());
        // SAFETY: inside the mapping; the kernel does not write to a block that it has handed over.
        unsafe { at.cast::<u32>().read_unaligned() }
    }

    fn header(&self, at: usize) -> tpacket3_hdr {
        let at = self.place(at, size_of::<tpacket3_hdr>());
        // SAFETY: as above.
        unsafe { at.cast::<tpacket3_hdr>().read_unaligned() }
    }

    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let at = self.place(at, len);
        // SAFETY: as above; the block is lent until the next call that takes the ring mutably.
        unsafe { std::slice::from_raw_parts(at, len) }
    }

    fn place(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= BLOCKS * BLOCK_LEN, "the kernel keeps to its ring");
        // SAFETY: inside the mapping.
        unsafe { self.start.add(at) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nobody else knows it.
        let _ = unsafe { munmap(self.start.cast(), BLOCKS * BLOCK_LEN) };
    }
}

/// Members of `struct tpacket_block_desc`.
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;
/// Small, so that a block is soon full.
const BLOCK_LEN: usize = 8 << 10;
const BLOCKS: usize = 2048;
/// TPACKET_V3 packs frames; this only has to divide a block.
const FRAME_LEN: usize = 2048;
/// When a block that is not full is handed over, in milliseconds.
const RETIRE_MS: u32 = 1;

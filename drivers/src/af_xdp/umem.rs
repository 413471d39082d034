//! The memory of one socket: chunks of a page, those that frames come in by first, then those that they go out by.
//!
//! The kernel writes to a chunk only while it stands in the fill ring, and reads one only while it stands in the
//! transmit ring; in between it is ours. So what lies in a chunk that came in is lent until it is given back.

#![allow(unsafe_code)] // memory that the kernel shares

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use ringyard_dataplane::frame::Piece;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::sys::option;

/// Bytes of a chunk; frames that are longer need several.
pub(super) const CHUNK_LEN: usize = 4096;
/// Chunks that frames come in by: as many as the rings that they stand in have places.
pub(super) const CHUNKS_IN: usize = 2048;
/// Chunks that frames go out by.
pub(super) const CHUNKS_OUT: usize = 2048;
/// Bytes of it all.
pub(super) const UMEM_LEN: usize = (CHUNKS_IN + CHUNKS_OUT) * CHUNK_LEN;

/// A chunk, by the offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk(u64);

/// The memory, unmapped when dropped.
pub(super) struct Umem {
    start: NonNull<u8>,
}

// SAFETY: it is plain memory, and what is shared of it is decided by who has which chunk.
unsafe impl Send for Umem {}
// SAFETY: as above; no method hands out a reference into it.
unsafe impl Sync for Umem {}

impl Umem {
    pub(super) fn new() -> Result<Umem, Errno> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), UMEM_LEN, protection, flags) }?;
        let start = NonNull::new(start.cast()).expect("nothing is mapped at address 0");
        Ok(Umem { start })
    }

    /// Makes it the memory of `socket`.
    pub(super) fn register(&self, socket: &OwnedFd) -> Result<(), Errno> {
        // SAFETY: nobody looks at a chunk that the kernel has; and it keeps the memory itself, should we unmap it first.
        unsafe { option::register_chunks(socket, (self.start.as_ptr(), UMEM_LEN), CHUNK_LEN) }
    }

    /// What the kernel says lies in a chunk that a frame came in by: `None` if it does not lie in one of these.
    pub(super) fn received(&self, offset: u64, len: u32) -> Option<(Chunk, Piece)> {
        let (first, within) = (offset / CHUNK_LEN as u64, offset as usize % CHUNK_LEN);
        if first >= CHUNKS_IN as u64 || within + len as usize > CHUNK_LEN {
            return None;
        }
        let start = self.start.as_ptr().wrapping_add(offset as usize);
        Some((Chunk(first * CHUNK_LEN as u64), Piece::at(start, len)))
    }

    /// The bytes of a chunk that frames go out by, for whoever has it to write to: [`CHUNK_LEN`] of them.
    pub(super) fn room(&self, chunk: Chunk) -> *mut u8 {
        self.start.as_ptr().wrapping_add(chunk.0 as usize)
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length. Pieces of it live no longer than a poll, which borrows its owner.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), UMEM_LEN) };
    }
}

impl Chunk {
    /// All that frames come in by.
    pub(super) fn all_in() -> impl Iterator<Item = Chunk> {
        (0..CHUNKS_IN).map(Chunk::number)
    }

    /// All that frames go out by.
    pub(super) fn all_out() -> impl Iterator<Item = Chunk> {
        (CHUNKS_IN..CHUNKS_IN + CHUNKS_OUT).map(Chunk::number)
    }

    /// The one that the kernel says it has sent, if it is one that frames go out by.
    pub(super) fn sent(offset: u64) -> Option<Chunk> {
        let number = offset / CHUNK_LEN as u64;
        let out = CHUNKS_IN as u64..(CHUNKS_IN + CHUNKS_OUT) as u64;
        out.contains(&number).then_some(Chunk(number * CHUNK_LEN as u64))
    }

    /// For the kernel to know.
    pub(super) fn offset(self) -> u64 {
        self.0
    }

    fn number(number: usize) -> Chunk {
        Chunk((number * CHUNK_LEN) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_of_its_chunk_is_refused() {
        let umem = Umem::new().unwrap();
        let (chunk, piece) = umem.received(3 * 4096 + 256, 3840).unwrap();
        assert_eq!((chunk.offset(), piece.len()), (3 * 4096, 3840));
        assert_eq!(piece.start().addr(), umem.start.as_ptr().addr() + 3 * 4096 + 256);
        let end = (CHUNKS_IN * CHUNK_LEN) as u64;
        for (offset, len) in [
            (256, 3841),
            (4095, 2),
            (0, u32::MAX),
            (end, 1),
            (end - 1, 2),
            (u64::MAX, 1),
            (u64::MAX - 4095, 4096),
        ] {
            assert!(umem.received(offset, len).is_none(), "{offset} {len}");
        }
        assert!(umem.received(end - 1, 1).is_some());
    }

    #[test]
    fn only_a_chunk_that_frames_go_out_by_was_sent() {
        let (first, end) = ((CHUNKS_IN * CHUNK_LEN) as u64, UMEM_LEN as u64);
        assert_eq!(Chunk::sent(first + 9).map(Chunk::offset), Some(first));
        for offset in [0, first - 1, end, u64::MAX] {
            assert_eq!(Chunk::sent(offset), None, "{offset}");
        }
        assert_eq!(Chunk::all_in().chain(Chunk::all_out()).count() * CHUNK_LEN, UMEM_LEN);
    }
}

//! An attacker's memory: one file behind two regions that touch in guest addresses and lie apart in the file, so that
//! what crosses from one to the other has to be put together by whoever reads it.
//!
//! Everything is written with aligned atomic stores, a racing thread's part too: a tool must not be torn itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use ringyard_dataplane::ring::Mapping;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::wire::{Fds, fds};
use crate::error::{Doing, Result};

/// Where it begins in descriptors.
pub const GUEST: u64 = 0x1_0000_0000;
/// Where it begins in the addresses that vhost-user calls the front end's own.
pub const USER: u64 = 0x7000_0000_0000;
/// Bytes of the first region.
pub const LOW_LEN: u64 = 0x20_0000;
const HIGH_LEN: u64 = 0x10_0000;
/// Where the second region begins in the file.
const HIGH_OFFSET: u64 = 0x28_0000;
/// Bytes of both regions.
pub const LEN: u64 = LOW_LEN + HIGH_LEN;
/// The guest address behind both regions.
pub const END: u64 = GUEST + LEN;
/// For indirect tables: 1,024 entries.
pub const TABLES: u64 = 0x1_0000;
/// For the buffers of the receive ring.
pub const RECEIVE_BUFFERS: u64 = 0x2_0000;
/// For the buffers of the transmit ring.
pub const SEND_BUFFERS: u64 = 0xa_0000;
/// From one buffer to the next.
pub const BUFFER_LEN: u64 = 0x800;
/// For frames of any length, up to the end of the first region.
pub const LARGE: u64 = 0x12_0000;

/// The memory. Offsets count from [`GUEST`] or [`USER`].
pub struct Memory {
    mapping: Mapping,
    file: OwnedFd,
}

impl Memory {
    /// Zero bytes, in a file that a back end may seal against shrinking.
    pub fn new() -> Result<Memory> {
        Memory::with(MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
    }

    /// Zero bytes, in a file that nobody keeps from shrinking.
    pub fn that_shrinks() -> Result<Memory> {
        Memory::with(MemfdFlags::CLOEXEC)
    }

    fn with(flags: MemfdFlags) -> Result<Memory> {
        let file = memfd_create("ringyard-attacker", flags).doing("making an attacker's memory")?;
        let len = HIGH_OFFSET + HIGH_LEN;
        ftruncate(&file, len).doing("making an attacker's memory")?;
        let mapping = Mapping::of_file(&file, len as usize).doing("mapping an attacker's memory")?;
        Ok(Memory { mapping, file })
    }

    /// The file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The body of SET_MEM_TABLE: guest address, size, user address, offset in the file.
    pub fn regions() -> [[u64; 4]; 2] {
        [[GUEST, LOW_LEN, USER, 0], [GUEST + LOW_LEN, HIGH_LEN, USER + LOW_LEN, HIGH_OFFSET]]
    }

    /// The descriptors of SET_MEM_TABLE.
    pub fn files(&self) -> Fds<'_> {
        fds([self.file(), self.file()])
    }

    /// The 8 bytes at `offset`, which is a multiple of 8.
    pub fn word(&self, offset: u64) -> &AtomicU64 {
        let place = if offset < LOW_LEN { offset } else { offset - LOW_LEN + HIGH_OFFSET };
        &self.mapping.words(place as usize, 1)[0]
    }

    /// Copies `bytes` to `offset`, whatever its alignment.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let shift = (at % 8) as usize;
            let (now, later) = rest.split_at(rest.len().min(8 - shift));
            let edit = |word: u64| {
                let mut bytes = word.to_le_bytes();
                bytes[shift..shift + now.len()].copy_from_slice(now);
                Some(u64::from_le_bytes(bytes))
            };
            // Always `Ok`: the closure always has a new value.
            let _ = self.word(at - shift as u64).fetch_update(Ordering::SeqCst, Ordering::SeqCst, edit);
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Writes 2 little-endian bytes at `offset`, which is even.
    pub fn set_u16(&self, offset: u64, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Reads 2 little-endian bytes at `offset`, which is even.
    pub fn u16(&self, offset: u64) -> u16 {
        (self.word(offset & !7).load(Ordering::SeqCst) >> (8 * (offset & 7))) as u16
    }

    /// The 8 bytes at `offset`, which is a multiple of 8.
    pub fn bytes(&self, offset: u64) -> [u8; 8] {
        self.word(offset).load(Ordering::SeqCst).to_le_bytes()
    }

    /// Writes 8 little-endian bytes at `offset`, which is a multiple of 8.
    pub fn set_u64(&self, offset: u64, value: u64) {
        self.word(offset).store(value, Ordering::SeqCst);
    }
}

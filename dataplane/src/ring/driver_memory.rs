//! The memory of a built-in guest: one memory file, reached by bounds-checked copies. What another process may write
//! meanwhile is never seen as a slice.

#![allow(unsafe_code)] // copies to and from memory that another process shares

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use super::memory::{Mapping, Region};
use super::walk::{prefetch, prefetch_for_write};

/// A guest's memory: one memory file, one region.
pub struct DriverMemory {
    mapping: Arc<Mapping>,
    file: OwnedFd,
    guest_addr: u64,
}

impl DriverMemory {
    /// Where it begins in descriptors, unless it was made for another place.
    pub const GUEST_ADDR: u64 = 0x1_0000_0000;
    /// Where it begins in the addresses that vhost-user calls the front end's own. Not where it is mapped: nobody but a
    /// vhost-user back end computes with it, and one that takes it for a guest address is to fail.
    pub const USER_ADDR: u64 = 0x7000_0000_0000;

    /// `len` zero bytes; `name` shows in `/proc`.
    pub fn new(name: &str, len: usize) -> io::Result<DriverMemory> {
        DriverMemory::at(name, len, Self::GUEST_ADDR)
    }

    /// As [`Self::new`], to begin at `guest_addr` in descriptors: for a device that reaches some addresses only.
    pub fn at(name: &str, len: usize, guest_addr: u64) -> io::Result<DriverMemory> {
        let (mapping, file) = Mapping::memfd(name, len)?;
        Ok(DriverMemory { mapping: Arc::new(mapping), file, guest_addr })
    }

    /// Where it begins here.
    pub fn start(&self) -> *mut u8 {
        self.mapping.start()
    }

    /// The memory file, for a back end to map.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// The whole memory, as the device's end of a ring in this process needs it.
    pub fn region(&self) -> Region {
        Region {
            guest_addr: self.guest_addr,
            user_addr: Self::USER_ADDR,
            len: self.mapping.len() as u64,
            offset: 0,
            mapping: self.mapping.clone(),
        }
    }

    /// Where byte `offset` stands in descriptors.
    #[inline]
    pub fn guest_addr(&self, offset: usize) -> u64 {
        self.guest_addr + offset as u64
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty)] // nobody makes an empty one
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.place(offset, bytes.len());
        // SAFETY: `place` found the range mapped, and no slice is ever made of a mapping: they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies from `offset` until `bytes` is full.
    ///
    /// # Panics
    /// If the range does not lie inside.
    #[inline]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.place(offset, bytes.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Writes 8 little-endian bytes at `offset`, aligned or not.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[inline]
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Reads 8 little-endian bytes at `offset`, aligned or not.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[inline]
    pub fn read_u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Brings the cache line at `offset` near, to be read; a hint, for any offset.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        prefetch(self.mapping.start().wrapping_add(offset));
    }

    /// Brings the cache line at `offset` near, to be written; a hint, for any offset.
    #[inline]
    pub fn prefetch_for_write(&self, offset: usize) {
        prefetch_for_write(self.mapping.start().wrapping_add(offset));
    }

    /// Where `len` bytes at `offset` lie here.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[inline]
    pub(super) fn place(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.mapping.len() && len <= self.mapping.len() - offset, "inside the memory");
        // SAFETY: offset is at most the mapping's length, as asserted.
        unsafe { self.mapping.start().add(offset) }
    }

    /// A 16-bit word of a ring.
    #[inline]
    pub(super) fn word(&self, offset: usize) -> &AtomicU16 {
        let place = self.place(offset, 2).cast::<u16>();
        assert!(place.is_aligned());
        // SAFETY: mapped as long as `self`, aligned as asserted, and only ever accessed atomically.
        unsafe { AtomicU16::from_ptr(place) }
    }

    /// A 32-bit word of a ring.
    #[inline]
    pub(super) fn half(&self, offset: usize) -> &AtomicU32 {
        let place = self.place(offset, 4).cast::<u32>();
        assert!(place.is_aligned());
        // SAFETY: mapped as long as `self`, aligned as asserted, and only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(place) }
    }

    /// A 64-bit word of a ring.
    #[inline]
    pub(super) fn double(&self, offset: usize) -> &AtomicU64 {
        let place = self.place(offset, 8).cast::<u64>();
        assert!(place.is_aligned());
        // SAFETY: mapped as long as `self`, aligned as asserted, and only ever accessed atomically or by copies.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

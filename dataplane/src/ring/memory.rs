//! Shared memory: mappings of memory files, and the table of a guest's regions.
//!
//! The one place that turns guest addresses into pointers. An address never travels without its length, every range is
//! checked whole with checked arithmetic, and no slice is ever made of memory that a guest can write.

#![allow(unsafe_code)] // mmap, and pointers into what it mapped

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::guard::Guard;

/// Regions of a table, at most; more than any front end's memory slots (vhost-user has 509).
pub const REGIONS_MAX: usize = 512;

/// A shared, writable mapping of the first bytes of a memory file; unmapped when dropped.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    guard: Option<Guard>,
}

// SAFETY: the mapping is plain shared memory; whoever reads or writes it does so by raw copies and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// As [`Self::of_file`], for a file that somebody else may truncate: then the mapping becomes empty pages, `bell`, a
    /// non-blocking eventfd, is added to, and [`Self::is_lost`] says so.
    ///
    /// Errors: as mapping, and when [`super::GUARDS_MAX`] mappings are guarded already.
    pub fn of_foreign_file(file: impl AsFd, len: usize, bell: Arc<OwnedFd>) -> io::Result<Mapping> {
        Mapping::of_foreign_range(file, 0, len, bell)
    }

    /// As [`Self::of_foreign_file`], from byte `start` on, which begins a page.
    pub fn of_foreign_range(
        file: impl AsFd,
        start: u64,
        len: usize,
        bell: Arc<OwnedFd>,
    ) -> io::Result<Mapping> {
        let mut mapping = Mapping::of_range(file, start, len)?;
        mapping.start.as_ptr().expose_provenance();
        mapping.guard = Some(Guard::new(mapping.start.as_ptr(), len, bell)?);
        Ok(mapping)
    }

    /// Whether the file was truncated and what is mapped is no longer the guest's memory.
    pub fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }

    /// Maps the first `len` bytes of `file`. It is the caller's to know that the file has them and keeps them.
    pub fn of_file(file: impl AsFd, len: usize) -> io::Result<Mapping> {
        Mapping::of_range(file, 0, len)
    }

    fn of_range(file: impl AsFd, from: u64, len: usize) -> io::Result<Mapping> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, from) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping { start, len, guard: None };
        // SAFETY: the range was mapped above; a core dump without it is all that changes. Not all kernels can.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxDontDump) };
        Ok(mapping)
    }

    /// A new memory file of `len` zero bytes that cannot shrink, and its mapping. `name` shows in `/proc`.
    pub fn memfd(name: &str, len: usize) -> io::Result<(Mapping, OwnedFd)> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK)?;
        Ok((Mapping::of_file(&file, len)?, file))
    }

    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `count` words from byte `offset` on.
    ///
    /// # Panics
    /// If they are not aligned or not all inside.
    #[inline]
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8) && offset <= self.len && count <= (self.len - offset) / 8);
        // SAFETY: in bounds, as asserted.
        let first = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: in bounds and aligned (asserted; mappings begin at a page), initialised, and atomics may be shared.
        unsafe { std::slice::from_raw_parts(first.cast(), count) }
    }

    /// Byte `offset`.
    ///
    /// # Panics
    /// If it is not inside.
    #[inline]
    pub(super) fn byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < self.len);
        // SAFETY: in bounds, as asserted.
        let place = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: in bounds, initialised, and atomics may be shared.
        unsafe { AtomicU8::from_ptr(place) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: mapped by us with this length; every user of it held an `Arc` or a borrow that has ended.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A stretch of guest memory.
#[derive(Clone)]
pub struct Region {
    /// Its address in descriptors.
    pub guest_addr: u64,
    /// Its address in the front end's own space, in which ring addresses are given.
    pub user_addr: u64,
    /// Bytes.
    pub len: u64,
    /// Where it begins in `mapping`.
    pub offset: u64,
    /// The memory.
    pub mapping: Arc<Mapping>,
}

/// Why regions make no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// More than [`REGIONS_MAX`].
    TooMany,
    /// A region of no bytes.
    Empty,
    /// An address and a length add up to more than 2^64.
    Wraps,
    /// A region is longer than its mapping.
    BeyondMapping,
    /// Two regions share guest addresses.
    Overlap,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemoryError::TooMany => "too many memory regions",
            MemoryError::Empty => "a memory region is empty",
            MemoryError::Wraps => "a memory region's address and size wrap around",
            MemoryError::BeyondMapping => "a memory region is longer than its file",
            MemoryError::Overlap => "two memory regions overlap",
        })
    }
}

impl std::error::Error for MemoryError {}

/// A guest's memory: regions that do not overlap, sorted by guest address. Immutable.
#[derive(Default)]
pub struct MemoryTable {
    regions: Vec<Region>,
}

/// A region as the fast path keeps it: where guest addresses begin and end, and where that is here.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(super) first: u64,
    pub(super) len: u64,
    pub(super) start: *mut u8,
}

impl Window {
    /// A window that holds nothing.
    pub(crate) const NONE: Window = Window { first: 0, len: 0, start: std::ptr::null_mut() };

    /// Where `len` bytes at `addr` lie, if all of them are in this window.
    #[inline]
    pub(crate) fn find(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.first);
        if offset < self.len && len <= self.len - offset {
            // SAFETY: offset is less than the window's length, and the window lies in one mapping.
            Some(unsafe { self.start.add(offset as usize) })
        } else {
            None
        }
    }

    /// Where `addr` lies and how many bytes follow it in this window, if any.
    #[inline]
    pub(crate) fn find_start(&self, addr: u64) -> Option<(*mut u8, u64)> {
        let offset = addr.wrapping_sub(self.first);
        if offset >= self.len {
            return None;
        }
        // SAFETY: offset is less than the window's length, and the window lies in one mapping.
        Some((unsafe { self.start.add(offset as usize) }, self.len - offset))
    }
}

impl MemoryTable {
    /// The table of `regions`, given in any order.
    pub fn new(mut regions: Vec<Region>) -> Result<MemoryTable, MemoryError> {
        if regions.len() > REGIONS_MAX {
            return Err(MemoryError::TooMany);
        }
        for region in &regions {
            check(region)?;
        }
        regions.sort_by_key(|region| region.guest_addr);
        if regions.windows(2).any(|pair| pair[0].guest_addr + (pair[0].len - 1) >= pair[1].guest_addr) {
            return Err(MemoryError::Overlap);
        }
        Ok(MemoryTable { regions })
    }

    /// Whether a file under any region was truncated.
    pub fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_lost())
    }

    /// The regions by guest address.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The window of the region that holds the guest address `addr`.
    pub(crate) fn window(&self, addr: u64) -> Option<Window> {
        let after = self.regions.partition_point(|region| region.guest_addr <= addr);
        let region = &self.regions[after.checked_sub(1)?];
        (addr - region.guest_addr < region.len).then(|| window(region))
    }

    /// All windows, by guest address.
    pub(super) fn windows(&self) -> impl Iterator<Item = Window> {
        self.regions.iter().map(window)
    }

    /// Where `len` bytes at the front end's own address `addr` lie; all of them in one region.
    pub(crate) fn find_user(&self, addr: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let window = Window { first: region.user_addr, ..window(region) };
            window.find(addr, len)
        })
    }
}

fn check(region: &Region) -> Result<(), MemoryError> {
    if region.len == 0 {
        return Err(MemoryError::Empty);
    }
    for addr in [region.guest_addr, region.user_addr] {
        addr.checked_add(region.len - 1).ok_or(MemoryError::Wraps)?;
    }
    let end = region.offset.checked_add(region.len).ok_or(MemoryError::Wraps)?;
    if end > region.mapping.len() as u64 { Err(MemoryError::BeyondMapping) } else { Ok(()) }
}

fn window(region: &Region) -> Window {
    // SAFETY: `check` found offset + len inside the mapping, which the table keeps.
    let start = unsafe { region.mapping.start().add(region.offset as usize) };
    Window { first: region.guest_addr, len: region.len, start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(len: usize) -> Arc<Mapping> {
        Arc::new(Mapping::memfd("test", len).unwrap().0)
    }

    fn region(guest_addr: u64, len: u64, mapping: &Arc<Mapping>) -> Region {
        Region { guest_addr, user_addr: guest_addr + 0x7000_0000, len, offset: 0, mapping: mapping.clone() }
    }

    #[test]
    fn whole_range_must_be_in_one_window() {
        let memory = mapping(0x2000);
        let table = MemoryTable::new(vec![region(0x1000, 0x2000, &memory)]).unwrap();
        let window = table.window(0x1000).unwrap();
        assert_eq!(window.find(0x1000, 0x2000), Some(memory.start()));
        assert!(window.find(0x1000, 0x2001).is_none(), "one byte too long");
        assert!(window.find(0x0fff, 2).is_none(), "begins before");
        assert!(window.find(0x2fff, u64::MAX).is_none(), "wraps");
        assert!(window.find(0x3001, 0).is_none(), "empty, but beyond");
        assert!(table.window(0x3000).is_none());
        assert!(table.window(0x0fff).is_none());
        assert!(Window::NONE.find(0, 0).is_none());
    }

    #[test]
    fn user_addresses_are_apart_from_guest_addresses() {
        let memory = mapping(0x1000);
        let table = MemoryTable::new(vec![region(0x1000, 0x1000, &memory)]).unwrap();
        assert_eq!(table.find_user(0x7000_1000, 0x1000), Some(memory.start()));
        assert!(table.find_user(0x1000, 1).is_none());
    }

    #[test]
    fn bad_tables_are_refused() {
        let memory = mapping(0x2000);
        let error = |regions| MemoryTable::new(regions).err().unwrap();
        assert_eq!(error(vec![region(0, 0, &memory)]), MemoryError::Empty);
        assert_eq!(error(vec![region(0, 0x2001, &memory)]), MemoryError::BeyondMapping);
        let twice = vec![region(0x1000, 0x1000, &memory), region(0x1fff, 0x10, &memory)];
        assert_eq!(error(twice), MemoryError::Overlap);
        let mut wraps = region(u64::MAX - 0x8000_0000, 0x1000, &memory);
        wraps.guest_addr = u64::MAX - 0xffe;
        wraps.user_addr = 0;
        assert!(MemoryTable::new(vec![wraps.clone()]).is_err());
        wraps.guest_addr += 1;
        assert_eq!(error(vec![wraps]), MemoryError::Wraps);
        let many = (0..=REGIONS_MAX as u64).map(|i| region(i << 16, 0x1000, &memory)).collect();
        assert_eq!(error(many), MemoryError::TooMany);
    }

    #[test]
    fn p08_file_truncated_under_a_mapping_becomes_empty_pages_and_rings_the_bell() {
        use rustix::event::{EventfdFlags, eventfd};
        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        use std::sync::atomic::Ordering;
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        for _ in 0..1000 {
            let file = memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, 0x4000).unwrap();
            let mapping = Mapping::of_foreign_file(&file, 0x4000, bell.clone()).unwrap();
            mapping.words(0x2000, 1)[0].store(7, Ordering::Relaxed);
            assert!(!mapping.is_lost());
            ftruncate(&file, 0x1000).unwrap();
            assert_eq!(mapping.words(0x2000, 1)[0].load(Ordering::Relaxed), 0);
            mapping.words(0x3000, 1)[0].store(9, Ordering::Relaxed);
            assert!(mapping.is_lost());
            assert_eq!(rustix::io::read(&*bell, &mut [0; 8]), Ok(8));
        }
    }

    #[test]
    fn regions_may_come_in_any_order_and_touch() {
        let memory = mapping(0x1000);
        let table =
            MemoryTable::new(vec![region(0x2000, 0x1000, &memory), region(0x1000, 0x1000, &memory)]).unwrap();
        assert_eq!(table.window(0x1fff).unwrap().find_start(0x1fff).unwrap().1, 1);
        assert!(table.window(0x2000).unwrap().find(0x2000, 0x1000).is_some());
    }
}

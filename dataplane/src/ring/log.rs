//! The dirty log: which pages of a guest's memory a device wrote while the guest is migrated (vhost-user, "Migration").
//!
//! A bitmap that the front end shares, a bit a page of 4 KiB of guest addresses. We set bits; the front end takes and
//! clears them, then copies the pages. A bit that is set too early is as bad as none: the front end could clear it, copy
//! the page as it was, and never come back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::Mapping;

/// Bytes of guest memory that one bit stands for, whatever the guest's own pages are.
pub const LOG_PAGE: u64 = 0x1000;

/// A dirty log. The front end may write it, truncate its file, and have made it too short.
pub struct DirtyLog {
    mapping: Mapping,
    /// Where the bitmap begins in the mapping, and its bytes.
    offset: usize,
    len: u64,
}

impl DirtyLog {
    /// The log of `len` bytes from byte `offset` of `mapping` on. `None`: the mapping does not hold it.
    pub fn new(mapping: Mapping, offset: u64, len: u64) -> Option<DirtyLog> {
        let end = offset.checked_add(len)?;
        (end <= mapping.len() as u64).then_some(DirtyLog { mapping, offset: offset as usize, len })
    }

    /// Whether its file was truncated and nobody reads any more what we log.
    pub fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }

    /// Whether it has a bit for each page of a range.
    pub(super) fn covers(&self, addr: u64, len: u64) -> bool {
        pages(addr, len).is_some_and(|(_, last)| last / 8 < self.len)
    }

    /// Sets the bits of the pages of a range, which has been written. `false`: the log ends before; no bit is set.
    ///
    /// Release: who takes a bit sees what was written before; pairs with the front end's exchange that clears it. Bits are
    /// set without a look at whether they are: that look could come before our writes are seen by the front end's core, and
    /// find a bit that is about to be cleared.
    pub(super) fn mark(&self, addr: u64, len: u64) -> bool {
        if !self.covers(addr, len) {
            return false;
        }
        let Some((first, last)) = pages(addr, len) else { return false };
        for place in first / 8..=last / 8 {
            let from = first.saturating_sub(place * 8);
            let to = (last - place * 8).min(7);
            let bits = u8::MAX << from & u8::MAX >> (7 - to);
            self.mapping.byte(self.offset + place as usize).fetch_or(bits, Ordering::Release);
        }
        true
    }
}

/// The first and the last page of a range, of one byte at least; `None`: it wraps.
fn pages(addr: u64, len: u64) -> Option<(u64, u64)> {
    let last = addr.checked_add(len.max(1) - 1)?;
    Some((addr / LOG_PAGE, last / LOG_PAGE))
}

/// What of a ring is logged, and where.
#[derive(Clone)]
pub struct RingLogging {
    /// The log.
    pub log: Arc<DirtyLog>,
    /// What we write into the guest's buffers (VHOST_F_LOG_ALL).
    pub buffers: bool,
    /// What we write into the ring itself (VHOST_VRING_F_LOG): the guest address under which its used part is logged.
    pub used: Option<u64>,
    /// Told after each burst that was logged; a non-blocking eventfd.
    pub bell: Option<Arc<OwnedFd>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(len: u64) -> DirtyLog {
        DirtyLog::new(Mapping::memfd("log", 0x1000).unwrap().0, 3, len).unwrap()
    }

    /// The pages whose bits are set.
    fn marked(log: &DirtyLog) -> Vec<u64> {
        let is_set = |&page: &u64| {
            let byte = log.mapping.byte(log.offset + page as usize / 8).load(Ordering::Acquire);
            byte >> (page % 8) & 1 == 1
        };
        (0..log.len * 8).filter(is_set).collect()
    }

    #[test]
    fn each_page_of_a_range_has_its_bit_set_and_no_other() {
        for (addr, len, first, last) in [
            (0, 1, 0, 0),
            (0xfff, 1, 0, 0),
            (0xfff, 2, 0, 1),
            (0x1000, 0x1000, 1, 1),
            (0x7fff, 0x1_0002, 7, 0x18),
            (0x5800, 0x1_8000, 5, 0x1d),
            (0x1_2345, 0, 0x12, 0x12),
        ] {
            let log = log(64);
            assert!(log.mark(addr, len));
            assert_eq!(marked(&log), (first..=last).collect::<Vec<u64>>(), "{addr:#x} {len:#x}");
        }
    }

    #[test]
    fn p21_log_that_is_too_short_is_not_written_beyond() {
        let log = log(2);
        assert!(log.mark(0xffff, 1), "the last page");
        for (addr, len) in [(0x1_0000, 1), (0xffff, 2), (0, 0x1_0001), (u64::MAX, 1), (u64::MAX, 2)] {
            assert!(!log.mark(addr, len), "{addr:#x} {len:#x}");
        }
        assert_eq!(marked(&log), [15]);
        assert!(log.mapping.words(8, 0x1f0).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn p21_log_must_lie_in_its_mapping() {
        let make =
            |offset, len| DirtyLog::new(Mapping::memfd("log", 0x1000).unwrap().0, offset, len).is_some();
        assert!(make(0, 0x1000) && make(0xfff, 1));
        for (offset, len) in [(0, 0x1001), (0x1000, 1), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert!(!make(offset, len), "{offset:#x} {len:#x}");
        }
    }
}

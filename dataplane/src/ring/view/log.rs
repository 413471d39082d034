//! A ring whose writes are logged: where its parts and its buffers stand in guest addresses.
//!
//! Whoever writes a buffer knows where it lies here, not what the guest calls it, and carrying both would cost rings that
//! are not logged. So the way back is looked up, in a table that only a logged ring has.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::log::RingLogging;
use super::super::reverse::Reverse;
use super::packed::EVENT_LEN;
use super::{RingError, RingView};

/// What a logged ring has beside the others.
pub(super) struct ViewLog {
    logging: RingLogging,
    reverse: Reverse,
    /// The descriptor table's guest address, which a packed ring writes to.
    desc: u64,
    /// Something was written that the log has no bit for. Set and read by whoever holds the ring's lock.
    too_short: AtomicBool,
}

impl RingView {
    /// The same ring, with what is written logged.
    ///
    /// Errors: [`RingError::Log`], [`RingError::Address`].
    pub fn logged(mut self, logging: RingLogging) -> Result<RingView, RingError> {
        let reverse = Reverse::of(&self.memory);
        let desc = reverse.guest_addr(self.desc.cast()).ok_or(RingError::Address)?;
        if let Some(used) = logging.used {
            let desc_len = 16 * u64::from(self.size);
            let covered = logging.log.covers(used, self.used_len())
                && (!self.options.packed || logging.log.covers(desc, desc_len));
            if !covered {
                return Err(RingError::Log);
            }
        }
        self.log = Some(Box::new(ViewLog { logging, reverse, desc, too_short: AtomicBool::new(false) }));
        Ok(self)
    }

    /// Whether anything is logged.
    pub(in crate::ring) fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Logs `len` bytes of a buffer, from `start` on as it lies here, which have been written.
    pub(in crate::ring) fn log_buffer(&self, start: *mut u8, len: usize) {
        let Some(log) = self.log.as_ref().filter(|log| log.logging.buffers) else { return };
        let whole = log.reverse.each(start, len as u64, |addr, len| log.logging.log.mark(addr, len));
        if !whole {
            // Relaxed: under the ring's lock.
            log.too_short.store(true, Ordering::Relaxed);
        }
    }

    /// Logs `count` used entries from `position` on, round the ring's end.
    pub(in crate::ring) fn log_used_entries(&self, position: u16, count: u16) {
        let first = self.slot(position) as u64;
        let (count, size) = (u64::from(count), u64::from(self.size));
        let before_end = count.min(size - first);
        self.log_used(USED_ENTRIES_AT + 8 * first, 8 * before_end);
        if before_end < count {
            self.log_used(USED_ENTRIES_AT, 8 * (count - before_end));
        }
    }

    /// Logs the used index.
    pub(in crate::ring) fn log_used_index(&self) {
        self.log_used(2, 2);
    }

    /// Logs the word that tells a split ring's guest when to kick: the flags, or the available event behind the entries.
    pub(in crate::ring) fn log_used_wish(&self) {
        let event_at = USED_ENTRIES_AT + 8 * u64::from(self.size);
        self.log_used(if self.options.event_idx { event_at } else { 0 }, 2);
    }

    /// Logs a packed ring's device event.
    pub(in crate::ring) fn log_device_event(&self) {
        self.log_used(0, EVENT_LEN);
    }

    /// Logs all that we write of the ring itself: whoever had it before was killed, and may have shown what it did not live
    /// to log.
    pub(in crate::ring) fn log_ring(&self) {
        if self.options.packed {
            self.log_descriptors(0, self.size.into());
            self.log_device_event();
        } else {
            self.log_used(0, self.used_len());
        }
    }

    /// Bytes of the used part, or of a packed ring's device event.
    fn used_len(&self) -> u64 {
        if self.options.packed { EVENT_LEN } else { USED_ENTRIES_AT + 8 * u64::from(self.size) + 2 }
    }

    /// Logs `len` bytes of the used part from its byte `offset` on.
    fn log_used(&self, offset: u64, len: u64) {
        if let Some(log) = &self.log
            && let Some(used) = log.logging.used
        {
            // `logged` found the log to cover the part.
            log.logging.log.mark(used + offset, len);
        }
    }

    /// Logs `count` descriptors from `first` on, round the ring's end.
    pub(in crate::ring) fn log_descriptors(&self, first: u16, count: u32) {
        let Some(log) = self.log.as_ref().filter(|log| log.logging.used.is_some()) else { return };
        let before_end = count.min(u32::from(self.size - first));
        // `logged` found the log to cover the table.
        log.logging.log.mark(log.desc + 16 * u64::from(first), 16 * u64::from(before_end));
        if before_end < count {
            log.logging.log.mark(log.desc, 16 * u64::from(count - before_end));
        }
    }

    /// Whether anything was written that the log has no bit for.
    pub(in crate::ring) fn log_was_too_short(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.too_short.load(Ordering::Relaxed))
    }

    /// What is told of logged bursts.
    pub(in crate::ring) fn log_bell(&self) -> Option<&Arc<OwnedFd>> {
        self.log.as_ref()?.logging.bell.as_ref()
    }
}

/// Where entries begin in a split ring's used part.
const USED_ENTRIES_AT: u64 = 4;

//! Every access to the three parts of a packed ring (virtio 1.2, 2.8): descriptors of 16 bytes, which both sides write,
//! and two event suppression structures of 4 bytes. All little-endian.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::super::packed::{Event, Place, Rest};
use super::RingView;

/// Bytes of an event suppression structure, and what it is aligned to.
pub(super) const EVENT_LEN: u64 = 4;

/// Of a view of a packed ring only: who makes an end of a ring chooses its form by [`RingView::options`].
impl RingView {
    /// The second word of descriptor `index`. `None`: there is no such descriptor.
    ///
    /// Acquire: pairs with the driver's release of its flags, so that the rest of the descriptor, those that follow it in
    /// the burst, and buffers are seen.
    #[inline]
    pub(in crate::ring) fn rest(&self, index: u16) -> Option<Rest> {
        let word = self.descriptor_word(index, 1)?.load(Ordering::Acquire);
        Some(Rest(u64::from_le(word)))
    }

    /// The first word of descriptor `index`, to be read after the second. `None`: there is no such descriptor.
    #[inline]
    pub(in crate::ring) fn address(&self, index: u16) -> Option<u64> {
        Some(u64::from_le(self.descriptor_word(index, 0)?.load(Ordering::Relaxed)))
    }

    /// Overwrites the second word of descriptor `index`, if there is such a descriptor.
    ///
    /// Release: what was written before, buffers and other descriptors, is seen by a driver that sees this word.
    #[inline]
    pub(in crate::ring) fn set_rest(&self, index: u16, Rest(rest): Rest) {
        if let Some(word) = self.descriptor_word(index, 1) {
            word.store(rest.to_le(), Ordering::Release);
        }
    }

    /// Whether the guest wants to be told that `count` descriptors up to `now` were used (virtio 1.2, 2.8.14).
    #[inline]
    pub(in crate::ring) fn wants_signal_packed(&self, now: Place, count: u32) -> bool {
        if self.signals.call.is_none() {
            return false;
        }
        // The descriptors must be visible before the guest's wish is read, or both sides could miss each other; pairs
        // with the barrier between the guest's write of its wish and its last look at a descriptor.
        fence(Ordering::SeqCst);
        let wish = u32::from_le(self.event(self.avail).load(Ordering::Relaxed));
        Event::from_word(wish).is_due(now, count, self.size)
    }

    /// Tells the guest when to kick.
    pub(in crate::ring) fn set_device_event(&self, event: Event) {
        self.event(self.used).store(event.word().to_le(), Ordering::Relaxed);
        // The wish must be visible before the caller's last look at a descriptor; pairs with the guest's barrier between
        // its descriptors and its look at our wish.
        fence(Ordering::SeqCst);
    }

    /// Word 0 or 1 of a descriptor.
    #[inline]
    fn descriptor_word(&self, index: u16, word: usize) -> Option<&AtomicU64> {
        debug_assert!(self.options.packed && word < 2);
        if index >= self.size {
            return None;
        }
        let table = self.desc.cast::<u64>().cast_mut();
        // SAFETY: index < size, and `new` checked the table to hold `size` descriptors of two words, aligned to 16.
        let place = unsafe { table.add(2 * usize::from(index) + word) };
        // SAFETY: as above, mapped as long as `self`, and only ever accessed atomically.
        Some(unsafe { AtomicU64::from_ptr(place) })
    }

    #[inline]
    fn event(&self, part: *mut u16) -> &AtomicU32 {
        debug_assert!(self.options.packed);
        // SAFETY: `new` checked both parts of a packed ring to hold 4 bytes, aligned to 4; mapped as long as `self`, and
        // only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(part.cast()) }
    }
}

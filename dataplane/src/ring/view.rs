//! Where a ring lies, and every access to the three parts of a split one; [`packed`] has those to a packed one.
//!
//! Layout (virtio 1.2, 2.7): descriptors of 16 bytes; the available ring: flags, index, entries, `used_event`; the used
//! ring: flags, index, entries of 8 bytes, `avail_event`. All little-endian.

#![allow(unsafe_code)] // words that the guest shares are reached by pointers, checked when the view is made

mod log;
mod packed;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};

use super::is_ring_size;
use super::journal::RingJournal;
use super::memory::{MemoryTable, Window};
use super::signal::{Jammed, signal};
use crate::offload::Offloads;
use log::ViewLog;
use packed::EVENT_LEN;

/// Where a front end says that a ring lies, in its own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingLayout {
    /// Entries: as [`is_ring_size`] allows.
    pub size: u16,
    /// Descriptor table, 16-byte aligned.
    pub desc: u64,
    /// Available ring, 2-byte aligned; of a packed ring the driver's event suppression structure, 4-byte aligned.
    pub avail: u64,
    /// Used ring, 4-byte aligned; of a packed ring the device's event suppression structure.
    pub used: u64,
}

/// What the guest negotiated, as far as rings care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingOptions {
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_NET_F_MRG_RXBUF.
    pub mergeable: bool,
    /// VIRTIO_F_VERSION_1.
    pub version_1: bool,
    /// What the guest may ask of us (VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_…).
    pub send: Offloads,
    /// What it takes itself (VIRTIO_NET_F_GUEST_…).
    pub receive: Offloads,
}

impl RingOptions {
    /// Bytes of the virtio-net header in front of each frame (virtio 1.2, 5.1.6): the one place that knows.
    #[inline]
    pub fn header_len(self) -> usize {
        if self.version_1 || self.mergeable { 12 } else { 10 }
    }
}

/// How a ring tells its guest of used buffers.
#[derive(Clone)]
pub enum Call {
    /// Adds 1 to a non-blocking eventfd.
    Eventfd(Arc<OwnedFd>),
    /// Does this, which does not wait: for a guest that hears no eventfd.
    Other(Arc<dyn Fn() + Send + Sync>),
}

impl From<Arc<OwnedFd>> for Call {
    fn from(eventfd: Arc<OwnedFd>) -> Call {
        Call::Eventfd(eventfd)
    }
}

impl Call {
    /// Tells the guest, whatever it asked to hear.
    pub fn make(&self) {
        // Who made the eventfd block and kept it full hears of it at the next burst.
        let _ = self.try_make();
    }

    #[inline]
    fn try_make(&self) -> Result<(), Jammed> {
        match self {
            Call::Eventfd(eventfd) => signal(eventfd),
            Call::Other(tell) => {
                tell();
                Ok(())
            }
        }
    }
}

/// Whom a ring tells: eventfds, all non-blocking, but for [`Call::Other`].
#[derive(Clone, Default)]
pub struct RingSignals {
    /// The guest, of used buffers. `None`: it polls.
    pub call: Option<Call>,
    /// The front end, of a fault.
    pub error: Option<Arc<OwnedFd>>,
    /// The driver that serves the connection, of a fault.
    pub trouble: Option<Arc<OwnedFd>>,
}

/// Why a ring cannot lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// Not as [`is_ring_size`] allows.
    Size,
    /// A part is not aligned as the specification demands.
    Alignment,
    /// A part is not inside one memory region.
    Address,
    /// A part that is logged is past the end of the dirty log.
    Log,
    /// A packed ring is to go on at a descriptor that it does not have.
    Position,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RingError::Size => "the ring size is not a power of two (of a packed ring: a number) up to 32768",
            RingError::Alignment => "a part of the ring is not aligned",
            RingError::Address => "a part of the ring is outside guest memory",
            RingError::Log => "a part of the ring is past the end of the dirty log",
            RingError::Position => "the position of the ring is beyond its size",
        })
    }
}

impl std::error::Error for RingError {}

/// One descriptor, copied out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// From the two words that it is made of.
    #[inline]
    pub(crate) fn from_words([addr, rest]: [u64; 2]) -> Descriptor {
        let rest = u64::from_le(rest);
        Descriptor {
            addr: u64::from_le(addr),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }
}

/// A ring's addresses here, its size, its memory, and whom it tells. Immutable; retired through the grace period.
pub struct RingView {
    desc: *const [u64; 2],
    avail: *mut u16,
    used: *mut u16,
    size: u16,
    options: RingOptions,
    header_len: usize,
    signals: RingSignals,
    memory: Arc<MemoryTable>,
    journal: Option<RingJournal>,
    log: Option<Box<ViewLog>>,
}

// SAFETY: the pointers are into `memory`, which the view keeps mapped; all accesses are volatile or atomic.
unsafe impl Send for RingView {}
// SAFETY: as above; who may write which word when is the ring lock's business.
unsafe impl Sync for RingView {}

impl RingView {
    /// Checks that the ring lies inside `memory`, aligned, and finds where that is here.
    pub fn new(
        memory: Arc<MemoryTable>,
        layout: RingLayout,
        options: RingOptions,
        signals: RingSignals,
    ) -> Result<RingView, RingError> {
        if !is_ring_size(layout.size, options.packed) {
            return Err(RingError::Size);
        }
        let size = u64::from(layout.size);
        let part = |addr: u64, len: u64, alignment: u64| {
            let start = memory.find_user(addr, len).ok_or(RingError::Address)?;
            let aligned = addr.is_multiple_of(alignment) && (start as u64).is_multiple_of(alignment);
            if aligned { Ok(start) } else { Err(RingError::Alignment) }
        };
        let (avail, used) = if options.packed {
            (part(layout.avail, EVENT_LEN, EVENT_LEN)?, part(layout.used, EVENT_LEN, EVENT_LEN)?)
        } else {
            (part(layout.avail, 6 + 2 * size, 2)?, part(layout.used, 6 + 8 * size, 4)?)
        };
        Ok(RingView {
            desc: part(layout.desc, 16 * size, 16)?.cast_const().cast(),
            avail: avail.cast(),
            used: used.cast(),
            size: layout.size,
            options,
            header_len: options.header_len(),
            signals,
            memory,
            journal: None,
            log: None,
        })
    }

    /// The same of a ring whose place outlives this process; `journal` is for a ring of its size and form.
    pub fn journalled(self, journal: RingJournal) -> RingView {
        debug_assert!(journal.shape() == (self.size, self.options.packed));
        RingView { journal: Some(journal), ..self }
    }

    /// Whether a ring like this one was journalled where this one is, and not stopped.
    pub fn was_journalled(&self) -> bool {
        self.journal.as_ref().is_some_and(RingJournal::is_begun)
    }

    /// Nobody goes on with the ring but from where it stopped.
    pub fn end_journal(&self) {
        if let Some(journal) = &self.journal {
            journal.end();
        }
    }

    /// Where the ring's place outlives this process, if anywhere.
    #[inline]
    pub(crate) fn journal(&self) -> Option<&RingJournal> {
        self.journal.as_ref()
    }

    /// Entries.
    #[inline]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// What was negotiated.
    #[inline]
    pub fn options(&self) -> RingOptions {
        self.options
    }

    /// Bytes of the virtio-net header in front of each frame.
    #[inline]
    pub(crate) fn header_len(&self) -> usize {
        self.header_len
    }

    /// The used index of a split ring as it stands in memory: where one that starts goes on.
    pub fn used_index(&self) -> u16 {
        u16::from_le(self.word(self.used, 1).load(Ordering::Relaxed))
    }

    /// The window of guest memory that holds `addr`.
    #[inline]
    pub(crate) fn window(&self, addr: u64) -> Option<Window> {
        self.memory.window(addr)
    }

    /// A 16-bit word of the available or the used ring. `index` is within the part: checked by those below.
    #[inline]
    fn word(&self, part: *mut u16, index: usize) -> &AtomicU16 {
        // SAFETY: `new` checked the part to hold 3 + size words (available) or 3 + 4 * size words (used); the callers
        // below stay under that.
        let word = unsafe { part.add(index) };
        // SAFETY: aligned as `new` checked, mapped as long as `self`, only ever accessed atomically or volatile.
        unsafe { AtomicU16::from_ptr(word) }
    }

    /// The place in the ring of a free-running position.
    #[inline]
    fn slot(&self, position: u16) -> usize {
        usize::from(position & (self.size - 1))
    }

    /// Acquire: pairs with the driver's release of its index, so that entries and descriptors behind it are seen.
    #[inline]
    pub(crate) fn avail_index(&self) -> u16 {
        u16::from_le(self.word(self.avail, 1).load(Ordering::Acquire))
    }

    /// The head that stands at `position` of the available ring, whatever its value.
    #[inline]
    pub(crate) fn avail_entry(&self, position: u16) -> u16 {
        u16::from_le(self.word(self.avail, 2 + self.slot(position)).load(Ordering::Relaxed))
    }

    /// Copies descriptor `index` out, each of its words read once. `None`: there is no such descriptor.
    #[inline]
    pub(crate) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        // SAFETY: index < size, and `new` checked the table to hold `size` descriptors, aligned to 16.
        let place = unsafe { self.desc.add(usize::from(index)) };
        // SAFETY: readable as above; volatile, because the guest may write it meanwhile.
        let words = unsafe { place.read_volatile() };
        Some(Descriptor::from_words(words))
    }

    /// Writes one used entry; the guest sees it after [`Self::publish_used`].
    #[inline]
    pub(crate) fn set_used(&self, position: u16, head: u16, written: u32) {
        let entry = u64::from(head) | u64::from(written) << 32;
        // SAFETY: entries begin after two words; slot < size, and `new` checked the part to hold `size` entries.
        let place = unsafe { self.used.add(2 + 4 * self.slot(position)) };
        // SAFETY: as above; entries are 4-byte aligned, so the 8 bytes are written as unaligned ones.
        unsafe { place.cast::<u64>().write_unaligned(entry.to_le()) };
    }

    /// Release: buffers and used entries written before are seen by a driver that reads this index.
    #[inline]
    pub(crate) fn publish_used(&self, position: u16) {
        self.word(self.used, 1).store(position.to_le(), Ordering::Release);
    }

    /// Whether the guest wants to be told that the used index went from `old` to `new` (virtio 1.2, 2.7.7, 2.7.10).
    #[inline]
    pub(crate) fn wants_signal(&self, old: u16, new: u16) -> bool {
        if self.signals.call.is_none() {
            return false;
        }
        // The index must be visible before the guest's wish is read, or both sides could miss each other; pairs with
        // the barrier between the guest's write of its wish and its last look at the index.
        fence(Ordering::SeqCst);
        if self.options.event_idx {
            let event =
                u16::from_le(self.word(self.avail, 2 + usize::from(self.size)).load(Ordering::Relaxed));
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        let flags = u16::from_le(self.word(self.avail, 0).load(Ordering::Relaxed));
        flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
    }

    /// Signals the guest.
    #[inline]
    pub(crate) fn signal(&self) -> Result<(), Jammed> {
        self.signals.call.as_ref().map_or(Ok(()), Call::try_make)
    }

    /// Signals the front end and the driver that the ring is broken.
    pub(crate) fn report_fault(&self) {
        for eventfd in [&self.signals.error, &self.signals.trouble].into_iter().flatten() {
            // The ring is broken already.
            let _ = signal(eventfd);
        }
    }

    /// Asks the guest to kick when it makes `position` available.
    pub(crate) fn ask_for_kicks(&self, position: u16) {
        if self.options.event_idx {
            self.set_avail_event(position);
        } else {
            self.word(self.used, 0).store(0, Ordering::Relaxed);
        }
        // The wish must be visible before the caller's last look at the index; pairs with the guest's barrier between
        // its index and its look at our wish.
        fence(Ordering::SeqCst);
    }

    /// Tells the guest that kicks are not needed; a hint. `position` is the next available entry. With EVENT_IDX the
    /// event is left behind, which the guest reaches again after 65,536 buffers.
    pub(crate) fn ask_for_silence(&self, position: u16) {
        if self.options.event_idx {
            self.set_avail_event(position.wrapping_sub(1));
        } else {
            self.word(self.used, 0).store((VRING_USED_F_NO_NOTIFY as u16).to_le(), Ordering::Relaxed);
        }
    }

    fn set_avail_event(&self, position: u16) {
        let place = 2 + 4 * usize::from(self.size);
        self.word(self.used, place).store(position.to_le(), Ordering::Relaxed);
    }
}

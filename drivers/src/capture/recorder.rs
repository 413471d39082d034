//! The memory that workers record in, and that a thread writes out.
//!
//! There are two pages. Workers fill one while the thread writes the other; it swaps them under a lock that a worker
//! holds for one burst's copy and the thread for an instant.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ringyard_dataplane::frame::{Burst, Frame};

use super::pcap::{RECORD_HEADER_LEN, record_header};
use crate::minder::Alarm;

/// Bytes that wait for the file, at most; as many again are on their way there. 10 ms at 3 Gbit/s.
pub(super) const PAGE_BYTES: usize = 4 << 20;
/// The thread is not to wait for more when so many bytes wait.
const PAGE_PLENTY: usize = PAGE_BYTES / 2;

/// What has been recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames that went, or are about to go, to the file.
    pub frames: u64,
    /// Frames for which there was no room.
    pub lost: u64,
}

/// See the module. Shared by every end that is captured in the same file, whichever workers poll them.
pub struct Recorder {
    snaplen: usize,
    page: Mutex<Page>,
    /// Raised by the worker that records the first frame of a page.
    pub(super) some: Alarm,
    /// Raised by the worker that fills half of a page.
    pub(super) plenty: Alarm,
    /// Written under the lock.
    frames: AtomicU64,
    lost: AtomicU64,
    /// Set by the thread when the file takes no more.
    is_over: AtomicBool,
}

/// Records, one behind the other.
pub(super) struct Page {
    bytes: Box<[u8]>,
    used: usize,
}

impl Recorder {
    /// Errors: no descriptors to be had.
    pub(super) fn new(snaplen: u32) -> io::Result<Recorder> {
        Ok(Recorder {
            snaplen: snaplen as usize,
            page: Mutex::new(Page::new()),
            some: Alarm::new()?,
            plenty: Alarm::new()?,
            frames: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        })
    }

    /// Records the picked frames of `burst`, with one time for all.
    #[inline]
    pub(super) fn record(&self, burst: &Burst<'_>, picks: impl Iterator<Item = usize>) {
        // Relaxed: it is no loss to record a little longer what nobody will read.
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut picks = picks.peekable();
        if picks.peek().is_none() {
            return;
        }
        let (mut frames, mut lost) = (0, 0);
        let mut page = self.page();
        // Under the lock, so that the times in a file never go back.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = page.used;
        for index in picks {
            let found_room = page.push(&burst.frame(index), time, self.snaplen);
            frames += u64::from(found_room);
            lost += u64::from(!found_room);
        }
        let after = page.used;
        // Relaxed: counts, for people.
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.lost.fetch_add(lost, Ordering::Relaxed);
        drop(page);
        if before == 0 && after > 0 {
            self.some.raise();
        }
        if before < PAGE_PLENTY && after >= PAGE_PLENTY {
            self.plenty.raise();
        }
    }

    /// What has been recorded so far.
    pub fn totals(&self) -> Totals {
        // Relaxed: counts, for people.
        Totals { frames: self.frames.load(Ordering::Relaxed), lost: self.lost.load(Ordering::Relaxed) }
    }

    /// Whether the file takes no more, so that recording has ended.
    pub fn is_over(&self) -> bool {
        // Relaxed: nothing is read because of it.
        self.is_over.load(Ordering::Relaxed)
    }

    /// Ends recording.
    pub(super) fn give_up(&self) {
        // Relaxed: as above.
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Takes what was recorded, for an empty page.
    pub(super) fn swap(&self, page: &mut Page) {
        debug_assert_eq!(page.used, 0);
        std::mem::swap(&mut *self.page(), page);
    }

    /// No code that can panic leaves a page half changed.
    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    /// An empty one.
    pub(super) fn new() -> Page {
        // Not zeros: the kernel would give their memory only when a worker writes there.
        Page { bytes: vec![0xff; PAGE_BYTES].into(), used: 0 }
    }

    /// The records.
    pub(super) fn records(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds a frame, if there is room.
    #[inline]
    fn push(&mut self, frame: &Frame<'_>, time: Duration, snaplen: usize) -> bool {
        let kept = frame.len().min(snaplen);
        let end = self.used + RECORD_HEADER_LEN + kept;
        let Some(room) = self.bytes.get_mut(self.used..end) else { return false };
        let (header, body) = room.split_at_mut(RECORD_HEADER_LEN);
        header.copy_from_slice(&record_header(time, kept, frame.len()));
        frame.copy_front(body);
        self.used = end;
        true
    }
}

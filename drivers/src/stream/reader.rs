//! What comes in: one read takes as many records as there are, and frames are lent from where they were read to.
//!
//! A record is a frame behind its length, 4 bytes in network order. Reads and records know nothing of each other, so what
//! is left of a read is the front of a record: it moves to the memory's front, and the next read continues it.

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::port::IngressScratch;

use super::{RECORD_LEN_MAX, WORD_LEN};
use crate::arena::Extents;

/// Room for a read behind the longest front of a record.
pub(super) const READ_LEN: usize = 128 * 1024;
const MEMORY_LEN: usize = WORD_LEN + RECORD_LEN_MAX + READ_LEN;
/// Records that one poll looks at: most of them may be empty, and nobody else is served meanwhile.
pub(super) const RECORDS_MAX: usize = 1024;

/// The bytes of a stream between a read and the end of the frames in them. Used by the worker that has the duty.
pub(super) struct Reader {
    memory: Box<[u8]>,
    /// Where the records that were not collected yet begin.
    start: usize,
    /// Where what was read ends.
    end: usize,
    /// Frames that are to be lent (again). They lie before `start`.
    frames: Extents,
}

/// Why no more frames were collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// There are as many as one poll may have.
    Enough,
    /// The next record is not there, or not all of it.
    All,
    /// The next record is longer than any may be: there is no telling where another one begins.
    Oversized,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader { memory: vec![0; MEMORY_LEN].into(), start: 0, end: 0, frames: Extents::new() }
    }

    /// Whether there is no frame to be lent.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Collects frames out of what was read, behind those that are held.
    pub(super) fn collect(&mut self) -> Collected {
        for _ in 0..RECORDS_MAX {
            if self.frames.is_full() {
                return Collected::Enough;
            }
            let Some((word, rest)) = self.memory[self.start..self.end].split_first_chunk() else {
                return Collected::All;
            };
            let len = u32::from_be_bytes(*word) as usize;
            if len > RECORD_LEN_MAX {
                return Collected::Oversized;
            }
            if len > rest.len() {
                return Collected::All;
            }
            // An empty record is no frame.
            if len > 0 {
                self.frames.push(self.start + WORD_LEN, len);
            }
            self.start += WORD_LEN + len;
        }
        Collected::Enough
    }

    /// Where the next bytes are to be read to: [`READ_LEN`] or more. Only when [all](Collected::All) frames were collected
    /// and none is held.
    pub(super) fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.frames.is_empty());
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.memory[self.end..]
    }

    /// `len` bytes were read to the front of [`Self::room`].
    pub(super) fn advance(&mut self, len: usize) {
        self.end += len;
        debug_assert!(self.end <= self.memory.len());
    }

    /// Lends what was collected. Returns how many frames are gone.
    pub(super) fn lend(
        &mut self,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        self.frames.lend(&self.memory, 0, scratch, forward, |builder, frame| builder.push_slice(frame))
    }

    /// Gives up all that was not lent, of which one record is known to be too long.
    pub(super) fn give_up(&mut self, scratch: &mut IngressScratch) {
        scratch.tally.drop(DropReason::TooLong);
        (self.start, self.end) = (0, 0);
    }
}

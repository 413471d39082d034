//! The books: counters of each port and worker, in one shared memory file from the start, so that a successor of this
//! process finds them.
//!
//! A [`Block`] has one writer (its worker, or control; for a stopped worker nobody) and any number of readers, who sum
//! the blocks of all of them. Counters only grow while the port lives; [`Journal::clear`] is called before a slot is
//! given to a port.
//!
//! A burst is counted when it is over. A word says that one is under way, and how long it is: a process that was killed
//! leaves it behind, and its successor counts those frames as uncertain ([`Journal::take_over`]). All else is exact.

use std::io;
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::drops::DropReason;
use crate::frame::BURST_FRAMES;
use crate::port::Tally;
use crate::ring::Mapping;

/// Ports that a switch has room for.
pub const PORTS_MAX: usize = 4096;
/// The slot in which those that were removed are added up.
const RETIRED: usize = PORTS_MAX;
const SLOTS: usize = PORTS_MAX + 1;

/// In front of the blocks, in bytes: the layout's version, and the number of writers.
const HEAD_LEN: usize = 4096;
/// A successor that lays its counters out otherwise does not take them for its own.
const LAYOUT: u64 = u64::from_le_bytes(*b"books\0\0\x01") + DropReason::COUNT as u64;

/// Counters of one port and worker, in bytes: a whole number of cache lines.
const BLOCK_LEN: usize = 256;
const IN_FRAMES: usize = 0;
const IN_BYTES: usize = 1;
const FORWARDED: usize = 2;
const TAKERS: usize = 3;
const OFFERED: usize = 4;
const OUT_FRAMES: usize = 5;
const OUT_BYTES: usize = 6;
const SEGMENTS: usize = 7;
const IN_DROPS: usize = 8;
const OUT_DROPS: usize = IN_DROPS + DropReason::COUNT;
const IN_FLIGHT: usize = BLOCK_LEN / 8 - 2;
const UNCERTAIN: usize = BLOCK_LEN / 8 - 1;
const _: () = assert!(OUT_DROPS + DropReason::COUNT <= IN_FLIGHT);

/// All counters, in a memory file.
pub struct Journal {
    mapping: Mapping,
    file: OwnedFd,
    /// Workers, and control behind them.
    writers: usize,
}

impl Journal {
    /// Room for [`PORTS_MAX`] ports, each counted by `workers` workers and by control.
    pub fn new(workers: usize) -> io::Result<Journal> {
        let writers = workers + 1;
        let (mapping, file) = Mapping::memfd("ringyard-journal", HEAD_LEN + SLOTS * writers * BLOCK_LEN)?;
        let head = mapping.words(0, 2);
        head[0].store(LAYOUT, Ordering::Relaxed);
        head[1].store(writers as u64, Ordering::Relaxed);
        Ok(Journal { mapping, file, writers })
    }

    /// The counters that a process before this one kept in `file`, for `workers` workers of this one. They are found by
    /// [`Self::take_over`]; with another number of workers, in a file of their own.
    ///
    /// Errors: as mapping, and a file that is not laid out as ours.
    pub fn adopt(file: OwnedFd, workers: usize) -> io::Result<Journal> {
        let len = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "no counters of this version");
        if len < HEAD_LEN {
            return Err(odd());
        }
        let mapping = Mapping::of_file(&file, len)?;
        let [layout, writers] = [0, 1].map(|word| mapping.words(0, 2)[word].load(Ordering::Relaxed));
        let writers = usize::try_from(writers).map_err(|_| odd())?;
        let blocks = writers.checked_mul(SLOTS * BLOCK_LEN).ok_or_else(odd)?;
        if layout != LAYOUT || writers == 0 || len - HEAD_LEN != blocks {
            return Err(odd());
        }
        let old = Journal { mapping, file, writers };
        if writers == workers + 1 {
            return Ok(old);
        }
        let new = Journal::new(workers)?;
        for slot in 0..SLOTS {
            old.take_over(slot);
            new.slot(slot, workers).add_all(&old.sum(slot));
        }
        Ok(new)
    }

    /// Counts the bursts of `port` that were under way when the process before this one ended as uncertain. Only while no
    /// worker has the port.
    pub fn take_over(&self, port: usize) {
        for writer in 0..self.writers {
            let block = self.slot(port, writer);
            let frames = block.words[IN_FLIGHT].swap(0, Ordering::Relaxed);
            // No burst is longer: whatever else stands there was not written by us.
            block.add(UNCERTAIN, frames.min(BURST_FRAMES as u64));
        }
    }

    /// The memory file, for whoever keeps it beyond this process.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// The counters of `port` that `worker` alone writes.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn block(&self, port: usize, worker: usize) -> Block<'_> {
        assert!(port < PORTS_MAX);
        self.slot(port, worker)
    }

    #[inline]
    fn slot(&self, slot: usize, writer: usize) -> Block<'_> {
        assert!(slot < SLOTS && writer < self.writers);
        let at = HEAD_LEN + (slot * self.writers + writer) * BLOCK_LEN;
        Block { words: self.mapping.words(at, BLOCK_LEN / 8) }
    }

    /// The counters of `port` that control alone writes.
    pub fn control_block(&self, port: usize) -> Block<'_> {
        self.block(port, self.writers - 1)
    }

    /// The counters of `port`, of all writers together.
    pub fn port(&self, port: usize) -> PortCounters {
        assert!(port < PORTS_MAX);
        self.sum(port)
    }

    fn sum(&self, slot: usize) -> PortCounters {
        let mut sum = PortCounters::default();
        for writer in 0..self.writers {
            sum += self.slot(slot, writer).read();
        }
        sum
    }

    /// Adds the counters of `port`, which is removed, to those of all that were. Written by control.
    pub fn retire(&self, port: usize) {
        self.slot(RETIRED, self.writers - 1).add_all(&self.port(port));
    }

    /// The counters of all ports that were removed, added up.
    pub fn retired(&self) -> PortCounters {
        self.sum(RETIRED)
    }

    /// Frames that `port` took from workers other than `worker`.
    pub(crate) fn taken_elsewhere(&self, port: usize, worker: usize) -> u64 {
        let others = (0..self.writers).filter(|&other| other != worker);
        others.map(|other| self.block(port, other).words[OUT_FRAMES].load(Ordering::Relaxed)).sum()
    }

    /// Sets the counters of `port` to 0. Only while no worker has the port.
    pub fn clear(&self, port: usize) {
        for writer in 0..self.writers {
            for word in self.block(port, writer).words {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// The counters of one port and worker.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    words: &'a [AtomicU64],
}

impl Block<'_> {
    /// One writer, so no locked addition is needed. Relaxed: a counter orders nothing, readers want its value only.
    #[inline]
    fn add(self, word: usize, count: u64) {
        let word = &self.words[word];
        word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn add_drops(self, first: usize, drops: &[u64; DropReason::COUNT]) {
        for (reason, count) in drops.iter().enumerate() {
            if *count != 0 {
                self.add(first + reason, *count);
            }
        }
    }

    /// A burst of `frames` frames is under way, until [`Self::end_burst`].
    #[inline]
    pub fn begin_burst(self, frames: usize) {
        self.words[IN_FLIGHT].store(frames as u64, Ordering::Relaxed);
    }

    /// The burst is over, and counted.
    #[inline]
    pub fn end_burst(self) {
        self.words[IN_FLIGHT].store(0, Ordering::Relaxed);
    }

    fn add_all(self, sum: &PortCounters) {
        let PortCounters { ingress, egress, uncertain } = sum;
        let counts = [
            (IN_FRAMES, ingress.frames),
            (IN_BYTES, ingress.bytes),
            (FORWARDED, ingress.forwarded),
            (TAKERS, ingress.takers),
            (OFFERED, egress.offered),
            (OUT_FRAMES, egress.frames),
            (OUT_BYTES, egress.bytes),
            (SEGMENTS, egress.segments),
            (UNCERTAIN, *uncertain),
        ];
        counts.into_iter().for_each(|(word, count)| self.add(word, count));
        self.add_drops(IN_DROPS, &ingress.drops);
        self.add_drops(OUT_DROPS, &egress.drops);
    }

    /// Frames that left the sender: `frames` with `bytes` bytes, of which `forwarded` had takers, `takers` in all, and
    /// the rest was dropped as `drops` says.
    #[inline]
    pub fn count_ingress(
        self,
        frames: u64,
        bytes: u64,
        forwarded: u64,
        takers: u64,
        drops: &[u64; DropReason::COUNT],
    ) {
        self.add(IN_FRAMES, frames);
        self.add(IN_BYTES, bytes);
        self.add(FORWARDED, forwarded);
        self.add(TAKERS, takers);
        if forwarded != frames {
            self.add_drops(IN_DROPS, drops);
        }
    }

    /// Frames offered to an egress, and what became of them.
    #[inline]
    pub fn count_egress(self, offered: u64, tally: &Tally) {
        self.add(OFFERED, offered);
        self.add(OUT_FRAMES, tally.frames);
        self.add(OUT_BYTES, tally.bytes);
        if tally.segments != 0 {
            self.add(SEGMENTS, tally.segments);
        }
        if tally.frames != offered {
            self.add_drops(OUT_DROPS, &tally.drops);
        }
    }

    fn read(self) -> PortCounters {
        let word = |index: usize| self.words[index].load(Ordering::Relaxed);
        let drops = |first: usize| std::array::from_fn(|reason| word(first + reason));
        PortCounters {
            ingress: IngressCounters {
                frames: word(IN_FRAMES),
                bytes: word(IN_BYTES),
                forwarded: word(FORWARDED),
                takers: word(TAKERS),
                drops: drops(IN_DROPS),
            },
            egress: EgressCounters {
                offered: word(OFFERED),
                frames: word(OUT_FRAMES),
                bytes: word(OUT_BYTES),
                segments: word(SEGMENTS),
                drops: drops(OUT_DROPS),
            },
            uncertain: word(UNCERTAIN),
        }
    }
}

/// Into the switch: `frames` = `forwarded` + Σ `drops`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngressCounters {
    /// Frames that left the sender.
    pub frames: u64,
    /// Bytes of the frames that were lent.
    pub bytes: u64,
    /// Frames that had a taker.
    pub forwarded: u64,
    /// Takers of these frames, summed: what all egresses together were offered.
    pub takers: u64,
    /// Frames that had none, by reason.
    pub drops: [u64; DropReason::COUNT],
}

/// Out of the switch: `offered` = `frames` + Σ `drops`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressCounters {
    /// Frames meant for this port.
    pub offered: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Segments made of some of these in software. A frame that was cut is one frame.
    pub segments: u64,
    /// Frames not sent, by reason.
    pub drops: [u64; DropReason::COUNT],
}

/// Both sides of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Into the switch.
    pub ingress: IngressCounters,
    /// Out of the switch.
    pub egress: EgressCounters,
    /// Frames of bursts that were under way when a process before this one was killed. Each may have reached some of its
    /// takers, and been counted there, before it was sent again, or may have been sent and not counted at its sender.
    pub uncertain: u64,
}

impl AddAssign for PortCounters {
    fn add_assign(&mut self, other: PortCounters) {
        self.uncertain += other.uncertain;
        self.ingress.frames += other.ingress.frames;
        self.ingress.bytes += other.ingress.bytes;
        self.ingress.forwarded += other.ingress.forwarded;
        self.ingress.takers += other.ingress.takers;
        self.egress.offered += other.egress.offered;
        self.egress.frames += other.egress.frames;
        self.egress.bytes += other.egress.bytes;
        self.egress.segments += other.egress.segments;
        for reason in 0..DropReason::COUNT {
            self.ingress.drops[reason] += other.ingress.drops[reason];
            self.egress.drops[reason] += other.egress.drops[reason];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_and_ports_apart() {
        let journal = Journal::new(2).unwrap();
        let mut drops = [0; DropReason::COUNT];
        drops[DropReason::Runt as usize] = 1;
        journal.block(7, 0).count_ingress(3, 200, 2, 4, &drops);
        journal.block(7, 1).count_ingress(1, 60, 1, 1, &[0; DropReason::COUNT]);
        journal
            .block(8, 1)
            .count_egress(2, &Tally { frames: 2, bytes: 120, segments: 5, ..Tally::default() });
        let seven = journal.port(7);
        assert_eq!((seven.ingress.frames, seven.ingress.forwarded, seven.ingress.takers), (4, 3, 5));
        assert_eq!(seven.ingress.drops[DropReason::Runt as usize], 1);
        assert_eq!(seven.egress, EgressCounters::default());
        assert_eq!((journal.port(8).egress.frames, journal.port(8).egress.segments), (2, 5));
        assert_eq!((journal.taken_elsewhere(8, 0), journal.taken_elsewhere(8, 1)), (2, 0));
        journal.control_block(8).count_ingress(1, 0, 0, 0, &drops);
        assert_eq!((journal.port(8).ingress.frames, journal.port(9).ingress.frames), (1, 0));
        journal.retire(7);
        journal.clear(7);
        assert_eq!(journal.port(7), PortCounters::default());
        assert_eq!(journal.port(8).egress.bytes, 120);
        assert_eq!(journal.retired(), seven);
    }

    #[test]
    fn successor_goes_on_counting_and_knows_which_bursts_are_uncertain() {
        for workers in [2, 1, 5] {
            let journal = Journal::new(2).unwrap();
            let none = [0; DropReason::COUNT];
            journal.block(7, 0).count_ingress(3, 200, 3, 3, &none);
            journal.block(7, 1).begin_burst(40);
            journal.block(8, 1).begin_burst(9);
            journal.block(8, 1).end_burst();
            journal.retire(7);
            let file = journal.file().try_clone().unwrap();
            drop(journal);
            let journal = Journal::adopt(file, workers).unwrap();
            journal.take_over(7);
            journal.take_over(8);
            journal.control_block(7).count_ingress(2, 120, 2, 2, &none);
            let seven = journal.port(7);
            assert_eq!((seven.ingress.frames, seven.ingress.bytes, seven.uncertain), (5, 320, 40));
            assert_eq!((journal.port(8).uncertain, journal.retired().ingress.frames), (0, 3));
            journal.take_over(7);
            assert_eq!(journal.port(7), seven, "once");
        }
    }

    #[test]
    fn file_that_is_not_laid_out_as_ours_is_not_adopted() {
        let (mapping, file) = Mapping::memfd("odd", HEAD_LEN + 2 * SLOTS * BLOCK_LEN).unwrap();
        let head = mapping.words(0, 2);
        let refused = || Journal::adopt(file.try_clone().unwrap(), 1).is_err();
        assert!(refused(), "no layout");
        head[0].store(LAYOUT, Ordering::Relaxed);
        for writers in [0, 1, 3, u64::MAX, 1 << 44] {
            head[1].store(writers, Ordering::Relaxed);
            assert!(refused(), "{writers} writers");
        }
        head[1].store(2, Ordering::Relaxed);
        assert!(!refused());
        let (_, short) = Mapping::memfd("short", 100).unwrap();
        assert!(Journal::adopt(short, 1).is_err());
    }
}

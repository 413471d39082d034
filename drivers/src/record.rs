//! A record that outlives this process: some bytes in a memory file, written whole.
//!
//! There are two slots. A record goes into the one that has the older, under a number that is one higher, and its checksum
//! covers both; so whoever looks, after a process that was killed at any instant, finds the last record or the one before.
//! What is found was written by somebody else, as far as we know: it is copied out, and believed if its checksum is right.
//! Nobody reads while somebody writes, so there is nothing here for loom: what counts is the order of one thread's stores,
//! and tests have each of them missing.
//!
//! Behind the slots there is room for what is not written whole. One word is beside the records: how far something got
//! that the last record announces.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringyard_dataplane::ring::Mapping;

/// See the module. One thread writes it.
pub struct Record {
    mapping: Arc<Mapping>,
    slot_len: usize,
    /// The number of the last record.
    number: u64,
}

/// The record has more bytes than a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Record {
    /// An empty one in a new file, with room for records of `len_max` bytes and for `more` bytes behind them. `kind` says
    /// what is recorded, and how: a successor that does not know that leaves it alone.
    pub fn new(name: &str, kind: u64, len_max: usize, more: usize) -> io::Result<(Record, OwnedFd)> {
        let slot_len = (SLOT_HEAD_LEN + len_max).next_multiple_of(PAGE_LEN);
        let (mapping, file) = Mapping::memfd(name, PAGE_LEN + 2 * slot_len + more)?;
        let head = mapping.words(0, 2);
        head[1].store(slot_len as u64, Ordering::Relaxed);
        head[0].store(kind, Ordering::Release);
        Ok((Record { mapping: Arc::new(mapping), slot_len, number: 0 }, file))
    }

    /// The one that a process before this one left in `file`, and its last record, with `more` bytes behind.
    ///
    /// Errors: as mapping; another kind or size; no record that is whole.
    pub fn adopt(file: impl AsFd, kind: u64, more: usize) -> io::Result<(Record, Vec<u8>)> {
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let len = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        if len < PAGE_LEN {
            return Err(odd("the file of the record is too short"));
        }
        let mapping = Arc::new(Mapping::of_file(file, len)?);
        let [known, slot_len] = [0, 1].map(|word| mapping.words(0, 2)[word].load(Ordering::Acquire));
        let slot_len = usize::try_from(slot_len).unwrap_or(0);
        let slots = slot_len.checked_mul(2).and_then(|slots| slots.checked_add(PAGE_LEN));
        let end = slots.and_then(|slots| slots.checked_add(more));
        if known != kind || end.is_none_or(|end| end > len) || slot_len < PAGE_LEN || slot_len % PAGE_LEN != 0
        {
            return Err(odd("the record is of another version"));
        }
        let mut record = Record { mapping, slot_len, number: 0 };
        let last = [0, 1].into_iter().filter_map(|slot| record.read(slot)).max_by_key(|(number, _)| *number);
        let (number, bytes) = last.ok_or_else(|| odd("the record is not whole"))?;
        record.number = number;
        Ok((record, bytes))
    }

    /// Writes `bytes` in place of the record before the last.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > self.slot_len - SLOT_HEAD_LEN {
            return Err(TooLong);
        }
        let number = self.number + 1;
        let [stored_number, len, sum] = self.head(number as usize % 2);
        // Not whole until the checksum is there.
        sum.store(0, Ordering::Release);
        for (place, word) in self.body(number as usize % 2, bytes.len()).iter().zip(words(bytes)) {
            place.store(word, Ordering::Relaxed);
        }
        stored_number.store(number, Ordering::Relaxed);
        len.store(bytes.len() as u64, Ordering::Relaxed);
        // Release: a process that is killed has done what its program does before.
        sum.store(checksum(number, bytes), Ordering::Release);
        self.number = number;
        Ok(())
    }

    /// Says how far something got that the last record announces.
    pub fn set_progress(&self, progress: u32) {
        self.mapping.words(PROGRESS_AT, 1)[0]
            .store(self.number << 32 | u64::from(progress), Ordering::Release);
    }

    /// What was said so; 0 since the last record was written.
    pub fn progress(&self) -> u32 {
        let word = self.mapping.words(PROGRESS_AT, 1)[0].load(Ordering::Acquire);
        if word >> 32 == self.number & u64::from(u32::MAX) { word as u32 } else { 0 }
    }

    /// The memory, and where in it the room behind the records begins, with a page.
    pub fn room(&self) -> (&Arc<Mapping>, usize) {
        (&self.mapping, PAGE_LEN + 2 * self.slot_len)
    }

    fn read(&self, slot: usize) -> Option<(u64, Vec<u8>)> {
        let [number, len, sum] = self.head(slot).map(|word| word.load(Ordering::Acquire));
        let len = usize::try_from(len).ok().filter(|&len| len <= self.slot_len - SLOT_HEAD_LEN)?;
        let words = self.body(slot, len).iter().map(|word| word.load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(len);
        // There is none before the first, and has to be one after the last.
        let is_known = number > 0 && number < u64::MAX;
        (is_known && sum == checksum(number, &bytes)).then_some((number, bytes))
    }

    /// Number, length and checksum.
    fn head(&self, slot: usize) -> [&AtomicU64; 3] {
        let words = self.mapping.words(PAGE_LEN + slot * self.slot_len, 3);
        [&words[0], &words[1], &words[2]]
    }

    /// The words of `len` bytes, which a slot has.
    fn body(&self, slot: usize, len: usize) -> &[AtomicU64] {
        self.mapping.words(PAGE_LEN + slot * self.slot_len + SLOT_HEAD_LEN, len.div_ceil(8))
    }
}

/// The last word is filled up with zeros.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

/// FNV-1a over words; never 0.
fn checksum(number: u64, bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let sum = words(bytes).fold(mix(mix(0xcbf2_9ce4_8422_2325, number), bytes.len() as u64), mix);
    sum.max(1)
}

/// Of the first page: kind, bytes of a slot, progress.
const PROGRESS_AT: usize = 16;
const PAGE_LEN: usize = 4096;
const SLOT_HEAD_LEN: usize = 24;

#[cfg(any(test, fuzzing))]
#[path = "record_fuzzing.rs"]
pub mod fuzzing;
#[cfg(test)]
mod tests {
    use super::*;

    const KIND: u64 = 77;

    fn found(file: &OwnedFd) -> Option<Vec<u8>> {
        Record::adopt(file, KIND, 0).ok().map(|(_, bytes)| bytes)
    }

    #[test]
    fn last_record_is_found() {
        let (mut record, file) = Record::new("record", KIND, 100, 0).unwrap();
        assert_eq!(found(&file), None, "there is none");
        for len in [0, 1, 7, 8, 9, 100, 3] {
            let bytes: Vec<u8> = (0..len).collect();
            record.write(&bytes).unwrap();
            assert_eq!(found(&file), Some(bytes));
            (record, _) = Record::adopt(&file, KIND, 0).unwrap();
        }
        assert_eq!(record.write(&[0; PAGE_LEN]), Err(TooLong));
        assert_eq!(found(&file), Some(vec![0, 1, 2]));
    }

    #[test]
    fn record_that_was_cut_leaves_the_one_before() {
        let (mut record, file) = Record::new("record", KIND, 100, 0).unwrap();
        record.write(b"the first").unwrap();
        record.write(b"the second").unwrap();
        let words = record.mapping.words(0, (PAGE_LEN + 2 * record.slot_len) / 8);
        let whole: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        for (place, word) in words.iter().enumerate().take(PAGE_LEN / 8 + 8).skip(PAGE_LEN / 8) {
            for garbled in [0, 1, 9, 1 << 20, u64::MAX, whole[place] ^ 1] {
                word.store(garbled, Ordering::Relaxed);
                let found = found(&file).expect("a record");
                let is_whole = garbled == whole[place] || place >= PAGE_LEN / 8 + 5;
                assert_eq!(
                    found,
                    if is_whole { &b"the second"[..] } else { b"the first" },
                    "{place} {garbled}"
                );
                word.store(whole[place], Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn record_after_which_there_is_no_number_is_none() {
        for (number, is_found) in [(u64::MAX - 2, true), (u64::MAX - 1, false)] {
            let (mut record, file) = Record::new("record", KIND, 100, 0).unwrap();
            record.number = number;
            record.write(b"late").unwrap();
            assert_eq!(found(&file).is_some(), is_found, "{number}");
        }
    }

    #[test]
    fn progress_is_of_the_last_record_only() {
        let (mut record, file) = Record::new("record", KIND, 100, 0).unwrap();
        record.write(b"one").unwrap();
        assert_eq!(record.progress(), 0);
        record.set_progress(5);
        assert_eq!(Record::adopt(&file, KIND, 0).unwrap().0.progress(), 5);
        record.write(b"two").unwrap();
        assert_eq!(Record::adopt(&file, KIND, 0).unwrap().0.progress(), 0);
    }

    #[test]
    fn file_of_another_kind_or_size_is_left_alone() {
        let (mut record, file) = Record::new("record", KIND, 100, PAGE_LEN).unwrap();
        record.write(b"one").unwrap();
        assert!(Record::adopt(&file, KIND, PAGE_LEN).is_ok());
        assert!(
            Record::adopt(&file, KIND + 1, 0).is_err() && Record::adopt(&file, KIND, PAGE_LEN + 1).is_err()
        );
        for slot_len in [0, 1, PAGE_LEN + 1, 2 * PAGE_LEN, usize::MAX, usize::MAX / 2] {
            record.mapping.words(8, 1)[0].store(slot_len as u64, Ordering::Relaxed);
            assert_eq!(found(&file), None, "{slot_len:#x}");
        }
        let (_, short) = Mapping::memfd("short", 10).unwrap();
        assert_eq!(found(&short), None);
    }
}

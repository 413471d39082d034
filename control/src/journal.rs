//! A value that outlives this process: two memory files in the store that are written in turns, so that at any instant one
//! of them is whole.
//!
//! Each begins with what it is, a number that grows, and the length and a checksum of what follows. A reader takes the one
//! with the higher number of those that fit their checksum.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ringyard_drivers::store::Drawer;
use rustix::fs::{MemfdFlags, memfd_create};

/// See the module.
pub struct Journal {
    files: [File; 2],
    /// Of the entry to be written next, into the file of its parity.
    number: u64,
}

impl Journal {
    /// The journal in `drawer`, and what was written to it last; a new one if there is none.
    ///
    /// Errors: no memory file to be had.
    pub fn open(drawer: &Drawer) -> io::Result<(Journal, Option<Vec<u8>>)> {
        let found = [0, 1].map(|index| drawer.take(index).map(File::from));
        let entries = found.iter().flatten().filter_map(read);
        let last = entries.max_by_key(|(number, _)| *number);
        let number = last.as_ref().map_or(0, |(number, _)| number.wrapping_add(1));
        let mut files = Vec::new();
        for (index, file) in found.into_iter().enumerate() {
            files.push(match file {
                Some(file) => file,
                None => {
                    let file = memfd_create("ringyard-model", MemfdFlags::CLOEXEC)?;
                    drawer.keep(index, &file);
                    file.into()
                }
            });
        }
        let files = <[File; 2]>::try_from(files).map_err(|_| io::ErrorKind::Other)?;
        Ok((Journal { files, number }, last.map(|(_, bytes)| bytes)))
    }

    /// Writes `bytes` in place of what was there. Killed in the middle, it leaves what was there.
    ///
    /// Errors: there is no memory for it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = &self.files[(self.number % 2) as usize];
        file.set_len((HEAD_LEN + bytes.len()) as u64)?;
        file.write_all_at(bytes, HEAD_LEN as u64)?;
        let head = [MAGIC, self.number, bytes.len() as u64, checksum(bytes)];
        file.write_all_at(&head.map(u64::to_le_bytes).concat(), 0)?;
        self.number += 1;
        Ok(())
    }
}

/// The entry of a file, if it is whole.
fn read(file: &File) -> Option<(u64, Vec<u8>)> {
    let len = usize::try_from(file.metadata().ok()?.len()).ok()?.checked_sub(HEAD_LEN)?;
    let mut head = [0; HEAD_LEN];
    file.read_exact_at(&mut head, 0).ok()?;
    let word = |index: usize| head[index * 8..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (number, told_len, told_sum) = (word(1)?, word(2)?, word(3)?);
    if word(0)? != MAGIC || told_len != len as u64 || len > LEN_MAX {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, HEAD_LEN as u64).ok()?;
    (checksum(&bytes) == told_sum).then_some((number, bytes))
}

/// FNV-1a. It tells a torn entry from a whole one; nobody else can write here.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

const MAGIC: u64 = u64::from_le_bytes(*b"ryModel1");
const HEAD_LEN: usize = 32;
/// Bytes of an entry that is read, at most.
const LEN_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal::open(&Drawer::default()).expect("memory files can be made").0
    }

    fn last(journal: &Journal) -> Option<Vec<u8>> {
        journal.files.iter().filter_map(read).max_by_key(|(number, _)| *number).map(|(_, bytes)| bytes)
    }

    #[test]
    fn the_last_entry_is_read() {
        let mut journal = journal();
        assert_eq!(last(&journal), None);
        for entry in [&b"long entry"[..], b"short", b"", b"a longer entry again"] {
            journal.write(entry).expect("there is memory");
            assert_eq!(last(&journal).as_deref(), Some(entry));
        }
    }

    #[test]
    fn an_entry_that_is_torn_anywhere_leaves_the_one_before() {
        let mut journal = journal();
        journal.write(b"first").expect("there is memory");
        journal.write(b"second").expect("there is memory");
        let whole: Vec<u8> = {
            let mut bytes = vec![0; HEAD_LEN + 6];
            journal.files[1].read_exact_at(&mut bytes, 0).expect("it was just written");
            bytes
        };
        for cut in 0..whole.len() {
            journal.files[1].set_len(cut as u64).expect("it can be cut");
            assert_eq!(last(&journal).as_deref(), Some(&b"first"[..]), "cut at {cut}");
            let mut other = whole.clone();
            other[cut] ^= 0x10;
            journal.files[1].set_len(0).expect("it can be cut");
            journal.files[1].write_all_at(&other, 0).expect("there is memory");
            // A number that is another one is still that of a whole entry.
            let expected: &[u8] = if (8..16).contains(&cut) { b"second" } else { b"first" };
            assert_eq!(last(&journal).as_deref(), Some(expected), "changed at {cut}");
        }
    }
}

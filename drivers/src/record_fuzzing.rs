//! A fuzz target: a record whose file somebody has changed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{PAGE_LEN, Record};

const KIND: u64 = 0x1234_5678;

/// Runs the target: a byte says how many records are written, one how much of the file is left, one how much room there is
/// to be behind; then four bytes each change one: where, in two of them, how, and whether in the head or in a slot. What is
/// found is one of the records, whole, or nothing; and it can be written to again.
pub fn run(input: &[u8]) {
    let Some((&[count, left, more], changes)) = input.split_first_chunk() else { return };
    let more = usize::from(more) * 64;
    let (mut record, file) = Record::new("fuzzed", KIND, 200, more).expect("memory");
    let written: Vec<Vec<u8>> =
        (0..count % 4).map(|number| vec![number; 10 + 60 * usize::from(number)]).collect();
    written.iter().for_each(|bytes| record.write(bytes).expect("there is room"));
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).expect("it can be read");
    bytes.truncate(bytes.len() * (256 - usize::from(left)) / 256);
    for change in changes.chunks_exact(4) {
        let slot = [0, PAGE_LEN, 2 * PAGE_LEN][usize::from(change[3]) % 3];
        let at = slot + usize::from(u16::from_le_bytes([change[0], change[1]])) % 300;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[2];
        }
    }
    let mut changed = File::from(memfd_create("changed", MemfdFlags::CLOEXEC).expect("memory"));
    changed.write_all(&bytes).expect("there is room");
    let Ok((mut adopted, found)) = Record::adopt(&changed, KIND, more) else {
        let unchanged = left == 0 && changes.len() < 4 && !written.is_empty();
        assert!(!unchanged, "what nobody changed is found");
        return;
    };
    assert!(written.contains(&found), "{found:x?} was never written");
    let _ = adopted.progress();
    adopted.write(b"another").expect("there is room");
    let (mapping, at) = adopted.room();
    assert!(at + more <= mapping.len());
    changed.seek(SeekFrom::Start(0)).expect("a file");
    let (_, again) = Record::adopt(&changed, KIND, more).expect("it was just written");
    assert_eq!(again, b"another");
}

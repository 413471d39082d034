//! The classic form of a capture file, version 2.4 with microseconds, in the host's byte order: a header, then a record
//! for each frame (draft-ietf-opsawg-pcap).

use std::time::Duration;

/// Bytes before the first record.
pub(super) const FILE_HEADER_LEN: usize = 24;
/// Bytes before each frame.
pub(super) const RECORD_HEADER_LEN: usize = 16;

const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
/// Frames begin with an Ethernet header, and have no FCS.
const LINKTYPE_ETHERNET: u32 = 1;

/// What a file begins with.
pub(super) fn file_header(snaplen: u32) -> [u8; FILE_HEADER_LEN] {
    let mut header = [0; FILE_HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC.to_ne_bytes());
    header[4..6].copy_from_slice(&VERSION[0].to_ne_bytes());
    header[6..8].copy_from_slice(&VERSION[1].to_ne_bytes());
    // The zone and the precision of the times are 0 everywhere.
    header[16..20].copy_from_slice(&snaplen.to_ne_bytes());
    header[20..].copy_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
    header
}

/// What a frame of `len` bytes begins with, the first `kept` of which follow; `time` counts from 1970.
#[inline]
pub(super) fn record_header(time: Duration, kept: usize, len: usize) -> [u8; RECORD_HEADER_LEN] {
    let words = [time.as_secs() as u32, time.subsec_micros(), kept as u32, len as u32];
    let mut header = [0; RECORD_HEADER_LEN];
    header
        .chunks_exact_mut(4)
        .zip(words)
        .for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
    header
}

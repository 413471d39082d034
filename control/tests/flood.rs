//! A client that sends without end what is never finished, too deep, or no JSON costs little memory. In a process of its
//! own, whose memory nobody else uses.

use std::fs;

use ringyard_control::json::{COMMAND_BYTES_MAX, Layout};
use ringyard_control::monitor::{Output, Session};

#[test]
fn q04_a_flood_costs_bounded_memory() {
    let floods: [&[u8]; 6] =
        [b"[", b"{\"a\":", b"\"abcdefgh", b"[1,", b"%$\\", b"{\"execute\": \"x\", \"id\": [1,"];
    for flood in floods {
        let before = resident_bytes();
        let grown = most_resident(flood).saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{:?} costs {grown} bytes", flood.escape_ascii().to_string());
    }
}

/// The most memory that was in use while a session was fed the same bytes again and again.
fn most_resident(flood: &[u8]) -> usize {
    let mut session = Session::new(Layout::Line);
    let piece = flood.repeat(READ_BYTES / flood.len());
    let mut most = 0;
    for _ in 0..3 * COMMAND_BYTES_MAX / piece.len() {
        session.feed(&piece);
        while let Some(output) = session.next_output() {
            assert!(matches!(output, Output::Reply(_)), "nobody has negotiated");
        }
        most = most.max(resident_bytes());
    }
    most
}

/// The memory of this process that is in use (proc(5), `statm`), in pages of 4 KiB or more.
fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/statm").expect("it is always there");
    let pages: Option<usize> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.expect("it has numbers") * 4096
}

/// As much as is read from a client at once.
const READ_BYTES: usize = 16 << 10;
/// A command of a mebibyte, in values.
const GROWTH_MAX: usize = 32 << 20;

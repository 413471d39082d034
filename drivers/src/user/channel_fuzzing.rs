//! A fuzz target: a helper that says anything.

use std::io::Write;

use super::{Channel, Reply};

/// Runs the target: a byte says how the others are cut. What is understood does not depend on that, and is what serde_json
/// finds in each line.
pub fn run(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let whole = understood(bytes, usize::MAX);
    assert_eq!(whole, understood(bytes, 1 + usize::from(cut) % 16));
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    for reply in whole {
        let line = lines.next().and_then(|line| serde_json::from_slice::<Reply>(line).ok());
        assert_eq!(reply, line);
    }
}

/// The replies up to the first line that is none.
fn understood(bytes: &[u8], piece: usize) -> Vec<Option<Reply>> {
    let (ours, theirs) = Channel::pair().expect("a pair of sockets");
    let (mut peer, mut channel) = (ours.stream, Channel::new(theirs));
    channel.stream.set_nonblocking(true).expect("a flag");
    let mut replies = Vec::new();
    for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
        // What fits into a socket.
        peer.write_all(piece).expect("there is room");
        // One look reads what has come, the others take what was read.
        for _ in 0..2 + piece.len() {
            match channel.receive_ready() {
                Ok(Some(reply)) => replies.push(Some(reply)),
                Ok(None) => {}
                Err(_) => {
                    replies.push(None);
                    return replies;
                }
            }
        }
    }
    replies
}

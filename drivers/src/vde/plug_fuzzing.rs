//! A fuzz target: a switch that answers anything.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use super::{ADDRESS_LEN, Failure, Waited, path_in, receive};

/// Runs the target: four bytes say how the answer is cut. What is taken is an address of a file, from the root, and as it
/// was said.
pub fn run(input: &[u8]) {
    let Some((cuts, answer)) = input.split_first_chunk::<4>() else { return };
    let (ours, mut switch) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a flag");
    let (mut rest, mut turn) = (answer, 0);
    let peer = &mut switch;
    let said = std::cell::RefCell::new(move || {
        let len = (1 + usize::from(cuts[turn % 4])).min(rest.len());
        turn += 1;
        let (now, later) = rest.split_at(len);
        peer.write_all(now).expect("it is a short answer");
        rest = later;
        if now.is_empty() { Waited::TimedOut } else { Waited::Readable }
    });
    let received = receive(ours.as_fd(), &|_, _| said.borrow_mut()());
    let whole = answer.first_chunk::<ADDRESS_LEN>();
    match (&received, whole) {
        (Ok(received), Some(whole)) => assert_eq!(received, whole),
        (received, whole) => assert!(received.is_err() && whole.is_none(), "{received:?}"),
    }
    let Ok(received) = received else { return };
    match path_in(&received) {
        Ok(path) => {
            let path = path.as_bytes();
            assert!(path.starts_with(b"/") && !path.contains(&0));
            assert!(received[2..].starts_with(path) && received[2 + path.len()] == 0);
        }
        Err(failure) => assert!(matches!(failure, Failure::Switch(_))),
    }
}

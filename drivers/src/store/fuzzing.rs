//! A fuzz target: a switch and a keeper that say anything to each other.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::notify::Notifier;
use super::{NAME_LEN_MAX, Shelf, Store, begin, envelope, keeper, keeper_sockets, wire};

/// Descriptors that the keeper keeps, at most.
const LIMIT: usize = 6;
/// Messages of one input, at most.
const MESSAGES_MAX: usize = 40;
/// Bytes of a message, more or less.
const LEN_MAX: usize = 300;
/// What messages are made of.
const PIECES: [&[u8]; 24] = [
    b"FDSTORE=1\nFDPOLL=0\nFDNAME=ry-1",
    b"FDSTORE=1\nFDPOLL=0\nFDNAME=ry-2",
    b"FDSTOREREMOVE=1\nFDNAME=ry-1",
    b"FDSTORE=1",
    b"FDSTOREREMOVE=1",
    b"FDNAME=",
    b"BARRIER=1",
    b"READY=1",
    b"\n",
    b"=",
    b":",
    b"ry-",
    b"ry-0",
    b"ry-ffffffffffffffff",
    b"ry-fffffffffffffffe",
    b"ry-10000000000000000",
    b"KEPT=ry-3",
    b"KEPT=ry-3:ry-4:other",
    b"KEPT=",
    b"BEGIN=1",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"",
];

/// Runs the target: a byte says who speaks and with which descriptors, one how many pieces a message has, and then come the
/// pieces. What is kept has a name that the protocol allows, and there is not more than was agreed; what a successor finds
/// has a name that a switch gave it; and it still keeps and forgets.
pub fn run(input: &[u8]) {
    let (ours, theirs) = keeper_sockets().expect("a pair of sockets");
    let (mut shelf, mut rest) = (Shelf::new(LIMIT), input);
    for _ in 0..MESSAGES_MAX {
        let Some((&[how, count], pieces)) = rest.split_first_chunk() else { break };
        let (pieces, others) = pieces.split_at(pieces.len().min(usize::from(count % 8)));
        rest = others;
        let mut text: Vec<u8> =
            pieces.iter().flat_map(|&piece| PIECES[usize::from(piece) % PIECES.len()]).copied().collect();
        text.truncate(LEN_MAX);
        let from = if how & 1 == 0 { &theirs } else { &ours };
        let fds: Vec<OwnedFd> = (0..how >> 1 & 3).map(|kind| fd(kind ^ how >> 3)).collect();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // A queue that is full takes no more, which is nobody's fault.
        let _ = match str::from_utf8(&text) {
            Ok(text) => wire::send(from, text, &fds),
            Err(_) => send(from, &text, SendFlags::DONTWAIT).map(drop),
        };
        shelf.serve(&ours, |_| true);
        assert!(shelf.kept().len() <= LIMIT);
        assert!(shelf.kept().iter().all(|(name, _)| name.len() < 256 && !name.contains([':', '\n', '\0'])));
    }
    // What the keeper had said before the turn came does not keep it from coming, but for what it cannot have meant.
    let _ = begin(&ours, shelf.kept());
    let Ok(kept) = keeper::await_turn(&theirs) else { return };
    let store = Store::new(Notifier::over(theirs), kept);
    let names: Vec<String> =
        ["a", "b"].into_iter().filter(|name| store.has(name)).map(str::to_owned).collect();
    for name in names {
        assert!(name.len() <= NAME_LEN_MAX && store.take(&name).is_some());
        store.forget(&name);
    }
    let (another, _) = socket_pair();
    store.keep("another", another).expect("the keeper is there");
    shelf.serve(&ours, |_| true);
    store.forget_untaken();
    store.forget_all();
    shelf.serve(&ours, |_| true);
    let _ = store.hear();
}

/// An envelope, right or not.
fn fd(kind: u8) -> OwnedFd {
    let (ours, theirs) = socket_pair();
    match kind % 6 {
        0 => envelope::seal("a", ours.as_fd()).expect("a pair of sockets"),
        1 => envelope::seal("b", ours.as_fd()).expect("a pair of sockets"),
        2 => ours,
        3 => {
            let _ = wire::send(&theirs, "no descriptor", &[]);
            ours
        }
        4 => {
            let _ = wire::send(&theirs, "two", &[theirs.as_fd(), theirs.as_fd()]);
            ours
        }
        _ => rustix::pipe::pipe().expect("a pipe").0,
    }
}

fn socket_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair of sockets")
}

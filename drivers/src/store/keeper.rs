//! The socket between a switch and our own keeper: the protocol of `NOTIFY_SOCKET` one way; the other way, what was kept, the
//! word to begin, and whatever else the keeper has to say.
//!
//! It is a pair of sockets that nobody else can have, so there is no file, no stranger, and no doubt when either end is
//! gone. What was kept comes as messages, not as `LISTEN_FDS`: a number of descriptors that is no environment variable's
//! matter, and for a switch that was started beforehand and waits for its turn.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_passcred, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use super::notify::SEND_TIME_MAX;
use super::wire::{self, FDS_MAX, Message};

/// The variable that has the number of the switch's end.
pub const KEEPER_FD: &str = "RINGYARD_KEEPER_FD";
/// What the keeper says when it is the switch's turn.
const BEGIN: &str = "BEGIN=1";
/// What it says of descriptors that come along: their names, with colons between.
const KEPT: &str = "KEPT=";

/// The keeper's end, for [`Shelf::serve`](super::Shelf::serve), and the switch's.
pub fn keeper_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_passcred(&ours, true)?;
    for end in [&ours, &theirs] {
        set_socket_timeout(end, Timeout::Send, Some(SEND_TIME_MAX))?;
    }
    Ok((ours, theirs))
}

/// Has the switch at the other end begin with what is `kept`.
pub fn begin(socket: impl AsFd, kept: &[(String, OwnedFd)]) -> io::Result<()> {
    for some in kept.chunks(FDS_MAX) {
        let names: Vec<&str> = some.iter().map(|(name, _)| name.as_str()).collect();
        let fds: Vec<_> = some.iter().map(|(_, fd)| fd.as_fd()).collect();
        wire::send(&socket, &format!("{KEPT}{}", names.join(":")), &fds)?;
    }
    Ok(wire::send(&socket, BEGIN, &[])?)
}

/// Says something else to the switch.
pub fn say(socket: impl AsFd, text: &str) -> io::Result<()> {
    Ok(wire::send(socket, text, &[])?)
}

/// Waits until the keeper says that it is this switch's turn; what was kept.
///
/// Errors: the keeper is gone, or there are no descriptors to be had.
pub(super) fn await_turn(socket: impl AsFd) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut kept = Vec::new();
    loop {
        match wire::receive(&socket, RecvFlags::empty()) {
            Ok(Some(Message { text: Some(text), .. })) if text == BEGIN => return Ok(kept),
            Ok(Some(Message { text: Some(text), fds, is_cut: false, .. })) => {
                let names = text.strip_prefix(KEPT).unwrap_or_default().split(':');
                kept.extend(names.map(str::to_owned).zip(fds));
            }
            Ok(Some(_)) => return Err(io::Error::other("there are too few descriptors for what was kept")),
            Ok(None) => return Err(io::Error::other("the keeper is gone")),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the keeper says, if it says something.
pub(super) fn hear(socket: impl AsFd) -> Heard {
    match wire::receive(socket, RecvFlags::DONTWAIT) {
        Ok(Some(Message { text: Some(text), .. })) => Heard::Said(text),
        Ok(None) => Heard::Gone,
        Ok(Some(_)) | Err(_) => Heard::Nothing,
    }
}

/// What came from the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This.
    Said(String),
    /// Nothing yet.
    Nothing,
    /// There will be nothing any more.
    Gone,
}

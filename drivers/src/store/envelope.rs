//! An envelope: a socket in whose queue one descriptor lies, with its name as the message. No two envelopes are the same open
//! file, whatever is in them, and reading one without taking it out leaves it for the next reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use super::NAME_LEN_MAX;
use super::wire::{self, Message};

/// What is in an envelope.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

/// Puts a duplicate of `fd` into an envelope.
pub(super) fn seal(name: &str, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if !is_name(name) {
        let what = "the name of what is to be kept is empty or too long";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, envelope) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    wire::send(&ours, name, &[fd])?;
    Ok(envelope)
}

/// Reads an envelope, which stays as it is.
pub(super) fn open(envelope: impl AsFd) -> io::Result<Letter> {
    let garbled = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("its envelope {what}"));
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let Message { text, fds, is_cut, .. } =
        wire::receive(envelope, flags)?.ok_or_else(|| garbled("is empty"))?;
    let name = text.filter(|name| is_name(name)).ok_or_else(|| garbled("has no name"))?;
    match <[OwnedFd; 1]>::try_from(fds) {
        Ok([fd]) if !is_cut => Ok(Letter { name, fd }),
        _ => Err(garbled("has no descriptor")),
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
}

/// What the keeper calls an envelope: short, since the names of all together are one environment variable.
pub(super) fn label(number: u64) -> String {
    format!("{LABEL}{number:x}")
}

/// The number of the envelope that the keeper calls so.
pub(super) fn number(label: &str) -> Option<u64> {
    // Not the last one: there has to be a next.
    u64::from_str_radix(label.strip_prefix(LABEL)?, 16).ok().filter(|&number| number < u64::MAX)
}

const LABEL: &str = "ry-";

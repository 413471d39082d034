//! An envelope: a socket in whose queue one descriptor lies, with its name as the message. No two envelopes are the same open
//! file, whatever is in them, and reading one without taking it out leaves it for the next reader.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::NAME_LEN_MAX;

/// What is in an envelope.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

/// Puts a duplicate of `fd` into an envelope.
pub(super) fn seal(name: &str, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if name.len() > NAME_LEN_MAX || name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a kept descriptor is too long"));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, envelope) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&ours, &[IoSlice::new(name.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(envelope)
}

/// Reads an envelope, which stays as it is.
pub(super) fn open(envelope: impl AsFd) -> io::Result<Letter> {
    let garbled = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("its envelope {what}"));
    let mut bytes = [0; NAME_LEN_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(envelope, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(garbled("has too long a name"));
    }
    let name = str::from_utf8(&bytes[..received.bytes]).map_err(|_| garbled("has no name"))?;
    match fd {
        Some(fd) if !name.is_empty() => Ok(Letter { name: name.to_owned(), fd }),
        _ => Err(garbled("is empty")),
    }
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

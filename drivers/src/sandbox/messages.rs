//! What the switch and its opener say to each other over a socket, besides the calls that the kernel tells of: a message
//! in JSON each, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::allowed::{Allowed, Errand};
use crate::af_xdp::Attach;

/// Descriptors with one message.
pub(super) const FDS_MAX: usize = 4;
/// Bytes of one message.
const LEN_MAX: usize = 128 * 1024;

/// What the switch asks. But for the first two, each has one [`Reply`] in return.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first: whether the opener can do its work. At `address` of the switch stands `value`, and `number` is one of its
    /// descriptors.
    Hello {
        address: u64,
        value: u64,
        number: i32,
        /// Directories for captures.
        writable: Vec<PathBuf>,
        /// Programs that may be started.
        allowed: Allowed,
    },
    /// With the listener of the filter: the work begins.
    Begin,
    /// Starts a program, with those of [`Order`]'s descriptors that it is to have.
    Start(Order),
    /// Kills a program, and all of its group.
    Kill(i32),
    /// Finds the socket at a path, from a directory that may come along, without opening it.
    Find(PathBuf),
    /// Makes a map of AF_XDP sockets.
    MakeMap { queues: u32 },
    /// Finds one by its file.
    OpenMap(PathBuf),
    /// Gives one a file.
    PinMap(PathBuf),
    /// Puts a socket into one.
    Insert { queue: u32 },
    /// Attaches the program that looks one up.
    Attach { index: u32, how: Attach },
}

/// A program to be started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub errand: Errand,
    /// Whether it leads a group of its own.
    pub leads: bool,
    /// Whether what is left of that is killed when it ends.
    pub sweeps: bool,
    /// Which descriptors come along, in this order.
    pub fds: Vec<Slot>,
}

/// What a descriptor is for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Slot {
    /// Its standard input, nothing otherwise.
    Input,
    /// Its standard output, our standard error otherwise.
    Output,
    /// Its standard error, ours otherwise.
    Errors,
    /// Kept open, with [`super::PASSED`] as its number.
    Passed,
}

/// What the opener says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To [`Request::Hello`]: it can.
    Ready,
    /// It cannot, or it may not, and why: a sentence.
    Refused(String),
    /// Done; with what was made. The number is that of a program that was started.
    Done(i32),
    /// It failed with this error.
    Failed(i32),
    /// Unasked: a program has ended, with this status as waitpid(2) has it.
    Ended { program: i32, status: i32 },
    /// Unasked: something for the log.
    Note(String),
}

/// Sends a message.
pub(super) fn send(socket: &OwnedFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one; waits for it.
///
/// Errors: also the end of the other side.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LEN_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        let into = &mut [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?.bytes,
        }
    };
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = fds.flatten().collect();
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(&bytes[..len])?, fds))
}

//! A message with descriptors, over a unix socket that keeps messages apart.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;

/// What came.
#[derive(Debug)]
pub(super) struct Message {
    /// Who sent it, if the socket tells.
    pub(super) sender: Option<Pid>,
    /// `None`: it is no text, or longer than [`TEXT_LEN_MAX`].
    pub(super) text: Option<String>,
    /// All of its descriptors that were to be had.
    pub(super) fds: Vec<OwnedFd>,
    /// There were more.
    pub(super) is_cut: bool,
}

/// Sends a message of at most [`FDS_MAX`] descriptors; as long as the socket's time limit allows.
pub(super) fn send(socket: impl AsFd, text: &str, fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG);
        }
        match sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The next message; `None`: there comes no further one.
pub(super) fn receive(socket: impl AsFd, flags: RecvFlags) -> rustix::io::Result<Option<Message>> {
    let mut bytes = [0; TEXT_LEN_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let (mut sender, mut fds) = (None, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    if received.bytes == 0 && sender.is_none() && fds.is_empty() {
        return Ok(None);
    }
    let whole = !received.flags.contains(ReturnFlags::TRUNC);
    let text = str::from_utf8(&bytes[..received.bytes]).ok().filter(|_| whole).map(str::to_owned);
    Ok(Some(Message { sender, text, fds, is_cut: received.flags.contains(ReturnFlags::CTRUNC) }))
}

/// Bytes of a message.
pub(super) const TEXT_LEN_MAX: usize = 8192;
/// Descriptors that the kernel puts into a message, at most (unix(7), `SCM_MAX_FD`).
pub(super) const FDS_MAX: usize = 253;

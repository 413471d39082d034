//! Whole vhost-user messages over a unix socket.
//!
//! A message is a header of three 32-bit words (request, flags, size), a body, and descriptors. It must arrive, or be
//! taken off our hands, within a time limit, and the port's stop is watched meanwhile; so a peer that sends half a
//! message, or never reads, loses its connection and nothing else. Each descriptor has its owner from the call that
//! receives it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    recvmsg, sendmsg,
};
use vhost::vhost_user::message::VhostUserHeaderFlag;

use super::session::End;

/// A request of the front end.
pub(super) struct Message {
    /// What it asks for, whether there is such a request or not.
    pub request: u32,
    /// It wants to hear how it went.
    pub need_reply: bool,
    /// At most [`BODY_MAX`] bytes.
    pub body: Vec<u8>,
    /// What came with it, at most [`FDS_MAX`].
    pub fds: Vec<OwnedFd>,
}

/// A connection, non-blocking.
pub(super) struct Channel<'a> {
    socket: UnixStream,
    stop: BorrowedFd<'a>,
}

impl<'a> Channel<'a> {
    /// Gives up when `stop` becomes readable.
    pub(super) fn new(socket: UnixStream, stop: BorrowedFd<'a>) -> Channel<'a> {
        Channel { socket, stop }
    }

    /// The descriptor to wait at for the first byte of a message.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The message that has begun to arrive.
    pub(super) fn receive(&self) -> Result<Message, End> {
        let deadline = Instant::now() + MESSAGE_TIME;
        let mut fds = Vec::new();
        let mut header = [0; HEADER_LEN];
        self.fill(&mut header, &mut fds, deadline, true)?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (request, flags, size) = (word(0), word(4), word(8) as usize);
        if flags & !VhostUserHeaderFlag::NEED_REPLY.bits() != VERSION {
            return Err(broken(format!("flags {flags:#x} in a request")));
        }
        if size > BODY_MAX {
            return Err(broken(format!("a message of {size} bytes")));
        }
        let mut body = vec![0; size];
        self.fill(&mut body, &mut fds, deadline, false)?;
        if fds.len() > FDS_MAX {
            return Err(broken(format!("{} descriptors in one message", fds.len())));
        }
        let need_reply = flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0;
        Ok(Message { request, need_reply, body, fds })
    }

    /// Sends the reply to `request`.
    pub(super) fn reply(&self, request: u32, body: &[u8]) -> Result<(), End> {
        let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
        let header = [request, flags, body.len() as u32].map(u32::to_ne_bytes);
        let message = [header.as_flattened(), body].concat();
        let deadline = Instant::now() + MESSAGE_TIME;
        let mut sent = 0;
        while sent < message.len() {
            let rest = [IoSlice::new(&message[sent..])];
            match sendmsg(&self.socket, &rest, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(End::Closed),
                Err(error) => return Err(broken(format!("sending a reply: {error}"))),
            }
        }
        Ok(())
    }

    /// Reads until `buffer` is full. Between messages the end of the stream is no fault.
    fn fill(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Instant,
        first: bool,
    ) -> Result<(), End> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..], fds) {
                Ok(0) if first && filled == 0 => return Err(End::Closed),
                Ok(0) => return Err(broken("half a message, then the end".into())),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::CONNRESET) => return Err(End::Closed),
                Err(Errno::TOOBIG) => return Err(broken("more descriptors than can be received".into())),
                Err(error) => return Err(broken(format!("receiving a message: {error}"))),
            }
        }
        Ok(())
    }

    /// One read. Descriptors that were lost on the way, for want of room here, are the error TOOBIG.
    fn read(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > FDS_MAX {
            return Err(Errno::TOOBIG);
        }
        Ok(received.bytes)
    }

    /// Waits until the socket is ready.
    fn wait(&self, ready: PollFlags, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, ready), PollFd::from_borrowed_fd(self.stop, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(_) if !fds[1].revents().is_empty() => Err(End::Stopped),
            Ok(0) => Err(broken(format!("a message took longer than {} s", MESSAGE_TIME.as_secs()))),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(broken(format!("waiting for the front end: {error}"))),
        }
    }
}

fn broken(why: String) -> End {
    End::Broken(why)
}

/// Bytes of a header.
const HEADER_LEN: usize = 12;
/// Bytes of a body, at most; the longest that is served has 32 regions of 32 bytes.
const BODY_MAX: usize = 4096;
/// Descriptors of a message, at most: a region each.
const FDS_MAX: usize = 32;
/// The protocol's version, in the lowest bits of the flags.
const VERSION: u32 = 1;
/// From the first byte of a message to its last.
const MESSAGE_TIME: Duration = Duration::from_secs(2);

//! Whole vhost-user messages over a unix socket.
//!
//! A message is a header of three 32-bit words (request, flags, size), a body, and descriptors. It must arrive, or be
//! taken off our hands, within a time limit, and the port's stop is watched meanwhile; so a peer that sends half a
//! message, or never reads, loses its connection and nothing else. Each descriptor has its owner from the call that
//! receives it. A message that is only looked at stays in the socket, half or whole, for a successor of this process.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
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

impl Message {
    /// As it was sent.
    fn bytes(&self) -> Vec<u8> {
        let flag = if self.need_reply { VhostUserHeaderFlag::NEED_REPLY.bits() } else { 0 };
        let header = [self.request, VERSION | flag, self.body.len() as u32].map(u32::to_ne_bytes);
        [header.as_flattened(), &self.body].concat()
    }
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
        let Header { request, need_reply, size } = Header::read(header)?;
        let mut body = vec![0; size];
        self.fill(&mut body, &mut fds, deadline, false)?;
        if fds.len() > FDS_MAX {
            return Err(broken(format!("{} descriptors in one message", fds.len())));
        }
        Ok(Message { request, need_reply, body, fds })
    }

    /// The message that has begun to arrive, once it is whole, and its bytes, which stay in the socket until
    /// [`Self::discard`]: for whoever may be killed. `None`: it is cut behind descriptors, where one cannot look farther.
    pub(super) fn peek(&self) -> Result<Option<(Message, usize)>, End> {
        let deadline = Instant::now() + MESSAGE_TIME;
        loop {
            if let Some(header) = self.look::<HEADER_LEN>()? {
                let Header { request, need_reply, size } = Header::read(header)?;
                let (mut message, mut fds) = (vec![0; HEADER_LEN + size], Vec::new());
                let seen = self.read(&mut message, &mut fds, RecvFlags::PEEK).unwrap_or(0);
                if seen == message.len() {
                    let body = message.split_off(HEADER_LEN);
                    return Ok(Some((Message { request, need_reply, body, fds }, HEADER_LEN + size)));
                }
                let is_there = rustix::io::ioctl_fionread(&self.socket).unwrap_or(0) >= message.len() as u64;
                if is_there && seen < message.len() {
                    return Ok(None);
                }
            } else if rustix::io::ioctl_fionread(&self.socket).unwrap_or(0) >= HEADER_LEN as u64 {
                return Ok(None);
            }
            self.wait_for_more(deadline)?;
        }
    }

    /// Whether the bytes that wait begin with `message`.
    pub(super) fn is_next(&self, message: &Message) -> bool {
        let mut bytes = vec![0; HEADER_LEN + message.body.len()];
        let seen = self.read(&mut bytes, &mut Vec::new(), RecvFlags::PEEK);
        seen == Ok(bytes.len()) && bytes == message.bytes()
    }

    /// Takes `len` bytes, which are there, out of the socket.
    pub(super) fn discard(&self, len: usize) -> Result<(), End> {
        let mut bytes = vec![0; len];
        let mut taken = 0;
        while taken < len {
            // What descriptors come with them are closed for want of room, as they shall be.
            match recv(&self.socket, &mut bytes[taken..], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(broken("half a message, then the end".into())),
                Ok((_, count)) => taken += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(broken(format!("receiving a message: {error}"))),
            }
        }
        Ok(())
    }

    /// The first bytes that wait, if there are as many.
    fn look<const LEN: usize>(&self) -> Result<Option<[u8; LEN]>, End> {
        let mut bytes = [0; LEN];
        match self.read(&mut bytes, &mut Vec::new(), RecvFlags::PEEK) {
            Ok(0) => Err(End::Closed),
            Ok(count) => Ok((count == LEN).then_some(bytes)),
            Err(Errno::INTR | Errno::AGAIN) => Ok(None),
            Err(Errno::CONNRESET) => Err(End::Closed),
            Err(Errno::TOOBIG) => Err(broken("more descriptors than can be received".into())),
            Err(error) => Err(broken(format!("receiving a message: {error}"))),
        }
    }

    /// Waits a moment for more of a message that has begun: the socket is readable all the time.
    fn wait_for_more(&self, deadline: Instant) -> Result<(), End> {
        let mut fds =
            [PollFd::from_borrowed_fd(self.stop, PollFlags::IN), PollFd::new(&self.socket, PollFlags::RDHUP)];
        let _ = poll(&mut fds, Some(&LOOK_AGAIN));
        match (fds[0].revents().is_empty(), fds[1].revents().is_empty()) {
            (false, _) => Err(End::Stopped),
            (_, false) => Err(broken("half a message, then the end".into())),
            _ if Instant::now() > deadline => Err(too_slow()),
            _ => Ok(()),
        }
    }

    /// Whether the front end sends something within `time`.
    pub(super) fn is_readable_within(&self, time: Duration) -> bool {
        let limit = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&limit)), Ok(1..))
    }

    /// Sends a reply, whole or the rest of it, with a descriptor if that goes with it. `progress` is told how many bytes
    /// are sent, and whether more are about to be.
    pub(super) fn send(
        &self,
        reply: &[u8],
        from: usize,
        fd: Option<BorrowedFd<'_>>,
        progress: impl Fn(usize, bool),
    ) -> Result<(), End> {
        let deadline = Instant::now() + MESSAGE_TIME;
        let mut sent = from;
        while sent < reply.len() {
            let rest = [IoSlice::new(&reply[sent..])];
            let fds = fd.filter(|_| sent == 0).map(|fd| [fd]);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fds) = &fds {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            progress(sent, true);
            let result = sendmsg(&self.socket, &rest, &mut control, SendFlags::NOSIGNAL);
            sent += *result.as_ref().unwrap_or(&0);
            progress(sent, false);
            match result {
                Ok(_) => {}
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
            match self.read(&mut buffer[filled..], fds, RecvFlags::empty()) {
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
    fn read(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, flags: RecvFlags) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut parts, &mut control, flags)?;
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
            Ok(0) => Err(too_slow()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(broken(format!("waiting for the front end: {error}"))),
        }
    }
}

/// What a message begins with.
struct Header {
    request: u32,
    need_reply: bool,
    /// Bytes of the body.
    size: usize,
}

impl Header {
    fn read(bytes: [u8; HEADER_LEN]) -> Result<Header, End> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (request, flags, size) = (word(0), word(4), word(8) as usize);
        if flags & !VhostUserHeaderFlag::NEED_REPLY.bits() != VERSION {
            return Err(broken(format!("flags {flags:#x} in a request")));
        }
        if size > BODY_MAX {
            return Err(broken(format!("a message of {size} bytes")));
        }
        Ok(Header { request, need_reply: flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0, size })
    }
}

/// The reply to `request`, as it is sent.
pub(super) fn reply(request: u32, body: &[u8]) -> Vec<u8> {
    let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
    let header = [request, flags, body.len() as u32].map(u32::to_ne_bytes);
    [header.as_flattened(), body].concat()
}

fn too_slow() -> End {
    broken(format!("a message took longer than {} s", MESSAGE_TIME.as_secs()))
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
/// Between two looks at a message that is not whole.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

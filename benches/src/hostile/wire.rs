//! A vhost-user connection that says anything, byte by byte, and takes any answer, or none.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::{Doing, Result};

/// Requests, by their numbers in the vhost-user specification.
pub mod request {
    #![allow(missing_docs)] // the specification's own names
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB_MSG: u32 = 22;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const POSTCOPY_ADVISE: u32 = 28;
    pub const POSTCOPY_LISTEN: u32 = 29;
    pub const POSTCOPY_END: u32 = 30;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// How a back end took a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It said that it was served; or, if it cannot say so, it went on.
    Accepted,
    /// It said that it was not.
    Refused,
    /// It ended the connection, or does not answer any more.
    Closed,
}

/// Descriptors that go with a message.
pub type Fds<'a> = Vec<BorrowedFd<'a>>;

/// Those.
pub fn fds<'a>(all: impl IntoIterator<Item = BorrowedFd<'a>>) -> Fds<'a> {
    all.into_iter().collect()
}

/// A connection. A failure to send or to receive is the back end's closing it.
pub struct Wire {
    /// The socket, for what is no message.
    pub socket: UnixStream,
    acknowledges: bool,
}

impl Wire {
    /// Connects; nothing is negotiated.
    pub fn connect(path: &Path) -> Result<Wire> {
        let socket = UnixStream::connect(path).doing(format!("connecting to {}", path.display()))?;
        socket.set_read_timeout(Some(ANSWER_TIME_MAX)).doing("setting a time limit")?;
        socket.set_write_timeout(Some(ANSWER_TIME_MAX)).doing("setting a time limit")?;
        Ok(Wire { socket, acknowledges: false })
    }

    /// Whether requests are acknowledged from now on: REPLY_ACK was negotiated, or is not any more.
    pub fn set_acknowledges(&mut self, acknowledges: bool) {
        self.acknowledges = acknowledges;
    }

    /// Sends a request, and says whether it could be sent.
    pub fn send(&mut self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let header = [request, VERSION | flags, body.len() as u32].map(u32::to_ne_bytes);
        self.bytes(&[header.as_flattened(), body].concat(), fds)
    }

    /// Sends any bytes, with descriptors, and says whether they could be sent.
    pub fn bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return false;
        }
        let sent = loop {
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(sent) => break sent,
            }
        };
        (&self.socket).write_all(&bytes[sent..]).is_ok()
    }

    /// Asks something whose answer has 8 bytes; `None` when there is none.
    pub fn question(&mut self, request: u32, body: &[u8]) -> Option<u64> {
        if !self.send(request, 0, body, &[]) {
            return None;
        }
        self.reply(request)
    }

    /// Sends a request and finds out how it was taken.
    pub fn ask(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
        if self.acknowledges {
            if !self.send(request, NEED_REPLY, body, fds) {
                return Answer::Closed;
            }
            return match self.answer(request).as_deref() {
                // What answers a question is no acknowledgement; it was served.
                Some(body) if body.len() != 8 || body == [0; 8] => Answer::Accepted,
                Some(_) => Answer::Refused,
                None => Answer::Closed,
            };
        }
        if self.send(request, 0, body, fds) { self.state() } else { Answer::Closed }
    }

    /// Whether the back end still serves this connection.
    pub fn state(&mut self) -> Answer {
        match self.question(request::GET_FEATURES, &[]) {
            Some(_) => Answer::Accepted,
            None => Answer::Closed,
        }
    }

    /// Whether the back end has closed the connection, or does within that time.
    pub fn is_closed_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            let hung_up = matches!(poll(&mut fds, Some(&limit)), Ok(count) if count > 0);
            if hung_up || left.is_zero() {
                return hung_up;
            }
        }
    }

    /// The reply to `request`, of 8 bytes.
    fn reply(&mut self, request: u32) -> Option<u64> {
        Some(u64::from_ne_bytes(self.answer(request)?.try_into().ok()?))
    }

    /// The body of the reply to `request`; replies to others before it are passed over. Descriptors with it are closed.
    fn answer(&mut self, request: u32) -> Option<Vec<u8>> {
        for _ in 0..REPLIES_MAX {
            let mut header = [0; 12];
            (&self.socket).read_exact(&mut header).ok()?;
            let word =
                |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let (to, size) = (word(0), word(8) as usize);
            if size > BODY_MAX {
                return None;
            }
            let mut body = vec![0; size];
            (&self.socket).read_exact(&mut body).ok()?;
            if to == request {
                return Some(body);
            }
        }
        None
    }
}

/// A connection that nobody has accepted yet; `None` when there is no room for it. Never waits.
pub fn knock(path: &Path) -> Option<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket.into())
}

/// The body of a request about a ring: index and value.
pub fn state(index: u32, value: u32) -> Vec<u8> {
    [index, value].map(u32::to_ne_bytes).concat()
}

/// The body of SET_VRING_ADDR without a log.
pub fn addresses(index: u32, desc: u64, used: u64, avail: u64) -> Vec<u8> {
    let mut body = state(index, 0);
    body.extend([desc, used, avail, 0].map(u64::to_ne_bytes).concat());
    body
}

/// The body of SET_MEM_TABLE: of each region its guest address, size, user address, and offset in the file.
pub fn table(regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = state(regions.len() as u32, 0);
    body.extend(regions.as_flattened().iter().flat_map(|word| word.to_ne_bytes()));
    body
}

/// The body of ADD_MEM_REG and REM_MEM_REG.
pub fn region(region: [u64; 4]) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(region.map(u64::to_ne_bytes).concat());
    body
}

/// As of a descriptor that nobody has to own twice.
pub fn of(fd: &impl AsFd) -> Fds<'_> {
    vec![fd.as_fd()]
}

/// The flag of a request that asks for an acknowledgement.
pub const NEED_REPLY: u32 = 8;
/// The protocol's version, in the lowest bits of the flags.
const VERSION: u32 = 1;
/// Descriptors of one message, at most.
const FDS_MAX: usize = 64;
/// Bytes of a reply's body, at most.
const BODY_MAX: usize = 4096;
/// Replies that may come before the one that is waited for.
const REPLIES_MAX: usize = 64;
/// How long a back end may take for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

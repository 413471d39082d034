//! A front end that says whatever a test wants, byte by byte.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const NEED_REPLY: u32 = 8;
pub const GET_FEATURES: u32 = 1;
pub const SET_FEATURES: u32 = 2;
pub const SET_MEM_TABLE: u32 = 5;
pub const SET_VRING_NUM: u32 = 8;
pub const SET_VRING_BASE: u32 = 10;
pub const GET_VRING_BASE: u32 = 11;
pub const SET_VRING_KICK: u32 = 12;
pub const SET_VRING_CALL: u32 = 13;
pub const SET_VRING_ERR: u32 = 14;
pub const SET_PROTOCOL_FEATURES: u32 = 16;
pub const SET_VRING_ENABLE: u32 = 18;
pub const GET_CONFIG: u32 = 24;
pub const SET_STATUS: u32 = 39;
/// All that is offered: MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE,
/// CONFIGURE_MEM_SLOTS, STATUS.
pub const PROTOCOL: u64 =
    1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16;

pub struct Raw(pub UnixStream);

impl Raw {
    /// Connects; nothing is negotiated.
    pub fn connect(path: &Path) -> Raw {
        Raw::over(UnixStream::connect(path).unwrap())
    }

    pub fn over(socket: UnixStream) -> Raw {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Raw(socket)
    }

    /// Connects and acknowledges all protocol features.
    pub fn negotiated(path: &Path) -> Raw {
        let mut raw = Raw::connect(path);
        raw.send(SET_PROTOCOL_FEATURES, 0, &PROTOCOL.to_ne_bytes(), &[]);
        raw
    }

    pub fn send(&mut self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        let header = [request, 1 | flags, body.len() as u32].map(u32::to_ne_bytes);
        self.bytes(&[header.as_flattened(), body].concat(), fds);
    }

    pub fn bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        self.0.write_all(&bytes[sent..]).unwrap();
    }

    /// The reply to `request`, of 8 bytes.
    #[track_caller]
    pub fn reply(&mut self, request: u32) -> u64 {
        let mut bytes = [0; 20];
        self.0.read_exact(&mut bytes).unwrap();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (request, 1 | 4, 8));
        u64::from_ne_bytes(bytes[12..].try_into().unwrap())
    }

    /// The body of the reply to `request`, of any length.
    #[track_caller]
    pub fn reply_of(&mut self, request: u32) -> Vec<u8> {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4)), (request, 1 | 4));
        let mut body = vec![0; word(8) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Asks for an acknowledgement.
    #[track_caller]
    pub fn ask(&mut self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        self.send(request, NEED_REPLY, body, fds);
        self.reply(request)
    }

    /// The back end goes on serving this connection.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.send(GET_FEATURES, 0, &[], &[]);
        assert_ne!(self.reply(GET_FEATURES), 0);
    }

    /// The back end ends this connection.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        match self.0.read(&mut [0; 64]) {
            Ok(count) => assert_eq!(count, 0, "an answer"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// The body of a request about a ring: index and value.
pub fn state(index: u32, value: u32) -> Vec<u8> {
    [index, value].map(u32::to_ne_bytes).concat()
}

/// A memory table: guest address, size, user address, offset.
pub fn regions(regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = [regions.len() as u32, 0].map(u32::to_ne_bytes).concat();
    body.extend(regions.as_flattened().iter().flat_map(|word| word.to_ne_bytes()));
    body
}

/// A memory file of `len` bytes that can shrink.
pub fn memfd(name: &str, len: u64) -> std::os::fd::OwnedFd {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(file.as_fd(), len).unwrap();
    file
}

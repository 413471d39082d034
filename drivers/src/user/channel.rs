//! The channel between a port and its helper: a JSON object a line, both ways, over a stream socket.
//!
//! The port asks and waits for one reply; the helper answers in order. Each side bounds what it reads, so that the other
//! one, whatever it sends, can neither fill its memory nor keep it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::options::{HostEnd, HostForward, UserOptions};

/// Bytes of a message, at most: a list of some ten thousand connections.
const MESSAGE_LEN_MAX: usize = 4 << 20;

/// What a port asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first, and only the first: what to be.
    Start(Box<Start>),
    /// One rule more.
    AddHostForward(HostForward),
    /// One rule less.
    RemoveHostForward(HostEnd),
    /// The connections, as text.
    Connections,
}

/// See [`Request::Start`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// What to be.
    pub(super) options: UserOptions,
    /// Where to load libslirp from.
    pub(super) library: String,
    /// A directory of this helper's own; there if a program is to be run for guests.
    pub(super) directory: Option<PathBuf>,
    /// Permission bits of unix sockets that are made.
    pub(super) socket_mode: u32,
    /// Their group.
    pub(super) socket_group: Option<u32>,
}

/// What a helper answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It serves; what confines it.
    Ready(String),
    /// It was done.
    Done,
    /// There was nothing to remove.
    NotFound,
    /// A text that was asked for.
    Text(String),
    /// It can't be done; after [`Request::Start`], the helper ends.
    Failed(String),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Channel {
    /// Over a connected socket.
    pub(super) fn new(socket: OwnedFd) -> Channel {
        Channel { stream: socket.into(), received: Vec::new() }
    }

    /// Two connected ends; the second one as a descriptor, for a process.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Channel::new(ours.into()), theirs.into()))
    }

    /// Sends a message, within `limit`.
    pub(super) fn send(&mut self, message: &impl Serialize, limit: Duration) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.set_write_timeout(Some(limit))?;
        self.stream.write_all(&line)
    }

    /// Receives a message, within `limit`.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, limit: Duration) -> io::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.read()?;
        }
    }

    /// Receives what is there: to be called when [`Self::fd`] is readable. `None`: not yet a whole message.
    pub(super) fn receive_ready<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        if let Some(message) = self.take()? {
            return Ok(Some(message));
        }
        self.read()?;
        self.take()
    }

    /// A copy of its socket.
    pub(super) fn try_clone(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// The socket.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1 << 16];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(end) = self.received.iter().position(|&byte| byte == b'\n') else {
            if self.received.len() > MESSAGE_LEN_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "a message without an end"));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(any(test, fuzzing))]
#[path = "channel_fuzzing.rs"]
pub mod fuzzing;
#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().expect("a socket pair can be made");
        (ours, Channel::new(theirs))
    }

    #[test]
    fn messages_arrive_in_order_however_they_are_cut() {
        let (mut ours, mut theirs) = pair();
        ours.stream.write_all(b"\"Do").expect("there is room");
        assert_eq!(theirs.receive_ready::<Reply>().expect("it is open"), None);
        ours.stream.write_all(b"ne\"\n{\"Text\":\"a\"}\n").expect("there is room");
        let limit = Duration::from_secs(5);
        assert_eq!(theirs.receive::<Reply>(limit).expect("it is whole"), Reply::Done);
        assert_eq!(theirs.receive::<Reply>(limit).expect("it is whole"), Reply::Text("a".into()));
    }

    #[test]
    fn silence_an_end_and_nonsense_are_errors() {
        let (ours, mut theirs) = pair();
        let error = theirs.receive::<Reply>(Duration::from_millis(10)).expect_err("nothing came");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(ours);
        assert!(theirs.receive::<Reply>(Duration::from_secs(5)).is_err());
        let (mut ours, mut theirs) = pair();
        ours.stream.write_all(b"{]\n").expect("there is room");
        assert!(theirs.receive::<Reply>(Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_message_has_a_limit() {
        let (ours, mut theirs) = pair();
        let mut stream = ours.stream;
        let writer = std::thread::spawn(move || while stream.write_all(&[b' '; 65536]).is_ok() {});
        let error = theirs.receive::<Reply>(Duration::from_secs(20)).expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        drop(theirs);
        writer.join().expect("it ends with its peer");
    }
}

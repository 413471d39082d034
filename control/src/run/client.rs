//! A monitor's client: its socket, its session, and the bytes that wait for it to read.
//!
//! Nothing here blocks, and nothing piles up: while more than [`OUTPUT_PAUSE`] bytes wait, no further command is taken
//! from the client, and a client that lets events pile up behind them is dropped.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, recvmsg, send, shutdown,
    sockopt,
};
use serde_json::Value;

use crate::json::Layout;
use crate::monitor::{Output, Session};
use crate::qapi::QapiError;
use crate::wire::{Command, Event};

/// Bytes for a client above which its commands wait.
pub(super) const OUTPUT_PAUSE: usize = 64 << 10;
/// Bytes for a client above which an event costs it its connection.
const OUTPUT_MAX: usize = 1 << 20;
/// Descriptors in one message, at most.
const FDS_MAX: usize = 16;
/// Bytes read in one turn.
const READ_MAX: usize = 16 << 10;

/// See the module.
pub(super) struct Client {
    socket: OwnedFd,
    session: Session,
    /// The monitor that it came by.
    pub(super) monitor: usize,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// Descriptors that came with the latest message that had some.
    passed: VecDeque<OwnedFd>,
    /// It sends no more.
    ended: bool,
    /// There is no use in talking to it.
    lost: bool,
    /// What epoll was told last.
    pub(super) interest: EventFlags,
}

impl Client {
    /// A client that is still to be greeted.
    pub(super) fn new(socket: OwnedFd, monitor: usize, layout: Layout) -> Client {
        // Where they mean nothing they are refused, and nothing is lost. A peer that vanished keeps no place for ever.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        Client {
            socket,
            session: Session::new(layout),
            monitor,
            output: Vec::new(),
            sent: 0,
            passed: VecDeque::new(),
            ended: false,
            lost: false,
            interest: EventFlags::empty(),
        }
    }

    /// Its socket.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to wait for.
    pub(super) fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, self.reads());
        wanted.set(EventFlags::OUT, self.waiting() > 0);
        wanted
    }

    /// Reads once, if its commands are wanted now. A client that hung up while they are not is lost: its command under
    /// way completes, those behind it do not begin.
    pub(super) fn receive(&mut self, flags: EventFlags) {
        if !self.reads() {
            self.lost |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
            return;
        }
        let mut bytes = [0; READ_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match recvmsg(&self.socket, slices, &mut ancillary, flags) {
            Ok(message) if message.bytes == 0 => self.ended = true,
            Ok(message) => {
                let fds: VecDeque<OwnedFd> = ancillary.drain().filter_map(rights).flatten().collect();
                if !fds.is_empty() {
                    self.passed = fds;
                }
                self.session.feed(&bytes[..message.bytes]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.lost = true,
        }
    }

    /// The next command to execute; replies that need none are queued on the way. None: more bytes are needed, the client
    /// has to read first, or a command is under way.
    pub(super) fn next_command(&mut self) -> Option<Command> {
        while !self.is_congested() && !self.lost {
            match self.session.next_output()? {
                Output::Reply(bytes) => self.output.extend(bytes),
                Output::Request(command) => return Some(command),
            }
        }
        None
    }

    /// Answers the command under way.
    pub(super) fn answer(&mut self, result: Result<Value, QapiError>) {
        let line = self.session.reply(result);
        self.output.extend(line);
    }

    /// Tells it of an event, once it has negotiated.
    pub(super) fn tell(&mut self, event: &Event, timestamp: Duration) {
        let data = (!event.data.is_null()).then(|| event.data.clone());
        let Some(line) = self.session.event(event.name, data, timestamp) else { return };
        if self.waiting() > OUTPUT_MAX {
            tracing::warn!("a monitor's client that does not read is disconnected");
            self.lost = true;
            return;
        }
        self.output.extend(line);
    }

    /// Sends what its socket has room for. True if a congestion ended: commands may be waiting.
    pub(super) fn flush(&mut self) -> bool {
        let was_congested = self.is_congested();
        while self.waiting() > 0 && !self.lost {
            match send(&self.socket, &self.output[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.lost = true,
            }
        }
        if self.waiting() == 0 {
            // A huge reply does not hold on to its memory.
            self.output.clear();
            self.output.shrink_to(OUTPUT_PAUSE);
            self.sent = 0;
        } else if self.sent > OUTPUT_PAUSE {
            // A client that is always a little behind has no memory that grows.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        was_congested && !self.is_congested()
    }

    /// The first descriptor that was passed and not taken yet. Those beside it are closed: no later command shall take
    /// them for its own.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.passed.drain(..).next()
    }

    /// Takes no more commands from it.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Nothing is left to be done for it.
    pub(super) fn is_finished(&self) -> bool {
        self.lost || self.ended && self.session.is_idle() && self.waiting() == 0
    }

    fn reads(&self) -> bool {
        !self.ended && !self.is_congested() && self.session.wants_input()
    }

    fn is_congested(&self) -> bool {
        self.waiting() > OUTPUT_PAUSE
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Of an inherited socket there is another descriptor: closing ours would tell the peer nothing.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

fn rights(message: RecvAncillaryMessage<'_>) -> Option<impl Iterator<Item = OwnedFd>> {
    match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_client_that_lets_events_pile_up_is_dropped() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        let mut client = Client::new(ours.into(), 0, Layout::Line);
        client.session.feed(br#"{"execute":"qmp_capabilities"}"#);
        assert_eq!(client.next_command(), None);
        let event = Event { name: "E", data: json!({"text": "x".repeat(1000)}) };
        let told = (0..2 * OUTPUT_MAX / 1000).take_while(|_| {
            client.tell(&event, Duration::ZERO);
            client.flush();
            !client.is_finished()
        });
        assert!(told.count() < 2 * OUTPUT_MAX / 1000);
        assert!(client.waiting() <= OUTPUT_MAX + 2000);
    }

    #[test]
    fn a_client_that_is_always_behind_has_no_memory_that_grows() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        let mut client = Client::new(ours.into(), 0, Layout::Line);
        client.session.feed(br#"{"execute":"qmp_capabilities"}"#);
        assert_eq!(client.next_command(), None);
        let event: Event = crate::wire::NicRxFilterChanged { name: None, path: "x".repeat(1000) }.into();
        let mut chunk = [0; 8 << 10];
        for _ in 0..2_000 {
            while client.waiting() < OUTPUT_MAX / 2 {
                client.tell(&event, Duration::ZERO);
                client.flush();
            }
            std::io::Read::read_exact(&mut theirs, &mut chunk).expect("there is more than that");
            client.flush();
        }
        assert!(!client.is_finished() && client.waiting() > 0);
        assert!(client.output.capacity() < 4 * OUTPUT_MAX, "{}", client.output.capacity());
    }

    #[test]
    fn events_wait_for_the_negotiation() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        let mut client = Client::new(ours.into(), 0, Layout::Line);
        client.tell(&Event { name: "E", data: Value::Null }, Duration::ZERO);
        assert_eq!(client.waiting(), 0);
    }
}

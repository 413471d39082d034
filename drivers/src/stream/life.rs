//! The life of a stream: it listens or connects, serves one peer, and begins again when that is gone.
//!
//! All of it happens on a thread of the port's own, so that a name server or a peer that does not answer is waited for by
//! nobody else. A server serves one peer at a time; others wait in the kernel's queue.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringyard_dataplane::port::Attachment;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::address::{Address, Listener, Unconnected, connect_to, finish_connecting};
use super::connection::{Connection, Ending};
use super::{Source, Words, names};
use crate::chardev::SocketAccess;
use crate::errno;
use crate::line::{Line, SocketName, Unplugged};
use crate::minder::{Stop, Wait};

/// What a port's thread has.
pub(super) struct Life {
    pub line: Line,
    pub id: String,
    pub words: Words,
    pub access: Arc<SocketAccess>,
}

impl Life {
    /// Goes on until the port goes away or its only connection has ended.
    pub(super) fn live(&self, source: Source, stop: &Stop) {
        match source {
            Source::Listen(address) => {
                let mut last = None;
                let listener = loop {
                    match Listener::bind(&address, &self.access) {
                        Ok(listener) => break listener,
                        Err(why) => self.fail(why, &mut last),
                    }
                    if !stop.sleep(BIND_AGAIN) {
                        return;
                    }
                };
                self.listen(&listener, stop);
            }
            Source::Listener(listener) => self.listen(&listener, stop),
            Source::Connect { address, reconnect } => self.connect(&address, reconnect, stop),
            Source::Connecting(socket) => match finish_connecting(socket, stop) {
                Ok(socket) => self.serve_peer_of(socket, stop),
                Err(Some(error)) => self.fail(errno::text(error), &mut None),
                Err(None) => {}
            },
            Source::Connected(socket) => self.serve_peer_of(socket, stop),
            Source::Unusable(why) => self.fail(why, &mut None),
        }
    }

    fn connect(&self, address: &Address, reconnect: Option<Duration>, stop: &Stop) {
        // What is shown at first.
        let mut shows_connecting = true;
        loop {
            match connect_to(address, stop) {
                Ok((socket, name)) => {
                    shows_connecting = false;
                    if !self.serve(socket, name, stop) {
                        return;
                    }
                }
                Err(Unconnected::Failed(why)) if reconnect.is_none() => self.fail(why, &mut None),
                Err(Unconnected::Failed(why)) => tracing::debug!("netdev '{}': {why}", self.id),
                Err(Unconnected::Stopped) => return,
            }
            let Some(pause) = reconnect else { return };
            if !std::mem::replace(&mut shows_connecting, true) {
                self.line.show(self.words.connecting());
            }
            if !stop.sleep(pause) {
                return;
            }
        }
    }

    fn listen(&self, listener: &Listener, stop: &Stop) {
        loop {
            self.line.show(self.words.listening());
            if stop.wait(&[(listener.as_fd(), PollFlags::IN)], None) == Wait::Stopped {
                return;
            }
            match accept_with(listener.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let (name, began) = (listener.name(&socket), Instant::now());
                    if !self.serve(socket, name, stop) {
                        return;
                    }
                    // A peer that comes and goes without end does not keep us busy.
                    if began.elapsed() < ACCEPT_AGAIN && !stop.sleep(ACCEPT_AGAIN) {
                        return;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                // No descriptors, no memory: the connection waits, and so do we.
                Err(_) if stop.sleep(ACCEPT_AGAIN) => {}
                Err(_) => return,
            }
        }
    }

    fn serve_peer_of(&self, socket: OwnedFd, stop: &Stop) {
        let name = names::of_peer(&socket);
        self.serve(socket, name, stop);
    }

    /// Serves one connection to its end. False: the port goes away.
    fn serve(&self, socket: OwnedFd, name: SocketName, stop: &Stop) -> bool {
        // A record is sent whole and is not to wait for the next one; of a unix socket there is no such question.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let connection = match Connection::new(socket) {
            Ok(connection) => connection,
            Err(error) => {
                self.fail(errno::text(error), &mut None);
                return stop.sleep(ACCEPT_AGAIN);
            }
        };
        if self.line.attach(connection.attachment()) == Err(Unplugged) {
            return false;
        }
        self.line.show(self.words.connected(&name));
        if self.words.are_events() {
            self.line.connected(name);
        }
        if !mind(&connection, stop) {
            return false;
        }
        if self.line.attach(Attachment::default()) == Err(Unplugged) {
            return false;
        }
        self.note(connection.ending());
        if let Some(text) = self.words.ended() {
            self.line.show(text);
        }
        if self.words.are_events() {
            self.line.disconnected();
        }
        true
    }

    /// Shows why there is no connection, unless it is what was shown last.
    fn fail(&self, why: String, last: &mut Option<String>) {
        if last.as_ref() != Some(&why) {
            self.line.show(self.words.failed(&why));
            *last = Some(why);
        }
    }

    fn note(&self, ending: Option<Ending>) {
        let id = &self.id;
        match ending {
            None | Some(Ending::Closed) => tracing::debug!("netdev '{id}': the peer has gone"),
            Some(Ending::Oversized) => {
                tracing::warn!("netdev '{id}': oversized packet received, connection terminated");
            }
            Some(Ending::Failed(error)) => tracing::info!("netdev '{id}': {}", errno::text(error)),
            Some(Ending::Abandoned) => tracing::error!("netdev '{id}': its connection was given up"),
        }
    }
}

/// Waits until the connection has ended, and helps it on where it is stuck. False: the port goes away.
fn mind(connection: &Connection, stop: &Stop) -> bool {
    let over = (connection.over(), PollFlags::IN);
    loop {
        match stop.wait(&[over, (connection.cut(), PollFlags::IN)], None) {
            Wait::Stopped => return false,
            Wait::Ready(1) => {}
            _ => return true,
        }
        // While frames follow each other, the next one takes the rest of the one before along.
        if !stop.sleep(FLUSH_AFTER) {
            return false;
        }
        while !connection.flush() {
            match stop.wait(&[over, (connection.socket(), PollFlags::OUT)], None) {
                // There may be room in the socket and none in the kernel.
                Wait::Ready(1) if stop.sleep(FLUSH_AFTER) => {}
                Wait::Ready(1) | Wait::Stopped => return false,
                _ => return true,
            }
        }
    }
}

/// Between two attempts to listen.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Pause when a connection cannot be accepted, or after one that was shorter.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What is left of a frame waits so long for another one.
const FLUSH_AFTER: Duration = Duration::from_millis(1);

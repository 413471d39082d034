//! `stream`, and the streams of `socket`: frames over TCP, a unix socket or whatever else is a stream, each behind its
//! length in 4 bytes of network order, as QEMU and passt have it.
//!
//! [`life`] makes connections, a [`Connection`](connection::Connection) at a time, on the port's own thread. The hot half
//! makes few system calls: a read brings in what there is, up to 128 KiB, and frames are lent from where they were read to
//! ([`reader`]); a burst goes out in one call from where its frames lie ([`writer`], [`call`]).

mod address;
mod call;
mod connection;
mod life;
mod names;
mod reader;
mod vsock;
mod writer;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::chardev::SocketAccess;
use crate::line::{Line, SocketName};
use crate::minder::Minder;

pub use address::{Address, InetAddress, Listener, begin_connecting, check_connected, connect_by};
use life::Life;

/// What workers call for it.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_read, libc::SYS_sendmmsg];
/// Bytes of a record's length.
const WORD_LEN: usize = 4;
/// The longest record that peers may send. Of a longer one, the connection ends.
pub const RECORD_LEN_MAX: usize = 69_632;

/// Where connections come from.
pub enum Source {
    /// A listener that the port makes itself, as soon as it can.
    Listen(Address),
    /// One that is there.
    Listener(Listener),
    /// The port connects.
    Connect {
        /// Where to.
        address: Address,
        /// Pause before it tries again, if it does.
        reconnect: Option<Duration>,
    },
    /// A socket that is about to be connected.
    Connecting(OwnedFd),
    /// A socket that is connected.
    Connected(OwnedFd),
    /// Nowhere, for this reason.
    Unusable(String),
}

/// How a port speaks of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// As `stream`.
    Stream,
    /// As a `socket` that listens.
    Listen,
    /// As any other `socket`: so, while it is connected or about to be.
    Socket(String),
}

/// All that a port is made of.
pub struct StreamOptions {
    /// The netdev's id, for the log.
    pub id: String,
    /// Where connections come from.
    pub source: Source,
    /// What is shown of it.
    pub words: Words,
    /// Who may use a socket that we make.
    pub access: Arc<SocketAccess>,
}

/// A port. Dropping it ends its connection.
pub struct StreamPort {
    /// Until it is started.
    options: Option<StreamOptions>,
    text: String,
    running: Option<Running>,
}

struct Running {
    minder: Minder,
    /// Disconnected when the thread has ended.
    end: Receiver<()>,
}

impl StreamPort {
    /// Does nothing yet.
    pub fn new(options: StreamOptions) -> StreamPort {
        let text = match &options.source {
            Source::Listen(_) | Source::Listener(_) => options.words.initializing(),
            _ => options.words.connecting(),
        };
        StreamPort { options: Some(options), text, running: None }
    }

    /// Begins to listen or to connect. Does not wait.
    ///
    /// Errors: there is no thread to be had.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        let Some(StreamOptions { id, source, words, access }) = self.options.take() else { return Ok(()) };
        let (ended, end) = bounded(0);
        let life = Life { line, id, words, access };
        let minder = Minder::start("stream", move |stop| {
            life.live(source, stop);
            drop(ended);
        })?;
        self.running = Some(Running { minder, end });
        Ok(())
    }

    /// What `info network` shows until the port says something else.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Ends the connection, and makes room for another listener at the same address. Waits for a moment at most.
    pub fn close(self) {
        if let Some(Running { minder, end }) = self.running {
            drop(minder);
            // A thread that waits for a name server has no listener.
            let _ = end.recv_timeout(CLOSE_TIME_MAX);
        }
    }
}

impl Words {
    fn initializing(&self) -> String {
        if *self == Words::Stream { "initializing".into() } else { String::new() }
    }

    fn listening(&self) -> &'static str {
        if *self == Words::Stream { "listening" } else { "" }
    }

    fn connecting(&self) -> String {
        match self {
            Words::Stream => "connecting".into(),
            Words::Listen => String::new(),
            Words::Socket(text) => text.clone(),
        }
    }

    fn connected(&self, peer: &SocketName) -> String {
        match (self, peer) {
            (Words::Stream, peer) => names::text(peer),
            (Words::Listen, SocketName::Inet { host, port, .. }) => {
                format!("socket: connection from {host}:{port}")
            }
            (Words::Listen, peer) => format!("socket: connection from {}", names::text(peer)),
            (Words::Socket(text), _) => text.clone(),
        }
    }

    /// What is shown after a connection; `None`: what was shown of it.
    fn ended(&self) -> Option<&'static str> {
        if *self == Words::Stream { None } else { Some("") }
    }

    fn failed(&self, why: &str) -> String {
        if *self == Words::Stream { format!("error: {why}") } else { String::new() }
    }

    /// Whether monitors are told.
    fn are_events(&self) -> bool {
        *self == Words::Stream
    }
}

/// For a thread that is told to end.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;

//! `stream`: nothing of it happens before the port is there, so opening it can't fail; what becomes of it is shown.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::stream::{
    Address, Listener, Source, StreamOptions, StreamPort, Words, check_connected,
};

use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::FdRef;

/// A `stream` that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Where connections come from.
    pub source: StreamSource,
}

/// Where a stream's connections come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSource {
    /// Others connect.
    Listen(Address),
    /// We connect.
    Connect {
        /// Where to.
        address: Address,
        /// Pause before another attempt, if there is to be one.
        reconnect: Option<Duration>,
    },
    /// A socket of somebody else's.
    Fd {
        /// Which.
        fd: FdRef,
        /// Whether it listens; else it is connected.
        server: bool,
    },
    /// Nowhere, for this reason.
    Unusable(String),
}

impl PortSpec for StreamSpec {
    fn type_name(&self) -> &'static str {
        "stream"
    }

    fn fds(&self) -> Vec<FdRef> {
        match &self.source {
            StreamSource::Fd { fd, .. } => vec![fd.clone()],
            _ => Vec::new(),
        }
    }

    fn can_outlive_us(&self, _fd: &OwnedFd) -> bool {
        matches!(self.source, StreamSource::Fd { server: true, .. })
    }

    fn without_fds(&self, why: &str) -> Option<Arc<dyn PortSpec>> {
        Some(Arc::new(StreamSpec { source: StreamSource::Unusable(why.to_owned()) }))
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let Opening { id, mut fds, access, .. } = opening;
        let source = match &self.source {
            StreamSource::Listen(address) => Source::Listen(address.clone()),
            StreamSource::Connect { address, reconnect } => {
                Source::Connect { address: address.clone(), reconnect: *reconnect }
            }
            StreamSource::Fd { server, .. } => {
                let socket = fds.pop().ok_or("no descriptor came along")?;
                of_socket(socket, *server).unwrap_or_else(Source::Unusable)
            }
            StreamSource::Unusable(why) => Source::Unusable(why.clone()),
        };
        let options = StreamOptions { id, source, words: Words::Stream, access };
        Ok(Box::new(OpenStream(StreamPort::new(options))))
    }
}

fn of_socket(socket: OwnedFd, server: bool) -> Result<Source, String> {
    if server {
        return Listener::of(socket).map(Source::Listener);
    }
    check_connected(&socket)?;
    Ok(Source::Connected(socket))
}

/// A stream, or the stream form of a `socket`.
pub(super) struct OpenStream(pub(super) StreamPort);

impl OpenPort for OpenStream {
    /// Of a connection that is not there yet.
    fn attachment(&self) -> Attachment {
        Attachment::default()
    }

    fn start(&mut self, line: Line) -> std::io::Result<()> {
        self.0.start(line)
    }

    fn info(&self, _queue: usize) -> String {
        self.0.text().to_owned()
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        self.0.close();
        Ok(())
    }
}

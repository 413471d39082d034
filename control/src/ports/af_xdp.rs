//! `af-xdp`: opened by the interface's name, with sockets of ours or sockets that were passed.

use std::io;
use std::path::PathBuf;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::af_xdp::{AfXdpOptions, AfXdpPort, Attach, Source};
use ringyard_drivers::line::Line;

use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::FdRef;

/// An `af-xdp` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpSpec {
    /// The interface's name.
    pub ifname: String,
    /// How our program is attached: `None`, natively where that is possible.
    pub mode: Option<Attach>,
    /// Whether frames are copied even where the driver could use our memory.
    pub force_copy: bool,
    /// Queues, 1 to 256.
    pub queues: u32,
    /// The first of them; the last is no higher than 65,535.
    pub start_queue: u32,
    /// Who makes the program and the sockets.
    pub source: AfXdpSource,
}

/// Who makes the program and the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfXdpSource {
    /// We make both.
    Own,
    /// The program is there, and looks sockets up in a map that is pinned to a file.
    Map {
        /// The file.
        path: PathBuf,
        /// The place of the first queue's socket.
        start_index: u32,
    },
    /// The program is there and knows these sockets, one a queue.
    Sockets(Vec<FdRef>),
}

impl PortSpec for AfXdpSpec {
    fn type_name(&self) -> &'static str {
        "af-xdp"
    }

    fn fds(&self) -> Vec<FdRef> {
        match &self.source {
            AfXdpSource::Sockets(fds) => fds.clone(),
            _ => Vec::new(),
        }
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let source = match &self.source {
            AfXdpSource::Own => Source::Own,
            AfXdpSource::Map { path, start_index } => {
                Source::Map { path: path.clone(), start_index: *start_index }
            }
            AfXdpSource::Sockets(_) => Source::Sockets(opening.fds),
        };
        let port = AfXdpPort::open(AfXdpOptions {
            ifname: self.ifname.clone(),
            mode: self.mode,
            force_copy: self.force_copy,
            queues: self.queues,
            start_queue: self.start_queue,
            source,
        })?;
        Ok(Box::new(port))
    }
}

impl OpenPort for AfXdpPort {
    fn attachment(&self) -> Attachment {
        self.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.start(line)
    }

    fn info(&self, queue: usize) -> String {
        self.info(queue)
    }

    fn queues(&self) -> usize {
        self.queues()
    }
}

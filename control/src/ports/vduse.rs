//! `x-vduse`: a device on the host's vDPA bus.

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::vduse::{VduseOptions, VdusePort};

use crate::port::{OpenPort, Opening, PortSpec};

/// An `x-vduse` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VduseSpec(pub VduseOptions);

impl PortSpec for VduseSpec {
    fn type_name(&self) -> &'static str {
        "x-vduse"
    }

    fn open(&self, _opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        VdusePort::open(&self.0).map(|port| Box::new(port) as Box<dyn OpenPort>)
    }
}

impl OpenPort for VdusePort {
    /// Nobody drives it yet.
    fn attachment(&self) -> Attachment {
        Attachment::default()
    }

    fn start(&mut self, line: Line) -> std::io::Result<()> {
        VdusePort::start(self, line)
    }

    fn info(&self, _queue: usize) -> String {
        VdusePort::info(self)
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        VdusePort::close(*self)
    }
}

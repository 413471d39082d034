//! `vhost-vdpa`: a vDPA device of the host, driven by us.

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::vhost_vdpa::{INFO, VdpaSource, VhostVdpaPort};
use serde_json::{Map, Value, json};

use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::FdRef;

/// A `vhost-vdpa` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostVdpaSpec {
    /// Where the device comes from.
    pub device: VdpaDevice,
    /// Queue pairs that are wanted, at least 1.
    pub queues: u16,
}

/// Where a vDPA device comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VdpaDevice {
    /// Opened by us.
    Path(String),
    /// Opened by somebody else.
    Fd(FdRef),
}

/// What errors about `vhostfd` begin with.
pub const FD_ERROR: &str = "vhost-vdpa: unable to parse vhostfd: ";

impl PortSpec for VhostVdpaSpec {
    fn type_name(&self) -> &'static str {
        "vhost-vdpa"
    }

    fn fds(&self) -> Vec<FdRef> {
        match &self.device {
            VdpaDevice::Path(_) => Vec::new(),
            VdpaDevice::Fd(fd) => vec![fd.clone()],
        }
    }

    fn fd_error(&self, why: String) -> String {
        format!("{FD_ERROR}{why}")
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let source = match (&self.device, opening.fds.into_iter().next()) {
            (VdpaDevice::Path(path), _) => VdpaSource::Path(path.clone()),
            (VdpaDevice::Fd(_), Some(fd)) => VdpaSource::Fd(fd),
            (VdpaDevice::Fd(_), None) => return Err(format!("{FD_ERROR}there is none")),
        };
        VhostVdpaPort::open(source, self.queues).map(|port| Box::new(port) as Box<dyn OpenPort>)
    }
}

impl OpenPort for VhostVdpaPort {
    fn attachment(&self) -> Attachment {
        VhostVdpaPort::attachment(self)
    }

    fn start(&mut self, line: Line) -> std::io::Result<()> {
        VhostVdpaPort::start(self, line)
    }

    fn info(&self, _queue: usize) -> String {
        INFO.to_owned()
    }

    /// The control queue has a line of its own.
    fn queues(&self) -> usize {
        usize::from(self.pairs()) + usize::from(self.has_control())
    }

    fn complete(&self, members: &mut Map<String, Value>) {
        members.insert("queues".into(), json!(self.pairs()));
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        VhostVdpaPort::close(*self)
    }
}

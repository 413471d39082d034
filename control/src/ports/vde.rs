//! `vde`: plugged into a switch.

use std::io;
use std::path::PathBuf;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::vde::{VdeOptions, VdePort};

use crate::open::group_number;
use crate::port::{OpenPort, Opening, PortSpec};

/// A `vde` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdeSpec {
    /// The switch's directory; none: the usual ones.
    pub sock: Option<PathBuf>,
    /// The number of the switch's port; 0: any.
    pub port: u16,
    /// A name or a number.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: u16,
}

impl PortSpec for VdeSpec {
    fn type_name(&self) -> &'static str {
        "vde"
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let group = self.group.as_deref().map(group_number).transpose();
        let options = VdeOptions {
            sock: self.sock.clone(),
            port: self.port,
            group: group.map_err(|error| format!("Could not open vde: {error}"))?,
            mode: self.mode.into(),
            description: format!("ringyard {}", opening.id),
        };
        let port = VdePort::open(&opening.id, options).map_err(|error| error.to_string())?;
        Ok(Box::new(Open(port)))
    }
}

struct Open(VdePort);

impl OpenPort for Open {
    fn attachment(&self) -> Attachment {
        self.0.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.0.start(line)
    }

    fn info(&self, _queue: usize) -> String {
        self.0.info().to_owned()
    }
}

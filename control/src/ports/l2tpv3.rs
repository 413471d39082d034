//! `l2tpv3`: opened by addresses.

use std::io;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::l2tpv3::{self, L2tpv3Options, L2tpv3Port};
use ringyard_drivers::line::Line;

use crate::port::{OpenPort, Opening, PortSpec};

/// An `l2tpv3` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2tpv3Spec(pub L2tpv3Options);

impl PortSpec for L2tpv3Spec {
    fn type_name(&self) -> &'static str {
        "l2tpv3"
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let port = L2tpv3Port::open(&opening.id, self.0.clone()).map_err(|error| error.to_string())?;
        Ok(Box::new(Open(port)))
    }
}

struct Open(L2tpv3Port);

impl OpenPort for Open {
    fn attachment(&self) -> Attachment {
        self.0.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.0.start(line)
    }

    fn info(&self, _queue: usize) -> String {
        l2tpv3::INFO.into()
    }
}

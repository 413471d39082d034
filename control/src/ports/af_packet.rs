//! `af-packet`: sockets on an interface.

use std::io;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::af_packet::{AfPacketOptions, AfPacketPort};
use ringyard_drivers::line::Line;
use serde_json::{Map, Value, json};

use crate::port::{OpenPort, Opening, PortSpec};

/// An `af-packet` that can be opened.
#[derive(Clone, Debug)]
pub struct AfPacketSpec {
    /// All that the driver wants to know.
    pub options: AfPacketOptions,
}

impl PortSpec for AfPacketSpec {
    fn type_name(&self) -> &'static str {
        "af-packet"
    }

    fn open(&self, _opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let options = self.options.clone();
        let port = AfPacketPort::open(options.clone()).map_err(|error| error.to_string())?;
        Ok(Box::new(OpenAfPacket { port, options }))
    }
}

struct OpenAfPacket {
    port: AfPacketPort,
    options: AfPacketOptions,
}

impl OpenPort for OpenAfPacket {
    fn attachment(&self) -> Attachment {
        self.port.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        let info = self.info(0);
        self.port.start(line, info)
    }

    fn info(&self, _queue: usize) -> String {
        let AfPacketOptions { ifname, queues, promiscuous, offloads, .. } = &self.options;
        let on_off = |on| if on { "on" } else { "off" };
        let (promisc, vnet_hdr) = (on_off(*promiscuous), on_off(*offloads));
        format!("ifname={ifname},queues={queues},promisc={promisc},vnet_hdr={vnet_hdr}")
    }

    fn complete(&self, members: &mut Map<String, Value>) {
        members.insert("queues".into(), json!(self.options.queues));
        members.insert("promisc".into(), json!(self.options.promiscuous));
        members.insert("vnet_hdr".into(), json!(self.options.offloads));
    }
}

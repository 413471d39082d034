//! `netmap`: opened by the port's name.

use std::io;
use std::path::PathBuf;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::netmap::{NetmapOptions, NetmapPort};

use crate::port::{OpenPort, Opening, PortSpec};

/// A `netmap` to be opened. Only the kernel knows whether there is such a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetmapSpec {
    /// The port's name.
    pub ifname: String,
    /// The control device; else `/dev/netmap`.
    pub devname: Option<PathBuf>,
}

impl PortSpec for NetmapSpec {
    fn type_name(&self) -> &'static str {
        "netmap"
    }

    fn open(&self, _opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let options = NetmapOptions { ifname: self.ifname.clone(), devname: self.devname.clone() };
        Ok(Box::new(NetmapPort::open(&options)?))
    }
}

impl OpenPort for NetmapPort {
    fn attachment(&self) -> Attachment {
        self.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.start(line)
    }

    fn info(&self, _queue: usize) -> String {
        self.info()
    }

    fn queues(&self) -> usize {
        self.queues()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_that_is_not_to_be_had_is_refused_with_device_and_module() {
        let refused = |ifname: &str, devname: Option<&str>| {
            let spec = NetmapSpec { ifname: ifname.into(), devname: devname.map(PathBuf::from) };
            let opening = Opening {
                id: "a".into(),
                fds: Vec::new(),
                access: Default::default(),
                drawer: Default::default(),
            };
            spec.open(opening).err()
        };
        let missing = refused("vale0:a", Some("/dev/no-netmap"));
        let expected = "Failed to nm_open() vale0:a: could not open /dev/no-netmap: No such file or directory; \
                        is the kernel module 'netmap' loaded?";
        assert_eq!(missing.as_deref(), Some(expected));
        let other = refused("em0", Some("/dev/null"));
        let expected = "Failed to nm_open() em0: NETMAP_REQ_REGISTER: Inappropriate ioctl for device";
        assert_eq!(other.as_deref(), Some(expected));
        let monitor = refused("em0/t", None);
        let expected = "Failed to nm_open() em0/t: '/t' makes a monitor, which nothing can be sent to";
        assert_eq!(monitor.as_deref(), Some(expected));
    }
}

//! `dgram`: over UDP, a multicast group, a unix socket, or a socket that was passed.
//!
//! A unix path that is empty stands for a name that is not known. As `remote` it makes us a server that knows one path
//! only: we answer whoever is the first to send us something. As `local` it lets the kernel choose, so that we can be a
//! client of such a server. QEMU takes both too, and then no frame ever arrives; a missing `remote` is its error.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::chardev::SocketAccess;
use ringyard_drivers::dgram::{DgramPort, UnixName, Wire};
use ringyard_drivers::ipv4;
use ringyard_drivers::line::Line;
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::{FdRef, InetSocketAddress, SocketAddress, UnixSocketAddress};

/// A `dgram` whose addresses are still to be looked up.
#[derive(Clone, Debug)]
pub struct DgramSpec {
    /// As given.
    pub local: Option<SocketAddress>,
    /// As given.
    pub remote: Option<SocketAddress>,
    /// Of a local address that is a descriptor.
    pub fd: Option<FdRef>,
}

impl PortSpec for DgramSpec {
    fn type_name(&self) -> &'static str {
        "dgram"
    }

    /// None where `remote` forbids it: that is the error then, whatever it names.
    fn fds(&self) -> Vec<FdRef> {
        let fits = match &self.remote {
            None => true,
            Some(SocketAddress::Inet(remote)) => {
                ipv4::literal(&remote.host).is_none_or(|remote| remote.is_multicast())
            }
            Some(_) => false,
        };
        self.fd.iter().filter(|_| fits).cloned().collect()
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let Opening { mut fds, access, .. } = opening;
        let fd = fds.pop();
        let number = shown_number(&self.fd, &fd);
        let kind = self.kind()?;
        let info = kind.info(number, &fd);
        OpenDgram::open(kind.wire(fd)?, info, &access)
    }
}

/// What the members come to.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Inet { local: SocketAddrV4, remote: SocketAddrV4 },
    Multicast { group: SocketAddrV4, interface: Option<Ipv4Addr> },
    Unix { local: UnixName, remote: UnixName },
    Given,
}

impl DgramSpec {
    /// Checks everything, in QEMU's order. Looks names up.
    fn kind(&self) -> Result<Kind, String> {
        if let Some(SocketAddress::Inet(remote)) = &self.remote {
            let remote = resolve(remote)?;
            if remote.ip().is_multicast() {
                return self.multicast(remote);
            }
        }
        let local = self.local.as_ref().ok_or("dgram requires local= parameter")?;
        match (local, &self.remote) {
            (SocketAddress::Fd(_), None) => Ok(Kind::Given),
            (SocketAddress::Fd(_), Some(_)) => Err("don't set remote with local.fd".into()),
            (_, None) => Err("type=inet or type=unix requires remote parameter".into()),
            (SocketAddress::Inet(local), Some(SocketAddress::Inet(remote))) => {
                Ok(Kind::Inet { local: resolve(local)?, remote: resolve(remote)? })
            }
            (SocketAddress::Unix(local), Some(SocketAddress::Unix(remote))) => {
                Ok(Kind::Unix { local: unix_name(local), remote: unix_name(remote) })
            }
            (SocketAddress::Vsock(_), Some(SocketAddress::Vsock(_))) => Err(LOCAL_TYPES.into()),
            _ => Err("remote and local types must be the same".into()),
        }
    }

    fn multicast(&self, group: SocketAddrV4) -> Result<Kind, String> {
        let interface = match &self.local {
            None | Some(SocketAddress::Fd(_)) => None,
            Some(SocketAddress::Inet(local)) => {
                let invalid = || format!("localaddr '{}' is not a valid IPv4 address", local.host);
                Some(ipv4::literal(&local.host).ok_or_else(invalid)?)
            }
            Some(_) => return Err(LOCAL_TYPES.into()),
        };
        Ok(Kind::Multicast { group, interface })
    }
}

impl Kind {
    fn wire(self, fd: Option<OwnedFd>) -> Result<Wire, String> {
        Ok(match self {
            Kind::Inet { local, remote } => Wire::Inet { local, remote },
            Kind::Multicast { group, interface } => Wire::Multicast { group, interface, socket: fd },
            Kind::Unix { local, remote } => Wire::Unix { local, remote },
            Kind::Given => Wire::Given(fd.ok_or("no descriptor was passed")?),
        })
    }

    fn info(&self, number: i32, fd: &Option<OwnedFd>) -> String {
        match (self, fd) {
            (Kind::Inet { local, remote }, _) => format!("udp={local}/{remote}"),
            (Kind::Multicast { group, .. }, None) => format!("mcast={group}"),
            (Kind::Multicast { group, .. }, Some(_)) => format!("fd={number} (cloned mcast={group})"),
            (Kind::Unix { local, remote }, _) => format!("udp={}:{}", local.text(), remote.text()),
            (Kind::Given, fd) => format!("fd={number}{}", fd.as_ref().map_or("", family)),
        }
    }
}

/// A `dgram` or a `socket` that is open.
pub(super) struct OpenDgram {
    port: DgramPort,
    /// While all is well.
    info: String,
}

impl OpenDgram {
    pub(super) fn open(wire: Wire, info: String, access: &SocketAccess) -> Result<Box<dyn OpenPort>, String> {
        Ok(Box::new(OpenDgram { port: DgramPort::open(wire, access)?, info }))
    }
}

impl OpenPort for OpenDgram {
    fn attachment(&self) -> Attachment {
        self.port.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.port.start(line, self.info.clone())
    }

    fn info(&self, _queue: usize) -> String {
        self.info.clone()
    }
}

/// The number that a descriptor is shown by: the user's, where it is one of ours that was named by it.
fn shown_number(reference: &Option<FdRef>, fd: &Option<OwnedFd>) -> i32 {
    match reference {
        Some(FdRef::Number(number)) => *number,
        _ => fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    }
}

/// What kind of socket it is, to be written behind its number.
pub(super) fn family(socket: &OwnedFd) -> &'static str {
    match socket_domain(socket) {
        Ok(AddressFamily::UNIX) => " unix",
        Ok(AddressFamily::INET | AddressFamily::INET6) => " inet",
        _ => "",
    }
}

fn resolve(address: &InetSocketAddress) -> Result<SocketAddrV4, String> {
    ipv4::resolve(&address.host, &address.port)
}

fn unix_name(address: &UnixSocketAddress) -> UnixName {
    let UnixSocketAddress { path, is_abstract, tight } = address;
    match is_abstract {
        Some(true) => UnixName::Abstract { name: path.clone(), tight: tight.unwrap_or(true) },
        _ if path.is_empty() => UnixName::Unnamed,
        _ => UnixName::Path(path.into()),
    }
}

const LOCAL_TYPES: &str = "only support inet or fd type for local";

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::wire::{FdSocketAddress, VsockSocketAddress};

    fn inet(host: &str, port: &str) -> Option<SocketAddress> {
        let (host, port) = (host.into(), port.into());
        Some(SocketAddress::Inet(InetSocketAddress { host, port, ..InetSocketAddress::default() }))
    }

    fn unix(path: &str) -> Option<SocketAddress> {
        Some(SocketAddress::Unix(UnixSocketAddress { path: path.into(), ..UnixSocketAddress::default() }))
    }

    fn fd() -> Option<SocketAddress> {
        Some(SocketAddress::Fd(FdSocketAddress { str: "3".into() }))
    }

    fn vsock() -> Option<SocketAddress> {
        Some(SocketAddress::Vsock(VsockSocketAddress { cid: "1".into(), port: "1".into() }))
    }

    fn kind(local: Option<SocketAddress>, remote: Option<SocketAddress>) -> Result<Kind, String> {
        DgramSpec { local, remote, fd: None }.kind()
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_qemus_order_and_words() {
        let group = || inet("230.0.0.1", "1234");
        let requires_remote = "type=inet or type=unix requires remote parameter";
        let differ = "remote and local types must be the same";
        for (local, remote, text) in [
            (None, None, "dgram requires local= parameter"),
            (None, inet("127.0.0.1", "1"), "dgram requires local= parameter"),
            (None, unix("/x"), "dgram requires local= parameter"),
            (None, vsock(), "dgram requires local= parameter"),
            (None, inet("230.0.0.1", "abc"), "port number 'abc' is invalid"),
            (fd(), inet("::1", "1"), "can't resolve host address '::1'"),
            (fd(), inet("127.0.0.1", "1"), "don't set remote with local.fd"),
            (fd(), unix("x"), "don't set remote with local.fd"),
            (fd(), vsock(), "don't set remote with local.fd"),
            (vsock(), None, requires_remote),
            (inet("", "1"), None, requires_remote),
            (unix("a"), None, requires_remote),
            (inet("", "1"), vsock(), differ),
            (inet("", "x"), unix("a"), differ),
            (unix("a"), inet("", "9"), differ),
            (inet("", "1"), fd(), differ),
            (vsock(), vsock(), "only support inet or fd type for local"),
            (
                inet("1.2.3.4.5", "1"),
                inet("1.2.3", "5"),
                "host address '1.2.3.4.5' is not a valid IPv4 address",
            ),
            (inet("abc", "1"), group(), "localaddr 'abc' is not a valid IPv4 address"),
            (inet("", "1"), group(), "localaddr '' is not a valid IPv4 address"),
            (inet("localhost", "1"), group(), "localaddr 'localhost' is not a valid IPv4 address"),
            (unix("x"), group(), "only support inet or fd type for local"),
            (vsock(), group(), "only support inet or fd type for local"),
        ] {
            assert_eq!(kind(local.clone(), remote.clone()), Err(text.into()), "{local:?} {remote:?}");
        }
    }

    #[test]
    fn what_is_shown_are_the_addresses_in_use() {
        for (local, remote, text) in [
            (inet("", "13"), inet("127.1", "0x50"), "udp=0.0.0.0:13/127.0.0.1:80"),
            (inet("localhost", "18100"), inet("127.0.0.2", "18101"), "udp=127.0.0.1:18100/127.0.0.2:18101"),
            (None, inet("230.0.0.1", "1234"), "mcast=230.0.0.1:1234"),
            (inet("127.1", "any"), inet("230.0.0.1", "1234"), "mcast=230.0.0.1:1234"),
            (unix("/a"), unix("b"), "udp=/a:b"),
            (unix("/a"), unix(""), "udp=/a:"),
        ] {
            assert_eq!(kind(local, remote).map(|kind| kind.info(-1, &None)), Ok(text.into()));
        }
        let datagrams = std::os::unix::net::UnixDatagram::pair().expect("sockets can be made").0;
        let file = std::fs::File::open("/dev/null").expect("it is there");
        for (fd, remote, text) in [
            (OwnedFd::from(datagrams), None, "fd=14 unix"),
            (std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free").into(), None, "fd=14 inet"),
            (file.into(), None, "fd=14"),
        ] {
            assert_eq!(kind(self::fd(), remote).map(|kind| kind.info(14, &Some(fd))), Ok(text.into()));
        }
        let group = kind(fd(), inet("230.0.0.1", "1234")).map(|kind| {
            kind.info(14, &Some(std::io::stderr().as_fd().try_clone_to_owned().expect("it is open")))
        });
        assert_eq!(group, Ok("fd=14 (cloned mcast=230.0.0.1:1234)".into()));
    }

    #[test]
    fn a_path_that_is_empty_is_a_name_that_is_not_known() {
        let expected = Kind::Unix { local: UnixName::Unnamed, remote: UnixName::Path("/b".into()) };
        assert_eq!(kind(unix(""), unix("/b")), Ok(expected));
        let expected = Kind::Unix { local: UnixName::Path("/a".into()), remote: UnixName::Unnamed };
        assert_eq!(kind(unix("/a"), unix("")), Ok(expected));
        let name = |tight| UnixSocketAddress { path: "n".into(), is_abstract: Some(true), tight };
        for (tight, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
            let expected = UnixName::Abstract { name: "n".into(), tight: expected };
            assert_eq!(unix_name(&name(tight)), expected);
        }
    }
}

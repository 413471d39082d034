//! `socket`: a stream or datagrams, whichever of its members is given. Its addresses are read when it is opened, and what
//! is wrong with them is what `netdev_add` answers.

use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};

use ringyard_drivers::ipv4;
use ringyard_drivers::stream::{Listener, Source, StreamOptions, StreamPort, Words, begin_connecting};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::socket_datagrams::{self, Datagrams};
use super::stream::OpenStream;
use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::FdRef;

/// A `socket` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSpec {
    /// Somebody else made it.
    Fd(FdRef),
    /// A stream: others connect to `[host]:port`.
    Listen(String),
    /// A stream: we connect to `host:port`.
    Connect(String),
    /// Datagrams to and from a group.
    Multicast {
        /// `address:port`.
        group: String,
        /// The address of the interface to use.
        interface: Option<String>,
    },
    /// Datagrams.
    Udp {
        /// `host:port` of the peer.
        remote: String,
        /// `host:port` of ours.
        local: String,
    },
}

impl PortSpec for SocketSpec {
    fn type_name(&self) -> &'static str {
        "socket"
    }

    fn fds(&self) -> Vec<FdRef> {
        match self {
            SocketSpec::Fd(fd) => vec![fd.clone()],
            _ => Vec::new(),
        }
    }

    fn can_outlive_us(&self, fd: &OwnedFd) -> bool {
        socket_type(fd) == Ok(SocketType::DGRAM)
    }

    fn open(&self, mut opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        match self {
            SocketSpec::Fd(reference) => {
                let socket = opening.fds.pop().ok_or("no descriptor came along")?;
                open_fd(reference, socket, opening)
            }
            SocketSpec::Listen(pair) => {
                let listener = Listener::bind_ipv4(ipv4::resolve_pair(pair)?)?;
                Ok(stream(Source::Listener(listener), Words::Listen, opening))
            }
            SocketSpec::Connect(pair) => {
                let peer = ipv4::resolve_pair(pair)?;
                let words = Words::Socket(format!("socket: connect to {peer}"));
                Ok(stream(Source::Connecting(begin_connecting(peer)?), words, opening))
            }
            SocketSpec::Multicast { group, interface } => {
                let group: SocketAddrV4 = ipv4::resolve_pair(group)?;
                let interface = interface.as_deref().map(interface_address).transpose()?;
                socket_datagrams::open(Datagrams::Multicast { group, interface }, opening)
            }
            SocketSpec::Udp { remote, local } => {
                let local = ipv4::resolve_pair(local)?;
                let remote = ipv4::resolve_pair(remote)?;
                socket_datagrams::open(Datagrams::Udp { remote, local }, opening)
            }
        }
    }
}

/// The socket's type decides.
fn open_fd(reference: &FdRef, socket: OwnedFd, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
    let number = match reference {
        FdRef::Number(number) => *number,
        _ => socket.as_raw_fd(),
    };
    match socket_type(&socket) {
        Ok(SocketType::STREAM) => {
            let words = Words::Socket(format!("socket: fd={number}"));
            Ok(stream(Source::Connected(socket), words, opening))
        }
        Ok(SocketType::DGRAM) => socket_datagrams::open(Datagrams::Fd { socket, number }, opening),
        Ok(other) => Err(format!(
            "socket type={} for fd={number} must be either SOCK_DGRAM or SOCK_STREAM",
            other.as_raw()
        )),
        Err(_) => Err("can't get socket option SO_TYPE".into()),
    }
}

fn stream(source: Source, words: Words, opening: Opening) -> Box<dyn OpenPort> {
    let Opening { id, access, .. } = opening;
    Box::new(OpenStream(StreamPort::new(StreamOptions { id, source, words, access })))
}

fn interface_address(text: &str) -> Result<std::net::Ipv4Addr, String> {
    ipv4::literal(text).ok_or_else(|| format!("localaddr '{text}' is not a valid IPv4 address"))
}

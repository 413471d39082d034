//! Opening both ends of every medium: the switch's, for the relay, and the peers'.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use ringyard_benches::bench::packet::open_bound;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Result};
use ringyard_tests::vde;
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};

use crate::medium::{End, Medium, Side, address, interface, path, tcp};

/// The switch's end on `side`, in the calling thread's namespace. Waits for a peer that connects.
pub fn switch_end(medium: Medium, directory: &Path, side: Side) -> Result<OwnedFd> {
    match medium {
        Medium::StreamUnix | Medium::StreamTcp => listen(medium, directory, side)?.accept(),
        Medium::AfPacket => open_bound(&interface(side, End::Switch)),
        _ => {
            let datagrams = Datagrams::bind(medium, directory, side, End::Switch)?;
            // A plug is connected to its port; other sockets take frames from anybody.
            if medium == Medium::Vde {
                return datagrams.connect(medium, directory, side, End::Peer);
            }
            datagrams.prepared()
        }
    }
}

/// What a datagram to `end` of `side` has as its address (a `sockaddr`); nothing where the socket is connected.
pub fn name(medium: Medium, directory: &Path, side: Side, end: End) -> Result<Vec<u8>> {
    if medium == Medium::Vde {
        return Ok(Vec::new());
    }
    if !medium.is_udp() {
        return vde::pack(&path(directory, side, end)).map(|packed| packed.to_vec());
    }
    let address = address(side, end);
    let mut name = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    name.extend(address.port().to_be_bytes());
    name.extend(address.ip().octets());
    name.resize(size_of::<libc::sockaddr_in>(), 0);
    Ok(name)
}

/// A datagram socket with an address and no peer yet.
pub enum Datagrams {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Datagrams {
    /// `end`'s own socket on `side`.
    pub fn bind(medium: Medium, directory: &Path, side: Side, end: End) -> Result<Datagrams> {
        let datagrams = if medium.is_udp() {
            UdpSocket::bind(address(side, end)).map(Datagrams::Udp)
        } else {
            UnixDatagram::bind(path(directory, side, end)).map(Datagrams::Unix)
        };
        datagrams.doing("binding a datagram socket")
    }

    /// Connects it to what is bound to `end` of `side`, as soon as that is there.
    pub fn connect(self, medium: Medium, directory: &Path, side: Side, end: End) -> Result<OwnedFd> {
        debug_assert_eq!(medium.is_udp(), matches!(self, Datagrams::Udp(_)));
        let what = format!("a socket to connect to at {side:?}");
        wait_for(&what, PATIENCE, || {
            let connected = match &self {
                Datagrams::Unix(socket) => socket.connect(path(directory, side, end)),
                Datagrams::Udp(socket) => socket.connect(address(side, end)),
            };
            Ok(connected.ok())
        })?;
        self.prepared()
    }

    fn prepared(self) -> Result<OwnedFd> {
        let socket = match self {
            Datagrams::Unix(socket) => OwnedFd::from(socket),
            Datagrams::Udp(socket) => socket.into(),
        };
        prepare(socket, true)
    }
}

/// A listener at the switch's end of a side.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

pub fn listen(medium: Medium, directory: &Path, side: Side) -> Result<Listener> {
    let listener = match medium {
        Medium::StreamTcp => TcpListener::bind(tcp(side)).map(Listener::Tcp),
        _ => UnixListener::bind(path(directory, side, End::Switch)).map(Listener::Unix),
    };
    listener.doing("listening")
}

impl Listener {
    pub fn accept(self) -> Result<OwnedFd> {
        let (socket, is_unix): (io::Result<OwnedFd>, bool) = match self {
            Listener::Unix(listener) => (listener.accept().map(|(stream, _)| stream.into()), true),
            Listener::Tcp(listener) => {
                let accepted = listener.accept().and_then(|(stream, _)| without_delay(stream));
                (accepted.map(OwnedFd::from), false)
            }
        };
        prepare(socket.doing("accepting")?, is_unix)
    }
}

/// Connects to the switch's end of a side, as soon as it listens.
pub fn connect_stream(medium: Medium, directory: &Path, side: Side) -> Result<OwnedFd> {
    wait_for(&format!("a listener at {side:?}"), PATIENCE, || {
        let connected = match medium {
            Medium::StreamTcp => TcpStream::connect(tcp(side)).and_then(without_delay).map(OwnedFd::from),
            _ => UnixStream::connect(path(directory, side, End::Switch)).map(OwnedFd::from),
        };
        Ok(connected.ok())
    })
    .and_then(|socket| prepare(socket, medium == Medium::StreamUnix))
}

fn without_delay(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true).map(|()| stream)
}

/// No call waits, and no buffer of ours is the smallest. TCP knows its sizes better.
pub fn prepare(socket: OwnedFd, sized: bool) -> Result<OwnedFd> {
    ioctl_fionbio(&socket, true).doing("making a socket not wait")?;
    if sized {
        set_socket_send_buffer_size_force(&socket, BUFFER_LEN).doing("sizing a socket")?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_LEN).doing("sizing a socket")?;
    }
    Ok(socket)
}

/// How long another end may take to appear.
pub const PATIENCE: Duration = Duration::from_secs(20);
const BUFFER_LEN: usize = 4 << 20;

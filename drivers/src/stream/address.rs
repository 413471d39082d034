//! Where a stream's sockets are: addresses as users give them, and how a socket listens at one or connects to it.

use std::fmt::Display;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    getpeername, getsockname, ipproto, listen, socket_with, sockopt,
};

use super::names;
use super::vsock;
use crate::chardev::{Server, SocketAccess};
use crate::errno;
use crate::line::SocketName;
use crate::minder::{Stop, Wait};
use crate::store::Drawer;
use crate::sys::resolve::{Kind, Query, resolve};

/// Where to listen or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Inet(InetAddress),
    /// A unix socket.
    Unix {
        /// Its path, or its name if it is abstract.
        path: String,
        /// An abstract name: whether its address ends where it does.
        tight: Option<bool>,
    },
    /// Between a host and its guests. Both are numbers.
    Vsock {
        /// The machine's.
        cid: String,
        /// The port's.
        port: String,
    },
}

/// An address of TCP, still to be looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InetAddress {
    /// A name or a number; a server's may be empty: all of this host.
    pub host: String,
    /// A number or a service's name.
    pub port: String,
    /// Neither is a name.
    pub numeric: bool,
    /// A server may have any port from `port` to this one.
    pub to: Option<u16>,
    /// Whether IPv4 may be used, where something was said.
    pub ipv4: Option<bool>,
    /// Whether IPv6 may be used, where something was said.
    pub ipv6: Option<bool>,
    /// A client's kernel looks after an idle connection.
    pub keep_alive: bool,
    /// Multipath TCP.
    pub mptcp: bool,
}

/// A socket that listens.
pub enum Listener {
    /// With a file, which goes when this is dropped.
    File(Server, String),
    /// Any other.
    Socket(OwnedFd),
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unconnected {
    /// For this reason.
    Failed(String),
    /// The port goes away.
    Stopped,
}

impl From<String> for Unconnected {
    fn from(why: String) -> Unconnected {
        Unconnected::Failed(why)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::File(server, _) => server.as_fd(),
            Listener::Socket(socket) => socket.as_fd(),
        }
    }
}

impl Listener {
    /// Listens at `address`; may wait for a name server.
    pub fn bind(address: &Address, access: &SocketAccess) -> Result<Listener, String> {
        match address {
            Address::Inet(address) => listen_inet(address).map(Listener::Socket),
            Address::Unix { path, tight: None } => {
                check_path(path)?;
                let server =
                    Server::bind_by_name(Path::new(path), access).map_err(|error| error.to_string())?;
                Ok(Listener::File(server, path.clone()))
            }
            Address::Unix { path, tight: Some(tight) } => {
                let address = abstract_address(path, *tight)?;
                let socket = new_socket(AddressFamily::UNIX, None)?;
                bind(&socket, &address)
                    .map_err(|error| failed(format!("Failed to bind socket to {path}"), error))?;
                listening(socket).map(Listener::Socket)
            }
            Address::Vsock { cid, port } => {
                let address = vsock::address(cid, port)?;
                let socket = new_socket(AddressFamily::VSOCK, None)?;
                bind(&socket, &address)
                    .map_err(|error| failed(format!("Failed to bind socket to '{cid}:{port}'"), error))?;
                listening(socket).map(Listener::Socket)
            }
        }
    }

    /// What a process before this one left in `drawer` that listened at `address`.
    pub fn restore(address: &Address, drawer: &Drawer) -> Option<Listener> {
        match address {
            Address::Unix { path, tight: None } => {
                Some(Listener::File(Server::restore(Path::new(path), drawer)?, path.clone()))
            }
            _ => drawer.take(Listener::SOCKET).map(Listener::Socket),
        }
    }

    /// Leaves itself in `drawer`, for [`Self::restore`].
    pub fn keep(&self, drawer: &Drawer) {
        match self {
            Listener::File(server, _) => server.keep(drawer),
            Listener::Socket(socket) => drawer.keep(Listener::SOCKET, socket),
        }
    }

    /// What one without a file is kept as.
    pub const SOCKET: &str = "socket";

    /// Of a stream socket that was made and bound, and may be listening, elsewhere. It will not block.
    pub fn of(socket: OwnedFd) -> Result<Listener, String> {
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(|error| failed("Failed to listen on fd socket", error))?;
        listen(&socket, BACKLOG).map_err(|error| failed("Failed to listen on fd socket", error))?;
        Ok(Listener::Socket(socket))
    }

    /// Listens at `address`, for the older `socket`.
    pub fn bind_ipv4(address: SocketAddrV4) -> Result<Listener, String> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)
            .map_err(|error| failed("can't create stream socket", error))?;
        let _ = sockopt::set_socket_reuseaddr(&socket, true);
        bind(&socket, &address)
            .map_err(|error| failed(format_args!("can't bind ip={} to socket", address.ip()), error))?;
        listen(&socket, BACKLOG).map_err(|error| failed("can't listen on socket", error))?;
        Ok(Listener::Socket(socket))
    }

    /// What to call a connection that was accepted as `socket`: a peer's unix socket has no name of its own.
    pub(super) fn name(&self, socket: &OwnedFd) -> SocketName {
        match self {
            Listener::File(_, path) => SocketName::Unix { path: path.clone(), tight: None },
            Listener::Socket(_) => names::of_accepted(socket),
        }
    }
}

/// Whether `socket`, which somebody else made, can be a connection.
pub fn check_connected(socket: &OwnedFd) -> Result<(), String> {
    match sockopt::socket_type(socket) {
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Err("the file descriptor is not a stream socket".into()),
        Err(_) => return Err("the file descriptor is not a socket".into()),
    }
    getpeername(socket).map(drop).map_err(|error| failed("the file descriptor is not connected", error))
}

/// Begins to connect to `peer`, for the older `socket`.
pub fn begin_connecting(peer: SocketAddrV4) -> Result<OwnedFd, String> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)
        .map_err(|error| failed("can't create stream socket", error))?;
    match connect(&socket, &peer) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(failed("can't connect socket", error)),
    }
}

/// Connects to `address`, or to the first of its addresses that lets us; the socket and what to call it.
pub(super) fn connect_to(address: &Address, stop: &Stop) -> Result<(OwnedFd, SocketName), Unconnected> {
    match address {
        Address::Inet(inet) => {
            let socket = connect_inet(inet, stop)?;
            let name = names::of_peer(&socket);
            Ok((socket, name))
        }
        Address::Unix { path, tight } => {
            let to = match tight {
                None => {
                    check_path(path)?;
                    SocketAddrUnix::new(path.as_str()).map_err(|error| cannot_connect(path, error))?
                }
                Some(tight) => abstract_address(path, *tight)?,
            };
            let socket = try_connect(AddressFamily::UNIX, None, &to.into(), path, stop)?;
            let name = match tight {
                // A server that was renamed has another name of its own.
                None => SocketName::Unix { path: path.clone(), tight: None },
                Some(_) => names::of_peer(&socket),
            };
            Ok((socket, name))
        }
        Address::Vsock { cid, port } => {
            let to = vsock::address(cid, port)?;
            let socket = try_connect(AddressFamily::VSOCK, None, &to, format!("{cid}:{port}"), stop)?;
            let name = names::of_peer(&socket);
            Ok((socket, name))
        }
    }
}

/// Connects to `address`, non-blocking, and waits for whoever has to be asked; `None`: told to stop before that was done.
///
/// Errors: what failed.
pub fn connect_by(stop: &Stop, address: &Address) -> Option<Result<OwnedFd, String>> {
    match connect_to(address, stop) {
        Ok((socket, _)) => Some(Ok(socket)),
        Err(Unconnected::Failed(why)) => Some(Err(why)),
        Err(Unconnected::Stopped) => None,
    }
}

fn connect_inet(address: &InetAddress, stop: &Stop) -> Result<OwnedFd, Unconnected> {
    let place = format!("{}:{}", address.host, address.port);
    let mut last = Unconnected::Failed(format!("address resolution failed for {place}"));
    for to in look_up(address, false)? {
        match try_connect(family(&to), protocol(address), &to.into(), &place, stop) {
            Ok(socket) => {
                if address.keep_alive {
                    // It is connected all the same.
                    let _ = sockopt::set_socket_keepalive(&socket, true);
                }
                return Ok(socket);
            }
            Err(Unconnected::Stopped) => return Err(Unconnected::Stopped),
            Err(failed) => last = failed,
        }
    }
    Err(last)
}

/// Connects to one address, which users know as `place`.
fn try_connect(
    family: AddressFamily,
    protocol: Option<Protocol>,
    to: &SocketAddrAny,
    place: impl Display,
    stop: &Stop,
) -> Result<OwnedFd, Unconnected> {
    let socket = new_socket(family, protocol)?;
    loop {
        match connect(&socket, to) {
            // A unix server whose queue is full: nothing tells when it no longer is.
            Err(Errno::AGAIN) if stop.sleep(QUEUE_PAUSE) => {}
            Err(Errno::AGAIN) => return Err(Unconnected::Stopped),
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => break,
            Err(error) => return Err(cannot_connect(place, error).into()),
        }
    }
    finish_connecting(socket, stop).map_err(|error| match error {
        Some(error) => cannot_connect(place, error).into(),
        None => Unconnected::Stopped,
    })
}

/// Waits for a connection that is under way.
///
/// Errors: the kernel's; `None`: the port goes away.
pub(super) fn finish_connecting(socket: OwnedFd, stop: &Stop) -> Result<OwnedFd, Option<Errno>> {
    if stop.wait(&[(socket.as_fd(), PollFlags::OUT)], None) == Wait::Stopped {
        return Err(None);
    }
    match sockopt::socket_error(&socket) {
        // Where nobody listens at a port that clients are given too, one of them may find itself there.
        Ok(Ok(())) if is_its_own_peer(&socket) => Err(Some(Errno::CONNREFUSED)),
        Ok(Ok(())) => Ok(socket),
        Ok(Err(error)) | Err(error) => Err(Some(error)),
    }
}

fn is_its_own_peer(socket: &OwnedFd) -> bool {
    matches!((getsockname(socket), getpeername(socket)), (Ok(own), Ok(Some(peer))) if own == peer)
}

/// Listens at the first free port of the first address that has one.
fn listen_inet(address: &InetAddress) -> Result<OwnedFd, String> {
    if address.keep_alive {
        return Err("keep-alive option is not supported for passive sockets".into());
    }
    let mut last = "Failed to find an available port".to_owned();
    for mut at in look_up(address, true)? {
        for port in at.port()..=address.to.unwrap_or(at.port()) {
            at.set_port(port);
            match listen_at(address, &at) {
                Ok(socket) => return Ok(socket),
                Err((_, Errno::ADDRINUSE)) => {
                    last = failed("Failed to find an available port", Errno::ADDRINUSE);
                }
                Err((doing, error)) => {
                    last = failed(doing, error);
                    break;
                }
            }
        }
    }
    Err(last)
}

/// Errors: what failed.
fn listen_at(address: &InetAddress, at: &SocketAddr) -> Result<OwnedFd, (&'static str, Errno)> {
    let socket = socket_with(family(at), SocketType::STREAM, FLAGS, protocol(address))
        .map_err(|error| ("Failed to create a socket", error))?;
    // Connections that have just ended are in nobody's way.
    let _ = sockopt::set_socket_reuseaddr(&socket, true);
    let mut bound = Err(Errno::ADDRINUSE);
    // IPv4 too, if that is wanted and free.
    let both = address.ipv4.is_none() && address.ipv6.is_none()
        || address.ipv4 == Some(true) && address.ipv6 == Some(true);
    for v6_only in [!both, true] {
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, v6_only).map_err(|error| ("Failed to bind socket", error))?;
        }
        bound = bind(&socket, at);
        if bound != Err(Errno::ADDRINUSE) {
            break;
        }
    }
    bound.map_err(|error| ("Failed to bind socket", error))?;
    listen(&socket, BACKLOG).map_err(|error| ("Failed to listen on socket", error))?;
    Ok(socket)
}

fn look_up(address: &InetAddress, passive: bool) -> Result<Vec<SocketAddr>, String> {
    let InetAddress { host, port, .. } = address;
    let ipv6 = match (address.ipv4, address.ipv6) {
        (Some(false), Some(false)) => return Err("Cannot disable IPv4 and IPv6 at same time".into()),
        (Some(true), Some(true)) | (None, None) => None,
        (_, Some(true)) | (Some(false), _) => Some(true),
        (Some(true), _) | (_, Some(false)) => Some(false),
    };
    let query = Query {
        host: Some(host.as_str()).filter(|host| !passive || !host.is_empty()),
        service: Some(port),
        ipv6,
        kind: Kind::Stream,
        passive,
        numeric: address.numeric,
    };
    resolve(query).map_err(|why| format!("address resolution failed for {host}:{port}: {why}"))
}

fn abstract_address(name: &str, tight: bool) -> Result<SocketAddrUnix, String> {
    check_path(name)?;
    let mut padded = [0; PATH_MAX];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let bytes = if tight { &padded[..name.len()] } else { &padded[..] };
    SocketAddrUnix::new_abstract_name(bytes).map_err(|error| cannot_connect(name, error))
}

fn check_path(path: &str) -> Result<(), String> {
    match path.len() {
        0 => Err("UNIX socket path is empty".into()),
        1..=PATH_MAX => Ok(()),
        _ => Err(format!("UNIX socket path '{path}' is too long")),
    }
}

fn new_socket(family: AddressFamily, protocol: Option<Protocol>) -> Result<OwnedFd, String> {
    socket_with(family, SocketType::STREAM, FLAGS, protocol)
        .map_err(|error| failed("Failed to create a socket", error))
}

fn listening(socket: OwnedFd) -> Result<OwnedFd, String> {
    listen(&socket, BACKLOG).map_err(|error| failed("Failed to listen on socket", error))?;
    Ok(socket)
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn protocol(address: &InetAddress) -> Option<Protocol> {
    address.mptcp.then_some(ipproto::MPTCP)
}

fn cannot_connect(place: impl Display, error: Errno) -> String {
    failed(format_args!("Failed to connect to '{place}'"), error)
}

/// What was tried, and why it did not work; who we are, where that is what is wrong.
fn failed(doing: impl Display, error: Errno) -> String {
    let reason = errno::text(error);
    match error {
        Errno::ACCESS | Errno::PERM => {
            format!("{doing}: {reason} (as uid {})", rustix::process::geteuid().as_raw())
        }
        _ => format!("{doing}: {reason}"),
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Bytes of a path or an abstract name, with a zero behind it or before it.
const PATH_MAX: usize = 107;
/// Connections that may wait while one is served.
pub(super) const BACKLOG: i32 = 8;
/// Between two looks at a unix server's queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(100);

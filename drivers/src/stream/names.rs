//! What connected sockets are called: for people, and in the events of the schema.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{SocketAddrAny, SocketAddrUnix, getpeername, getsockname, netdevice};

use super::vsock;
use crate::line::SocketName;

/// What is at the other end.
pub(super) fn of_peer(socket: &OwnedFd) -> SocketName {
    getpeername(socket).ok().flatten().map_or(NAMELESS, |address| name(socket, &address))
}

/// What is at the other end of a connection that we were asked for; of a unix socket, where it was asked for.
pub(super) fn of_accepted(socket: &OwnedFd) -> SocketName {
    match getsockname(socket) {
        Ok(address) if SocketAddrUnix::try_from(address.clone()).is_ok() => name(socket, &address),
        _ => of_peer(socket),
    }
}

/// As `info network` shows it.
pub(super) fn text(name: &SocketName) -> String {
    match name {
        SocketName::Inet { host, port, .. } => format!("tcp:{host}:{port}"),
        SocketName::Unix { path, .. } => format!("unix:{path}"),
        SocketName::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
    }
}

const NAMELESS: SocketName = SocketName::Unix { path: String::new(), tight: None };

fn name(socket: &OwnedFd, address: &SocketAddrAny) -> SocketName {
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return inet_name(socket, address);
    }
    if let Ok(address) = SocketAddrUnix::try_from(address.clone()) {
        return unix_name(&address);
    }
    vsock::name(address).unwrap_or(NAMELESS)
}

fn inet_name(socket: &OwnedFd, address: SocketAddr) -> SocketName {
    let mut host = address.ip().to_string();
    if let SocketAddr::V6(address) = address
        && address.scope_id() != 0
    {
        let interface = netdevice::index_to_name(socket, address.scope_id());
        host = format!("{host}%{}", interface.unwrap_or_else(|_| address.scope_id().to_string()));
    }
    SocketName::Inet { host, port: address.port(), ipv6: address.is_ipv6() }
}

fn unix_name(address: &SocketAddrUnix) -> SocketName {
    match (address.path(), address.abstract_name()) {
        (Some(path), _) => SocketName::Unix { path: path.to_string_lossy().into_owned(), tight: None },
        // rustix sees an empty one where there is none.
        (None, Some(name)) if !name.is_empty() => {
            let tight = name.len() < ABSTRACT_MAX;
            let name = CStr::from_bytes_until_nul(name).map_or(name, CStr::to_bytes);
            SocketName::Unix { path: String::from_utf8_lossy(name).into_owned(), tight: Some(tight) }
        }
        _ => NAMELESS,
    }
}

/// Bytes of an abstract name that fills its address.
const ABSTRACT_MAX: usize = 107;

//! Whether there is a way to the peer: an address of ours to send from, an interface that is up, a route.
//!
//! It is asked of the kernel by connecting a UDP socket, which sends nothing. The kernel tells over rtnetlink when the
//! answer may have changed, so nobody asks in the meantime.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with};

/// The way from one address to another.
pub(super) struct Route {
    /// Any port of ours, and a port of the peer's; only the hosts count.
    local: SocketAddr,
    peer: SocketAddr,
    /// Readable when something about addresses, interfaces or routes has changed; none where the kernel tells nothing.
    changes: Option<OwnedFd>,
}

impl Route {
    /// Watches from now on.
    pub(super) fn new(mut local: SocketAddr, mut peer: SocketAddr) -> Route {
        local.set_port(0);
        peer.set_port(DISCARD_PORT);
        Route { local, peer, changes: watch().ok() }
    }

    /// Becomes readable when the way may have changed.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(|changes| changes.as_fd())
    }

    /// Forgets the changes so far.
    pub(super) fn clear(&self) {
        let Some(changes) = &self.changes else { return };
        // An error other than these two says that changes were lost, which is as good as read.
        let end = |read| matches!(read, Err(Errno::AGAIN | Errno::BADF));
        while !end(recv(changes, &mut [0u8; 64], RecvFlags::DONTWAIT).map(drop)) {}
    }

    /// Errors: why there is no way.
    pub(super) fn check(&self) -> Result<(), Errno> {
        match self.connect() {
            Err(
                error @ (Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NODEV
                | Errno::ADDRNOTAVAIL
                | Errno::INVAL),
            ) => Err(error),
            // A broadcast address, no descriptors: that says nothing about the way.
            _ => Ok(()),
        }
    }

    fn connect(&self) -> Result<(), Errno> {
        let family = if self.peer.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
        bind(&socket, &self.local)?;
        connect(&socket, &self.peer)
    }
}

fn watch() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS as u32))?;
    Ok(socket)
}

/// Interfaces, addresses and routes. The last do not tell of those that go with an interface.
const GROUPS: libc::c_int = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// Nothing is sent there.
const DISCARD_PORT: u16 = 9;

//! The datagram forms of `socket`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use crate::port::{OpenPort, Opening};

/// What is to be opened. Addresses are whole; that a group is one is not checked yet.
pub(super) enum Datagrams {
    /// Of a group.
    Multicast {
        /// The group and its port.
        group: SocketAddrV4,
        /// The address of the interface to use.
        interface: Option<Ipv4Addr>,
    },
    /// Between two hosts.
    Udp {
        /// The peer's.
        remote: SocketAddrV4,
        /// Ours.
        local: SocketAddrV4,
    },
    /// Over a datagram socket of somebody else's.
    Fd {
        /// It.
        socket: OwnedFd,
        /// What it is called.
        number: i32,
    },
}

/// Opens it. Its `info network` begins with `socket: `.
pub(super) fn open(datagrams: Datagrams, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
    let (form, local) = match &datagrams {
        Datagrams::Multicast { group, interface } => {
            (format!("mcast={group}"), interface.map(|at| at.to_string()))
        }
        Datagrams::Udp { remote, local } => (format!("udp={remote}"), Some(local.to_string())),
        Datagrams::Fd { socket: _socket, number } => (format!("fd={number}"), None),
    };
    let local = local.map(|local| format!(",localaddr={local}")).unwrap_or_default();
    Err(format!("{}: socket,{form}{local} is not available", opening.id))
}

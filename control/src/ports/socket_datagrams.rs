//! The datagram forms of `socket`: those of `dgram` under other names.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use ringyard_drivers::dgram::Wire;

use super::dgram::{OpenDgram, family};
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
    let (wire, info) = match datagrams {
        Datagrams::Multicast { group, interface } => {
            (Wire::Multicast { group, interface, socket: None }, format!("socket: mcast={group}"))
        }
        Datagrams::Udp { remote, local } => (Wire::Inet { local, remote }, format!("socket: udp={remote}")),
        Datagrams::Fd { socket, number } => {
            let info = format!("socket: fd={number}{}", family(&socket));
            (Wire::Given(socket), info)
        }
    };
    OpenDgram::open(wire, info, &opening.access)
}

//! UDP over IPv4 with one peer. The socket is bound and not connected: frames come from anybody, as QEMU has it.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::port::Attachment;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::{Medium, attachment};
use crate::datagram::{Bare, DatagramOptions, Destination, make_room};
use crate::errno;
use crate::minder::Alarm;

pub(super) struct Inet {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    attachment: Attachment,
    /// There was a way to the peer: that there is none is a fault.
    has_route: bool,
}

impl Inet {
    pub(super) fn open(local: SocketAddrV4, remote: SocketAddrV4, alarm: Arc<Alarm>) -> Result<Inet, String> {
        let socket = Arc::new(bound(local)?);
        make_room(&socket);
        let options = DatagramOptions {
            receive: socket.clone(),
            send: socket,
            destination: Destination::Fixed(remote.into()),
            queue: 0,
            alarm,
        };
        let has_route = way(local, remote).is_ok();
        Ok(Inet { local, remote, attachment: attachment(Bare, options), has_route })
    }
}

impl Medium for Inet {
    fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    /// The socket outlives its address and its interface; whether these are there is all there is to know.
    fn mend(&mut self) -> Result<bool, String> {
        match way(self.local, self.remote) {
            Ok(()) => self.has_route = true,
            Err(error) if self.has_route => return Err(errno::text(error)),
            Err(_) => {}
        }
        Ok(false)
    }
}

/// A socket for datagrams of IPv4.
pub(super) fn socket() -> Result<OwnedFd, String> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .map_err(|error| format!("can't create datagram socket: {}", errno::text(error)))
}

/// The same with an address, which others may have too.
pub(super) fn bound(local: SocketAddrV4) -> Result<OwnedFd, String> {
    let socket = socket()?;
    share_address(&socket)?;
    bind_to(&socket, local)?;
    Ok(socket)
}

pub(super) fn share_address(socket: &OwnedFd) -> Result<(), String> {
    sockopt::set_socket_reuseaddr(socket, true)
        .map_err(|error| format!("can't set socket option SO_REUSEADDR: {}", errno::text(error)))
}

pub(super) fn bind_to(socket: &OwnedFd, local: SocketAddrV4) -> Result<(), String> {
    bind(socket, &local)
        .map_err(|error| format!("can't bind ip={} to socket: {}", local.ip(), errno::text(error)))
}

/// Whether packets could go that way now. None is sent.
fn way(local: SocketAddrV4, remote: SocketAddrV4) -> Result<(), Errno> {
    let probe = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&probe, &SocketAddrV4::new(*local.ip(), 0))?;
    connect(&probe, &remote)
}

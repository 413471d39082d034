//! A datagram socket that somebody else made.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ringyard_dataplane::port::Attachment;
use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{RawAddressFamily, SocketAddrAny, SocketType, connect, getpeername};

use super::{Medium, attachment_of_given};
use crate::datagram::{Bare, DatagramOptions, Destination, Ending};
use crate::errno;
use crate::minder::Alarm;

pub(super) struct Given {
    socket: Arc<OwnedFd>,
    /// It had a peer when we got it.
    is_connected: bool,
    /// The peer's name, if it had one.
    peer: Option<SocketAddrAny>,
    attachment: Attachment,
    alarm: Arc<Alarm>,
    /// The last look found a fault.
    failed: bool,
}

impl Given {
    pub(super) fn open(socket: OwnedFd, alarm: Arc<Alarm>) -> Result<Given, String> {
        check_kind(&socket)?;
        let (is_connected, peer) = match getpeername(&socket) {
            Ok(peer) => (true, peer.filter(has_name)),
            Err(Errno::NOTCONN) => (false, None),
            Err(error) => {
                return Err(format!("Unable to query peer socket address: {}", errno::text(error)));
            }
        };
        let socket = Arc::new(socket);
        let attachment = attached(&socket, is_connected, alarm.clone());
        Ok(Given { socket, is_connected, peer, attachment, alarm, failed: false })
    }

    /// A unix socket forgets a peer that goes; where it has a name we call it again.
    fn look(&self) -> Result<(), String> {
        if Ending::of(self.socket.as_fd()).has_come() {
            return Err("the socket is shut down, or its peer is gone".into());
        }
        if !self.is_connected || getpeername(&*self.socket) != Err(Errno::NOTCONN) {
            return Ok(());
        }
        let peer = self.peer.as_ref().ok_or("the peer is gone")?;
        connect(&self.socket, peer).map_err(|error| format!("the peer is gone: {}", errno::text(error)))
    }
}

impl Medium for Given {
    fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    fn mend(&mut self) -> Result<bool, String> {
        let failed = std::mem::replace(&mut self.failed, true);
        self.look()?;
        self.failed = false;
        if failed {
            self.attachment = attached(&self.socket, self.is_connected, self.alarm.clone());
        }
        Ok(failed)
    }
}

/// A unix socket's address without a name is its family alone.
fn has_name(peer: &SocketAddrAny) -> bool {
    peer.addr_len() as usize > size_of::<RawAddressFamily>()
}

/// Frames must stay apart.
fn check_kind(socket: &OwnedFd) -> Result<(), String> {
    match socket_type(socket) {
        Ok(SocketType::DGRAM | SocketType::SEQPACKET) => Ok(()),
        Ok(other) => Err(format!("a socket of type {} is passed where SOCK_DGRAM is needed", other.as_raw())),
        Err(error) => Err(format!("Unable to query local socket address: {}", errno::text(error))),
    }
}

fn attached(socket: &Arc<OwnedFd>, is_connected: bool, alarm: Arc<Alarm>) -> Attachment {
    let destination = if is_connected { Destination::Connected } else { Destination::FirstSource };
    let options =
        DatagramOptions { receive: socket.clone(), send: socket.clone(), destination, queue: 0, alarm };
    attachment_of_given(Bare, options)
}

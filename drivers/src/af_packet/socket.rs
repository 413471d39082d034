//! A packet socket of packet(7), bound to one interface: its options, and its fellows in a fanout group. Every frame stands
//! behind a virtio-net header of 10 bytes, both ways.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::{PACKET_FANOUT_FLAG_IGNORE_OUTGOING, PACKET_FANOUT_FLAG_UNIQUEID, PACKET_MR_PROMISC};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::Fanout;
use super::ring::Ring;
use crate::links::Link;
use crate::sys::{address, message, option};

/// What the kernel keeps of frames that are longer than a slot, and of frames on their way out; doubled by the kernel.
const BUFFER_LEN: usize = 8 << 20;

/// See the module.
pub(super) struct Socket {
    fd: OwnedFd,
}

/// What one is made of.
pub(super) struct SocketOptions<'a> {
    pub link: &'a Link,
    pub promiscuous: bool,
}

impl Socket {
    /// A socket with its ring; it hears nothing before it is [opened](Self::let_in). The error says what failed.
    pub(super) fn open(options: &SocketOptions<'_>) -> Result<(Socket, Ring), (&'static str, io::Error)> {
        let made = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let fd = made.map_err(|error| ("socket", error.into()))?;
        let set = |name, value: libc::c_int| option::set(&fd, name, value);
        let named = |name| move |error: Errno| (name, error.into());
        set(option::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)
            .map_err(named("TPACKET_V2"))?;
        // A switch hears what comes from the interface's other side, not what our own kernel sends there, nor itself.
        set(option::PACKET_IGNORE_OUTGOING, 1).map_err(named("PACKET_IGNORE_OUTGOING"))?;
        set(option::PACKET_COPY_THRESH, 1).map_err(named("PACKET_COPY_THRESH"))?;
        set(option::PACKET_VNET_HDR, 1).map_err(named("PACKET_VNET_HDR"))?;
        // Without it frames take a slower way, that is all.
        let _ = set(option::PACKET_QDISC_BYPASS, 1);
        // Beyond the limit of the host only with CAP_NET_ADMIN; else as much as there may be.
        if set_socket_recv_buffer_size_force(&fd, BUFFER_LEN).is_err() {
            let _ = set_socket_recv_buffer_size(&fd, BUFFER_LEN);
        }
        if set_socket_send_buffer_size_force(&fd, BUFFER_LEN).is_err() {
            let _ = set_socket_send_buffer_size(&fd, BUFFER_LEN);
        }
        let ring = Ring::map(fd.as_fd(), options.link.mtu).map_err(named("PACKET_RX_RING"))?;
        keep_out(fd.as_fd()).map_err(named("SO_ATTACH_FILTER"))?;
        let index = options.link.index;
        bind(&fd, &address::packet(index)).map_err(|error| ("bind", error.into()))?;
        if options.promiscuous {
            let membership = libc::packet_mreq {
                mr_ifindex: index.cast_signed(),
                mr_type: PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            option::set(&fd, option::PACKET_ADD_MEMBERSHIP, membership)
                .map_err(named("PACKET_MR_PROMISC"))?;
        }
        Ok((Socket { fd }, ring))
    }

    /// Joins the group `id`, or a new one if that is `None`, whose number is returned.
    pub(super) fn join(&self, fanout: Fanout, id: Option<u16>) -> io::Result<u16> {
        let new = if id.is_none() { PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
        let flags = fanout as u32 | PACKET_FANOUT_FLAG_IGNORE_OUTGOING | new;
        let word = u32::from(id.unwrap_or(0)) | flags << 16;
        option::set(&self.fd, option::PACKET_FANOUT, word)?;
        Ok(option::get(&self.fd, option::PACKET_FANOUT)? as u16)
    }

    /// From now on it hears frames.
    pub(super) fn let_in(&self) -> io::Result<()> {
        Ok(option::set(&self.fd, option::DETACH_FILTER, 0)?)
    }

    /// Frames that the kernel had no room for since the last call.
    pub(super) fn lost(&self) -> u64 {
        let counts = option::get(&self.fd, option::PACKET_STATISTICS);
        counts.map_or(0, |[_, drops]| u64::from(drops))
    }

    /// Takes the pending error off the socket, if there is one: its interface went down or away.
    pub(super) fn take_error(&self) -> bool {
        let peeked = message::receive(self.fd.as_fd(), &mut [0], libc::MSG_PEEK);
        !matches!(peeked, Ok(_) | Err(Errno::AGAIN))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has the kernel drop what comes: between being bound and joining its group a socket would hear what others hear too.
fn keep_out(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // BPF_RET | BPF_K: nothing of any frame.
    let nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    option::attach_filter(socket, &[nothing])
}

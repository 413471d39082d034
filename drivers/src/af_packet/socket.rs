//! A packet socket of packet(7), bound to one interface: its options, and its fellows in a fanout group. Every frame stands
//! behind a virtio-net header of 10 bytes, both ways.

#![allow(unsafe_code)] // socket options and an address that rustix does not have

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{
    PACKET_ADD_MEMBERSHIP, PACKET_COPY_THRESH, PACKET_FANOUT, PACKET_FANOUT_FLAG_IGNORE_OUTGOING,
    PACKET_FANOUT_FLAG_UNIQUEID, PACKET_IGNORE_OUTGOING, PACKET_MR_PROMISC, PACKET_QDISC_BYPASS,
    PACKET_STATISTICS, PACKET_VERSION, PACKET_VNET_HDR, SOL_PACKET,
};
use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::Fanout;
use super::ring::Ring;
use crate::links::Link;
use crate::message;

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
        let set = |name, value: libc::c_int| set_option(fd.as_fd(), name, &value);
        let named = |name| move |error| (name, error);
        set(PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)
            .map_err(named("TPACKET_V2"))?;
        // A switch hears what comes from the interface's other side, not what our own kernel sends there, nor itself.
        set(PACKET_IGNORE_OUTGOING, 1).map_err(named("PACKET_IGNORE_OUTGOING"))?;
        set(PACKET_COPY_THRESH, 1).map_err(named("PACKET_COPY_THRESH"))?;
        set(PACKET_VNET_HDR, 1).map_err(named("PACKET_VNET_HDR"))?;
        // Without it frames take a slower way, that is all.
        let _ = set(PACKET_QDISC_BYPASS, 1);
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
        bind(&fd, &LinkAddress::every_frame_on(index)).map_err(|error| ("bind", error.into()))?;
        if options.promiscuous {
            let membership = libc::packet_mreq {
                mr_ifindex: index.cast_signed(),
                mr_type: PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set_option(fd.as_fd(), PACKET_ADD_MEMBERSHIP, &membership).map_err(named("PACKET_MR_PROMISC"))?;
        }
        Ok((Socket { fd }, ring))
    }

    /// Joins the group `id`, or a new one if that is `None`, whose number is returned.
    pub(super) fn join(&self, fanout: Fanout, id: Option<u16>) -> io::Result<u16> {
        let new = if id.is_none() { PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
        let flags = fanout as u32 | PACKET_FANOUT_FLAG_IGNORE_OUTGOING | new;
        let word = u32::from(id.unwrap_or(0)) | flags << 16;
        set_option(self.fd.as_fd(), PACKET_FANOUT, &word)?;
        let group: u32 = option(self.fd.as_fd(), PACKET_FANOUT)?;
        Ok(group as u16)
    }

    /// From now on it hears frames.
    pub(super) fn let_in(&self) -> io::Result<()> {
        set_any(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32)
    }

    /// Frames that the kernel had no room for since the last call.
    pub(super) fn lost(&self) -> u64 {
        let counts = option::<[u32; 2]>(self.fd.as_fd(), PACKET_STATISTICS);
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

/// Sets an option of packet(7).
pub(super) fn set_option<T>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    set_any(socket, SOL_PACKET, name, value)
}

fn set_any<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let (value, len) = (ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads as many bytes as the value has; each caller passes the type that the option takes.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An option of packet(7) that is made of numbers.
fn option<T: Default>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    let place = ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel writes as many bytes as the value has, at most; any bytes are a value of the callers' types.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), SOL_PACKET, name, place, &mut len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Has the kernel drop what comes: between being bound and joining its group a socket would hear what others hear too.
fn keep_out(socket: BorrowedFd<'_>) -> io::Result<()> {
    // BPF_RET | BPF_K: nothing of any frame.
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    set_any(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// `struct sockaddr_ll`.
struct LinkAddress(libc::sockaddr_ll);

impl LinkAddress {
    fn every_frame_on(index: u32) -> LinkAddress {
        LinkAddress(libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        })
    }
}

// SAFETY: `f` gets a pointer to the whole of the address, with its size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(ptr::from_ref(&self.0).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}

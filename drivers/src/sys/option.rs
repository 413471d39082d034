//! Socket options that rustix does not have (packet(7), udp(7), `linux/if_xdp.h`), each with the type of its value.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{SOL_PACKET, SOL_SOCKET, SOL_UDP, SOL_XDP};
use rustix::io::Errno;

use super::{Plain, checked, zeroed};

/// An option whose value is a `T`.
pub(crate) struct SocketOption<T> {
    level: c_int,
    name: c_int,
    value: PhantomData<T>,
}

impl<T: Plain> SocketOption<T> {
    /// The kernel reads no more of a value, and writes no more to one, than it is told; so that is all it takes.
    const fn new(level: c_int, name: c_int) -> SocketOption<T> {
        SocketOption { level, name, value: PhantomData }
    }
}

/// Sets `option`.
pub(crate) fn set<T: Plain>(socket: impl AsFd, option: SocketOption<T>, value: T) -> Result<(), Errno> {
    // SAFETY: a plain value.
    unsafe { set_any(socket, option.level, option.name, &value) }
}

/// What `option` is.
///
/// Errors: also `MSGSIZE`, where this kernel's value is a shorter one.
pub(crate) fn get<T: Plain>(socket: impl AsFd, option: SocketOption<T>) -> Result<T, Errno> {
    let mut value = zeroed::<T>();
    let (fd, mut len) = (socket.as_fd().as_raw_fd(), size_of::<T>() as libc::socklen_t);
    let place = ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel writes `len` bytes at most, which `value` has; any bytes are a value.
    checked(unsafe { libc::getsockopt(fd, option.level, option.name, place, &mut len) })?;
    if len as usize == size_of::<T>() { Ok(value) } else { Err(Errno::MSGSIZE) }
}

/// SO_ATTACH_FILTER: has the kernel drop what comes unless `filter` lets it in.
pub(crate) fn attach_filter(socket: impl AsFd, filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = filter.len().try_into().map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies as many instructions as there are, and changes none.
    unsafe { set_any(socket, SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
}

/// XDP_UMEM_REG: the memory of an AF_XDP socket, in chunks of `chunk_len` bytes.
///
/// # Safety
/// From now on until the socket is closed the kernel writes to those of its chunks that it is given, whoever looks there.
pub(crate) unsafe fn register_chunks(
    socket: impl AsFd,
    (start, len): (*mut u8, usize),
    chunk_len: usize,
) -> Result<(), Errno> {
    let registration = libc::xdp_umem_reg {
        addr: start.expose_provenance() as u64,
        len: len as u64,
        chunk_size: chunk_len as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the type of the option; the caller vouches for what it points to.
    unsafe { set_any(socket, SOL_XDP, libc::XDP_UMEM_REG, &registration) }
}

/// # Safety
/// A `T` is what the option takes, and what it points to is as the kernel expects it.
unsafe fn set_any<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> Result<(), Errno> {
    let (fd, len) = (socket.as_fd().as_raw_fd(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads no more bytes than the value has; the rest is the caller's.
    checked(unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), len) }).map(drop)
}

// SAFETY: numbers.
unsafe impl Plain for libc::packet_mreq {}
// SAFETY: as above.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}

/// SO_DETACH_FILTER, whose value does not matter.
pub(crate) const DETACH_FILTER: SocketOption<c_int> = SocketOption::new(SOL_SOCKET, libc::SO_DETACH_FILTER);
/// SO_SNDBUFFORCE: room for what goes out, beyond what others may have.
pub(crate) const SEND_BUFFER_FORCE: SocketOption<c_int> = SocketOption::new(SOL_SOCKET, libc::SO_SNDBUFFORCE);
/// SO_RCVBUFFORCE: the same for what comes in.
pub(crate) const RECEIVE_BUFFER_FORCE: SocketOption<c_int> =
    SocketOption::new(SOL_SOCKET, libc::SO_RCVBUFFORCE);
/// SO_NETNS_COOKIE (Linux 5.14): tells network namespaces apart.
pub(crate) const NETNS_COOKIE: SocketOption<u64> = SocketOption::new(SOL_SOCKET, libc::SO_NETNS_COOKIE);

/// UDP_GRO: the kernel hands over datagrams of one flow together.
pub(crate) const UDP_GRO: SocketOption<c_int> = SocketOption::new(SOL_UDP, libc::UDP_GRO);
/// UDP_SEGMENT: the kernel cuts what is sent into datagrams of that length.
pub(crate) const UDP_SEGMENT: SocketOption<c_int> = SocketOption::new(SOL_UDP, libc::UDP_SEGMENT);

/// PACKET_VERSION: which rings are meant.
pub(crate) const PACKET_VERSION: SocketOption<c_int> = SocketOption::new(SOL_PACKET, libc::PACKET_VERSION);
/// PACKET_IGNORE_OUTGOING: what this host sends is not heard.
pub(crate) const PACKET_IGNORE_OUTGOING: SocketOption<c_int> =
    SocketOption::new(SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
/// PACKET_COPY_THRESH: what is longer than a slot is kept aside.
pub(crate) const PACKET_COPY_THRESH: SocketOption<c_int> =
    SocketOption::new(SOL_PACKET, libc::PACKET_COPY_THRESH);
/// PACKET_VNET_HDR: frames stand behind a virtio-net header.
pub(crate) const PACKET_VNET_HDR: SocketOption<c_int> = SocketOption::new(SOL_PACKET, libc::PACKET_VNET_HDR);
/// PACKET_QDISC_BYPASS: frames go around the queueing discipline.
pub(crate) const PACKET_QDISC_BYPASS: SocketOption<c_int> =
    SocketOption::new(SOL_PACKET, libc::PACKET_QDISC_BYPASS);
/// PACKET_ADD_MEMBERSHIP: what else the interface is to hear.
pub(crate) const PACKET_ADD_MEMBERSHIP: SocketOption<libc::packet_mreq> =
    SocketOption::new(SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
/// PACKET_FANOUT: the group's number, and its flags above that.
pub(crate) const PACKET_FANOUT: SocketOption<u32> = SocketOption::new(SOL_PACKET, libc::PACKET_FANOUT);
/// PACKET_STATISTICS: frames, and those that there was no room for, since it was asked last.
pub(crate) const PACKET_STATISTICS: SocketOption<[u32; 2]> =
    SocketOption::new(SOL_PACKET, libc::PACKET_STATISTICS);
/// PACKET_RX_RING: makes a receive ring.
pub(crate) const PACKET_RX_RING: SocketOption<libc::tpacket_req> =
    SocketOption::new(SOL_PACKET, libc::PACKET_RX_RING);

/// XDP_UMEM_FILL_RING: places of the ring, as in the three that follow.
pub(crate) const XDP_FILL_RING: SocketOption<c_int> = SocketOption::new(SOL_XDP, libc::XDP_UMEM_FILL_RING);
/// XDP_UMEM_COMPLETION_RING.
pub(crate) const XDP_COMPLETION_RING: SocketOption<c_int> =
    SocketOption::new(SOL_XDP, libc::XDP_UMEM_COMPLETION_RING);
/// XDP_RX_RING.
pub(crate) const XDP_RX_RING: SocketOption<c_int> = SocketOption::new(SOL_XDP, libc::XDP_RX_RING);
/// XDP_TX_RING.
pub(crate) const XDP_TX_RING: SocketOption<c_int> = SocketOption::new(SOL_XDP, libc::XDP_TX_RING);
/// XDP_MMAP_OFFSETS: where all four have their parts.
pub(crate) const XDP_MMAP_OFFSETS: SocketOption<libc::xdp_mmap_offsets> =
    SocketOption::new(SOL_XDP, libc::XDP_MMAP_OFFSETS);
/// XDP_MAX_TX_SKB_BUDGET of `linux/if_xdp.h` (Linux 6.17): frames that one call sends.
pub(crate) const XDP_SEND_MAX: SocketOption<c_int> = SocketOption::new(SOL_XDP, 9);

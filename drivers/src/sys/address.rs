//! Addresses of sockets, of families that rustix does not have or as bytes.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::{ptr, slice};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque, SocketAddrStorage};

use super::{Plain, checked, zeroed};

/// An address of one family, for rustix's calls.
pub(crate) struct Address<T>(T);

/// Every frame of the interface number `index` (packet(7)).
pub(crate) fn packet(index: u32) -> Address<libc::sockaddr_ll> {
    Address(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        ..zeroed()
    })
}

/// One queue of the interface number `index`, with flags of `linux/if_xdp.h`.
pub(crate) fn xdp(index: u32, queue: u32, flags: u16) -> Address<libc::sockaddr_xdp> {
    Address(libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    })
}

/// Port `port` of the machine `cid` (vsock(7)).
pub(crate) fn vsock(cid: u32, port: u32) -> SocketAddrAny {
    let family = libc::AF_VSOCK as libc::sa_family_t;
    let address = libc::sockaddr_vm {
        svm_family: family,
        svm_cid: cid,
        svm_port: port,
        ..zeroed::<libc::sockaddr_vm>()
    };
    any(bytes_of(&address))
}

/// The machine and port of such an address; `None` of any other.
pub(crate) fn vsock_of(address: &SocketAddrAny) -> Option<(u32, u32)> {
    let bytes = bytes(address).first_chunk::<{ size_of::<libc::sockaddr_vm>() }>()?;
    // SAFETY: as many bytes as it has, all of them numbers.
    let address: libc::sockaddr_vm =
        unsafe { ptr::from_ref(bytes).cast::<libc::sockaddr_vm>().read_unaligned() };
    let is_vsock = i32::from(address.svm_family) == libc::AF_VSOCK;
    is_vsock.then_some((address.svm_cid, address.svm_port))
}

/// An address as the kernel has it.
pub(crate) fn bytes(address: &SocketAddrAny) -> &[u8] {
    // SAFETY: an address is that many initialized bytes, and any bytes are u8.
    unsafe { slice::from_raw_parts(address.as_ptr().cast(), address.addr_len() as usize) }
}

/// The address that the kernel has as `bytes`.
///
/// # Panics
/// If they are less than a family, or more than any address.
pub(crate) fn any(bytes: &[u8]) -> SocketAddrAny {
    let mut storage = MaybeUninit::<SocketAddrStorage>::zeroed();
    assert!(bytes.len() <= size_of::<SocketAddrStorage>());
    // SAFETY: there is room for as many, elsewhere.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), storage.as_mut_ptr().cast(), bytes.len()) };
    // SAFETY: the storage is initialized as a whole, and its length is checked there. Whether an address makes sense is for
    // the kernel to say, and whoever takes one of some family out of it looks at family and length.
    unsafe { SocketAddrAny::new(storage, bytes.len() as SocketAddrLen) }
}

/// bind(2) with an address as it came.
pub(crate) fn bind_bytes(socket: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (fd, start, len) =
        (socket.as_fd().as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t);
    // SAFETY: an address with its length.
    checked(unsafe { libc::bind(fd, start, len) }).map(drop)
}

/// connect(2) with an address as it came.
pub(crate) fn connect_bytes(socket: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (fd, start, len) =
        (socket.as_fd().as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t);
    // SAFETY: an address with its length.
    checked(unsafe { libc::connect(fd, start, len) }).map(drop)
}

/// The bytes of an address without gaps.
fn bytes_of(address: &libc::sockaddr_vm) -> &[u8] {
    const _: () = assert!(size_of::<libc::sockaddr_vm>() == 16);
    // SAFETY: it has that many bytes, and no gap between its numbers.
    unsafe { slice::from_raw_parts(ptr::from_ref(address).cast(), size_of::<libc::sockaddr_vm>()) }
}

// SAFETY: numbers.
unsafe impl Plain for libc::sockaddr_ll {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_vm {}

// SAFETY: `f` gets a pointer to the whole of the address, with its size.
unsafe impl<T> SocketAddrArg for Address<T> {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(ptr::from_ref(&self.0).cast(), size_of::<T>() as SocketAddrLen)
    }
}

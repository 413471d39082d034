//! The requests of `linux/if_tun.h`, and those that name an interface.

use std::ffi::{c_int, c_uint};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use libc::{Ioctl, ifreq};
use rustix::io::Errno;

use super::ioctl::{Bare, Making, Request, ioctl, ioctl_bare, ioctl_making};

/// Bytes of the argument of TUNSETIFF.
pub(crate) const INTERFACE_REQUEST_LEN: usize = size_of::<ifreq>();

/// TUNGETFEATURES: the flags (IFF_…) that the kernel knows.
pub(crate) const GET_FEATURES: Request<c_uint> = Request::sized(libc::TUNGETFEATURES as Ioctl);
/// TUNSETVNETHDRSZ: bytes of virtio-net header in front of each frame.
pub(crate) const SET_HEADER_LEN: Request<c_int> = Request::sized(libc::TUNSETVNETHDRSZ as Ioctl);
/// TUNGETVNETHDRSZ.
pub(crate) const GET_HEADER_LEN: Request<c_int> = Request::sized(libc::TUNGETVNETHDRSZ as Ioctl);
/// TUNSETSNDBUF: what the kernel queues for a writer.
pub(crate) const SET_SNDBUF: Request<c_int> = Request::sized(libc::TUNSETSNDBUF as Ioctl);
// SAFETY: the request takes this structure, whatever its number says, and uses its name and flags.
const SET_INTERFACE: Request<ifreq> = unsafe { Request::new(libc::TUNSETIFF as Ioctl) };
// SAFETY: as above.
const SET_INTERFACE_AS_BYTES: Request<[u8; INTERFACE_REQUEST_LEN]> =
    unsafe { Request::new(libc::TUNSETIFF as Ioctl) };
// SAFETY: as above.
const GET_INTERFACE: Request<ifreq> = unsafe { Request::new(libc::TUNGETIFF as Ioctl) };
// SAFETY: the request takes its flags by value.
const SET_OFFLOAD: Bare = unsafe { Bare::new(libc::TUNSETOFFLOAD as Ioctl) };
// SAFETY: the request takes nothing, and returns a descriptor.
const GET_NAMESPACE: Making = unsafe { Making::new(libc::TUNGETDEVNETNS as Ioctl) };
// SAFETY: as above.
const GET_SOCKETS_NAMESPACE: Making = unsafe { Making::new(SIOCGSKNS as Ioctl) };
/// Of `linux/sockios.h`: see [`home`].
pub(crate) const SIOCGSKNS: u32 = 0x894c;

/// TUNSETIFF: makes `fd` a queue of the interface `name`, with flags IFF_…. The name that the interface has.
pub(crate) fn set_interface(fd: impl AsFd, name: &str, flags: c_int) -> Result<String, Errno> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags as i16;
    ioctl(fd, SET_INTERFACE, &mut request)?;
    Ok(name_in(&request))
}

/// The same, with the argument as it came, and as the kernel leaves it.
pub(crate) fn set_interface_as_bytes(
    fd: impl AsFd,
    request: &mut [u8; INTERFACE_REQUEST_LEN],
) -> Result<i32, Errno> {
    ioctl(fd, SET_INTERFACE_AS_BYTES, request)
}

/// TUNGETIFF: the name and flags of the interface that `fd` is a queue of.
pub(crate) fn interface(fd: impl AsFd) -> Result<(String, c_int), Errno> {
    let mut request = request("")?;
    ioctl(fd, GET_INTERFACE, &mut request)?;
    // SAFETY: the kernel filled the flags in; they are a plain number in any case.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok((name_in(&request), flags))
}

/// TUNSETOFFLOAD: has the kernel leave these (TUN_F_…) to us.
pub(crate) fn set_offload(fd: impl AsFd, flags: c_uint) -> Result<(), Errno> {
    ioctl_bare(fd, SET_OFFLOAD, flags).map(drop)
}

/// TUNGETDEVNETNS: the network namespace of the interface, for who may know that.
pub(crate) fn namespace(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    ioctl_making(fd, GET_NAMESPACE)
}

/// SIOCGSKNS: the network namespace in which the queue, or a socket, was made, for who may know that.
pub(crate) fn home(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    ioctl_making(fd, GET_SOCKETS_NAMESPACE)
}

/// A request for the interface `name`, which must be shorter than 16 bytes.
pub(super) fn request(name: &str) -> Result<ifreq, Errno> {
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(Errno::INVAL);
    }
    // SAFETY: an ifreq of zeros is a valid one: numbers, a pointer and an array of characters.
    let mut request: ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The name that the kernel put into a request.
fn name_in(request: &ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

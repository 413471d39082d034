//! The one call behind every ioctl of a module that defines its own.

#![allow(unsafe_code)] // ioctls that rustix does not have

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{Ioctl, c_int};

/// Does `request`, whose argument is a `T`.
///
/// # Safety
/// `request` reads and writes no more than a `T`, which holds whatever bytes the kernel writes to it.
pub(crate) unsafe fn ioctl<T>(fd: impl AsFd, request: Ioctl, argument: &mut T) -> io::Result<c_int> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the caller's; the argument is borrowed exclusively for the call.
    let result = unsafe { libc::ioctl(fd, request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

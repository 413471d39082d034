//! The operating system's calls that no crate in use has, each behind a function or a type that is safe to use: whoever
//! calls one need not know what the kernel reads or writes. Beside the memory that a kernel shares with us and a C library,
//! all that is `unsafe` in this crate stands here.
//!
//! A request or an option is a constant that carries the type of its argument ([`ioctl::Request`],
//! [`option::SocketOption`]), so that nobody can ask with another one. What the kernel is to read where it lies is
//! described by vectors that live no longer than it does ([`vector`], [`outgoing`]). Errors are the kernel's numbers.

#![allow(unsafe_code)] // this is where it belongs

pub(crate) mod address;
pub(crate) mod bpf;
pub(crate) mod ethtool;
pub(crate) mod file;
pub(crate) mod incoming;
pub(crate) mod inherited;
pub(crate) mod ioctl;
#[cfg(target_env = "gnu")]
pub(crate) mod malloc;
pub(crate) mod message;
pub(crate) mod netmap;
pub(crate) mod option;
pub(crate) mod outgoing;
pub(crate) mod process;
pub(crate) mod resolve;
pub(crate) mod seccomp;
pub(crate) mod tap;
pub(crate) mod vdpa;
pub(crate) mod vduse;
pub(crate) mod vector;

use std::ffi::c_long;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// A value made of numbers: whatever its bytes are, it is one, and none of them is an address of ours to the kernel.
///
/// # Safety
/// That is so.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A value of zeros.
fn zeroed<T: Plain>() -> T {
    // SAFETY: any bytes are a `T`.
    unsafe { std::mem::zeroed() }
}

/// The value that stands in `bytes`, if they are as many.
fn of_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as a `T` has, and any bytes are one.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What a call returned, which says by a number below 0 that it has failed.
fn checked(result: impl Into<c_long>) -> Result<c_long, Errno> {
    let result = result.into();
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Why the last call of libc's failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The descriptor that a call returned.
///
/// # Safety
/// The kernel has just made it, and nobody else has it.
unsafe fn owned(number: c_long) -> OwnedFd {
    // SAFETY: the caller's.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

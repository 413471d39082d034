//! ioctl(2): requests that know what they take.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libc::Ioctl;
use rustix::io::Errno;

use super::{Plain, checked, owned};

/// A request whose argument is a `T`.
pub(crate) struct Request<T> {
    number: Ioctl,
    argument: PhantomData<T>,
}

impl<T: Plain> Request<T> {
    /// One whose number tells the size of its argument, as most do (`_IOR`, `_IOW`, `_IOWR`), which is that of a `T`.
    pub(super) const fn sized(number: Ioctl) -> Request<T> {
        assert!((number >> 16) as usize & 0x3fff == size_of::<T>());
        Request { number, argument: PhantomData }
    }
}

impl<T> Request<T> {
    /// # Safety
    /// The request reads and writes no more than a `T`, which holds whatever bytes the kernel writes to it, and no other
    /// memory.
    pub(super) const unsafe fn new(number: Ioctl) -> Request<T> {
        Request { number, argument: PhantomData }
    }

    /// Its number.
    pub(crate) const fn number(&self) -> Ioctl {
        self.number
    }
}

/// Does `request`, and says what it returns.
pub(crate) fn ioctl<T>(fd: impl AsFd, request: Request<T>, argument: &mut T) -> Result<i32, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the request takes a `T`, as its size or its maker says; this one is borrowed exclusively for the call.
    let result = unsafe { libc::ioctl(fd, request.number, std::ptr::from_mut(argument)) };
    checked(result).map(|result| result as i32)
}

/// A request that takes a number, or nothing, in place of an argument.
pub(crate) struct Bare(Ioctl);

impl Bare {
    /// # Safety
    /// The request takes what stands in its argument's place for a number.
    pub(super) const unsafe fn new(number: Ioctl) -> Bare {
        Bare(number)
    }

    /// Its number.
    pub(super) const fn number(&self) -> Ioctl {
        self.0
    }
}

/// Does `request` with `value`, and says what it returns.
pub(crate) fn ioctl_bare(fd: impl AsFd, request: Bare, value: u32) -> Result<i32, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the request takes a number, as its maker says.
    let result = unsafe { libc::ioctl(fd, request.0, libc::c_ulong::from(value)) };
    checked(result).map(|result| result as i32)
}

/// A request that makes a descriptor, of nothing.
pub(crate) struct Making(Bare);

impl Making {
    /// # Safety
    /// The request takes no argument, and returns a descriptor that it has made.
    pub(super) const unsafe fn new(number: Ioctl) -> Making {
        Making(Bare(number))
    }
}

/// Does `request`; what it makes.
pub(crate) fn ioctl_making(fd: impl AsFd, request: Making) -> Result<OwnedFd, Errno> {
    let made = ioctl_bare(fd, request.0, 0)?;
    // SAFETY: the request makes a descriptor, as its maker says.
    Ok(unsafe { owned(made.into()) })
}

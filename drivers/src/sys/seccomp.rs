//! seccomp(2) with all its flags, and the ioctls of seccomp_unotify(2).

use std::ffi::{c_long, c_ulong};
use std::os::fd::{AsFd, OwnedFd};

use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_filter};
use rustix::io::Errno;

use super::ioctl::{Request, ioctl};
use super::{Plain, checked, owned, zeroed};

/// SECCOMP_IOCTL_NOTIF_ID_VALID: whether a thread still waits in the call of that number.
pub(crate) const ID_VALID: Request<u64> = Request::sized(libc::SECCOMP_IOCTL_NOTIF_ID_VALID);
/// SECCOMP_IOCTL_NOTIF_SEND: what it is told.
pub(crate) const SEND: Request<seccomp_notif_resp> = Request::sized(libc::SECCOMP_IOCTL_NOTIF_SEND);
/// SECCOMP_IOCTL_NOTIF_ADDFD: a descriptor for it.
pub(crate) const ADD_FD: Request<seccomp_notif_addfd> = Request::sized(libc::SECCOMP_IOCTL_NOTIF_ADDFD);
const RECEIVE: Request<seccomp_notif> = Request::sized(libc::SECCOMP_IOCTL_NOTIF_RECV);

/// Puts this thread, and those that it starts, under `filter` for good. The thread must have no_new_privs.
pub(crate) fn install(filter: &[sock_filter]) -> Result<(), Errno> {
    install_with(filter, 0).map(drop)
}

/// The same; the kernel's end of the calls that the filter asks after.
pub(crate) fn install_listening(filter: &[sock_filter]) -> Result<OwnedFd, Errno> {
    let listening = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // With this flag (Linux 5.19) a signal does not make a call start anew that is under way.
    let fd = install_with(filter, listening | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    let fd = fd.or_else(|_| install_with(filter, listening))?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { owned(fd) })
}

fn install_with(filter: &[sock_filter], flags: c_ulong) -> Result<c_long, Errno> {
    let len = filter.len().try_into().map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let (mode, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
    // SAFETY: the kernel reads the program, whose length is told.
    checked(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, program) })
}

/// Whether the kernel has filters that ask.
pub(crate) fn has_listeners() -> Result<(), Errno> {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    let (operation, action) = (libc::SECCOMP_GET_ACTION_AVAIL, &raw const action);
    // SAFETY: the kernel reads a number.
    checked(unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, action) }).map(drop)
}

/// The next call that is asked after; waits for it.
///
/// Errors: also `NOENT`, when the thread has given up waiting.
pub(crate) fn next(listener: impl AsFd) -> Result<seccomp_notif, Errno> {
    // The kernel insists on zeros.
    let mut notice = zeroed();
    ioctl(listener, RECEIVE, &mut notice)?;
    Ok(notice)
}

// SAFETY: numbers.
unsafe impl Plain for seccomp_notif {}
// SAFETY: as above.
unsafe impl Plain for seccomp_notif_resp {}
// SAFETY: as above.
unsafe impl Plain for seccomp_notif_addfd {}

//! Processes: what is done between fork and exec, a process in namespaces of its own, the memory of another one, and the
//! descriptors and signals of this one.

use std::ffi::{c_int, c_long};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, getpid};

use super::checked;

/// Has the program of `command` have `fd`, under its number.
pub(crate) fn leave_open(command: &mut Command, fd: OwnedFd) {
    let keep = move || Ok(fcntl_setfd(&fd, FdFlags::empty())?);
    // SAFETY: the closure makes one system call, and allocates nothing. The descriptor is open: the command owns it.
    unsafe { command.pre_exec(keep) };
}

/// Has the program of `command` have `fd` under the number of `place`, which it does not have itself.
pub(crate) fn put_in_place(command: &mut Command, fd: OwnedFd, place: BorrowedFd<'_>) {
    let place = place.as_raw_fd();
    let put = move || {
        // SAFETY: numbers. The place is kept for this, so nothing else is closed; it is the new process's copy.
        checked(unsafe { libc::dup2(fd.as_raw_fd(), place) })?;
        Ok(())
    };
    // SAFETY: the closure makes one system call, and allocates nothing.
    unsafe { command.pre_exec(put) };
}

/// clone(2) as fork, with flags that make namespaces (CLONE_NEW…). To the old process, the new one; to that, `None`.
///
/// Errors: also `BUSY`, when this process has more threads than this one.
pub(crate) fn fork_into(namespaces: c_int) -> Result<Option<Pid>, Errno> {
    const NEW: c_int = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    if namespaces & !NEW != 0 {
        return Err(Errno::INVAL);
    }
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(Errno::BUSY);
    }
    let flags = c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: a copy of this process, as by fork, and this process has no other thread that could hold a lock.
    let child = checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(Pid::from_raw(child as i32))
}

/// Ends this process, which is a copy: its exit handlers are the old one's.
pub(crate) fn end_copy(status: c_int) -> ! {
    // SAFETY: a number.
    unsafe { libc::_exit(status) }
}

/// process_vm_readv(2): reads what stands at `address` in another process to the front of `to`, as far as it can. How many
/// bytes.
pub(crate) fn read_memory(process: Pid, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
    let ours = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let theirs = libc::iovec { iov_base: address as *mut _, iov_len: to.len() };
    let process = process.as_raw_pid();
    // SAFETY: one vector of ours, which the kernel fills; that of the other process is no pointer to us.
    let count = unsafe { libc::process_vm_readv(process, &raw const ours, 1, &raw const theirs, 1, 0) };
    checked(count as c_long).map(|count| count as usize)
}

/// process_vm_writev(2): writes `from` to `address` in another process, as far as it can. How many bytes.
///
/// Errors: also `INVAL`, when the process is this one.
pub(crate) fn write_memory(process: Pid, address: u64, from: &[u8]) -> Result<usize, Errno> {
    if process == getpid() {
        return Err(Errno::INVAL);
    }
    let ours = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let theirs = libc::iovec { iov_base: address as *mut _, iov_len: from.len() };
    let process = process.as_raw_pid();
    // SAFETY: one vector of ours, which the kernel reads; what it writes to is not our memory.
    let count = unsafe { libc::process_vm_writev(process, &raw const ours, 1, &raw const theirs, 1, 0) };
    checked(count as c_long).map(|count| count as usize)
}

/// close_range(2): closes all descriptors of this process but the standard ones and `kept`. To be called before there are
/// others: what it closes was made by whoever started this program, and nobody here has it. A kernel without this call
/// leaves them open, as their maker did.
pub(crate) fn close_others(kept: [BorrowedFd<'_>; 2]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd() as u32);
    kept.sort_unstable();
    let [first, second] = kept;
    for (from, to) in [(3, first - 1), (first + 1, second - 1), (second + 1, u32::MAX)] {
        if from <= to {
            // SAFETY: numbers; the descriptors are nobody's, as above.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    }
}

/// Has `signals` do nothing here, by handlers: what is ignored would be ignored by programs that are started, too. One that
/// is ignored already stays so.
pub(crate) fn outlive(signals: &[c_int]) {
    extern "C" fn nothing(_signal: c_int) {}
    for &signal in signals {
        let handler: extern "C" fn(c_int) = nothing;
        // SAFETY: a handler that does nothing.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: as it was.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

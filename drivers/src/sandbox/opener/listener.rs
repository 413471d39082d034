//! The kernel's end of a filter that asks: which call a thread of the switch is about to make, and what it is told
//! (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use crate::sys::ioctl::ioctl;
use crate::sys::seccomp;

/// A call that a thread waits in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    id: u64,
    /// The thread.
    pub thread: i32,
    pub number: i64,
    pub arguments: [u64; 6],
}

impl Call {
    /// The same call, by another of its names.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn by(&self, number: i64, arguments: [u64; 6]) -> Call {
        Call { number, arguments, ..*self }
    }
}

/// What the thread gets of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// A number, not below 0.
    Value(i64),
    /// A descriptor, which becomes one of its own, close-on-exec.
    Descriptor(OwnedFd),
}

/// See the module.
pub(super) struct Listener(pub OwnedFd);

impl Listener {
    /// The next call; waits for it.
    ///
    /// Errors: also when the thread has given up waiting, `NOENT`.
    pub(super) fn next(&self) -> io::Result<Call> {
        let libc::seccomp_notif { id, pid, data, .. } = seccomp::next(&self.0)?;
        Ok(Call { id, thread: pid as i32, number: data.nr.into(), arguments: data.args })
    }

    /// Whether the thread still waits in it, and so what was read of its memory was its own.
    pub(super) fn is_waiting(&self, call: &Call) -> bool {
        ioctl(&self.0, seccomp::ID_VALID, &mut { call.id }).is_ok()
    }

    /// Answers. A thread that waits no more does not mind.
    pub(super) fn answer(&self, call: &Call, answer: Result<Answer, Errno>) {
        let (val, error) = match answer {
            Ok(Answer::Value(value)) => (value, 0),
            Ok(Answer::Descriptor(fd)) => match self.hand_over(call, &fd) {
                Ok(()) => return,
                Err(error) => (0, -error.raw_os_error()),
            },
            Err(error) => (0, -error.raw_os_error()),
        };
        let mut response = libc::seccomp_notif_resp { id: call.id, val, error, flags: 0 };
        let _ = ioctl(&self.0, seccomp::SEND, &mut response);
    }

    /// Gives the thread a descriptor as what its call returns.
    fn hand_over(&self, call: &Call, fd: &OwnedFd) -> Result<(), Errno> {
        let mut added = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: libc::O_CLOEXEC as u32,
        };
        ioctl(&self.0, seccomp::ADD_FD, &mut added).map(drop)
    }
}

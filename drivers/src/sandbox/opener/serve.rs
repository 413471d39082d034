//! One call after the other, on a few threads, so that one that waits holds up few.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::caller::Caller;
use super::devices::Travellers;
use super::listener::{Answer, Call, Listener};
use super::paths::Desk;
use super::policy::Policy;

/// What the threads share.
pub(super) struct Server {
    pub listener: Listener,
    pub caller: Caller,
    pub policy: Policy,
    pub travellers: Travellers,
    /// Held while a thread waits for a call: one at a time.
    pub turn: Mutex<()>,
    /// What was refused, each once.
    pub refused: Mutex<BTreeSet<String>>,
    /// Tells the switch's log.
    pub tell: Box<dyn Fn(String) + Send + Sync>,
}

/// Texts of refusals that are kept, and so told; there can be as many as there are paths.
const REFUSALS_MAX: usize = 100;

impl Server {
    /// Serves until the switch has ended.
    pub(super) fn run(&self) {
        while let Some(call) = self.next() {
            let answer = self.serve(&call);
            // What was done for a thread that waits no more, as one that was killed, is closed.
            self.listener.answer(&call, answer);
        }
    }

    fn next(&self) -> Option<Call> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.listener.0.as_fd(), PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if fds[0].revents().contains(PollFlags::IN) => {}
                Err(Errno::INTR) => continue,
                _ => return None,
            }
            match self.listener.next() {
                Ok(call) => return Some(call),
                // A thread may have been killed meanwhile.
                Err(error) if is_passing(&error) => {}
                // Threads of the switch would wait for ever. Without us, what they ask for fails.
                Err(_) => std::process::exit(1),
            }
        }
    }

    fn serve(&self, call: &Call) -> Result<Answer, Errno> {
        let call = &modern(call);
        let refused = Cell::new(false);
        let desk = Desk { caller: &self.caller, policy: &self.policy, call, refused };
        let answer = match call.number {
            libc::SYS_openat => desk.open(),
            libc::SYS_newfstatat => desk.stat(),
            libc::SYS_statx => desk.statx(),
            libc::SYS_readlinkat => desk.read_link(),
            libc::SYS_faccessat | libc::SYS_faccessat2 => desk.access(),
            libc::SYS_mkdirat => desk.make_directory(),
            libc::SYS_unlinkat => desk.remove(),
            libc::SYS_renameat2 => desk.rename(),
            libc::SYS_fchmodat => desk.change_mode(),
            libc::SYS_fchownat => desk.change_group(),
            libc::SYS_socket => desk.socket(&self.travellers),
            libc::SYS_bind => desk.bind(),
            libc::SYS_connect => desk.connect(),
            libc::SYS_setsockopt => desk.set_option(),
            libc::SYS_ioctl => desk.request(),
            libc::SYS_setns => desk.travel(&self.travellers),
            _ => Err(desk.refuse()),
        };
        if desk.refused.get() {
            self.note(call);
        }
        // Else it may have been another process's memory that was read.
        if self.listener.is_waiting(call) { answer } else { Err(Errno::INTR) }
    }

    fn note(&self, call: &Call) {
        let path = match call.number {
            libc::SYS_openat | libc::SYS_unlinkat | libc::SYS_mkdirat => {
                self.caller.path(call.arguments[1], call.thread).ok()
            }
            _ => None,
        };
        let what = match path {
            Some(path) => format!("{} of {}", name(call.number), path.display()),
            None => format!("{} ({:#x}, {:#x})", name(call.number), call.arguments[0], call.arguments[1]),
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < REFUSALS_MAX && refused.insert(what.clone()) {
            (self.tell)(format!("the sandbox does not permit {what}; --no-sandbox would"));
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}

/// The call that took an older one's place, where an architecture has both.
#[cfg(target_arch = "x86_64")]
fn modern(call: &Call) -> Call {
    let [a, b, c, ..] = call.arguments;
    let here = libc::AT_FDCWD as u64;
    let (number, arguments) = match call.number {
        libc::SYS_open => (libc::SYS_openat, [here, a, b, c, 0, 0]),
        libc::SYS_creat => {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            (libc::SYS_openat, [here, a, flags as u64, b, 0, 0])
        }
        libc::SYS_stat => (libc::SYS_newfstatat, [here, a, b, 0, 0, 0]),
        libc::SYS_lstat => (libc::SYS_newfstatat, [here, a, b, libc::AT_SYMLINK_NOFOLLOW as u64, 0, 0]),
        libc::SYS_readlink => (libc::SYS_readlinkat, [here, a, b, c, 0, 0]),
        libc::SYS_access => (libc::SYS_faccessat, [here, a, b, 0, 0, 0]),
        libc::SYS_mkdir => (libc::SYS_mkdirat, [here, a, b, 0, 0, 0]),
        libc::SYS_rmdir => (libc::SYS_unlinkat, [here, a, libc::AT_REMOVEDIR as u64, 0, 0, 0]),
        libc::SYS_unlink => (libc::SYS_unlinkat, [here, a, 0, 0, 0, 0]),
        libc::SYS_rename => (libc::SYS_renameat2, [here, a, here, b, 0, 0]),
        libc::SYS_renameat => (libc::SYS_renameat2, [a, b, c, call.arguments[3], 0, 0]),
        libc::SYS_chmod => (libc::SYS_fchmodat, [here, a, b, 0, 0, 0]),
        _ => return *call,
    };
    call.by(number, arguments)
}

#[cfg(not(target_arch = "x86_64"))]
fn modern(call: &Call) -> Call {
    *call
}

/// What people call it; others have numbers.
fn name(call: i64) -> String {
    const NAMES: &[(i64, &str)] = &[
        (libc::SYS_openat, "opening"),
        (libc::SYS_unlinkat, "removal"),
        (libc::SYS_mkdirat, "making a directory"),
        (libc::SYS_renameat2, "renaming"),
        (libc::SYS_fchmodat, "changing the mode"),
        (libc::SYS_fchownat, "changing the owner"),
        (libc::SYS_socket, "socket"),
        (libc::SYS_bind, "bind"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_setsockopt, "setsockopt"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_setns, "setns"),
    ];
    let found = NAMES.iter().find(|(number, _)| *number == call);
    found.map_or_else(|| format!("system call {call}"), |(_, name)| (*name).to_owned())
}

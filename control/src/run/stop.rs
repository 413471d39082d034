//! Ways to end a run from outside, or to have it read its configuration again: a handle for other threads, and the signals
//! SIGTERM, SIGINT and SIGHUP.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use vmm_sys_util::signal::register_signal_handler;

/// Ends a run when asked to, or has it reload; clones are for the same run.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Wishes>);

/// What was asked for, each an eventfd.
#[derive(Debug)]
struct Wishes {
    stop: OwnedFd,
    reload: OwnedFd,
    /// The process had a terminal when it began to listen to signals.
    had_terminal: bool,
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The end.
    Stop,
    /// That the configuration has changed, unless the terminal is gone.
    Reload,
}

impl Stopper {
    /// For a run that is still to be started.
    pub fn new() -> io::Result<Stopper> {
        let wish = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Stopper(Arc::new(Wishes { stop: wish()?, reload: wish()?, had_terminal: has_terminal() })))
    }

    /// Asks the run to end in good order; returns at once.
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.0.stop, &1u64.to_ne_bytes());
    }

    /// Asks the run to read its configuration again; returns at once.
    pub fn reload(&self) {
        let _ = rustix::io::write(&self.0.reload, &1u64.to_ne_bytes());
    }

    /// One that SIGTERM, SIGINT and SIGHUP use from now on. What is ignored stays ignored, as SIGHUP is under nohup, and
    /// SIGPIPE by Rust's start-up code. To be made for one run of the process only.
    pub fn of_signals(hangup: Hangup) -> Result<Stopper, String> {
        let stopper = Stopper::new().map_err(|error| format!("making an eventfd: {error}"))?;
        SIGNALLED.get_or_init(|| stopper.clone());
        let ignored = ignored_signals();
        let on_hangup = match hangup {
            Hangup::Stop => on_signal,
            Hangup::Reload => on_reload,
        };
        let handlers: [(_, extern "C" fn(_, _, _)); 3] =
            [(libc::SIGTERM, on_signal), (libc::SIGINT, on_signal), (libc::SIGHUP, on_hangup)];
        for (signal, handler) in handlers {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            register_signal_handler(signal, handler)
                .map_err(|error| format!("asking to be told of signals: {error}"))?;
        }
        Ok(stopper)
    }

    /// Whether it was asked.
    pub fn is_used(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Becomes readable when asked to stop.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.stop.as_fd()
    }

    /// Becomes readable when asked to reload.
    pub(super) fn reload_fd(&self) -> BorrowedFd<'_> {
        self.0.reload.as_fd()
    }

    /// Takes the wish to reload, after which another one can be heard.
    pub(super) fn take_reload(&self) {
        let _ = rustix::io::read(&self.0.reload, &mut [0; 8]);
    }

    /// Whether the process had a terminal and has none any more: who closes one does not mean the configuration.
    pub(super) fn has_lost_terminal(&self) -> bool {
        self.0.had_terminal && !has_terminal()
    }
}

/// Whether this process belongs to a terminal. The kernel takes it away before it sends SIGHUP.
fn has_terminal() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}

/// Signals that whoever started us wants ignored: bit n - 1 for signal n (proc(5), `SigIgn`).
pub(crate) fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

static SIGNALLED: OnceLock<Stopper> = OnceLock::new();

/// Does nothing that a signal handler may not: an atomic load and a write.
extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(stopper) = SIGNALLED.get() {
        stopper.stop();
    }
}

/// Likewise.
extern "C" fn on_reload(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(stopper) = SIGNALLED.get() {
        stopper.reload();
    }
}

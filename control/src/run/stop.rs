//! Ways to end a run from outside: a handle for other threads, and the signals SIGTERM, SIGINT and SIGHUP.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vmm_sys_util::signal::register_signal_handler;

/// Ends a run when asked to; clones end the same run.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// For a run that is still to be started.
    pub fn new() -> io::Result<Stopper> {
        Ok(Stopper(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Asks the run to end in good order; returns at once.
    pub fn stop(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// One that SIGTERM, SIGINT and SIGHUP (a terminal that closes) use from now on. What is ignored stays ignored, as
    /// SIGHUP is under nohup, and SIGPIPE by Rust's start-up code. To be made for one run of the process only.
    pub fn of_signals() -> Result<Stopper, String> {
        let stopper = Stopper::new().map_err(|error| format!("making an eventfd: {error}"))?;
        SIGNALLED.get_or_init(|| stopper.clone());
        let ignored = ignored_signals();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            register_signal_handler(signal, on_signal)
                .map_err(|error| format!("asking to be told of signals: {error}"))?;
        }
        Ok(stopper)
    }

    /// Whether it was asked.
    pub fn is_used(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Becomes readable when asked.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Signals that whoever started us wants ignored: bit n - 1 for signal n (proc(5), `SigIgn`).
fn ignored_signals() -> u64 {
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

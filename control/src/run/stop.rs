//! Ways to end a run from outside: a handle for other threads, and the signals SIGTERM and SIGINT.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal::register_signal_handler;

/// Ends a run when asked to; clones end the same run.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    pub(super) fn new() -> io::Result<Stopper> {
        Ok(Stopper(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Asks the run to end in good order; returns at once.
    pub fn stop(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Lets SIGTERM and SIGINT ask for it. To be called for one run of the process only; SIGPIPE is ignored by Rust's
    /// start-up code already.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        SIGNALLED.get_or_init(|| self.clone());
        for signal in [libc::SIGTERM, libc::SIGINT] {
            register_signal_handler(signal, on_signal).map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Becomes readable when asked.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

static SIGNALLED: OnceLock<Stopper> = OnceLock::new();

/// Does nothing that a signal handler may not: an atomic load and a write.
extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(stopper) = SIGNALLED.get() {
        stopper.stop();
    }
}

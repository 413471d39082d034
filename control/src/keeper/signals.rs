//! The signals that a keeper hears, one after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use vmm_sys_util::signal::register_signal_handler;

use crate::run::ignored_signals;

/// The end of a pipe that signal handlers write to.
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Catches what is to be passed on; what is ignored stays ignored, as SIGHUP is under nohup. To be done once.
    pub(super) fn catch() -> io::Result<Signals> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        CAUGHT.get_or_init(|| theirs);
        let ignored = ignored_signals();
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR2] {
            let number = signal.as_raw();
            if ignored >> (number - 1) & 1 == 0 {
                register_signal_handler(number, on_signal)
                    .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
            }
        }
        Ok(Signals(ours))
    }

    /// The next one that came.
    pub(super) fn next(&self) -> Option<Signal> {
        let mut number = [0];
        match rustix::io::read(&self.0, &mut number) {
            Ok(1) => Signal::from_named_raw(number[0].into()),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    /// Readable when there is one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

static CAUGHT: OnceLock<OwnedFd> = OnceLock::new();

/// Does nothing that a signal handler may not: an atomic load and a write.
extern "C" fn on_signal(number: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(pipe) = CAUGHT.get() {
        let _ = rustix::io::write(pipe, &[number as u8]);
    }
}

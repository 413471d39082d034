//! Ctrl-C and SIGTERM end the comparison between two rounds, so that all that it started is taken down.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Doing, Error, Result};
use rustix::process::Signal;
use vmm_sys_util::signal::register_signal_handler;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes the signals over.
pub fn watch() -> Result<()> {
    [Signal::INT, Signal::TERM]
        .into_iter()
        .try_for_each(|signal| register_signal_handler(signal.as_raw(), note).doing("taking over signals"))
}

/// Fails when one came.
pub fn check() -> Result<()> {
    // Relaxed: the flag is all there is to see.
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::new("interrupted")) } else { Ok(()) }
}

extern "C" fn note(_number: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

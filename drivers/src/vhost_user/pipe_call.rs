//! Call descriptors that are pipes, as those of User Mode Linux are, which cannot wait for eventfds.
//!
//! Whoever reads a pipe can hold up whoever writes to it, in more ways than one can guard against. So no worker does: it
//! wakes the port's own thread, which writes, and which only the port itself waits for.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringyard_dataplane::ring::Call;
use rustix::fs::OFlags;

use crate::vring::{kind, set_nonblocking};

/// A call that goes through a pipe.
pub(super) struct PipeCall {
    pipe: OwnedFd,
    /// Set by whoever calls, taken by the port's thread.
    due: AtomicBool,
    wake: Arc<OwnedFd>,
}

impl PipeCall {
    /// Whether `fd` is a pipe at all.
    pub(super) fn is_pipe(fd: &OwnedFd) -> Result<bool, String> {
        Ok(kind(fd)?.to_string_lossy().starts_with("pipe:["))
    }

    /// `wake` is the non-blocking eventfd that the port's thread waits for.
    pub(super) fn new(pipe: OwnedFd, wake: Arc<OwnedFd>) -> Result<PipeCall, String> {
        let mode = set_nonblocking(&pipe)? & OFlags::ACCMODE;
        if mode == OFlags::RDONLY {
            return Err("the call descriptor is the end of a pipe that is read".into());
        }
        Ok(PipeCall { pipe, due: AtomicBool::new(false), wake })
    }

    /// What the ring calls.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        let own = self.clone();
        Call::Other(Arc::new(move || own.ask()))
    }

    fn ask(&self) {
        // AcqRel: what was done before the call is seen by the thread that takes it, whoever asked first.
        if !self.due.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Calls, if that is due. A full pipe already says what there is to say.
    pub(super) fn relay(&self) {
        if self.due.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.pipe, &1u64.to_ne_bytes());
        }
    }
}

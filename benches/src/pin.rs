//! The core that a thread runs on.

use crate::error::{Doing, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While it lives, the thread that made it stays on one core; processes and threads that it starts do, too.
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Moves this thread to `core`.
    pub fn to(core: usize) -> Result<Pinned> {
        let before = sched_getaffinity(None).doing("asking for this thread's cores")?;
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).doing(format!("moving to core {core}"))?;
        Ok(Pinned { before })
    }

    /// The cores that this thread had before.
    pub fn before(&self) -> CpuSet {
        self.before
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was possible before, so it is now; and if not, the next measurement pins again.
        let _ = sched_setaffinity(None, &self.before);
    }
}

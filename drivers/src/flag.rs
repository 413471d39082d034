//! A flag with a descriptor beside it that wakes whoever waits for the flag: only who raises it first has to write.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module. Raised by any thread, taken by one.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    /// One that is not raised.
    pub(crate) fn new() -> Flag {
        Flag(AtomicBool::new(false))
    }

    /// Raises it, and has `wake` write, unless it was raised already.
    pub(crate) fn raise(&self, wake: impl FnOnce()) {
        // Release: what was done before is seen by the thread that takes it, whoever raised it first. Acquire: so is what
        // those had done who raised it before.
        if !self.0.swap(true, Ordering::AcqRel) {
            wake();
        }
    }

    /// Whether it was raised since it was taken last.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Takes it, after `drain` has emptied the descriptor and said whether there was anything in it. To be done before the
    /// look at what it is raised for: in the other order, what comes between the two is missed.
    pub(crate) fn take(&self, drain: impl FnOnce() -> bool) -> bool {
        let was_written = drain();
        self.0.swap(false, Ordering::AcqRel) || was_written
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two who raise it, each for a cause of its own. The causes are relaxed: the flag must carry them.
    struct Shared {
        flag: Flag,
        written: AtomicBool,
        causes: [AtomicBool; 2],
    }

    impl Shared {
        fn raise(&self, cause: usize) {
            self.causes[cause].store(true, Ordering::Relaxed);
            // A system call, which orders nothing here.
            self.flag.raise(|| self.written.store(true, Ordering::Relaxed));
        }

        /// What the thread sees that waits.
        fn look(&self) -> [bool; 2] {
            if !self.flag.take(|| self.written.swap(false, Ordering::Relaxed)) {
                return [false; 2];
            }
            [0, 1].map(|cause| self.causes[cause].load(Ordering::Relaxed))
        }
    }

    #[test]
    fn cause_is_seen_or_the_thread_is_woken_again() {
        loom::model(|| {
            let no = || AtomicBool::new(false);
            let shared = Arc::new(Shared { flag: Flag::new(), written: no(), causes: [no(), no()] });
            let raisers = [0, 1].map(|cause| {
                let shared = shared.clone();
                thread::spawn(move || shared.raise(cause))
            });
            let mut seen = shared.look();
            raisers.into_iter().for_each(|raiser| raiser.join().unwrap());
            if shared.written.load(Ordering::Relaxed) {
                seen = shared.look();
            }
            assert_eq!(seen, [true; 2], "the thread sleeps, and does not know why it should not");
        });
    }
}

//! Whether a port's thread may do anything: for a process that hands its connections over and goes on for a moment.
//!
//! The thread says when it begins to wait and when it has waited. Whoever halts it does so while it waits, and then it
//! never comes back; so a request that is in a socket stays there for the successor, and one that was taken out is served.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    /// Does what may wait, between two things that the thread does.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        // Release: pairs with the acquire of whoever halts the thread, and sees all that it did.
        self.0.store(WAITING, Ordering::Release);
        let result = wait();
        if self.0.compare_exchange(WAITING, BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
            loop {
                // Halted: this process ends, or another has what we have.
                thread::park();
            }
        }
        result
    }

    /// Halts the thread where it waits, which it does within a time; whether it did.
    pub(super) fn halt(&self) -> bool {
        let deadline = Instant::now() + HALT_TIME_MAX;
        while self.0.compare_exchange(WAITING, HALTED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            if self.0.load(Ordering::Relaxed) == HALTED {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

const BUSY: u8 = 0;
const WAITING: u8 = 1;
const HALTED: u8 = 2;
/// Nothing that a port's thread does takes as long, but waiting.
const HALT_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn thread_that_was_halted_does_nothing_more() {
        for _ in 0..20 {
            let (gate, count) = (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)));
            let (theirs, counted) = (gate.clone(), count.clone());
            thread::spawn(move || {
                loop {
                    theirs.wait(thread::yield_now);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            while count.load(Ordering::Relaxed) < 10 {
                thread::yield_now();
            }
            assert!(gate.halt() && gate.halt());
            let before = count.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
            assert_eq!(count.load(Ordering::Relaxed), before);
        }
    }
}

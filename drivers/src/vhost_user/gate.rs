//! Whether a port's thread may do anything: for a process that hands its connections over and goes on for a moment.
//!
//! The thread says when it begins to wait and when it has waited. Whoever halts it does so while it waits, and then it
//! never comes back; so a request that is in a socket stays there for the successor, and one that was taken out is served.

use std::thread;
use std::time::{Duration, Instant};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

/// See the module. Opened and closed by the thread, locked by whoever halts it, for good.
#[derive(Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    /// Does what may wait, between two things that the thread does.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.open();
        let result = wait();
        if !self.close() {
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
        while !self.lock() {
            if Instant::now() > deadline {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    fn open(&self) {
        // Release: pairs with the acquire of whoever halts the thread, and sees all that it did.
        self.0.store(WAITING, Ordering::Release);
    }

    /// Whether the thread may go on. Relaxed: it finds what it left.
    fn close(&self) -> bool {
        self.0.compare_exchange(WAITING, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Locks it if it is open; whether it is locked.
    fn lock(&self) -> bool {
        let locked = self.0.compare_exchange(WAITING, HALTED, Ordering::Acquire, Ordering::Acquire);
        matches!(locked, Ok(_) | Err(HALTED))
    }
}

const BUSY: u8 = 0;
const WAITING: u8 = 1;
const HALTED: u8 = 2;
/// Nothing that a port's thread does takes as long, but waiting.
const HALT_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// What the thread does is relaxed: the gate must carry it.
    #[test]
    fn who_halts_the_thread_sees_all_that_it_did_and_it_does_nothing_more() {
        loom::model(|| {
            let shared = Arc::new((Gate::default(), AtomicU8::new(0)));
            let theirs = shared.clone();
            let thread = loom::thread::spawn(move || {
                let (gate, done) = &*theirs;
                for turn in 1..=2 {
                    done.store(turn, Ordering::Relaxed);
                    gate.open();
                    if !gate.close() {
                        return;
                    }
                }
            });
            let (gate, done) = &*shared;
            let seen = gate.lock().then(|| done.load(Ordering::Relaxed));
            thread.join().unwrap();
            assert!(seen.is_none_or(|seen| seen == done.load(Ordering::Relaxed)));
            assert_eq!(seen.is_some(), gate.lock(), "for good, or not at all");
        });
    }
}

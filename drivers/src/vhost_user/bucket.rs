//! How often a connection may make the whole switch follow it.

use std::thread;
use std::time::{Duration, Instant};

/// A token bucket; waits are short sleeps of the connection's own thread. A guest that resets 100 times a second needs
/// about ten changes a reset and queue pair.
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new() -> Bucket {
        Bucket { tokens: BURST, filled: Instant::now() }
    }

    /// Takes a token, when there is one.
    pub(super) fn take(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + (now - self.filled).as_secs_f64() * PER_SECOND).min(BURST) - 1.0;
        self.filled = now;
        if self.tokens < 0.0 {
            thread::sleep(Duration::from_secs_f64(-self.tokens / PER_SECOND));
        }
    }
}

/// Changes a second, sustained.
const PER_SECOND: f64 = 2000.0;
/// Changes at once.
const BURST: f64 = 200.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_and_a_storm_is_slowed() {
        let mut bucket = Bucket::new();
        let start = Instant::now();
        (0..200).for_each(|_| bucket.take());
        assert!(start.elapsed() < Duration::from_millis(50));
        (0..200).for_each(|_| bucket.take());
        assert!(start.elapsed() >= Duration::from_millis(90));
    }
}

//! How often the peer of a port may make the whole switch follow it.

use std::thread;
use std::time::{Duration, Instant};

/// A token bucket; waits are short sleeps of the port's own thread.
pub(crate) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new() -> Bucket {
        Bucket { tokens: BURST, filled: Instant::now() }
    }

    /// Takes a token, when there is one.
    pub(crate) fn take(&mut self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }

    /// Takes a token at `now`, and says how long it is until it is there.
    fn wait(&mut self, now: Instant) -> Duration {
        let filled = now.saturating_duration_since(self.filled).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + filled).min(BURST) - 1.0;
        self.filled = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / PER_SECOND)
    }
}

/// Changes a second, sustained: 100 resets of a guest with two queue pairs, which makes about eight a pair.
const PER_SECOND: f64 = 2000.0;
/// Changes at once.
const BURST: f64 = 200.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundred_resets_a_second_pass_unhindered() {
        let mut bucket = Bucket::new();
        let start = Instant::now();
        for reset in 0..1000u32 {
            let now = start + Duration::from_millis(10) * reset;
            assert!((0..16).all(|_| bucket.wait(now).is_zero()), "reset {reset}");
        }
    }

    #[test]
    fn storm_is_slowed_to_the_rate() {
        let mut bucket = Bucket::new();
        let mut now = Instant::now();
        let start = now;
        for _ in 0..4200 {
            now += bucket.wait(now);
        }
        let took = (now - start).as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
    }
}

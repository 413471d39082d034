//! When frames are due. The loop is open: nothing but the clock decides, and what could not be sent in time is not made
//! up for by sending slower later.

use std::time::{Duration, Instant};

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// As much as there is room for.
    Max,
    /// So many frames a second, all streams together.
    Rate(f64),
    /// So many frames, at that many a second.
    Burst {
        /// Frames, all streams together.
        frames: u64,
        /// Frames a second.
        rate: f64,
    },
}

/// The frames of one stream that are due.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    start: Instant,
    rate: Option<f64>,
    limit: u64,
    issued: u64,
}

impl Pacer {
    /// For one of `streams` streams that send `load` for `time` from `start` on.
    pub fn new(load: Load, streams: usize, start: Instant, time: Duration) -> Pacer {
        let share = |value: f64| value / streams as f64;
        let (rate, limit) = match load {
            Load::Max => (None, u64::MAX),
            Load::Rate(rate) => (Some(share(rate)), (share(rate) * time.as_secs_f64()).round() as u64),
            Load::Burst { frames, rate } => (Some(share(rate)), frames.div_ceil(streams as u64)),
        };
        Pacer { start, rate, limit, issued: 0 }
    }

    /// Frames that are due at `now` and were not issued; `most` when there is no rate.
    #[inline]
    pub fn due(&self, now: Instant, most: usize) -> usize {
        let Some(rate) = self.rate else { return most };
        let due = ((now - self.start).as_secs_f64() * rate) as u64;
        (due.min(self.limit) - self.issued.min(due)) as usize
    }

    /// Whether frames that find no room are lost, not sent later.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.rate.is_some()
    }

    /// Says that `count` more were issued.
    #[inline]
    pub fn issue(&mut self, count: usize) {
        self.issued += count as u64;
    }

    /// Frames issued.
    #[inline]
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Whether no more will be due.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.issued >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fall_due_by_the_clock_alone() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Load::Rate(2_000_000.0), 2, start, Duration::from_secs(1));
        let at = |micros| start + Duration::from_micros(micros);
        assert_eq!(pacer.due(at(0), 64), 0);
        assert_eq!(pacer.due(at(10), 64), 10);
        pacer.issue(10);
        assert_eq!(pacer.due(at(10), 64), 0);
        // Late by a millisecond: all of it is due at once.
        assert_eq!(pacer.due(at(1010), 64), 1000);
        pacer.issue(1000);
        assert_eq!(pacer.due(at(2_000_000), 64), 1_000_000 - 1010, "never more than the time's worth");
    }

    #[test]
    fn every_rate_issues_its_exact_count() {
        for rate in [1.0, 999.0, 12_345.6, 1e6, 14_880_952.0] {
            let start = Instant::now();
            let mut pacer = Pacer::new(Load::Rate(rate), 1, start, Duration::from_secs(1));
            let mut now = start;
            while !pacer.is_done() {
                now += Duration::from_nanos(777_777);
                let due = pacer.due(now, 64);
                let ideal = (now - start).as_secs_f64() * rate;
                pacer.issue(due);
                assert!(pacer.issued() as f64 <= ideal + 1.0, "{rate} is too early");
                assert!(pacer.issued() as f64 >= ideal.min(rate) - 1.5, "{rate} is too late");
            }
            assert_eq!(pacer.issued(), rate.round() as u64);
        }
    }

    #[test]
    fn burst_ends_after_its_frames_and_the_greatest_load_never() {
        let start = Instant::now();
        let burst = Load::Burst { frames: 10, rate: 1e9 };
        let mut pacer = Pacer::new(burst, 2, start, Duration::from_secs(1));
        assert_eq!(pacer.due(start + Duration::from_secs(1), 64), 5);
        pacer.issue(5);
        assert!(pacer.is_done() && pacer.is_open());
        let mut most = Pacer::new(Load::Max, 1, start, Duration::from_secs(1));
        most.issue(1 << 40);
        assert_eq!(most.due(start, 64), 64);
        assert!(!most.is_done() && !most.is_open());
    }
}

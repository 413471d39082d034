//! Driving both peers in one thread: a burst is sent, then what has come is taken, over and over, with no more frames
//! under way than the medium takes without loss. Turns in which neither could be done are time that the peers waited for
//! the switch; without any, they were the bottleneck themselves.

use std::time::{Duration, Instant};

use ringyard_benches::traffic::Faults;
use ringyard_tests::error::Result;

use crate::ends::{Sink, Source};
use crate::medium::Medium;

/// Frames on their way from the source to the sink.
pub struct Flood<'a> {
    source: &'a mut dyn Source,
    sink: &'a mut dyn Sink,
    window: u64,
    burst: usize,
    silence: Duration,
    /// Frames up to here have come or are given up.
    settled: u64,
}

/// What a round found.
pub struct Round {
    /// Frames that came out.
    pub frames: u64,
    /// In this time.
    pub elapsed: Duration,
    /// Of which the peers had nothing to do for so long.
    pub waited: Duration,
    /// And the switch had a core for so long; `None` where there is no switch.
    pub cpu: Option<Duration>,
    /// What went wrong, also while warming up.
    pub faults: Faults,
}

impl Round {
    /// Million frames a second.
    pub fn mpps(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// Million frames a second of the switch's own time on a core.
    pub fn mpps_of_cpu(&self) -> Option<f64> {
        self.cpu.map(|cpu| self.frames as f64 / cpu.as_secs_f64() / 1e6)
    }

    /// The share of the time in which the switch was what the peers waited for.
    pub fn waiting(&self) -> f64 {
        self.waited.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

impl Flood<'_> {
    /// Starts anew: frames have `frame_len` bytes and are numbered from 0. None may be under way.
    pub fn new<'a>(
        medium: Medium,
        frame_len: usize,
        source: &'a mut dyn Source,
        sink: &'a mut dyn Sink,
    ) -> Result<Flood<'a>> {
        source.start(frame_len)?;
        sink.start(frame_len)?;
        let (window, burst) = (medium.window(frame_len), medium.burst(frame_len));
        let silence = medium.silence();
        Ok(Flood { source, sink, window, burst, silence, settled: 0 })
    }

    /// Warms up, measures for `time`, and waits for the last frames. `cpu` says how long the switch had a core so far.
    pub fn run(
        &mut self,
        time: Duration,
        mut cpu: impl FnMut() -> Result<Option<Duration>>,
    ) -> Result<Round> {
        self.drive(WARM_UP)?;
        let before = cpu()?;
        let driven = self.drive(time)?;
        let after = cpu()?;
        let faults = self.settle()?;
        let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Round { cpu, faults, ..driven })
    }

    fn drive(&mut self, time: Duration) -> Result<Round> {
        let start = Instant::now();
        let (mut now, mut frames, mut waited) = (start, 0, Duration::ZERO);
        let mut idle_since = None;
        // A very busy machine may leave us no time in which anything comes; then it takes longer.
        while now - start < time || frames == 0 && now - start < FIRST_FRAME_TIME_MAX {
            let got = self.turn()?;
            let later = Instant::now();
            match got {
                Some(got) => {
                    frames += got;
                    idle_since = None;
                }
                None => {
                    waited += later - now;
                    if later - *idle_since.get_or_insert(now) > STALL {
                        // Lost at the end of a burst: nothing later tells of it.
                        self.settled = self.source.sent();
                    }
                }
            }
            now = later;
        }
        Ok(Round { frames, elapsed: now - start, waited, cpu: None, faults: Faults::default() })
    }

    /// How many frames came; `None` when none could be sent either.
    fn turn(&mut self) -> Result<Option<u64>> {
        self.settled = self.settled.max(self.sink.next());
        let room = self.settled + self.window;
        let room = room.saturating_sub(self.source.sent()).min(self.burst as u64);
        let sent = if room > 0 { self.source.send(room as usize)? } else { 0 };
        let got = self.sink.drain()?;
        Ok((sent > 0 || got > 0).then_some(got as u64))
    }

    /// Sends one frame; whether any came.
    pub fn probe(&mut self) -> Result<bool> {
        self.source.send(1)?;
        Ok(self.sink.drain()? > 0)
    }

    /// Sends no more, and takes what is under way; what went wrong in all.
    pub fn settle(&mut self) -> Result<Faults> {
        let start = Instant::now();
        let mut last = start;
        let mut whole = false;
        while last.elapsed() < self.silence && start.elapsed() < SETTLE_TIME_MAX {
            whole = whole || self.source.complete()?;
            if whole && self.sink.next() >= self.source.sent() {
                break;
            }
            if self.sink.drain()? > 0 {
                last = Instant::now();
            }
        }
        Ok(self.sink.faults(self.source.sent()))
    }
}

/// After the switch goes on, before it is measured.
const WARM_UP: Duration = Duration::from_millis(50);
const FIRST_FRAME_TIME_MAX: Duration = Duration::from_secs(5);
/// Nothing can be sent and nothing comes for so long: what is under way is lost.
const STALL: Duration = Duration::from_millis(2);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

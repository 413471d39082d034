//! The latency: one frame at a time, there and back, seen by guests that poll.

use std::thread;
use std::time::{Duration, Instant};

use super::STALL_TIME;
use super::outcome::{DemoOutcome, Latency};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::guest::Guest;
use crate::traffic::Faults;

/// Samples kept, at most: 8 MiB.
const SAMPLES_MAX: usize = 1 << 20;
/// Looks before the core is offered to others; about as long as the switch needs when it has a core of its own.
const LOOKS: u32 = 200;

/// Measures for `time`, every way in turn, from before a frame is handed over until it is seen and verified.
pub(super) fn run(
    guests: &mut [&mut Guest],
    frame_len: usize,
    time: Duration,
    outcome: &mut DemoOutcome,
) -> Result<()> {
    let mut exchange = Exchange::new(guests.len(), frame_len, 1)?;
    let mut samples: Vec<u64> = Vec::new();
    let start = Instant::now();
    let ways = guests.len();
    while start.elapsed() < time && samples.len() < SAMPLES_MAX {
        let sent = Instant::now();
        exchange.send_one(guests, samples.len() % ways)?;
        let mut looks = 0u32;
        while exchange.receive(guests)? == 0 {
            looks += 1;
            if looks > LOOKS {
                thread::yield_now();
            }
            if looks.is_multiple_of(1024) && sent.elapsed() > STALL_TIME {
                outcome.stalled = Some(format!("a frame did not arrive within {} s", STALL_TIME.as_secs()));
                return Ok(());
            }
        }
        samples.push(sent.elapsed().as_nanos() as u64);
    }
    let mut faults = Faults::default();
    exchange.flows().iter().for_each(|flow| faults.add(flow.faults()));
    samples.sort_unstable();
    let percentile = |percent: usize| samples.get(samples.len() * percent / 100).copied();
    outcome.latency = percentile(50).zip(percentile(99)).map(|(p50_ns, p99_ns)| Latency {
        frames: samples.len(),
        p50_ns,
        p99_ns,
        faults,
    });
    Ok(())
}

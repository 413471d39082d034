//! The latency of one frame on an idle way, guest to guest: from before it is handed over until the receiver, which
//! polls, has it. Each frame is answered by the next one in the other direction.

use std::time::{Duration, Instant};

use ringyard_benches::guest::Guest;
use ringyard_benches::traffic::{SEQUENCE, Template};
use ringyard_tests::error::{Doing, Error, Result};

use super::rate::{RING_SIZE, ROUND_TIME, WARM_UP};
use super::subject;
use crate::DRIVER_CORE;
use crate::contender::Contender;
use crate::pair::Pair;
use ringyard_benches::comparison::{Figure, Part, Series};
use ringyard_benches::pin::Pinned;

/// The median and the 99th percentile of every round.
pub fn run(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    let start = |contender: &Contender| Pair::start(*contender, RING_SIZE);
    let mut pairs = contenders.iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut figures = PERCENTILES.map(|percent| Figure {
        name: format!("latency of one 64 B frame, p{percent}, µs"),
        digits: 2,
        subject: subject(contenders),
        series: contenders.iter().map(|contender| Series::new(contender.title())).collect(),
    });
    for _ in 0..rounds {
        for (place, pair) in pairs.iter_mut().enumerate() {
            let samples = pair.awake(|[a, b]| {
                let _pinned = Pinned::to(DRIVER_CORE)?;
                ping(a, b, WARM_UP)?;
                ping(a, b, ROUND_TIME)
            })?;
            for (figure, percent) in figures.iter_mut().zip(PERCENTILES) {
                figure.series[place].values.push(percentile(&samples, percent) / 1e3);
            }
        }
    }
    Ok(figures.map(Part::Figure).into())
}

/// A percentile of sorted samples.
pub fn percentile(sorted: &[u64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |sample| *sample as f64)
}

/// Sends a frame to and fro for `time`; the latencies in nanoseconds, sorted.
fn ping(a: &mut Guest, b: &mut Guest, time: Duration) -> Result<Vec<u64>> {
    let mut frames = [Template::new(0, 1, FRAME_LEN)?, Template::new(1, 0, FRAME_LEN)?];
    let mut samples = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    let (mut from, mut to, mut sequence) = (a, b, 0);
    while start.elapsed() < time {
        from.pair().send.reclaim().doing("taking back sent buffers")?;
        let frame = frames[sequence as usize % 2].stamp(sequence);
        let sent = Instant::now();
        if !from.pair().send.send(frame) {
            return Err(Error::new("a frame at a time does not fit the ring"));
        }
        from.pair().send.flush();
        wait_for_frame(to, sequence, sent)?;
        samples.push(sent.elapsed().as_nanos() as u64);
        (from, to, sequence) = (to, from, sequence + 1);
    }
    samples.sort_unstable();
    Ok(samples)
}

/// Polls until the frame of that number is there.
pub fn wait_for_frame(to: &mut Guest, sequence: u64, sent: Instant) -> Result<()> {
    let mut arrived = false;
    for turn in 1u32.. {
        to.pair().receive.receive(1, |frame| arrived = frame.stamp(SEQUENCE) == Some(sequence))?;
        if arrived {
            return Ok(());
        }
        if turn.is_multiple_of(1024) && sent.elapsed() > STALL_TIME {
            break;
        }
        std::hint::spin_loop();
    }
    Err(Error::new(format!("frame {sequence} did not arrive within {} s", STALL_TIME.as_secs())))
}

const FRAME_LEN: usize = 64;
const PERCENTILES: [usize; 2] = [50, 99];
const STALL_TIME: Duration = Duration::from_secs(2);

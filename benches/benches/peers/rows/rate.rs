//! Frames a second from guest to guest: a closed loop with as many frames under way as the receiver has buffers, each
//! ring slot with a buffer of its own.

use std::time::Duration;

use ringyard_benches::guest::Guest;
use ringyard_benches::load::{self, Round};
use ringyard_tests::error::Result;

use super::subject;
use crate::DRIVER_CORE;
use crate::contender::Contender;
use crate::pair::Pair;
use ringyard_benches::comparison::{Figure, Part, Series};
use ringyard_benches::pin::Pinned;

/// From the first guest to the second.
pub fn one_way(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    measure(contenders, RING_SIZE, rounds, "", load::measure)
}

/// The same with fewer and with more buffers.
pub fn pools(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for ring_size in POOLS {
        let what = format!(", {ring_size} buffers");
        parts.extend(measure(contenders, ring_size, rounds, &what, load::measure)?);
    }
    Ok(parts)
}

/// In both directions at once, the sum.
pub fn both_ways(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    measure(contenders, RING_SIZE, rounds, ", both ways at once", load::measure_both)
}

type Method = fn(&mut Guest, &mut Guest, usize, Duration) -> ringyard_tests::Result<Round>;

fn measure(
    contenders: &[Contender],
    ring_size: u16,
    rounds: usize,
    what: &str,
    method: Method,
) -> Result<Vec<Part>> {
    let start = |contender: &Contender| Pair::start(*contender, ring_size);
    let mut pairs = contenders.iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut parts = Vec::new();
    for frame_len in FRAME_LENS {
        let series = series(&mut pairs, rounds, |[a, b]| {
            let _pinned = Pinned::to(DRIVER_CORE)?;
            method(a, b, frame_len, WARM_UP)?;
            method(a, b, frame_len, ROUND_TIME)
        })?;
        let name = format!("{frame_len} B{what}, Mpps");
        parts.push(Part::Figure(Figure { name, digits: 2, subject: subject(contenders), series }));
    }
    Ok(parts)
}

/// Rounds of all pairs in turn.
pub fn series(
    pairs: &mut [Pair],
    rounds: usize,
    method: impl Fn([&mut Guest; 2]) -> Result<Round>,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = pairs.iter().map(|pair| Series::new(&pair.name)).collect();
    for _ in 0..rounds {
        for (pair, series) in pairs.iter_mut().zip(&mut all) {
            series.push_load(&pair.awake(&method)?);
        }
    }
    Ok(all)
}

/// Entries of every ring, and buffers.
pub const RING_SIZE: u16 = 1024;
const POOLS: [u16; 2] = [256, 4096];
const FRAME_LENS: [usize; 2] = [64, 1500];
pub const ROUND_TIME: Duration = Duration::from_millis(400);
/// After a process goes on, before it is measured.
pub const WARM_UP: Duration = Duration::from_millis(50);

//! What system calls cost a tap: one `read` or `writev` a frame, as the tap driver does, against io_uring with several
//! frames submitted by one enter, and with a kernel thread that looks for them by itself (SQPOLL). Run as root, since
//! taps in a network namespace of their own are made: `cargo bench -p ringyard-benches --bench tap_io`.
//!
//! Each round times every method once, in turns, on [`FRAMES`] frames at a time: what is compared is the median of the
//! rounds' ratios. Only the calls are timed, not how the tap was filled. What is written is for another host, so the
//! kernel drops it as soon as it has seen its header, and the rest of the kernel's work does not hide the calls.

#![allow(unsafe_code)] // io_uring, a packet socket and the ioctls of a tap

mod methods;
mod tap;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use methods::{Method, Uring};
use tap::{Kind, Source, Tap};

/// Frames of one sample, as many as the switch has in a burst.
const FRAMES: usize = 64;
/// Samples of one method in one round.
const SAMPLES: usize = 40;
const ROUNDS: usize = 9;
/// Frames of one enter.
const BATCHES: [usize; 3] = [8, 32, 64];
const KINDS: [Kind; 3] = [
    Kind { name: "64 B", len: 64, segment: 0 },
    Kind { name: "1500 B", len: 1500, segment: 0 },
    Kind { name: "64 KiB TSO", len: 54 + 44 * 1460, segment: 1460 },
];

fn main() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("tap_io makes taps and needs root: skipped");
        return Ok(());
    }
    // Of its own: interfaces are nobody else's, and are gone with the thread.
    let bench = thread::spawn(|| {
        // SAFETY: a new network namespace takes nothing away that this thread or another holds by reference.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        run()
    });
    bench.join().unwrap_or_else(|_| Err(io::Error::other("the bench panicked")))
}

fn run() -> io::Result<()> {
    let tap = Tap::open("t0")?;
    let mut methods = vec![Method::Calls];
    for batch in BATCHES {
        methods.push(Method::Uring(Box::new(Uring::new(&tap, batch, false)?)));
    }
    methods.push(Method::Uring(Box::new(Uring::new(&tap, FRAMES, true)?)));
    println!(
        "ns a frame, median of {ROUNDS} rounds; times faster than a call a frame: median (least to most)"
    );
    for kind in KINDS {
        let source = Source::open(&tap, kind)?;
        for direction in [Direction::Read, Direction::Write] {
            measure(&tap, &source, &mut methods, direction)?;
        }
    }
    Ok(())
}

/// Which way frames go.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Read,
    Write,
}

fn measure(tap: &Tap, source: &Source, methods: &mut [Method], direction: Direction) -> io::Result<()> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); methods.len()];
    for _ in 0..ROUNDS {
        for (method, times) in methods.iter_mut().zip(&mut times) {
            let mut time = Duration::ZERO;
            for _ in 0..SAMPLES {
                time += sample(tap, source, method, direction)?;
            }
            times.push(time.as_nanos() as f64 / (SAMPLES * FRAMES) as f64);
        }
    }
    for (method, own) in methods.iter().zip(&times) {
        let mut ratios: Vec<f64> = times[0].iter().zip(own).map(|(calls, own)| calls / own).collect();
        ratios.sort_by(f64::total_cmp);
        let mut sorted = own.clone();
        sorted.sort_by(f64::total_cmp);
        println!(
            "{:10} {direction:5?} {:12} {:8.0} ns  {:.2} ({:.2} to {:.2})",
            source.kind.name,
            method.name(),
            sorted[ROUNDS / 2],
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1],
        );
    }
    Ok(())
}

/// The time of [`FRAMES`] frames.
fn sample(tap: &Tap, source: &Source, method: &mut Method, direction: Direction) -> io::Result<Duration> {
    if matches!(direction, Direction::Read) {
        source.fill(FRAMES)?;
    }
    let start = Instant::now();
    match direction {
        Direction::Read => method.read(tap, FRAMES, source.record.len())?,
        Direction::Write => method.write(tap, FRAMES, &source.record)?,
    }
    Ok(start.elapsed())
}

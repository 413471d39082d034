//! Runs fuzz targets as plain tests: over the inputs that are kept in the crate's `fuzz/corpus`, then for a while over made
//! ones, each of which has a seed.
//!
//! A failure prints the input, its seed, and where it was put. `RINGYARD_SEED=SEED` makes that input again and runs it alone,
//! and `RINGYARD_INPUT=FILE` that file; `RINGYARD_SECONDS` says for how long inputs are made. Several crates have this file
//! among their tests.

#![allow(dead_code)] // not each of them needs all of it

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// How long made inputs are tried.
const SECONDS: u64 = 3;

/// Runs a target over the kept inputs, then over made ones until the time is up.
pub fn fuzz(name: &str, target: fn(&[u8]), make: fn(&mut Random) -> Vec<u8>) {
    fuzz_for(SECONDS, name, target, make);
}

/// The same, for another time.
pub fn fuzz_for(seconds: u64, name: &str, target: fn(&[u8]), make: fn(&mut Random) -> Vec<u8>) {
    if let Some(file) = env::var_os("RINGYARD_INPUT") {
        return attempt(
            name,
            target,
            &fs::read(&file).expect("RINGYARD_INPUT names a file"),
            "RINGYARD_INPUT",
        );
    }
    let made = |seed| {
        let input = make(&mut Random::new(seed));
        attempt(name, target, &input, &format!("RINGYARD_SEED={seed}"));
    };
    if let Some(seed) = number("RINGYARD_SEED") {
        return made(seed);
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    for entry in fs::read_dir(&corpus).expect("there is a corpus") {
        let path = entry.expect("the corpus can be listed").path();
        let input = fs::read(&path).expect("the corpus can be read");
        attempt(name, target, &input, &path.display().to_string());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = since.as_nanos() as u64;
    let end = Instant::now() + Duration::from_secs(number("RINGYARD_SECONDS").unwrap_or(seconds));
    let mut inputs = 0;
    while Instant::now() < end {
        made(first.wrapping_add(inputs));
        inputs += 1;
    }
    println!("{name}: {inputs} inputs from seed {first}");
}

/// Runs a target; if it fails, leaves the input behind.
fn attempt(name: &str, target: fn(&[u8]), input: &[u8], origin: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) else { return };
    let path = env::temp_dir().join(format!("fuzz-{name}"));
    let kept = fs::write(&path, input);
    eprintln!("the input is {}", input.escape_ascii());
    eprintln!("again: {origin}, or RINGYARD_INPUT={} ({kept:?})", path.display());
    resume_unwind(panic);
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A generator of numbers that the same seed always begins the same way, and no other seed (splitmix64).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 33) as usize) % end
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        (self.next() >> 40) as u8
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }
}

//! Runs fuzz targets as plain tests, for a while from a seed, and over the inputs that are kept in the crate's `fuzz/corpus`.
//!
//! A failure prints the input and where it was put. `FUZZ_INPUT=FILE` runs that file alone; `FUZZ_SEED` and `FUZZ_SECONDS`
//! choose what is tried and for how long. Several crates have this file among their tests.

#![allow(dead_code)] // not each of them needs all of it

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// How long made inputs are tried.
const SECONDS: u64 = 3;

/// Runs a target over the kept inputs, then over made ones until the time is up.
pub fn fuzz(name: &str, target: fn(&[u8]), make: fn(&mut Random) -> Vec<u8>) {
    if let Some(file) = env::var_os("FUZZ_INPUT") {
        return attempt(name, target, &fs::read(&file).expect("FUZZ_INPUT names a file"), "of FUZZ_INPUT");
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    for entry in fs::read_dir(&corpus).expect("there is a corpus") {
        let path = entry.expect("the corpus can be listed").path();
        let input = fs::read(&path).expect("the corpus can be read");
        attempt(name, target, &input, &path.display().to_string());
    }
    let seed = number("FUZZ_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    });
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(SECONDS));
    let mut random = Random::new(seed);
    let mut inputs = 0;
    while Instant::now() < end {
        attempt(name, target, &make(&mut random), &format!("number {inputs} of FUZZ_SEED={seed}"));
        inputs += 1;
    }
    println!("{name}: {inputs} inputs of seed {seed}");
}

/// Runs a target; if it fails, leaves the input behind.
fn attempt(name: &str, target: fn(&[u8]), input: &[u8], origin: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) else { return };
    let path = env::temp_dir().join(format!("fuzz-{name}"));
    let kept = fs::write(&path, input);
    eprintln!("the input, {origin}, is {}", input.escape_ascii());
    eprintln!("again: FUZZ_INPUT={} ({kept:?})", path.display());
    resume_unwind(panic);
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A generator of numbers that the same seed always begins the same way (xorshift64*).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
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

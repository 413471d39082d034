//! The fuzz targets, run for a while from a seed, and over the inputs that are kept in `control/fuzz/corpus`.
//!
//! A failure prints the input and where it was put. `FUZZ_INPUT=FILE` runs that file alone; `FUZZ_SEED` and `FUZZ_SECONDS`
//! choose what is tried and for how long. The same targets run under libFuzzer from `control/fuzz` (`tests/fuzz`).

mod commands;
mod protocol;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use random::Random;

#[test]
fn no_bytes_lead_the_protocol_astray() {
    fuzz("protocol", protocol::run, random::protocol);
}

#[test]
fn commands_in_any_order_do_what_they_promise() {
    fuzz("commands", commands::run, random::commands);
}

/// Runs a target over the kept inputs, then over made ones until the time is up.
fn fuzz(name: &str, target: fn(&[u8]), make: fn(&mut Random) -> Vec<u8>) {
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
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let kept = fs::write(&path, input);
    eprintln!("the input, {origin}, is {}", input.escape_ascii());
    eprintln!("again: FUZZ_INPUT={} ({kept:?})", path.display());
    resume_unwind(panic);
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// How long made inputs are tried.
const SECONDS: u64 = 10;

//! The vhost-user session under a front end that does anything: valid things, lies, and sudden ends, in any order.
//!
//! What it does is decided by bytes alone, made from a seed, so that a failure comes again: it prints the seed, and
//! `RINGYARD_SEED=SEED` tries that one and no other. `RINGYARD_SECONDS` says how long seeds are tried. A process of its own,
//! because a session must leave no descriptor behind, and these are counted. The same [`session`] runs under libFuzzer from
//! `drivers/fuzz` (`tests/fuzz`).

#[path = "../vhost_user/guest.rs"]
#[allow(dead_code)] // the other test target's
mod guest;
#[path = "../vhost_user/raw.rs"]
#[allow(dead_code)] // as above
mod raw;
mod session;
#[path = "../vhost_user/yard.rs"]
#[allow(dead_code)] // as above
mod yard;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long seeds are tried.
const SECONDS: u64 = 10;
/// Bytes of an input, at most.
const INPUT_MAX: u64 = 400;

#[test]
fn whatever_a_front_end_does_is_answered_as_the_model_says_and_harms_nobody() {
    if let Some(seed) = number("RINGYARD_SEED") {
        return attempt(seed);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = now.as_nanos() as u64;
    let end = Instant::now() + Duration::from_secs(number("RINGYARD_SECONDS").unwrap_or(SECONDS));
    let mut tried = 0;
    while Instant::now() < end {
        attempt(first.wrapping_add(tried));
        tried += 1;
    }
    println!("{tried} front ends, {} steps, from seed {first}", session::steps());
}

fn attempt(seed: u64) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| session::run(&input(seed)))) else { return };
    eprintln!("again: RINGYARD_SEED={seed}");
    resume_unwind(panic);
}

/// Bytes that the same seed always makes (splitmix64).
fn input(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let len = next() % INPUT_MAX;
    (0..len).map(|_| next() as u8).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

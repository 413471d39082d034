//! The vhost-user session under a front end that does anything: valid things, lies, and sudden ends, in any order.
//!
//! What it does is decided by bytes alone, made from a seed, so that a failure comes again: it prints the seed, and
//! `RINGYARD_SEED=SEED` tries that one and no other ([`harness`]). A process of its own, because a session must leave no
//! descriptor behind, and these are counted. The same [`session`] runs under libFuzzer from `drivers/fuzz` (`tests/fuzz`).

mod garble;
#[path = "../vhost_user/guest.rs"]
#[allow(dead_code)] // the other test target's
mod guest;
#[path = "../../../dataplane/tests/fuzz/harness.rs"]
mod harness;
mod keeping;
#[path = "../vhost_user/raw.rs"]
#[allow(dead_code)] // as above
mod raw;
mod session;
#[path = "../vhost_user/yard.rs"]
#[allow(dead_code)] // as above
mod yard;

use std::sync::{Mutex, PoisonError};

use harness::{Random, fuzz_for};

/// One at a time: each counts the descriptors of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn whatever_a_front_end_does_is_answered_as_the_model_says_and_harms_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fuzz_for(10, "session", session::run, bytes);
    println!("{} steps", session::steps());
}

#[test]
fn whatever_a_switch_left_behind_is_gone_on_with_or_ended_and_harms_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fuzz_for(5, "restart", session::successor::run, bytes);
}

fn bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(400)).map(|_| random.byte()).collect()
}

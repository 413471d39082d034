//! Waiting for a condition, never for a time: a deadline, and a loop that asks until it has its answer or the deadline
//! has passed.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The moment after which waiting fails.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `within` from now.
    pub fn after(within: Duration) -> Deadline {
        Deadline(Instant::now() + within)
    }

    /// What is left; `None` when it has passed.
    pub fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// Asks `condition` until it yields a value. Fails when it fails, or after `within` with an error that names `what`.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if deadline.remaining().is_none() {
            return Err(Error::new(format!("waited {within:?} in vain for {what}")));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(5);

//! Memory files that lose their pages while the device uses them: P08.

use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use crate::error::{Doing, Error, Result};
use crate::hostile::attacker::{Attacker, PROBE_TIME_MAX, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::Innocents;
use crate::hostile::memory::{LEN, TABLES};
use crate::hostile::wire::Answer;

/// Truncations in a row.
const ROUNDS: usize = 1000;
/// How long the device may take to be rid of such a front end.
const QUARANTINE_TIME_MAX: Duration = Duration::from_millis(50);
/// What the number of those is called for which it took longer.
const LATE: &str = "quarantined after more than 50 ms";
/// How long it is waited for at all.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn files(bout: &mut Bout<'_>) -> Result<()> {
    bout.on_both("a file that was sealed, or not", |attacker, _| {
        // Who seals the file cannot be attacked. Of one that shrank, our own mapping is not touched again.
        match ftruncate(attacker.memory.file(), 0) {
            Err(_) => Ok(Tell::Handled),
            Ok(()) => {
                attacker.kick(TX);
                grow_again(attacker)
            }
        }
    })?;
    bout.on_both("a hole in the file", |attacker, _| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(attacker.memory.file(), flags, TABLES, LEN - TABLES).doing("punching a hole")?;
        let frame = crate::hostile::ring::Desc::read(TABLES + 0x1000, 100);
        attacker.post(&[frame]);
        Ok(Tell::Posted)
    })?;
    let socket = bout.arena.attackers_socket().to_owned();
    let forms = bout.forms();
    let mut times = Vec::with_capacity(ROUNDS);
    bout.input(&format!("{ROUNDS} times in a row"), Setup::SPLIT, |attacker, innocents| {
        // Only one at a time is served.
        let _ = attacker.wire.socket.shutdown(std::net::Shutdown::Both);
        for round in 0..ROUNDS {
            let setup = Setup { packed: forms[round % forms.len()], shrinks: true, ..Setup::SPLIT };
            let mut next = Attacker::plug(&socket, setup).doing(format!("attack {round}"))?;
            times.push(truncated(&mut next, innocents, round)?);
            innocents.exchange(4)?;
        }
        Ok(Tell::Took(Answer::Closed))
    })?;
    times.sort();
    if let (Some(longest), Some(median)) = (times.last(), times.get(times.len() / 2)) {
        let late = times.iter().filter(|time| **time > QUARANTINE_TIME_MAX).count();
        bout.figure("truncated files", times.len() as f64, "in a row");
        bout.figure("quarantined after, in the median", median.as_secs_f64() * 1e3, "ms");
        bout.figure("quarantined after, at most", longest.as_secs_f64() * 1e3, "ms");
        bout.figure(LATE, late as f64, "times");
    }
    Ok(())
}

/// Takes an attacker's memory away in one of four ways; how long the device took to be rid of it.
fn truncated(attacker: &mut Attacker, innocents: &Innocents, round: usize) -> Result<Duration> {
    let frame = attacker.attack_frame(0);
    attacker.post(&[frame]);
    attacker.show(TX);
    attacker.wait(TX, PROBE_TIME_MAX);
    // All of it, or all but the rings.
    let left = if round.is_multiple_of(2) { 0 } else { TABLES };
    ftruncate(attacker.memory.file(), left).doing("truncating a file")?;
    let began = Instant::now();
    if round % 4 < 2 {
        if left > 0 {
            attacker.post(&[frame]);
            attacker.rings[TX].publish();
        }
        attacker.kick(TX);
    } else {
        innocents.call(1);
    }
    if attacker.wire.is_closed_within(PATIENCE) {
        return Ok(began.elapsed());
    }
    Err(Error::new(format!("after {} s the port still had memory that is not there", PATIENCE.as_secs())))
}

/// So that what looks at the memory later is not hurt itself.
fn grow_again(attacker: &Attacker) -> Result<Tell> {
    attacker.wire.is_closed_within(PATIENCE);
    ftruncate(attacker.memory.file(), 0x38_0000).doing("growing a file")?;
    Ok(Tell::Stopped)
}

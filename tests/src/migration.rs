//! Guests that move from one QEMU to another, and their memory on both sides.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::{Deadline, wait_for};
use crate::error::{Doing, Error, Result};
use crate::guest::Guest;
use crate::qmp::Qmp;

/// A guest that has moved.
pub struct Moved {
    /// When the source stopped it, in seconds since 1970.
    pub stopped_at: f64,
    /// What QEMU says of the migration.
    pub figures: Value,
}

impl Guest {
    /// Moves the guest to `destination`, which waits for it at `socket`, and returns when it is there. This one stays,
    /// stopped.
    ///
    /// QEMU goes once over the memory, and is held just before its end. What is written into buffers that the guest posted
    /// before is then known by the dirty log alone: whatever else keeps track, of what the guest itself writes, knows
    /// nothing of it, and the page has been copied. Not twice: of what its emulator's guest writes between two passes,
    /// QEMU 7.2 misses some.
    pub fn move_to(&mut self, destination: &mut Guest, socket: &std::path::Path) -> Result<Moved> {
        // Who answers has begun to listen.
        let mut arrived = destination.monitor()?;
        run_state(&mut arrived)?;
        let mut monitor = self.monitor()?;
        let uri = format!("unix:{}", socket.display());
        pace(&mut monitor, &FAST_TO_NO_END)?;
        monitor.execute("migrate", json!({"uri": uri})).doing("starting a migration")?;
        let mut held = None;
        let figures = wait_for("the end of a migration", MOVE_TIME_MAX, || {
            let figures = monitor.execute("query-migrate", json!({})).doing("asking after a migration")?;
            let remaining = figures["ram"]["remaining"].as_u64().unwrap_or_default();
            match held {
                None if (1..HELD_AT).contains(&remaining) => {
                    pace(&mut monitor, &SLOW_TO_NO_END)?;
                    held = Some(Deadline::after(HELD_FOR));
                }
                Some(until) if until.remaining().is_none() => pace(&mut monitor, &FAST_TO_AN_END)?,
                _ => {}
            }
            match figures["status"].as_str() {
                Some("completed") => Ok(Some(figures)),
                Some("failed" | "cancelled") => {
                    Err(Error::new(format!("the migration failed: {figures}; {}", destination.log())))
                }
                _ => Ok(None),
            }
        })?;
        let stopped = monitor.wait_event("STOP", MOVE_TIME_MAX)?;
        wait_for("the guest's arrival", MOVE_TIME_MAX, || {
            let status = run_state(&mut arrived)?;
            Ok(["running", "paused"].contains(&&*status).then_some(()))
        })?;
        destination.take_over_from(self);
        Ok(Moved { stopped_at: time_of(&stopped), figures })
    }

    /// Lets a guest that has come and was kept paused go on; when that was, in seconds since 1970.
    pub fn resume(&mut self) -> Result<f64> {
        let mut monitor = self.monitor()?;
        monitor.execute("cont", json!({})).doing("letting a guest go on")?;
        Ok(time_of(&monitor.wait_event("RESUME", MOVE_TIME_MAX)?))
    }

    /// Its memory file.
    pub fn memory(&self) -> Result<File> {
        let directory = format!("/proc/{}/fd", self.process_id());
        for entry in fs::read_dir(&directory).doing(format!("listing {directory}"))? {
            let path = entry.doing(format!("listing {directory}"))?.path();
            if fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains(MEMORY_FILE)) {
                return File::open(&path).doing("opening a guest's memory");
            }
        }
        Err(Error::new(format!("no memory file in {directory}")))
    }
}

/// Bytes a second, and how long the guest may be away: QEMU stops it when it can copy the rest in that time.
struct Pace {
    bandwidth: u64,
    downtime_ms: u64,
}

fn pace(monitor: &mut Qmp, Pace { bandwidth, downtime_ms }: &Pace) -> Result<()> {
    let parameters = json!({"max-bandwidth": bandwidth, "downtime-limit": downtime_ms});
    monitor.execute("migrate-set-parameters", parameters).doing("setting a migration's pace").map(drop)
}

fn run_state(monitor: &mut Qmp) -> Result<String> {
    let status = monitor.execute("query-status", json!({})).doing("asking for a guest's state")?;
    Ok(status["status"].as_str().unwrap_or_default().into())
}

fn time_of(event: &Value) -> f64 {
    let part = |name: &str| event["timestamp"][name].as_f64().unwrap_or_default();
    part("seconds") + part("microseconds") / 1e6
}

/// Two memories, compared page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Pages.
    pub pages: usize,
    /// Those that are not all zeros.
    pub used: usize,
    /// Where those begin that differ.
    pub different: Vec<u64>,
}

/// Compares two guests' memories.
pub fn compare(left: &File, right: &File) -> Result<Comparison> {
    let len =
        |file: &File| file.metadata().map(|metadata| metadata.len()).doing("measuring a guest's memory");
    let (len, other_len) = (len(left)?, len(right)?);
    if len != other_len || !len.is_multiple_of(CHUNK as u64) {
        return Err(Error::new(format!("memories of {len} and {other_len} bytes")));
    }
    let mut comparison = Comparison::default();
    let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
    for at in (0..len).step_by(CHUNK) {
        left.read_exact_at(&mut here, at).doing("reading a guest's memory")?;
        right.read_exact_at(&mut there, at).doing("reading a guest's memory")?;
        for (page, (here, there)) in here.chunks(PAGE).zip(there.chunks(PAGE)).enumerate() {
            comparison.pages += 1;
            comparison.used += usize::from(here != ZEROS);
            if here != there {
                comparison.different.push(at + (page * PAGE) as u64);
            }
        }
    }
    Ok(comparison)
}

/// What QEMU can copy in the time that the guest may be away is less than what is left when it is held.
const FAST_TO_NO_END: Pace = Pace { bandwidth: 100 << 20, downtime_ms: 1 };
const SLOW_TO_NO_END: Pace = Pace { bandwidth: 1 << 20, downtime_ms: 1 };
/// As QEMU has it.
const FAST_TO_AN_END: Pace = Pace { bandwidth: 128 << 20, downtime_ms: 300 };
/// Bytes that are left when QEMU is held.
const HELD_AT: u64 = 10 << 20;
const HELD_FOR: Duration = Duration::from_secs(1);
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
/// What a memory file of `memory-backend-memfd` is called.
const MEMORY_FILE: &str = "memory-backend-memfd";
/// A guest of 256 MiB moves in a second or two on an idle machine.
const MOVE_TIME_MAX: Duration = Duration::from_secs(60);

//! A switch at work that can be stopped, so that it costs nothing while another one is measured.

use crate::error::{Doing, Error, Result};
use crate::process::Process;
use crate::switch::Switch;
use std::time::Duration;

use ringyard_benches::floor::Floor;
use ringyard_benches::interrupt;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Ends when it is dropped.
pub enum Running {
    /// ringyard; its books are checked at the end.
    Ringyard(Box<Switch>),
    /// Other programs.
    Programs {
        /// All of them.
        processes: Vec<Process>,
        /// Their files.
        directory: TempDir,
    },
    /// A thread of this process.
    Floor(Floor),
    /// The kernel, which forwards only what is sent.
    Kernel,
}

impl Running {
    /// Lets it run while `work` is done, and stops it again.
    pub fn awake<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        interrupt::check()?;
        self.set_paused(false)?;
        let result = work();
        self.set_paused(true)?;
        result
    }

    /// The last lines that its programs wrote, for errors.
    pub fn last_words(&self) -> String {
        let Running::Programs { processes, .. } = self else { return String::new() };
        let last = |process: &Process| {
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        processes.iter().map(last).collect()
    }

    /// The time that it has had a core so far; `None` for what is no process.
    pub fn cpu_time(&self) -> Result<Option<Duration>> {
        let time = |process: &Process| process.cpu_time("");
        match self {
            Running::Ringyard(switch) => time(switch.process()).map(Some),
            Running::Programs { processes, .. } => processes.iter().map(time).sum::<Result<_>>().map(Some),
            Running::Floor(_) | Running::Kernel => Ok(None),
        }
    }

    /// Stops it with all its threads, or lets it go on.
    pub fn set_paused(&mut self, paused: bool) -> Result<()> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        match self {
            Running::Ringyard(switch) => send(switch.process(), signal),
            Running::Programs { processes, .. } => processes.iter_mut().try_for_each(|process| {
                // A peer that has ended must not pass for one that loses everything.
                process.expect_running()?;
                send(process, signal)
            }),
            Running::Floor(floor) => floor.set_paused(paused),
            Running::Kernel => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What is stopped can neither end in order nor answer; what has ended needs neither.
        let _ = self.set_paused(false);
    }
}

fn send(process: &Process, signal: Signal) -> Result<()> {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    let id = id.ok_or_else(|| Error::new(format!("{} is no process id", process.id())))?;
    kill_process(id, signal).doing(format!("sending {signal:?} to process {}", process.id()))
}

/// Lines of a program's log in an error.
const LOG_LINES: usize = 40;

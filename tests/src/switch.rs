//! The switch under test, as a user runs it: the binary in a process of its own, with a monitor in a temporary
//! directory. However a test ends it, the books must balance first.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deadline::wait_for;
use crate::error::{Doing, Error, Result};
use crate::netns::Netns;
use crate::process::{Process, command};
use crate::qmp::Qmp;
use crate::stats::Stats;
use crate::tools;

/// A running switch. Dropping it checks the books and fails the test if they do not balance or the switch does not end.
pub struct Switch {
    process: Process,
    qmp: Qmp,
    directory: TempDir,
    finished: bool,
    may_be_refused: bool,
}

impl Switch {
    /// Starts `ringyard run -qmp … ARGS` in a new directory, which is its working directory, and waits until its
    /// monitor answers.
    pub fn start(args: &[&str]) -> Result<Switch> {
        Switch::start_as(command(tools::switch_binary()?)?, args)
    }

    /// As [`Switch::start`], in a network namespace: its sockets and interfaces are there.
    pub fn start_in(netns: &Netns, args: &[&str]) -> Result<Switch> {
        let binary = tools::switch_binary()?.display().to_string();
        Switch::start_as(netns.command(&binary)?, args)
    }

    /// As [`Switch::start`], by `launcher`: a command that puts itself somewhere and becomes the program that its further
    /// arguments name.
    pub fn start_by(mut launcher: Command, args: &[&str]) -> Result<Switch> {
        launcher.arg(tools::switch_binary()?);
        Switch::start_as(launcher, args)
    }

    fn start_as(mut ringyard: Command, args: &[&str]) -> Result<Switch> {
        let directory = tempfile::tempdir().doing("making the switch's directory")?;
        let monitor = directory.path().join(MONITOR);
        ringyard.current_dir(directory.path());
        ringyard.args(["run", "-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]).args(args);
        let mut process = Process::start("ringyard", ringyard, directory.path())?;
        wait_for("the switch's monitor", START_TIME_MAX, || {
            process.expect_running()?;
            Ok(monitor.exists().then_some(()))
        })?;
        let qmp = Qmp::connect(&monitor, START_TIME_MAX).map_err(|error| with_log(error, &process))?;
        Ok(Switch { process, qmp, directory, finished: false, may_be_refused: false })
    }

    /// Kills the switch under its keeper (SIGKILL), which starts another one; the process that was killed.
    pub fn kill_under_keeper(&mut self) -> Result<u32> {
        let process = self.kept()?;
        kill_process(process, Signal::KILL).doing("killing the switch")?;
        Ok(process.as_raw_nonzero().get().unsigned_abs())
    }

    /// Connects to the monitor again, which a switch that was killed did not hang up.
    pub fn reconnect(&mut self) -> Result<()> {
        let connected = Qmp::connect(&self.monitor(), START_TIME_MAX);
        self.qmp = connected.map_err(|error| with_log(error, &self.process))?;
        Ok(())
    }

    /// The switch's monitor, as its first client.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The monitor's socket, for further clients.
    pub fn monitor(&self) -> PathBuf {
        self.path(MONITOR)
    }

    /// A path in the switch's directory, for sockets.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The switch's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process that forwards, of a switch that was started with `--keep`.
    pub fn kept(&self) -> Result<Pid> {
        let id = self.process.id();
        let children = format!("/proc/{id}/task/{id}/children");
        wait_for("the keeper's child", START_TIME_MAX, || {
            let text = fs::read_to_string(&children).doing(format!("reading {children}"))?;
            let child = text.split_whitespace().next().and_then(|id| id.parse().ok());
            Ok(child.and_then(Pid::from_raw))
        })
    }

    /// The counters now; of many ports not all at one moment.
    pub fn stats(&mut self) -> Result<Stats> {
        let mut stats = self.page_of_stats(json!({"limit": PAGE}))?;
        let mut more = stats.more;
        while more {
            let last = stats.ports.last().map(|port| port.name.clone());
            let page = self.page_of_stats(json!({"after": last, "limit": PAGE}))?;
            (stats.retired, stats.workers, more) = (page.retired, page.workers, page.more);
            stats.ports.extend(page.ports);
        }
        Ok(stats)
    }

    fn page_of_stats(&mut self, arguments: Value) -> Result<Stats> {
        let answer = self.qmp.execute("x-query-stats", arguments).doing("asking for the counters")?;
        serde_json::from_value(answer.clone()).doing(format!("reading the counters {answer}"))
    }

    /// What `info network` says behind a netdev's name.
    pub fn info(&mut self, name: &str) -> Result<String> {
        let command = json!({"command-line": "info network"});
        let text = self.qmp.execute("human-monitor-command", command).doing("asking for info network")?;
        let prefix = format!("{name}: ");
        let mut lines = text.as_str().unwrap_or_default().lines();
        let line = lines.find_map(|line| line.split_once(&prefix).map(|(_, rest)| rest.to_owned()));
        line.ok_or_else(|| Error::new(format!("no line of {name} in {text}")))
    }

    /// Waits until `condition` holds for the counters, which it returns; `what` names it in the error.
    pub fn wait_stats(
        &mut self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Stats) -> bool,
    ) -> Result<Stats> {
        let mut last = None;
        let waited = wait_for(what, within, || {
            let stats = self.stats()?;
            let holds = condition(&stats);
            last = Some(stats.clone());
            Ok(holds.then_some(stats))
        });
        waited.map_err(|error| with_log(Error::new(format!("{error}; last: {last:#?}")), &self.process))
    }

    /// Waits until the port of that name has a carrier.
    pub fn wait_carrier(&mut self, port: &str, within: Duration) -> Result<Stats> {
        self.wait_stats(&format!("the carrier of {port}"), within, |stats| {
            stats.port(port).is_some_and(|port| port.carrier)
        })
    }

    /// It is going to be refused what its sandbox does not permit.
    pub fn expect_refusals(&mut self) {
        self.may_be_refused = true;
    }

    /// Leaves it to itself, of whom nobody can ask anything any more.
    pub fn abandon(mut self) {
        self.finished = true;
    }

    /// Checks the books, ends the switch with SIGTERM and checks that it ended well.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    /// Kills the switch; nothing of it is checked.
    pub fn kill(mut self) -> Result<()> {
        self.finished = true;
        self.process.kill().map(drop)
    }

    fn end(&mut self) -> Result<()> {
        self.finished = true;
        // Traffic may still run, and the counters are not read at one moment: the books must balance within a time.
        let mut imbalances = Vec::new();
        let balanced = wait_for("the books to balance", SETTLE_TIME_MAX, || {
            imbalances = self.stats()?.imbalances();
            Ok(imbalances.is_empty().then_some(()))
        });
        balanced.map_err(|error| {
            with_log(Error::new(format!("{error}: {}", imbalances.join("; "))), &self.process)
        })?;
        let status = self.process.terminate(END_TIME_MAX).map_err(|error| with_log(error, &self.process))?;
        if !status.success() {
            return Err(with_log(Error::new(format!("the switch ended with {status}")), &self.process));
        }
        if !self.may_be_refused && self.process.log().contains(REFUSED) {
            return Err(with_log(Error::new("the sandbox refused what the switch needs"), &self.process));
        }
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the switch's log:\n{}", self.process.log());
            self.kill_all();
        } else if !self.finished
            && let Err(error) = self.end()
        {
            panic!("{error}");
        }
    }
}

impl Switch {
    /// A keeper's child outlives it.
    fn kill_all(&mut self) {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let _ = self.process.kill();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

fn with_log(error: Error, process: &Process) -> Error {
    Error::new(format!("{error}\nthe switch's log:\n{}", process.log()))
}

/// What the log says of a call that the sandbox does not permit.
const REFUSED: &str = "the sandbox does not permit";
const MONITOR: &str = "monitor.sock";
/// Ports asked for at a time.
const PAGE: usize = 250;
/// From start to an answering monitor.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// From the last frame to balanced books.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(2);
/// From SIGTERM to the end.
const END_TIME_MAX: Duration = Duration::from_secs(5);

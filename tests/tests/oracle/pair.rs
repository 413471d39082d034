//! A QEMU and a switch of ours, each in a network of its own that looks the same, and in a directory of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::Netns;
use ringyard_tests::process::{Process, command};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::tools;
use serde_json::Value;
use tempfile::TempDir;

use crate::answer::{Answer, View};
use crate::comparison::human;

/// The two that are compared.
pub struct Pair {
    pub qemu: Side,
    pub ours: Side,
}

/// One of them, at the end of one connection to its monitor.
pub struct Side {
    qmp: Qmp,
    said: u32,
    shortened: String,
    // Ended in this order.
    process: Process,
    directory: TempDir,
    _network: Netns,
}

impl Pair {
    /// Starts both without any object.
    pub fn start() -> Result<Pair> {
        Pair::start_with(&["-machine", "none"], &[])
    }

    /// Starts both with further options, each with its own.
    pub fn start_with(qemu_options: &[&str], our_options: &[&str]) -> Result<Pair> {
        // What is missing here shall be said in these words, not in those of the namespace's.
        command("qemu-system-x86_64")?;
        let qemu = Side::start("qemu-system-x86_64", |qemu| {
            qemu.args(["-nodefaults", "-display", "none"]).args(qemu_options);
        })?;
        let ringyard = tools::switch_binary()?.display().to_string();
        let ours = Side::start(&ringyard, |ringyard| {
            ringyard.arg("run").args(our_options);
        })?;
        Ok(Pair { qemu, ours })
    }
}

impl Side {
    fn start(program: &str, arguments: impl FnOnce(&mut Command)) -> Result<Side> {
        let network = network()?;
        let directory = tempfile::tempdir().doing("making a directory")?;
        let mut command = network.command(program)?;
        command.current_dir(directory.path());
        arguments(&mut command);
        command.args(["-qmp", &format!("unix:{MONITOR},server=on,wait=off")]);
        let mut process = Process::start("log", command, directory.path())?;
        let monitor = directory.path().join(MONITOR);
        let qmp = wait_for("the monitor", START_TIME_MAX, || {
            process.expect_running()?;
            // An early client of QEMU may hear that it runs before it is greeted; the next one is greeted.
            Ok(monitor.exists().then(|| Qmp::connect(&monitor, PATIENCE).ok()).flatten())
        })?;
        Ok(Side { qmp, said: 0, shortened: String::new(), process, directory, _network: network })
    }

    /// Where it runs: relative paths begin here.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process, to see it end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Leaves, and comes back as a client that is greeted but has yet to negotiate.
    pub fn reconnect(&mut self) -> Result<()> {
        // QEMU greets a client when the one before has left.
        let monitor = self.directory.path().join(MONITOR);
        let next = std::thread::spawn(move || Qmp::connect_raw(&monitor, PATIENCE));
        self.qmp.hang_up()?;
        self.qmp = next.join().map_err(|_| Error::new("the connecting thread panicked"))??;
        Ok(())
    }

    /// Says something and returns all that is answered before the next request is, events apart.
    pub fn ask(&mut self, input: &[u8], fds: &[OwnedFd]) -> Result<Vec<Answer>> {
        self.said += 1;
        let end = format!("oracle-{}", self.said);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.qmp.send_raw_with_fds(input, &fds)?;
        self.qmp.send_raw(format!("{{\"execute\": \"query-name\", \"id\": \"{end}\"}}").as_bytes())?;
        let mut answers: Vec<Answer> = Vec::new();
        loop {
            let answer = self.receive().map_err(|error| {
                let heard: Vec<String> = answers.iter().map(|answer| answer.text(View::Values)).collect();
                Error::new(format!("{error}; heard before: {heard:?}"))
            })?;
            match answer {
                answer if answer.has_id(&end) => return Ok(answers),
                event if event.is_event() => {}
                answer => answers.push(answer),
            }
        }
    }

    /// The lines of `info network` in which a name stands.
    pub fn lines_of(&mut self, name: &str) -> Result<Vec<String>> {
        let answers = self.ask(human("info network").as_bytes(), &[])?;
        let text: String = answers.iter().map(|answer| answer.text(View::Values)).collect();
        let lines = text.trim_start_matches("return \"").split("\\r\\n");
        Ok(lines.filter(|line| line.contains(name)).map(str::to_owned).collect())
    }

    /// From now on reads 0 in place of this text.
    pub fn shorten(&mut self, text: &str) {
        self.shortened = text.to_owned();
    }

    /// Says something without waiting for anything.
    pub fn send(&mut self, input: &[u8]) -> Result<()> {
        self.qmp.send_raw(input)
    }

    /// The next line, whatever it is.
    pub fn receive(&mut self) -> Result<Answer> {
        let line = self.receive_line()?;
        if self.shortened.is_empty() {
            return Answer::read(&line);
        }
        Answer::read(String::from_utf8_lossy(&line).replace(&self.shortened, "0").as_bytes())
    }

    /// The next line as it came.
    pub fn receive_line(&mut self) -> Result<Vec<u8>> {
        self.qmp.receive_line(PATIENCE)
    }

    /// What it said first.
    pub fn greeting(&self) -> &Value {
        self.qmp.greeting()
    }
}

/// A network with an interface `v0`, which has the address 10.0.0.1 and the route to all groups.
fn network() -> Result<Netns> {
    let netns = Netns::new()?;
    netns.ip("link add v0 type veth peer name v1")?;
    netns.bring_up("v1", &[])?;
    netns.bring_up("v0", &["10.0.0.1/24"])?;
    netns.ip("route add 224.0.0.0/4 dev v0")?;
    Ok(netns)
}

const MONITOR: &str = "qmp.sock";
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

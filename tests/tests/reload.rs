//! The configuration changed while frames flow: by SIGHUP and over the monitor. Whoever is not touched loses nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::plug::unique_interface;
use ringyard_tests::process::{Process, command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result, tools};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Frames a second of the flow; far from what the switch can do, so that every loss is ours.
const RATE: u32 = 3000;
/// From a signal to what comes of it.
const SIGNAL_TIME_MAX: Duration = Duration::from_secs(10);

/// A configuration file, and names that are free in this machine.
struct Yard {
    directory: TempDir,
    taps: [String; 3],
}

impl Yard {
    fn new() -> Result<Yard> {
        let directory = tempfile::tempdir().doing("making a directory")?;
        Ok(Yard { directory, taps: [(); 3].map(|()| unique_interface()) })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("yard.toml")
    }

    /// Writes a file with the taps of the flow on hub 0, and `more`.
    fn write(&self, more: &str) -> Result<()> {
        let text = format!("{}{}{more}", tap("t0", &self.taps[0], 0), tap("t1", &self.taps[1], 0));
        fs::write(self.file(), text).doing("writing the configuration")
    }

    fn start(&self, options: &[&str]) -> Result<Switch> {
        let file = self.file().display().to_string();
        Switch::start(&[&["-c", &file], options].concat())
    }

    /// A numbered flow from the first tap to the second.
    fn flow(&self, hosts: &[Netns; 2]) -> Result<Flow> {
        for (host, name) in hosts.iter().zip(&self.taps) {
            host.adopt(name)?;
            host.bring_up(name, &[])?;
        }
        let config = FlowConfig {
            destination: hosts[1].mac(&self.taps[1])?,
            source: hosts[0].mac(&self.taps[0])?,
            length: 200,
            rate: RATE,
        };
        let sockets =
            (PacketSocket::open(&hosts[0], &self.taps[0])?, PacketSocket::open(&hosts[1], &self.taps[1])?);
        Ok(Flow::start(sockets.0, sockets.1, config))
    }

    /// What is beside the flow in round `round`: objects that come, go, change and stay.
    fn others(&self, round: u32) -> String {
        let place = self.directory.path().display();
        let hub = round % 3;
        let mut text = format!(
            "[switch]\nname = 'round {round}'\n[[hub]]\nid = 7\nlearning = {}\n\
             [[chardev]]\ntype = 'socket'\nid = 'c'\npath = '{place}/vm{}'\nserver = true\n\
             [[netdev]]\ntype = 'vhost-user'\nid = 'n'\nchardev = 'c'\n\
             [[nic]]\nid = 'g'\nnetdev = 'n'\nmacaddr = '52:54:00:00:00:{:02x}'\n\
             [[netdev]]\ntype = 'hubport'\nid = 'p'\nhubid = {hub}\nnetdev = 'n'\n",
            round.is_multiple_of(2),
            round / 4 % 2,
            round % 100,
        );
        if round.is_multiple_of(2) {
            let number = round % 4;
            text += &format!(
                "[[netdev]]\ntype = 'stream'\nid = 's{number}'\nserver = true\n\
                 addr = {{ type = 'unix', path = '{place}/s' }}\n\
                 [[netdev]]\ntype = 'hubport'\nid = 'h{number}'\nhubid = 0\nnetdev = 's{number}'\n"
            );
        }
        // The same interface with other members: it goes before it comes.
        let sndbuf = if round.is_multiple_of(5) { "sndbuf = 100000\n" } else { "" };
        text + &tap("t2", &self.taps[2], hub).replacen("script", &format!("{sndbuf}script"), 1)
    }
}

fn tap(id: &str, ifname: &str, hub: u32) -> String {
    format!(
        "[[netdev]]\ntype = 'tap'\nid = '{id}'\nifname = '{ifname}'\nscript = 'no'\ndownscript = 'no'\n\
         [[netdev]]\ntype = 'hubport'\nid = '{id}-hubport'\nhubid = {hub}\nnetdev = '{id}'\n"
    )
}

/// `ringyard WORDS --monitor PATH`
fn said(switch: &Switch, words: &[&str]) -> Result<String> {
    run(command(tools::switch_binary()?)?.args(words).arg("--monitor").arg(switch.monitor()))
}

fn assert_unharmed(flow: Flow, sent_min: u64) -> Result<()> {
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(report.sent >= sent_min, "{report:?}");
    Ok(())
}

fn generation(switch: &mut Switch) -> Result<Value> {
    Ok(switch.order("x-query-stats", json!({}))?["generation"].clone())
}

#[test]
fn a_hundred_reloads_and_whoever_is_not_touched_loses_nothing() -> Result<()> {
    let (yard, hosts) = (Yard::new()?, [Netns::new()?, Netns::new()?]);
    yard.write("")?;
    let mut switch = yard.start(&["--workers", "2"])?;
    let flow = yard.flow(&hosts)?;
    for round in 0..100 {
        yard.write(&yard.others(round))?;
        let report = switch.order("x-reload", json!({}))?;
        assert_eq!(report["failed"], json!([]), "round {round}: {report}");
        assert_eq!(report["restart-needed"], json!([]), "round {round}");
        let touched = ["added", "deleted", "replaced", "changed"].map(|list| report[list].to_string());
        assert!(
            !touched.concat().contains("netdev.t0") && !touched.concat().contains("netdev.t1"),
            "{report}"
        );
        assert_eq!(switch.order("query-name", json!({}))?["name"], format!("round {round}"));
    }
    yard.write("")?;
    switch.order("x-reload", json!({}))?;
    assert_eq!(switch.order("query-netdev", json!({}))?.as_array().map(Vec::len), Some(2));
    assert_unharmed(flow, 1000)?;
    switch.finish()
}

#[test]
fn a_broken_file_and_one_without_a_change_do_nothing() -> Result<()> {
    let (yard, hosts) = (Yard::new()?, [Netns::new()?, Netns::new()?]);
    yard.write(&yard.others(0))?;
    let mut switch = yard.start(&[])?;
    let flow = yard.flow(&hosts)?;
    // The guest's interface of the flow is in a namespace by now, and the tap still the same one.
    let before = (generation(&mut switch)?, switch.order("query-netdev", json!({}))?);
    for _ in 0..20 {
        assert_eq!(said(&switch, &["reload"])?, "nothing has changed\n");
        yard.write("[[nic]]\nid = 'lost'\nnetdev = 'nobody'\n")?;
        let error = switch.qmp().execute("x-reload", json!({})).expect_err("nobody is there");
        let place = format!("{}:25:10: netdev 'nobody' not found", yard.file().display());
        assert_eq!(error.desc, place);
        yard.write(&yard.others(0))?;
    }
    assert_eq!((generation(&mut switch)?, switch.order("query-netdev", json!({}))?), before);
    assert_unharmed(flow, 100)?;
    switch.finish()
}

#[test]
fn sighup_reloads_and_leaves_alone_what_clients_made() -> Result<()> {
    let (yard, hosts) = (Yard::new()?, [Netns::new()?, Netns::new()?]);
    yard.write("")?;
    let mut switch = yard.start(&[])?;
    let flow = yard.flow(&hosts)?;
    switch.plug_listening("mine", 0)?;
    for round in 0..10 {
        yard.write(&yard.others(round))?;
        hang_up(&switch)?;
        wait_for("the reload", SIGNAL_TIME_MAX, || {
            let name = switch.order("query-name", json!({}))?;
            Ok((name["name"] == format!("round {round}")).then_some(()))
        })?;
    }
    let from = switch.process().log().len();
    yard.write("speed = 1\n")?;
    hang_up(&switch)?;
    wait_for("the error", SIGNAL_TIME_MAX, || {
        let log = switch.process().log();
        let text = format!("the configuration is not changed: {}:", yard.file().display());
        Ok((log[from..].contains(&text) && log.contains("Parameter 'speed' is unexpected")).then_some(()))
    })?;
    yard.write("")?;
    hang_up(&switch)?;
    wait_for("the reload", SIGNAL_TIME_MAX, || Ok(switch.stats()?.port("n").is_none().then_some(())))?;
    assert!(switch.stats()?.port("mine").is_some() && switch.path("mine.sock").exists());
    assert_unharmed(flow, 100)?;
    switch.finish()
}

fn hang_up(switch: &Switch) -> Result<()> {
    let id = i32::try_from(switch.process().id()).ok().and_then(Pid::from_raw);
    let id = id.ok_or_else(|| Error::new("the switch has no process id"))?;
    kill_process(id, Signal::HUP).doing("sending SIGHUP")
}

#[test]
fn sighup_ends_a_switch_that_has_no_file() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let monitor = directory.path().join("qmp");
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["run", "-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]);
    let mut process = Process::start("ringyard", ringyard, directory.path())?;
    process.wait_for_sockets(std::slice::from_ref(&monitor), SIGNAL_TIME_MAX)?;
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("it is a process id");
    kill_process(id, Signal::HUP).doing("sending SIGHUP")?;
    assert!(process.wait_for_exit(SIGNAL_TIME_MAX)?.success());
    assert!(!monitor.exists(), "it ended in good order");
    Ok(())
}

#[test]
fn a_terminal_that_closes_ends_the_switch_that_has_a_file_too() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let (monitor, file) = (directory.path().join("qmp"), directory.path().join("yard.toml"));
    fs::write(&file, format!("qmp = ['unix:{},server=on,wait=off']\n", monitor.display()))
        .doing("writing it")?;
    // Its own terminal, which closes with it.
    let mut script = command("script")?;
    let run = format!("exec {} run -c {}", tools::switch_binary()?.display(), file.display());
    script.args(["-q", "-e", "-c", &run]).arg(directory.path().join("typescript"));
    let mut process = Process::start("script", script, directory.path())?;
    process.wait_for_sockets(std::slice::from_ref(&monitor), SIGNAL_TIME_MAX)?;
    process.kill()?;
    wait_for("the switch to end in good order", SIGNAL_TIME_MAX, || Ok((!monitor.exists()).then_some(())))
}

#[test]
fn what_is_shown_is_what_is_there() -> Result<()> {
    let yard = Yard::new()?;
    yard.write(&yard.others(0))?;
    let mut switch = yard.start(&["-hub", "9,ageing=60", "-netdev", "hubport,id=option,hubid=3"])?;
    switch.plug_listening("mine", 0)?;
    let shown = said(&switch, &["show", "config"])?;
    let copy = yard.directory.path().join("copy.toml");
    fs::write(&copy, &shown).doing("writing the copy")?;
    let copy = copy.display().to_string();
    assert_eq!(said(&switch, &["reload", "--dry-run", &copy])?, "nothing has changed\n");
    let before = generation(&mut switch)?;
    assert_eq!(said(&switch, &["reload", &copy])?, "nothing has changed\n");
    assert_eq!((generation(&mut switch)?, said(&switch, &["show", "config"])?), (before, shown));
    switch.finish()
}

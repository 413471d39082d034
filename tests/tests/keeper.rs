//! The keeper of a switch: who ends when whom, and how often it tries.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::{Process, command};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, tools};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

/// Until a process has done what is asked of it.
const TIME_MAX: Duration = Duration::from_secs(30);

fn comm(pid: Pid) -> Result<String> {
    let file = format!("/proc/{}/comm", pid.as_raw_nonzero());
    Ok(fs::read_to_string(&file).doing(format!("reading {file}"))?.trim().to_owned())
}

fn keeper_of(switch: &Switch) -> Pid {
    i32::try_from(switch.process().id()).ok().and_then(Pid::from_raw).expect("it is a process")
}

/// `ringyard run --keep ARGS`, whatever becomes of it.
fn keep(directory: &Path, args: &[&str]) -> Result<Process> {
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.current_dir(directory).args(["run", "--keep"]).args(args);
    Process::start("ringyard", ringyard, directory)
}

#[test]
fn both_have_names_and_end_together() -> Result<()> {
    let switch = Switch::start(&["--keep"])?;
    let (keeper, child) = (keeper_of(&switch), switch.kept()?);
    assert_eq!(comm(keeper)?, "ringyard-keeper");
    let title = format!("/proc/{}/cmdline", child.as_raw_nonzero());
    let title = fs::read_to_string(&title).doing(format!("reading {title}"))?;
    assert!(title.starts_with("ringyard-switch\0run\0"), "{title:?}");
    let threads = format!("/proc/{}/task", keeper.as_raw_nonzero());
    assert_eq!(fs::read_dir(&threads).doing("listing threads")?.count(), 1, "a keeper has one thread");
    let monitor = switch.monitor();
    switch.finish()?;
    assert!(!monitor.exists(), "it ended in good order");
    assert!(test_kill_process(child).is_err(), "the switch is gone");
    Ok(())
}

#[test]
fn the_keeper_ends_as_the_switch_does_by_itself() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut process = keep(directory.path(), &["-qmp", "unix:/no/such/directory/q,server=on"])?;
    assert_eq!(process.wait_for_exit(TIME_MAX)?.code(), Some(1), "{}", process.log());
    let mut process = keep(directory.path(), &["-netdev", "bogus,id=b"])?;
    assert_eq!(process.wait_for_exit(TIME_MAX)?.code(), Some(2), "{}", process.log());
    let mut process = keep(directory.path(), &["-qmp", "unix:q,server=on,wait=off"])?;
    let path = directory.path().join("q");
    wait_for("the monitor", TIME_MAX, || Ok(path.exists().then_some(())))?;
    let mut client = ringyard_tests::qmp::Qmp::connect(&path, TIME_MAX)?;
    client.execute("quit", json!({})).doing("telling it to quit")?;
    assert_eq!(process.wait_for_exit(TIME_MAX)?.code(), Some(0), "{}", process.log());
    Ok(())
}

#[test]
fn a_switch_that_dies_at_once_is_given_up_and_the_keeper_says_so() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut process = keep(directory.path(), &["-qmp", "unix:q,server=on,wait=off"])?;
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    let ended = wait_for("the keeper to give up", TIME_MAX, || {
        // Whoever is there is killed before it can do anything, which a switch that crashes could not do better.
        let text = fs::read_to_string(&children).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(process.expect_running().is_err().then_some(()))
    });
    ended?;
    let status = process.wait_for_exit(TIME_MAX)?;
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("without anything that was kept"), "{log}");
    assert!(log.contains("has died 8 times, each time at once: giving up"), "{log}");
    Ok(())
}

#[test]
fn a_switch_whose_keeper_is_killed_goes_on_alone() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    switch.plug_listening("guest", 0)?;
    let child = switch.kept()?;
    kill_process(keeper_of(&switch), Signal::KILL).doing("killing the keeper")?;
    wait_for("the switch to notice", TIME_MAX, || {
        Ok(switch.process().log().contains("the keeper is gone").then_some(()))
    })?;
    // It still does all that it is told, and tells nobody more than once that nothing is kept.
    switch.plug_listening("another", 0)?;
    switch.unplug("guest")?;
    let refused = switch.qmp().execute("x-upgrade", json!({})).expect_err("there is nobody to do it");
    assert_eq!(refused.desc, "no upgrade: the keeper is gone");
    let log = switch.process().log();
    assert_eq!(log.matches("is not kept for a next start any more").count(), 1, "{log}");
    switch.order("quit", json!({}))?;
    wait_for("its end", TIME_MAX, || Ok(test_kill_process(child).is_err().then_some(())))?;
    switch.abandon();
    Ok(())
}

#[test]
fn signals_are_passed_on() -> Result<()> {
    let file = std::env::temp_dir().join(format!("ry-keeper-{}.toml", std::process::id()));
    fs::write(&file, "").doing("writing it")?;
    let path = file.display().to_string();
    let mut switch = Switch::start(&["--keep", "-c", &path])?;
    fs::write(&file, "[[netdev]]\ntype = 'hubport'\nid = 'new'\nhubid = 0\n").doing("writing it")?;
    kill_process(keeper_of(&switch), Signal::HUP).doing("sending SIGHUP")?;
    wait_for("the reload", TIME_MAX, || {
        let config = switch.order("x-query-config", json!({}))?;
        Ok((config["netdev"][0]["id"] == "new").then_some(()))
    })?;
    fs::remove_file(&file).doing("removing it")?;
    switch.finish()
}

//! Another program in place of the running one, under traffic.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::guest::{Features, GuestConfig};
use ringyard_tests::exchange::{Exchange, ping_on};
use ringyard_tests::flow::{Flow, FlowConfig, silences};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::process::{command, run};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result, tools};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const RATE: u32 = 2000;
const UPGRADES: usize = 10;
/// Of the time in which no frame passes, half of them; the aim is 10 ms, on a machine that has nothing else to do.
const GAP_MEDIAN_MAX: Duration = Duration::from_millis(100);
/// What a quarter of the upgrades keeps between guests that send without a pause: a machine that does something else only
/// adds to it. On one where even the start of a program takes longer than a tenth of it, so many times that. And how often it is measured before it is missed.
const GAP_MAX: Duration = Duration::from_millis(10);
const STARTS: u32 = 5;
const ATTEMPTS: usize = 5;
const TIME_MAX: Duration = Duration::from_secs(30);

/// A flow from the first tap to the second. What is sent while nobody reads waits in the first one's queue, for 5 s.
fn flow(hosts: &[Netns; 2]) -> Result<Flow> {
    hosts[0].ip("link set t0 txqueuelen 10000")?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: RATE };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config))
}

/// Waits until another process than `before` is at work.
fn await_other(switch: &mut Switch, before: Pid) -> Result<()> {
    ringyard_tests::deadline::wait_for("another process", TIME_MAX, || {
        Ok((switch.kept()? != before).then_some(()))
    })?;
    switch.reconnect()
}

#[test]
fn upgraded_under_traffic_it_loses_and_repeats_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let mut medians = Vec::new();
    for _ in 0..3 {
        let flow = flow(&hosts)?;
        let mut moments = Vec::new();
        for round in 0..UPGRADES {
            let before = switch.kept()?;
            moments.push(Instant::now());
            match round % 2 {
                0 => upgrade(&switch)?,
                _ => {
                    let keeper = i32::try_from(switch.process().id()).ok().and_then(Pid::from_raw);
                    kill_process(keeper.expect("it is a process"), Signal::USR2).doing("sending SIGUSR2")?;
                }
            }
            await_other(&mut switch, before)?;
            thread::sleep(Duration::from_millis(50));
        }
        let (report, arrivals) = flow.finish_with_arrivals()?;
        let mut gaps = silences(&arrivals, &moments);
        gaps.sort_unstable();
        println!("{UPGRADES} upgrades: {report:?}; gaps: {gaps:?}");
        assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
        let stats = switch.stats()?;
        assert_eq!(stats.port("t0").map(|port| port.uncertain), Some(0));
        medians.push(gaps[UPGRADES / 2]);
        if gaps[UPGRADES / 2] <= GAP_MEDIAN_MAX {
            return switch.finish();
        }
    }
    panic!("half of the gaps are longer than {GAP_MEDIAN_MAX:?}: {medians:?}");
}

fn upgrade(switch: &Switch) -> Result<()> {
    let monitor = switch.monitor().display().to_string();
    let mut upgrade = command(tools::switch_binary()?)?;
    let said = run(upgrade.args(["upgrade", "--monitor", &monitor]))?;
    if said.ends_with("goes on\n") { Ok(()) } else { Err(Error::new(format!("upgrade: {said}"))) }
}

/// How long this machine takes, at this moment, to start a program and see it end, in the median.
fn starting() -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..11 {
        let began = Instant::now();
        run(Command::new(tools::switch_binary()?).arg("--version"))?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Upgrades the switch again and again between two built-in guests with these features, which send as much as they can.
fn upgrade_between_built_in_guests(features: Features) -> Result<()> {
    let _slot = Slot::take()?;
    let mut switch = Switch::start(&["--keep"])?;
    let config = GuestConfig { features, ..GuestConfig::default() };
    let guests = [switch.plug_guest(0, &config)?, switch.plug_guest(1, &config)?];
    let exchange = Exchange::start(guests);
    let mut quarters = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut gaps = Vec::new();
        for _ in 0..UPGRADES {
            exchange.wait("before an upgrade", false)?;
            let before = switch.kept()?;
            exchange.forget_pauses();
            upgrade(&switch)?;
            await_other(&mut switch, before)?;
            exchange.wait("after an upgrade", false)?;
            gaps.push(exchange.longest_pause());
        }
        gaps.sort_unstable();
        println!("{UPGRADES} upgrades, {features:?}: gaps {gaps:?}");
        let limit = GAP_MAX.max(starting()? * STARTS);
        println!("a quarter is to be within {limit:?}");
        quarters.push((gaps[UPGRADES / 4], limit));
        if gaps[UPGRADES / 4] <= limit {
            break;
        }
    }
    let (flows, _guests) = exchange.finish()?;
    switch.reconnect()?;
    let stats = switch.stats()?;
    for (name, flow) in ["g0", "g1"].into_iter().zip(&flows) {
        println!("{name}: {} frames", flow.sent);
        assert_eq!((flow.fault.as_deref(), flow.again, flow.next), (None, 0, flow.sent), "{name}");
        let port = stats.port(name).ok_or_else(|| Error::new("the port is back"))?;
        assert_eq!((port.uncertain, port.ingress.frames), (0, flow.sent), "the books of {name}");
    }
    assert!(quarters.iter().any(|(quarter, limit)| quarter <= limit), "{quarters:?}");
    switch.finish()
}

#[test]
fn upgraded_between_guests_it_loses_and_repeats_nothing_of_split_rings() -> Result<()> {
    upgrade_between_built_in_guests(Features::SPLIT)
}

#[test]
fn upgraded_between_guests_it_loses_and_repeats_nothing_of_packed_rings() -> Result<()> {
    upgrade_between_built_in_guests(Features { in_order: false, ..Features::ALL })
}

#[test]
fn real_guests_ping_on_while_their_switch_is_upgraded() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    ping_on(&mut switch, 200, |switch| {
        for _ in 0..UPGRADES {
            let before = switch.kept()?;
            upgrade(switch)?;
            await_other(switch, before)?;
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    })?;
    switch.finish()
}

#[test]
fn a_program_that_does_not_come_up_changes_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let before = switch.kept()?;
    let flow = flow(&hosts)?;
    let scripts = [("hangs", "exec sleep 100"), ("is-killed", "kill -9 $$")];
    for (name, text) in scripts {
        let path = switch.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).doing("writing a script")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).doing("making it executable")?;
    }
    let path = |name: &str| switch.path(name).display().to_string();
    for (binary, why) in [
        (
            "/no/such/program".to_owned(),
            "starting /no/such/program: No such file or directory (os error 2)".to_owned(),
        ),
        ("/bin/false".to_owned(), "/bin/false ended with status 1".to_owned()),
        (path("is-killed"), format!("{} was killed by signal 9", path("is-killed"))),
        (path("hangs"), format!("{} does not get ready", path("hangs"))),
    ] {
        let refused = switch.qmp().execute("x-upgrade", json!({"binary": binary})).expect_err("it fails");
        assert_eq!(refused.desc, format!("no upgrade: {why}"));
    }
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert_eq!(switch.kept()?, before);
    switch.finish()
}

#[test]
fn a_switch_that_nobody_keeps_cannot_be_upgraded() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let refused = switch.qmp().execute("x-upgrade", json!({})).expect_err("nobody keeps it");
    assert!(refused.desc.starts_with("nobody keeps this switch"), "{}", refused.desc);
    switch.finish()
}

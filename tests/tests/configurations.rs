//! The ready-made set-ups of `configs/`, each started as a user starts it.

use std::path::PathBuf;
use std::time::Duration;

use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::process::{command, run};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, tools};
use serde_json::{Value, json};

/// The file `configs/NAME`, with what would meet other runs on this machine replaced.
fn configuration(name: &str, replace: &[(&str, &str)]) -> Result<(tempfile::TempDir, PathBuf)> {
    let original = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    let mut text = std::fs::read_to_string(&original).doing(format!("reading {}", original.display()))?;
    for (from, to) in replace {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = directory.path().join(name);
    std::fs::write(&path, text).doing("writing the configuration")?;
    Ok((directory, path))
}

fn start(path: &std::path::Path) -> Result<Switch> {
    Switch::start(&["-c", &path.display().to_string()])
}

#[test]
fn two_guests_ping() -> Result<()> {
    let slot = Slot::take()?;
    let sockets = tempfile::tempdir().doing("making a directory")?;
    let place = sockets.path().display().to_string();
    let (_directory, path) = configuration("two-guests.toml", &[("/run/ringyard", &place)])?;
    let switch = start(&path)?;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let socket = sockets.path().join(format!("vm{number}.sock"));
        guests.push(Guest::start(&slot, GuestConfig::new(number, NetAttach::connect(socket)))?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    guests[0].expect("ping -c 3 -i 0.2 10.0.0.2")?;
    switch.finish()
}

#[test]
fn guest_and_tap_ping() -> Result<()> {
    let slot = Slot::take()?;
    let sockets = tempfile::tempdir().doing("making a directory")?;
    let place = sockets.path().display().to_string();
    let name = format!("gt-{}", std::process::id());
    let (_directory, path) =
        configuration("guest-and-tap.toml", &[("/run/ringyard", &place), ("ry-tap0", &name)])?;
    let switch = start(&path)?;
    let host = Netns::new()?;
    host.adopt(&name)?;
    host.bring_up(&name, &["10.0.0.100/24"])?;
    let mut guest =
        Guest::boot(&slot, GuestConfig::new(1, NetAttach::connect(sockets.path().join("vm1.sock"))))?;
    guest.expect("ping -c 3 -i 0.2 10.0.0.100")?;
    host.run("ping -c 3 -i 0.2 10.0.0.1")?;
    switch.finish()
}

#[test]
fn containers_ping() -> Result<()> {
    let names = ["a", "b"].map(|letter| format!("c{letter}-{}", std::process::id()));
    let sockets = tempfile::tempdir().doing("making a directory")?;
    let place = sockets.path().display().to_string();
    let replace = [("/run/ringyard", place.as_str()), ("ry-red", &names[0]), ("ry-blue", &names[1])];
    let (_directory, path) = configuration("containers.toml", &replace)?;
    let mut switch = start(&path)?;
    let hosts = [Netns::new()?, Netns::new()?];
    for (index, (host, name)) in hosts.iter().zip(&names).enumerate() {
        host.adopt(name)?;
        host.bring_up(name, &[&format!("10.0.0.{}/24", index + 1)])?;
    }
    hosts[0].run("ping -c 3 -i 0.2 -W 5 10.0.0.2")?;
    switch.wait_stats("workers to sleep", Duration::from_secs(5), |stats| {
        stats.workers.iter().all(|worker| worker.asleep)
    })?;
    switch.finish()
}

#[test]
fn guest_reaches_the_user_mode_network() -> Result<()> {
    let slot = Slot::take()?;
    let sockets = tempfile::tempdir().doing("making a directory")?;
    let place = sockets.path().display().to_string();
    // Of 2222, somebody else on this machine may have the use.
    let replace = [("/run/ringyard", place.as_str()), ("127.0.0.1:2222", "127.0.0.1:0")];
    let (_directory, path) = configuration("user-mode.toml", &replace)?;
    let switch = start(&path)?;
    let mut guest =
        Guest::boot(&slot, GuestConfig::new(1, NetAttach::connect(sockets.path().join("vm1.sock"))))?;
    guest.expect("ip addr add 10.0.2.15/24 dev eth0 && ping -c 3 -i 0.2 10.0.2.2")?;
    switch.finish()
}

#[test]
fn guests_ping_over_sockets() -> Result<()> {
    let slot = Slot::take()?;
    let sockets = tempfile::tempdir().doing("making a directory")?;
    let place = sockets.path().display().to_string();
    let (_directory, path) = configuration("sockets.toml", &[("/run/ringyard", &place)])?;
    let switch = start(&path)?;
    let netdevs = [
        format!("stream,id=n0,addr.type=unix,addr.path={place}/stream.sock"),
        format!(
            "dgram,id=n0,local.type=unix,local.path={place}/vm2.sock,\
             remote.type=unix,remote.path={place}/dgram.sock"
        ),
    ];
    let mut guests = Vec::new();
    for (number, netdev) in (1..).zip(netdevs) {
        let raw = NetAttach::Raw(vec!["-netdev".into(), netdev]);
        guests.push(Guest::start(&slot, GuestConfig::new(number, raw))?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    guests[0].expect("ping -c 3 -i 0.2 10.0.0.2")?;
    switch.finish()
}

/// What is there, by every command that says so.
fn described(switch: &mut Switch) -> Result<(Value, Value, Value)> {
    let mut config = switch.order("x-query-config", json!({}))?;
    // The test's own monitor has a place of its own each time.
    config["qmp"].take();
    let network = json!({"command-line": "info network"});
    let info = switch.order("human-monitor-command", network)?;
    Ok((config, switch.order("query-netdev", json!({}))?, info))
}

fn shown(switch: &Switch) -> Result<String> {
    run(command(tools::switch_binary()?)?.args(["show", "config", "--monitor"]).arg(switch.monitor()))
}

#[test]
fn what_is_shown_of_each_makes_the_same_switch_again() -> Result<()> {
    let names: Vec<String> =
        ["ta", "tb", "tc"].iter().map(|tap| format!("{tap}-{}", std::process::id())).collect();
    let taps: [(&str, &[(&str, &str)]); 5] = [
        ("two-guests.toml", &[]),
        ("guest-and-tap.toml", &[("ry-tap0", &names[0])]),
        ("containers.toml", &[("ry-red", &names[1]), ("ry-blue", &names[2])]),
        ("user-mode.toml", &[("127.0.0.1:2222", "127.0.0.1:0")]),
        ("sockets.toml", &[]),
    ];
    for (name, replace) in taps {
        let sockets = tempfile::tempdir().doing("making a directory")?;
        let place = sockets.path().display().to_string();
        let (directory, path) =
            configuration(name, &[&[("/run/ringyard", place.as_str())], replace].concat())?;
        let mut switch = start(&path)?;
        let (first, before) = (shown(&switch)?, described(&mut switch)?);
        let monitor = switch.monitor().display().to_string();
        switch.finish()?;
        let again = directory.path().join("again.toml");
        let moved = first.replace(&monitor, &format!("{place}/other.sock"));
        std::fs::write(&again, &moved).doing("writing what was shown")?;
        let mut switch = start(&again)?;
        assert_eq!(described(&mut switch)?, before, "{name}:\n{first}");
        let new_monitor = format!("\"unix:{},server=on,wait=off\"", switch.monitor().display());
        let second = shown(&switch)?;
        assert!(second.contains(&new_monitor), "{second}");
        let without = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(without(&second), without(&moved), "{name}");
        switch.finish()?;
    }
    Ok(())
}

//! The switch changed under traffic: whoever is not touched loses nothing and notices nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::qmp::Qmp;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::json;

/// Frames a second of the flows; far from what the switch can do, so that every loss is ours.
const RATE: u32 = 3000;

/// Two namespaces on taps of hub 0, and a numbered flow from the first to the second.
fn flowing(switch: &mut Switch, hosts: &[Netns; 2]) -> Result<Flow> {
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: RATE };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config))
}

fn assert_unharmed(flow: Flow, sent_min: u64) -> Result<()> {
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(report.sent >= sent_min, "{report:?}");
    Ok(())
}

#[test]
fn netdevs_and_links_change_and_other_ports_lose_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = flowing(&mut switch, &hosts)?;
    let visitor = Netns::new()?;
    for round in 0..30 {
        switch.plug_listening("guest", 0)?;
        switch.plug_nic("guest", "52:54:00:00:00:07")?;
        switch.plug_tap("t2", 0, &visitor, &[])?;
        for up in [false, true, false] {
            switch.order("set_link", json!({"name": "t2", "up": up}))?;
            switch.order("set_link", json!({"name": "guest", "up": up}))?;
        }
        switch.unplug("t2")?;
        switch.unplug("guest")?;
        let left = visitor.ip("-o link")?;
        assert_eq!(left.lines().count(), 1, "round {round}: the tap must be gone with its netdev: {left}");
    }
    assert_unharmed(flow, 1000)?;
    switch.finish()
}

#[test]
fn link_that_is_down_stops_frames_both_ways_until_it_is_up() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &["10.0.0.1/24"])?;
    switch.plug_tap("t1", 0, &hosts[1], &["10.0.0.2/24"])?;
    hosts[0].run("ping -c 2 -i 0.2 -W 5 10.0.0.2")?;
    for name in ["t0", "t1", "t0-hubport"] {
        switch.order("set_link", json!({"name": name, "up": false}))?;
        assert!(hosts[0].run("ping -c 2 -i 0.2 -W 1 10.0.0.2").is_err(), "{name} is down");
        switch.order("set_link", json!({"name": name, "up": true}))?;
        hosts[0].run("ping -c 2 -i 0.2 -W 5 10.0.0.2")?;
    }
    let stats = switch.stats()?;
    let drops = &stats.port("t0").expect("it was added").ingress.drops;
    assert!(drops["link_down"] > 0, "{drops:?}");
    switch.finish()
}

#[test]
fn netdev_add_that_blocks_is_noticed_by_nobody_else() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let script = directory.path().join("slow-ifup");
    let mut switch = Switch::start(&["--may-run", &script.display().to_string()])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = flowing(&mut switch, &hosts)?;
    fs::write(&script, "#!/bin/sh\nsleep 3\n").doing("writing a script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).doing("making it executable")?;

    let mut other = Qmp::connect(&switch.monitor(), Duration::from_secs(5))?;
    let name = format!("slow-{}", std::process::id());
    let slow = json!({"type": "tap", "id": "slow", "ifname": name, "script": script, "downscript": "no"});
    let command = json!({"execute": "netdev_add", "arguments": slow}).to_string();
    let began = Instant::now();
    switch.qmp().send_raw(command.as_bytes())?;
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        other.execute("query-netdev", json!({})).doing("asking another monitor")?;
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "another monitor waited {slowest:?}");
    let taken = other.execute("netdev_add", json!({"type": "hubport", "id": "slow", "hubid": 0}));
    assert_eq!(taken.expect_err("the id is taken").desc, "Duplicate ID 'slow'");
    let reply = switch.qmp().wait_reply(Duration::from_secs(10))?;
    assert_eq!(reply["return"], json!({}), "{reply}");
    assert!(began.elapsed() >= Duration::from_secs(3), "the reply waits for the script");
    assert_unharmed(flow, 3000)?;
    switch.finish()
}

#[test]
fn failed_netdev_add_leaves_nothing_behind() -> Result<()> {
    let mut switch = Switch::start(&["--may-run", "/bin/false"])?;
    let name = format!("bad-{}", std::process::id());
    let bad = json!({"type": "tap", "id": "bad", "ifname": name, "script": "/bin/false", "downscript": "no"});
    for _ in 0..3 {
        let error = switch.qmp().execute("netdev_add", bad.clone()).expect_err("the script fails");
        assert_eq!(error.desc, "network script /bin/false failed with status 256");
        assert!(!fs::exists(format!("/sys/class/net/{name}")).doing("looking for the tap")?);
    }
    assert_eq!(switch.order("query-netdev", json!({}))?, json!([]));
    switch.finish()
}

#[test]
fn q08_sigterm_removes_taps_and_sockets_and_runs_downscripts() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let (script, witness) = (directory.path().join("ifdown"), directory.path().join("went"));
    let mut switch = Switch::start(&["--may-run", &script.display().to_string()])?;
    let socket = switch.plug_listening("guest", 0)?;
    fs::write(&script, format!("#!/bin/sh\necho $1 > {}\n", witness.display())).doing("writing a script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).doing("making it executable")?;
    let name = format!("end-{}", std::process::id());
    let tap = json!({"type": "tap", "id": "t0", "ifname": name, "script": "no", "downscript": script});
    switch.order("netdev_add", tap)?;
    assert!(socket.exists() && fs::exists(format!("/sys/class/net/{name}")).doing("looking for the tap")?);
    let monitor = switch.monitor();
    switch.finish()?;
    assert!(!socket.exists() && !monitor.exists(), "sockets must be removed");
    assert!(!fs::exists(format!("/sys/class/net/{name}")).doing("looking for the tap")?);
    let ran = fs::read_to_string(&witness).doing("reading what the downscript wrote")?;
    assert_eq!(ran.trim(), name);
    Ok(())
}

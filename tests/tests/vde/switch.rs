//! With `vde_switch`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::Netns;
use ringyard_tests::probe::Probe;
use ringyard_tests::process::{Process, command};
use ringyard_tests::{Doing, Error, Result};
use rustix::process::Signal;
use serde_json::json;

use crate::bench::{Bench, PORT, SOON, VdeSwitch, frame, is_ours};

/// The next frame of the test's that came to QEMU.
fn at_probe(probe: &Probe) -> Result<Vec<u8>> {
    loop {
        let frame = probe.receive(SOON)?.ok_or_else(|| Error::new("no frame came to QEMU"))?;
        if is_ours(&frame) {
            return Ok(frame);
        }
    }
}

/// Frames one way and the other, as long as the VDE switch takes them.
fn exchange(bench: &Bench, probe: &Probe) -> Result<()> {
    let frames: Vec<Vec<u8>> =
        (0..).zip([14, 60, 61, 1514, 1518]).map(|(number, len)| frame(len, number)).collect();
    for sent in &frames {
        bench.tap.send(sent)?;
        assert_eq!(&at_probe(probe)?, sent);
        probe.send(sent)?;
        assert_eq!(&bench.at_tap()?, sent);
    }
    Ok(())
}

#[test]
fn frames_pass_both_ways_with_qemu_at_another_port() -> Result<()> {
    let vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    let mut probe = Probe::start(&bench.netns)?;
    probe.plug(&json!({"type": "vde", "sock": vde.path}))?;
    bench.plug(&vde.path, json!({}))?;
    exchange(&bench, &probe)?;
    let text = bench.info()?;
    assert!(text.starts_with(&format!("sock={},fd=", vde.path.display())), "{text}");
    let netdevs = bench.switch.order("query-netdev", json!({}))?;
    let shown = netdevs.as_array().into_iter().flatten().find(|netdev| netdev["id"] == PORT);
    let peer = format!("{PORT}-hubport");
    let expected =
        json!({"id": PORT, "type": "vde", "sock": vde.path, "port": 0, "mode": 448, "peer-id": peer});
    assert_eq!(shown, Some(&expected));
    bench.switch.finish()
}

#[test]
fn the_port_is_the_one_that_was_asked_for_and_is_free_again_after_netdev_del() -> Result<()> {
    let mut vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    for _ in 0..3 {
        bench.plug(&vde.path, json!({"port": 5, "mode": 0o660, "group": "0"}))?;
        let ports = vde.command("port/print")?;
        let port = ports.split("Port 0005").nth(1).ok_or_else(|| Error::new(ports.clone()))?;
        assert!(port.contains("ringyard v0"), "{ports}");
        bench.switch.unplug(PORT)?;
    }
    bench.switch.finish()
}

#[test]
fn a_tap_at_another_port_and_ours_ping_each_other() -> Result<()> {
    let vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    bench.plug(&vde.path, json!({}))?;
    bench.netns.bring_up("t0", &["10.0.0.1/24"])?;
    let other = Netns::new()?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut plug2tap = other.command("vde_plug2tap")?;
    plug2tap.arg("-s").arg(&vde.path).arg("vt0");
    let _plug2tap = Process::start("vde_plug2tap", plug2tap, directory.path())?;
    wait_for("the tap of vde_plug2tap", SOON, || Ok(other.ip("link show vt0").ok()))?;
    other.bring_up("vt0", &["10.0.0.2/24"])?;
    let report = other.run("ping -c 5 -i 0.1 -W 5 -s 1400 10.0.0.1")?;
    assert!(report.contains(" 0% packet loss"), "{report}");
    bench.switch.finish()
}

#[test]
fn what_cannot_be_opened_is_refused_in_qemus_words() -> Result<()> {
    let vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    let mut refused = |members| {
        let error = bench.plug(&vde.path, members).expect_err("the test's members are wrong");
        error.to_string()
    };
    let group = refused(json!({"group": "no such group"}));
    assert!(group.contains("Could not open vde: there is no group 'no such group'"), "{group}");
    // It has 8 ports, and never answers whoever wants another one.
    let silent = refused(json!({"port": 99}));
    assert!(silent.contains("Could not open vde: the switch does not answer"), "{silent}");
    let range = refused(json!({"port": 65_536}));
    assert!(range.contains("Parameter 'port' expects uint16_t"), "{range}");
    let missing = bench.plug(&vde.path.join("none"), json!({})).expect_err("nothing is there").to_string();
    assert!(missing.contains("Could not open vde: No such file or directory"), "{missing}");
    bench.switch.finish()
}

#[test]
fn the_port_comes_back_when_the_switch_was_killed_or_has_thrown_it_out() -> Result<()> {
    let mut vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    let innocents = bench.innocents()?;
    bench.plug(&vde.path, json!({"port": 5}))?;
    let ports = vde.command("port/print")?;
    let end = ports.split("endpoint ID ").nth(1).and_then(|text| text.split(' ').next());
    let end = end.ok_or_else(|| Error::new(format!("nobody is at {ports}")))?;
    let closed = vde.command(&format!("port/epclose 5 {end}"))?;
    assert!(closed.contains("1000 Success"), "{closed}");
    wait_for("the port to be back", SOON, || {
        let log = bench.switch.process().log();
        let turns = ["the switch has closed the port", "plugged in again"].map(|text| log.contains(text));
        Ok((turns == [true, true]).then_some(()))
    })?;
    bench.wait(true, "sock=")?;
    vde.kill()?;
    bench.wait(false, "error: Connection refused")?;
    vde.restart()?;
    bench.wait(true, "sock=")?;
    let mut probe = Probe::start(&bench.netns)?;
    probe.plug(&json!({"type": "vde", "sock": vde.path}))?;
    exchange(&bench, &probe)?;
    bench.expect_whole(innocents)?;
    bench.switch.finish()
}

#[test]
fn a_switch_that_is_stopped_costs_its_own_frames_and_nobody_elses() -> Result<()> {
    let vde = VdeSwitch::start()?;
    let mut bench = Bench::start()?;
    let mut probe = Probe::start(&bench.netns)?;
    probe.plug(&json!({"type": "vde", "sock": vde.path}))?;
    bench.plug(&vde.path, json!({}))?;
    let innocents = bench.innocents()?;
    vde.signal(Signal::STOP)?;
    // More than its queue holds.
    for number in 0..3000u16 {
        bench.tap.send(&frame(1000, number as u8))?;
    }
    bench.switch.wait_stats("frames without room", SOON, |stats| {
        stats.port(PORT).is_some_and(|port| port.egress.drops.get("no_room") > Some(&0))
    })?;
    vde.signal(Signal::CONT)?;
    bench.expect_whole(innocents)?;
    // What it had kept comes first.
    while probe.receive(Duration::from_millis(200))?.is_some() {}
    exchange(&bench, &probe)?;
    bench.switch.finish()
}

#[test]
fn a_switch_of_another_user_may_use_our_socket_by_its_group() -> Result<()> {
    let vde = VdeSwitch::start_by(|path| {
        let parent = path.parent().expect("it is in a directory");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(parent, open).doing("opening the switch's directory")?;
        let mut by = command("setpriv")?;
        by.args(["--reuid", "65534", "--regid", "54321", "--clear-groups", "vde_switch"]);
        Ok((by, path))
    })?;
    let mut bench = Bench::start()?;
    let mut probe = Probe::start(&bench.netns)?;
    probe.plug(&json!({"type": "vde", "sock": vde.path, "mode": 0o777}))?;
    bench.plug(&vde.path, json!({}))?;
    exchange(&bench, &probe)?;
    // Who gives a group decides alone: this one does not let the switch in.
    bench.switch.unplug(PORT)?;
    let error = bench.plug(&vde.path, json!({"group": "12345"})).expect_err("the switch is in no such group");
    assert!(error.to_string().contains("Could not open vde: the switch hung up"), "{error}");
    bench.switch.finish()
}

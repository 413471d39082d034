//! Taps and bridges of the host: faults of their interfaces, QEMU's bridge helper with a kernel bridge, macvtaps.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::plug::{join_to_ours, unique_interface};
use ringyard_tests::process::{command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(10);
const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

fn ip(arguments: &str) -> Result<()> {
    run(command("ip")?.args(arguments.split_whitespace())).map(drop)
}

fn wait_state(switch: &mut Switch, name: &str, carrier: bool, shown: &str) -> Result<()> {
    switch.wait_stats(&format!("{name} to have the carrier {carrier}"), WAIT, |stats| {
        stats.port(name).is_some_and(|port| port.carrier == carrier)
    })?;
    wait_for(&format!("{name} to say {shown}"), WAIT, || Ok(switch.info(name)?.contains(shown).then_some(())))
}

/// Two hosts on taps that exchange frames while others are in trouble.
fn innocents(switch: &mut Switch, hosts: &[Netns; 2]) -> Result<Flow> {
    switch.plug_tap("i0", 0, &hosts[0], &[])?;
    switch.plug_tap("i1", 0, &hosts[1], &[])?;
    let (destination, source) = (hosts[1].mac("i1")?, hosts[0].mac("i0")?);
    // A tap keeps 1000 frames: so many a second, that a worker may be off its core for long.
    let config = FlowConfig { destination, source, length: 200, rate: 1000 };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "i0")?, PacketSocket::open(&hosts[1], "i1")?, config))
}

fn assert_unharmed(flow: Flow) -> Result<()> {
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    Ok(())
}

#[test]
fn s06_tap_that_is_down_deleted_or_shrunk_comes_back_and_costs_nobody_else_a_frame() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let (hosts, others) = ([Netns::new()?, Netns::new()?], [Netns::new()?, Netns::new()?]);
    let flow = innocents(&mut switch, &others)?;
    switch.plug_tap("t1", 0, &hosts[1], &["10.0.0.2/24"])?;
    let ours = unique_interface();
    let tap = json!({"type": "tap", "id": "t0", "ifname": ours, "script": "no", "downscript": "no"});
    switch.order("netdev_add", tap)?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "p0", "hubid": 0, "netdev": "t0"}))?;
    let well = format!("ifname={ours},script=no,downscript=no");
    assert!(switch.info("t0")?.ends_with(&well));
    let ping = |count: u32| hosts[1].run(&format!("ping -c {count} -i 0.05 -W 1 10.0.0.1"));
    for round in 0..3 {
        // Wherever it is and whatever it is called there.
        hosts[0].adopt(&ours)?;
        hosts[0].ip(&format!("link set {ours} name eth{round}"))?;
        hosts[0].bring_up(&format!("eth{round}"), &["10.0.0.1/24"])?;
        wait_state(&mut switch, "t0", true, &well)?;
        hosts[1].run("ip neigh flush all")?;
        wait_for("an answer", WAIT, || Ok(ping(1).ok()))?;
        hosts[0].ip(&format!("link set eth{round} down"))?;
        wait_state(&mut switch, "t0", false, &format!("error: the interface eth{round} is down"))?;
        assert!(ping(1).is_err());
        hosts[0].bring_up(&format!("eth{round}"), &[])?;
        wait_state(&mut switch, "t0", true, &well)?;
        ping(2)?;
        hosts[0].ip(&format!("link set eth{round} mtu 600"))?;
        ping(2)?;
        let stats = switch.stats()?;
        assert!(stats.port("t0").is_some_and(|port| port.carrier), "a smaller MTU takes no carrier");
        hosts[0].ip(&format!("link del eth{round}"))?;
        // Made again at once, where the switch is; as at first nobody has set it up.
        wait_for("the interface", WAIT, || {
            Ok(Path::new("/sys/class/net").join(&ours).exists().then_some(()))
        })?;
        wait_state(&mut switch, "t0", true, &well)?;
    }
    assert_unharmed(flow)?;
    switch.order("netdev_del", json!({"id": "t0"}))?;
    assert!(!Path::new("/sys/class/net").join(&ours).exists(), "it goes with the netdev");
    switch.finish()
}

#[test]
fn s06_tap_that_is_deleted_again_and_again_under_load_costs_nobody_else_a_frame() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let (host, others) = (Netns::new()?, [Netns::new()?, Netns::new()?]);
    let flow = innocents(&mut switch, &others)?;
    switch.plug_tap("t1", 0, &host, &[])?;
    let ours = unique_interface();
    let tap =
        json!({"type": "tap", "id": "t0", "ifname": ours, "queues": 2, "script": "no", "downscript": "no"});
    switch.order("netdev_add", tap)?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "p0", "hubid": 0, "netdev": "t0"}))?;
    let broadcasts = FlowConfig { destination: [0xff; 6], source: host.mac("t1")?, length: 100, rate: 2000 };
    let load = Flow::start(PacketSocket::open(&host, "t1")?, PacketSocket::open(&host, "lo")?, broadcasts);
    for _ in 0..10 {
        wait_for("the interface", WAIT, || Ok(ip(&format!("link set {ours} up")).ok()))?;
        let before = switch.stats()?.port("t0").map_or(0, |port| port.egress.frames);
        switch.wait_stats("frames to go out", WAIT, |stats| {
            stats.port("t0").is_some_and(|port| port.egress.frames > before)
        })?;
        ip(&format!("link del {ours}"))?;
    }
    load.finish()?;
    let stats = switch.stats()?;
    let drops = &stats.port("t0").expect("it was added").egress.drops;
    assert!(drops.keys().all(|reason| reason == "io_error" || reason == "link_down"), "{drops:?}");
    assert_unharmed(flow)?;
    switch.finish()
}

#[test]
fn s06_descriptors_that_are_no_taps_are_refused_and_change_nothing() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let others = [Netns::new()?, Netns::new()?];
    let flow = innocents(&mut switch, &others)?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let file = File::create(directory.path().join("file")).doing("making a file")?;
    let null = File::open("/dev/null").doing("opening /dev/null")?;
    let tun = File::options().read(true).write(true).open("/dev/net/tun").doing("opening /dev/net/tun")?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").doing("making a socket")?;
    let texts =
        ["Inappropriate ioctl for device", "Inappropriate ioctl for device", "File descriptor in bad state"];
    for (fd, text) in [null.as_fd(), file.as_fd(), tun.as_fd()].into_iter().zip(texts) {
        refused(&mut switch, fd, text)?;
    }
    refused(&mut switch, socket.as_fd(), "Inappropriate ioctl for device")?;
    assert_eq!(switch.order("query-netdev", json!({}))?.as_array().map(Vec::len), Some(2));
    assert_unharmed(flow)?;
    switch.finish()
}

fn refused(switch: &mut Switch, fd: std::os::fd::BorrowedFd<'_>, text: &str) -> Result<()> {
    switch.qmp().execute_with_fds("getfd", json!({"fdname": "f"}), &[fd]).doing("passing it")?;
    let tap = json!({"type": "tap", "id": "t9", "fd": "f"});
    let error = switch.qmp().execute("netdev_add", tap).expect_err("it is no tap").desc;
    assert!(error.starts_with("Unable to query TUNGETIFF on FD ") && error.ends_with(text), "{error}");
    Ok(())
}

/// A bridge of the host, gone at drop.
struct Bridge(String);

impl Bridge {
    fn new() -> Result<Bridge> {
        let bridge = Bridge(unique_interface());
        ip(&format!("link add {} type bridge", bridge.0))?;
        ip(&format!("link set {} addrgenmode none up", bridge.0))?;
        Ok(bridge)
    }

    fn ports(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(format!("/sys/class/net/{}/brif", self.0)).doing("listing its ports")?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.0));
    }
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing("writing a script")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).doing("making it executable")
}

#[test]
fn taps_of_qemus_bridge_helper_are_on_the_bridge_and_are_had_again() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let wrapper = directory.path().join("helper");
    let with_space = format!("sh {}", wrapper.display());
    let may_run = ["--may-run", &wrapper.display().to_string(), "--may-run", &with_space];
    let mut switch = Switch::start(&[&may_run[..], &["--may-run", "/no/such/helper"]].concat())?;
    let (bridge, hosts) = (Bridge::new()?, [Netns::new()?, Netns::new()?]);
    let ours = unique_interface();
    join_to_ours(&hosts[0], "eth0", &ours, &["10.0.0.1/24"])?;
    ip(&format!("link set {ours} master {}", bridge.0))?;
    switch.plug_tap("t1", 0, &hosts[1], &["10.0.0.2/24"])?;
    // The helper, with an access list of its own in a mount namespace of its own.
    let list = format!(
        "mount -t tmpfs tmpfs /etc && mkdir /etc/qemu && echo allow {} > /etc/qemu/bridge.conf",
        bridge.0
    );
    write_script(
        &wrapper,
        &format!("#!/bin/sh\nexec unshare -m sh -c '{list} && exec {HELPER} \"$@\"' sh \"$@\"\n"),
    )?;
    let wrapper = wrapper.display().to_string();
    let ping = || hosts[1].run("ping -c 2 -i 0.05 -W 1 10.0.0.1");
    for (kind, helper) in [("bridge", &wrapper), ("tap", &wrapper), ("bridge", &with_space)] {
        let netdev = json!({"type": kind, "id": "b0", "br": bridge.0, "helper": helper});
        switch.order("netdev_add", netdev.clone())?;
        switch.order("netdev_add", json!({"type": "hubport", "id": "p0", "hubid": 0, "netdev": "b0"}))?;
        assert_eq!(bridge.ports()?.len(), 2);
        wait_for("an answer", WAIT, || Ok(ping().ok()))?;
        let shown = format!("index=0,type=tap,helper={helper},br={}", bridge.0);
        assert_eq!(switch.info("b0")?, shown);
        let netdevs = switch.order("query-netdev", json!({}))?;
        let mut shown = netdevs[0].clone();
        shown.as_object_mut().and_then(|members| members.remove("peer-id"));
        assert_eq!(shown, netdev);
        let made: Vec<String> = bridge.ports()?.into_iter().filter(|port| *port != ours).collect();
        ip(&format!("link del {}", made[0]))?;
        wait_for("another tap", WAIT, || Ok((bridge.ports()?.len() == 2).then_some(())))?;
        wait_for("an answer", WAIT, || Ok(ping().ok()))?;
        switch.order("netdev_del", json!({"id": "p0"}))?;
        switch.order("netdev_del", json!({"id": "b0"}))?;
        assert_eq!(bridge.ports()?, [ours.as_str()]);
    }
    // Not on the list, not there, no helper.
    for netdev in [
        json!({"type": "bridge", "id": "b0", "br": "ry-nobridge"}),
        json!({"type": "bridge", "id": "b0"}),
        json!({"type": "bridge", "id": "b0", "br": "ry-nobridge", "helper": wrapper}),
        json!({"type": "tap", "id": "b0", "br": bridge.0, "helper": "/no/such/helper"}),
    ] {
        let error = switch.qmp().execute("netdev_add", netdev).expect_err("there is no such bridge");
        assert_eq!((&error.class[..], &error.desc[..]), ("GenericError", "bridge helper failed"));
    }
    switch.finish()
}

#[test]
fn helper_that_hangs_is_an_error_after_a_time_and_nobody_waits_for_it() -> Result<()> {
    let mut switch = Switch::start(&["--may-run", "sleep 1000 #"])?;
    let others = [Netns::new()?, Netns::new()?];
    let flow = innocents(&mut switch, &others)?;
    let hung = json!({"type": "tap", "id": "t9", "helper": "sleep 1000 #"});
    let mut other = ringyard_tests::qmp::Qmp::connect(&switch.monitor(), WAIT)?;
    switch.qmp().send_raw(json!({"execute": "netdev_add", "arguments": hung}).to_string().as_bytes())?;
    let asked = Instant::now();
    other.execute("query-netdev", json!({})).doing("asking another monitor")?;
    assert!(asked.elapsed() < Duration::from_secs(2));
    let reply = switch.qmp().wait_reply(Duration::from_secs(30))?;
    let text = reply["error"]["desc"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("bridge helper failed: ") && text.ends_with("was not done within 10 s"),
        "{reply}"
    );
    assert_unharmed(flow)?;
    switch.finish()
}

#[test]
fn macvtap_is_opened_by_its_name() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let (ours, macvtap) = (unique_interface(), unique_interface());
    join_to_ours(&hosts[0], "eth0", &ours, &["10.0.0.1/24", "fd00::1/64"])?;
    ip(&format!("link add link {ours} name {macvtap} type macvtap mode passthru"))?;
    ip(&format!("link set {macvtap} addrgenmode none up"))?;
    switch.plug_tap("t1", 0, &hosts[1], &["10.0.0.2/24", "fd00::2/64"])?;
    let tap = json!({"type": "tap", "id": "m0", "ifname": macvtap, "script": "no", "downscript": "no"});
    switch.order("netdev_add", tap)?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "p0", "hubid": 0, "netdev": "m0"}))?;
    assert!(switch.info("m0")?.ends_with(&format!("ifname={macvtap},script=no,downscript=no")));
    for address in ["10.0.0.1", "fd00::1"] {
        wait_for("an answer", WAIT, || {
            Ok(hosts[1].run(&format!("ping -c 2 -i 0.05 -W 1 -s 1400 {address}")).ok())
        })?;
    }
    let wait = |switch: &mut Switch, carrier, shown: &str| wait_state(switch, "m0", carrier, shown);
    ip(&format!("link set {macvtap} down"))?;
    wait(&mut switch, false, &format!("error: the interface {macvtap} is down"))?;
    ip(&format!("link set {macvtap} up"))?;
    wait(&mut switch, true, &format!("ifname={macvtap}"))?;
    ip(&format!("link del {macvtap}"))?;
    wait(&mut switch, false, &format!("error: could not find the interface {macvtap}: No such device"))?;
    ip(&format!("link add link {ours} name {macvtap} type macvtap mode passthru"))?;
    ip(&format!("link set {macvtap} addrgenmode none up"))?;
    wait(&mut switch, true, &format!("ifname={macvtap}"))?;
    wait_for("an answer", WAIT, || Ok(hosts[1].run("ping -c 2 -i 0.05 -W 1 10.0.0.1").ok()))?;
    switch.finish()
}

#[test]
fn switch_takes_all_descriptors_that_it_may_have() -> Result<()> {
    let switch = Switch::start(&[])?;
    let path = format!("/proc/{}/limits", switch.process().id());
    let limits = fs::read_to_string(&path).doing("reading its limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
    switch.finish()
}

//! `af-packet` ports on veths: hosts in namespaces behind them, tcpdump as the witness of what a host gets.

use std::fs;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig, numbered_frame};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::plug::join_to_ours;
use ringyard_tests::process::{Process, command, run};
use ringyard_tests::stats::Drops;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(10);

fn drops(drops: &Drops, reason: &str) -> u64 {
    drops.get(reason).copied().unwrap_or(0)
}

fn ip(arguments: &str) -> Result<()> {
    run(command("ip")?.args(arguments.split_whitespace())).map(drop)
}

#[test]
fn hosts_exchange_whole_streams_whatever_their_ports_take() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let hosts = [Netns::new()?, Netns::new()?, Netns::new()?];
    switch.plug_af_packet("a0", 0, &hosts[0], &["10.0.0.1/24", "fd00::1/64"], &json!({}))?;
    switch.plug_af_packet("a1", 0, &hosts[1], &["10.0.0.2/24", "fd00::2/64"], &json!({"vnet_hdr": false}))?;
    let without = json!({"vnet_hdr": false});
    switch.plug_tap_with("t2", 0, &hosts[2], &["10.0.0.3/24", "fd00::3/64"], &without)?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut servers = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let path = directory.path().join(number.to_string());
        fs::create_dir(&path).doing("making a directory")?;
        host.run(&format!("dd if=/dev/urandom of={}/file bs=64k count=160 2>/dev/null", path.display()))?;
        let mut httpd = host.command("busybox")?;
        httpd.args(["httpd", "-f", "-p", "8000", "-h"]).arg(&path);
        servers.push(Process::start(&format!("httpd{number}"), httpd, directory.path())?);
        wait_for("the server to listen", WAIT, || {
            Ok(host.run("busybox netstat -lnt")?.contains(":8000 ").then_some(()))
        })?;
    }
    let sum = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    for to in 0..3 {
        for from in (0..3).filter(|from| *from != to) {
            let file = directory.path().join(from.to_string()).join("file");
            let expected = sum(hosts[from].run(&format!("busybox sha256sum {}", file.display()))?);
            for address in [format!("10.0.0.{}", from + 1), format!("[fd00::{}]", from + 1)] {
                let fetch = format!("busybox wget -q -O - http://{address}:8000/file | busybox sha256sum");
                assert_eq!(sum(hosts[to].run(&fetch)?), expected, "{to} from {address}");
            }
        }
    }
    for host in &hosts {
        let counters = host.run("grep Tcp: /proc/net/snmp")?;
        let wrong = counters.split_whitespace().last().unwrap_or_default().to_owned();
        assert_eq!(wrong, "0", "wrong checksums: {counters}");
    }
    let stats = switch.stats()?;
    let malformed = |name: &str| stats.port(name).map(|port| drops(&port.ingress.drops, "malformed"));
    assert_eq!((malformed("a0"), malformed("a1")), (Some(0), Some(0)));
    switch.finish()
}

/// Frames of IEEE 802's experimental type with tags before it, in hexadecimal, and how tcpdump shows them.
const TAGGED: [(&str, &str); 4] = [
    ("", "ethertype Unknown (0x88b5)"),
    ("8100 6abc", "ethertype 802.1Q (0x8100), length 82: vlan 2748, p 3, ethertype Unknown (0x88b5)"),
    (
        "88a8 0005 8100 e007",
        "ethertype 802.1Q-QinQ (0x88a8), length 86: vlan 5, p 0, ethertype 802.1Q (0x8100), vlan 7, p 7",
    ),
    (
        "8100 0005 8100 0007",
        "ethertype 802.1Q (0x8100), length 86: vlan 5, p 0, ethertype 802.1Q (0x8100), vlan 7, p 0",
    ),
];

/// A frame of 78 bytes and its tags.
fn tagged(destination: [u8; 6], source: [u8; 6], tags: &str) -> Vec<u8> {
    let config = FlowConfig { destination, source, length: 78, rate: 1 };
    let frame = numbered_frame(config, 0);
    let digits: String = tags.split_whitespace().collect();
    let tags = (0..digits.len()).step_by(2).filter_map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok());
    [&frame[..12], &tags.collect::<Vec<u8>>(), &frame[12..]].concat()
}

#[test]
fn tags_come_through_as_they_were_and_tcpdump_sees_it() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_af_packet("a0", 0, &hosts[0], &[], &json!({}))?;
    switch.plug_af_packet("a1", 0, &hosts[1], &[], &json!({"vnet_hdr": false}))?;
    let (macs, names) = ([hosts[0].mac("a0")?, hosts[1].mac("a1")?], ["a0", "a1"]);
    let directory = tempfile::tempdir().doing("making a directory")?;
    for (from, to) in [(0, 1), (1, 0)] {
        let mut tcpdump = hosts[to].command("tcpdump")?;
        tcpdump.args(["-l", "-n", "-e", "-xx", "-Q", "in", "-i", names[to]]);
        let mut witness = Process::start(names[to], tcpdump, directory.path())?;
        witness.wait_for_log("readiness", 0, WAIT, |log| log.contains("listening on").then_some(()))?;
        let socket = PacketSocket::open(&hosts[from], names[from])?;
        for (tags, shown) in TAGGED {
            let seen = witness.log().len();
            let frame = tagged(macs[to], macs[from], tags);
            socket.send(&frame)?;
            witness.wait_for_log(shown, seen, WAIT, |log| log.contains(shown).then_some(()))?;
            let bytes = |log: &str| {
                let lines = log.lines().filter_map(|line| line.trim().split_once(":  ")).map(|(_, hex)| hex);
                lines.flat_map(str::split_whitespace).collect::<String>()
            };
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            witness.wait_for_log("its bytes", seen, WAIT, |log| bytes(log).contains(&hex).then_some(()))?;
        }
    }
    switch.finish()
}

#[test]
fn frames_of_a_jumbo_mtu_and_of_several_queues_all_arrive_in_order() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let ours = [
        switch.plug_af_packet("a0", 0, &hosts[0], &[], &json!({"queues": 2, "fanout": "hash"}))?,
        switch.plug_af_packet("a1", 0, &hosts[1], &[], &json!({"queues": 2}))?,
    ];
    for (number, host) in hosts.iter().enumerate() {
        host.ip(&format!("link set a{number} mtu 9000"))?;
        ip(&format!("link set {} mtu 9000", ours[number]))?;
    }
    for length in [60, 1514, 9014] {
        let config =
            FlowConfig { destination: hosts[1].mac("a1")?, source: hosts[0].mac("a0")?, length, rate: 2000 };
        let (from, to) = (PacketSocket::open(&hosts[0], "a0")?, PacketSocket::open(&hosts[1], "a1")?);
        let flow = Flow::start(from, to, config);
        switch.wait_stats("frames to have passed", WAIT, |stats| {
            stats.port("a1").is_some_and(|port| port.egress.frames > 1000)
        })?;
        let report = flow.finish()?;
        assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{length}: {report:?}");
    }
    switch.finish()
}

#[test]
fn a_port_says_what_it_is_and_can_be_made_again_from_that() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let host = Netns::new()?;
    let ours = switch.plug_af_packet("a0", 0, &host, &[], &json!({"promisc": false}))?;
    let text = switch.info("a0")?;
    assert_eq!(text, format!("index=0,type=af-packet,ifname={ours},queues=1,promisc=off,vnet_hdr=on"));
    let netdevs = switch.order("query-netdev", json!({}))?;
    let mut again = netdevs[0].clone();
    assert_eq!(
        again,
        json!({"id": "a0", "type": "af-packet", "peer-id": "a0-hubport", "ifname": ours, "queues": 1, "promisc": false, "vnet_hdr": true})
    );
    again["id"] = "a9".into();
    if let Value::Object(members) = &mut again {
        members.remove("peer-id");
    }
    switch.order("netdev_add", again)?;
    let nobody = json!({"id": "x", "type": "af-packet", "ifname": "ry-nobody"});
    let error = switch.qmp().execute("netdev_add", nobody).expect_err("there is none");
    assert_eq!(error.desc, "could not find the interface ry-nobody: No such device");
    switch.finish()
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

fn wait_state(switch: &mut Switch, name: &str, carrier: bool, shown: &str) -> Result<()> {
    switch.wait_stats(&format!("{name} to have the carrier {carrier}"), WAIT, |stats| {
        stats.port(name).is_some_and(|port| port.carrier == carrier)
    })?;
    wait_for(&format!("{name} to say {shown}"), WAIT, || Ok(switch.info(name)?.contains(shown).then_some(())))
}

#[test]
fn s07_interface_down_deleted_shrunk_or_alone_takes_its_carrier_and_nobody_elses_frames() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let (hosts, taps) = ([Netns::new()?, Netns::new()?], [Netns::new()?, Netns::new()?]);
    let flow = innocents(&mut switch, &taps)?;
    let ours = switch.plug_af_packet("a0", 0, &hosts[0], &["10.0.0.1/24"], &json!({"queues": 2}))?;
    switch.plug_af_packet("a1", 0, &hosts[1], &["10.0.0.2/24"], &json!({}))?;
    let ping = |times: u32| hosts[1].run(&format!("ping -c {times} -i 0.05 -W 1 10.0.0.1"));
    wait_state(&mut switch, "a0", true, "ifname=")?;
    ping(2)?;
    for _ in 0..3 {
        // Set down, and by the other side.
        ip(&format!("link set {ours} down"))?;
        wait_state(&mut switch, "a0", false, &format!("error: the interface {ours} is down"))?;
        assert!(ping(1).is_err());
        ip(&format!("link set {ours} up"))?;
        wait_state(&mut switch, "a0", true, &format!("ifname={ours},queues=2"))?;
        ping(2)?;
        hosts[0].ip("link set a0 down")?;
        wait_state(&mut switch, "a0", false, &format!("error: the interface {ours} has no carrier"))?;
        hosts[0].bring_up("a0", &[])?;
        wait_state(&mut switch, "a0", true, &format!("ifname={ours}"))?;
        // Deleted, and there again under its name.
        ip(&format!("link del {ours}"))?;
        wait_state(&mut switch, "a0", false, &format!("error: could not find the interface {ours}"))?;
        assert!(ping(1).is_err());
        join_to_ours(&hosts[0], "a0", &ours, &["10.0.0.1/24"])?;
        wait_state(&mut switch, "a0", true, &format!("ifname={ours}"))?;
        hosts[1].run("ip neigh flush all")?;
        ping(2)?;
    }
    // With its name or its MTU changed, it stays.
    ip(&format!("link set {ours} mtu 500"))?;
    ping(2)?;
    let long = hosts[1].run("ping -c 1 -s 900 -W 1 10.0.0.1");
    assert!(long.is_err(), "longer than what the interface takes");
    let stats = switch.wait_stats("a long frame to be dropped", WAIT, |stats| {
        stats.port("a0").is_some_and(|port| drops(&port.egress.drops, "too_long") > 0)
    })?;
    assert!(stats.port("a0").is_some_and(|port| port.carrier));
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    switch.finish()
}

#[test]
fn s07_interface_that_flaps_under_load_costs_nobody_else_a_frame() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let (hosts, taps) = ([Netns::new()?, Netns::new()?], [Netns::new()?, Netns::new()?]);
    let flow = innocents(&mut switch, &taps)?;
    let ours = switch.plug_af_packet("a0", 0, &hosts[0], &[], &json!({}))?;
    switch.plug_af_packet("a1", 0, &hosts[1], &[], &json!({}))?;
    wait_state(&mut switch, "a1", true, "ifname=")?;
    let config =
        FlowConfig { destination: hosts[0].mac("a0")?, source: hosts[1].mac("a1")?, length: 100, rate: 5000 };
    let load =
        Flow::start(PacketSocket::open(&hosts[1], "a1")?, PacketSocket::open(&hosts[1], "lo")?, config);
    for _ in 0..20 {
        ip(&format!("link set {ours} down"))?;
        ip(&format!("link set {ours} up"))?;
        ip(&format!("link del {ours}"))?;
        join_to_ours(&hosts[0], "a0", &ours, &[])?;
    }
    wait_state(&mut switch, "a0", true, &format!("ifname={ours}"))?;
    let before = switch.stats()?.port("a0").map_or(0, |port| port.egress.frames);
    switch.wait_stats("frames to go out again", WAIT, |stats| {
        stats.port("a0").is_some_and(|port| port.egress.frames > before + 100)
    })?;
    load.finish()?;
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    switch.finish()
}

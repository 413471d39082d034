//! `af-xdp` between namespaces: a veth pair whose one end the switch has, natively or behind the driver, and a tap on the
//! same hub.

#![allow(unsafe_code)] // makes an AF_XDP socket, which no crate in use does

use std::net::UdpSocket;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use ringyard_drivers::af_xdp::{Attach, Redirect, SocketMap};
use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig, FlowReport, collect, numbered_frame};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::plug::unique_interface;
use ringyard_tests::process::{command, run};
use ringyard_tests::stats::PortStats;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::{Value, json};

/// A veth pair: its end in the host's namespace, and `inner` in a namespace of its own, which finishes what it sends.
struct Cable {
    outer: String,
    host: Netns,
    mtu: u32,
}

const INNER: &str = "inner";
const MTU: u32 = 3000;

impl Cable {
    fn new(address: &str, queues: u32) -> Result<Cable> {
        Cable::with_mtu(address, queues, MTU)
    }

    fn with_mtu(address: &str, queues: u32, mtu: u32) -> Result<Cable> {
        let cable = Cable { outer: unique_interface(), host: Netns::new()?, mtu };
        cable.lay(address, queues)?;
        Ok(cable)
    }

    /// Makes the pair, which must not be there.
    fn lay(&self, address: &str, queues: u32) -> Result<()> {
        let shape = format!("numrxqueues {queues} numtxqueues {queues}");
        let (outer, netns, mtu) = (&self.outer, self.host.name(), self.mtu);
        ip(&format!("link add {outer} {shape} type veth peer name {INNER} {shape} netns {netns}"))?;
        ip(&format!("link set {outer} mtu {mtu} up"))?;
        self.host.ip(&format!("link set {INNER} mtu {mtu}"))?;
        self.host.run(&format!("ethtool -K {INNER} tx off txvlan off"))?;
        self.host.bring_up(INNER, &[address])
    }

    fn cut(&self) -> Result<()> {
        ip(&format!("link del {}", self.outer))
    }
}

fn ip(arguments: &str) -> Result<()> {
    run(command("ip")?.args(arguments.split_whitespace())).map(drop)
}

/// Adds the netdev `x` for the host's end on hub 0.
fn plug_xdp(switch: &mut Switch, cable: &Cable, members: &Value) -> Result<()> {
    plug_named(switch, "x", cable, members)
}

fn plug_named(switch: &mut Switch, id: &str, cable: &Cable, members: &Value) -> Result<()> {
    let mut netdev = json!({"type": "af-xdp", "id": id, "ifname": cable.outer});
    for (member, value) in members.as_object().into_iter().flatten() {
        netdev[member] = value.clone();
    }
    switch.order("netdev_add", netdev)?;
    let port = json!({"type": "hubport", "id": format!("{id}-hubport"), "hubid": 0, "netdev": id});
    switch.order("netdev_add", port).map(drop)
}

fn info_network(switch: &mut Switch) -> Result<String> {
    let arguments = json!({"command-line": "info network"});
    let text = switch.order("human-monitor-command", arguments)?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

#[test]
fn ping_and_tcp_pass_in_every_mode_with_packets_of_up_to_3000_bytes() -> Result<()> {
    for members in [json!({}), json!({"mode": "native", "force-copy": true}), json!({"mode": "skb"})] {
        let mut switch = Switch::start(&[])?;
        let (cable, tapped) = (Cable::new("10.0.0.1/24", 1)?, Netns::new()?);
        plug_xdp(&mut switch, &cable, &members)?;
        switch.plug_tap("t0", 0, &tapped, &["10.0.0.2/24"])?;
        tapped.ip(&format!("link set t0 mtu {MTU}"))?;
        for size in [0, 1472, MTU - 28] {
            cable.host.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {size} 10.0.0.2"))?;
            tapped.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {size} 10.0.0.1"))?;
        }
        cable.host.run("iperf3 -s -1 -D")?;
        tapped.run("iperf3 -c 10.0.0.1 -n 20M")?;
        tapped.run("iperf3 -s -1 -D")?;
        cable.host.run("iperf3 -c 10.0.0.2 -n 20M")?;
        // The tap's kernel leaves segments and checksums to us, and the interface's takes none of it.
        assert!(port(&mut switch)?.egress.segments > 0);
        switch.finish()?;
    }
    Ok(())
}

/// The port `x` now.
fn port(switch: &mut Switch) -> Result<PortStats> {
    Ok(switch.stats()?.port("x").expect("it was added").clone())
}

/// Waits until the port `x` has a carrier, or none.
fn wait_carrier(switch: &mut Switch, carrier: bool) -> Result<()> {
    let what = format!("carrier {carrier}");
    switch
        .wait_stats(&what, WAIT, |stats| stats.port("x").is_some_and(|port| port.carrier == carrier))
        .map(drop)
}

const WAIT: Duration = Duration::from_secs(5);

/// A tap on hub 0, in a namespace of its own.
fn plug_tap(switch: &mut Switch, name: &str) -> Result<Netns> {
    let netns = Netns::new()?;
    switch.plug_tap(name, 0, &netns, &[])?;
    netns.ip(&format!("link set {name} mtu {MTU}"))?;
    Ok(netns)
}

/// Sends `count` numbered frames of `length` bytes from one interface to the other, each turned into what `dress` says, and
/// counts what arrives.
fn exchange(
    (from, from_name): (&Netns, &str),
    (to, to_name): (&Netns, &str),
    (count, length): (u64, usize),
    dress: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Result<FlowReport> {
    let source = from.mac(from_name)?;
    let config = FlowConfig { destination: to.mac(to_name)?, source, length, rate: 1 };
    let (sender, receiver) = (PacketSocket::open(from, from_name)?, PacketSocket::open(to, to_name)?);
    for number in 0..count {
        sender.send(&dress(numbered_frame(config, number)))?;
    }
    collect(&receiver, source, count, WAIT)
}

fn assert_whole(report: FlowReport) {
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
}

#[test]
fn frames_of_every_length_and_with_two_tags_arrive_in_order() -> Result<()> {
    for members in [json!({}), json!({"mode": "skb"})] {
        let mut switch = Switch::start(&["--workers", "2"])?;
        let cable = Cable::new("10.0.0.1/24", 1)?;
        plug_xdp(&mut switch, &cable, &members)?;
        let tapped = plug_tap(&mut switch, "t0")?;
        let (inner, tap) = ((&cable.host, INNER), (&tapped, "t0"));
        for length in [22, 64, 1514, 3014] {
            for (from, to) in [(inner, tap), (tap, inner)] {
                assert_whole(exchange(from, to, (200, length), |frame| frame)?);
            }
        }
        let frames = port(&mut switch)?.egress.frames;
        for (from, to) in [(inner, tap), (tap, inner)] {
            // The receiver's kernel takes one tag off; the frame behind is found by its number all the same.
            assert_whole(exchange(from, to, (50, 100), |frame| tagged(&frame, 7))?);
        }
        assert!(port(&mut switch)?.egress.frames >= frames + 50);
        switch.finish()?;
    }
    Ok(())
}

#[test]
fn longest_packets_pass_over_as_many_chunks_as_they_need() -> Result<()> {
    for members in [json!({"mode": "native"}), json!({"mode": "skb"})] {
        let mut switch = Switch::start(&[])?;
        let cables = [Cable::with_mtu("10.0.0.1/24", 1, 65_535)?, Cable::with_mtu("10.0.0.2/24", 1, 65_535)?];
        plug_named(&mut switch, "x", &cables[0], &members)?;
        plug_named(&mut switch, "y", &cables[1], &members)?;
        let ends = [(&cables[0].host, INNER), (&cables[1].host, INNER)];
        for length in [3840, 3841, 4096, 4097, 9014, 30_000, 65_549] {
            assert_whole(exchange(ends[0], ends[1], (20, length), |frame| frame)?);
            assert_whole(exchange(ends[1], ends[0], (20, length), |frame| frame)?);
        }
        // A packet of the largest size that IP has.
        cables[0].host.run("ping -c 3 -i 0.1 -W 5 -M do -s 65507 10.0.0.2")?;
        switch.finish()?;
    }
    Ok(())
}

#[test]
fn tags_are_untouched_both_ways() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let cable = Cable::new("10.0.0.1/24", 1)?;
    plug_xdp(&mut switch, &cable, &json!({}))?;
    let tapped = plug_tap(&mut switch, "t0")?;
    let (inner, tap) = ((&cable.host, INNER), (&tapped, "t0"));
    for (from, to) in [(inner, tap), (tap, inner)] {
        let capture = switch.path("capture");
        let filter = "vlan 7 and vlan 9 and ether proto 0x88b5";
        let shell = format!("timeout 10 tcpdump -i {} -c 20 -w {} '{filter}'", to.1, capture.display());
        let witness = to.0.command("sh")?.args(["-c", &shell]).spawn().doing("starting tcpdump")?;
        // Until the witness listens, what is sent counts for nothing.
        let socket = PacketSocket::open(from.0, from.1)?;
        let config =
            FlowConfig { destination: to.0.mac(to.1)?, source: from.0.mac(from.1)?, length: 100, rate: 1 };
        let (mut witness, mut number) = (witness, 0);
        wait_for("the witness", Duration::from_secs(10), || {
            socket.send(&tagged(&tagged(&numbered_frame(config, number), 9), 7))?;
            number += 1;
            witness.try_wait().doing("waiting for tcpdump")
        })
        .map(|status| assert!(status.success(), "{status}"))?;
    }
    switch.finish()
}

#[test]
fn frames_of_all_queues_come_in_and_go_out() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let cable = Cable::new("10.0.0.1/24", 4)?;
    plug_xdp(&mut switch, &cable, &json!({"queues": 4}))?;
    let tapped = Netns::new()?;
    switch.plug_tap("t0", 0, &tapped, &["10.0.0.2/24"])?;
    let stats = port(&mut switch)?;
    assert_eq!(stats.queues.iter().map(|queue| queue.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(
        info_network(&mut switch)?.contains(&format!("x: index=0,type=af-xdp,af-xdp0 to {}", cable.outer))
    );
    // Each flow hashes to a queue of the veth; none of them may end in one that nobody polls.
    let server = tapped.enter(|| UdpSocket::bind("10.0.0.2:7000").doing("binding"))?;
    server.set_read_timeout(Some(WAIT)).doing("setting a time limit")?;
    for port in 0..64u16 {
        let client = cable.host.enter(|| UdpSocket::bind(("10.0.0.1", 9000 + port)).doing("binding"))?;
        client.set_read_timeout(Some(WAIT)).doing("setting a time limit")?;
        client.send_to(b"there", "10.0.0.2:7000").doing("sending")?;
        let mut text = [0; 5];
        let (_, from) = server.recv_from(&mut text).doing(format!("waiting for flow {port}"))?;
        server.send_to(b"back", from).doing("answering")?;
        client.recv(&mut text).doing(format!("waiting for the answer to flow {port}"))?;
    }
    // A port that takes some of the queues leaves the others to the kernel.
    switch.order("netdev_del", json!({"id": "x"}))?;
    switch.order("netdev_del", json!({"id": "x-hubport"}))?;
    plug_xdp(&mut switch, &cable, &json!({"queues": 2, "start-queue": 2}))?;
    assert_eq!(port(&mut switch)?.queues.len(), 2);
    switch.finish()
}

#[test]
fn interface_that_goes_and_comes_back_harms_nobody() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let cable = Cable::new("10.0.0.1/24", 1)?;
    plug_xdp(&mut switch, &cable, &json!({}))?;
    let hosts = [plug_tap(&mut switch, "t0")?, plug_tap(&mut switch, "t1")?];
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 2000 };
    let flow =
        Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config);
    // Frames for everybody, so that there is always something to be sent to the interface.
    let everybody = FlowConfig { destination: [0xff; 6], source: [2, 0, 0, 0, 0, 9], length: 60, rate: 1 };
    let noise = PacketSocket::open(&hosts[0], "t0")?;
    let shout = || (0..100).try_for_each(|number| noise.send(&numbered_frame(everybody, number)));
    for round in 0..3 {
        shout()?;
        cable.cut()?;
        shout()?;
        wait_carrier(&mut switch, false)?;
        let gone = format!("type=af-xdp,error: {} is gone", cable.outer);
        assert!(info_network(&mut switch)?.contains(&gone), "round {round}");
        cable.lay("10.0.0.1/24", 1)?;
        wait_carrier(&mut switch, true)?;
        assert_whole(exchange((&cable.host, INNER), (&hosts[1], "t1"), (50, 300), |frame| frame)?);
        assert_whole(exchange((&hosts[1], "t1"), (&cable.host, INNER), (50, 300), |frame| frame)?);

        ip(&format!("link set {} down", cable.outer))?;
        shout()?;
        wait_carrier(&mut switch, false)?;
        ip(&format!("link set {} up", cable.outer))?;
        wait_carrier(&mut switch, true)?;
        assert_whole(exchange((&cable.host, INNER), (&hosts[1], "t1"), (50, 300), |frame| frame)?);

        cable.host.ip(&format!("link set {INNER} down"))?;
        wait_carrier(&mut switch, false)?;
        cable.host.ip(&format!("link set {INNER} up"))?;
        wait_carrier(&mut switch, true)?;
        assert_whole(exchange((&hosts[1], "t1"), (&cable.host, INNER), (50, 300), |frame| frame)?);
    }
    assert_whole(flow.finish()?);
    switch.finish()
}

#[test]
fn packets_longer_than_the_mtu_are_too_long_and_shorter_ones_pass() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let cable = Cable::new("10.0.0.1/24", 1)?;
    plug_xdp(&mut switch, &cable, &json!({}))?;
    let tapped = plug_tap(&mut switch, "t0")?;
    let (inner, tap) = ((&cable.host, INNER), (&tapped, "t0"));
    ip(&format!("link set {} mtu 1400", cable.outer))?;
    let sender = PacketSocket::open(&tapped, "t0")?;
    let config = FlowConfig { destination: cable.host.mac(INNER)?, source: [2; 6], length: 1415, rate: 1 };
    wait_for("a drop", WAIT, || {
        sender.send(&numbered_frame(config, 0))?;
        Ok(port(&mut switch)?.egress.drops.get("too_long").is_some_and(|count| *count > 0).then_some(()))
    })?;
    assert_whole(exchange(tap, inner, (50, 1414), |frame| frame)?);
    assert_whole(exchange(tap, inner, (50, 1414), |frame| tagged(&frame, 7))?);
    ip(&format!("link set {} mtu {MTU}", cable.outer))?;
    wait_for("the longer packets", WAIT, || {
        let report = exchange(tap, inner, (1, 3014), |frame| frame)?;
        Ok((report.lost() == 0).then_some(()))
    })?;
    switch.finish()
}

/// A file in a bpffs of the test's own, unmounted at drop.
struct Pinned {
    directory: PathBuf,
}

impl Pinned {
    fn new(map: &SocketMap, directory: PathBuf) -> Result<Pinned> {
        std::fs::create_dir(&directory).doing("making a directory")?;
        run(command("mount")?.args(["-t", "bpf", "none"]).arg(&directory))?;
        let pinned = Pinned { directory };
        map.pin(&pinned.file()).doing("pinning the map")?;
        Ok(pinned)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("sockets")
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = command("umount").and_then(|mut umount| run(umount.arg(&self.directory))) {
            eprintln!("{error}");
        }
    }
}

fn interface_number(name: &str) -> Result<u32> {
    let text =
        std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).doing("reading its number")?;
    text.trim().parse().doing("reading its number")
}

#[test]
fn program_of_somebody_else_finds_our_sockets_in_its_map() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let cable = Cable::new("10.0.0.1/24", 1)?;
    let tapped = plug_tap(&mut switch, "t0")?;
    let map = SocketMap::new(1).doing("making a map")?;
    let number = interface_number(&cable.outer)?;
    let program = Redirect::attach(&map, number, Attach::Native).doing("attaching a program")?;
    let pinned = Pinned::new(&map, switch.path("bpf"))?;
    plug_xdp(&mut switch, &cable, &json!({"inhibit": true, "map-path": pinned.file()}))?;
    for (from, to) in [((&cable.host, INNER), (&tapped, "t0")), ((&tapped, "t0"), (&cable.host, INNER))] {
        assert_whole(exchange(from, to, (100, 500), |frame| frame)?);
    }
    let beyond = json!({"type": "af-xdp", "id": "y", "ifname": cable.outer, "inhibit": true,
        "map-path": "/no/map"});
    let error = switch.qmp().execute("netdev_add", beyond).expect_err("there is no such file");
    assert!(error.desc.contains(&cable.outer) || error.desc.contains("/no/map"), "{error}");
    drop(program);
    switch.finish()
}

/// A new AF_XDP socket.
fn xdp_socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).doing("making a socket");
    }
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[test]
fn sockets_that_were_passed_are_bound_and_used() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let cable = Cable::new("10.0.0.1/24", 2)?;
    let tapped = plug_tap(&mut switch, "t0")?;
    let map = SocketMap::new(2).doing("making a map")?;
    let number = interface_number(&cable.outer)?;
    let _program = Redirect::attach(&map, number, Attach::Skb).doing("attaching a program")?;
    for (queue, name) in [(0, "first"), (1, "second")] {
        let socket = xdp_socket()?;
        map.insert(queue, socket.as_fd()).doing("telling the program of a socket")?;
        let getfd = switch.qmp().execute_with_fds("getfd", json!({"fdname": name}), &[socket.as_fd()]);
        getfd.doing("passing a socket")?;
    }
    let members = json!({"inhibit": true, "sock-fds": "first:second", "queues": 2, "force-copy": true});
    plug_xdp(&mut switch, &cable, &members)?;
    let shown = switch.order("query-netdev", json!({}))?;
    let shown = shown.as_array().and_then(|all| all.iter().find(|netdev| netdev["id"] == "x"));
    assert_eq!(shown.map(|netdev| &netdev["sock-fds"]), Some(&json!("first:second")));
    for (from, to) in [((&cable.host, INNER), (&tapped, "t0")), ((&tapped, "t0"), (&cable.host, INNER))] {
        assert_whole(exchange(from, to, (100, 500), |frame| frame)?);
    }
    // Down, they wait; gone, they are gone for good.
    ip(&format!("link set {} down", cable.outer))?;
    wait_carrier(&mut switch, false)?;
    ip(&format!("link set {} up", cable.outer))?;
    wait_carrier(&mut switch, true)?;
    assert_whole(exchange((&cable.host, INNER), (&tapped, "t0"), (100, 500), |frame| frame)?);
    cable.cut()?;
    wait_carrier(&mut switch, false)?;
    switch.finish()
}

#[test]
fn what_cannot_be_opened_says_why() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let cable = Cable::new("10.0.0.1/24", 1)?;
    let name = &cable.outer;
    let refusal = |switch: &mut Switch, members: Value| {
        let mut netdev = json!({"type": "af-xdp", "id": "bad", "ifname": name});
        for (member, value) in members.as_object().into_iter().flatten() {
            netdev[member] = value.clone();
        }
        switch.qmp().execute("netdev_add", netdev).expect_err("the members are wrong").desc
    };
    let missing = refusal(&mut switch, json!({"ifname": "ry-none"}));
    assert_eq!(missing, "failed to get ifindex for 'ry-none': No such device");
    let queue = refusal(&mut switch, json!({"start-queue": 1}));
    let socket = |queue| format!("failed to create AF_XDP socket for {name} queue_id: {queue}:");
    assert_eq!(queue, format!("{} binding it: Invalid argument; is there such a queue?", socket(1)));
    let null = OwnedFd::from(std::fs::File::open("/dev/null").doing("opening /dev/null")?);
    switch.qmp().execute_with_fds("getfd", json!({"fdname": "null"}), &[null.as_fd()]).doing("getfd")?;
    let strange = refusal(&mut switch, json!({"inhibit": true, "sock-fds": "null"}));
    assert!(strange.starts_with(&socket(0)), "{strange}");
    // What failed has changed nothing, and what is in use stays so.
    plug_xdp(&mut switch, &cable, &json!({}))?;
    let busy = refusal(&mut switch, json!({}));
    assert!(busy.contains("Device or resource busy"), "{busy}");
    switch.order("netdev_del", json!({"id": "x"}))?;
    switch.order("netdev_del", json!({"id": "x-hubport"}))?;
    plug_xdp(&mut switch, &cable, &json!({}))?;
    assert!(port(&mut switch)?.carrier);
    switch.finish()
}

//! Sockets that are passed, peers and paths that come and go, and networks that change.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use ringyard_tests::Result;
use ringyard_tests::error::Doing;
use ringyard_tests::netns::Netns;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

use crate::bench::{
    ARRIVAL_TIME_MAX, Innocents, SILENCE, Station, add_interface, frame, info, network, plug,
};

fn pass(switch: &mut Switch, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    let passed = switch.qmp().execute_with_fds("getfd", json!({"fdname": name}), &[fd]);
    passed.doing("passing a socket").map(drop)
}

/// Receives one frame at a socket of the test's own.
fn expect(socket: &UnixDatagram, frame: &[u8]) -> Result<()> {
    socket.set_read_timeout(Some(ARRIVAL_TIME_MAX)).doing("setting a time limit")?;
    let mut bytes = vec![0; 70_000];
    let len = socket.recv(&mut bytes).doing("receiving")?;
    assert_eq!(&bytes[..len], frame);
    Ok(())
}

fn given(name: &str) -> Value {
    json!({"type": "dgram", "local": {"type": "fd", "str": name}})
}

#[test]
fn socket_that_is_passed_is_a_port_of_either_type() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let station = Station::plug(&mut switch, "station", 0)?;
    for (number, netdev, shown) in [
        (0, given("s"), "type=dgram,fd="),
        (1, json!({"type": "socket", "fd": "s"}), "type=socket,socket: fd="),
    ] {
        let (ours, theirs) = UnixDatagram::pair().doing("making a pair")?;
        pass(&mut switch, "s", ours.as_fd())?;
        drop(ours);
        plug(&mut switch, "given", 0, netdev.clone())?;
        let text = info(&mut switch, "given")?;
        assert!(text.starts_with(shown) && text.ends_with(" unix"), "{text}");
        theirs.send(&frame(1, number, 65_000)).doing("sending over the pair")?;
        station.expect(&frame(1, number, 65_000))?;
        station.send(&frame(2, number, 65_000))?;
        expect(&theirs, &frame(2, number, 65_000))?;
        let again = switch.qmp().execute("netdev_add", json!({"id": "x", "type": "socket", "fd": "s"}));
        let desc = again.expect_err("the name is used up").desc;
        assert_eq!(desc, "File descriptor named 's' has not been found");
        // The peer goes, and with it the carrier.
        drop(theirs);
        switch.wait_stats("the carrier's end", ARRIVAL_TIME_MAX, |stats| {
            let _ = station.send(&frame(2, 0, 60));
            stats.port("given").is_some_and(|port| !port.carrier)
        })?;
        assert!(info(&mut switch, "given")?.ends_with(",error: the peer is gone"));
        switch.unplug("given")?;
    }
    Ok(())
}

#[test]
fn group_is_joined_with_a_socket_that_is_passed() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let station = Station::plug(&mut switch, "station", 0)?;
    let remote = json!({"type": "inet", "host": "230.0.0.1", "port": "1234"});
    let socket = netns.enter(|| UdpSocket::bind("230.0.0.1:1234").doing("binding to a group"))?;
    pass(&mut switch, "s", socket.as_fd())?;
    drop(socket);
    let netdev = json!({"type": "dgram", "local": {"type": "fd", "str": "s"}, "remote": remote});
    plug(&mut switch, "given", 0, netdev)?;
    assert!(info(&mut switch, "given")?.ends_with(" (cloned mcast=230.0.0.1:1234)"));
    let member = netns.enter(|| UdpSocket::bind("10.0.0.1:0").doing("binding a member's socket"))?;
    member.send_to(&frame(1, 0, 60), "230.0.0.1:1234").doing("sending to the group")?;
    station.expect(&frame(1, 0, 60))?;
    station.send(&frame(2, 0, 60))?;
    switch.wait_stats("the frame to go out", ARRIVAL_TIME_MAX, |stats| {
        stats.port("given").is_some_and(|port| port.egress.frames == 1)
    })?;
    assert_eq!(station.receive(SILENCE)?, None, "it does not come back");
    Ok(())
}

#[test]
fn server_of_one_path_serves_whoever_speaks_first() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let station = Station::plug(&mut switch, "station", 0)?;
    let (known, directory) = (switch.path("known"), switch.path(""));
    let unix = |path: &str| json!({"type": "unix", "path": path});
    let server = json!({"type": "dgram", "local": unix(&known.display().to_string()), "remote": unix("")});
    plug(&mut switch, "server", 0, server)?;
    for number in 0..2 {
        let path = directory.join(format!("client{number}"));
        let client = UnixDatagram::bind(&path).doing("binding a client")?;
        client.connect(&known).doing("connecting a client")?;
        // A greeting is no frame, and says who is there.
        client.send(b"VFKT").doing("greeting")?;
        client.send(&frame(1, number, 60)).doing("sending as a client")?;
        station.expect(&frame(1, number, 60))?;
        station.send(&frame(2, number, 60))?;
        expect(&client, &frame(2, number, 60))?;
        drop(client);
        std::fs::remove_file(&path).doing("removing a client's path")?;
        station.send(&frame(2, number, 61))?;
        switch.wait_stats("a frame to nobody", ARRIVAL_TIME_MAX, |stats| {
            let drops = stats.port("server").map(|port| port.egress.drops.values().sum::<u64>());
            drops > Some(number)
        })?;
    }
    Ok(())
}

#[test]
fn client_without_a_path_finds_its_server() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let station = Station::plug(&mut switch, "station", 0)?;
    let known = switch.path("known");
    let server = UnixDatagram::bind(&known).doing("binding a server")?;
    let unix = |path: &str| json!({"type": "unix", "path": path});
    let netdev = json!({"type": "dgram", "local": unix(""), "remote": unix(&known.display().to_string())});
    plug(&mut switch, "client", 0, netdev)?;
    station.send(&frame(1, 0, 60))?;
    server.set_read_timeout(Some(ARRIVAL_TIME_MAX)).doing("setting a time limit")?;
    let mut bytes = [0; 100];
    let (len, client) = server.recv_from(&mut bytes).doing("receiving as a server")?;
    assert_eq!(&bytes[..len], &frame(1, 0, 60)[..]);
    server.send_to_addr(&frame(2, 0, 60), &client).doing("answering as a server")?;
    station.expect(&frame(2, 0, 60))
}

/// Two switches that are joined over 10.0.0.1 and 10.0.0.2, each in a namespace of its own, with a station each.
struct Pair {
    netns: [Netns; 2],
    switches: [Switch; 2],
    stations: [Station; 2],
}

impl Pair {
    fn new() -> Result<Pair> {
        let netns = [Netns::new()?, Netns::new()?];
        join(&netns)?;
        let mut switches = [Switch::start_in(&netns[0], &[])?, Switch::start_in(&netns[1], &[])?];
        let mut stations = Vec::new();
        for (at, switch) in switches.iter_mut().enumerate() {
            let inet =
                |number: usize| json!({"type": "inet", "host": format!("10.0.0.{number}"), "port": "7"});
            let netdev = json!({"type": "dgram", "local": inet(at + 1), "remote": inet(2 - at)});
            plug(switch, "port", 0, netdev)?;
            stations.push(Station::plug(switch, "station", 0)?);
        }
        let stations = stations.try_into().unwrap_or_else(|_| unreachable!("there are two"));
        Ok(Pair { netns, switches, stations })
    }

    /// Sends a flock of frames both ways.
    fn exchange(&self, len: usize) -> Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            for number in 0..40 {
                self.stations[from].send(&frame(from as u8, number, len))?;
            }
            for number in 0..40 {
                self.stations[to].expect(&frame(from as u8, number, len))?;
            }
        }
        Ok(())
    }
}

fn join(netns: &[Netns; 2]) -> Result<()> {
    ringyard_tests::netns::join((&netns[0], "v0"), (&netns[1], "v0"))?;
    netns[0].bring_up("v0", &["10.0.0.1/24"])?;
    netns[1].bring_up("v0", &["10.0.0.2/24"])
}

#[test]
fn frames_pass_whatever_the_path_mtu_is() -> Result<()> {
    let pair = Pair::new()?;
    for mtu in [1500, 9000, 600, 1500, 1400] {
        for netns in &pair.netns {
            netns.ip(&format!("link set v0 mtu {mtu}"))?;
        }
        for len in [60, 1514, 9014] {
            pair.exchange(len).doing(format!("frames of {len} bytes at an MTU of {mtu}"))?;
        }
    }
    Ok(())
}

#[test]
fn interface_that_goes_takes_one_port_along_and_brings_it_back() -> Result<()> {
    let mut pair = Pair::new()?;
    let innocents = Innocents::start(&mut pair.switches[0])?;
    pair.exchange(60)?;
    for _ in 0..2 {
        pair.netns[0].ip("link del v0")?;
        for switch in &mut pair.switches {
            switch.wait_stats("the carrier's end", ARRIVAL_TIME_MAX, |stats| {
                stats.port("port").is_some_and(|port| !port.carrier)
                    && stats.port("station").is_some_and(|port| port.carrier)
            })?;
            assert!(info(switch, "port")?.contains(",error: "));
        }
        join(&pair.netns)?;
        for switch in &mut pair.switches {
            switch.wait_carrier("port", ARRIVAL_TIME_MAX)?;
        }
        pair.exchange(60)?;
    }
    assert_eq!(info(&mut pair.switches[0], "port")?, "type=dgram,udp=10.0.0.1:7/10.0.0.2:7");
    innocents.finish()
}

#[test]
fn interface_that_is_down_is_a_fault_until_it_is_up() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let inet = |host: &str| json!({"type": "inet", "host": host, "port": "7"});
    let netdev = json!({"type": "dgram", "local": inet(""), "remote": inet("10.0.0.2")});
    plug(&mut switch, "port", 0, netdev)?;
    netns.ip("link set v0 down")?;
    switch.wait_stats("the carrier's end", ARRIVAL_TIME_MAX, |stats| {
        stats.port("port").is_some_and(|port| !port.carrier)
    })?;
    assert_eq!(info(&mut switch, "port")?, "type=dgram,error: Network is unreachable");
    netns.ip("link del v0")?;
    add_interface(&netns)?;
    switch.wait_carrier("port", ARRIVAL_TIME_MAX)?;
    Ok(())
}

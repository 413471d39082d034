//! Datagrams that nobody wants (S03) and messages of refusal (S09), with innocents beside them.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use ringyard_tests::Result;
use ringyard_tests::error::Doing;
use ringyard_tests::stats::Stats;
use ringyard_tests::switch::Switch;
use serde_json::json;

use crate::bench::{ARRIVAL_TIME_MAX, Innocents, SILENCE, Station, frame, network, plug};

/// Drops of the port `port` on its way in, by that reason.
fn drops(stats: &Stats, port: &str, reason: &str) -> u64 {
    stats.port(port).and_then(|port| port.ingress.drops.get(reason).copied()).unwrap_or_default()
}

#[test]
fn s03_what_is_no_frame_is_counted_and_ends_nothing() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let innocents = Innocents::start(&mut switch)?;
    let station = Station::plug(&mut switch, "station", 0)?;
    let inet = |port: &str| json!({"type": "inet", "host": "10.0.0.1", "port": port});
    plug(&mut switch, "port", 0, json!({"type": "dgram", "local": inet("1"), "remote": inet("2")}))?;
    let bind = |address: &str| netns.enter(|| UdpSocket::bind(address).doing("binding a peer's socket"));
    let (peer, stranger) = (bind("10.0.0.1:2")?, bind("127.0.0.1:3")?);
    for round in 0..5 {
        for len in [0, 1, 13] {
            for socket in [&peer, &stranger] {
                socket.send_to(&vec![0; len], "10.0.0.1:1").doing("sending a runt")?;
            }
        }
        // Empty ones in a row are more than one read.
        for _ in 0..100 {
            peer.send_to(&[], "10.0.0.1:1").doing("sending nothing")?;
        }
        let longest = frame(1, round, 65_507);
        peer.send_to(&longest, "10.0.0.1:1").doing("sending the longest datagram")?;
        station.expect(&longest)?;
        // As QEMU has it, the socket hears everybody.
        let strange = frame(2, round, 60);
        stranger.send_to(&strange, "10.0.0.1:1").doing("sending as a stranger")?;
        station.expect(&strange)?;
    }
    let stats = switch.wait_stats("the count of runts", ARRIVAL_TIME_MAX, |stats| {
        drops(stats, "port", "runt") == 5 * 106
    })?;
    assert_eq!(stats.port("port").map(|port| port.ingress.forwarded), Some(10));
    assert_eq!(station.receive(SILENCE)?, None);
    innocents.finish()
}

#[test]
fn s03_datagram_longer_than_any_frame_is_counted() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let innocents = Innocents::start(&mut switch)?;
    let listener = Station::plug(&mut switch, "listener", 0)?;
    let station = Station::plug(&mut switch, "station", 0)?;
    // The longest frame, one byte more, as much as fills the slot, and what is cut.
    for (len, passes) in [(65_557, true), (65_558, false), (66_176, false), (100_000, false), (60, true)] {
        let frame = frame(3, 0, len);
        station.send(&frame)?;
        if passes {
            listener.expect(&frame)?;
        }
    }
    switch.wait_stats("the count of long ones", ARRIVAL_TIME_MAX, |stats| {
        drops(stats, "station", "too_long") == 3
    })?;
    assert_eq!(listener.receive(SILENCE)?, None);
    innocents.finish()
}

#[test]
fn s09_refusals_are_drops_until_the_peer_is_there() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let innocents = Innocents::start(&mut switch)?;
    let bind = |address: &str| netns.enter(|| UdpSocket::bind(address).doing("binding a socket"));
    let connected = bind("127.0.0.1:11")?;
    netns.enter(|| connected.connect("127.0.0.1:12").doing("connecting a socket"))?;
    let fds = [connected.as_fd()];
    switch.qmp().execute_with_fds("getfd", json!({"fdname": "s"}), &fds).doing("passing a socket")?;
    let station = Station::plug(&mut switch, "station", 0)?;
    plug(&mut switch, "given", 0, json!({"type": "dgram", "local": {"type": "fd", "str": "s"}}))?;
    let inet = |port: &str| json!({"type": "inet", "host": "127.0.0.1", "port": port});
    plug(&mut switch, "inet", 0, json!({"type": "dgram", "local": inet("13"), "remote": inet("14")}))?;
    for number in 0..200 {
        station.send(&frame(1, number, 60 + number as usize))?;
    }
    switch.wait_stats("all frames to be sent or refused", ARRIVAL_TIME_MAX, |stats| {
        let gone =
            |port| stats.port(port).map(|port| port.egress.frames + port.egress.drops.values().sum::<u64>());
        gone("given") == Some(200) && gone("inet") == Some(200)
    })?;
    for (port, peer) in [(11, "127.0.0.1:12"), (13, "127.0.0.1:14")] {
        let peer = bind(peer)?;
        peer.set_read_timeout(Some(ARRIVAL_TIME_MAX)).doing("setting a time limit")?;
        let after = frame(1, 1000 + port, 60);
        station.send(&after)?;
        let mut bytes = [0; 100];
        // The answer to the other peer comes by here too.
        while peer.recv(&mut bytes).doing("receiving after the refusals")? != 60 || bytes[..60] != after {}
        peer.send_to(&frame(2, port, 60), format!("127.0.0.1:{port}")).doing("answering")?;
        station.expect(&frame(2, port, 60))?;
    }
    let stats = switch.stats()?;
    assert!(["given", "inet"].iter().all(|port| stats.port(port).is_some_and(|port| port.carrier)));
    innocents.finish()
}

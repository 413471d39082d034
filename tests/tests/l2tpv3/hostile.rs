//! S04: datagrams that are not the peer's, or not as they should be.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::{Doing, Error, Result};
use serde_json::json;

use crate::bench::{Bench, SOON, frame, plug_tap};
use crate::life::local;

/// Starts an exchange of frames between two taps.
pub fn innocents(bench: &Bench, from: &str, to: &str) -> Result<Flow> {
    let netns = &bench.netns;
    // A busy machine may keep the switch from its core for a while: that is no harm.
    netns.ip(&format!("link set {from} txqueuelen 10000"))?;
    let config = FlowConfig { destination: netns.mac(to)?, source: netns.mac(from)?, length: 200, rate: 500 };
    Ok(Flow::start(PacketSocket::open(netns, from)?, PacketSocket::open(netns, to)?, config))
}

/// The innocents' frames, of which there are some, must all have arrived.
pub fn expect_whole(bench: &mut Bench, flow: Flow) -> Result<()> {
    bench.switch.wait_stats("frames of innocents", SOON, |stats| {
        stats.port("i1").is_some_and(|port| port.egress.frames > 100)
    })?;
    let report = flow.finish()?;
    match (report.lost(), report.doubled, report.overtaken) {
        (0, 0, 0) => Ok(()),
        _ => Err(Error::new(format!("innocents were harmed: {report:?}"))),
    }
}

/// A bench with innocents on hub 1.
fn with_innocents() -> Result<(Bench, Flow)> {
    let mut bench = Bench::start()?;
    plug_tap(&mut bench.switch, &bench.netns, "i0", 1)?;
    plug_tap(&mut bench.switch, &bench.netns, "i1", 1)?;
    let flow = innocents(&bench, "i0", "i1")?;
    Ok((bench, flow))
}

fn send(from: &UdpSocket, parts: &[&[u8]]) -> Result<()> {
    from.send_to(&parts.concat(), "127.0.0.1:1701").doing("sending a datagram").map(drop)
}

/// Nothing of what was sent before may have come to the tap: the next frame there is this one.
fn expect_next(bench: &Bench, from: &UdpSocket, header: &[u8], number: u8) -> Result<()> {
    send(from, &[header, &frame(60, number)])?;
    let came = bench.at_tap()?;
    if came == frame(60, number) {
        return Ok(());
    }
    Err(Error::new(format!("something came that should not: {came:x?}")))
}

const FLAGS: [u8; 4] = [0, 3, 0, 0];
const SESSION: [u8; 4] = [0, 0, 0, 2];

#[test]
fn s04_wrong_cookies_sessions_and_lengths_are_refused_by_name() -> Result<()> {
    let (mut bench, innocents) = with_innocents()?;
    let peer = bench.peer("127.0.0.2:1702")?;
    let evil = frame(60, 66);
    let mut refused = 0;
    for (long, cookie) in
        [(false, &[0xde, 0xad, 0xbe, 0xef][..]), (true, &[1, 2, 3, 4, 0xde, 0xad, 0xbe, 0xef])]
    {
        let rx = cookie.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        bench.plug(&local(&json!({"txcookie": 0, "rxcookie": rx, "cookie64": long})))?;
        let mut strangers = 0;
        for at in 0..cookie.len() {
            for flip in [1, 0x80, 0xff] {
                let mut wrong = cookie.to_vec();
                wrong[at] ^= flip;
                send(&peer, &[&FLAGS, &SESSION, &wrong, &evil])?;
                strangers += 1;
            }
        }
        for session in [[0, 0, 0, 1], [0; 4], [0xff; 4], [2, 0, 0, 0]] {
            send(&peer, &[&FLAGS, &session, cookie, &evil])?;
            strangers += 1;
        }
        // A cookie of the other length.
        send(&peer, &[&FLAGS, &SESSION, &cookie[..cookie.len() / 2], &evil])?;
        send(&peer, &[&FLAGS, &SESSION, &[0; 4], cookie, &evil])?;
        bench.wait_refused("stranger", strangers + 2)?;
        let whole = [&FLAGS, &SESSION, cookie].concat();
        for len in 1..=whole.len() {
            send(&peer, &[&whole[..len]])?;
        }
        bench.wait_refused("malformed", whole.len() as u64)?;
        refused += strangers + 2 + whole.len() as u64;
        // Behind a right header: no frame, then one whose length nobody told.
        send(&peer, &[&whole, &[0xff; 13]])?;
        bench.wait_refused("runt", 1)?;
        expect_next(&bench, &peer, &whole, 7)?;
        bench.switch.unplug(crate::bench::TUNNEL)?;
    }
    expect_whole(&mut bench, innocents)?;
    // A line at once, and one at the end of the port.
    wait_for("every refusal to be told of", SOON, || {
        let log = bench.switch.process().log();
        let lines = log.lines().filter_map(|line| line.split_once("refused datagrams: "));
        let parts: Vec<&str> = lines.clone().flat_map(|(_, parts)| parts.split(", ")).collect();
        let counts = parts.iter().filter_map(|part| part.split(' ').next()?.parse::<u64>().ok());
        assert!(lines.count() <= 4, "{log}");
        Ok((counts.sum::<u64>() == refused).then_some(()))
    })?;
    bench.switch.finish()
}

#[test]
fn s04_a_flood_of_strangers_is_told_of_once_and_the_peer_is_heard() -> Result<()> {
    let (mut bench, innocents) = with_innocents()?;
    let (peer, stranger) = (bench.peer("127.0.0.2:1702")?, bench.peer("127.0.0.9:1702")?);
    let began = Instant::now();
    bench.plug(&local(&json!({})))?;
    let header = [FLAGS, SESSION].concat();
    for round in 0..20 {
        for _ in 0..100 {
            send(&stranger, &[&header, &frame(60, 66)])?;
        }
        expect_next(&bench, &peer, &header, round)?;
    }
    bench.switch.wait_stats("the strangers", Duration::from_secs(5), |stats| {
        stats.port(crate::bench::TUNNEL).is_some_and(|port| port.ingress.drops.get("stranger") > Some(&0))
    })?;
    let log = bench.switch.process().log();
    // One in ten seconds.
    let lines = log.matches("refused datagrams").count();
    assert!((1..=1 + began.elapsed().as_secs() / 10).contains(&(lines as u64)), "{log}");
    assert!(log.contains("from another address"), "{log}");
    expect_whole(&mut bench, innocents)?;
    bench.switch.finish()
}

#[test]
fn s04_a_source_is_spoofed_in_vain_where_there_is_a_cookie_and_the_peer_may_move() -> Result<()> {
    let (mut bench, innocents) = with_innocents()?;
    bench.plug(&local(&json!({"txcookie": 1, "rxcookie": 0x1234_5678})))?;
    // As good as the peer's address, without its cookie.
    let spoofed = bench.peer("127.0.0.2:1702")?;
    for cookie in [[0; 4], [0x78, 0x56, 0x34, 0x12], [0, 0, 0, 1]] {
        send(&spoofed, &[&FLAGS, &SESSION, &cookie, &frame(60, 66)])?;
    }
    bench.wait_refused("stranger", 3)?;
    let moved = bench.peer("127.0.0.77:999")?;
    expect_next(&bench, &moved, &[FLAGS, SESSION, [0x12, 0x34, 0x56, 0x78]].concat(), 1)?;
    expect_whole(&mut bench, innocents)?;
    bench.switch.finish()
}

#[test]
fn s04_counters_far_off_and_strange_first_words_pass() -> Result<()> {
    let (mut bench, innocents) = with_innocents()?;
    let peer = bench.peer("127.0.0.2:1702")?;
    bench.plug(&local(&json!({"counter": true})))?;
    let counters = [1, 2, 2, 1, 0x8000_0000, u32::MAX, 0, 0x7fff_ffff, 5];
    for (number, counter) in (0..).zip(counters) {
        let word = [counter as u8, number, 0xff, 0];
        expect_next(&bench, &peer, &[word, SESSION, counter.to_be_bytes()].concat(), number)?;
    }
    expect_whole(&mut bench, innocents)?;
    bench.switch.finish()
}

/// A packet of IPv4 that carries L2TPv3, in a frame of the loopback device; `options` are whole words.
fn packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = 20 + options.len() + payload.len();
    let mut header = vec![0x40 | (5 + options.len() / 4) as u8, 0];
    header.extend((len as u16).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 115, 0, 0, 127, 0, 0, 2, 127, 0, 0, 1]);
    header.extend(options);
    let words = header.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[0; 12][..], &[0x08, 0x00], &header, payload].concat()
}

#[test]
fn s04_ip_options_before_the_header_are_stepped_over() -> Result<()> {
    let (mut bench, innocents) = with_innocents()?;
    bench.plug(
        &json!({"src": "127.0.0.1", "dst": "127.0.0.2", "txsession": 1, "rxsession": 2, "offset": 2}),
    )?;
    // Packets that the loopback device did not get from an IP of its own.
    for option in ["route_localnet", "accept_local"] {
        bench.netns.run(&format!("echo 1 >/proc/sys/net/ipv4/conf/lo/{option}"))?;
    }
    let wire = PacketSocket::open(&bench.netns, "lo")?;
    for words in 0..=10u8 {
        // NOPs.
        let options = vec![1; usize::from(words) * 4];
        let payload = [&SESSION, &[9, 9][..], &frame(60, words)].concat();
        wire.send(&packet(&options, &payload))?;
        assert_eq!(bench.at_tap()?, frame(60, words), "{words} words of options");
        wire.send(&packet(&options, &[&[0, 0, 0, 3], &payload[4..]].concat()))?;
        wire.send(&packet(&options, &SESSION))?;
    }
    bench.wait_refused("stranger", 11)?;
    bench.wait_refused("malformed", 11)?;
    expect_whole(&mut bench, innocents)?;
    bench.switch.finish()
}

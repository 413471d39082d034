//! DPDK's virtio-user, as the front end of two ports, forwards through the switch, in every way it knows to drive a ring.

use std::time::{Duration, Instant};

use ringyard_tests::dpdk::{Testpmd, TestpmdConfig, TestpmdPort, TestpmdStats, VirtioUser};
use ringyard_tests::slot::Slot;
use ringyard_tests::stats::Stats;
use ringyard_tests::switch::Switch;
use ringyard_tests::tools::processor_has;
use ringyard_tests::{Result, deadline};

/// How long frames go round.
const RUN: Duration = Duration::from_secs(2);
/// Frames that a port must have seen by then: ten a millisecond would be slow, with ten ports on two cores.
const FRAMES_MIN: u64 = 20_000;

/// One way to drive a ring.
#[derive(Clone, Copy, Debug)]
struct Way {
    packed: bool,
    in_order: bool,
    mrg_rxbuf: bool,
    vectorized: bool,
    /// How testpmd calls the code paths that it takes then.
    paths: &'static [&'static str],
}

const SPLIT: Way = Way { packed: false, in_order: false, mrg_rxbuf: true, vectorized: false, paths: &[] };
const PACKED: Way = Way { packed: true, ..SPLIT };

/// Two ports on a hub for each way. Frames go from port to port of testpmd, through the switch, for [`RUN`].
fn forwards(ways: &[Way], queues: u32) -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&["--cores", "0"])?;
    let (mut ports, mut names) = (Vec::new(), Vec::new());
    for (hub, way) in (0..).zip(ways) {
        let Way { packed, in_order, mrg_rxbuf, vectorized, .. } = *way;
        for side in 1..=2 {
            names.push(format!("p{hub}-{side}"));
            let socket = switch.plug_listening_queues(&names[names.len() - 1], hub, queues)?;
            let device = VirtioUser::connect(socket, 2 * hub as u8 + side);
            let device = VirtioUser { queues, packed, in_order, mrg_rxbuf, vectorized, ..device };
            ports.push(TestpmdPort::VirtioUser(device));
        }
    }
    let mut testpmd = Testpmd::launch(&slot, &TestpmdConfig::new("front", ports))?;
    for name in &names {
        switch.wait_carrier(name, Duration::from_secs(10))?;
    }
    for (path, port) in
        ways.iter().enumerate().flat_map(|(port, way)| way.paths.iter().map(move |path| (path, 2 * port)))
    {
        let said = format!("using {path} path on port {port}");
        assert!(testpmd.log().contains(&said), "not {said}: {}", testpmd.log());
    }
    testpmd.start_tx_first(4)?;
    let until = Instant::now() + RUN;
    let stats = deadline::wait_for("the frames to go round", RUN * 5, || {
        let stats = testpmd.stats()?;
        assert!(stats.iter().all(|port| port.rx_errors == 0 && port.tx_errors == 0), "{stats:?}");
        Ok((Instant::now() >= until).then_some(stats))
    })?;
    testpmd.stop()?;
    let books = switch.stats()?;
    for (port, name) in names.iter().enumerate() {
        check(&ways[port / 2], name, &stats[port], &books, queues);
    }
    testpmd.quit()?;
    // It acts for the control queue itself, and is believed: all pairs stay in use.
    assert!(!switch.process().log().contains("uses its control queue"));
    switch.finish()
}

/// A port has seen frames, has given up none, and none of its rings broke.
fn check(way: &Way, name: &str, stats: &TestpmdStats, books: &Stats, queues: u32) {
    assert!(stats.rx_packets > FRAMES_MIN, "{way:?}: {stats:?}");
    let port = books.port(name).expect("it was added");
    let drops = port.ingress.drops.iter();
    let errors: Vec<_> = drops.filter(|(reason, count)| *reason != "no_receiver" && **count > 0).collect();
    assert!(errors.is_empty(), "{way:?}: {errors:?}");
    let states: Vec<&str> =
        port.queues.iter().flat_map(|queue| [&*queue.ingress_ring, &*queue.egress_ring]).collect();
    assert_eq!(states, vec!["running"; 2 * queues as usize], "{way:?}");
}

fn split_ways() -> Vec<Way> {
    let plain = Way { mrg_rxbuf: false, ..SPLIT };
    let vectorized = Way { vectorized: true, paths: &["vectorized Rx"], ..plain };
    let in_order = |way| Way { in_order: true, paths: &["inorder Tx"], ..way };
    vec![SPLIT, plain, in_order(SPLIT), in_order(plain), vectorized]
}

fn packed_ways() -> Vec<Way> {
    let plain = Way { mrg_rxbuf: false, ..PACKED };
    let in_order = |way| Way { in_order: true, ..way };
    let paths: &[&str] = &["packed ring vectorized Rx", "packed ring vectorized Tx"];
    // DPDK 22.11 has vectors for packed rings of 512 bits only; without, it takes its other paths.
    let paths = if processor_has("avx512bw") { paths } else { &[] };
    let vectorized = Way { vectorized: true, paths, ..in_order(plain) };
    vec![PACKED, plain, in_order(PACKED), in_order(plain), vectorized]
}

#[test]
fn testpmd_forwards_over_split_rings() -> Result<()> {
    forwards(&split_ways(), 1)
}

#[test]
fn testpmd_forwards_over_split_rings_of_four_queue_pairs() -> Result<()> {
    forwards(&split_ways(), 4)
}

#[test]
fn testpmd_forwards_over_packed_rings() -> Result<()> {
    forwards(&packed_ways(), 1)
}

#[test]
fn testpmd_forwards_over_packed_rings_of_four_queue_pairs() -> Result<()> {
    forwards(&packed_ways(), 4)
}

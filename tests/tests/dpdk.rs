//! DPDK's virtio-user, as the front end of two ports, forwards through the switch.

use std::time::{Duration, Instant};

use ringyard_tests::dpdk::{Testpmd, TestpmdConfig, TestpmdPort, VirtioUser};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, deadline};

/// How long frames go round.
const RUN: Duration = Duration::from_secs(10);
/// Frames that a port must have seen by then: a thousand a millisecond would be slow.
const FRAMES_MIN: u64 = 1_000_000;

/// Frames go from port to port of testpmd, through the switch, for [`RUN`].
fn forwards(shape: impl Fn(VirtioUser) -> VirtioUser) -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&["--cores", "0"])?;
    let mut ports = Vec::new();
    for number in [1, 2] {
        let socket = switch.plug_listening(&format!("p{number}"), 0)?;
        ports.push(TestpmdPort::VirtioUser(shape(VirtioUser::connect(socket, number))));
    }
    let mut testpmd = Testpmd::launch(&slot, &TestpmdConfig::new("front", ports))?;
    switch.wait_carrier("p1", Duration::from_secs(10))?;
    switch.wait_carrier("p2", Duration::from_secs(10))?;
    testpmd.start_tx_first(4)?;
    let until = Instant::now() + RUN;
    deadline::wait_for("the frames to go round", RUN * 2, || {
        let stats = testpmd.stats()?;
        assert!(stats.iter().all(|port| port.rx_errors == 0 && port.tx_errors == 0), "{stats:?}");
        Ok((Instant::now() >= until).then_some(()))
    })?;
    let stats = testpmd.stats()?;
    assert!(stats.iter().all(|port| port.rx_packets > FRAMES_MIN), "{stats:?}");
    testpmd.stop()?;
    let books = switch.stats()?;
    for name in ["p1", "p2"] {
        let port = books.port(name).expect("it was added");
        let errors: Vec<_> = port
            .ingress
            .drops
            .iter()
            .filter(|(reason, count)| *reason != "no_receiver" && **count > 0)
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    testpmd.quit()?;
    switch.finish()
}

#[test]
fn testpmd_forwards_with_mergeable_buffers() -> Result<()> {
    forwards(|port| VirtioUser { mrg_rxbuf: true, in_order: false, ..port })
}

#[test]
fn testpmd_forwards_without_mergeable_buffers() -> Result<()> {
    forwards(|port| VirtioUser { mrg_rxbuf: false, in_order: false, ..port })
}

#[test]
fn testpmd_forwards_in_order() -> Result<()> {
    forwards(|port| VirtioUser { in_order: true, ..port })
}

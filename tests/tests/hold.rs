//! Guests that are slow or dead, beside others; and duties that move between workers while frames flow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{BUFFER_LEN, GuestConfig};
use ringyard_benches::traffic::{Template, Verifier};
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::json;

const FRAME_LEN: usize = 200;

/// Plugs built-in guest `index` in, under the name `gINDEX`.
fn plug(switch: &mut Switch, index: usize) -> Result<FrontEnd> {
    switch.plug_guest(index, &GuestConfig::default())
}

/// Numbered frames from guest 0 to another.
struct Numbers {
    template: Template,
    verifier: Verifier,
    sent: u64,
}

impl Numbers {
    fn new(to: usize) -> Result<Numbers> {
        let template = Template::new(0, to, FRAME_LEN).doing("making a frame")?;
        Ok(Numbers { verifier: Verifier::new(&template), template, sent: 0 })
    }

    /// Sends the next frame; waits for room in the ring.
    fn send(&mut self, from: &mut FrontEnd) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let sender = &mut from.guest.pair().send;
        while !sender.send(self.template.stamp(self.sent)) {
            sender.flush();
            sender.reclaim().doing("sending")?;
            assert!(Instant::now() < deadline, "the switch has stopped reading");
        }
        self.sent += 1;
        Ok(())
    }

    /// Takes what has come.
    fn receive(&mut self, to: &mut FrontEnd) -> Result<usize> {
        let mut buffer = [0; BUFFER_LEN];
        let verifier = &mut self.verifier;
        let taken = to.guest.pair().receive.receive(64, |frame| verifier.check(frame.copy_to(&mut buffer)));
        taken.doing("receiving")
    }

    /// Sent and not arrived, as far as one can tell.
    fn in_flight(&self) -> u64 {
        self.sent - self.verifier.next()
    }

    fn assert_only_lost(&self) {
        let faults = self.verifier.faults_so_far();
        assert_eq!((faults.corrupted, faults.reordered, faults.foreign), (0, 0, 0), "{faults:?}");
    }
}

/// Frames that a port had no room for.
fn no_room(switch: &mut Switch, port: &str) -> Result<u64> {
    let stats = switch.stats()?;
    let port = stats.port(port).expect("it was added");
    Ok(port.egress.drops.get("no_room").copied().unwrap_or(0))
}

/// The worker that polls a port's first queue.
fn worker_of(switch: &mut Switch, port: &str) -> Result<Option<u32>> {
    Ok(switch.stats()?.port(port).expect("it was added").queues[0].worker)
}

/// Sends more than the receiver's ring holds before it is looked at, again and again. Returns how often all arrived, and
/// checks that all else was counted. Ends when that and what was lost is enough.
fn whole_rounds(switch: &mut Switch, rounds: usize, is_enough: impl Fn(usize, u64) -> bool) -> Result<usize> {
    let (mut from, mut to) = (plug(switch, 0)?, plug(switch, 1)?);
    let ring = u64::from(GuestConfig::default().ring_size);
    let mut numbers = Numbers::new(1)?;
    let mut whole = 0;
    for _ in 0..rounds {
        let lost = numbers.verifier.faults_so_far().lost;
        for _ in 0..ring + ring / 2 {
            numbers.send(&mut from)?;
        }
        from.guest.pair().send.flush();
        let mut silent_since = Instant::now();
        while numbers.in_flight() > 0 && silent_since.elapsed() < Duration::from_millis(200) {
            if numbers.receive(&mut to)? > 0 {
                silent_since = Instant::now();
            }
        }
        whole += usize::from(numbers.in_flight() == 0 && numbers.verifier.faults_so_far().lost == lost);
        if is_enough(whole, numbers.verifier.faults_so_far().lost) {
            break;
        }
    }
    numbers.assert_only_lost();
    let lost = numbers.verifier.faults(numbers.sent).lost;
    assert_eq!(lost, no_room(switch, "g1")?, "what did not arrive is counted");
    Ok(whole)
}

#[test]
fn sender_that_is_faster_than_its_receiver_waits_for_it() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    // The receiver is this thread: when it is kept from running for longer than a stall, a round may lose frames.
    assert_eq!(whole_rounds(&mut switch, 2000, |whole, _| whole == 50)?, 50);
    switch.finish()
}

#[test]
fn hub_that_is_told_to_drop_does_not_wait() -> Result<()> {
    let mut switch = Switch::start(&["--full-receiver", "drop", "--mode", "poll"])?;
    // A worker that is kept from running finds the receiver with room again.
    let whole = whole_rounds(&mut switch, 2000, |_, lost| lost > 0)?;
    assert!(no_room(&mut switch, "g1")? > 0, "{whole} of 2000 rounds were whole");
    switch.finish()
}

#[test]
fn dead_receiver_costs_the_others_no_frame() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let (mut from, _dead) = (plug(&mut switch, 0)?, plug(&mut switch, 1)?);
    let mut live = plug(&mut switch, 2)?;
    let (mut to_dead, mut to_live) = (Numbers::new(1)?, Numbers::new(2)?);
    let window = u64::from(GuestConfig::default().ring_size) / 2;
    let deadline = Instant::now() + Duration::from_secs(30);
    while to_live.verifier.frames() < 20_000 {
        assert!(Instant::now() < deadline, "{} frames arrived", to_live.verifier.frames());
        if to_live.in_flight() < window {
            to_dead.send(&mut from)?;
            to_live.send(&mut from)?;
            from.guest.pair().send.flush();
        }
        to_live.receive(&mut live)?;
    }
    assert!(to_live.verifier.faults_so_far().is_none(), "{:?}", to_live.verifier.faults_so_far());
    assert_eq!(no_room(&mut switch, "g2")?, 0);
    assert!(no_room(&mut switch, "g1")? > 10_000);
    switch.finish()
}

#[test]
fn duty_of_a_guest_moves_under_traffic_and_nothing_is_lost() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let (mut from, mut to) = (plug(&mut switch, 0)?, plug(&mut switch, 1)?);
    let mut numbers = Numbers::new(1)?;
    // Less than the receiver's ring holds: whatever is lost was lost by a move.
    let window = u64::from(GuestConfig::default().ring_size) / 2;
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let traffic = scope.spawn(|| -> Result<()> {
            let deadline = Instant::now() + Duration::from_secs(60);
            // Relaxed: the flag carries no data with it.
            while !moved.load(Ordering::Relaxed) || numbers.in_flight() > 0 {
                assert!(Instant::now() < deadline, "{} frames are missing", numbers.in_flight());
                if !moved.load(Ordering::Relaxed) && numbers.in_flight() < window {
                    numbers.send(&mut from)?;
                    from.guest.pair().send.flush();
                }
                numbers.receive(&mut to)?;
            }
            Ok(())
        });
        for round in 0..1000 {
            switch.order("x-set-worker", json!({"netdev": "g0", "worker": round % 2}))?;
        }
        moved.store(true, Ordering::Relaxed);
        traffic.join().expect("the traffic's checks hold")
    })?;
    assert!(numbers.verifier.faults(numbers.sent).is_none(), "{:?}", numbers.verifier.faults(numbers.sent));
    assert!(numbers.sent > 1000, "{}", numbers.sent);
    assert_eq!(worker_of(&mut switch, "g0")?, Some(1));
    switch.finish()
}

#[test]
fn duty_of_a_tap_moves_under_traffic_and_nothing_is_lost() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 3000 };
    let flow =
        Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config);
    for round in 0..1000 {
        switch.order("x-set-worker", json!({"netdev": "t0", "queue": 0, "worker": round % 2}))?;
    }
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(report.sent > 100, "{report:?}");
    assert_eq!(worker_of(&mut switch, "t0")?, Some(1));
    switch.finish()
}

//! Receivers without room: what is held, what is dropped, and what that costs others. The first tests forward on their
//! own thread by their own clock; those at the end run a switch.

mod rig;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use ringyard_dataplane::counters::{Journal, PortCounters};
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::forward::Forwarder;
use ringyard_dataplane::frame::BURST_FRAMES;
use ringyard_dataplane::hold::{FullReceiver, Holding, SAVED_US_MAX, SHARE, STALL_US};
use ringyard_dataplane::hub::{HubOptions, HubTable, Member};
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::Egress;
use ringyard_dataplane::snapshot::{Duty, PortIndex, PortView, Snapshot};

use rig::{Room, Window, assert_balanced, end_of, options, own};

/// One sender, port 0, and receivers behind it, as one worker sees them.
struct Scene {
    journal: Journal,
    snapshot: Snapshot,
    source: Arc<Window>,
    clock: Rc<Cell<u64>>,
}

impl Scene {
    fn new(receivers: &[&[Arc<Room>]], options: HubOptions) -> Scene {
        let source = Arc::new(Window::new(7));
        let mut members = vec![member(0)];
        let view = |egress: Vec<Arc<dyn Egress>>| {
            Some(Arc::new(PortView { hub: Some(0), silenced: None, egress: egress.into() }))
        };
        let mut ports = vec![view(Vec::new())];
        for (index, queues) in receivers.iter().enumerate() {
            members.push(member(index as u16 + 1));
            ports.push(view(queues.iter().map(|queue| queue.clone() as Arc<dyn Egress>).collect()));
        }
        let duty = Duty { port: PortIndex(0), end: Arc::new(end_of(&source)) };
        let hubs = [Arc::new(HubTable::new(&members).with_options(options))];
        let duties: Arc<[Duty]> = [duty].into();
        let snapshot = Snapshot { ports: ports.into(), hubs: hubs.into(), duties: [duties].into() };
        Scene { journal: Journal::new(2).unwrap(), snapshot, source, clock: Rc::default() }
    }

    fn forwarder(&self) -> Forwarder<'_> {
        let clock = self.clock.clone();
        let mut forwarder = Forwarder::with_clock(&self.journal, 0, move || clock.get());
        forwarder.adopt(&self.snapshot);
        forwarder
    }

    fn serve(&self, forwarder: &mut Forwarder<'_>, holding: &mut Holding) -> usize {
        forwarder.serve(&self.snapshot, &self.snapshot.duties[0][0], holding)
    }

    fn counters(&self, port: usize) -> PortCounters {
        self.journal.port(port)
    }

    fn no_room(&self, port: usize) -> u64 {
        self.counters(port).egress.drops[DropReason::NoRoom as usize]
    }

    fn assert_balanced(&self) {
        let ports: Vec<_> = (0..self.snapshot.ports.len()).map(|port| self.counters(port)).collect();
        assert_balanced(&ports);
        assert_eq!(
            ports[0].ingress.bytes,
            60 * ports[0].ingress.frames,
            "bytes of what is held are not counted"
        );
    }
}

fn member(port: u16) -> Member {
    Member { port: PortIndex(port), up: true, filter: Some(Arc::new(RxFilter::new(own(port)))) }
}

/// A receiver of one queue.
fn one(queue: &Arc<Room>) -> &[Arc<Room>] {
    std::slice::from_ref(queue)
}

fn room(frames: usize) -> Arc<Room> {
    Arc::new(Room::new(frames))
}

#[test]
fn frames_without_room_are_held_and_arrive_in_order() {
    let to = room(10);
    let scene = Scene::new(&[one(&to)], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    scene.source.send(own(1), 0..100);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 10);
    assert!(holding.is_on());
    assert_eq!(scene.counters(0).ingress.frames, 10, "what is held is not in yet");
    assert_eq!(scene.counters(1).egress.offered, 10, "and was not offered");
    for _ in 0..5 {
        assert_eq!(scene.serve(&mut forwarder, &mut holding), 0);
        scene.assert_balanced();
    }
    to.make(1000);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), BURST_FRAMES);
    assert!(!holding.is_on());
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 100 - 10 - BURST_FRAMES);
    assert_eq!(to.numbers(), (0..100).collect::<Vec<_>>());
    assert_eq!(scene.no_room(1), 0);
    scene.assert_balanced();
}

#[test]
fn receiver_that_takes_nothing_is_stalled_until_it_takes() {
    let to = room(0);
    let scene = Scene::new(&[one(&to)], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    scene.source.send(own(1), 0..200);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 0);
    scene.clock.set(STALL_US - 1);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 0);
    scene.clock.set(STALL_US);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), BURST_FRAMES);
    assert_eq!((scene.no_room(1), holding.is_on()), (64, false));
    scene.assert_balanced();
    assert_eq!(scene.serve(&mut forwarder, &mut holding), BURST_FRAMES, "it stays stalled");
    let sends = to.sends();
    to.make(1);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 1, "it took one: the rest is held again");
    assert_eq!((to.sends() - sends, scene.no_room(1), holding.is_on()), (1, 128, true));
    to.make(1000);
    scene.serve(&mut forwarder, &mut holding);
    assert_eq!(to.numbers(), (128..193).collect::<Vec<_>>());
    scene.assert_balanced();
}

#[test]
fn frames_for_several_are_never_held() {
    let (full, open) = (room(3), room(1000));
    let scene = Scene::new(&[one(&full), one(&open)], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    scene.source.send(Mac::BROADCAST, 0..5);
    scene.source.send(own(1), 5..8);
    scene.source.send(Mac::BROADCAST, 8..10);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 7);
    assert_eq!(open.numbers(), [0, 1, 2, 3, 4, 8, 9]);
    assert_eq!((full.numbers(), scene.no_room(1)), (vec![0, 1, 2], 4));
    scene.assert_balanced();
    full.make(1000);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 3);
    assert_eq!((full.numbers(), scene.no_room(1)), (vec![0, 1, 2, 5, 6, 7], 4));
    scene.assert_balanced();
}

#[test]
fn hub_that_drops_holds_nothing() {
    let to = room(1);
    let scene = Scene::new(&[one(&to)], options(FullReceiver::Drop));
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    scene.source.send(own(1), 0..10);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 10);
    assert_eq!((to.numbers(), scene.no_room(1), holding.is_on()), (vec![0], 9, false));
    scene.assert_balanced();
}

#[test]
fn full_queue_holds_only_its_own_flows() {
    let queues = [room(1000), room(1000)];
    let scene = Scene::new(&[&queues], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    // The sender's queue is 7, so flows are spread; each number is a flow of its own.
    scene.source.send_flows(own(1), 0..40);
    scene.serve(&mut forwarder, &mut holding);
    let shares = queues.each_ref().map(|queue| queue.numbers());
    assert!(shares.iter().all(|share| share.len() > 5), "{shares:?}");
    queues[0].make(0);
    scene.source.send_flows(own(1), 0..40);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), shares[1].len());
    assert_eq!((queues[1].numbers().len(), holding.is_on()), (2 * shares[1].len(), true));
    scene.assert_balanced();
    queues[0].make(1000);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), shares[0].len());
    assert_eq!(queues[0].numbers(), [&shares[0][..], &shares[0][..]].concat());
    assert_eq!(scene.no_room(1), 0);
    scene.assert_balanced();
}

/// Forwards for `TIME_US` to a live receiver, every other frame to one that `trickle` makes room for every so often.
/// Returns the time for which the live receiver's next frames were kept waiting, in microseconds.
fn waits_beside_a_bad_receiver(trickle_us: Option<u64>) -> u64 {
    const TIME_US: u64 = 40_000;
    const POLL_US: u64 = 2;
    let (bad, live) = (room(0), room(usize::MAX));
    let scene = Scene::new(&[one(&bad), one(&live)], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    let (mut waits, mut sent) = (0, 0);
    for now_us in (0..TIME_US).step_by(POLL_US as usize) {
        scene.clock.set(now_us);
        if trickle_us.is_some_and(|trickle_us| now_us % trickle_us == 0) {
            bad.make(1);
        }
        for _ in scene.source.waiting() / 2..BURST_FRAMES {
            scene.source.send(own(1), sent..sent + 1);
            scene.source.send(own(2), sent..sent + 1);
            sent += 1;
        }
        let before = live.count();
        scene.serve(&mut forwarder, &mut holding);
        waits += if live.count() == before { POLL_US } else { 0 };
    }
    let numbers = live.numbers();
    assert!(
        numbers.iter().copied().eq(0..numbers.len() as u64),
        "the live receiver got every frame, in order"
    );
    assert_eq!(scene.no_room(2), 0);
    scene.assert_balanced();
    assert!(scene.no_room(1) > 0);
    assert!(waits <= TIME_US / SHARE + SAVED_US_MAX, "{waits} us of {TIME_US} waited");
    waits
}

#[test]
fn dead_receiver_costs_others_no_frame_and_one_stall() {
    let waits = waits_beside_a_bad_receiver(None);
    assert!((1..=STALL_US).contains(&waits), "{waits}");
}

#[test]
fn receiver_that_takes_a_frame_now_and_then_costs_others_a_tenth_of_the_time() {
    let waits = waits_beside_a_bad_receiver(Some(STALL_US - 100));
    assert!(waits > STALL_US, "it is never stalled: {waits}");
}

#[test]
fn receiver_that_takes_from_another_worker_is_waited_for() {
    let to = room(0);
    let scene = Scene::new(&[one(&to)], HubOptions::default());
    let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
    scene.source.send(own(1), 0..10);
    let sent = ringyard_dataplane::port::Tally { frames: 1, bytes: 60, ..Default::default() };
    for now_us in (0..20 * STALL_US).step_by(STALL_US as usize / 2) {
        scene.clock.set(now_us);
        scene.journal.block(1, 1).count_egress(1, &sent);
        assert_eq!(scene.serve(&mut forwarder, &mut holding), 0);
    }
    scene.clock.set(22 * STALL_US);
    scene.serve(&mut forwarder, &mut holding);
    scene.clock.set(23 * STALL_US);
    assert_eq!(scene.serve(&mut forwarder, &mut holding), 10, "that has ended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever room three receivers make, and whenever: no frame arrives twice or overtakes another of its pair, and
    /// each is delivered, counted as dropped, or still with its sender.
    #[test]
    fn every_frame_is_delivered_once_in_order_or_accounted_for(
        steps in prop::collection::vec((0usize..4, 0u64..20, [0usize..30, 0usize..30, 0usize..30], 0u64..300), 1..60),
        drop in any::<bool>(),
    ) {
        let rooms = [room(0), room(0), room(0)];
        let receivers = rooms.each_ref().map(one);
        let full = if drop { FullReceiver::Drop } else { FullReceiver::Hold };
        let scene = Scene::new(&receivers, options(full));
        let (mut forwarder, mut holding) = (scene.forwarder(), Holding::default());
        let mut sent = 0;
        for (to, count, makes, passed_us) in steps {
            let to = if to == 3 { Mac::BROADCAST } else { own(to as u16 + 1) };
            scene.source.send(to, sent..sent + count);
            sent += count;
            rooms.iter().zip(makes).for_each(|(room, make)| room.make(make));
            scene.clock.set(scene.clock.get() + passed_us);
            scene.serve(&mut forwarder, &mut holding);
            scene.assert_balanced();
            prop_assert!(!holding.is_on() || scene.source.waiting() > 0);
        }
        let ingress = scene.counters(0).ingress;
        prop_assert_eq!(ingress.frames + scene.source.waiting() as u64, sent);
        prop_assert_eq!(ingress.frames, ingress.forwarded);
        for (index, room) in rooms.iter().enumerate() {
            let (numbers, egress) = (room.numbers(), scene.counters(index + 1).egress);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
            prop_assert_eq!(numbers.len() as u64, egress.frames);
        }
    }
}

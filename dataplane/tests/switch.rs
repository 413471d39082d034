//! The switch with ports made of plain memory: who gets what, what is counted, and what a change costs.

mod rig;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringyard_dataplane::counters::PortCounters;
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::fdb::Learning;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::{
    Arming, Attachment, Doorbell, Egress, EgressScratch, Ingress, IngressEnd, IngressScratch,
};
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_dataplane::switch::{HubOptions, PortPlan, Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;

use rig::assert_balanced;

/// Sends frames numbered from 0 to one address, while it may, never ahead of `limit`.
struct Source {
    to: Mac,
    next: AtomicU64,
    limit: AtomicU64,
}

impl Ingress for Source {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let first = self.next.load(Ordering::Relaxed);
        let last = self.limit.load(Ordering::Relaxed).min(first + 32);
        let frames: Vec<[u8; 60]> = (first..last).map(|number| numbered(self.to, number)).collect();
        let mut builder = scratch.burst.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        if !builder.is_empty() {
            assert_eq!(forward(&builder.burst()), Taken::ALL);
        }
        self.next.store(last.max(first), Ordering::Relaxed);
        frames.len()
    }
}

impl Doorbell for Source {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&self) -> Arming {
        Arming::Work
    }

    fn disarm(&self) {}
}

fn numbered(to: Mac, number: u64) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0xff, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Remembers the numbers it was sent; takes `room` at a time.
#[derive(Default)]
struct Sink {
    numbers: Mutex<Vec<u64>>,
    room: Option<usize>,
}

impl Egress for Sink {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut numbers = self.numbers.lock().unwrap();
        let taken = &picks[..picks.len().min(self.room.unwrap_or(usize::MAX))];
        for &pick in taken {
            let frame = burst.frame(usize::from(pick));
            numbers.push(u64::from_be_bytes(frame.header()[14..22].try_into().unwrap()));
            scratch.tally.frames += 1;
            scratch.tally.bytes += frame.len() as u64;
        }
        taken.len()
    }
}

fn start(workers: usize, mode: Mode) -> Switch {
    Switch::start(&SwitchConfig { cores: vec![None; workers], mode }).unwrap()
}

fn own(port: u16) -> Mac {
    Mac([0x52, 0x54, 0, 1, (port >> 8) as u8, port as u8])
}

fn source(to: Mac) -> Arc<Source> {
    Arc::new(Source { to, next: AtomicU64::new(0), limit: AtomicU64::new(0) })
}

fn sending(source: &Arc<Source>) -> PortPlan {
    let end = IngressEnd {
        queue: 0,
        ingress: source.clone(),
        doorbell: source.clone(),
        linger_us: 1000,
        discard: None,
    };
    let attachment = Attachment { carrier: true, ingress: vec![Arc::new(end)], ..Attachment::default() };
    PortPlan { hub: Some(0), link: true, filter: None, attachment }
}

fn receiving(sink: &Arc<Sink>, mac: Option<Mac>) -> PortPlan {
    let attachment = Attachment { carrier: true, egress: vec![sink.clone()], ..Attachment::default() };
    PortPlan { hub: Some(0), link: true, filter: mac.map(|mac| Arc::new(RxFilter::new(mac))), attachment }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Adds a port with this plan.
fn add(switch: &mut Switch, plan: PortPlan) -> PortIndex {
    let port = switch.add_port().unwrap();
    switch.set_port(port, plan);
    port
}

#[test]
fn frames_reach_the_port_that_has_the_address_and_no_other() {
    let mut switch = start(1, Mode::Adaptive);
    let (source, taker, other) = (source(own(1)), Arc::new(Sink::default()), Arc::new(Sink::default()));
    let from = add(&mut switch, sending(&source));
    let to = add(&mut switch, receiving(&taker, Some(own(1))));
    let passed = add(&mut switch, receiving(&other, Some(own(2))));
    switch.publish();
    source.limit.store(1000, Ordering::Relaxed);
    wait_until("1000 frames", || switch.counters(to).egress.frames == 1000);
    assert_eq!(*taker.numbers.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    assert_eq!(switch.counters(passed), PortCounters::default());
    assert_eq!(switch.counters(to).egress.bytes, 60_000);
    wait_until("the sender's count", || switch.counters(from).ingress.forwarded == 1000);
    assert_balanced(&[from, to, passed].map(|port| switch.counters(port)));
}

#[test]
fn every_way_of_not_being_delivered_has_its_counter() {
    let mut switch = start(1, Mode::Adaptive);
    switch.set_default_hub_options(HubOptions { full: FullReceiver::Drop });
    let source = source(own(1));
    let from = add(&mut switch, sending(&source));
    let narrow = Arc::new(Sink { room: Some(1), ..Sink::default() });
    let to = add(&mut switch, receiving(&narrow, Some(own(1))));
    let mut sent = 0;
    let mut expect = |switch: &mut Switch, what: &str, condition: &dyn Fn(&Switch) -> bool| {
        switch.publish();
        sent += 32;
        source.limit.store(sent, Ordering::Relaxed);
        wait_until(what, || condition(switch) && switch.counters(from).ingress.frames == sent);
        assert_balanced(&[from, to].map(|port| switch.counters(port)));
    };
    let out = |switch: &Switch, reason| switch.counters(to).egress.drops[reason as usize];
    expect(&mut switch, "no room", &|switch| out(switch, DropReason::NoRoom) == 31);
    let plan = receiving(&narrow, Some(own(1)));
    switch.set_port(to, PortPlan { link: false, ..plan.clone() });
    expect(&mut switch, "link down", &|switch| out(switch, DropReason::LinkDown) == 32);
    let ringless = Attachment { egress: vec![], ..plan.attachment.clone() };
    switch.set_port(to, PortPlan { attachment: ringless, ..plan.clone() });
    expect(&mut switch, "not ready", &|switch| out(switch, DropReason::NotReady) == 32);
    switch.set_port(to, receiving(&narrow, Some(own(2))));
    let ingress = |switch: &Switch, reason| switch.counters(from).ingress.drops[reason as usize];
    expect(&mut switch, "nobody", &|switch| ingress(switch, DropReason::NoReceiver) == 32);
    switch.set_port(from, PortPlan { link: false, ..sending(&source) });
    expect(&mut switch, "own link down", &|switch| ingress(switch, DropReason::LinkDown) == 32);
    switch.set_port(from, PortPlan { hub: None, ..sending(&source) });
    expect(&mut switch, "no hub", &|switch| ingress(switch, DropReason::NoReceiver) == 64);
}

#[test]
fn ports_come_and_go_under_load_and_nobody_else_loses_a_frame() {
    for (workers, mode) in [(1, Mode::Adaptive), (2, Mode::Poll)] {
        let mut switch = start(workers, mode);
        let (source, sink) = (source(own(1)), Arc::new(Sink::default()));
        let from = add(&mut switch, sending(&source));
        let to = add(&mut switch, receiving(&sink, Some(own(1))));
        switch.publish();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Not faster than the sink is emptied in memory.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    source.limit.fetch_add(8, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            for round in 0..300u16 {
                let visitor = add(&mut switch, receiving(&Arc::new(Sink::default()), Some(own(100 + round))));
                let noisy = add(&mut switch, sending(&self::source(own(1))));
                switch.publish();
                switch.set_port(visitor, PortPlan { link: false, ..PortPlan::default() });
                switch.publish();
                switch.remove_port(visitor);
                switch.remove_port(noisy);
                switch.publish();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let sent = source.limit.load(Ordering::Relaxed);
        wait_until("all frames", || switch.counters(from).ingress.frames == sent);
        assert_eq!(*sink.numbers.lock().unwrap(), (0..sent).collect::<Vec<_>>());
        assert_balanced(&[switch.counters(from), switch.counters(to), switch.retired_counters()]);
    }
}

#[test]
fn removed_port_is_freed_and_its_counters_are_kept() {
    let mut switch = start(1, Mode::Adaptive);
    let (source, sink) = (source(own(1)), Arc::new(Sink::default()));
    let from = add(&mut switch, sending(&source));
    let to = add(&mut switch, receiving(&sink, None));
    switch.publish();
    source.limit.store(100, Ordering::Relaxed);
    wait_until("100 frames", || switch.counters(from).ingress.frames == 100);
    switch.remove_port(from);
    switch.remove_port(to);
    switch.publish();
    let (done, reaped) = std::sync::mpsc::channel();
    switch.after_reaping(move || done.send(()).unwrap());
    reaped.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((Arc::strong_count(&source), Arc::strong_count(&sink)), (1, 1));
    let retired = switch.retired_counters();
    assert_eq!((retired.ingress.forwarded, retired.egress.frames), (100, 100));
    assert_eq!(switch.add_port().unwrap(), from, "the place is free again");
    assert_eq!(switch.counters(from), PortCounters::default());
}

#[test]
fn successor_goes_on_with_the_counters_of_the_ports_that_it_restores() {
    let (source, sink) = (source(own(1)), Arc::new(Sink::default()));
    let mut switch = start(1, Mode::Adaptive);
    let ports = [sending(&source), receiving(&sink, None)].map(|plan| add(&mut switch, plan));
    let gone = add(&mut switch, PortPlan::default());
    switch.publish();
    source.limit.store(100, Ordering::Relaxed);
    wait_until("100 frames", || switch.counters(ports[0]).ingress.frames == 100);
    let file = switch.journal_file().try_clone().unwrap();
    drop(switch);
    let config = SwitchConfig { cores: vec![None; 2], mode: Mode::Adaptive };
    let mut switch = Switch::resume(&config, file).unwrap();
    for (port, plan) in ports.into_iter().zip([sending(&source), receiving(&sink, None)]).rev() {
        assert_eq!(switch.restore_port(port), Ok(port), "in any order");
        switch.set_port(port, plan);
    }
    assert!(switch.restore_port(ports[0]).is_err(), "it is taken");
    assert_eq!(switch.add_port(), Ok(gone), "what is not restored is free");
    switch.publish();
    source.limit.store(150, Ordering::Relaxed);
    wait_until("150 frames", || switch.counters(ports[0]).ingress.frames == 150);
    wait_until("all of them", || switch.counters(ports[1]).egress.frames == 150);
    assert_eq!(ports.map(|port| switch.counters(port).uncertain), [0, 0]);
}

#[test]
fn switch_that_holds_polls_nothing_until_it_lets_go() {
    let mut switch = start(1, Mode::Adaptive);
    let (source, sink) = (source(own(1)), Arc::new(Sink::default()));
    switch.hold(true);
    let from = add(&mut switch, sending(&source));
    add(&mut switch, receiving(&sink, None));
    switch.publish();
    source.limit.store(100, Ordering::Relaxed);
    assert_eq!((switch.workers()[0].duties, switch.counters(from).ingress.frames), (0, 0));
    switch.hold(false);
    switch.publish();
    wait_until("100 frames", || switch.counters(from).ingress.frames == 100);
    assert_eq!(*sink.numbers.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn halted_switch_has_done_its_bursts_whole() {
    let mut switch = start(2, Mode::Adaptive);
    let (source, sink) = (source(own(1)), Arc::new(Sink::default()));
    let from = add(&mut switch, sending(&source));
    add(&mut switch, receiving(&sink, None));
    switch.publish();
    source.limit.store(u64::MAX - 100, Ordering::Relaxed);
    wait_until("frames", || switch.counters(from).ingress.frames > 1000);
    switch.halt();
    let frames = switch.counters(from).ingress.frames;
    assert_eq!(source.next.load(Ordering::Relaxed), frames, "what was taken was counted");
    assert_eq!(*sink.numbers.lock().unwrap(), (0..frames).collect::<Vec<_>>(), "and sent");
}

#[test]
fn hubs_are_apart_and_a_thousand_ports_fit_on_one() {
    let mut switch = start(1, Mode::Adaptive);
    let source = source(Mac::BROADCAST);
    let from = add(&mut switch, sending(&source));
    let sinks: Vec<Arc<Sink>> = (0..1024).map(|_| Arc::new(Sink::default())).collect();
    for (port, sink) in (0..).zip(&sinks) {
        let hub = if port < 1023 { 0 } else { -5 };
        add(&mut switch, PortPlan { hub: Some(hub), ..receiving(sink, Some(own(port))) });
    }
    switch.publish();
    source.limit.store(10, Ordering::Relaxed);
    wait_until("10 broadcasts", || switch.counters(from).ingress.forwarded == 10);
    assert_eq!(switch.counters(from).ingress.takers, 10 * 1023);
    for sink in &sinks[..1023] {
        assert_eq!(*sink.numbers.lock().unwrap(), (0..10).collect::<Vec<_>>());
    }
    assert!(sinks[1023].numbers.lock().unwrap().is_empty());
}

#[test]
fn idle_workers_sleep() {
    let mut switch = start(2, Mode::Adaptive);
    wait_until("sleep", || switch.workers().iter().all(|worker| worker.asleep));
    let port = add(&mut switch, receiving(&Arc::new(Sink::default()), None));
    switch.publish();
    switch.remove_port(port);
    switch.publish();
    assert!(switch.workers().iter().all(|worker| worker.asleep), "nothing of theirs changed");
}

/// Has no frames, and a doorbell; counts how often it was polled.
struct Quiet {
    bell: OwnedFd,
    polls: AtomicU64,
}

impl Ingress for Quiet {
    fn poll(&self, _: &mut IngressScratch, _: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        0
    }
}

impl Doorbell for Quiet {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn arm(&self) -> Arming {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        Arming::Quiet
    }

    fn disarm(&self) {}
}

#[test]
fn duty_that_changes_keeps_its_doorbell() {
    let mut switch = start(1, Mode::Adaptive);
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let quiet = Arc::new(Quiet { bell, polls: AtomicU64::new(0) });
    let port = switch.add_port().unwrap();
    for _ in 0..3 {
        let end = IngressEnd {
            queue: 0,
            ingress: quiet.clone(),
            doorbell: quiet.clone(),
            linger_us: 10,
            discard: None,
        };
        let attachment = Attachment { carrier: true, ingress: vec![Arc::new(end)], ..Attachment::default() };
        switch.set_port(port, PortPlan { attachment, ..PortPlan::default() });
        switch.publish();
        wait_until("the worker to sleep", || switch.workers()[0].asleep);
        let polls = quiet.polls.load(Ordering::Relaxed);
        rustix::io::write(&quiet.bell, &1u64.to_ne_bytes()).unwrap();
        wait_until("a poll after the ring", || quiet.polls.load(Ordering::Relaxed) > polls);
    }
}

/// What [`numbered`] frames come from.
const SPEAKER: Mac = Mac([0x52, 0x54, 0, 0, 0xff, 1]);

/// Two ports that send and receive, and a third that only hears.
struct Trio {
    switch: Switch,
    sources: [Arc<Source>; 2],
    ports: [PortIndex; 3],
}

impl Trio {
    /// The first port sends to `own(7)`, the second to where the first speaks from.
    fn new() -> Trio {
        let mut switch = start(1, Mode::Adaptive);
        let sources = [source(own(7)), source(SPEAKER)];
        let plan = |source| receiving_too(sending(source));
        let ports = [
            add(&mut switch, plan(&sources[0])),
            add(&mut switch, plan(&sources[1])),
            add(&mut switch, receiving(&Arc::new(Sink::default()), None)),
        ];
        switch.publish();
        Trio { switch, sources, ports }
    }

    /// Sends a frame from the port at that place; how many others took it.
    fn send_from(&mut self, place: usize) -> u64 {
        let takers = |trio: &Trio| trio.switch.counters(trio.ports[place]).ingress;
        let before = takers(self);
        self.sources[place].limit.fetch_add(1, Ordering::Relaxed);
        wait_until("the frame", || takers(self).frames == before.frames + 1);
        takers(self).takers - before.takers
    }

    fn plan(&self, place: usize) -> PortPlan {
        receiving_too(sending(&self.sources[place]))
    }
}

fn receiving_too(mut plan: PortPlan) -> PortPlan {
    plan.attachment.egress = vec![Arc::new(Sink::default())];
    plan
}

#[test]
fn hub_learns_and_forgets_who_goes_or_is_down() {
    let mut trio = Trio::new();
    assert_eq!(trio.send_from(0), 2, "nobody knows");
    let entries = |trio: &Trio| trio.switch.fdb(0).map(|fdb| fdb.counters().entries);
    assert_eq!(entries(&trio), Some(1));
    // Both speak from the same address, so the second one's is heard before it is asked for: at its own side.
    assert_eq!(trio.send_from(1), 0);
    assert_eq!(trio.send_from(0), 2);
    let down = PortPlan { link: false, ..trio.plan(0) };
    trio.switch.set_port(trio.ports[0], down);
    trio.switch.publish();
    assert_eq!(entries(&trio), Some(0), "it was behind the port that is down");
    trio.switch.set_port(trio.ports[0], trio.plan(0));
    trio.switch.publish();
    assert_eq!(trio.send_from(0), 2);
    trio.switch.remove_port(trio.ports[0]);
    trio.switch.publish();
    assert_eq!(entries(&trio), Some(0), "nor does the next port in its place inherit anything");
}

#[test]
fn learning_can_be_switched_off_and_on_and_outlives_the_ports() {
    let mut trio = Trio::new();
    let off = Learning { is_on: false, ..Learning::default() };
    trio.switch.set_learning(0, off).unwrap();
    trio.switch.publish();
    assert_eq!((trio.send_from(0), trio.send_from(1)), (2, 2), "as QEMU's hub does");
    assert!(trio.switch.fdb(0).is_none());
    trio.ports.iter().for_each(|port| trio.switch.set_port(*port, PortPlan::default()));
    trio.switch.publish();
    trio.switch.set_port(trio.ports[0], trio.plan(0));
    trio.switch.publish();
    assert_eq!((trio.switch.learning(0), trio.switch.fdb(0).is_none()), (off, true));
    trio.switch.set_learning(0, Learning { is_on: true, ageing_s: 7 }).unwrap();
    trio.switch.publish();
    trio.send_from(0);
    let fdb = trio.switch.fdb(0).unwrap();
    assert_eq!((fdb.counters().learned, fdb.ageing_s()), (1, 7));
    trio.switch.forget_hub(0);
    assert_eq!(trio.switch.learning(0), Learning::default());
}

#[test]
fn table_that_is_built_anew_keeps_what_was_learned() {
    let mut trio = Trio::new();
    trio.send_from(0);
    let fdb: *const _ = trio.switch.fdb(0).unwrap();
    let late = add(&mut trio.switch, receiving(&Arc::new(Sink::default()), None));
    trio.switch.publish();
    assert!(std::ptr::eq(fdb, trio.switch.fdb(0).unwrap()));
    assert_eq!(trio.switch.fdb(0).unwrap().find(SPEAKER.key(), trio.switch.now_s()), Some(trio.ports[0]));
    trio.switch.fdb(0).unwrap().add_static(own(7), late, 0).unwrap();
    assert_eq!(trio.send_from(0), 1, "only the port that came late");
    trio.switch.set_port(late, PortPlan { hub: Some(0), ..PortPlan::default() });
    trio.switch.publish();
    assert_eq!(trio.switch.fdb(0).unwrap().find(own(7).key(), 0), Some(late), "static entries survive that");
    trio.switch.set_port(late, PortPlan::default());
    assert_eq!(trio.switch.fdb(0).unwrap().find(own(7).key(), 0), None, "but not a move to elsewhere");
}

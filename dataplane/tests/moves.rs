//! A running switch whose duties move, hold and panic.

mod rig;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::port::{Arming, Attachment, Doorbell, Ingress, IngressEnd, IngressScratch};
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_dataplane::switch::{HubOptions, NoSuchWorker, PortPlan, Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;

use rig::{Room, Window, assert_balanced, end_of, options, own};

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { cores: vec![None; workers], mode: Mode::Adaptive }).unwrap()
}

fn add(switch: &mut Switch, plan: PortPlan) -> PortIndex {
    let port = switch.add_port().unwrap();
    switch.set_port(port, plan);
    port
}

fn plan(attachment: Attachment) -> PortPlan {
    let attachment = Attachment { carrier: true, ..attachment };
    PortPlan { hub: Some(0), link: true, filter: None, attachment }
}

fn sending(source: &Arc<Window>) -> PortPlan {
    plan(Attachment { ingress: vec![Arc::new(end_of(source))], ..Attachment::default() })
}

fn receiving(room: &Arc<Room>, mac: u16) -> PortPlan {
    let filter = Some(Arc::new(RxFilter::new(own(mac))));
    PortPlan { filter, ..plan(Attachment { egress: vec![room.clone()], ..Attachment::default() }) }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn duty_moves_a_thousand_times_and_its_flow_is_whole() {
    let mut switch = start(2);
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(usize::MAX)));
    let from = add(&mut switch, sending(&source));
    let to = add(&mut switch, receiving(&sink, 1));
    switch.publish();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                if source.waiting() < 200 {
                    source.send(own(1), sent..sent + 10);
                    sent += 10;
                }
                std::thread::yield_now();
            }
            sent
        });
        for round in 0..1000 {
            switch.move_duty(from, 0, round % 2).unwrap();
            switch.publish();
            assert_eq!(switch.worker_of(from, 0), Some(round % 2));
            // Now and then the flow runs dry and the duty parks before it moves.
            if round % 100 == 0 {
                let count = sink.count();
                wait_until("the flow to go on", || sink.count() > count);
            }
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    wait_until("all frames", || source.waiting() == 0);
    wait_until("their counts", || switch.counters(from).ingress.frames == sent);
    assert!(sink.numbers().into_iter().eq(0..sent), "in order, none lost, none twice");
    assert_balanced(&[switch.counters(from), switch.counters(to)]);
    let workers: Vec<usize> = switch.workers().iter().map(|worker| worker.duties).collect();
    assert_eq!(workers, [0, 1]);
}

#[test]
fn duty_that_was_parked_wakes_up_with_its_new_worker() {
    let mut switch = start(2);
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(usize::MAX)));
    let from = add(&mut switch, sending(&source));
    add(&mut switch, receiving(&sink, 1));
    switch.publish();
    for round in 0..200 {
        wait_until("sleep", || switch.workers().iter().all(|worker| worker.asleep));
        switch.move_duty(from, 0, (round % 2) as usize).unwrap();
        switch.publish();
        source.send(own(1), round..round + 1);
        wait_until("the frame", || sink.count() as u64 == round + 1);
    }
}

#[test]
fn chosen_worker_is_kept_when_the_queue_starts_anew() {
    let mut switch = start(3);
    assert_eq!(switch.add_port().map(|port| switch.move_duty(port, 0, 3)), Ok(Err(NoSuchWorker)));
    let source = Arc::new(Window::new(0));
    let port = add(&mut switch, plan(Attachment::default()));
    switch.move_duty(port, 0, 2).unwrap();
    switch.publish();
    assert_eq!(switch.worker_of(port, 0), None, "it is not started");
    for _ in 0..2 {
        switch.set_port(port, sending(&source));
        switch.publish();
        assert_eq!(switch.worker_of(port, 0), Some(2));
        switch.set_port(port, plan(Attachment::default()));
        switch.publish();
    }
    switch.move_duty(port, 0, 1).unwrap();
    switch.remove_port(port);
    switch.publish();
    assert_eq!(switch.worker_of(port, 0), None);
}

#[test]
fn worker_that_holds_does_not_sleep_and_moves_what_it_holds() {
    let mut switch = start(2);
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(0)));
    let from = add(&mut switch, sending(&source));
    let to = add(&mut switch, receiving(&sink, 1));
    switch.publish();
    for round in 0..100 {
        sink.make(1);
        source.send(own(1), round * 4..round * 4 + 4);
        wait_until("the first frame", || sink.count() as u64 > round * 4);
        switch.move_duty(from, 0, round as usize % 2).unwrap();
        switch.publish();
        // Room comes without anybody being told.
        sink.make(3);
        wait_until("all frames settled", || source.waiting() == 0);
        // A machine that is slow may have made it a stall: then the rest was dropped, and counted.
        let drops = || switch.counters(to).egress.drops[DropReason::NoRoom as usize];
        wait_until("the counts", || sink.count() as u64 + drops() == (round + 1) * 4);
        if drops() > 0 {
            return;
        }
    }
    assert!(sink.numbers().into_iter().eq(0..400));
}

#[test]
fn frames_held_for_a_port_that_goes_find_another_verdict() {
    let mut switch = start(1);
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(0)));
    let from = add(&mut switch, sending(&source));
    let to = add(&mut switch, receiving(&sink, 1));
    switch.publish();
    source.send(own(1), 0..4);
    wait_until("a send", || sink.sends() > 0);
    switch.remove_port(to);
    switch.publish();
    wait_until("all frames settled", || source.waiting() == 0);
    wait_until("the counts", || switch.counters(from).ingress.frames == 4);
    assert_balanced(&[switch.counters(from), switch.retired_counters()]);
    wait_until("sleep", || switch.workers()[0].asleep);
}

#[test]
fn options_of_a_hub_are_its_own() {
    let mut switch = start(1);
    let drops = options(FullReceiver::Drop);
    switch.set_hub_options(7, drops);
    assert_eq!((switch.hub_options(7), switch.hub_options(0)), (drops, HubOptions::default()));
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(1)));
    let from = add(&mut switch, PortPlan { hub: Some(7), ..sending(&source) });
    let to = add(&mut switch, PortPlan { hub: Some(7), ..receiving(&sink, 1) });
    switch.publish();
    source.send(own(1), 0..4);
    wait_until("the drops", || switch.counters(from).ingress.frames == 4);
    assert_eq!((sink.count(), switch.counters(to).egress.drops[DropReason::NoRoom as usize]), (1, 3));
    switch.set_default_hub_options(drops);
    switch.set_hub_options(7, HubOptions::default());
    assert_eq!((switch.hub_options(7), switch.hub_options(0)), (HubOptions::default(), drops));
}

/// Panics when it is polled.
struct Broken {
    failed: AtomicBool,
    polls: std::sync::atomic::AtomicU64,
}

impl Ingress for Broken {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut builder = scratch.burst.begin(0);
        builder.push_slice(&[0xff; 60]).unwrap();
        forward(&builder.burst());
        panic!("a mistake of ours, made on purpose");
    }
}

impl Doorbell for Broken {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&self) -> Arming {
        Arming::Work
    }

    fn disarm(&self) {}

    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

#[test]
fn panic_costs_one_duty_and_no_other() {
    let mut switch = start(1);
    let (source, sink) = (Arc::new(Window::new(0)), Arc::new(Room::new(usize::MAX)));
    let from = add(&mut switch, sending(&source));
    add(&mut switch, receiving(&sink, 1));
    let broken = Arc::new(Broken { failed: false.into(), polls: 0.into() });
    let end = || IngressEnd {
        queue: 0,
        ingress: broken.clone(),
        doorbell: broken.clone(),
        linger_us: 10,
        discard: None,
    };
    let bad = |end| plan(Attachment { ingress: vec![Arc::new(end)], ..Attachment::default() });
    let port = add(&mut switch, bad(end()));
    switch.publish();
    wait_until("the panic", || switch.workers()[0].panics == 1);
    assert!(broken.failed.load(Ordering::Relaxed), "its driver is told");
    let noise = sink.count();
    source.send(own(1), 0..1000);
    wait_until("the others' frames", || sink.count() == noise + 1000);
    wait_until("sleep", || switch.workers()[0].asleep);
    assert_eq!(broken.polls.load(Ordering::Relaxed), 1, "it is not polled again");
    assert_eq!(switch.counters(from).ingress.forwarded, 1000);
    switch.set_port(port, bad(end()));
    switch.publish();
    wait_until("a new end gets its chance", || switch.workers()[0].panics == 2);
}

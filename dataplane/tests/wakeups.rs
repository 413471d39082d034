//! Nobody sleeps over a frame: guests that kick only when asked and sleep until they are called, of all four kinds of
//! ring, while duties move and rings are made anew beside them.
//!
//! Waits are counted, not timed, so that a machine that puts this process aside for seconds does not fail it. For a long
//! run set `WAKEUPS_SECONDS`.

mod rig;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::port::{Attachment, IngressEnd};
use ringyard_dataplane::ring::{
    self, DriverMemory, DriverOptions, DriverRing, MemoryTable, Part, Ring, RingEnd, RingOptions,
    RingSignals, RingView,
};
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_dataplane::switch::{PortPlan, Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use rig::{assert_balanced, own};

const SIZE: u16 = 64;
const BUFFER_LEN: usize = 128;
const NET_LEN: usize = 12;
const FRAME_LEN: usize = 60;
/// Microseconds without a frame after which a duty parks.
const LINGER_US: u32 = 20;
/// Changes between two looks at whether all guests go on.
const CHANGES: u32 = 16;
/// One wait, and how many in a row in which nothing happens mean that nothing ever will.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const WAITS_MAX: u32 = 100;

/// One virtqueue, from both sides.
struct Queue {
    driver: DriverRing,
    memory: Arc<DriverMemory>,
    buffers: usize,
    kick: Arc<OwnedFd>,
    call: Arc<OwnedFd>,
}

/// What the switch's side of a queue is made of, again and again.
struct Device {
    ring: Arc<Ring>,
    layout: ring::RingLayout,
    kick: Arc<OwnedFd>,
    call: Arc<OwnedFd>,
}

/// A guest's port, as control has it.
struct Plug {
    table: Arc<MemoryTable>,
    options: RingOptions,
    send: Device,
    receive: Device,
}

struct Guest {
    send: Queue,
    receive: Queue,
}

/// What guests and control tell each other.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    received: AtomicU64,
    /// That came back, by guest.
    bursts: [AtomicU64; 4],
}

impl Queue {
    fn new(memory: &Arc<DriverMemory>, offset: usize, options: DriverOptions) -> Queue {
        let event = || Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap());
        let driver = DriverRing::new(memory.clone(), offset, SIZE, options).unwrap();
        let buffers = offset + DriverRing::footprint(SIZE);
        Queue { driver, memory: memory.clone(), buffers, kick: event(), call: event() }
    }

    fn footprint() -> usize {
        DriverRing::footprint(SIZE) + usize::from(SIZE) * BUFFER_LEN
    }

    fn device(&self, table: &Arc<MemoryTable>, options: RingOptions) -> Device {
        let layout = self.driver.layout();
        let view = RingView::new(table.clone(), layout, options, RingSignals::default()).unwrap();
        let ring = Arc::new(Ring::start(&view, None).unwrap());
        Device { ring, layout, kick: self.kick.clone(), call: self.call.clone() }
    }

    /// Adds a frame, or room for one.
    fn add(&mut self, writable: bool) -> bool {
        let Some(head) = self.driver.next_head() else { return false };
        let offset = self.buffers + usize::from(head) * BUFFER_LEN;
        let len = if writable { BUFFER_LEN } else { NET_LEN + FRAME_LEN };
        self.driver.add(Part { offset, len: len as u32, writable }).is_some()
    }

    fn publish(&mut self) {
        if self.driver.publish() {
            ring_bell(&self.kick);
        }
    }

    fn collect(&mut self) -> usize {
        std::iter::from_fn(|| self.driver.collect().unwrap()).count()
    }
}

impl Plug {
    fn view(&self, device: &Device) -> Arc<RingView> {
        let signals = RingSignals { call: Some(device.call.clone().into()), ..RingSignals::default() };
        Arc::new(RingView::new(self.table.clone(), device.layout, self.options, signals).unwrap())
    }

    /// Ends that are new, of rings that go on.
    fn plan(&self, mac: u16, link: bool) -> PortPlan {
        let kick = Some(self.send.kick.clone());
        let RingEnd { ingress, doorbell } =
            ring::ingress(self.view(&self.send), self.send.ring.clone(), 0, kick);
        let end = IngressEnd { queue: 0, ingress, doorbell, linger_us: LINGER_US, discard: None };
        let egress = vec![ring::egress(self.view(&self.receive), self.receive.ring.clone())];
        let attachment =
            Attachment { carrier: true, ingress: vec![Arc::new(end)], egress, rings: Vec::new() };
        PortPlan { hub: Some(0), link, filter: Some(Arc::new(RxFilter::new(own(mac)))), attachment }
    }

    /// As a driver does when it has made its ends anew.
    fn signal(&self) {
        ring_bell(&self.send.call);
        ring_bell(&self.receive.call);
    }
}

impl Guest {
    /// Of one of four kinds.
    fn new(kind: usize) -> (Guest, Plug) {
        let (packed, event_idx) = (kind & 1 == 1, kind & 2 == 2);
        let len = (2 * Queue::footprint()).next_multiple_of(4096);
        let memory = Arc::new(DriverMemory::new("wakeups", len).unwrap());
        let table = Arc::new(MemoryTable::new(vec![memory.region()]).unwrap());
        let options = DriverOptions { packed, event_idx, in_order: false };
        let mut send = Queue::new(&memory, 0, options);
        let receive = Queue::new(&memory, Queue::footprint(), options);
        let options = RingOptions { packed, event_idx, version_1: true, ..RingOptions::default() };
        let plug = Plug {
            send: send.device(&table, options),
            receive: receive.device(&table, options),
            table,
            options,
        };
        send.fill(own((kind as u16 + 1) % 4), own(kind as u16));
        let mut guest = Guest { send, receive };
        while guest.receive.add(true) {}
        guest.receive.publish();
        (guest, plug)
    }

    /// Sends bursts, each when the one before has come back, until told to stop. Says how many frames it sent.
    fn run(&mut self, seed: u64, told: &Told) -> u64 {
        let (mut dice, mut sent) = (Dice(seed), 0);
        while !told.stop.load(Ordering::Relaxed) {
            let count = 1 + dice.below(SIZE.into());
            let added = (0..count).take_while(|_| self.send.add(false)).count();
            self.send.publish();
            sent += added as u64;
            self.wait_until_back(added, &told.received);
            told.bursts[seed as usize - 1].fetch_add(1, Ordering::Relaxed);
            // About as long as it takes a duty to park.
            let pause = Instant::now() + Duration::from_micros(dice.below(4 * u64::from(LINGER_US)));
            while Instant::now() < pause {
                std::hint::spin_loop();
            }
        }
        sent
    }

    fn wait_until_back(&mut self, mut under_way: usize, received: &AtomicU64) {
        let mut waits = 0;
        while under_way > 0 {
            let back = self.send.collect();
            under_way -= back;
            if self.take(received) + back > 0 {
                waits = 0;
            } else if !self.wait() {
                waits += 1;
                assert!(waits < WAITS_MAX, "{under_way} frames were never taken");
            }
        }
    }

    /// Takes what came and makes room for as much. How many frames that is.
    fn take(&mut self, received: &AtomicU64) -> usize {
        let came = self.receive.collect();
        (0..came).for_each(|_| assert!(self.receive.add(true)));
        self.receive.publish();
        received.fetch_add(came as u64, Ordering::Relaxed);
        came
    }

    /// Sleeps until called, for one wait if there is nothing to be called for. Whether there is something.
    fn wait(&mut self) -> bool {
        let queues = [&self.send, &self.receive];
        for queue in queues {
            let _ = rustix::io::read(&*queue.call, &mut [0; 8]);
        }
        let asked = queues.map(|queue| queue.driver.ask_for_calls()) != [false; 2];
        let mut fds = queues.map(|queue| PollFd::new(&*queue.call, PollFlags::IN));
        let (mut called, mut waits) = (asked, 0);
        while !called {
            called = poll(&mut fds, Some(&WAIT)) != Ok(0);
            if called || queues.map(|queue| queue.driver.ask_for_calls()) == [false; 2] {
                break;
            }
            // What came is not looked at before the call for it.
            waits += 1;
            assert!(waits < WAITS_MAX, "frames came and nobody called");
        }
        queues.iter().for_each(|queue| queue.driver.ask_for_silence());
        called
    }
}

impl Queue {
    fn fill(&mut self, to: ringyard_dataplane::mac::Mac, from: ringyard_dataplane::mac::Mac) {
        for head in 0..usize::from(SIZE) {
            let frame = self.buffers + head * BUFFER_LEN + NET_LEN;
            self.memory.write(frame, &[to.0, from.0].concat());
            self.memory.write(frame + 12, &[0x88, 0xb5]);
        }
    }
}

fn ring_bell(eventfd: &OwnedFd) {
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// What control may do at any time.
struct Control {
    /// Ports that come and go.
    extra: Vec<PortIndex>,
    dice: Dice,
}

impl Control {
    fn change(&mut self, switch: &mut Switch, plugs: &[Plug], ports: &[PortIndex]) {
        let Control { extra, dice } = self;
        let which = dice.below(4) as usize;
        let mut remade = None;
        match dice.below(6) {
            0 | 1 => switch.move_duty(ports[which], 0, dice.below(2) as usize).unwrap(),
            2 | 3 => {
                switch.set_port(ports[which], plugs[which].plan(which as u16, dice.below(8) > 0));
                remade = Some(&plugs[which]);
            }
            4 if extra.len() < 8 => {
                let port = switch.add_port().unwrap();
                switch.set_port(port, PortPlan { hub: Some(0), link: true, ..PortPlan::default() });
                extra.push(port);
            }
            _ => extra.pop().into_iter().for_each(|port| switch.remove_port(port)),
        }
        // Now and then several changes are published at once.
        if remade.is_some() || dice.below(3) > 0 {
            switch.publish();
        }
        remade.into_iter().for_each(Plug::signal);
        thread::sleep(Duration::from_micros(dice.below(100)));
    }
}

fn nobody_sleeps_over_a_frame(mode: Mode) {
    let seconds = std::env::var("WAKEUPS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut switch = Switch::start(&SwitchConfig { cores: vec![None; 2], mode }).unwrap();
    let (mut guests, plugs): (Vec<Guest>, Vec<Plug>) = (0..4).map(Guest::new).unzip();
    let ports: Vec<PortIndex> = plugs.iter().map(|_| switch.add_port().unwrap()).collect();
    for (place, plug) in plugs.iter().enumerate() {
        switch.set_port(ports[place], plug.plan(place as u16, true));
    }
    switch.publish();
    let (told, mut control) =
        (Told::default(), Control { extra: Vec::new(), dice: Dice(0x9e37_79b9_7f4a_7c15) });
    let mut changes = 0u64;
    let sent: u64 = thread::scope(|scope| {
        let handles: Vec<_> = (1..)
            .zip(&mut guests)
            .map(|(seed, guest)| {
                let told = &told;
                scope.spawn(move || guest.run(seed, told))
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !handles.iter().any(|handle| handle.is_finished()) {
            (0..CHANGES).for_each(|_| control.change(&mut switch, &plugs, &ports));
            changes += u64::from(CHANGES);
            // Whoever is asleep by mistake must not be woken by the next change.
            let before = told.bursts.each_ref().map(|bursts| bursts.load(Ordering::Relaxed) + 2);
            while told.bursts.iter().zip(before).any(|(now, then)| now.load(Ordering::Relaxed) < then)
                && !handles.iter().any(|handle| handle.is_finished())
            {
                thread::sleep(Duration::from_micros(100));
            }
        }
        told.stop.store(true, Ordering::Relaxed);
        handles.into_iter().map(|handle| handle.join().unwrap()).sum()
    });
    let counters = || {
        let all = ports.iter().chain(&control.extra).map(|&port| switch.counters(port));
        all.chain([switch.retired_counters()]).collect::<Vec<_>>()
    };
    // A burst is counted when it has been given back.
    let counted = || counters().iter().map(|port| port.ingress.frames).sum::<u64>();
    while counted() < sent {
        thread::yield_now();
    }
    for guest in &mut guests {
        guest.take(&told.received);
    }
    let counters = counters();
    assert_balanced(&counters);
    let delivered: u64 = counters.iter().map(|port| port.egress.frames).sum();
    println!("{mode:?}: {changes} changes, {sent} frames sent, {delivered} delivered");
    assert_eq!((counted(), delivered), (sent, told.received.load(Ordering::Relaxed)));
    assert!(delivered > 0 && switch.workers().iter().all(|worker| worker.panics == 0));
}

#[test]
fn nobody_sleeps_over_a_frame_where_workers_sleep() {
    nobody_sleeps_over_a_frame(Mode::Adaptive);
}

#[test]
fn nobody_sleeps_over_a_frame_where_workers_poll() {
    nobody_sleeps_over_a_frame(Mode::Poll);
}

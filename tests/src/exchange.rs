//! Two guests that send to each other while something happens to the switch between them. Built-in ones do so without a
//! pause, in a thread of their own: nothing may be lost, and how long nothing arrived is measured. Real ones ping each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::traffic::{SEQUENCE, Template};

use crate::deadline::wait_for;
use crate::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use crate::slot::Slot;
use crate::switch::Switch;
use crate::{Error, Result};

/// Frames of a burst, at most.
pub const BURST: u64 = 64;
/// Frames under way in each direction, at most: all of them fit into a ring twice, so no receiver is full and none is
/// dropped for that.
const WINDOW: u64 = 64;
const FRAME_LEN: usize = 64;
/// How long what is under way at the end may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub struct Exchange {
    watched: Arc<Watched>,
    guests: JoinHandle<Result<([Flow; 2], [FrontEnd; 2])>>,
}

/// What the guests' thread tells.
#[derive(Default)]
struct Watched {
    stop: AtomicBool,
    received: AtomicU64,
    /// The longest time without a frame since this was set to 0, in microseconds.
    silence_us: AtomicU64,
}

/// What arrived of one direction.
#[derive(Debug, Default)]
pub struct Flow {
    /// Frames that were sent.
    pub sent: u64,
    /// The number of the next frame that never came, from 0.
    pub next: u64,
    /// Frames that came again.
    pub again: u64,
    /// How often the numbers went back.
    pub returns: u64,
    /// What was wrong first: a frame that came too early, or again after more than a burst.
    pub fault: Option<String>,
    last: u64,
}

impl Flow {
    fn take(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next || self.next - number > BURST {
            self.fault.get_or_insert(format!("{number} came where {} was to come", self.next));
        } else {
            self.again += 1;
            self.returns += u64::from(number != self.last + 1);
        }
        self.last = number;
    }
}

impl Exchange {
    /// Has guests number 0 and 1 send.
    pub fn start(mut guests: [FrontEnd; 2]) -> Exchange {
        let watched = Arc::new(Watched::default());
        let shared = watched.clone();
        // The guests outlive the traffic: they are unplugged when all is counted.
        let guests = thread::spawn(move || exchange(&mut guests, &shared).map(|flows| (flows, guests)));
        Exchange { watched, guests }
    }

    /// Waits until many more frames have arrived, `what` in the error, and at least one pause if it `has_paused`.
    pub fn wait(&self, what: &str, has_paused: bool) -> Result<()> {
        const FRAMES: u64 = 1000;
        const PAUSE_US: u64 = 1000;
        let before = self.watched.received.load(Ordering::Relaxed);
        wait_for(&format!("frames {what}"), PATIENCE, || {
            if self.guests.is_finished() {
                return Err(Error::new("the traffic ended"));
            }
            let received = self.watched.received.load(Ordering::Relaxed);
            let paused = self.watched.silence_us.load(Ordering::Relaxed) > PAUSE_US;
            Ok((received > before + FRAMES && (paused || !has_paused)).then_some(()))
        })
    }

    /// From here on pauses count.
    pub fn forget_pauses(&self) {
        self.watched.silence_us.store(0, Ordering::Relaxed);
    }

    /// The longest pause since.
    pub fn longest_pause(&self) -> Duration {
        Duration::from_micros(self.watched.silence_us.load(Ordering::Relaxed))
    }

    /// Lets what is under way arrive; the guests, still plugged, and what they got: that of guest 0's frames first.
    pub fn finish(self) -> Result<([Flow; 2], [FrontEnd; 2])> {
        self.watched.stop.store(true, Ordering::Relaxed);
        self.guests.join().map_err(|_| Error::new("the guests' thread panicked"))?
    }
}

/// Sends both ways until told to stop, and until all has arrived.
fn exchange(guests: &mut [FrontEnd; 2], watched: &Watched) -> Result<[Flow; 2]> {
    let mut flows = [Flow::default(), Flow::default()];
    let templates = [Template::new(0, 1, FRAME_LEN), Template::new(1, 0, FRAME_LEN)];
    let [Ok(a), Ok(b)] = templates else { return Err(Error::new("a frame length that fits")) };
    let mut templates = [a, b];
    let (mut last, mut stopped) = (Instant::now(), None);
    loop {
        if watched.stop.load(Ordering::Relaxed) {
            stopped.get_or_insert_with(Instant::now);
        }
        for port in [0, 1] {
            let (flow, send) = (&mut flows[port], &mut guests[port].guest.pair().send);
            send.reclaim().map_err(|fault| Error::new(fault.to_string()))?;
            while stopped.is_none() && flow.sent - flow.next < WINDOW && send.room() > 0 {
                send.send(templates[port].stamp(flow.sent));
                flow.sent += 1;
            }
            send.flush();
            let receive = &mut guests[1 - port].guest.pair().receive;
            let count = receive.receive(256, |frame| flow.take(frame.stamp(SEQUENCE).unwrap_or(u64::MAX)));
            let count = count.map_err(|error| Error::new(error.to_string()))?;
            if count > 0 {
                let silence = last.elapsed().as_micros() as u64;
                watched.silence_us.fetch_max(silence, Ordering::Relaxed);
                watched.received.fetch_add(count as u64, Ordering::Relaxed);
                last = Instant::now();
            }
        }
        let is_over = flows.iter().all(|flow| flow.next == flow.sent);
        if stopped.is_some_and(|since| is_over || since.elapsed() > DRAIN_TIME_MAX) {
            return Ok(flows);
        }
    }
}

/// Has one real guest of `switch` ping another so often, every 50 ms, while `something` happens to it: no answer is lost, and
/// the guests' links never go down.
pub fn ping_on(
    switch: &mut Switch,
    pings: u32,
    something: impl FnOnce(&mut Switch) -> Result<()>,
) -> Result<()> {
    let slot = Slot::take()?;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let name = format!("vm{number}");
        let socket = switch.plug_listening(&name, 0)?;
        let config = GuestConfig::new(number, NetAttach::connect(socket));
        switch.plug_nic(&name, &config.mac)?;
        guests.push(Guest::start(&slot, config)?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    let changes = "cat /sys/class/net/eth0/carrier_changes";
    let carrier = guests.iter_mut().map(|guest| guest.expect(changes)).collect::<Result<Vec<_>>>()?;
    let pings = guests[0].spawn(&format!("ping -c {pings} -i 0.05 10.0.0.2"))?;
    something(switch)?;
    let pings = guests[0].wait(&pings, Duration::from_secs(60))?;
    println!("{}", pings.stdout);
    assert!(pings.stdout.contains(" 0% packet loss"), "{}", pings.stdout);
    let after = guests.iter_mut().map(|guest| guest.expect(changes)).collect::<Result<Vec<_>>>()?;
    assert_eq!(carrier, after, "the guests' links never went down");
    Ok(())
}

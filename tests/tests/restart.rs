//! A switch that is killed again and again under traffic, and its keeper: guests lose nothing, see one burst twice at most a
//! kill, and wait a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Features, GuestConfig};
use ringyard_benches::traffic::{SEQUENCE, Template};
use ringyard_tests::deadline::wait_for;
use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, NetAttach};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Error, Result, guest};
use serde_json::json;

/// Frames under way, at most: all of them fit into a ring twice, so no receiver is full and none is dropped for that.
const WINDOW: u64 = 64;
/// Frames of a burst, at most.
const BURST: u64 = 64;
const FRAME_LEN: usize = 64;
const KILLS: usize = 100;
/// Kills whose pauses are one measurement, and how long these may be in the median.
const ROUND: usize = 20;
const PAUSE_US_MAX: u64 = 100_000;
/// A switch that lives no longer is one that cannot live, for its keeper.
const LIFE: Duration = Duration::from_millis(120);

/// What the guests' thread tells whoever kills.
#[derive(Default)]
struct Watched {
    stop: AtomicBool,
    received: AtomicU64,
    /// The longest time without a frame since this was set to 0, in microseconds.
    silence_us: AtomicU64,
}

/// What arrived of one direction.
#[derive(Default)]
struct Flow {
    sent: u64,
    /// The next number that never came.
    next: u64,
    again: u64,
    returns: u64,
    last: u64,
    fault: Option<String>,
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
        if stopped.is_some_and(|since| is_over || since.elapsed() > Duration::from_secs(10)) {
            return Ok(flows);
        }
    }
}

/// Kills the switch again and again between two built-in guests with these features.
fn kill_between_built_in_guests(features: Features) -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let config = GuestConfig { features, ..GuestConfig::default() };
    let guests = [switch.plug_guest(0, &config)?, switch.plug_guest(1, &config)?];
    let watched = Arc::new(Watched::default());
    let traffic = {
        let (watched, mut guests) = (watched.clone(), guests);
        // The guests outlive the traffic: they are unplugged when all is counted.
        thread::spawn(move || exchange(&mut guests, &watched).map(|flows| (flows, guests)))
    };
    let mut silences = Vec::new();
    for kill in 0..KILLS {
        let before = watched.received.load(Ordering::Relaxed);
        wait_for(&format!("frames before kill {kill}"), Duration::from_secs(20), || {
            let received = watched.received.load(Ordering::Relaxed);
            if traffic.is_finished() {
                return Err(Error::new("the traffic ended"));
            }
            Ok((received > before + 1000).then_some(()))
        })?;
        // At another instant each time, and late enough not to be taken for a switch that cannot live.
        thread::sleep(LIFE + Duration::from_micros((kill as u64 * 7919) % 5000));
        watched.silence_us.store(0, Ordering::Relaxed);
        let before = watched.received.load(Ordering::Relaxed);
        switch.kill_under_keeper()?;
        wait_for(&format!("frames after kill {kill}"), Duration::from_secs(20), || {
            let received = watched.received.load(Ordering::Relaxed);
            let has_paused = watched.silence_us.load(Ordering::Relaxed) > 1000;
            Ok((received > before + 1000 && has_paused).then_some(()))
        })?;
        silences.push(watched.silence_us.load(Ordering::Relaxed));
    }
    watched.stop.store(true, Ordering::Relaxed);
    let (flows, _guests) = traffic.join().map_err(|_| Error::new("the guests' thread panicked"))??;
    println!("{KILLS} kills: frames paused for {silences:?} us");
    let medians: Vec<u64> = silences.chunks_mut(ROUND).map(median).collect();
    println!("medians of {ROUND} kills: {medians:?} us");
    switch.reconnect()?;
    let stats = switch.stats()?;
    for (name, flow) in ["g0", "g1"].into_iter().zip(&flows) {
        let Flow { sent, next, again, returns, fault, .. } = flow;
        println!("{name}: {sent} frames, {again} of them again, {returns} times");
        assert_eq!(fault.as_deref(), None, "{name}");
        assert_eq!(next, sent, "{name} loses nothing");
        assert!(*returns <= KILLS as u64, "{name}: one burst a kill");
        let port = stats.port(name).ok_or_else(|| Error::new("the port is back"))?;
        println!("{name}: {} counted, {} uncertain", port.ingress.frames, port.uncertain);
        assert!(port.uncertain <= KILLS as u64 * BURST, "one burst a kill");
        assert!(
            port.ingress.frames.abs_diff(*sent) <= port.uncertain,
            "the books, as far as they are certain"
        );
    }
    // Each round is a measurement; others may have taken the machine for some of them.
    assert!(medians.iter().any(|&median| median <= PAUSE_US_MAX), "{medians:?}");
    switch.finish()
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn switch_killed_a_hundred_times_loses_no_frame_of_split_rings() -> Result<()> {
    let _slot = Slot::take()?;
    kill_between_built_in_guests(Features::SPLIT)
}

#[test]
fn switch_killed_a_hundred_times_loses_no_frame_of_packed_rings() -> Result<()> {
    let _slot = Slot::take()?;
    kill_between_built_in_guests(Features { in_order: false, ..Features::ALL })
}

#[test]
fn real_guests_ping_on_while_their_switch_is_killed_and_their_links_stay_up() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&["--keep"])?;
    let mut guests = Vec::new();
    for number in [1, 2] {
        let name = format!("vm{number}");
        let socket = switch.plug_listening(&name, 0)?;
        let config = guest::GuestConfig::new(number, NetAttach::connect(socket));
        switch.plug_nic(&name, &config.mac)?;
        guests.push(Guest::start(&slot, config)?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    let changes = "cat /sys/class/net/eth0/carrier_changes";
    let carrier = guests.iter_mut().map(|guest| guest.expect(changes)).collect::<Result<Vec<_>>>()?;
    // 15 s of it.
    let pings = guests[0].spawn("ping -c 300 -i 0.05 10.0.0.2")?;
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(300));
        switch.kill_under_keeper()?;
    }
    let pings = guests[0].wait(&pings, Duration::from_secs(60))?;
    println!("{}", pings.stdout);
    assert!(pings.stdout.contains(" 0% packet loss"), "{}", pings.stdout);
    let after = guests.iter_mut().map(|guest| guest.expect(changes)).collect::<Result<Vec<_>>>()?;
    assert_eq!(carrier, after, "the guests' links never went down");
    switch.reconnect()?;
    let netdevs = switch.qmp().execute("x-query-stats", json!({}));
    assert!(netdevs.is_ok(), "{netdevs:?}");
    switch.finish()
}

//! One trial: streams of numbered frames at a rate, and what became of each frame.
//!
//! One thread has all ports. Each turn it reads the clock, sends what is due, and takes what came. What is due follows
//! from the clock alone ([`super::pacer`]); a frame that finds no room in its ring is lost, as it is on a full wire. The
//! receiver checks the number and the length of every frame and all bytes of one in [`WHOLE_EVERY`].

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringyard_dataplane::mac::Mac;

use super::frame::{Frame, SIZE_MAX, SIZE_MIN, Shape, Size, Stamp};
use super::ledger::{Ledger, Wrongs};
use super::pacer::{Load, Pacer};
use super::port::{Port, Seen};
use crate::error::{Error, Result};
#[cfg(test)]
use crate::traffic::SEQUENCE;
use crate::traffic::guest_mac;

/// Frames of a stream that are sent in one turn.
const TURN: usize = 64;
/// Of so many frames one is compared byte for byte.
pub const WHOLE_EVERY: u64 = 32;
/// The flow of the frames whose way is timed.
const PROBE: u8 = 0xff;
/// Probes that may be under way.
const PROBES_MAX: usize = 4096;
/// Streams of one trial.
pub const STREAMS_MAX: usize = 64;
/// How long nothing may arrive until what is missing counts as lost, on a machine that leaves its cores alone.
pub const QUIET_TIME: Duration = Duration::from_millis(50);
/// How long what arrives after the end is waited for.
const LATE_TIME_MAX: Duration = Duration::from_secs(1);

/// Frames from one queue of one port to others.
pub struct Stream {
    from: usize,
    queue: usize,
    to: Vec<usize>,
    shape: Shape,
}

impl Stream {
    /// From queue `queue` of port `from` to port `to`; port `i` has the address [`guest_mac`]`(i)`.
    pub fn unicast(from: usize, queue: usize, to: usize, size: Size) -> Result<Stream> {
        let shape = Shape::new(guest_mac(from), guest_mac(to), size)?;
        Ok(Stream { from, queue, to: vec![to], shape })
    }

    /// From port `from` to all of `to`.
    pub fn broadcast(from: usize, to: Vec<usize>, size: Size) -> Result<Stream> {
        Ok(Stream { from, queue: 0, to, shape: Shape::new(guest_mac(from), Mac([0xff; 6]), size)? })
    }
}

/// What a trial does.
#[derive(Clone, Copy, Debug)]
pub struct TrialPlan {
    /// How much is sent.
    pub load: Load,
    /// How long.
    pub time: Duration,
    /// How often a probe is sent from stream 0, if at all.
    pub probe_every: Option<Duration>,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Frames that were due; of the greatest load, frames that were sent.
    pub offered: u64,
    /// Frames that found room.
    pub sent: u64,
    /// Frames that should have arrived: each offered one at each of its receivers.
    pub expected: u64,
    /// Frames that arrived, each counted once.
    pub received: u64,
    /// What else was wrong.
    pub wrongs: Wrongs,
    /// Frames that arrived at ports that they were not for, as a hub's do.
    pub stray: u64,
    /// Frames that no bench sent.
    pub foreign: u64,
    /// Frames that were compared byte for byte.
    pub compared: u64,
    /// From the first frame to the end of sending, or to the last arrival if that was later.
    pub elapsed: Duration,
    /// How long the generator had nothing to do while it was sending.
    pub waited: Duration,
    /// How long it was sending.
    pub sending: Duration,
    /// The longest time between two looks at the clock while it was sending.
    pub turn_max: Duration,
    /// Frames in a turn that sent some, on average.
    pub send_batch: f64,
    /// Frames in a turn that received some, on average.
    pub receive_batch: f64,
    /// One-way times of the probes, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Probes sent.
    pub probes: u64,
}

impl Trial {
    /// Frames that did not arrive.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// The part of the frames that did not arrive.
    pub fn loss_ratio(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { self.lost() as f64 / self.expected as f64 }
    }

    /// Frames that arrived, a second.
    pub fn receive_rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }

    /// The part of the time in which the generator had nothing to do.
    pub fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.sending.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The ports that trials send over.
pub struct Generator {
    /// The ports.
    pub ports: Vec<Port>,
    /// How long nothing may arrive until what is missing counts as lost.
    pub quiet_time: Duration,
    trial: u16,
}

impl Generator {
    /// Over those ports; what has not come when nothing came for `quiet_time` is lost.
    pub fn new(ports: Vec<Port>, quiet_time: Duration) -> Generator {
        Generator { ports, quiet_time, trial: 0 }
    }

    /// Runs one trial of those streams.
    pub fn run(&mut self, streams: &mut [Stream], plan: TrialPlan) -> Result<Trial> {
        self.run_beside(streams, plan, |_| Ok(()))
    }

    /// Runs one trial and calls `beside` about every [`BESIDE_EVERY`] while it sends.
    pub fn run_beside(
        &mut self,
        streams: &mut [Stream],
        plan: TrialPlan,
        mut beside: impl FnMut(Instant) -> Result<()>,
    ) -> Result<Trial> {
        if streams.is_empty() || streams.len() > STREAMS_MAX {
            return Err(Error::new(format!("a trial has 1 to {STREAMS_MAX} streams")));
        }
        self.trial = (self.trial + 1) & 0xfff;
        self.announce(streams)?;
        for stream in streams.iter_mut() {
            self.ports[stream.from].prepare(stream.queue, &mut stream.shape)?;
        }
        let mut count = Count::new(streams, self.ports.len(), self.trial);
        let start = Instant::now();
        let pacer = Pacer::new(plan.load, streams.len(), start, plan.time);
        let mut pacers = vec![pacer; streams.len()];
        let (mut idle, mut now, mut last) = (Idle::new(start), start, start);
        let mut next_beside = start;
        let mut probe_due = plan.probe_every.map(|every| start + every);
        while now - start < plan.time && !(plan.load_has_end() && pacers.iter().all(Pacer::is_done)) {
            let mut sent = self.send(streams, &mut pacers, now, &mut count)?;
            if let Some(due) = probe_due.filter(|due| now >= *due) {
                sent += usize::from(self.probe(&mut streams[0], &mut count)?);
                // Late ones are not made up for: two probes at once would time each other.
                let every = plan.probe_every.unwrap_or_default();
                probe_due = Some((due + every).max(now));
            }
            let received = self.receive(streams, &mut count)?;
            last = if received > 0 { now } else { last };
            if now >= next_beside {
                beside(now)?;
                next_beside = now + BESIDE_EVERY;
            }
            now = Instant::now();
            idle.turn(sent, received, now);
        }
        let end = now;
        let mut quiet_since = end;
        while now - quiet_since < self.quiet_time && now - end < LATE_TIME_MAX && !count.is_complete(&pacers)
        {
            now = Instant::now();
            if self.receive(streams, &mut count)? > 0 {
                (quiet_since, last) = (now, now);
            }
        }
        // The load had all this time, however soon the clock was looked at again.
        let elapsed =
            (last.max(end) - start).max(if plan.load_has_end() { Duration::ZERO } else { plan.time });
        Ok(count.finish(&pacers, elapsed, end - start, idle))
    }

    /// Has every receiver send one frame of an earlier trial, so that a switch that learns knows where it is.
    fn announce(&mut self, streams: &[Stream]) -> Result<()> {
        let stamp = Stamp { flow: 0, trial: self.trial.wrapping_sub(1), sequence: 0 };
        for stream in streams {
            for &receiver in &stream.to {
                let mut frame = Frame::new(guest_mac(receiver), guest_mac(stream.from), SIZE_MIN)?;
                self.ports[receiver].send_frame(frame.stamped(stamp.word()))?;
            }
        }
        self.drain()
    }

    /// Takes and forgets what still comes, until nothing does.
    pub fn drain(&mut self) -> Result<()> {
        let mut quiet_since = Instant::now();
        let end = quiet_since + LATE_TIME_MAX;
        while quiet_since.elapsed() < SETTLE_TIME && Instant::now() < end {
            for port in &mut self.ports {
                if port.receive(|_| ())? > 0 {
                    quiet_since = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// Sends what is due. How many frames found room.
    #[inline]
    fn send(
        &mut self,
        streams: &mut [Stream],
        pacers: &mut [Pacer],
        now: Instant,
        count: &mut Count,
    ) -> Result<usize> {
        let mut all = 0;
        for (flow, (stream, pacer)) in streams.iter_mut().zip(pacers).enumerate() {
            let due = pacer.due(now, TURN).min(TURN);
            if due == 0 {
                continue;
            }
            let port = &mut self.ports[stream.from];
            port.reclaim()?;
            let first = Stamp { flow: flow as u8, trial: self.trial, sequence: pacer.issued() };
            let sent = port.send(stream.queue, &mut stream.shape, first, due)?;
            pacer.issue(if pacer.is_open() { due } else { sent });
            count.sent += sent as u64;
            count.send_turns += u64::from(sent > 0);
            all += sent;
        }
        Ok(all)
    }

    /// Sends a probe. Whether there was room.
    fn probe(&mut self, stream: &mut Stream, count: &mut Count) -> Result<bool> {
        let port = &mut self.ports[stream.from];
        port.reclaim()?;
        let first = Stamp { flow: PROBE, trial: self.trial, sequence: count.probes };
        count.probe_sent[count.probes as usize % PROBES_MAX] = Some(Instant::now());
        let sent = port.send(stream.queue, &mut stream.shape, first, 1)? > 0;
        count.probes += u64::from(sent);
        Ok(sent)
    }

    #[inline]
    fn receive(&mut self, streams: &mut [Stream], count: &mut Count) -> Result<usize> {
        let mut all = 0;
        for (place, port) in self.ports.iter_mut().enumerate() {
            let received = port.receive(|seen| count.take(streams, place, &seen))?;
            count.receive_turns += u64::from(received > 0);
            count.taken += received as u64;
            all += received;
        }
        Ok(all)
    }
}

impl TrialPlan {
    fn load_has_end(&self) -> bool {
        matches!(self.load, Load::Burst { .. })
    }
}

/// What is counted during a trial.
struct Count {
    trial: u16,
    ports: usize,
    /// By flow and port: what that port saw of that flow, if it should see any.
    ledgers: Vec<Option<Ledger>>,
    sent: u64,
    taken: u64,
    send_turns: u64,
    receive_turns: u64,
    stray: u64,
    foreign: u64,
    compared: u64,
    probes: u64,
    probe_sent: Vec<Option<Instant>>,
    latency: Histogram<u64>,
    scratch: Vec<u8>,
}

impl Count {
    fn new(streams: &[Stream], ports: usize, trial: u16) -> Count {
        let cell = |place: usize| streams[place / ports].to.contains(&(place % ports)).then(Ledger::default);
        let mut latency = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are in order");
        latency.auto(false);
        Count {
            trial,
            ports,
            ledgers: (0..streams.len() * ports).map(cell).collect(),
            sent: 0,
            taken: 0,
            send_turns: 0,
            receive_turns: 0,
            stray: 0,
            foreign: 0,
            compared: 0,
            probes: 0,
            probe_sent: vec![None; PROBES_MAX],
            latency,
            scratch: vec![0; SIZE_MAX],
        }
    }

    #[inline]
    fn take(&mut self, streams: &mut [Stream], port: usize, seen: &Seen<'_>) {
        let Some(stamp) = seen.stamp() else {
            self.foreign += 1;
            return;
        };
        // What an earlier trial left behind was counted as lost there.
        if stamp.trial != self.trial {
            return;
        }
        let flow = usize::from(stamp.flow);
        if stamp.flow == PROBE {
            return self.take_probe(stamp.sequence);
        }
        let cell = self.ledgers.get_mut(flow * self.ports + port).filter(|_| port < self.ports);
        let Some(Some(ledger)) = cell else {
            self.stray += 1;
            return;
        };
        let frame = streams[flow].shape.frame(stamp.sequence);
        let whole = stamp.sequence % WHOLE_EVERY == u64::from(self.trial) % WHOLE_EVERY;
        let good = if whole {
            self.compared += 1;
            seen.equals(frame.stamped(stamp.word()), &mut self.scratch)
        } else {
            seen.len() == frame.len()
        };
        if good { ledger.count(stamp.sequence) } else { ledger.count_corrupted() }
    }

    fn take_probe(&mut self, sequence: u64) {
        let sent = self.probe_sent[sequence as usize % PROBES_MAX].take();
        // A second one of the same number is nobody's.
        match sent {
            Some(sent) => self.latency.saturating_record((sent.elapsed().as_nanos() as u64).max(1)),
            None => self.stray += 1,
        }
    }

    /// Whether nothing more can come.
    fn is_complete(&self, pacers: &[Pacer]) -> bool {
        let cells = self.ledgers.iter().enumerate();
        let mut expected = cells.filter_map(|(place, cell)| Some((place / self.ports, cell.as_ref()?)));
        expected.all(|(flow, ledger)| ledger.received() == pacers[flow].issued())
            && self.latency.len() == self.probes
    }

    fn finish(self, pacers: &[Pacer], elapsed: Duration, sending: Duration, idle: Idle) -> Trial {
        let mut wrongs = Wrongs::default();
        let (mut expected, mut received) = (0, 0);
        for (place, cell) in self.ledgers.iter().enumerate() {
            let Some(ledger) = cell else { continue };
            expected += pacers[place / self.ports].issued();
            received += ledger.received();
            wrongs.add(ledger.wrongs());
        }
        let mean = |count: u64, turns: u64| if turns == 0 { 0.0 } else { count as f64 / turns as f64 };
        Trial {
            offered: pacers.iter().map(Pacer::issued).sum(),
            sent: self.sent,
            expected,
            received,
            wrongs,
            stray: self.stray,
            foreign: self.foreign,
            compared: self.compared,
            elapsed,
            waited: idle.waited,
            sending,
            turn_max: idle.turn_max,
            send_batch: mean(self.sent, self.send_turns),
            receive_batch: mean(self.taken, self.receive_turns),
            latency: self.latency,
            probes: self.probes,
        }
    }
}

/// The time of turns that moved nothing, and the longest turn.
struct Idle {
    since: Instant,
    waited: Duration,
    turn_max: Duration,
}

impl Idle {
    fn new(start: Instant) -> Idle {
        Idle { since: start, waited: Duration::ZERO, turn_max: Duration::ZERO }
    }

    #[inline]
    fn turn(&mut self, sent: usize, received: usize, now: Instant) {
        let turn = now - self.since;
        self.since = now;
        self.turn_max = self.turn_max.max(turn);
        if sent == 0 && received == 0 {
            self.waited += turn;
        }
    }
}

/// After the announcements, before a trial.
const SETTLE_TIME: Duration = Duration::from_millis(2);
/// How often something else is looked after during a trial.
const BESIDE_EVERY: Duration = Duration::from_micros(200);
/// Latencies above it count as this: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;

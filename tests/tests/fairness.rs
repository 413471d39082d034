//! Neighbours that flood, senders that want more than there is, and what is left of it when they stop: F01 and F04 with
//! what lies between.
//!
//! One thread is all guests: each turn it sends what is due, and receivers take what they may. It has a core, and the
//! switch's worker has the other; so what a figure says is what the switch did, as far as the machine left both alone. What
//! a machine that does not may spoil, a frame's time, is measured again before it counts as missed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{BUFFER_LEN, GuestConfig};
use ringyard_benches::load::median;
use ringyard_benches::pin::Pinned;
use ringyard_benches::traffic::{SEQUENCE, Template, Verifier, guest_mac};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};

const SHORT: usize = 64;
const LONG: usize = 1514;
/// Frames that are sent or taken in a turn.
const TURN: usize = 64;

/// Frames that fall due at a rate, or as many as there is room for.
struct Pace {
    rate: Option<f64>,
    since: Instant,
    done: u64,
}

impl Pace {
    fn new(rate: Option<f64>) -> Pace {
        Pace { rate, since: Instant::now(), done: 0 }
    }

    /// What was due while this thread was kept from running is not made up for: that would be another rate.
    fn due(&mut self) -> usize {
        let Some(rate) = self.rate else { return TURN };
        let due = (self.since.elapsed().as_secs_f64() * rate) as u64;
        self.done = self.done.max(due.saturating_sub(TURN as u64));
        due.saturating_sub(self.done) as usize
    }
}

/// Numbered frames from one guest to another, each timed.
struct Lane {
    from: usize,
    to: usize,
    pace: Pace,
    template: Template,
    verifier: Verifier,
    sent: u64,
    /// Frames that were due and found no room in the sender's ring: gone, as on a full wire.
    refused: u64,
    /// When the frames under way were sent, oldest first.
    under_way: VecDeque<(u64, Instant)>,
    /// One-way times.
    times: Vec<Duration>,
    /// Of a flood, the frame: it is sent as it is and only counted, since to number each, and to look at it, takes longer than
    /// all that the switch does, and whoever shares the thread would wait for it.
    flood: Option<Vec<u8>>,
    /// Frames of it that arrived.
    counted: u64,
}

impl Lane {
    fn new(from: usize, to: usize, length: usize, rate: Option<f64>) -> Result<Lane> {
        let template = Template::new(from, to, length).doing("making a frame")?;
        Ok(Lane {
            from,
            to,
            pace: Pace::new(rate),
            verifier: Verifier::new(&template),
            template,
            sent: 0,
            refused: 0,
            under_way: VecDeque::new(),
            times: Vec::new(),
            flood: None,
            counted: 0,
        })
    }

    fn flood(from: usize, to: usize, length: usize) -> Result<Lane> {
        let mut lane = Lane::new(from, to, length, None)?;
        lane.flood = Some(lane.template.stamp(0).to_vec());
        Ok(lane)
    }

    fn send(&mut self, guests: &mut [FrontEnd]) -> Result<()> {
        let due = self.pace.due();
        if due == 0 {
            return Ok(());
        }
        let send = &mut guests[self.from].guest.pair().send;
        send.reclaim().doing("taking back buffers")?;
        if let Some(frame) = &self.flood {
            self.sent += (0..due).take_while(|_| send.send(frame)).count() as u64;
            send.flush();
            return Ok(());
        }
        let now = Instant::now();
        let first = self.sent;
        while self.sent - first < due as u64 && send.send(self.template.stamp(self.sent)) {
            self.under_way.push_back((self.sent, now));
            self.sent += 1;
        }
        send.flush();
        if self.pace.rate.is_some() {
            self.pace.done += due as u64;
            self.refused += due as u64 - (self.sent - first);
        }
        Ok(())
    }

    fn is_of(&self, frame: &[u8]) -> bool {
        frame[..6] == guest_mac(self.to).0 && frame[6..12] == guest_mac(self.from).0
    }

    fn take(&mut self, frame: &[u8]) {
        self.verifier.check(frame);
        let number = u64::from_le_bytes(frame[SEQUENCE..SEQUENCE + 8].try_into().expect("8 bytes"));
        while let Some(&(next, at)) = self.under_way.front()
            && next <= number
        {
            self.under_way.pop_front();
            if next == number {
                self.times.push(at.elapsed());
            }
        }
    }

    /// The 99th percentile of the times since the last call, in microseconds.
    fn slowest_hundredth_us(&mut self) -> f64 {
        let mut times = std::mem::take(&mut self.times);
        times.sort();
        times.get(times.len() * 99 / 100).map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e6)
    }

    fn assert_whole(&self) {
        let faults = self.verifier.faults_so_far();
        assert_eq!((faults.corrupted, faults.reordered, faults.foreign), (0, 0, 0), "{faults:?}");
    }
}

/// The guests of a switch, and what they send each other.
struct Yard {
    guests: Vec<FrontEnd>,
    lanes: Vec<Lane>,
    /// By guest: how fast it takes frames.
    takes: Vec<Pace>,
    turns: usize,
}

impl Yard {
    fn new(switch: &mut Switch, guests: usize, lanes: Vec<Lane>) -> Result<Yard> {
        let plug = |index| switch.plug_guest(index, &GuestConfig::default());
        let guests = (0..guests).map(plug).collect::<Result<Vec<_>>>()?;
        Ok(Yard { takes: guests.iter().map(|_| Pace::new(None)).collect(), guests, lanes, turns: 0 })
    }

    /// Everybody's turn; of lanes, the turn of those that `sends`.
    fn turn(&mut self, sends: impl Fn(&Lane) -> bool) -> Result<()> {
        let Yard { guests, lanes, takes, turns } = self;
        // Whoever is first finds what room there is: it is another one each time.
        let first = *turns % lanes.len().max(1);
        *turns += 1;
        let (before, behind) = lanes.split_at_mut(first);
        for lane in behind.iter_mut().chain(before).filter(|lane| sends(lane)) {
            lane.send(guests)?;
        }
        let mut buffer = [0; BUFFER_LEN];
        for (index, (guest, pace)) in guests.iter_mut().zip(takes).enumerate() {
            let due = pace.due();
            let flood = lanes.iter_mut().find(|lane| lane.to == index && lane.flood.is_some());
            if let Some(flood) = flood {
                let received = guest.guest.pair().receive.receive(due, |_| {});
                flood.counted += received.doing("receiving")? as u64;
                continue;
            }
            let received = guest.guest.pair().receive.receive(due, |frame| {
                let frame = frame.copy_to(&mut buffer);
                let lane = lanes.iter_mut().find(|lane| lane.to == index && lane.is_of(frame));
                lane.expect("frames go where they were sent").take(frame);
            });
            // A receiver that had nothing to take has not saved its time up.
            received.doing("receiving")?;
            pace.done += due as u64;
        }
        Ok(())
    }

    fn run(&mut self, time: Duration, sends: impl Fn(&Lane) -> bool) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(&sends)?;
        }
        Ok(())
    }

    /// Lets everything arrive that is under way.
    fn drain(&mut self) -> Result<()> {
        self.takes.iter_mut().for_each(|pace| *pace = Pace::new(None));
        let (began, mut quiet_since) = (Instant::now(), Instant::now());
        while quiet_since.elapsed() < QUIET && began.elapsed() < DRAIN_TIME_MAX {
            self.turn(|_| false)?;
            if self.lanes.iter().any(|lane| !lane.under_way.is_empty()) {
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }
}

/// For so long there is nothing under way that was sent and timed: nor is there of a flood.
const QUIET: Duration = Duration::from_millis(20);
/// What has not come by then does not.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Starts a switch whose worker has a core, and gives this thread, which is the guests, another one.
fn start(args: &[&str]) -> Result<(Switch, Pinned)> {
    Ok((Switch::start(&[&["--cores", "0"], args].concat())?, Pinned::to(1).doing("pinning the guests")?))
}

/// What a flood did to a victim.
struct Harm {
    lost: u64,
    /// Frames that found no room: of the rounds without the flood, and with it.
    refused: [u64; 2],
    /// Its p99 beside the flood, to that without.
    ratio: f64,
}

/// Rounds with the flood and without it take turns, so that the machine's moods meet both.
fn flood(args: &[&str], flood_len: usize) -> Result<Harm> {
    let (mut switch, _pinned) = start(args)?;
    let lanes = vec![Lane::new(0, 1, 200, Some(10_000.0))?, Lane::flood(2, 3, flood_len)?];
    let mut yard = Yard::new(&mut switch, 4, lanes)?;
    let (mut quiet, mut flooded, mut frames) = (Vec::new(), Vec::new(), 0);
    let mut refused = [0; 2];
    for round in 0..2 * ROUNDS {
        let floods = round % 2 == 1;
        let before = yard.lanes[1].counted;
        let refused_before = yard.lanes[0].refused;
        yard.lanes[0].pace = Pace::new(Some(10_000.0));
        yard.run(ROUND, |lane| floods || lane.from == 0)?;
        frames += yard.lanes[1].counted - before;
        refused[usize::from(floods)] += yard.lanes[0].refused - refused_before;
        let times = if floods { &mut flooded } else { &mut quiet };
        times.push(yard.lanes[0].slowest_hundredth_us());
        yard.drain()?;
        yard.lanes[0].times.clear();
    }
    let victim = &yard.lanes[0];
    yard.lanes.iter().for_each(Lane::assert_whole);
    let harm = Harm {
        lost: victim.verifier.faults(victim.sent).lost,
        refused,
        ratio: median(&flooded) / median(&quiet),
    };
    println!(
        "F01 {args:?}: of a victim's {} frames {} were lost and {:?} found no room, without and with a flood; p99 {:.0} us, and {:.0} us beside {:.2} Mpps \
         of {flood_len} B: {:.2}",
        victim.sent,
        harm.lost,
        harm.refused,
        median(&quiet),
        median(&flooded),
        frames as f64 / (ROUND * ROUNDS).as_secs_f64() / 1e6,
        harm.ratio,
    );
    switch.finish()?;
    Ok(harm)
}

/// What a victim's p99 may be beside a flood, to what it is without.
const P99_RATIO_MAX: f64 = 2.0;
/// How often a machine may spoil a measurement before it counts.
const ATTEMPTS: usize = 8;
/// Of four that are equal; 1 is the most there is.
const JAIN_MIN: f64 = 0.98;
/// Short ones: whatever takes the machine away for some milliseconds now and then spoils few of them, and so no median.
const ROUNDS: u32 = 15;
const ROUND: Duration = Duration::from_millis(100);

#[test]
fn f01_flooding_neighbour_costs_a_victim_no_frame() -> Result<()> {
    let _slot = Slot::take()?;
    // Where the machine keeps the worker from running, frames find no room in rounds of either kind.
    let bearable = |(refused, ratio): &([u64; 2], f64)| refused[1] <= refused[0] && *ratio <= P99_RATIO_MAX;
    for (args, length) in
        [(&[][..], SHORT), (&[], LONG), (&["--mode", "poll"], SHORT), (&["--mode", "poll"], LONG)]
    {
        let mut harms = Vec::new();
        for _ in 0..ATTEMPTS {
            let harm = flood(args, length)?;
            assert_eq!(harm.lost, 0, "the switch loses nothing of a victim");
            harms.push((harm.refused, harm.ratio));
            if harms.last().is_some_and(bearable) {
                break;
            }
        }
        assert!(harms.iter().any(bearable), "frames that found no room, and p99 to p99: {harms:?}");
    }
    Ok(())
}

/// Jain's index: 1 if all have the same, 1/n if one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    sum * sum / (shares.len() as f64 * squares)
}

/// Four guests send to a fifth, which takes half of what they have; Jain's index of what arrived.
fn share(args: &[&str], rate: Option<f64>) -> Result<f64> {
    let (mut switch, _pinned) = start(args)?;
    let lanes = (0..4).map(|from| Lane::new(from, 4, 200, rate)).collect::<Result<_>>()?;
    let mut yard = Yard::new(&mut switch, 5, lanes)?;
    yard.takes[4] = Pace::new(Some(50_000.0));
    yard.lanes.iter_mut().for_each(|lane| lane.pace = Pace::new(rate));
    yard.run(Duration::from_secs(1), |_| true)?;
    let shares: Vec<f64> = yard.lanes.iter().map(|lane| lane.verifier.frames() as f64).collect();
    yard.lanes.iter().for_each(Lane::assert_whole);
    println!("{args:?}, {rate:?} frames/s each: shares {shares:?}, Jain's index {:.4}", jain(&shares));
    yard.drain()?;
    switch.finish()?;
    Ok(jain(&shares))
}

#[test]
fn four_equal_senders_share_a_receiver_that_takes_half() -> Result<()> {
    let _slot = Slot::take()?;
    for args in [&[][..], &["--full-receiver", "drop"]] {
        for rate in [Some(25_000.0), None] {
            let mut indexes = Vec::new();
            while indexes.len() < ATTEMPTS && indexes.last().is_none_or(|&index| index < JAIN_MIN) {
                indexes.push(share(args, rate)?);
            }
            assert!(indexes.last().is_some_and(|&index| index >= JAIN_MIN), "{indexes:?}");
        }
    }
    Ok(())
}

/// A receiver is offered 150 % of what it takes, then 75 %: how long until what had piled up is gone.
fn recover(yard: &mut Yard) -> Result<Duration> {
    let takes = 100_000.0;
    yard.takes[1] = Pace::new(Some(takes));
    yard.lanes[0].pace = Pace::new(Some(1.5 * takes));
    let before = yard.lanes[0].refused + yard.lanes[0].verifier.faults_so_far().lost;
    yard.run(Duration::from_secs(1), |_| true)?;
    let lane = &mut yard.lanes[0];
    assert!(lane.refused + lane.verifier.faults_so_far().lost > before, "that was no overload");
    lane.pace = Pace::new(Some(0.75 * takes));
    lane.times.clear();
    let change = Instant::now();
    let mut recovered = Duration::MAX;
    while change.elapsed() < Duration::from_millis(500) {
        yard.turn(|_| true)?;
        let lane = &yard.lanes[0];
        if recovered == Duration::MAX && lane.under_way.len() < TURN / 2 {
            recovered = change.elapsed();
        }
    }
    Ok(recovered)
}

const RECOVERY_MS_MAX: f64 = 100.0;

#[test]
fn f04_overload_is_over_soon_after_it_ends() -> Result<()> {
    let _slot = Slot::take()?;
    for args in [&[][..], &["--full-receiver", "drop"]] {
        let (mut switch, _pinned) = start(args)?;
        let mut yard = Yard::new(&mut switch, 2, vec![Lane::new(0, 1, 200, None)?])?;
        let mut medians = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut times = Vec::new();
            for _ in 0..3 {
                times.push(recover(&mut yard)?.as_secs_f64() * 1e3);
                yard.drain()?;
            }
            println!("F04 {args:?}: recovered within {times:.0?} ms");
            medians.push(median(&times));
            if median(&times) <= RECOVERY_MS_MAX {
                break;
            }
        }
        yard.lanes[0].assert_whole();
        assert!(medians.iter().any(|&median| median <= RECOVERY_MS_MAX), "{medians:?}");
        switch.finish()?;
    }
    Ok(())
}

//! Load in one direction or in both, and the rate that comes out: how switches are compared.
//!
//! A closed loop with as many frames under way as the receiver has buffers, so a switch that keeps its hands on every
//! frame loses none, and the rate is its rate at no loss. The driver polls, does as little as it can a frame (8 bytes
//! written, 8 read) and checks every sequence number.

use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result};
use crate::guest::{Guest, ReceiveQueue, SendQueue};
use crate::traffic::{Faults, SEQUENCE, Template, Verifier};

/// Frames sent or received in one turn.
const TURN: usize = 64;
/// Turns between two looks at the clock.
const TURNS_PER_CLOCK: u32 = 16;
/// How long nothing may arrive.
const STALL_TIME: Duration = Duration::from_secs(2);

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Frames that arrived.
    pub frames: u64,
    /// In this time.
    pub elapsed: Duration,
    /// Of which the driver had nothing to send or to receive. A driver that never waits measures itself.
    pub waited: Duration,
    /// Turns in which it sent or received something: frames a turn say how large the switch's batches are.
    pub busy_turns: u64,
    /// What went wrong.
    pub faults: Faults,
}

impl Round {
    /// The part of the time in which the driver waited for the switch.
    pub fn waiting(&self) -> f64 {
        self.waited.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Million frames a second.
    pub fn mpps(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64() / 1e6
    }
}

/// Sends frames of `frame_len` bytes from guest 0 (`from`) to guest 1 (`to`) for `time`, then until all have arrived.
pub fn measure(from: &mut Guest, to: &mut Guest, frame_len: usize, time: Duration) -> Result<Round> {
    let mut lane = Lane::new((0, from), (1, to), frame_len)?;
    let (sender, receiver) = (&mut from.pair().send, &mut to.pair().receive);
    drive(std::slice::from_mut(&mut lane), time, |lanes, sending| lanes[0].turn(sender, receiver, sending))
}

/// As [`measure`], in both directions at once; what comes out is the sum of both.
pub fn measure_both(a: &mut Guest, b: &mut Guest, frame_len: usize, time: Duration) -> Result<Round> {
    let mut lanes = [Lane::new((0, a), (1, b), frame_len)?, Lane::new((1, b), (0, a), frame_len)?];
    let (a, b) = (a.pair(), b.pair());
    drive(&mut lanes, time, |lanes, sending| {
        let there = lanes[0].turn(&mut a.send, &mut b.receive, sending)?;
        let back = lanes[1].turn(&mut b.send, &mut a.receive, sending)?;
        Ok(Moved { sent: there.sent | back.sent, received: there.received | back.received })
    })
}

/// Takes turns on all lanes at once for `time`, then until all frames have arrived.
#[inline(always)]
fn drive(
    lanes: &mut [Lane],
    time: Duration,
    mut turn: impl FnMut(&mut [Lane], bool) -> Result<Moved>,
) -> Result<Round> {
    let start = Instant::now();
    let (mut now, mut progress, mut turns, mut idle) = (start, start, 0u32, Idle::default());
    loop {
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_CLOCK) {
            now = Instant::now();
        }
        let sending = now - start < time;
        let moved = turn(lanes, sending)?;
        idle.turn(!moved.sent && !moved.received);
        if moved.received {
            progress = now;
        } else if !sending && (lanes.iter().all(Lane::is_empty) || now - progress > LAST_TIME) {
            break;
        } else if now - progress > STALL_TIME {
            return Err(Error::new(format!("nothing arrived for {} s", STALL_TIME.as_secs())));
        }
    }
    let Idle { waited, busy_turns, .. } = idle;
    let (mut frames, mut faults) = (0, Faults::default());
    for lane in lanes {
        frames += lane.verifier.frames();
        faults.add(Faults { foreign: lane.foreign, ..lane.verifier.faults(lane.sent) });
    }
    Ok(Round { frames, elapsed: progress - start, waited, busy_turns, faults })
}

/// Whether a turn sent or received anything.
struct Moved {
    sent: bool,
    received: bool,
}

/// One direction.
struct Lane {
    frame_len: usize,
    window: usize,
    verifier: Verifier,
    sent: u64,
    foreign: u64,
}

impl Lane {
    /// Waits until all buffers of `from` are free, and fills them with frames to `to`.
    fn new(from: (usize, &mut Guest), to: (usize, &mut Guest), frame_len: usize) -> Result<Lane> {
        let mut template = Template::new(from.0, to.0, frame_len)?;
        let (sender, receiver) = (&mut from.1.pair().send, &to.1.pair().receive);
        let window = usize::from(sender.queue().layout().size.min(receiver.queue().layout().size));
        settle(|| sender.reclaim().doing("taking back sent buffers").map(|_| sender.room() >= window))?;
        sender.prepare(template.stamp(0));
        Ok(Lane { frame_len, window, verifier: Verifier::new(&template), sent: 0, foreign: 0 })
    }

    #[inline(always)]
    fn turn(&mut self, sender: &mut SendQueue, receiver: &mut ReceiveQueue, sending: bool) -> Result<Moved> {
        let Lane { frame_len, window, verifier, sent, foreign } = self;
        sender.reclaim().doing("taking back sent buffers")?;
        let under_way = sent.saturating_sub(verifier.next()) as usize;
        let allowed = if sending { (*window - under_way.min(*window)).min(TURN) } else { 0 };
        let before = *sent;
        *sent += sender.send_row(allowed, *frame_len, SEQUENCE, |place| before + place as u64) as u64;
        sender.flush();
        let received = receiver.receive(TURN, |frame| match frame.stamp(SEQUENCE) {
            Some(sequence) if frame.len() == *frame_len => verifier.count(sequence),
            _ => *foreign += 1,
        })?;
        Ok(Moved { sent: *sent != before, received: received > 0 })
    }

    /// Whether nothing is under way.
    fn is_empty(&self) -> bool {
        self.sent == self.verifier.next()
    }
}

/// The time of turns that moved nothing. The clock is read when idleness begins and when it ends, never while busy.
#[derive(Default)]
struct Idle {
    since: Option<Instant>,
    waited: Duration,
    busy_turns: u64,
}

impl Idle {
    #[inline]
    fn turn(&mut self, idle: bool) {
        match (idle, self.since) {
            (true, None) => self.since = Some(Instant::now()),
            (false, Some(since)) => {
                self.waited += since.elapsed();
                self.since = None;
            }
            _ => {}
        }
        self.busy_turns += u64::from(!idle);
    }
}

/// Sends frames from guest 0 (`from`) to guest 1 (`to`) until one arrives: a switch may still be busy plugging in.
pub fn open_way(from: &mut Guest, to: &mut Guest) -> Result<()> {
    open_way_between((0, from), (1, to))
}

/// As [`open_way`], between guests of any number.
pub fn open_way_between(from: (usize, &mut Guest), to: (usize, &mut Guest)) -> Result<()> {
    let mut probe = Template::probe(from.0, to.0)?;
    let (from, to) = (from.1, to.1);
    let mut last: Option<Instant> = None;
    settle(|| {
        from.pair().send.reclaim().doing("taking back sent buffers")?;
        if last.is_none_or(|last| last.elapsed() > PROBE_PAUSE) {
            last = Some(Instant::now());
            from.pair().send.send(probe.stamp(0));
            from.pair().send.flush();
        }
        Ok(to.pair().receive.receive(TURN, |_| ())? > 0)
    })
    .doing("waiting for a first frame")?;
    // What is still under way must not be there when the measurement begins.
    let end = Instant::now() + QUIET_TIME;
    while Instant::now() < end {
        to.pair().receive.receive(TURN, |_| ())?;
    }
    Ok(())
}

/// The middle of some values; of an even number, the lower one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn settle(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    while !done()? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("not within {} s", SETTLE_TIME_MAX.as_secs())));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// How long the frames under way may take when no more are sent; what has not come by then is lost.
const LAST_TIME: Duration = Duration::from_secs(1);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);
const PROBE_PAUSE: Duration = Duration::from_millis(10);
const QUIET_TIME: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use ringyard_dataplane::switch::{Switch, SwitchConfig};
    use ringyard_dataplane::worker::Mode;

    use super::*;
    use crate::bare;
    use crate::guest::{Features, GuestConfig};
    use crate::traffic::guest_mac;

    #[test]
    fn hundred_thousand_frames_pass_a_switch_of_this_process_without_loss() {
        let mut switch = Switch::start(&SwitchConfig { cores: vec![None], mode: Mode::Adaptive }).unwrap();
        let mut guest = |index| {
            let features = Features { in_order: false, ..Features::SPLIT };
            let guest = Guest::new(&GuestConfig::default(), features).unwrap();
            bare::plug(&mut switch, &guest, guest_mac(index)).unwrap();
            guest
        };
        let (mut from, mut to) = (guest(0), guest(1));
        switch.publish();
        open_way(&mut from, &mut to).unwrap();
        for frame_len in [64, 1500] {
            let mut frames = 0;
            while frames < 50_000 {
                let round = measure(&mut from, &mut to, frame_len, Duration::from_millis(100)).unwrap();
                assert_eq!(round.faults, Faults::default());
                frames += round.frames;
            }
            let both = measure_both(&mut from, &mut to, frame_len, Duration::from_millis(100)).unwrap();
            assert_eq!(both.faults, Faults::default());
            assert!(both.frames > 0);
        }
    }

    #[test]
    fn frames_lost_in_either_direction_are_counted() {
        let features = Features { in_order: false, event_idx: false, ..Features::SPLIT };
        let guest = || Guest::new(&GuestConfig::default(), features).unwrap();
        let (mut a, mut b) = (guest(), guest());
        let mut lanes = [Lane::new((0, &mut a), (1, &mut b), 64), Lane::new((1, &mut b), (0, &mut a), 64)]
            .map(|lane| lane.unwrap());
        let mut turns = 0;
        // The first lane delivers all of its three frames, the second lane delivers the last one only.
        let round = drive(&mut lanes, Duration::ZERO, |lanes, _| {
            turns += 1;
            if turns == 1 {
                lanes.iter_mut().for_each(|lane| lane.sent = 3);
                (0..3).for_each(|sequence| lanes[0].verifier.count(sequence));
                lanes[1].verifier.count(2);
            }
            Ok(Moved { sent: turns == 1, received: turns == 1 })
        })
        .unwrap();
        assert_eq!((round.frames, round.faults.lost), (4, 2));
    }

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}

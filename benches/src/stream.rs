//! A numbered stream of frames from one guest to one or several: as fast as the slowest receiver's buffers
//! allow, or at a given rate. It tells what was lost, and the longest time in which nothing arrived.

use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result};
use crate::guest::Guest;
use crate::traffic::{SEQUENCE, Template, Verifier};

/// How fast frames are sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// No more under way than the receivers have buffers: nothing has to be lost.
    ClosedLoop,
    /// So many frames a second, whatever becomes of them.
    Open(f64),
}

/// What became of a stream.
pub struct Outcome {
    /// Frames sent, or not taken by a switch that left no room for them.
    pub offered: u64,
    /// Frames that arrived, over all receivers.
    pub delivered: u64,
    /// Frames that did not, over all receivers.
    pub lost: u64,
    /// Frames that arrived twice, late, or cut.
    pub disordered: u64,
    /// The longest time between two turns in which something arrived.
    pub gap_max: Duration,
    /// From the start until the last frame arrived.
    pub elapsed: Duration,
    /// Of which the driver had nothing to send or to receive.
    pub waited: Duration,
}

impl Outcome {
    /// Million frames a second that arrived.
    pub fn mpps(&self) -> f64 {
        self.delivered as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// The part of the time in which the driver waited for the switch.
    pub fn waiting(&self) -> f64 {
        self.waited.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Sends `frame`, numbered, from `from` to all of `to` until `done`, then waits for what is under way. Every receiver is
/// expected to get every frame.
pub fn run(
    from: &mut Guest,
    to: &mut [&mut Guest],
    frame: &[u8],
    pace: Pace,
    done: impl Fn() -> bool,
) -> Result<Outcome> {
    let mut sender = Sender::new(from, to, frame, pace)?;
    let mut receivers = Receivers::new(to.len(), frame.len())?;
    let start = Instant::now();
    let (mut last, mut arrived) = (start, start);
    let (mut waited, mut gap_max) = (Duration::ZERO, Duration::ZERO);
    loop {
        let sending = !done();
        let now = Instant::now();
        let sent = if sending { sender.turn(from, receivers.least(), now - start)? } else { 0 };
        let received = receivers.turn(to)?;
        if sent == 0 && received == 0 {
            waited += now - last;
        }
        if received > 0 {
            gap_max = gap_max.max(now - arrived);
            arrived = now;
        }
        last = now;
        if !sending && (receivers.least() >= sender.sent || now - arrived > LAST_TIME) {
            break;
        }
    }
    let mut outcome = Outcome {
        offered: sender.sent + sender.refused,
        delivered: 0,
        lost: 0,
        disordered: 0,
        gap_max,
        elapsed: arrived - start,
        waited,
    };
    for verifier in &receivers.verifiers {
        let faults = verifier.faults(sender.sent);
        outcome.delivered += verifier.frames();
        outcome.lost += faults.lost + sender.refused;
        outcome.disordered += faults.reordered;
    }
    outcome.disordered += receivers.foreign;
    Ok(outcome)
}

struct Sender {
    frame_len: usize,
    pace: Pace,
    window: u64,
    sent: u64,
    /// Frames that were due while the transmit ring was full.
    refused: u64,
    /// Frames that were never due, since the driver itself was away.
    skipped: u64,
}

impl Sender {
    fn new(from: &mut Guest, to: &[&mut Guest], frame: &[u8], pace: Pace) -> Result<Sender> {
        let size = |guest: &Guest| u64::from(guest.pairs()[0].receive.queue().layout().size);
        let window = to.iter().map(|guest| size(guest)).min().unwrap_or(0).min(size(from));
        let deadline = Instant::now() + LAST_TIME;
        let queue = &mut from.pair().send;
        while (queue.room() as u64) < window {
            queue.reclaim().doing("taking back sent buffers")?;
            if Instant::now() > deadline {
                return Err(Error::new("the last frames sent were not taken"));
            }
        }
        queue.prepare(frame);
        Ok(Sender { frame_len: frame.len(), pace, window, sent: 0, refused: 0, skipped: 0 })
    }

    /// Sends what may be sent `at` this time. `arrived` is how many frames have reached the slowest receiver.
    fn turn(&mut self, from: &mut Guest, arrived: u64, at: Duration) -> Result<u64> {
        let queue = &mut from.pair().send;
        queue.reclaim().doing("taking back sent buffers")?;
        let due = match self.pace {
            Pace::ClosedLoop => self.window.saturating_sub(self.sent.saturating_sub(arrived)).min(TURN),
            Pace::Open(rate) => {
                let due = (rate * at.as_secs_f64()) as u64;
                let due = due.saturating_sub(self.sent + self.refused + self.skipped);
                // A driver that was kept from its core does not offer a burst that nobody asked for.
                self.skipped += due.saturating_sub(TURN);
                due.min(TURN)
            }
        };
        let first = self.sent;
        let sent =
            queue.send_row(due as usize, self.frame_len, SEQUENCE, |place| first + place as u64) as u64;
        self.sent += sent;
        if matches!(self.pace, Pace::Open(_)) {
            self.refused += due - sent;
        }
        queue.flush();
        Ok(sent)
    }
}

struct Receivers {
    verifiers: Vec<Verifier>,
    frame_len: usize,
    foreign: u64,
}

impl Receivers {
    fn new(count: usize, frame_len: usize) -> Result<Receivers> {
        // The verifiers look at sequence numbers only, so one template serves for all.
        let template = Template::new(0, 1, frame_len)?;
        let verifiers = (0..count).map(|_| Verifier::new(&template)).collect();
        Ok(Receivers { verifiers, frame_len, foreign: 0 })
    }

    fn turn(&mut self, to: &mut [&mut Guest]) -> Result<usize> {
        let mut received = 0;
        for (guest, verifier) in to.iter_mut().zip(&mut self.verifiers) {
            received += guest.pair().receive.receive(TURN as usize, |frame| match frame.stamp(SEQUENCE) {
                Some(sequence) if frame.len() == self.frame_len => verifier.count(sequence),
                _ => self.foreign += 1,
            })?;
        }
        Ok(received)
    }

    /// Frames that have reached, or are known not to reach, the receiver that has seen the fewest.
    fn least(&self) -> u64 {
        self.verifiers.iter().map(Verifier::next).min().unwrap_or(0)
    }
}

/// Frames sent or received in one turn.
const TURN: u64 = 64;
/// How long the frames under way may take when no more are sent; what has not come by then is lost.
const LAST_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use ringyard_dataplane::switch::{Switch, SwitchConfig};
    use ringyard_dataplane::worker::Mode;

    use super::*;
    use crate::bare;
    use crate::guest::{Features, GuestConfig};
    use crate::load;
    use crate::traffic::guest_mac;

    const FEATURES: Features = Features { in_order: false, ..Features::SPLIT };

    fn guests<const N: usize>() -> [Guest; N] {
        std::array::from_fn(|_| Guest::new(&GuestConfig::default(), FEATURES).unwrap())
    }

    fn frame(group: bool) -> Vec<u8> {
        let mut frame = Template::new(0, 1, 64).unwrap().stamp(0).to_vec();
        if group {
            frame[..6].copy_from_slice(&[0x01, 0, 0x5e, 1, 1, 1]);
        }
        frame
    }

    fn for_a_while(time: Duration) -> impl Fn() -> bool {
        let end = Instant::now() + time;
        move || Instant::now() > end
    }

    #[test]
    fn each_of_two_receivers_gets_every_frame_of_a_group_and_the_second_none_of_the_first_ones() {
        let mut switch = Switch::start(&SwitchConfig { cores: vec![None], mode: Mode::Adaptive }).unwrap();
        let [mut from, mut first, mut second] = guests();
        for (index, guest) in [&from, &first, &second].into_iter().enumerate() {
            bare::plug(&mut switch, guest, guest_mac(index)).unwrap();
        }
        switch.publish();
        load::open_way(&mut from, &mut first).unwrap();
        let time = Duration::from_millis(50);
        let both = &mut [&mut first, &mut second];
        let outcome = run(&mut from, both, &frame(true), Pace::ClosedLoop, for_a_while(time)).unwrap();
        assert!(outcome.offered > 0);
        assert_eq!((outcome.delivered, outcome.lost, outcome.disordered), (2 * outcome.offered, 0, 0));
        assert!(outcome.gap_max > Duration::ZERO && outcome.gap_max <= outcome.elapsed);
        let outcome = run(&mut from, both, &frame(false), Pace::Open(1e4), for_a_while(time)).unwrap();
        assert!(outcome.offered > 0);
        assert_eq!((outcome.delivered, outcome.lost), (outcome.offered, outcome.offered));
    }

    #[test]
    fn open_loop_without_a_switch_loses_all_it_offers_and_keeps_its_rate() {
        let [mut from, mut to] = guests();
        let time = Duration::from_millis(50);
        let outcome =
            run(&mut from, &mut [&mut to], &frame(false), Pace::Open(1e5), for_a_while(time)).unwrap();
        assert!(outcome.offered > 256, "more than the ring has room for: {}", outcome.offered);
        assert_eq!((outcome.delivered, outcome.lost), (0, outcome.offered));
    }
}

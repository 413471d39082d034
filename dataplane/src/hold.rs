//! A full receiver: what becomes of the frames that it had no room for.
//!
//! A frame with exactly one taker is held: it stays unsettled, so its ingress lends it again. That is bounded twice. A
//! receiver that takes nothing for [`STALL_US`] is stalled, and frames for it are dropped until it takes one. And where
//! others may have to wait, on a hub of more than two ports, a duty holds for a tenth of its time only ([`Holding`]).
//! All of it is one worker's own, and the clock is read only once something is held.

use crate::counters::Journal;
use crate::drops::DropReason;
use crate::hub::HubTable;
use crate::port::Tally;
use crate::snapshot::PortIndex;

/// What a hub does with a frame whose only taker has no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullReceiver {
    /// Lets its sender wait, within limits.
    #[default]
    Hold,
    /// Drops it.
    Drop,
}

/// How long a receiver may take nothing, in microseconds. A guest that a host's scheduler puts aside for a moment is
/// back by then more often than not; two senders that wait for each other's receivers are not kept longer.
pub const STALL_US: u64 = 500;
/// Time that a duty can have saved for holding, in microseconds: four receivers that stall one after the other, and less
/// than anybody notices.
pub const SAVED_US_MAX: u64 = 4 * STALL_US;
/// One part in so many of its time a duty may hold.
pub const SHARE: u64 = 10;
const SAVED_MAX: i64 = (SAVED_US_MAX * SHARE) as i64;
/// Full receivers that a worker remembers. With more of them, the one that is full for longest is forgotten, and is
/// waited for once more when it is met again.
pub const FULL_MAX: usize = 256;
/// A duty none of whose frames was settled sits out so many rounds: looking at them again costs as much as a burst of
/// another duty.
const SAT_OUT_ROUNDS: u8 = 3;

/// How one duty fares with the frames that it holds, and how long it may.
pub struct Holding {
    on: bool,
    /// It held on a hub of more than two ports.
    charged: bool,
    sits_out: u8,
    /// In microseconds times [`SHARE`]; less than 0 when more was spent than there was.
    saved: i64,
    /// When `saved` was true.
    at_us: u64,
}

impl Default for Holding {
    fn default() -> Holding {
        Holding { on: false, charged: false, sits_out: 0, saved: SAVED_MAX, at_us: 0 }
    }
}

impl Holding {
    /// Whether there are frames that are to be lent again: the duty must be polled.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether the duty leaves out this round, to be asked once a round.
    #[inline]
    pub(crate) fn sits_out(&mut self) -> bool {
        let out = self.sits_out > 0;
        self.sits_out -= u8::from(out);
        out
    }

    /// Whether the duty has time left to hold for.
    pub(crate) fn has_time(&mut self, now_us: u64) -> bool {
        self.advance(now_us);
        self.saved > 0
    }

    /// After a poll that settled `settled` frames and left some; `charged` if that is on the duty's time.
    pub(crate) fn hold(&mut self, now_us: u64, charged: bool, settled: usize) {
        self.advance(now_us);
        (self.on, self.charged) = (true, charged);
        self.sits_out = if settled == 0 { SAT_OUT_ROUNDS } else { 0 };
    }

    /// After a poll that left nothing.
    pub(crate) fn let_go(&mut self, now_us: u64) {
        self.advance(now_us);
        (self.on, self.charged, self.sits_out) = (false, false, 0);
    }

    /// A microsecond earns one part, and costs [`SHARE`] of them when it is spent on holding.
    fn advance(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.at_us) as i64;
        self.at_us = now_us;
        let spent = if self.charged { passed.saturating_mul(SHARE as i64) } else { 0 };
        self.saved = self.saved.saturating_add(passed).saturating_sub(spent).clamp(-SAVED_MAX, SAVED_MAX);
    }
}

/// The receivers that were full when this worker last had frames for them.
pub(crate) struct FullReceivers {
    entries: Vec<Entry>,
}

struct Entry {
    port: PortIndex,
    queue: u16,
    /// When it took something last, or was first found full.
    since_us: u64,
    /// What it had taken from other workers by then.
    elsewhere: u64,
}

impl FullReceivers {
    pub(crate) fn new() -> FullReceivers {
        FullReceivers { entries: Vec::with_capacity(FULL_MAX) }
    }

    /// The receiver `queue` of `port` had no room for a frame; before that it took some, if `took`. `elsewhere` says how
    /// many it has taken from other workers, as far as that is known: a receiver that serves them is not stalled. Whether
    /// it is.
    pub(crate) fn refused(
        &mut self,
        (port, queue): (PortIndex, u16),
        took: bool,
        now_us: u64,
        elsewhere: impl Fn() -> u64,
    ) -> bool {
        match self.entries.iter_mut().find(|entry| (entry.port, entry.queue) == (port, queue)) {
            Some(entry) if took => (entry.since_us, entry.elsewhere) = (now_us, elsewhere()),
            Some(entry) if now_us.saturating_sub(entry.since_us) < STALL_US => {}
            Some(entry) => {
                let taken = elsewhere();
                if taken == entry.elsewhere {
                    return true;
                }
                (entry.since_us, entry.elsewhere) = (now_us, taken);
            }
            None => {
                let entry = Entry { port, queue, since_us: now_us, elsewhere: elsewhere() };
                match self.entries.len() < FULL_MAX {
                    true => self.entries.push(entry),
                    false => self.replace_oldest(entry),
                }
            }
        }
        false
    }

    /// The receiver took all that it was offered. Whether another queue of its port is full.
    pub(crate) fn took(&mut self, port: PortIndex, queue: u16) -> bool {
        self.entries.retain(|entry| (entry.port, entry.queue) != (port, queue));
        self.entries.iter().any(|entry| entry.port == port)
    }

    /// Forgets the receivers of ports that are gone.
    pub(crate) fn retain(&mut self, exists: impl Fn(PortIndex) -> bool) {
        self.entries.retain(|entry| exists(entry.port));
    }

    fn replace_oldest(&mut self, entry: Entry) {
        if let Some(oldest) = self.entries.iter_mut().min_by_key(|entry| entry.since_us) {
            *oldest = entry;
        }
    }
}

/// Who was sent to.
pub(crate) struct Destination {
    pub port: PortIndex,
    pub queue: u16,
    /// Of how many.
    pub queues: usize,
}

/// What the keeper found of a destination.
pub(crate) struct Found {
    /// A queue of its port is full.
    pub full: bool,
    /// Frames that are held.
    pub held: u64,
}

/// Decides which frames of one burst are held, of those that found no room.
pub(crate) struct Keeper<'a> {
    pub journal: &'a Journal,
    pub worker: usize,
    /// The sender's.
    pub hub: Option<&'a HubTable>,
    pub full: &'a mut FullReceivers,
    pub holding: &'a mut Holding,
    pub clock: &'a dyn Fn() -> u64,
    /// The frames that several ports take or refuse, a bit each: never held, since the others cannot wait.
    pub shared: u64,
    /// The frames that are held, a bit each.
    pub held: u64,
}

impl Keeper<'_> {
    /// `rest` is what a destination left when it had settled `settled` frames.
    #[cold]
    pub(crate) fn keep(&mut self, to: &Destination, settled: usize, rest: &[u8], tally: &mut Tally) -> Found {
        if rest.is_empty() {
            return Found { full: self.full.took(to.port, to.queue), held: 0 };
        }
        let now_us = (self.clock)();
        // Of several queues the books do not say which one took.
        let elsewhere =
            || if to.queues == 1 { self.journal.taken_elsewhere(to.port.at(), self.worker) } else { 0 };
        let stalled = self.full.refused((to.port, to.queue), settled > 0, now_us, elsewhere);
        let holds = self.hub.is_some_and(|hub| hub.options().full == FullReceiver::Hold)
            && !stalled
            && (!self.is_charged() || self.holding.has_time(now_us));
        let mut held = 0;
        for &pick in rest {
            let frame = 1 << pick;
            if holds && self.shared & frame == 0 {
                self.held |= frame;
                held += 1;
            } else {
                tally.drop(DropReason::NoRoom);
            }
        }
        Found { full: true, held }
    }

    /// After the poll, which settled `settled` frames.
    #[cold]
    pub(crate) fn finish(&mut self, settled: usize) {
        let (now_us, charged) = ((self.clock)(), self.is_charged());
        match self.held {
            0 => self.holding.let_go(now_us),
            _ => self.holding.hold(now_us, charged, settled),
        }
    }

    /// Whether others on the hub may have to wait for what is held.
    fn is_charged(&self) -> bool {
        self.hub.is_some_and(|hub| hub.members() > 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: (PortIndex, u16) = (PortIndex(1), 0);

    fn never() -> u64 {
        0
    }

    #[test]
    fn receiver_that_takes_nothing_for_the_time_is_stalled_until_it_takes() {
        let mut full = FullReceivers::new();
        assert!(!full.refused(ONE, false, 100, never));
        assert!(!full.refused(ONE, false, 100 + STALL_US - 1, never));
        assert!(full.refused(ONE, false, 100 + STALL_US, never));
        assert!(full.refused(ONE, false, 100 + 9 * STALL_US, never), "it stays stalled");
        assert!(!full.refused(ONE, true, 10_000, never), "it took some");
        assert!(!full.refused(ONE, false, 10_000 + STALL_US - 1, never));
        assert!(!full.took(ONE.0, ONE.1));
        assert!(!full.refused(ONE, false, 20_000, never), "the time begins anew");
    }

    #[test]
    fn receiver_that_serves_other_workers_is_not_stalled() {
        let mut full = FullReceivers::new();
        assert!(!full.refused(ONE, false, 0, || 5));
        assert!(!full.refused(ONE, false, STALL_US, || 6));
        assert!(!full.refused(ONE, false, 2 * STALL_US - 1, || 6));
        assert!(full.refused(ONE, false, 2 * STALL_US, || 6));
    }

    #[test]
    fn queues_of_a_receiver_are_apart() {
        let mut full = FullReceivers::new();
        let two = (PortIndex(1), 1);
        assert!(!full.refused(ONE, false, 0, never) && !full.refused(two, false, 400, never));
        assert!(full.refused(ONE, false, STALL_US, never) && !full.refused(two, false, STALL_US, never));
        assert!(full.took(ONE.0, ONE.1), "the other queue is full still");
        assert!(!full.took(two.0, two.1));
    }

    #[test]
    fn number_of_full_receivers_is_limited() {
        let mut full = FullReceivers::new();
        for port in 0..FULL_MAX as u16 + 1 {
            assert!(!full.refused((PortIndex(port), 0), false, u64::from(port), never));
        }
        assert_eq!(full.entries.len(), FULL_MAX);
        assert!(full.refused((PortIndex(1), 0), false, 10 * STALL_US, never));
        assert!(!full.refused((PortIndex(0), 0), false, 10 * STALL_US, never), "the oldest was forgotten");
        full.retain(|port| port == PortIndex(5));
        assert_eq!(full.entries.len(), 1);
    }

    #[test]
    fn holding_takes_a_tenth_of_a_long_time_at_most() {
        let mut holding = Holding::default();
        let (mut held_us, end_us) = (0, 1_000_000);
        for now_us in 0..end_us {
            held_us += u64::from(holding.is_on());
            match holding.has_time(now_us) {
                true => holding.hold(now_us, true, 1),
                false => holding.let_go(now_us),
            }
        }
        let allowed = end_us / SHARE + 2 * SAVED_US_MAX;
        assert!((end_us / SHARE..=allowed).contains(&held_us), "{held_us} us of {end_us}");
    }

    #[test]
    fn holding_that_nobody_waits_for_is_free() {
        let mut holding = Holding::default();
        holding.hold(0, false, 1);
        assert!(holding.has_time(1_000_000) && holding.is_on());
    }

    #[test]
    fn duty_sits_out_after_a_poll_in_vain() {
        let mut holding = Holding::default();
        assert!(!holding.sits_out());
        holding.hold(0, true, 0);
        let rounds = (0..10).filter(|_| holding.sits_out()).count();
        assert_eq!(rounds, usize::from(SAT_OUT_ROUNDS));
        holding.hold(0, true, 1);
        assert!(!holding.sits_out(), "what goes on is not slowed down");
    }
}

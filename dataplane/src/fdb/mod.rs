//! The forwarding database of a hub that learns: behind which port an address was heard from last.
//!
//! Keyed by the address alone (shared VLAN learning): a station is at one place, whatever VLANs it speaks in. Workers
//! read without a lock and write only what is news: an address that is new, that moved, or whose stamp is not of this
//! second. Control ages, flushes, lists, and enters what is static.
//!
//! The memory is fixed and so is the number of entries. When there is no room, a port with most entries gives up an old
//! one, if it has more than the port that wants to learn; else nothing is learned. So whoever floods the hub with made-up
//! sources fills up what others do not need, and no more. What an FDB does not know is flooded, so losing an entry costs a few
//! frames too many and never one too few: that is why races may lose one, as the loom model at the end shows they do at
//! most.

mod table;

use std::io;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mac::Mac;
use crate::snapshot::PortIndex;
use table::{Slot, Table, Word};

/// Entries that a hub has at most, static ones included.
pub const ENTRIES_MAX: u64 = if cfg!(loom) { 2 } else { 100_000 };
/// Seconds without a frame after which an address is forgotten, unless told otherwise (IEEE 802.1Q, 8.8.3).
pub const AGEING_S: u32 = 300;
/// The longest that an ageing time can be, in seconds (IEEE 802.1Q, table 8-6).
pub const AGEING_S_MAX: u32 = 1_000_000;
/// How often one worker tries to enter an address before it leaves that to the next frame.
const TRIES: usize = 4;
/// Turns of [`Fdb::sweep`] in which all entries are looked at.
pub const SWEEP_TURNS: usize = 16;

/// See the module.
pub struct Fdb {
    table: Table,
    /// Written by control.
    ageing_s: AtomicU32,
    /// The turn of the next sweep. Control's.
    turn: AtomicU32,
    events: Events,
}

/// Whether and how a hub learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learning {
    /// It does; without, it is a hub that every wide port hears everything on.
    pub is_on: bool,
    /// Seconds after which an address is forgotten, 1 to [`AGEING_S_MAX`].
    pub ageing_s: u32,
}

impl Default for Learning {
    fn default() -> Learning {
        Learning { is_on: true, ageing_s: AGEING_S }
    }
}

/// What happened, and how many entries there are. Written by all; alone in its cache lines, since it changes while the
/// fields above are read for every frame.
#[repr(align(128))]
#[derive(Default)]
struct Events {
    entries: AtomicU64,
    learned: AtomicU64,
    moved: AtomicU64,
    aged: AtomicU64,
    evicted: AtomicU64,
    not_learned: AtomicU64,
}

/// The figures of an FDB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbCounters {
    /// Entries there are, static ones included.
    pub entries: u64,
    /// Addresses entered because a frame came from them.
    pub learned: u64,
    /// Entries that went to another port for the same reason.
    pub moved: u64,
    /// Entries that were too old.
    pub aged: u64,
    /// Entries that made room for those of ports with fewer.
    pub evicted: u64,
    /// Frames from addresses for which there was no room.
    pub not_learned: u64,
}

/// An entry as control shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub port: PortIndex,
    /// Seconds since it was heard from, or was entered.
    pub age_s: u32,
    /// Entered by control: it does not age, move, or make room.
    pub is_static: bool,
}

/// There is no room for a static entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbFull;

/// What came of one try to enter an address.
enum Attempt {
    Entered {
        evicted: bool,
    },
    NoRoom,
    /// Somebody else changed something.
    Again,
}

impl Fdb {
    /// One that knows nothing and forgets after `ageing_s` seconds.
    pub fn new(ageing_s: u32) -> io::Result<Fdb> {
        let (ageing_s, turn) = (AtomicU32::new(ageing_s), AtomicU32::new(0));
        Ok(Fdb { table: Table::new()?, ageing_s, turn, events: Events::default() })
    }

    /// Where the address with this key was heard from; nothing if that is too long ago. `now_s` is in seconds by the
    /// switch's clock, here and everywhere.
    #[inline]
    pub fn find(&self, key: u64, now_s: u32) -> Option<PortIndex> {
        let slot = self.table.find(key)?;
        (!self.is_over(slot, now_s)).then(|| slot.entry.port())
    }

    /// Takes note that a frame with this source came from `port`.
    #[inline]
    pub fn learn(&self, key: u64, port: PortIndex, now_s: u32) {
        match self.table.find(key) {
            Some(slot) if slot.entry.port() == port && slot.stamp() >= now_s => {}
            _ => self.learn_news(key, port, now_s),
        }
    }

    /// An address that is new, has moved, or was not heard from in this second.
    #[cold]
    fn learn_news(&self, key: u64, port: PortIndex, now_s: u32) {
        // Neither a group nor nobody is a sender (IEEE 802.1Q, 8.7).
        if key & GROUP_BIT != 0 || key == 0 {
            return;
        }
        let entry = Word::learned(key, port);
        for _ in 0..TRIES {
            match self.table.find(key) {
                Some(slot) if slot.entry.port() == port => return slot.touch(now_s),
                Some(slot) if slot.entry.is_static() => return,
                Some(slot) => {
                    slot.touch(now_s);
                    if self.table.swap(slot, entry) {
                        return add(&self.events.moved);
                    }
                }
                None => match self.enter(entry, now_s) {
                    Attempt::Entered { evicted } => {
                        if evicted {
                            add(&self.events.evicted);
                        }
                        return add(&self.events.learned);
                    }
                    Attempt::NoRoom => return add(&self.events.not_learned),
                    Attempt::Again => {}
                },
            }
        }
    }

    /// Tries to enter an address that was not found.
    fn enter(&self, entry: Word, now_s: u32) -> Attempt {
        let mut evicted = false;
        match self.table.free(entry.key()) {
            Some(slot) if self.reserve() => {
                slot.touch(now_s);
                if !self.table.swap(slot, entry) {
                    self.release();
                    return Attempt::Again;
                }
            }
            _ => {
                let floor = self.floor(entry);
                let Some(victim) = self.victim(self.table.candidates(entry.key()), floor, now_s) else {
                    return self.make_room(entry.key(), floor, now_s);
                };
                evicted = !self.is_over(victim, now_s);
                victim.touch(now_s);
                if !self.table.swap(victim, entry) {
                    return Attempt::Again;
                }
            }
        }
        self.settle(entry.key());
        Attempt::Entered { evicted }
    }

    /// Frees a slot near by, so that the hub has one entry fewer.
    fn make_room(&self, key: u64, floor: i64, now_s: u32) -> Attempt {
        // Where nobody can have more, nobody is looked for: a flood must stay cheap.
        if floor >= self.table.most_entries() || self.table.free(key).is_none() {
            return Attempt::NoRoom;
        }
        let Some(victim) = self.victim(self.table.neighbours(key), floor, now_s) else {
            return Attempt::NoRoom;
        };
        let counter = if self.is_over(victim, now_s) { &self.events.aged } else { &self.events.evicted };
        if self.take_out(victim) {
            add(counter);
        }
        Attempt::Again
    }

    /// A port that has no more entries than this gives up none for `entry`: it has less than half of what the port with
    /// most entries has, or would end up with fewer than the port that learns, so that the two took turns. Control's own
    /// entries are nobody's share.
    fn floor(&self, entry: Word) -> i64 {
        let half = self.table.most_entries() / 2;
        if entry.is_static() { half - 1 } else { half.max(self.table.entries_of(entry.port()) + 1) }
    }

    /// Of these slots, one whose entry is too old, or else the oldest of the port with most entries, if those are more
    /// than `floor`.
    fn victim<'a>(&self, slots: impl Iterator<Item = Slot<'a>>, floor: i64, now_s: u32) -> Option<Slot<'a>> {
        let slots = slots.filter(|slot| slot.entry != Word::FREE && !slot.entry.is_static());
        let weigh = |slot: Slot<'a>| {
            let age_s = now_s.saturating_sub(slot.stamp());
            let is_over = self.is_over(slot, now_s);
            let weight = if is_over { i64::MAX } else { self.table.entries_of(slot.entry.port()) };
            (weight, age_s, slot)
        };
        let heaviest = slots.map(weigh).max_by_key(|(weight, age_s, _)| (*weight, *age_s));
        heaviest.filter(|(weight, ..)| *weight > floor).map(|(.., slot)| slot)
    }

    /// Takes out what others entered for the same address at the same time: all but a static entry, or the first.
    fn settle(&self, key: u64) {
        self.table.settle_order();
        let mut kept = None;
        for slot in self.table.candidates(key).filter(|slot| slot.entry.key() == key) {
            match kept {
                None => kept = Some(slot),
                Some(first) if slot.entry.is_static() => {
                    self.take_out(first);
                    kept = Some(slot);
                }
                Some(_) => {
                    self.take_out(slot);
                }
            }
        }
    }

    /// Enters an address for good, in place of what was known of it.
    ///
    /// Errors: there is no room.
    pub fn add_static(&self, mac: Mac, port: PortIndex, now_s: u32) -> Result<(), FdbFull> {
        let entry = Word::fixed(mac.key(), port);
        // Not for ever: workers may change the slot, but each time at most as often as there are workers.
        loop {
            match self.table.find(mac.key()) {
                Some(slot) if slot.entry == entry => return Ok(()),
                Some(slot) => {
                    slot.touch(now_s);
                    if self.table.swap(slot, entry) {
                        self.settle(mac.key());
                        return Ok(());
                    }
                }
                None => match self.enter(entry, now_s) {
                    Attempt::Entered { .. } => return Ok(()),
                    Attempt::NoRoom => return Err(FdbFull),
                    Attempt::Again => {}
                },
            }
        }
    }

    /// Takes an address out, static or not. Whether it was there.
    pub fn remove(&self, mac: Mac) -> bool {
        let mut was_there = false;
        for _ in 0..TRIES {
            let Some(slot) = self.table.find(mac.key()) else { break };
            was_there |= self.take_out(slot);
        }
        was_there
    }

    /// Forgets what was learned from `port`, or from all.
    pub fn flush(&self, port: Option<PortIndex>) {
        self.take_out_where(|entry| !entry.is_static() && port.is_none_or(|port| entry.port() == port));
    }

    /// Forgets all there is of a port that leaves, its static entries too.
    pub fn forget(&self, port: PortIndex) {
        self.take_out_where(|entry| entry.port() == port);
    }

    /// Takes out entries that are too old: in each turn those of the next part of the table, so that control never takes
    /// long. Control calls this once a second or so; nobody depends on it, since look-ups pass over what is too old.
    pub fn sweep(&self, now_s: u32) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize % SWEEP_TURNS;
        if self.events.entries.load(Ordering::Relaxed) == 0 {
            return;
        }
        let part = Table::GROUPS.div_ceil(SWEEP_TURNS);
        let slots = (turn * part..(turn + 1) * part).flat_map(|group| self.table.group(group));
        for slot in slots.filter(|slot| self.is_over(*slot, now_s)) {
            if self.take_out(slot) {
                add(&self.events.aged);
            }
        }
    }

    /// The entries that are not too old, in no order, until `show` has had enough and returns false.
    pub fn for_each_entry(&self, now_s: u32, mut show: impl FnMut(FdbEntry) -> bool) {
        let slots = (0..Table::GROUPS).flat_map(|group| self.table.group(group));
        for slot in slots.filter(|slot| !self.is_over(*slot, now_s)) {
            let [a, b, c, d, e, f, ..] = slot.entry.key().to_le_bytes();
            let shown = show(FdbEntry {
                mac: Mac([a, b, c, d, e, f]),
                port: slot.entry.port(),
                age_s: now_s.saturating_sub(slot.stamp()),
                is_static: slot.entry.is_static(),
            });
            if !shown {
                return;
            }
        }
    }

    /// Seconds after which an address is forgotten.
    pub fn ageing_s(&self) -> u32 {
        // Relaxed: it stands alone.
        self.ageing_s.load(Ordering::Relaxed)
    }

    /// Sets them; it holds for what is known too.
    pub fn set_ageing(&self, ageing_s: u32) {
        self.ageing_s.store(ageing_s, Ordering::Relaxed);
    }

    /// The figures.
    pub fn counters(&self) -> FdbCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FdbCounters {
            entries: read(&self.events.entries),
            learned: read(&self.events.learned),
            moved: read(&self.events.moved),
            aged: read(&self.events.aged),
            evicted: read(&self.events.evicted),
            not_learned: read(&self.events.not_learned),
        }
    }

    #[inline]
    fn is_over(&self, slot: Slot<'_>, now_s: u32) -> bool {
        now_s.saturating_sub(slot.stamp()) >= self.ageing_s() && !slot.entry.is_static()
    }

    fn take_out_where(&self, wanted: impl Fn(Word) -> bool) {
        let slots = (0..Table::GROUPS).flat_map(|group| self.table.group(group));
        for slot in slots.filter(|slot| wanted(slot.entry)) {
            self.take_out(slot);
        }
    }

    fn take_out(&self, slot: Slot<'_>) -> bool {
        let taken = self.table.swap(slot, Word::FREE);
        if taken {
            self.release();
        }
        taken
    }

    /// Counts one entry more, if there may be. Counted before it is there, so that there are never too many.
    fn reserve(&self) -> bool {
        let entries = &self.events.entries;
        // A look first: while the hub is full, nobody writes.
        if entries.load(Ordering::Relaxed) >= ENTRIES_MAX {
            return false;
        }
        let reserved = entries.fetch_add(1, Ordering::Relaxed) < ENTRIES_MAX;
        if !reserved {
            self.release();
        }
        reserved
    }

    fn release(&self) {
        self.events.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The group bit of an address, in its key.
const GROUP_BIT: u64 = 1;

/// Relaxed: a counter orders nothing.
fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

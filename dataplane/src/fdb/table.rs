//! The memory of an FDB: a fixed number of slots, each an entry in one atomic word and the second in which it was last
//! heard from in another.
//!
//! An address may stand in any slot of two buckets that its hash names. The words of a bucket are one cache line, their
//! stamps the next. The memory is zero at first and real only where it was touched: a hub with ten addresses costs a few
//! pages, a flooded one 4 MiB, and none ever more. [`Table::swap`] is the one way to change an entry; it keeps the count
//! of each port's entries.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::counters::PORTS_MAX;
use crate::snapshot::PortIndex;

/// Slots of a bucket: a cache line of words. The model has few, so that they are contended.
const WAYS: usize = if cfg!(loom) { 1 } else { 8 };
const BUCKETS: usize = if cfg!(loom) { 2 } else { 1 << 15 };
const BUCKET_LEN: usize = 2 * WAYS;
/// Up to this many slots in use, an address goes to its first bucket, where look-ups find it sooner; then to the emptier
/// of its two. So 100,000 addresses, 38 % of the slots, never fill both.
const CROWDED: usize = WAYS * 3 / 4;
/// Buckets of a group, which is a page.
const GROUP: usize = 32;
const GROUPS: usize = BUCKETS.div_ceil(GROUP);
const PORTS: usize = if cfg!(loom) { 4 } else { PORTS_MAX };

/// Where the counts of entries by port begin, then the port that had most when it was last looked, then the bits of the
/// groups that were ever used, in words.
const COUNTS: usize = BUCKETS * BUCKET_LEN;
const HEAVIEST: usize = COUNTS + PORTS;
const USED: usize = HEAVIEST + 1;
/// Words in all.
pub(super) const LEN: usize = USED + GROUPS.div_ceil(64);

/// An entry: the address's key in the low 48 bits, then the port, and whether it is static. 0 is a free slot: no port has
/// the address 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

const KEY: u64 = (1 << 48) - 1;
const STATIC: u64 = 1 << 63;
const _: () = assert!(PORTS_MAX <= 1 << 15);

impl Word {
    pub(super) const FREE: Word = Word(0);

    pub(super) fn learned(key: u64, port: PortIndex) -> Word {
        Word(key & KEY | u64::from(port.0) << 48)
    }

    pub(super) fn fixed(key: u64, port: PortIndex) -> Word {
        Word(Word::learned(key, port).0 | STATIC)
    }

    #[inline]
    pub(super) fn key(self) -> u64 {
        self.0 & KEY
    }

    #[inline]
    pub(super) fn port(self) -> PortIndex {
        PortIndex((self.0 >> 48 & 0x7fff) as u16)
    }

    #[inline]
    pub(super) fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }
}

/// A place for an entry, and what was found in it.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    word: &'a AtomicU64,
    stamp: &'a AtomicU64,
    bucket: usize,
    pub(super) entry: Word,
}

impl Slot<'_> {
    /// The second that the entry was last heard from.
    #[inline]
    pub(super) fn stamp(self) -> u32 {
        // Relaxed: a stamp that comes late makes an entry look older than it is; that floods a frame or two.
        self.stamp.load(Ordering::Relaxed) as u32
    }

    pub(super) fn touch(self, now_s: u32) {
        // Relaxed: as above. If the slot has another entry by now, that one was entered in this second or so too.
        self.stamp.store(now_s.into(), Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct Table {
    memory: Memory,
    seeds: [u64; 2],
}

impl Table {
    pub(super) fn new() -> io::Result<Table> {
        // A model is the same each time it is run.
        let seed = || if cfg!(loom) { 1 } else { RandomState::new().build_hasher().finish() | 1 };
        Ok(Table { memory: Memory::new(LEN)?, seeds: [seed(), seed()] })
    }

    /// The slot that has the address. The first of its buckets comes first, for everybody.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<Slot<'_>> {
        if key == Word::FREE.key() {
            return None;
        }
        for bucket in self.buckets_of(key) {
            for slot in self.bucket(bucket) {
                if slot.entry.key() == key {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// All slots in which the address may stand, in the order of [`Self::find`].
    pub(super) fn candidates(&self, key: u64) -> impl Iterator<Item = Slot<'_>> {
        self.buckets_of(key).into_iter().flat_map(|bucket| self.bucket(bucket))
    }

    /// A free slot for the address.
    pub(super) fn free(&self, key: u64) -> Option<Slot<'_>> {
        let [first, second] = self.buckets_of(key);
        let used = |bucket| self.bucket(bucket).filter(|slot| slot.entry != Word::FREE).count();
        let used_first = used(first);
        let chosen = if used_first < CROWDED || used_first <= used(second) { first } else { second };
        self.bucket(chosen).find(|slot| slot.entry == Word::FREE)
    }

    /// The slots of a few buckets that belong to other addresses than this one.
    pub(super) fn neighbours(&self, key: u64) -> impl Iterator<Item = Slot<'_>> {
        let [first, _] = self.buckets_of(key);
        (1..=NEIGHBOURS).flat_map(move |step| self.bucket((first + step) & (BUCKETS - 1)))
    }

    /// The slots of group `group` that are in use; none from [`Self::GROUPS`] on.
    pub(super) fn group(&self, group: usize) -> impl Iterator<Item = Slot<'_>> {
        let buckets = if self.was_used(group) { group * GROUP..(group + 1) * GROUP } else { 0..0 };
        let slots = buckets.take_while(|bucket| *bucket < BUCKETS).flat_map(|bucket| self.bucket(bucket));
        slots.filter(|slot| slot.entry != Word::FREE)
    }

    /// How many groups there are.
    pub(super) const GROUPS: usize = GROUPS;

    /// Makes the entry of `slot` another one, unless somebody else has changed it meanwhile.
    pub(super) fn swap(&self, slot: Slot<'_>, new: Word) -> bool {
        if new != Word::FREE {
            self.note_use(slot.bucket / GROUP);
        }
        // Relaxed: the word is all there is to an entry but its stamp, of which see `Slot::stamp`.
        let swapped =
            slot.word.compare_exchange(slot.entry.0, new.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if swapped && (new.port(), new.key()) != (slot.entry.port(), slot.entry.key()) {
            if slot.entry != Word::FREE {
                self.count(slot.entry.port()).fetch_sub(1, Ordering::Relaxed);
            }
            if new != Word::FREE {
                self.count(new.port()).fetch_add(1, Ordering::Relaxed);
                self.weigh(new.port());
            }
        }
        swapped
    }

    /// How many entries a port has. While an entry changes, it may not be counted yet: it may even seem that there are
    /// fewer than none.
    pub(super) fn entries_of(&self, port: PortIndex) -> i64 {
        self.count(port).load(Ordering::Relaxed) as i64
    }

    /// How many entries the port has that has most. When that one loses many, this is too few for a while.
    pub(super) fn most_entries(&self) -> i64 {
        self.entries_of(PortIndex(self.heaviest().load(Ordering::Relaxed) as u16))
    }

    fn weigh(&self, port: PortIndex) {
        if self.entries_of(port) > self.most_entries() {
            self.heaviest().store(port.0.into(), Ordering::Relaxed);
        }
    }

    fn heaviest(&self) -> &AtomicU64 {
        &self.memory.words(HEAVIEST, 1)[0]
    }

    /// To be called between entering an address and looking who else did: of two who do so at the same time, at least one
    /// sees the other's entry.
    pub(super) fn settle_order(&self) {
        // Pairs with itself on the other side.
        fence(Ordering::SeqCst);
    }

    /// Two buckets, not the same. Two rounds of multiply and shift under random seeds: addresses come in rows, which one
    /// round may lay out in heaps.
    #[inline]
    fn buckets_of(&self, key: u64) -> [usize; 2] {
        let mixed = key.wrapping_mul(self.seeds[0]);
        let hash = (mixed ^ mixed >> 29).wrapping_mul(self.seeds[1]);
        let first = (hash >> 48) as usize & (BUCKETS - 1);
        let second = (hash >> 24) as usize & (BUCKETS - 1);
        [first, if second == first { first ^ 1 } else { second }]
    }

    #[inline]
    fn bucket(&self, bucket: usize) -> impl Iterator<Item = Slot<'_>> {
        let (words, stamps) = self.memory.words(bucket * BUCKET_LEN, BUCKET_LEN).split_at(WAYS);
        // Relaxed: a word is an entry whole in itself.
        words.iter().zip(stamps).map(move |(word, stamp)| {
            let entry = Word(word.load(Ordering::Relaxed));
            Slot { word, stamp, bucket, entry }
        })
    }

    fn count(&self, port: PortIndex) -> &AtomicU64 {
        &self.memory.words(COUNTS + port.at() % PORTS, 1)[0]
    }

    /// Relaxed, here and below: control comes round to what it does not see yet.
    fn was_used(&self, group: usize) -> bool {
        group < GROUPS
            && self.memory.words(USED + group / 64, 1)[0].load(Ordering::Relaxed) >> (group % 64) & 1 == 1
    }

    fn note_use(&self, group: usize) {
        if !self.was_used(group) {
            self.memory.words(USED + group / 64, 1)[0].fetch_or(1 << (group % 64), Ordering::Relaxed);
        }
    }
}

/// Further buckets in which room is looked for when the hub is full. An attacker who holds a fair part of the entries has
/// some in that many.
const NEIGHBOURS: usize = if cfg!(loom) { 1 } else { 4 };

/// Words that are 0 at first.
#[cfg(not(loom))]
struct Memory(crate::ring::Mapping);

#[cfg(not(loom))]
impl Memory {
    fn new(len: usize) -> io::Result<Memory> {
        Ok(Memory(crate::ring::Mapping::memfd("ringyard-fdb", len * 8)?.0))
    }

    #[inline]
    fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        self.0.words(first * 8, count)
    }
}

/// The model's.
#[cfg(loom)]
struct Memory(Box<[AtomicU64]>);

#[cfg(loom)]
impl Memory {
    fn new(len: usize) -> io::Result<Memory> {
        Ok(Memory((0..len).map(|_| AtomicU64::new(0)).collect()))
    }

    fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        &self.0[first..first + count]
    }
}

//! What a successor of this process has to know of a ring, in memory that outlives it.
//!
//! A split ring says in the guest's own memory how far it is used. A packed one does not: its positions are the device's
//! alone, and a used descriptor is written over the one that the driver made. So a packed ring keeps, in a region of its
//! own: where its next run of used descriptors begins and, from the moment before the run is let go until the moment after,
//! where it ends; and of each descriptor what the driver had made of it, before it is written over. The first descriptor of
//! a run is written last. Whoever comes after a process that was killed at any instant finds the run either let go, and goes
//! on behind it, or not, and puts the descriptors back.
//!
//! The region is laid out as the buffer that vhost-user has for this purpose (vhost-user, "Inflight I/O tracking", queue
//! regions), so that one that a front end keeps for us will do. Chains are given back in the order in which they came, in
//! one move with being done; so none is ever in flight by that format, and its lists stay empty. What stands there was
//! written by somebody else, as far as we know: every word is checked when it is read, and harms that ring only. Who reads it
//! comes after whoever wrote it has died, so loom has nothing to interleave: switches that are killed at any instant try it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::Mapping;
use super::packed::{Place, Rest};

/// See the module. Written by the holder of the ring's lock.
#[derive(Clone)]
pub struct RingJournal {
    mapping: Arc<Mapping>,
    at: usize,
    size: u16,
    packed: bool,
}

impl RingJournal {
    /// Bytes of the region of a ring of `size` entries; a whole number of cache lines.
    pub const fn len(size: u16, packed: bool) -> usize {
        let entry = if packed { PACKED_ENTRY_LEN } else { SPLIT_ENTRY_LEN };
        let head = if packed { PACKED_HEAD_LEN } else { SPLIT_HEAD_LEN };
        (head + size as usize * entry).next_multiple_of(ALIGNMENT)
    }

    /// That of a ring of `size` entries, at byte `at` of `mapping`, which begins a cache line. `None`: it is not all in
    /// there. Of a split ring it says only that there is one.
    pub fn new(mapping: Arc<Mapping>, at: usize, size: u16, packed: bool) -> Option<RingJournal> {
        let end = at.checked_add(RingJournal::len(size, packed))?;
        let is_inside = at.is_multiple_of(ALIGNMENT) && end <= mapping.len();
        is_inside.then_some(RingJournal { mapping, at, size, packed })
    }

    /// Entries, and the form of the ring.
    pub(super) fn shape(&self) -> (u16, bool) {
        (self.size, self.packed)
    }

    /// Whether a ring of this size was journalled here.
    pub(super) fn is_begun(&self) -> bool {
        let word = self.load(VERSION_AT);
        (word as u16, (word >> 16) as u16) == (VERSION, self.size)
    }

    /// The ring stopped, and whoever starts one says where.
    pub(super) fn end(&self) {
        self.store(VERSION_AT, 0);
    }

    /// A ring that stands at `place`, if it is packed, is journalled from now on.
    pub(super) fn begin(&self, place: Place) {
        self.end();
        if self.packed {
            self.stand_at(place);
        }
        self.store(VERSION_AT, u64::from(VERSION) | u64::from(self.size) << 16);
    }

    /// Where the ring was last known to be, and where it was about to be, which is the same between two runs. `None`: there
    /// is no such place.
    pub(super) fn places(&self) -> Option<(Place, Place)> {
        let word = self.load(PLACES_AT);
        let (next, before) = (word as u16, (word >> 16) as u16);
        let (next_wrap, before_wrap) = ((word >> 32) as u8, (word >> 40) as u8);
        let is_known = next < self.size && before < self.size && next_wrap < 2 && before_wrap < 2;
        let place = |index, wrap: u8| Place::from_bits(index | u16::from(wrap) << 15);
        is_known.then(|| (place(before, before_wrap), place(next, next_wrap)))
    }

    /// A run from `from` up to `to` is about to be let go.
    #[inline]
    pub(super) fn intend(&self, from: Place, to: Place) {
        let [from, to] = [from, to].map(|place| {
            let bits = place.bits();
            u64::from(bits & !WRAP) | u64::from(bits >> 15) << 32
        });
        // What lies behind the wrap counters means nothing.
        self.store(PLACES_AT, to | (from & 0xffff) << 16 | (from >> 32) << 40);
    }

    /// All before `place` is let go.
    #[inline]
    pub(super) fn stand_at(&self, place: Place) {
        self.intend(place, place);
    }

    /// What the driver made of descriptor `index`, which is about to be written over.
    #[inline]
    pub(super) fn keep(&self, index: u16, rest: Rest) {
        if index < self.size {
            let word = u64::from(rest.id()) | u64::from(rest.flags()) << 16 | u64::from(rest.len()) << 32;
            self.store(entry_at(index), word);
        }
    }

    /// The same, as it was kept last.
    pub(super) fn kept(&self, index: u16) -> Option<Rest> {
        (index < self.size).then(|| {
            let word = self.load(entry_at(index));
            Rest::new((word >> 32) as u32, word as u16, (word >> 16) as u16)
        })
    }

    fn load(&self, at: usize) -> u64 {
        u64::from_le(self.mapping.words(self.at + at, 1)[0].load(Ordering::Relaxed))
    }

    /// Release: a process that is killed has done what its program does before.
    #[inline]
    fn store(&self, at: usize, word: u64) {
        self.mapping.words(self.at + at, 1)[0].store(word.to_le(), Ordering::Release);
    }
}

/// Where the kept words of a descriptor are: id, flags, length.
#[inline]
fn entry_at(index: u16) -> usize {
    PACKED_HEAD_LEN + usize::from(index) * PACKED_ENTRY_LEN + 16
}

const WRAP: u16 = 1 << 15;
/// What regions begin at a multiple of.
const ALIGNMENT: usize = 64;
const SPLIT_HEAD_LEN: usize = 16;
const SPLIT_ENTRY_LEN: usize = 16;
const PACKED_HEAD_LEN: usize = 32;
const PACKED_ENTRY_LEN: usize = 32;
/// Version and number of descriptors, 16 bits each; then the heads of lists that are always empty.
const VERSION_AT: usize = 8;
/// `used_idx`, `old_used_idx`, 16 bits each; `used_wrap_counter`, `old_used_wrap_counter`, 8 bits each.
const PLACES_AT: usize = 16;
/// Of the format.
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(size: u16) -> RingJournal {
        let (mapping, _) = Mapping::memfd("journal", RingJournal::len(size, true)).unwrap();
        RingJournal::new(Arc::new(mapping), 0, size, true).unwrap()
    }

    #[test]
    fn region_is_where_the_specification_has_it() {
        assert_eq!((RingJournal::len(4, false), RingJournal::len(4, true)), (128, 192));
        let journal = journal(8);
        assert!(!journal.is_begun());
        journal.begin(Place::START);
        journal.intend(Place::from_bits(0x8000 | 7), Place::from_bits(2));
        journal.keep(3, Rest::new(0x55, 0x33, 0x44));
        let bytes: Vec<u8> = journal
            .mapping
            .words(0, 24)
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        assert_eq!(bytes[8..12], [1, 0, 8, 0], "version and desc_num");
        assert_eq!(bytes[16..22], [2, 0, 7, 0, 0, 1], "used_idx, old_used_idx and their wrap counters");
        assert_eq!(bytes[32 + 3 * 32 + 16..][..8], [0x33, 0, 0x44, 0, 0x55, 0, 0, 0], "id, flags, len");
        assert!(journal.is_begun());
        let of_another_size = RingJournal::new(journal.mapping.clone(), 0, 4, true).unwrap();
        assert!(!of_another_size.is_begun());
        assert_eq!(journal.places(), Some((Place::from_bits(0x8000 | 7), Place::from_bits(2))));
        assert_eq!(journal.kept(3), Some(Rest::new(0x55, 0x33, 0x44)));
        journal.end();
        assert!(!journal.is_begun());
    }

    #[test]
    fn p20_places_that_a_ring_does_not_have_are_none() {
        let journal = journal(8);
        for word in [8, 8 << 16, 0x8000, 2 << 32, 2 << 40, u64::MAX] {
            journal.store(PLACES_AT, word);
            assert_eq!(journal.places(), None, "{word:#x}");
        }
        assert_eq!(journal.kept(8), None);
        journal.keep(8, Rest::new(1, 2, 3));
    }

    #[test]
    fn region_that_is_not_all_there_is_none() {
        let (mapping, _) = Mapping::memfd("journal", 4096).unwrap();
        let mapping = Arc::new(mapping);
        let fits = |at, size| RingJournal::new(mapping.clone(), at, size, true).is_some();
        assert!(fits(0, 127) && fits(64, 125) && !fits(64, 127) && !fits(0, 128));
        assert!(!fits(8, 1) && !fits(usize::MAX - 63, 1) && !fits(4096, 1));
    }
}

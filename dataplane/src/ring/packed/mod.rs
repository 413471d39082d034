//! What both ends of a packed virtqueue (virtio 1.2, 2.8) go by: places, the second word of a descriptor, and events.
//!
//! A packed ring is one table of descriptors that both sides write. It has no indices: two flags of a descriptor say
//! whose it is, read against a wrap counter that each side turns over whenever it passes the end of the table.

mod device;
mod journalled;

use virtio_bindings::virtio_ring::{
    VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_FLAG_DESC,
    VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE,
};

use super::view::Descriptor;
pub(super) use device::Packed;
pub(super) use journalled::{JournalledPacked, resume};

/// A place in a packed ring: a descriptor, and the wrap counter there, which starts as `true` and turns over with each
/// round. Kept in one word of four bytes, as a [`super::Position`] is and for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Where every ring starts.
    pub(super) const START: Place = Place(WRAP);
    /// Where a ring is after its first round.
    pub(super) const FIRST_TURNED: Place = Place(0);

    /// As positions travel: index in bits 0 to 14, wrap counter in bit 15 (virtio 1.2, 2.8.14 for events; vhost-user
    /// for bases).
    #[inline]
    pub(super) fn from_bits(bits: u16) -> Place {
        Place(bits.into())
    }

    /// The reverse of [`Self::from_bits`].
    #[inline]
    pub(super) fn bits(self) -> u16 {
        self.0 as u16
    }

    /// The descriptor: less than the ring's size, of our own places. What the other side says may be anywhere.
    #[inline]
    pub(super) fn index(self) -> u16 {
        (self.0 & !WRAP) as u16
    }

    #[inline]
    fn wrap(self) -> bool {
        self.0 & WRAP != 0
    }

    /// `count` descriptors on, at most a round, in a ring of `size`.
    #[inline]
    pub(super) fn advance(&mut self, count: u16, size: u16) {
        let index = u32::from(self.index()) + u32::from(count);
        let size = u32::from(size);
        let wrap = self.0 & WRAP;
        self.0 = if index >= size { (index - size) | (wrap ^ WRAP) } else { index | wrap };
    }

    /// The flags of a descriptor made available here.
    #[inline]
    pub(super) fn available(self) -> u16 {
        if self.wrap() { AVAILABLE } else { USED }
    }

    /// The flags of a descriptor used here.
    #[inline]
    pub(super) fn used(self) -> u16 {
        if self.wrap() { AVAILABLE | USED } else { 0 }
    }
}

/// The second word of a descriptor: all but the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest(pub u64);

impl Rest {
    #[inline]
    pub(super) fn new(len: u32, id: u16, flags: u16) -> Rest {
        Rest(u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48)
    }

    #[inline]
    pub(super) fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn id(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline]
    pub(super) fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The descriptor of which this is the second word, and `addr` the first.
    #[inline]
    pub(super) fn descriptor(self, addr: u64) -> Descriptor {
        Descriptor { addr, len: self.len(), flags: self.flags(), next: 0 }
    }

    /// The same of another chain.
    #[inline]
    pub(super) fn in_the_name_of(self, id: u16) -> Rest {
        Rest::new(self.len(), id, self.flags())
    }

    /// Whether the descriptor has been used: since then one flag or the other says so. That of a ring that has just begun
    /// is as the driver cleared it, or available for the first time.
    pub(super) fn was_used(self) -> bool {
        self.flags() & USED != 0
    }

    /// Whether the two flags that say whose a descriptor is are `owner`: [`Place::available`] or [`Place::used`].
    #[inline]
    pub(super) fn is(self, owner: u16) -> bool {
        self.flags() & (AVAILABLE | USED) == owner
    }
}

/// What one side asks the other to be told of (virtio 1.2, 2.8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Always,
    Never,
    /// Once the descriptor at this place changes hands.
    At(Place),
}

impl Event {
    /// From the four bytes of an event suppression structure. Flags that mean nothing ask for everything, so that nobody
    /// sleeps for ever.
    #[inline]
    pub(super) fn from_word(word: u32) -> Event {
        match word >> 16 & 3 {
            VRING_PACKED_EVENT_FLAG_DISABLE => Event::Never,
            VRING_PACKED_EVENT_FLAG_DESC => Event::At(Place::from_bits(word as u16)),
            _ => Event::Always,
        }
    }

    /// The reverse of [`Self::from_word`].
    #[inline]
    pub(super) fn word(self) -> u32 {
        match self {
            Event::Always => VRING_PACKED_EVENT_FLAG_ENABLE << 16,
            Event::Never => VRING_PACKED_EVENT_FLAG_DISABLE << 16,
            Event::At(place) => VRING_PACKED_EVENT_FLAG_DESC << 16 | u32::from(place.bits()),
        }
    }

    /// Whether to tell, after `count` descriptors up to, and not including, `now` changed hands in a ring of `size`.
    #[inline]
    pub(super) fn is_due(self, now: Place, count: u32, size: u16) -> bool {
        match self {
            Event::Always => true,
            Event::Never => false,
            Event::At(place) => {
                let round = if place.wrap() == now.wrap() { 0 } else { i64::from(size) };
                let passed_by = i64::from(now.index()) + round - i64::from(place.index());
                (1..=i64::from(count)).contains(&passed_by)
            }
        }
    }
}

const AVAILABLE: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
const WRAP: u32 = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_goes_round_and_turns_its_counter_over() {
        for size in [1, 3, 5, 256, 32_767, 32_768] {
            let mut place = Place::START;
            for step in 0..3 * u32::from(size).min(1000) {
                let (round, index) = (step / u32::from(size), step % u32::from(size));
                assert_eq!((u32::from(place.index()), place.wrap()), (index, round % 2 == 0), "{size}");
                assert_eq!(Place::from_bits(place.bits()), place);
                place.advance(1, size);
            }
            let before = place;
            place.advance(size, size);
            assert_eq!((place.index(), place.wrap()), (before.index(), !before.wrap()), "a whole round");
        }
    }

    #[test]
    fn descriptor_is_either_available_or_used_or_of_another_round() {
        for wrap in [0, WRAP] {
            let (place, other) = (Place(wrap), Place(wrap ^ WRAP));
            let all = [place.available(), place.used(), other.available(), other.used()];
            assert!((1..4).all(|shift| (0..4).all(|at| all[at] != all[(at + shift) % 4])));
            let rest = Rest::new(7, 0xbeef, place.available() | 2);
            assert_eq!((rest.len(), rest.id(), rest.is(place.available())), (7, 0xbeef, true));
            assert!(all[1..].iter().all(|&owner| !rest.is(owner)));
        }
    }

    /// Against a ring walked step by step.
    #[test]
    fn event_is_due_when_its_descriptor_was_among_those_that_changed_hands() {
        for size in [1, 2, 3, 7, 32_768] {
            for start in 0..2 * u32::from(size).min(4) {
                for count in 0..=u32::from(size.min(7)) {
                    let mut now = Place::START;
                    (0..start).for_each(|_| now.advance(1, size));
                    let mut passed = Vec::new();
                    for _ in 0..count {
                        passed.push(now);
                        now.advance(1, size);
                    }
                    for bits in (0..size.min(9)).flat_map(|index| [index, index | 1 << 15]) {
                        let place = Place::from_bits(bits);
                        assert_eq!(Event::At(place).is_due(now, count, size), passed.contains(&place));
                    }
                }
            }
        }
        assert!(Event::Always.is_due(Place::START, 1, 4) && !Event::Never.is_due(Place::START, 1, 4));
    }

    #[test]
    fn events_survive_their_four_bytes_and_nonsense_asks_for_everything() {
        for event in [Event::Always, Event::Never, Event::At(Place(77))] {
            assert_eq!(Event::from_word(event.word()), event);
        }
        assert_eq!(Event::from_word(3 << 16), Event::Always);
        assert_eq!(Event::from_word(0xfffc_0000), Event::Always, "reserved bits are ignored");
    }
}

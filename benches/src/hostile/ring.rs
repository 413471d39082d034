//! A ring whose every word an attacker writes as it likes, split or packed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::{GUEST, Memory, USER};

/// Another descriptor follows.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// A table of descriptors.
pub const INDIRECT: u16 = 4;
/// In a descriptor of a packed ring: it was made available.
const AVAILABLE: u16 = 1 << 7;
/// In a descriptor of a packed ring: it was used.
const USED: u16 = 1 << 15;
/// Entries of an attacker's ring.
pub const SIZE: u16 = 256;
/// Bytes of memory that a ring takes.
pub const FOOTPRINT: u64 = 0x4000;
const AVAIL_OFFSET: u64 = 0x1000;
const USED_OFFSET: u64 = 0x2000;

/// A descriptor as it will lie in memory.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// A guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`], or anything.
    pub flags: u16,
    /// What follows; in packed rings, where the order says that, the buffer's id.
    pub next: u16,
}

impl Desc {
    /// What the device may read: `len` bytes at `offset` of the memory.
    pub fn read(offset: u64, len: u32) -> Desc {
        Desc { addr: GUEST + offset, len, flags: 0, next: 0 }
    }

    /// What the device may write.
    pub fn write(offset: u64, len: u32) -> Desc {
        Desc { flags: WRITE, ..Desc::read(offset, len) }
    }

    /// The same with other flags.
    pub fn with(self, flags: u16) -> Desc {
        Desc { flags, ..self }
    }
}

/// The ring. It remembers what an honest driver would, so that an attack can be followed by an honest frame.
pub struct HostileRing {
    memory: Arc<Memory>,
    /// Where it lies in the memory.
    offset: u64,
    /// Entries.
    pub size: u16,
    /// Its form.
    pub packed: bool,
    /// The descriptor that the next chain begins with.
    place: u16,
    /// The packed ring's wrap counter there.
    wrap: bool,
    /// The split ring's available index.
    pub avail: u16,
    /// Where the chain that was posted last begins, and the wrap counter there.
    last: (u16, bool),
}

impl HostileRing {
    /// Ring `number`, empty.
    pub fn new(memory: Arc<Memory>, number: u64, size: u16, packed: bool) -> HostileRing {
        let offset = number * FOOTPRINT;
        let mut ring =
            HostileRing { memory, offset, size, packed, place: 0, wrap: true, avail: 0, last: (0, true) };
        ring.clear();
        ring
    }

    /// Back to its beginning, all zeros.
    pub fn clear(&mut self) {
        (self.place, self.wrap, self.avail) = (0, true, 0);
        for word in (0..FOOTPRINT).step_by(8) {
            self.memory.set_u64(self.offset + word, 0);
        }
    }

    /// Where its parts lie, in the front end's own addresses: descriptors, available ring, used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [0, AVAIL_OFFSET, USED_OFFSET].map(|part| USER + self.offset + part)
    }

    /// Where its parts lie in the memory.
    pub fn offsets(&self) -> [u64; 3] {
        [0, AVAIL_OFFSET, USED_OFFSET].map(|part| self.offset + part)
    }

    /// The descriptor that the next chain begins with.
    pub fn place(&self) -> u16 {
        self.place
    }

    /// Posts a chain: its descriptors one after the other, each linked to the next one if it has [`NEXT`].
    pub fn post(&mut self, chain: &[Desc]) {
        let (place, size) = (self.place, self.size);
        let link = |(at, desc): (usize, &Desc)| {
            let next = if self.packed { place } else { (place + at as u16 + 1) % size };
            Desc { next, ..*desc }
        };
        let linked: Vec<Desc> = chain.iter().enumerate().map(link).collect();
        self.post_raw(&linked);
    }

    /// Posts a chain as its descriptors stand.
    pub fn post_raw(&mut self, chain: &[Desc]) {
        let head = self.place;
        self.last = (self.place, self.wrap);
        let mut first = None;
        for desc in chain {
            let (place, owner) = (self.place, if self.wrap { AVAILABLE } else { USED });
            if !self.packed {
                self.set_desc(place, *desc);
            } else if first.is_none() {
                first = Some((place, Desc { flags: desc.flags | owner, ..*desc }));
            } else {
                self.set_desc(place, Desc { flags: desc.flags | owner, ..*desc });
            }
            self.place += 1;
            if self.place == self.size {
                (self.place, self.wrap) = (0, !self.wrap);
            }
        }
        match first {
            // What makes the whole chain available comes last.
            Some((place, desc)) => self.set_desc(place, desc),
            None => self.offer(head),
        }
    }

    /// Puts a head, any number, into a split ring's next available entry; [`Self::publish`] shows it.
    pub fn offer(&mut self, head: u16) {
        self.memory.set_u16(self.offset + AVAIL_OFFSET + 4 + 2 * u64::from(self.avail % self.size), head);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows what was posted: a split ring's available index. A packed ring has shown it already.
    pub fn publish(&self) {
        if !self.packed {
            self.set_index(self.avail);
        }
    }

    /// Writes a split ring's available index, any number.
    pub fn set_index(&self, index: u16) {
        self.memory.set_u16(self.offset + AVAIL_OFFSET + 2, index);
    }

    /// Writes a descriptor, shown or not.
    pub fn set_desc(&self, index: u16, desc: Desc) {
        let place = self.offset + 16 * u64::from(index);
        self.memory.set_u64(place, desc.addr);
        self.memory.set_u64(place + 8, self.second_word(desc));
    }

    /// The second word of a descriptor in this ring.
    pub fn second_word(&self, desc: Desc) -> u64 {
        second_word(desc, self.packed)
    }

    /// Writes the flags by which a driver says what it wants to be told: of a split ring its first word, of a packed one
    /// the second half of the driver's event structure.
    pub fn set_flags(&self, flags: u16) {
        let place = if self.packed { 2 } else { 0 };
        self.memory.set_u16(self.offset + AVAIL_OFFSET + place, flags);
    }

    /// Writes the place at which a driver wants to be told.
    pub fn set_event(&self, event: u16) {
        let place = if self.packed { 0 } else { 4 + 2 * u64::from(self.size) };
        self.memory.set_u16(self.offset + AVAIL_OFFSET + place, event);
    }

    /// A split ring's used index.
    pub fn used(&self) -> u16 {
        self.memory.u16(self.offset + USED_OFFSET + 2)
    }

    /// Whether the device has used all that was posted.
    pub fn is_used_up(&self) -> bool {
        if !self.packed {
            return self.used() == self.avail;
        }
        let (place, wrap) = self.last;
        self.is_used(place, wrap)
    }

    /// The same of a ring that was filled with chains of one descriptor: looks at each, since a device may write the first
    /// of a run last, so that all of them are seen at once, and what is written then must not be a newer one's.
    pub fn is_empty_again(&self) -> bool {
        if !self.packed {
            return self.is_used_up();
        }
        let lap = |place| if place < self.place { self.wrap } else { !self.wrap };
        (0..self.size).all(|place| self.is_used(place, lap(place)))
    }

    /// Whether the device has used a packed ring's descriptor, which was made available in a lap with that wrap counter.
    fn is_used(&self, place: u16, wrap: bool) -> bool {
        let word = self.memory.word(self.offset + 16 * u64::from(place) + 8).load(Ordering::SeqCst);
        let used = if wrap { AVAILABLE | USED } else { 0 };
        (word >> 48) as u16 & (AVAILABLE | USED) == used
    }

    /// How many buffers, of those that were posted from the beginning one by one, the device has used.
    pub fn used_of_first(&self, count: u16) -> u16 {
        if !self.packed {
            return self.used().min(count);
        }
        let is_used = |place: &u16| {
            let word = self.memory.word(self.offset + 16 * u64::from(*place) + 8).load(Ordering::SeqCst);
            (word >> 48) as u16 & (AVAILABLE | USED) == AVAILABLE | USED
        };
        (0..count).take_while(is_used).count() as u16
    }
}

/// The second word of a descriptor: length, flags, and what stands beside them, where the ring's form has it.
pub fn second_word(desc: Desc, packed: bool) -> u64 {
    let Desc { len, flags, next, .. } = desc;
    let (low, high) = if packed { (next, flags) } else { (flags, next) };
    u64::from(len) | u64::from(low) << 32 | u64::from(high) << 48
}

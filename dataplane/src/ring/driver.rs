//! A split ring in the driver role: the other end of [`super::RingIngress`] and [`super::RingEgress`], for built-in
//! guests, load and tests.
//!
//! The driver keeps its own copy of all that it wrote, so the device is believed in one place only, the used ring, and
//! checked there. A word that already says what it should is not written again: the other core then keeps its cache line.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};

use super::{DriverMemory, RING_SIZE_MAX, RingError, RingLayout};

/// What was negotiated, as far as the driver's end of a ring cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// VIRTIO_F_IN_ORDER: one used entry may stand for a run of buffers (virtio 1.2, 2.7.9).
    pub in_order: bool,
}

/// A stretch of the driver's memory that the device may read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte, from the start of the memory.
    pub offset: usize,
    /// Bytes.
    pub len: u32,
    /// The device writes it; else it reads it.
    pub writable: bool,
}

/// A chain that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head descriptor that [`DriverRing::add`] gave.
    pub head: u16,
    /// Bytes that the device says it wrote. `None`: the chain was passed over in a run that is used in order, so all of
    /// it was used.
    pub written: Option<u32>,
}

/// What a device did that no device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// The used index is ahead of what was made available.
    IndexJump,
    /// A used entry names a chain that is not with the device.
    NotInFlight,
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceFault::IndexJump => "the used index is ahead of the available one",
            DeviceFault::NotInFlight => "a used entry names a chain that the device does not have",
        })
    }
}

impl std::error::Error for DeviceFault {}

/// What stands in the descriptor table.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// The driver's end of a split virtqueue. One thread has it.
pub struct DriverRing {
    memory: Arc<DriverMemory>,
    desc: usize,
    avail: usize,
    used: usize,
    size: u16,
    options: DriverOptions,
    /// By descriptor: what the table says.
    table: Box<[Entry]>,
    /// By head: descriptors of the chain that the device has; 0: none.
    in_flight: Box<[u16]>,
    /// By place in the available ring: the head that stands there.
    posted: Box<[u16]>,
    /// Free descriptors, the longest free first: with a device that keeps order, each place keeps its descriptor.
    free: VecDeque<u16>,
    next_avail: u16,
    published: u16,
    next_used: u16,
    used_seen: u16,
    /// The end of a run that is used in order: its position, and what was written there.
    run: Option<(u16, u32)>,
}

/// Parts begin at cache lines, so that each side writes lines of its own.
const ALIGNMENT: usize = 64;
const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

impl DriverRing {
    /// Bytes of memory that a ring of `size` entries takes.
    pub fn footprint(size: u16) -> usize {
        let size = usize::from(size);
        16 * size + (6 + 2 * size).next_multiple_of(ALIGNMENT) + (6 + 8 * size).next_multiple_of(ALIGNMENT)
    }

    /// An empty ring of `size` entries at `offset` of `memory`, which is zero there.
    ///
    /// # Panics
    /// If it does not lie inside.
    pub fn new(
        memory: Arc<DriverMemory>,
        offset: usize,
        size: u16,
        options: DriverOptions,
    ) -> Result<DriverRing, RingError> {
        if !size.is_power_of_two() || size > RING_SIZE_MAX {
            return Err(RingError::Size);
        }
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(RingError::Alignment);
        }
        assert!(
            offset <= memory.len() && Self::footprint(size) <= memory.len() - offset,
            "inside the memory"
        );
        let count = usize::from(size);
        let avail = offset + 16 * count;
        Ok(DriverRing {
            memory,
            desc: offset,
            avail,
            used: avail + (6 + 2 * count).next_multiple_of(ALIGNMENT),
            size,
            options,
            table: vec![Entry::default(); count].into(),
            in_flight: vec![0; count].into(),
            posted: vec![0; count].into(),
            free: (0..size).collect(),
            next_avail: 0,
            published: 0,
            next_used: 0,
            used_seen: 0,
            run: None,
        })
    }

    /// Where it lies, in the addresses that vhost-user calls the front end's own.
    pub fn layout(&self) -> RingLayout {
        let user = |offset: usize| DriverMemory::USER_ADDR + offset as u64;
        RingLayout { size: self.size, desc: user(self.desc), avail: user(self.avail), used: user(self.used) }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Free descriptors.
    #[inline]
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// The descriptor that the next [`Self::add`] takes: whoever keeps a buffer for each descriptor fills that one.
    #[inline]
    pub fn next_head(&self) -> Option<u16> {
        self.free.front().copied()
    }

    /// Adds a buffer of one descriptor and returns its head; `None`: no room. The device sees it after
    /// [`Self::publish`].
    #[inline]
    pub fn add(&mut self, part: Part) -> Option<u16> {
        let head = self.free.pop_front()?;
        let entry = self.entry(part);
        self.describe(head, entry);
        self.post(head, 1);
        Some(head)
    }

    /// Adds a buffer of several descriptors. `None`: no room, or no parts.
    pub fn add_chain(&mut self, parts: &[Part]) -> Option<u16> {
        if parts.is_empty() || parts.len() > self.free.len() {
            return None;
        }
        let chain: Vec<u16> = self.free.drain(..parts.len()).collect();
        for (place, part) in parts.iter().enumerate() {
            let mut entry = self.entry(*part);
            if let Some(next) = chain.get(place + 1) {
                (entry.flags, entry.next) = (entry.flags | NEXT, *next);
            }
            self.describe(chain[place], entry);
        }
        self.post(chain[0], parts.len() as u16);
        Some(chain[0])
    }

    /// Adds a buffer of several parts by one descriptor and a table, which is written at `table` and must stay there
    /// until the chain is back. `None`: no room, or no parts.
    pub fn add_indirect(&mut self, table: usize, parts: &[Part]) -> Option<u16> {
        if parts.is_empty() {
            return None;
        }
        let head = self.free.pop_front()?;
        for (place, part) in parts.iter().enumerate() {
            let mut entry = self.entry(*part);
            if place + 1 < parts.len() {
                (entry.flags, entry.next) = (entry.flags | NEXT, place as u16 + 1);
            }
            self.write_entry(table + 16 * place, entry);
        }
        let addr = self.memory.guest_addr(table);
        let entry = Entry { addr, len: 16 * parts.len() as u32, flags: INDIRECT, next: 0 };
        self.describe(head, entry);
        self.post(head, 1);
        Some(head)
    }

    /// Makes all that was added since the last call available. Whether the device wants to be kicked for it (virtio 1.2,
    /// 2.7.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_avail);
        if old == new {
            return false;
        }
        // Release: entries and descriptors before the index; pairs with the device's acquire.
        self.memory.word(self.avail + 2).store(new.to_le(), Ordering::Release);
        self.published = new;
        // The index must be visible before the device's wish is read, or both sides could miss each other; pairs with
        // the barrier between the device's write of its wish and its last look at the index.
        fence(Ordering::SeqCst);
        if self.options.event_idx {
            let event = self.memory.word(self.used + 4 + 8 * usize::from(self.size));
            let event = u16::from_le(event.load(Ordering::Relaxed));
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        let flags = u16::from_le(self.memory.word(self.used).load(Ordering::Relaxed));
        flags & VRING_USED_F_NO_NOTIFY as u16 == 0
    }

    /// The next chain that came back, if there is one. The used index is read only when all that it last showed is
    /// collected.
    #[inline]
    pub fn collect(&mut self) -> Result<Option<Used>, DeviceFault> {
        if self.next_used == self.used_seen {
            self.used_seen = self.used_index();
            if self.next_used == self.used_seen {
                return Ok(None);
            }
            if self.used_seen.wrapping_sub(self.next_used) > self.published.wrapping_sub(self.next_used) {
                return Err(DeviceFault::IndexJump);
            }
        }
        let used = if self.options.in_order { self.used_in_order()? } else { self.used_entry() };
        let chain = self.in_flight.get_mut(usize::from(used.head)).ok_or(DeviceFault::NotInFlight)?;
        match std::mem::take(chain) {
            0 => return Err(DeviceFault::NotInFlight),
            1 => self.free.push_back(used.head),
            length => self.release(used.head, length),
        }
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(used))
    }

    /// Asks to be called for the next chain that comes back; whether one is back already.
    pub fn ask_for_calls(&self) -> bool {
        if self.options.event_idx {
            self.set_used_event(self.next_used);
        } else {
            self.memory.word(self.avail).store(0, Ordering::Relaxed);
        }
        // The wish must be visible before the last look at the index; pairs with the device's barrier between its index
        // and its look at our wish.
        fence(Ordering::SeqCst);
        self.used_index() != self.next_used
    }

    /// Says that calls are not needed; a hint. With EVENT_IDX the event is left behind, which the device reaches again
    /// after 65,536 chains.
    pub fn ask_for_silence(&self) {
        if self.options.event_idx {
            self.set_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.memory
                .word(self.avail)
                .store((VRING_AVAIL_F_NO_INTERRUPT as u16).to_le(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn entry(&self, part: Part) -> Entry {
        let flags = if part.writable { WRITE } else { 0 };
        Entry { addr: self.memory.guest_addr(part.offset), len: part.len, flags, next: 0 }
    }

    #[inline]
    fn describe(&mut self, index: u16, entry: Entry) {
        let shadow = &mut self.table[usize::from(index)];
        if *shadow != entry {
            *shadow = entry;
            self.write_entry(self.desc + 16 * usize::from(index), entry);
        }
    }

    fn write_entry(&self, offset: usize, entry: Entry) {
        let rest = u64::from(entry.len) | u64::from(entry.flags) << 32 | u64::from(entry.next) << 48;
        self.memory.write_u64(offset, entry.addr);
        self.memory.write_u64(offset + 8, rest);
    }

    #[inline]
    fn post(&mut self, head: u16, chain: u16) {
        let slot = usize::from(self.next_avail & (self.size - 1));
        self.in_flight[usize::from(head)] = chain;
        if self.posted[slot] != head {
            self.posted[slot] = head;
            self.memory.word(self.avail + 4 + 2 * slot).store(head.to_le(), Ordering::Relaxed);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Acquire: pairs with the device's release, so that entries and buffers behind the index are seen.
    #[inline]
    fn used_index(&self) -> u16 {
        u16::from_le(self.memory.word(self.used + 2).load(Ordering::Acquire))
    }

    #[inline]
    fn used_entry(&self) -> Used {
        let slot = usize::from(self.next_used & (self.size - 1));
        let entry = self.memory.read_u64(self.used + 4 + 8 * slot);
        // A head beyond 16 bits is nobody's; the lookup by head refuses it.
        let head = u16::try_from(entry as u32).unwrap_or(u16::MAX);
        Used { head, written: Some((entry >> 32) as u32) }
    }

    /// An entry that names a later chain than the oldest one ends a run (virtio 1.2, 2.7.9).
    #[inline]
    fn used_in_order(&mut self) -> Result<Used, DeviceFault> {
        let oldest = self.posted[usize::from(self.next_used & (self.size - 1))];
        let (last, written) = match self.run {
            Some(run) => run,
            None => {
                let Used { head, written } = self.used_entry();
                let shown = self.used_seen.wrapping_sub(self.next_used);
                let place = |ahead: &u16| self.next_used.wrapping_add(*ahead);
                let ahead = (0..shown)
                    .find(|ahead| self.posted[usize::from(place(ahead) & (self.size - 1))] == head)
                    .ok_or(DeviceFault::NotInFlight)?;
                (place(&ahead), written.unwrap_or(0))
            }
        };
        let ends = last == self.next_used;
        self.run = (!ends).then_some((last, written));
        Ok(Used { head: oldest, written: ends.then_some(written) })
    }

    fn release(&mut self, head: u16, length: u16) {
        let mut index = head;
        for _ in 0..length {
            self.free.push_back(index);
            index = self.table[usize::from(index)].next;
        }
    }

    fn set_used_event(&self, position: u16) {
        let place = self.avail + 4 + 2 * usize::from(self.size);
        self.memory.word(place).store(position.to_le(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;

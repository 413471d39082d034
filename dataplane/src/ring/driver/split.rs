//! A split ring in the driver role (virtio 1.2, 2.7).
//!
//! A word that already says what it should is not written again: the other core then keeps its cache line.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};

use super::super::{DriverMemory, Position, RingLayout};
use super::free::FreeList;
use super::{ALIGNMENT, DeviceFault, DriverOptions, Part, Used, user_addr};

/// What stands in the descriptor table.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// The driver's end of a split virtqueue; what is not said here, [`super::DriverRing`] says.
pub(super) struct SplitDriver {
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
    free: FreeList,
    next_avail: Position,
    published: Position,
    next_used: Position,
    used_seen: Position,
    /// The end of a run that is used in order: its position, and what was written there.
    run: Option<(u16, u32)>,
}

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// Bytes of memory that a ring of `size` entries takes.
pub(super) fn footprint(size: u16) -> usize {
    let size = usize::from(size);
    (16 * size).next_multiple_of(ALIGNMENT)
        + (6 + 2 * size).next_multiple_of(ALIGNMENT)
        + (6 + 8 * size).next_multiple_of(ALIGNMENT)
}

impl SplitDriver {
    /// As [`super::DriverRing::new`]: of a size that is allowed, aligned, and inside.
    pub(super) fn new(
        memory: Arc<DriverMemory>,
        offset: usize,
        size: u16,
        options: DriverOptions,
    ) -> SplitDriver {
        let count = usize::from(size);
        let avail = offset + (16 * count).next_multiple_of(ALIGNMENT);
        SplitDriver {
            memory,
            desc: offset,
            avail,
            used: avail + (6 + 2 * count).next_multiple_of(ALIGNMENT),
            size,
            options,
            table: vec![Entry::default(); count].into(),
            in_flight: vec![0; count].into(),
            posted: vec![0; count].into(),
            free: FreeList::new(size),
            next_avail: Position::default(),
            published: Position::default(),
            next_used: Position::default(),
            used_seen: Position::default(),
            run: None,
        }
    }

    pub(super) fn layout(&self) -> RingLayout {
        let (desc, avail, used) = (user_addr(self.desc), user_addr(self.avail), user_addr(self.used));
        RingLayout { size: self.size, desc, avail, used }
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    #[inline]
    pub(super) fn next_head(&self) -> Option<u16> {
        self.free.front()
    }

    #[inline]
    pub(super) fn add(&mut self, part: Part) -> Option<u16> {
        let head = self.free.pop()?;
        let entry = self.entry(part);
        self.describe(head, entry);
        self.post(head, 1);
        Some(head)
    }

    /// What moves is in locals.
    #[inline]
    pub(super) fn add_row(&mut self, count: usize, mut part: impl FnMut(u16) -> Part) -> usize {
        let (mut position, mask) = (self.next_avail, self.size - 1);
        let mut added = 0;
        while added < count {
            let Some(head) = self.free.pop() else { break };
            let entry = self.entry(part(head));
            self.describe(head, entry);
            self.post_at(usize::from(position.get() & mask), head, 1);
            position.advance();
            added += 1;
        }
        self.next_avail = position;
        added
    }

    pub(super) fn add_chain(&mut self, parts: &[Part]) -> Option<u16> {
        if parts.is_empty() || parts.len() > self.free.len() {
            return None;
        }
        let head = self.free.pop()?;
        let mut index = head;
        for (place, part) in parts.iter().enumerate() {
            let mut entry = self.entry(*part);
            let next = if place + 1 < parts.len() { self.free.pop() } else { None };
            if let Some(next) = next {
                (entry.flags, entry.next) = (entry.flags | NEXT, next);
            }
            self.describe(index, entry);
            index = next.unwrap_or(index);
        }
        self.post(head, parts.len() as u16);
        Some(head)
    }

    pub(super) fn add_indirect(&mut self, table: usize, parts: &[Part]) -> Option<u16> {
        if parts.is_empty() {
            return None;
        }
        let head = self.free.pop()?;
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

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published.get(), self.next_avail.get());
        if old == new {
            return false;
        }
        // Release: entries and descriptors before the index; pairs with the device's acquire.
        self.memory.word(self.avail + 2).store(new.to_le(), Ordering::Release);
        self.published = Position::at(new);
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

    /// The used index is read only when all that it last showed is collected.
    #[inline]
    pub(super) fn collect(&mut self) -> Result<Option<Used>, DeviceFault> {
        if self.shown()? == 0 {
            return Ok(None);
        }
        let used = self.used_entry();
        let used = if self.options.in_order { self.used_in_order()? } else { used };
        let chain = self.in_flight.get_mut(usize::from(used.head)).ok_or(DeviceFault::NotInFlight)?;
        match std::mem::take(chain) {
            0 => return Err(DeviceFault::NotInFlight),
            length => self.release(used.head, length),
        }
        self.next_used.advance();
        Ok(Some(used))
    }

    #[inline]
    pub(super) fn collect_row(
        &mut self,
        count: usize,
        mut see: impl FnMut(Used) -> bool,
    ) -> Result<usize, DeviceFault> {
        let shown = self.shown()?;
        if self.run.is_some() {
            return Ok(0);
        }
        let (mut position, mask) = (self.next_used, self.size - 1);
        let mut collected = 0;
        while collected < count.min(usize::from(shown)) {
            let slot = usize::from(position.get() & mask);
            let (used, head) = (self.used_at(slot), self.posted[slot]);
            let chain = usize::from(head);
            if used.head != head || self.in_flight[chain] != 1 || !see(used) {
                break;
            }
            self.in_flight[chain] = 0;
            self.free.push(head);
            position.advance();
            collected += 1;
        }
        self.next_used = position;
        Ok(collected)
    }

    /// Chains that are back, as of the last look at the used index; looks again when all of those are collected.
    #[inline]
    fn shown(&mut self) -> Result<u16, DeviceFault> {
        if self.next_used.get() == self.used_seen.get() {
            self.used_seen = Position::at(self.used_index());
        }
        let next = self.next_used.get();
        let shown = self.used_seen.get().wrapping_sub(next);
        if shown > self.published.get().wrapping_sub(next) {
            return Err(DeviceFault::IndexJump);
        }
        Ok(shown)
    }

    #[inline]
    pub(super) fn peek_used(&mut self, count: usize, mut see: impl FnMut(u16)) {
        if self.next_used.get() == self.used_seen.get() {
            self.used_seen = Position::at(self.used_index());
        }
        let shown =
            usize::from(self.used_seen.get().wrapping_sub(self.next_used.get())).min(usize::from(self.size));
        for ahead in 0..count.min(shown) {
            let slot = usize::from(self.next_used.get().wrapping_add(ahead as u16) & (self.size - 1));
            // In order the entries of a run but the last are not written.
            see(if self.options.in_order { self.posted[slot] } else { self.used_head(slot) });
        }
    }

    #[inline]
    pub(super) fn peek_free(&self, count: usize, see: impl FnMut(u16)) {
        self.free.peek(count).for_each(see);
    }

    pub(super) fn ask_for_calls(&self) -> bool {
        if self.options.event_idx {
            self.set_used_event(self.next_used.get());
        } else {
            self.memory.word(self.avail).store(0, Ordering::Relaxed);
        }
        // The wish must be visible before the last look at the index; pairs with the device's barrier between its index
        // and its look at our wish.
        fence(Ordering::SeqCst);
        self.used_index() != self.next_used.get()
    }

    /// With EVENT_IDX the event is left behind, which the device reaches again after 65,536 chains.
    pub(super) fn ask_for_silence(&self) {
        if self.options.event_idx {
            self.set_used_event(self.next_used.get().wrapping_sub(1));
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
        self.post_at(usize::from(self.next_avail.get() & (self.size - 1)), head, chain);
        self.next_avail.advance();
    }

    #[inline]
    fn post_at(&mut self, slot: usize, head: u16, chain: u16) {
        self.in_flight[usize::from(head)] = chain;
        if self.posted[slot] != head {
            self.posted[slot] = head;
            self.memory.word(self.avail + 4 + 2 * slot).store(head.to_le(), Ordering::Relaxed);
        }
    }

    /// Acquire: pairs with the device's release, so that entries and buffers behind the index are seen.
    #[inline]
    fn used_index(&self) -> u16 {
        u16::from_le(self.memory.word(self.used + 2).load(Ordering::Acquire))
    }

    #[inline]
    fn used_head(&self, slot: usize) -> u16 {
        self.memory.read_u64(self.used + 4 + 8 * slot) as u16
    }

    #[inline]
    fn used_entry(&self) -> Used {
        self.used_at(usize::from(self.next_used.get() & (self.size - 1)))
    }

    #[inline]
    fn used_at(&self, slot: usize) -> Used {
        let entry = self.memory.read_u64(self.used + 4 + 8 * slot);
        // A head beyond 16 bits is nobody's; the lookup by head refuses it.
        let head = u16::try_from(entry as u32).unwrap_or(u16::MAX);
        Used { head, written: Some((entry >> 32) as u32) }
    }

    /// An entry that names a later chain than the oldest one ends a run (virtio 1.2, 2.7.9).
    #[inline]
    fn used_in_order(&mut self) -> Result<Used, DeviceFault> {
        let oldest = self.posted[usize::from(self.next_used.get() & (self.size - 1))];
        let (last, written) = match self.run {
            Some(run) => run,
            None => {
                let Used { head, written } = self.used_entry();
                let shown = self.used_seen.get().wrapping_sub(self.next_used.get());
                let place = |ahead: &u16| self.next_used.get().wrapping_add(*ahead);
                let ahead = (0..shown)
                    .find(|ahead| self.posted[usize::from(place(ahead) & (self.size - 1))] == head)
                    .ok_or(DeviceFault::NotInFlight)?;
                (place(&ahead), written.unwrap_or(0))
            }
        };
        let ends = last == self.next_used.get();
        self.run = (!ends).then_some((last, written));
        Ok(Used { head: oldest, written: ends.then_some(written) })
    }

    fn release(&mut self, head: u16, length: u16) {
        let mut index = head;
        for _ in 0..length {
            self.free.push(index);
            index = self.table[usize::from(index)].next;
        }
    }

    fn set_used_event(&self, position: u16) {
        let place = self.avail + 4 + 2 * usize::from(self.size);
        self.memory.word(place).store(position.to_le(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;

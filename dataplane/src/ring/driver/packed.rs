//! A packed ring in the driver role (virtio 1.2, 2.8).
//!
//! The device sees descriptors in the order of the ring, so it is enough to hold back the first of a burst: its second
//! word, which says that it is available, is written when all are, and makes them all available at once.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::super::packed::{Event, Place, Rest};
use super::super::{DriverMemory, RingLayout};
use super::free::FreeList;
use super::{ALIGNMENT, DeviceFault, DriverOptions, Part, Used, user_addr};

/// The driver's end of a packed virtqueue; what is not said here, [`super::DriverRing`] says. A head is a buffer id.
pub(super) struct PackedDriver {
    memory: Arc<DriverMemory>,
    desc: usize,
    /// The event suppression structures: ours, and the device's.
    driver_event: usize,
    device_event: usize,
    size: u16,
    options: DriverOptions,
    /// By id: descriptors of the chain that the device has; 0: none.
    in_flight: Box<[u16]>,
    /// By place in the ring: the id of the chain that begins there.
    posted: Box<[u16]>,
    /// Free ids, the longest free first: with a device that keeps order, each place keeps its id.
    free: FreeList,
    /// Free descriptors: never more than free ids.
    room: u32,
    next_avail: Place,
    next_used: Place,
    /// Descriptors that are written and not published.
    unpublished: u32,
    /// Where the second word of the first of these belongs, and what it is.
    held_back: (usize, Rest),
    /// The id at the end of a run that is used in order, or [`NO_RUN`], and what was written there.
    run_end: u32,
    run_written: u32,
}

/// No id has more than 16 bits.
const NO_RUN: u32 = u32::MAX;
const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

impl PackedDriver {
    /// As [`super::DriverRing::new`]: of a size that is allowed, aligned, and inside.
    pub(super) fn new(
        memory: Arc<DriverMemory>,
        offset: usize,
        size: u16,
        options: DriverOptions,
    ) -> PackedDriver {
        let count = usize::from(size);
        let driver_event = offset + (16 * count).next_multiple_of(ALIGNMENT);
        PackedDriver {
            memory,
            desc: offset,
            driver_event,
            device_event: driver_event + ALIGNMENT,
            size,
            options,
            in_flight: vec![0; count].into(),
            posted: vec![0; count].into(),
            free: FreeList::new(size),
            room: size.into(),
            next_avail: Place::START,
            next_used: Place::START,
            unpublished: 0,
            held_back: (0, Rest(0)),
            run_end: NO_RUN,
            run_written: 0,
        }
    }

    pub(super) fn layout(&self) -> RingLayout {
        let (avail, used) = (user_addr(self.driver_event), user_addr(self.device_event));
        RingLayout { size: self.size, desc: user_addr(self.desc), avail, used }
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(super) fn room(&self) -> usize {
        self.room as usize
    }

    #[inline]
    pub(super) fn next_head(&self) -> Option<u16> {
        if self.room == 0 { None } else { self.free.front() }
    }

    #[inline]
    pub(super) fn add(&mut self, part: Part) -> Option<u16> {
        let id = self.begin(1)?;
        self.describe(self.memory.guest_addr(part.offset), part.len, direction(part), id);
        Some(id)
    }

    #[inline]
    pub(super) fn add_row(&mut self, count: usize, mut part: impl FnMut(u16) -> Part) -> usize {
        for added in 0..count {
            let Some(head) = self.next_head() else { return added };
            self.add(part(head));
        }
        count
    }

    pub(super) fn add_chain(&mut self, parts: &[Part]) -> Option<u16> {
        let count = u16::try_from(parts.len()).ok().filter(|&count| count > 0)?;
        let id = self.begin(count)?;
        for (place, part) in parts.iter().enumerate() {
            let next = if place + 1 < parts.len() { NEXT } else { 0 };
            self.describe(self.memory.guest_addr(part.offset), part.len, direction(*part) | next, id);
        }
        Some(id)
    }

    /// The entries of a table follow each other; no flag says so (virtio 1.2, 2.8.7).
    pub(super) fn add_indirect(&mut self, table: usize, parts: &[Part]) -> Option<u16> {
        if parts.is_empty() {
            return None;
        }
        let id = self.begin(1)?;
        for (place, part) in parts.iter().enumerate() {
            let rest = Rest::new(part.len, 0, direction(*part));
            self.memory.write_u64(table + 16 * place, self.memory.guest_addr(part.offset));
            self.memory.write_u64(table + 16 * place + 8, rest.0);
        }
        self.describe(self.memory.guest_addr(table), 16 * parts.len() as u32, INDIRECT, id);
        Some(id)
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let count = std::mem::take(&mut self.unpublished);
        if count == 0 {
            return false;
        }
        let (offset, Rest(rest)) = self.held_back;
        // Release: all that was described before this word; pairs with the device's acquire of it.
        self.memory.double(offset).store(rest.to_le(), Ordering::Release);
        // The descriptor must be visible before the device's wish is read, or both sides could miss each other; pairs
        // with the barrier between the device's write of its wish and its last look at the descriptor.
        fence(Ordering::SeqCst);
        let wish = self.memory.half(self.device_event).load(Ordering::Relaxed);
        Event::from_word(u32::from_le(wish)).is_due(self.next_avail, count, self.size)
    }

    #[inline]
    pub(super) fn collect(&mut self) -> Result<Option<Used>, DeviceFault> {
        let (last, written) = if self.run_end != NO_RUN {
            (self.run_end as u16, self.run_written)
        } else {
            let Some(used) = self.used_descriptor() else { return Ok(None) };
            used
        };
        // The device's word is checked here; in order, it is then reached from the oldest on, and the run ends.
        if self.in_flight.get(usize::from(last)).is_none_or(|&count| count == 0) {
            return Err(DeviceFault::NotInFlight);
        }
        let head =
            if self.options.in_order { self.posted[usize::from(self.next_used.index())] } else { last };
        let count = std::mem::take(&mut self.in_flight[usize::from(head)]);
        self.free.push(head);
        self.room += u32::from(count);
        self.next_used.advance(count, self.size);
        let ends = head == last;
        (self.run_end, self.run_written) = if ends { (NO_RUN, 0) } else { (last.into(), written) };
        Ok(Some(Used { head, written: ends.then_some(written) }))
    }

    /// One by one is what a packed ring is good at.
    #[inline]
    pub(super) fn collect_row(
        &mut self,
        _: usize,
        _: impl FnMut(Used) -> bool,
    ) -> Result<usize, DeviceFault> {
        Ok(0)
    }

    /// Takes each chain for one descriptor; it is a hint.
    #[inline]
    pub(super) fn peek_used(&mut self, count: usize, mut see: impl FnMut(u16)) {
        let mut place = self.next_used;
        for _ in 0..count.min(usize::from(self.size)) {
            let offset = self.desc + 16 * usize::from(place.index()) + 8;
            let rest = Rest(u64::from_le(self.memory.double(offset).load(Ordering::Relaxed)));
            if !rest.is(place.used()) {
                return;
            }
            see(rest.id());
            place.advance(1, self.size);
        }
    }

    #[inline]
    pub(super) fn peek_free(&self, count: usize, see: impl FnMut(u16)) {
        self.free.peek(count).for_each(see);
    }

    pub(super) fn ask_for_calls(&self) -> bool {
        self.wish(if self.options.event_idx { Event::At(self.next_used) } else { Event::Always });
        // The wish must be visible before the last look at the descriptor; pairs with the device's barrier between its
        // descriptors and its look at our wish.
        fence(Ordering::SeqCst);
        self.run_end != NO_RUN || self.used_descriptor().is_some()
    }

    pub(super) fn ask_for_silence(&self) {
        self.wish(Event::Never);
    }

    fn wish(&self, event: Event) {
        self.memory.half(self.driver_event).store(event.word().to_le(), Ordering::Relaxed);
    }

    /// The id of a chain of `count` descriptors, which are to be described next; `None`: no room.
    #[inline]
    fn begin(&mut self, count: u16) -> Option<u16> {
        self.room = self.room.checked_sub(count.into())?;
        let id = self.free.pop()?;
        self.in_flight[usize::from(id)] = count;
        self.posted[usize::from(self.next_avail.index())] = id;
        Some(id)
    }

    #[inline]
    fn describe(&mut self, addr: u64, len: u32, flags: u16, id: u16) {
        let offset = self.desc + 16 * usize::from(self.next_avail.index());
        let rest = Rest::new(len, id, flags | self.next_avail.available());
        self.memory.write_u64(offset, addr);
        if self.unpublished == 0 {
            self.held_back = (offset + 8, rest);
        } else {
            self.memory.write_u64(offset + 8, rest.0);
        }
        self.unpublished += 1;
        self.next_avail.advance(1, self.size);
    }

    /// What the device says at the next place, if it says something: an id, and bytes written.
    ///
    /// Acquire: pairs with the device's release, so that the buffers behind the descriptor are seen.
    #[inline]
    fn used_descriptor(&self) -> Option<(u16, u32)> {
        let offset = self.desc + 16 * usize::from(self.next_used.index()) + 8;
        let rest = Rest(u64::from_le(self.memory.double(offset).load(Ordering::Acquire)));
        // A length is one only where the device says that it wrote (virtio 1.2, 2.8.6).
        let written = if rest.flags() & WRITE != 0 { rest.len() } else { 0 };
        rest.is(self.next_used.used()).then_some((rest.id(), written))
    }
}

#[inline]
fn direction(part: Part) -> u16 {
    if part.writable { WRITE } else { 0 }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;

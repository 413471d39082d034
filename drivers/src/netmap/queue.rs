//! The hot half: frames are lent from the slots that they came in by, and copied into those that they go out by.
//!
//! A slot goes back to the kernel at the next call after its frame, and every frame before it, is settled. What goes out is
//! told to the kernel once a burst.

#![allow(unsafe_code)] // lends and fills memory that the kernel shares

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, BURST_PIECES, Burst, BurstBuilder, Frame, Piece, Taken};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offloads};
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch};
use rustix::io::Errno;

use super::memory::Ring;
use crate::health::Health;
use crate::spread::{Form, Needs};
use crate::sys::netmap::Device;
use crate::sys::vector::Room;

/// Slots of one frame, at most (NETMAP_MAX_FRAGS).
pub(super) const SLOTS_MAX: usize = 64;

/// The calls that move frames.
pub(super) trait Kernel: AsFd + Send + Sync {
    /// Takes what was published to go out, and says what went.
    fn sync_out(&self) -> Result<(), Errno>;
    /// Takes slots back, and says what came in.
    fn sync_in(&self) -> Result<(), Errno>;
}

impl Kernel for Device {
    fn sync_out(&self) -> Result<(), Errno> {
        self.sync_out()
    }

    fn sync_in(&self) -> Result<(), Errno> {
        self.sync_in()
    }
}

/// One receive ring.
pub(super) struct Inlet<K> {
    kernel: Arc<K>,
    queue: u16,
    /// Bytes of virtio-net header in front of each frame: 0, 10 or 12.
    net_header_len: usize,
    health: Arc<Health>,
    /// Used by the worker that has the duty, a burst at a time.
    state: Mutex<Seen>,
    /// The kernel had nothing, so the next look waits for the doorbell. Written by the worker that has the duty; relaxed,
    /// since that is the only one that reads it.
    drained: AtomicBool,
}

/// Frames that were found in a receive ring.
struct Seen {
    ring: Ring,
    /// The first slot that is ours.
    head: u32,
    /// The first slot that was not looked at.
    position: u32,
    /// Slots that are ours no more, and that the kernel does not know of yet.
    unreturned: u32,
    /// The tail up to which there is only the beginning of a frame.
    endless: Option<u32>,
    frames: [Extent; BURST_FRAMES],
    count: usize,
    /// What lies in the slots of these frames, frame by frame.
    pieces: Box<[Piece; BURST_PIECES]>,
}

// SAFETY: the pieces lie in the mapping that the ring owns, which may go from thread to thread.
unsafe impl Send for Seen {}

/// Where a frame lies.
#[derive(Clone, Copy, Default)]
struct Extent {
    slot: u32,
    first: usize,
    count: usize,
}

/// What a look at the next frame found.
enum Found {
    Frame(Extent),
    Unfit(DropReason),
    /// Its end is not there yet, or there is no place for it now.
    Later,
}

impl<K: Kernel> Inlet<K> {
    pub(super) fn new(
        kernel: Arc<K>,
        ring: Ring,
        queue: u16,
        net_header_len: usize,
        health: Arc<Health>,
    ) -> Inlet<K> {
        let position = ring.head().unwrap_or(0);
        let pieces = Box::new([Piece::at(std::ptr::null(), 0); BURST_PIECES]);
        let frames = [Extent::default(); BURST_FRAMES];
        let seen =
            Seen { ring, head: position, position, unreturned: 0, endless: None, frames, count: 0, pieces };
        let state = Mutex::new(seen);
        Inlet { kernel, queue, net_header_len, health, state, drained: AtomicBool::new(false) }
    }

    /// Frames that were lent and not settled.
    pub(super) fn held(&self) -> usize {
        self.state().count
    }

    fn state(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel's tail, after a call if there is nothing without or if many slots are to be given back.
    fn tail(&self, seen: &mut Seen) -> Option<u32> {
        let tail = seen.ring.tail()?;
        if tail != seen.position && seen.unreturned < seen.ring.slots() / 2 {
            return Some(tail);
        }
        self.sync(seen)?;
        seen.ring.tail()
    }

    fn sync(&self, seen: &mut Seen) -> Option<()> {
        self.kernel.sync_in().ok()?;
        seen.unreturned = 0;
        Some(())
    }

    /// The frame before `tail` has no end: the kernel is asked for it, and if it has none, it rings when there is more.
    fn await_end(&self, seen: &mut Seen, tail: u32) {
        seen.ring.publish(seen.head, tail);
        if self.sync(seen).is_none() {
            self.health.fail();
        } else if seen.ring.tail() == Some(tail) {
            seen.endless = Some(tail);
            self.drained.store(true, Ordering::Relaxed);
        }
    }

    /// Adds a frame to the burst.
    ///
    /// # Safety
    /// The pieces lie in the mapping, and the burst has room for as many.
    unsafe fn push(&self, builder: &mut BurstBuilder<'_, '_>, pieces: &[Piece]) -> Result<(), DropReason> {
        if self.net_header_len == 0 {
            // SAFETY: as the caller promises.
            return unsafe { builder.push_lent(pieces) };
        }
        let (first, rest) = pieces.split_first().ok_or(DropReason::Malformed)?;
        let left = first.len().checked_sub(self.net_header_len).ok_or(DropReason::Malformed)?;
        let mut net = [0; NET_HEADER_LEN];
        // SAFETY: the piece has that many bytes, and `net` is our own.
        unsafe { std::ptr::copy_nonoverlapping(first.start(), net.as_mut_ptr(), net.len()) };
        let mut frame = [*first; SLOTS_MAX];
        frame[0] = Piece::at(first.start().wrapping_add(self.net_header_len), left as u32);
        frame[1..pieces.len()].copy_from_slice(rest);
        // SAFETY: as the caller promises, and the first piece is the rest of one.
        unsafe { builder.push_lent_asking(&net, &frame[..pieces.len()], Offloads::ALL) }
    }

    /// Lends the frames in order, all that one burst may have, and keeps what is left unsettled. Returns how many are gone.
    fn lend(
        &self,
        seen: &mut Seen,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        let before = seen.count;
        let mut builder = scratch.burst.begin(self.queue);
        let mut index = 0;
        while index < before && !builder.is_full(seen.frames[index].count) && !builder.is_full_of_segments() {
            let extent = seen.frames[index];
            let pieces = &seen.pieces[extent.first..extent.first + extent.count];
            // SAFETY: `Seen::look` took the pieces from the ring, which found them in the mapping; there is room.
            match unsafe { self.push(&mut builder, pieces) } {
                Ok(()) => seen.frames[builder.len() - 1] = extent,
                Err(reason) => scratch.tally.drop(reason),
            }
            index += 1;
        }
        let lent = builder.len();
        let taken = if lent > 0 { forward(&builder.burst()) } else { Taken::ALL };
        seen.count = 0;
        for place in (0..lent).chain(index..before) {
            if place >= lent || !taken.settled(place) {
                seen.keep(seen.frames[place]);
            }
        }
        seen.give_back();
        before - seen.count
    }
}

impl Seen {
    /// Looks at the slots before `tail` until a burst is full. Only when nothing is kept, so that the order stays. Returns
    /// how many frames were unfit.
    fn read(&mut self, tail: u32, scratch: &mut IngressScratch) -> usize {
        let (mut end, mut unfit) = (0, 0);
        self.endless = None;
        while self.count < BURST_FRAMES && self.position != tail {
            match self.look(tail, end) {
                Found::Frame(extent) => {
                    end += extent.count;
                    self.frames[self.count] = extent;
                    self.count += 1;
                }
                Found::Unfit(reason) => {
                    scratch.tally.drop(reason);
                    unfit += 1;
                }
                Found::Later => break,
            }
        }
        unfit
    }

    /// Looks at the frame at `position`, whose pieces are to stand from `first` on, and goes past it.
    fn look(&mut self, tail: u32, first: usize) -> Found {
        let (slot, mut position, mut count) = (self.position, self.position, 0);
        let mut trouble = None;
        loop {
            let said = self.ring.slot(position);
            position = self.ring.next(position);
            match self.ring.piece(said) {
                None => trouble = Some(DropReason::Malformed),
                Some(_) if count == SLOTS_MAX => trouble = trouble.or(Some(DropReason::TooLong)),
                Some(_) if first + count == BURST_PIECES => return Found::Later,
                Some(piece) => {
                    self.pieces[first + count] = piece;
                    count += 1;
                }
            }
            if !said.more {
                break;
            }
            if position == tail {
                // The kernel shows whole frames only; one without an end in a full ring would stay for ever.
                let full = self.ring.distance(slot, tail) + 1 == self.ring.slots();
                match full {
                    true => trouble = Some(DropReason::Malformed),
                    false => return Found::Later,
                }
                break;
            }
        }
        self.position = position;
        match trouble {
            Some(reason) => Found::Unfit(reason),
            None => Found::Frame(Extent { slot, first, count }),
        }
    }

    /// Puts a frame behind those that are kept already, which stood before it.
    fn keep(&mut self, extent: Extent) {
        let end =
            self.count.checked_sub(1).map_or(0, |last| self.frames[last].first + self.frames[last].count);
        self.pieces.copy_within(extent.first..extent.first + extent.count, end);
        self.frames[self.count] = Extent { first: end, ..extent };
        self.count += 1;
    }

    /// Leaves to the kernel what lies before the first frame that is kept.
    fn give_back(&mut self) {
        let head = if self.count > 0 { self.frames[0].slot } else { self.position };
        self.unreturned += self.ring.distance(self.head, head);
        self.head = head;
        self.ring.publish(head, self.position);
    }
}

impl<K: Kernel> Ingress for Inlet<K> {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        if self.drained.load(Ordering::Relaxed) || self.health.has_failed() {
            return 0;
        }
        let mut seen = self.state();
        let mut unfit = 0;
        if seen.count == 0 {
            let Some(tail) = self.tail(&mut seen) else {
                self.health.fail();
                return 0;
            };
            if tail == seen.position {
                self.drained.store(true, Ordering::Relaxed);
                return 0;
            }
            unfit = seen.read(tail, scratch);
            if seen.count == 0 && unfit == 0 {
                self.await_end(&mut seen, tail);
                return 0;
            }
        }
        unfit + self.lend(&mut seen, scratch, forward)
    }
}

impl<K: Kernel> Doorbell for Inlet<K> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.kernel.as_fd())
    }

    /// Epoll itself has the kernel look for new frames when it is armed.
    fn arm(&self) -> Arming {
        let mut seen = self.state();
        if self.health.has_failed() {
            return Arming::Dead;
        }
        if seen.unreturned > 0 && self.sync(&mut seen).is_none() {
            self.health.fail();
            return Arming::Dead;
        }
        let tail = seen.ring.tail();
        let idle = tail.is_some_and(|tail| tail == seen.position || Some(tail) == seen.endless);
        if seen.count > 0 || !idle {
            self.drained.store(false, Ordering::Relaxed);
            return Arming::Work;
        }
        Arming::Quiet
    }

    fn disarm(&self) {
        self.drained.store(false, Ordering::Relaxed);
    }
}

/// One transmit ring.
pub(super) struct Outlet<K> {
    kernel: Arc<K>,
    form: Form,
    health: Arc<Health>,
    /// Used by one worker at a time, a burst long.
    state: Mutex<Outgoing>,
}

struct Outgoing {
    ring: Ring,
    /// The first slot that is free.
    head: u32,
    /// The first slot that is the kernel's.
    tail: u32,
}

impl<K: Kernel> Outlet<K> {
    pub(super) fn new(kernel: Arc<K>, ring: Ring, net_header_len: usize, health: Arc<Health>) -> Outlet<K> {
        // A switch in the kernel cuts TCP for those of its ports that have no header, and UDP it does not know to cut.
        let offloads = Offloads::ALL.without(Offloads::USO4.with(Offloads::USO6));
        let form =
            Form { offloads, net_header_len, buffer_len: ring.buffer_len().min(usize::from(u16::MAX)) };
        let head = ring.head().unwrap_or(0);
        let tail = ring.tail().unwrap_or(head);
        Outlet { kernel, form, health, state: Mutex::new(Outgoing { ring, head, tail }) }
    }

    /// Has the kernel look again at what it did not send yet. Whether there is something still, as far as it says.
    pub(super) fn flush(&self) -> bool {
        let mut outgoing = self.state();
        self.sync(&mut outgoing).is_some() && outgoing.is_pending()
    }

    fn state(&self) -> MutexGuard<'_, Outgoing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the kernel what was put in.
    fn sync(&self, outgoing: &mut Outgoing) -> Option<()> {
        outgoing.ring.publish(outgoing.head, outgoing.head);
        self.kernel.sync_out().ok()?;
        outgoing.tail = outgoing.ring.tail()?;
        Some(())
    }

    /// Whether the port would never take it.
    fn refuses(&self, outgoing: &Outgoing, frame: &Frame<'_>, needs: &Needs) -> bool {
        needs.longest > SLOTS_MAX
            || needs.buffers >= outgoing.ring.slots() as usize
            || !self.health.carries(frame.header(), needs.len)
    }
}

impl Outgoing {
    fn has_room(&self, buffers: usize) -> bool {
        buffers <= self.ring.distance(self.head, self.tail) as usize
    }

    /// Whether the kernel has not given every slot back.
    fn is_pending(&self) -> bool {
        self.ring.distance(self.head, self.tail) + 1 != self.ring.slots()
    }

    /// Copies `frame`, or what stands for it, into slots, for which there [is room](Self::has_room). `None`: a slot has no
    /// buffer, and nothing was put in.
    fn put(&mut self, form: &Form, frame: &Frame<'_>) -> Option<()> {
        let (mut head, mut sound) = (self.head, true);
        form.each(frame, |mut bytes| {
            while sound && bytes.len() > 0 {
                let Some(place) = self.ring.buffer(self.ring.slot(head).buffer) else {
                    sound = false;
                    return;
                };
                // SAFETY: a buffer of the mapping, whose slot is ours; no frame of this burst lies there.
                let len = bytes.copy(unsafe { Room::at(place, form.buffer_len) });
                self.ring.fill_slot(head, len as u16, bytes.len() > 0);
                head = self.ring.next(head);
            }
        });
        sound.then(|| self.head = head)
    }
}

impl<K: Kernel> Egress for Outlet<K> {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let tally = &mut scratch.tally;
        if self.health.has_failed() {
            tally.drops[DropReason::IoError as usize] += picks.len() as u64;
            return picks.len();
        }
        let mut outgoing = self.state();
        let (before, first) = (*tally, outgoing.head);
        let (mut settled, mut sound) = (0, true);
        for &pick in picks {
            let frame = burst.frame(usize::from(pick));
            let needs = self.form.needs(&frame);
            if self.refuses(&outgoing, &frame, &needs) {
                tally.drop(DropReason::TooLong);
                settled += 1;
                continue;
            }
            if !outgoing.has_room(needs.buffers) {
                sound = self.sync(&mut outgoing).is_some();
                if !sound || !outgoing.has_room(needs.buffers) {
                    break;
                }
            }
            sound = outgoing.put(&self.form, &frame).is_some();
            if !sound {
                break;
            }
            tally.frames += 1;
            tally.bytes += frame.len() as u64;
            tally.segments += if needs.frames > 1 { needs.frames as u64 } else { 0 };
            settled += 1;
        }
        if sound && outgoing.head != first {
            sound = self.sync(&mut outgoing).is_some();
        }
        if !sound {
            tally.drops[DropReason::IoError as usize] += tally.frames - before.frames;
            (tally.frames, tally.bytes, tally.segments) = (before.frames, before.bytes, before.segments);
            self.health.fail();
        } else if outgoing.is_pending() {
            self.health.want_flush();
        }
        settled
    }
}

//! The hot half: frames are lent from the chunks that they came in by, and copied into those that they go out by.
//!
//! A chunk whose frame is held stays out of the fill ring until the frame is settled. A frame for the kernel is copied
//! once, into as many chunks as it needs, and the kernel is woken once a burst.

#![allow(unsafe_code)] // lends and fills memory that the kernel shares

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, Frame, Piece, Taken};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch};

use super::ring::{Consumer, Producer};
use super::socket::{Rings, Socket, Woken};
use super::umem::{CHUNK_LEN, CHUNKS_OUT, Chunk, Umem};
use crate::health::Health;
use crate::spread::{Form, Needs};
use crate::sys::vector::Room;

/// Chunks of one frame, at most: the longest frame needs 18 (a chunk has 256 bytes less for a frame that comes in).
pub(super) const PIECES_MAX: usize = 18;
/// Calls to wake the kernel for one burst. Linux before 6.17 sends 32 chunks a call.
const WAKES_MAX: usize = 4;
/// How frames are given to the kernel: finished, since there is no place to say what is not.
const FORM: Form = Form { offloads: Offloads::NONE, net_header_len: 0, buffer_len: CHUNK_LEN };

/// One queue of an interface, both ways.
pub(super) struct XdpQueue {
    queue: u16,
    /// Used by the worker that has the duty, a burst at a time.
    inward: Mutex<Inward>,
    /// Used by one worker at a time, a burst long.
    outward: Mutex<Outward>,
    socket: Socket,
    umem: Umem,
    health: Arc<Health>,
}

/// What frames come in by.
struct Inward {
    fill: Producer<u64>,
    received: Consumer<libc::xdp_desc>,
    /// Frames that are to be lent (again), in order.
    frames: [Extent; BURST_FRAMES],
    count: usize,
    /// The chunks of these, frame by frame, and what lies in each.
    chunks: Box<[Chunk]>,
    pieces: Box<[Piece]>,
}

// SAFETY: the pieces lie in the memory of the queue that owns this, which may go from thread to thread.
unsafe impl Send for Inward {}

/// Where a frame's chunks stand.
#[derive(Clone, Copy, Default)]
struct Extent {
    first: usize,
    count: usize,
}

/// What frames go out by.
struct Outward {
    transmit: Producer<libc::xdp_desc>,
    completed: Consumer<u64>,
    free: Vec<Chunk>,
}

impl XdpQueue {
    pub(super) fn new(queue: u16, socket: Socket, rings: Rings, umem: Umem, health: Arc<Health>) -> XdpQueue {
        let Rings { fill, received, transmit, completed } = rings;
        let places = BURST_FRAMES * PIECES_MAX;
        let mut inward = Inward {
            fill,
            received,
            frames: [Extent::default(); BURST_FRAMES],
            count: 0,
            chunks: Chunk::all_in().take(places).collect(),
            pieces: vec![Piece::at(std::ptr::null(), 0); places].into(),
        };
        Chunk::all_in().for_each(|chunk| inward.fill.put(chunk.offset()));
        inward.fill.publish();
        let outward = Outward { transmit, completed, free: Chunk::all_out().collect() };
        XdpQueue { queue, inward: Mutex::new(inward), outward: Mutex::new(outward), socket, umem, health }
    }

    /// Wakes the kernel for frames that it did not take when it was woken before. Whether there are some still.
    pub(super) fn flush(&self) -> bool {
        let mut outward = self.outward();
        outward.reclaim();
        outward.transmit.waiting() > 0 && self.wake(&outward) == Woken::Part
    }

    /// Frames that were lent and not settled.
    pub(super) fn held(&self) -> usize {
        self.inward().count
    }

    fn inward(&self) -> MutexGuard<'_, Inward> {
        self.inward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outward(&self) -> MutexGuard<'_, Outward> {
        self.outward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel send what was published.
    fn wake(&self, outward: &Outward) -> Woken {
        if !outward.transmit.needs_wakeup() {
            return Woken::All;
        }
        let mut before = outward.transmit.waiting();
        for _ in 0..WAKES_MAX {
            match self.socket.send() {
                Woken::Part => {}
                all_or_gone => return all_or_gone,
            }
            let left = outward.transmit.waiting();
            if left == 0 {
                return Woken::All;
            }
            if left == before {
                break;
            }
            before = left;
        }
        Woken::Part
    }

    /// Whether the kernel would never take `frame`.
    fn refuses(&self, frame: &Frame<'_>, needs: &Needs) -> bool {
        let chunks_max = if self.socket.takes_several() { PIECES_MAX } else { 1 };
        needs.longest > chunks_max
            || needs.buffers > CHUNKS_OUT
            || !self.health.carries(frame.header(), needs.len)
    }
}

impl Inward {
    /// Takes frames from the kernel until a burst is full. Only when nothing is held, so that the order stays.
    fn read(&mut self, umem: &Umem, scratch: &mut IngressScratch) {
        let mut waiting = self.received.waiting();
        let mut end = 0;
        while self.count < BURST_FRAMES && waiting > 0 {
            let Some(len) =
                (0..waiting).position(|index| self.received.peek(index).options & libc::XDP_PKT_CONTD == 0)
            else {
                // The kernel has not published the frame's end yet.
                return;
            };
            let places = len + 1;
            let (mut count, mut fit) = (0, true);
            for index in 0..places as u32 {
                let desc = self.received.peek(index);
                match umem.received(desc.addr, desc.len) {
                    Some((chunk, piece)) if count < PIECES_MAX => {
                        (self.chunks[end + count], self.pieces[end + count]) = (chunk, piece);
                        count += 1;
                    }
                    Some((chunk, _)) => {
                        self.fill.put(chunk.offset());
                        fit = false;
                    }
                    None => fit = false,
                }
            }
            self.received.release(places as u32);
            waiting -= places as u32;
            let extent = Extent { first: end, count };
            if fit {
                self.frames[self.count] = extent;
                self.count += 1;
                end += count;
            } else {
                scratch.tally.drop(DropReason::TooLong);
                self.give_back(extent);
            }
        }
    }

    /// As [`Arena::lend`](crate::arena::Arena::lend): lends the frames in order, all that one burst may have, and keeps
    /// what is left unsettled. Returns how many frames are gone.
    fn lend(
        &mut self,
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        let before = self.count;
        let mut builder = scratch.burst.begin(queue);
        let mut index = 0;
        while index < before && !builder.is_full(self.frames[index].count) {
            let extent = self.frames[index];
            let pieces = &self.pieces[extent.first..extent.first + extent.count];
            // SAFETY: the pieces lie in chunks that the kernel has given to us, and there is room for as many.
            match unsafe { builder.push_lent(pieces) } {
                Ok(()) => self.frames[builder.len() - 1] = extent,
                Err(reason) => {
                    scratch.tally.drop(reason);
                    self.give_back(extent);
                }
            }
            index += 1;
        }
        let lent = builder.len();
        let taken = if lent > 0 { forward(&builder.burst()) } else { Taken::ALL };
        self.count = 0;
        for place in (0..lent).chain(index..before) {
            if place < lent && taken.settled(place) {
                self.give_back(self.frames[place]);
            } else {
                self.keep(self.frames[place]);
            }
        }
        before - self.count
    }

    /// Puts a frame behind those that are kept already, which stood before it.
    fn keep(&mut self, Extent { first, count }: Extent) {
        let end =
            self.count.checked_sub(1).map_or(0, |last| self.frames[last].first + self.frames[last].count);
        self.chunks.copy_within(first..first + count, end);
        self.pieces.copy_within(first..first + count, end);
        self.frames[self.count] = Extent { first: end, count };
        self.count += 1;
    }

    fn give_back(&mut self, Extent { first, count }: Extent) {
        for chunk in &self.chunks[first..first + count] {
            // There are as many places as chunks.
            self.fill.put(chunk.offset());
        }
    }
}

impl Outward {
    /// Takes back the chunks of frames that are sent.
    fn reclaim(&mut self) {
        let sent = self.completed.waiting();
        for index in 0..sent {
            match Chunk::sent(self.completed.peek(index)) {
                Some(chunk) if self.free.len() < CHUNKS_OUT => self.free.push(chunk),
                _ => {}
            }
        }
        self.completed.release(sent);
    }

    /// Whether there is room for a frame that needs that many chunks.
    fn has_room(&self, buffers: usize) -> bool {
        buffers <= self.free.len().min(self.transmit.free() as usize)
    }

    /// Copies `frame`, or what stands for it, into chunks, for which there [is room](Self::has_room).
    fn put(&mut self, umem: &Umem, frame: &Frame<'_>) {
        FORM.each(frame, |mut bytes| {
            while bytes.len() > 0 {
                let Some(chunk) = self.free.pop() else { return };
                // SAFETY: the chunk is free, so that nobody else looks at it, and has that many bytes.
                let len = bytes.copy(unsafe { Room::at(umem.room(chunk), CHUNK_LEN) });
                let options = if bytes.len() > 0 { libc::XDP_PKT_CONTD } else { 0 };
                self.transmit.put(libc::xdp_desc { addr: chunk.offset(), len: len as u32, options });
            }
        });
    }
}

impl Ingress for XdpQueue {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut inward = self.inward();
        let dropped = scratch.tally.dropped();
        if inward.count == 0 {
            inward.read(&self.umem, scratch);
        }
        let unfit = (scratch.tally.dropped() - dropped) as usize;
        let gone = inward.lend(self.queue, scratch, forward);
        inward.fill.publish();
        if gone + unfit > 0 && inward.fill.needs_wakeup() {
            self.socket.receive();
        }
        gone + unfit
    }
}

impl Doorbell for XdpQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    /// Epoll itself looks for new frames when it is armed.
    fn arm(&self) -> Arming {
        let inward = self.inward();
        if inward.count > 0 || inward.received.waiting() > 0 {
            return Arming::Work;
        }
        if inward.fill.needs_wakeup() {
            self.socket.receive();
        }
        Arming::Quiet
    }

    fn disarm(&self) {}
}

impl Egress for XdpQueue {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let tally = &mut scratch.tally;
        if self.health.has_failed() {
            tally.drops[DropReason::IoError as usize] += picks.len() as u64;
            return picks.len();
        }
        let mut outward = self.outward();
        outward.reclaim();
        let before = *tally;
        let (mut settled, mut woken) = (0, Woken::All);
        for &pick in picks {
            let frame = burst.frame(usize::from(pick));
            let needs = FORM.needs(&frame);
            if self.refuses(&frame, &needs) {
                tally.drop(DropReason::TooLong);
                settled += 1;
                continue;
            }
            if !outward.has_room(needs.buffers) {
                outward.transmit.publish();
                woken = self.wake(&outward);
                outward.reclaim();
                if !outward.has_room(needs.buffers) {
                    break;
                }
            }
            outward.put(&self.umem, &frame);
            tally.frames += 1;
            tally.bytes += frame.len() as u64;
            tally.segments += if needs.frames > 1 { needs.frames as u64 } else { 0 };
            settled += 1;
        }
        outward.transmit.publish();
        if outward.transmit.waiting() > 0 {
            woken = self.wake(&outward);
        }
        match woken {
            Woken::All => {}
            Woken::Part => self.health.want_flush(),
            Woken::Gone => {
                tally.drops[DropReason::IoError as usize] += tally.frames - before.frames;
                (tally.frames, tally.bytes, tally.segments) = (before.frames, before.bytes, before.segments);
                self.health.fail();
            }
        }
        settled
    }
}

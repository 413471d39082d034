//! A device's receive queue, driven by us: frames into the switch.
//!
//! All buffers are with the device but those of the frames that are lent. A poll takes up to a burst of frames out of the
//! used ring, merged over several buffers where the device did that (virtio 1.2, 5.1.6.4), lends them where they lie, and
//! posts the buffers of the settled ones again, with one publication. What the device says that it used is checked by the
//! ring, the length and the number of merged buffers here.

#![allow(unsafe_code)] // lends memory that the device may write

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::gathering::{Gathering, Outcome};
use super::super::ingress::lend_frame;
use super::super::signal::empty;
use super::super::walk::read_word;
use super::super::{RingError, RingLayout};
use super::queue::Core;
use super::{DeviceFault, DeviceQueue, Part};
use crate::drops::DropReason;
use crate::frame::{BURST_FRAMES, Burst, BurstBuilder, Taken, check_len};
use crate::offload::is_plain;
use crate::port::{Arming, Doorbell, Ingress, IngressScratch, Tally};

/// Buffers that one received frame may be merged over.
pub const MERGED_MAX: usize = 64;
/// Where `num_buffers` stands in the virtio-net header (virtio 1.2, 5.1.6).
const NUM_BUFFERS: usize = 10;

/// The driver's end of a receive virtqueue.
pub struct DriverIngress {
    queue: u16,
    call: Arc<OwnedFd>,
    /// The worker that has the duty uses it, a burst at a time.
    state: Mutex<Receiving>,
}

struct Receiving {
    core: Core,
    /// By buffer: bytes that the device wrote.
    written: Box<[u32]>,
    /// Frames out of the ring that are to be lent (again).
    waiting: [Received; BURST_FRAMES],
    count: usize,
}

/// A frame in buffers of ours, the first of which begins with its net header.
#[derive(Clone, Copy, Default)]
struct Received {
    first: u16,
    buffers: u16,
}

impl DriverIngress {
    /// An empty queue, number `number` of its port, with all its buffers posted. The device is to be kicked once it runs.
    ///
    /// Errors: the size is not one of the ring's form, or the place is not aligned.
    ///
    /// # Panics
    /// If the queue does not lie in its memory.
    pub fn new(number: u16, queue: &DeviceQueue) -> Result<DriverIngress, RingError> {
        let mut state = Receiving {
            core: Core::new(queue)?,
            written: vec![0; usize::from(queue.size)].into(),
            waiting: [Received::default(); BURST_FRAMES],
            count: 0,
        };
        state.post();
        Ok(DriverIngress { queue: number, call: queue.call.clone(), state: Mutex::new(state) })
    }

    /// Where the ring lies, in the device's addresses.
    pub fn layout(&self) -> RingLayout {
        self.lock().core.layout()
    }

    /// Tells the device to look.
    pub fn kick(&self) {
        self.lock().core.kick();
    }

    /// What the device did wrong, if it did.
    pub fn fault(&self) -> Option<DeviceFault> {
        self.lock().core.fault
    }

    /// Frames that were lent, held, and not settled: lost when the queue goes.
    pub fn held(&self) -> u64 {
        self.lock().count as u64
    }

    /// A worker that panicked left whole numbers behind.
    fn lock(&self) -> MutexGuard<'_, Receiving> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingress for DriverIngress {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut state = self.lock();
        let mut gone = 0;
        if state.count == 0 {
            gone += state.collect(&mut scratch.tally);
        }
        if state.count > 0 {
            gone += state.lend(self.queue, scratch, forward);
        }
        state.post();
        gone
    }
}

impl Doorbell for DriverIngress {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.call.as_fd())
    }

    fn arm(&self) -> Arming {
        empty(&self.call);
        let state = self.lock();
        if state.count > 0 {
            return Arming::Work;
        }
        if state.core.fault.is_some() {
            return Arming::Dead;
        }
        if !state.core.ring.ask_for_calls() {
            return Arming::Quiet;
        }
        state.core.ring.ask_for_silence();
        Arming::Work
    }

    fn disarm(&self) {
        self.lock().core.ring.ask_for_silence();
    }
}

impl Receiving {
    /// Takes up to a burst of frames out of the ring; only when none waits, so that the order stays. Returns how many of
    /// them were given up.
    fn collect(&mut self, tally: &mut Tally) -> usize {
        if self.core.fault.is_some() {
            return 0;
        }
        let mut dropped = 0;
        self.look_ahead();
        while self.count < BURST_FRAMES {
            match self.collect_frame() {
                Ok(None) => break,
                Ok(Some((frame, true))) => {
                    self.waiting[self.count] = frame;
                    self.count += 1;
                }
                Ok(Some((frame, false))) => {
                    self.release(frame);
                    tally.drop(DropReason::Malformed);
                    dropped += 1;
                }
                Err(fault) => {
                    self.core.fail(fault);
                    break;
                }
            }
        }
        dropped
    }

    /// Has the first bytes of all that is back fetched before the first is read.
    fn look_ahead(&mut self) {
        let (first, step) = (self.core.first_buffer(), self.core.step());
        let Core { ring, memory, buffer_of, .. } = &mut self.core;
        ring.peek_used(BURST_FRAMES, |head| {
            if let Some(&buffer) = buffer_of.get(usize::from(head)) {
                memory.prefetch(first + usize::from(buffer) * step);
            }
        });
    }

    /// The next frame, and whether its net header can be that of one: the device says how many buffers it is merged over,
    /// and gives them back together.
    fn collect_frame(&mut self) -> Result<Option<(Received, bool)>, DeviceFault> {
        let Some(first) = self.collect_buffer()? else { return Ok(None) };
        let mut frame = Received { first, buffers: 1 };
        let merged = self.merged_over(first);
        if merged == 0 || merged > MERGED_MAX {
            return Ok(Some((frame, false)));
        }
        let mut last = first;
        for _ in 1..merged {
            let Some(buffer) = self.collect_buffer()? else { return Ok(Some((frame, false))) };
            self.core.next[usize::from(last)] = buffer;
            last = buffer;
            frame.buffers += 1;
        }
        Ok(Some((frame, true)))
    }

    /// The next buffer that is back.
    fn collect_buffer(&mut self) -> Result<Option<u16>, DeviceFault> {
        let Some(used) = self.core.ring.collect()? else { return Ok(None) };
        // The head is one that we posted, or the ring would have refused it.
        let buffer = self.core.buffer_of[usize::from(used.head)];
        let written = used.written.unwrap_or(self.core.buffer_len as u32);
        if written as usize > self.core.buffer_len {
            return Err(DeviceFault::Overrun);
        }
        self.written[usize::from(buffer)] = written;
        Ok(Some(buffer))
    }

    /// What the net header in `buffer` says of merged buffers; 0 when it is cut.
    fn merged_over(&self, buffer: u16) -> usize {
        if (self.written[usize::from(buffer)] as usize) < self.core.options.header_len() {
            return 0;
        }
        if !self.core.options.mergeable {
            return 1;
        }
        let mut bytes = [0; 2];
        self.core.memory.read(self.core.offset(buffer) + NUM_BUFFERS, &mut bytes);
        usize::from(u16::from_le_bytes(bytes))
    }

    /// Lends what waits, in order, as much as a burst takes. Returns how many frames are gone.
    fn lend(
        &mut self,
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        let IngressScratch { burst, tally, .. } = scratch;
        let mut builder = burst.begin(queue);
        let mut places = [0; BURST_FRAMES];
        let (mut place, mut done) = (0, 0u64);
        while place < self.count {
            match self.lend_frame(&mut builder, self.waiting[place]) {
                Outcome::Lent => places[builder.len() - 1] = place,
                Outcome::Dropped(reason) => {
                    tally.drop(reason);
                    done |= 1 << place;
                }
                Outcome::Later => break,
            }
            place += 1;
        }
        let lent = builder.len();
        let taken = if lent > 0 { forward(&builder.burst()) } else { Taken::ALL };
        for index in (0..lent).filter(|&index| taken.settled(index)) {
            done |= 1 << places[index];
        }
        self.settle(done)
    }

    /// Adds one frame to the burst, if there is room for it.
    #[inline]
    fn lend_frame(&self, builder: &mut BurstBuilder<'_, '_>, frame: Received) -> Outcome {
        if builder.is_full(usize::from(frame.buffers)) {
            return Outcome::Later;
        }
        let net_len = self.core.options.header_len();
        if frame.buffers == 1 {
            let buffer = self.core.buffer(frame.first, self.written[usize::from(frame.first)] as usize);
            let len = buffer.len as usize - net_len;
            if let Err(reason) = check_len(len) {
                return Outcome::Dropped(reason);
            }
            // SAFETY: the buffer is mapped, and has more bytes than the net header.
            if is_plain(unsafe { read_word(buffer.start) }) {
                // SAFETY: the buffer is mapped for `len` bytes behind the net header as long as the queue lives, and its
                // frame's length was checked.
                unsafe { lend_frame(builder, buffer.start.wrapping_add(net_len), len) };
                return Outcome::Lent;
            }
        }
        self.gather(builder, frame)
    }

    /// As above, of a frame that is merged or asks for something.
    #[cold]
    fn gather(&self, builder: &mut BurstBuilder<'_, '_>, frame: Received) -> Outcome {
        if builder.is_full_of_segments() {
            return Outcome::Later;
        }
        let core = &self.core;
        let mut gathering = Gathering::new(builder, core.options.header_len(), core.options.receive);
        let mut number = frame.first;
        for _ in 0..frame.buffers {
            let buffer = core.buffer(number, self.written[usize::from(number)] as usize);
            if !gathering.take(buffer, false) {
                break;
            }
            number = core.next[usize::from(number)];
        }
        gathering.finish()
    }

    /// Takes the buffers of the frames back whose places are in `done`; the others wait on, in order. Returns how many
    /// are gone.
    fn settle(&mut self, done: u64) -> usize {
        let before = std::mem::take(&mut self.count);
        for place in 0..before {
            let frame = self.waiting[place];
            if done >> place & 1 == 1 {
                self.release(frame);
            } else {
                self.waiting[self.count] = frame;
                self.count += 1;
            }
        }
        before - self.count
    }

    fn release(&mut self, frame: Received) {
        let mut number = frame.first;
        for _ in 0..frame.buffers {
            self.core.free.push(number);
            number = self.core.next[usize::from(number)];
        }
    }

    /// Gives all free buffers to the device.
    fn post(&mut self) {
        let (first, step, len) = (self.core.first_buffer(), self.core.step(), self.core.buffer_len as u32);
        let Core { ring, free, buffer_of, fault, .. } = &mut self.core;
        if free.len() == 0 || fault.is_some() {
            return;
        }
        ring.add_row(free.len(), |head| {
            // There are as many as are asked for.
            let buffer = free.pop().unwrap_or_default();
            buffer_of[usize::from(head)] = buffer;
            Part { offset: first + usize::from(buffer) * step, len, writable: true }
        });
        if ring.publish() {
            self.core.kick();
        }
    }
}

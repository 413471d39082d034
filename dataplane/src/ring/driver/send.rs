//! A device's transmit queue, driven by us: frames out of the switch.
//!
//! A frame is copied from where its sender keeps it into as many buffers as it takes, behind a net header with what it
//! leaves to its receiver if the device serves that; else its checksum is completed, or it is cut, in the pass that copies
//! it. What the device has read is collected at the next send: its calls are not asked for.

#![allow(unsafe_code)] // writes memory that the device may write too

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::walk::Buffer;
use super::super::writer::{Writer, write_segment, write_whole};
use super::super::{RingError, RingLayout};
use super::queue::Core;
use super::{DeviceFault, DeviceQueue, Part};
use crate::drops::DropReason;
use crate::frame::{Burst, FRAME_LEN_MAX, Frame};
use crate::offload::{Offload, Segments};
use crate::port::{Egress, EgressScratch};

/// Bytes of a transmit buffer, at least.
pub const SEND_BUFFER_LEN_MIN: usize = 2048;
/// Buffers that a frame may take.
const PARTS_MAX: usize = (FRAME_LEN_MAX + NET_HEADER_LEN).div_ceil(SEND_BUFFER_LEN_MIN);
/// Bytes of the net header in front of each frame: that of VIRTIO_F_VERSION_1, the longest.
const NET_HEADER_LEN: usize = 12;

/// The driver's end of a transmit virtqueue.
pub struct DriverEgress {
    /// Locked once a burst by the worker that sends.
    state: Mutex<Sending>,
}

struct Sending {
    core: Core,
    /// By head: buffers of the chain that the device has.
    buffers: Box<[u16]>,
}

enum Delivery {
    /// Sent; in so many segments, if it was cut.
    Sent(usize),
    NoRoom,
    NeverFits,
}

impl DriverEgress {
    /// An empty queue.
    ///
    /// Errors: the size is not one of the ring's form, or the place is not aligned.
    ///
    /// # Panics
    /// If the queue does not lie in its memory, or its buffers are shorter than [`SEND_BUFFER_LEN_MIN`].
    pub fn new(queue: &DeviceQueue) -> Result<DriverEgress, RingError> {
        assert!(queue.buffer_len >= SEND_BUFFER_LEN_MIN, "buffers of a useful length");
        let buffers = vec![0; usize::from(queue.size)].into();
        Ok(DriverEgress { state: Mutex::new(Sending { core: Core::new(queue)?, buffers }) })
    }

    /// Where the ring lies, in the device's addresses.
    pub fn layout(&self) -> RingLayout {
        self.lock().core.layout()
    }

    /// What the device did wrong, if it did.
    pub fn fault(&self) -> Option<DeviceFault> {
        self.lock().core.fault
    }

    /// A worker that panicked left whole numbers behind.
    fn lock(&self) -> MutexGuard<'_, Sending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Egress for DriverEgress {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut state = self.lock();
        state.reclaim();
        let tally = &mut scratch.tally;
        if state.core.fault.is_some() {
            picks.iter().for_each(|_| tally.drop(DropReason::NotReady));
            return picks.len();
        }
        let mut settled = 0;
        for &pick in picks {
            let frame = burst.frame(usize::from(pick));
            match state.deliver(&frame) {
                Delivery::Sent(segments) => {
                    tally.frames += 1;
                    tally.bytes += frame.len() as u64;
                    tally.segments += segments as u64;
                }
                Delivery::NoRoom => break,
                Delivery::NeverFits => tally.drop(DropReason::TooLong),
            }
            settled += 1;
        }
        if state.core.ring.publish() {
            state.core.kick();
        }
        settled
    }
}

impl Sending {
    /// Takes the buffers of frames back that the device has read.
    fn reclaim(&mut self) {
        while self.core.fault.is_none() {
            match self.core.ring.collect() {
                Ok(None) => return,
                Ok(Some(used)) => self.release(used.head),
                Err(fault) => self.core.fail(fault),
            }
        }
    }

    fn release(&mut self, head: u16) {
        let head = usize::from(head);
        let mut number = self.core.buffer_of[head];
        for _ in 0..self.buffers[head] {
            self.core.free.push(number);
            number = self.core.next[usize::from(number)];
        }
    }

    #[inline]
    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        match frame.offload() {
            None => self.deliver_whole(frame, None),
            Some(offload) if self.core.options.send.has(offload.needs()) => {
                self.deliver_whole(frame, Some(offload))
            }
            Some(_) => self.deliver_segments(frame),
        }
    }

    fn deliver_whole(&mut self, frame: &Frame<'_>, offload: Option<&Offload>) -> Delivery {
        let net_len = self.core.options.header_len();
        let need = net_len + frame.len();
        if let Some(refused) = self.refuses(self.buffers_for(need)) {
            return refused;
        }
        let net = offload.map_or([0; NET_HEADER_LEN], |offload| offload.net_header(0));
        if need > self.core.buffer_len {
            self.send_spread(frame, &net[..net_len]);
            return Delivery::Sent(0);
        }
        // There is one, as was just checked.
        let Some(number) = self.core.free.pop() else { return Delivery::NoRoom };
        let buffer = self.core.buffer(number, need);
        // SAFETY: the buffer is ours for `need` bytes, and the frame is lent.
        unsafe { write_whole(buffer.start, frame, net, net_len) };
        let part = Part { offset: self.core.offset(number), len: need as u32, writable: false };
        let head = self.core.ring.add(part);
        self.note(head, number, 1);
        Delivery::Sent(0)
    }

    /// Over several buffers, of which there are enough.
    #[cold]
    fn send_spread(&mut self, frame: &Frame<'_>, net: &[u8]) {
        let mut chain = Chain::default();
        self.take(net.len() + frame.len(), &mut chain);
        let mut writer = Writer::new(chain.buffers());
        // SAFETY: the buffers are ours, for net header and frame together, and the frame is lent.
        unsafe { writer.write_frame(frame, net) };
        self.add(&chain);
    }

    /// What stands for the frame at a device that does not take it as it is; all or nothing.
    #[cold]
    fn deliver_segments(&mut self, frame: &Frame<'_>) -> Delivery {
        let Some(mut segments) = Segments::of(frame) else { return Delivery::NeverFits };
        let (count, net_len) = (segments.count(), self.core.options.header_len());
        let each = self.buffers_for(net_len + segments.segment_len());
        let buffers = (count - 1) * each + self.buffers_for(net_len + segments.last_len());
        if let Some(refused) = self.refuses(buffers) {
            return refused;
        }
        while let Some(payload) = segments.next_payload() {
            let mut chain = Chain::default();
            self.take(net_len + segments.header_len() + payload.len(), &mut chain);
            let net = [0; NET_HEADER_LEN];
            // SAFETY: the buffers are ours, for net header and segment together, and the frame is lent.
            unsafe { write_segment(chain.buffers(), &net[..net_len], &mut segments, payload) };
            self.add(&chain);
        }
        Delivery::Sent(if count > 1 { count } else { 0 })
    }

    /// Buffers that `bytes` take.
    #[inline]
    fn buffers_for(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.core.buffer_len)
    }

    /// Why so many buffers cannot be filled, if they cannot. There is a free descriptor for each free buffer.
    #[inline]
    fn refuses(&self, buffers: usize) -> Option<Delivery> {
        if buffers > usize::from(self.core.ring.size()) {
            return Some(Delivery::NeverFits);
        }
        (buffers > self.core.free.len()).then_some(Delivery::NoRoom)
    }

    /// Fills `chain` with buffers for `need` bytes: there are as many, and a frame takes no more than a chain has.
    #[inline]
    fn take(&mut self, need: usize, chain: &mut Chain) {
        let mut left = need;
        while left > 0 {
            let Some(number) = self.core.free.pop() else { return };
            let here = left.min(self.core.buffer_len);
            if chain.count > 0 {
                self.core.next[usize::from(chain.last)] = number;
            } else {
                chain.first = number;
            }
            chain.buffers[chain.count] = self.core.buffer(number, here);
            chain.parts[chain.count] =
                Part { offset: self.core.offset(number), len: here as u32, writable: false };
            chain.last = number;
            chain.count += 1;
            left -= here;
        }
    }

    #[inline]
    fn add(&mut self, chain: &Chain) {
        let parts = &chain.parts[..chain.count];
        let head = match parts {
            [part] => self.core.ring.add(*part),
            parts => self.core.ring.add_chain(parts),
        };
        self.note(head, chain.first, chain.count as u16);
    }

    /// Remembers the buffers of a chain, for when it is back.
    #[inline]
    fn note(&mut self, head: Option<u16>, first: u16, count: u16) {
        // There is a descriptor for each buffer.
        debug_assert!(head.is_some());
        if let Some(head) = head {
            self.core.buffer_of[usize::from(head)] = first;
            self.buffers[usize::from(head)] = count;
        }
    }
}

/// The buffers of one frame or segment.
struct Chain {
    buffers: [Buffer; PARTS_MAX],
    parts: [Part; PARTS_MAX],
    count: usize,
    first: u16,
    last: u16,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            buffers: [Buffer { start: std::ptr::null_mut(), len: 0 }; PARTS_MAX],
            parts: [Part { offset: 0, len: 0, writable: false }; PARTS_MAX],
            count: 0,
            first: 0,
            last: 0,
        }
    }
}

impl Chain {
    fn buffers(&self) -> &[Buffer] {
        &self.buffers[..self.count]
    }
}

//! What a queue of a device that we drive is made of: a ring, buffers of one length behind it, and whom to tell.
//!
//! Buffers have numbers of their own, apart from the ring's heads: a frame that is held keeps its buffers while its heads
//! are used again.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::walk::{Buffer, CACHE_LINE};
use super::super::{DriverMemory, RingError, RingLayout, RingOptions};
use super::free::FreeList;
use super::{ALIGNMENT, DeviceFault, DriverOptions, DriverRing};

/// Where a queue lies, and what it was negotiated to be.
#[derive(Clone)]
pub struct DeviceQueue {
    /// Memory that the device reaches.
    pub memory: Arc<DriverMemory>,
    /// Where ring and buffers begin, as many bytes as [`Self::footprint`] says; zero there, aligned to a cache line.
    pub offset: usize,
    /// Entries, and buffers.
    pub size: u16,
    /// Bytes of a buffer. A receive queue whose frames are not merged needs room for the longest in one.
    pub buffer_len: usize,
    /// What was negotiated. As ever, `send` is what the driver may ask of the device.
    pub options: RingOptions,
    /// Tells the device: a non-blocking eventfd.
    pub kick: Arc<OwnedFd>,
    /// What the device signals: a non-blocking eventfd.
    pub call: Arc<OwnedFd>,
    /// Tells whoever looks after the device that it broke a rule: a non-blocking eventfd.
    pub trouble: Arc<OwnedFd>,
}

impl DeviceQueue {
    /// Bytes of memory that a queue takes: a multiple of a cache line.
    pub fn footprint(size: u16, buffer_len: usize) -> usize {
        DriverRing::footprint(size).next_multiple_of(ALIGNMENT) + usize::from(size) * stride(buffer_len)
    }
}

/// What both ends have. Used under the end's lock.
pub(super) struct Core {
    pub ring: DriverRing,
    pub memory: Arc<DriverMemory>,
    pub options: RingOptions,
    pub buffer_len: usize,
    /// Buffers that the device does not have, and no held frame.
    pub free: FreeList,
    /// By buffer: the one behind it in the same frame.
    pub next: Box<[u16]>,
    /// By head: the first buffer of the chain that the device has.
    pub buffer_of: Box<[u16]>,
    /// Set once, when the device broke the rules.
    pub fault: Option<DeviceFault>,
    first_buffer: usize,
    kick: Arc<OwnedFd>,
    trouble: Arc<OwnedFd>,
}

impl Core {
    pub(super) fn new(queue: &DeviceQueue) -> Result<Core, RingError> {
        let DeviceQueue { memory, offset, size, options, .. } = queue;
        // Not in order: no more is gained by it than a used entry a frame, which a receive queue needs for the length.
        let options = DriverOptions { packed: options.packed, event_idx: options.event_idx, in_order: false };
        let ring = DriverRing::new(memory.clone(), *offset, *size, options)?;
        ring.ask_for_silence();
        let count = usize::from(*size);
        Ok(Core {
            ring,
            memory: memory.clone(),
            options: queue.options,
            buffer_len: queue.buffer_len,
            free: FreeList::new(*size),
            next: vec![0; count].into(),
            buffer_of: vec![0; count].into(),
            fault: None,
            first_buffer: offset + DriverRing::footprint(*size).next_multiple_of(ALIGNMENT),
            kick: queue.kick.clone(),
            trouble: queue.trouble.clone(),
        })
    }

    /// Where the ring lies, in the device's addresses.
    pub(super) fn layout(&self) -> RingLayout {
        let RingLayout { size, desc, avail, used } = self.ring.layout();
        let addr = |user: u64| self.memory.guest_addr((user - DriverMemory::USER_ADDR) as usize);
        RingLayout { size, desc: addr(desc), avail: addr(avail), used: addr(used) }
    }

    /// Where buffer `number`, one of ours, begins in the memory.
    #[inline]
    pub(super) fn offset(&self, number: u16) -> usize {
        self.first_buffer + usize::from(number) * stride(self.buffer_len)
    }

    /// Where buffer 0 begins in the memory.
    #[inline]
    pub(super) fn first_buffer(&self) -> usize {
        self.first_buffer
    }

    /// From one buffer to the next.
    #[inline]
    pub(super) fn step(&self) -> usize {
        stride(self.buffer_len)
    }

    /// The first `len` bytes of buffer `number`, here.
    ///
    /// # Panics
    /// If it is no buffer of ours, or shorter.
    #[inline]
    pub(super) fn buffer(&self, number: u16, len: usize) -> Buffer {
        assert!(len <= self.buffer_len, "within the buffer");
        Buffer { start: self.memory.place(self.offset(number), len), len: len as u32 }
    }

    /// Tells the device to look.
    pub(super) fn kick(&self) {
        // It is non-blocking: a full counter already says what there is to say.
        crate::eventfd::add(&*self.kick);
    }

    /// The device broke a rule: this end is quiet from now on, and whoever looks after the device knows.
    #[cold]
    pub(super) fn fail(&mut self, fault: DeviceFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            crate::eventfd::add(&*self.trouble);
        }
    }
}

/// From one buffer to the next: an odd number of cache lines, so that their first lines spread over all sets of a cache.
#[inline]
fn stride(buffer_len: usize) -> usize {
    (buffer_len.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

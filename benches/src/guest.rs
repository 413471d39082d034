//! A built-in guest: memory, and queue pairs in the driver role. Who serves the other end is not its business: a
//! vhost-user back end ([`crate::front_end`]) or a switch in this process ([`crate::bare`]).
//!
//! Every descriptor has a buffer of its own, at a fixed place, so that a ring of 1,024 entries touches 1,024 buffers, as
//! a guest's does, and no device looks better for being given the same few cache lines again.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::ring::{
    DeviceFault, DriverMemory, DriverOptions, DriverRing, Part, RingLayout, RingOptions,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::{Doing, Error, Result};

/// Bytes of a buffer where nothing else is asked for.
pub const BUFFER_LEN: usize = 2048;
const CACHE_LINE: usize = 64;
/// Buffers that one received frame may be merged over.
const MERGED_MAX: usize = 64;
/// Where `num_buffers` stands in the virtio-net header (virtio 1.2, 5.1.6).
const NUM_BUFFERS: usize = 10;

/// What a guest is made of.
#[derive(Clone, Copy, Debug)]
pub struct GuestConfig {
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of each ring: a power of two, or any number if rings are packed.
    pub ring_size: u16,
    /// Bytes of each buffer: virtio-net header and frame. A longer received frame is merged over several.
    pub buffer_len: usize,
    /// Features to accept when they are offered.
    pub features: Features,
}

impl Default for GuestConfig {
    fn default() -> GuestConfig {
        GuestConfig { pairs: 1, ring_size: 256, buffer_len: BUFFER_LEN, features: Features::ALL }
    }
}

/// Features that a guest may do with or without; VIRTIO_F_VERSION_1 is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_NET_F_MRG_RXBUF.
    pub mergeable: bool,
    /// VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
}

impl Features {
    /// Whatever is offered.
    pub const ALL: Features = Features { packed: true, ..Features::SPLIT };

    /// Whatever is offered but packed rings.
    pub const SPLIT: Features =
        Features { packed: false, mergeable: true, event_idx: true, indirect: true, in_order: true };
}

impl Features {
    /// As the device's end of a ring needs them.
    pub fn ring_options(self) -> RingOptions {
        RingOptions {
            packed: self.packed,
            in_order: self.in_order,
            event_idx: self.event_idx,
            indirect: self.indirect,
            mergeable: self.mergeable,
            version_1: true,
            ..RingOptions::default()
        }
    }
}

/// A guest. One thread has it.
pub struct Guest {
    memory: Arc<DriverMemory>,
    features: Features,
    pairs: Vec<QueuePair>,
}

/// A transmit and a receive queue, from the guest's side.
pub struct QueuePair {
    /// Frames out of the guest.
    pub send: SendQueue,
    /// Frames into the guest.
    pub receive: ReceiveQueue,
}

impl Guest {
    /// Lays out memory and rings and posts all receive buffers. `features` are those that were negotiated.
    pub fn new(config: &GuestConfig, features: Features) -> Result<Guest> {
        let footprint = DriverRing::footprint(config.ring_size)
            + usize::from(config.ring_size) * stride(config.buffer_len);
        let len = (2 * usize::from(config.pairs) * footprint).next_multiple_of(PAGE_LEN);
        let memory = Arc::new(DriverMemory::new("ringyard-guest", len).doing("making a guest's memory")?);
        let queue = |number: usize| Queue::new(&memory, number * footprint, config, features);
        let mut pairs = Vec::new();
        for pair in 0..usize::from(config.pairs) {
            let mut receive = ReceiveQueue {
                queue: queue(2 * pair)?,
                mergeable: features.mergeable,
                pieces: [(0, 0); MERGED_MAX],
            };
            receive.post_all();
            receive.queue.ring.publish();
            pairs.push(QueuePair { send: SendQueue { queue: queue(2 * pair + 1)? }, receive });
        }
        Ok(Guest { memory, features, pairs })
    }

    /// Its memory.
    pub fn memory(&self) -> &Arc<DriverMemory> {
        &self.memory
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Its queue pairs.
    pub fn pairs(&self) -> &[QueuePair] {
        &self.pairs
    }

    /// Its queue pairs, to use them.
    pub fn pairs_mut(&mut self) -> &mut [QueuePair] {
        &mut self.pairs
    }

    /// The first queue pair, which every guest has.
    #[inline]
    pub fn pair(&mut self) -> &mut QueuePair {
        &mut self.pairs[0]
    }
}

/// What both kinds of queue have: a ring, a buffer for each descriptor, and two eventfds.
pub struct Queue {
    ring: DriverRing,
    memory: Arc<DriverMemory>,
    buffers: usize,
    buffer_len: usize,
    header_len: usize,
    kick: Arc<OwnedFd>,
    call: Arc<OwnedFd>,
}

impl Queue {
    fn new(
        memory: &Arc<DriverMemory>,
        offset: usize,
        config: &GuestConfig,
        features: Features,
    ) -> Result<Queue> {
        let size = config.ring_size;
        let options = DriverOptions {
            packed: features.packed,
            event_idx: features.event_idx,
            in_order: features.in_order,
        };
        let ring = DriverRing::new(memory.clone(), offset, size, options).doing("laying out a ring")?;
        ring.ask_for_silence();
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).doing("making an eventfd");
        Ok(Queue {
            ring,
            memory: memory.clone(),
            buffers: offset + DriverRing::footprint(size),
            buffer_len: config.buffer_len,
            header_len: features.ring_options().header_len(),
            kick: Arc::new(event()?),
            call: Arc::new(event()?),
        })
    }

    /// Where the ring lies, in the front end's own addresses.
    pub fn layout(&self) -> RingLayout {
        self.ring.layout()
    }

    /// What the guest rings when there is something new.
    pub fn kick_fd(&self) -> &Arc<OwnedFd> {
        &self.kick
    }

    /// What the guest waits for.
    pub fn call_fd(&self) -> &Arc<OwnedFd> {
        &self.call
    }

    /// Kicks, wanted or not: a ring that starts with buffers in it.
    pub fn kick(&self) {
        // It is non-blocking: a full counter already says what there is to say.
        let _ = rustix::io::write(&*self.kick, &1u64.to_ne_bytes());
    }

    #[inline]
    fn buffer(&self, head: u16) -> usize {
        buffer(self.buffers, self.buffer_len, head)
    }

    #[inline]
    fn publish(&mut self) {
        if self.ring.publish() {
            self.kick();
        }
    }
}

/// Where the buffer of a descriptor begins, of those of that length that begin at `buffers`.
#[inline]
fn buffer(buffers: usize, len: usize, head: u16) -> usize {
    buffers + usize::from(head) * stride(len)
}

/// What the virtio-net header at `buffer` says of merged buffers.
#[inline]
fn num_buffers(memory: &DriverMemory, buffer: usize) -> usize {
    let mut bytes = [0; 2];
    memory.read(buffer + NUM_BUFFERS, &mut bytes);
    usize::from(u16::from_le_bytes(bytes))
}

/// A transmit queue.
pub struct SendQueue {
    queue: Queue,
}

impl SendQueue {
    /// The ring and its eventfds.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Frames that can be sent now; [`Self::reclaim`] makes more of them.
    #[inline]
    pub fn room(&self) -> usize {
        self.queue.ring.room()
    }

    /// Copies `frame` into the next free buffer and adds it; [`Self::flush`] hands it over. Whether there was room.
    ///
    /// # Panics
    /// If the frame is longer than a buffer has room for.
    #[inline]
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let Some(head) = self.queue.ring.next_head() else { return false };
        assert!(frame.len() <= self.queue.buffer_len - self.queue.header_len, "frames that fit a buffer");
        let offset = self.queue.buffer(head) + self.queue.header_len;
        self.queue.memory.write(offset, frame);
        self.add(head, frame.len())
    }

    /// Copies `frame` into all buffers, for [`Self::send_row`]. Only while all of them are free.
    ///
    /// # Panics
    /// If the frame is longer than a buffer has room for.
    pub fn prepare(&mut self, frame: &[u8]) {
        assert!(frame.len() <= self.queue.buffer_len - self.queue.header_len, "frames that fit a buffer");
        for head in 0..self.queue.ring.size() {
            self.queue.memory.write(self.queue.buffer(head) + self.queue.header_len, frame);
        }
    }

    /// Sends up to `count` frames of `len` bytes in a row: what the next free buffers hold, with 8 bytes at `at` replaced by
    /// what `stamp` says of the frame's place in the row. Returns how many there was room for.
    #[inline]
    pub fn send_row(
        &mut self,
        count: usize,
        len: usize,
        at: usize,
        mut stamp: impl FnMut(usize) -> u64,
    ) -> usize {
        let Queue { ring, memory, buffers, buffer_len, header_len, .. } = &mut self.queue;
        let place = |head: u16| buffer(*buffers, *buffer_len, head);
        ring.peek_free(count, |head| memory.prefetch_for_write(place(head) + *header_len + at));
        let len = (*header_len + len) as u32;
        let mut row = 0;
        ring.add_row(count, |head| {
            let offset = place(head);
            memory.write_u64(offset + *header_len + at, stamp(row));
            row += 1;
            Part { offset, len, writable: false }
        })
    }

    /// Hands over what was added since the last call, and kicks when the other side wants it.
    #[inline]
    pub fn flush(&mut self) {
        self.queue.publish();
    }

    /// Takes back the buffers of frames that were read, and says how many.
    pub fn reclaim(&mut self) -> std::result::Result<usize, DeviceFault> {
        let mut count = self.queue.ring.collect_row(usize::MAX, |_| true)?;
        while self.queue.ring.collect()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[inline]
    fn add(&mut self, head: u16, frame_len: usize) -> bool {
        let len = (self.queue.header_len + frame_len) as u32;
        self.queue.ring.add(Part { offset: self.queue.buffer(head), len, writable: false }).is_some()
    }
}

/// A receive queue, whose buffers are all posted while nobody looks at them.
pub struct ReceiveQueue {
    queue: Queue,
    mergeable: bool,
    pieces: [(usize, usize); MERGED_MAX],
}

impl ReceiveQueue {
    /// The ring and its eventfds.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Shows up to `frames_max` received frames to `take`, then posts their buffers again. Returns how many.
    pub fn receive(&mut self, frames_max: usize, mut take: impl FnMut(&Received<'_>)) -> Result<usize> {
        let Queue { ring, memory, buffers, buffer_len, .. } = &mut self.queue;
        ring.peek_used(frames_max, |head| memory.prefetch(buffer(*buffers, *buffer_len, head)));
        let mut frames = self.receive_row(frames_max, &mut take)?;
        while frames < frames_max && self.receive_one(&mut take)? {
            frames += 1;
        }
        if frames > 0 {
            self.post_all();
            self.queue.publish();
        }
        Ok(frames)
    }

    /// Waits until there is a frame, or `time_max` is over. Whether there is one.
    pub fn wait(&mut self, time_max: Duration) -> Result<bool> {
        let _ = rustix::io::read(&*self.queue.call, &mut [0; 8]);
        let mut waiting = self.queue.ring.ask_for_calls();
        if !waiting {
            let timeout =
                Timespec { tv_sec: time_max.as_secs() as i64, tv_nsec: time_max.subsec_nanos().into() };
            let mut fds = [PollFd::new(&*self.queue.call, PollFlags::IN)];
            waiting = poll(&mut fds, Some(&timeout)).doing("waiting for a call")? > 0;
        }
        self.queue.ring.ask_for_silence();
        Ok(waiting)
    }

    /// The frames in a row that lie in one buffer each; others are for [`Self::receive_one`].
    #[inline]
    fn receive_row(&mut self, frames_max: usize, take: &mut impl FnMut(&Received<'_>)) -> Result<usize> {
        let Queue { ring, memory, buffers, buffer_len, header_len, .. } = &mut self.queue;
        let row = ring.collect_row(frames_max, |used| {
            let first = buffer(*buffers, *buffer_len, used.head);
            let len = used.written.map_or(usize::MAX, |len| len as usize);
            let frame_len = len.wrapping_sub(*header_len);
            if len > *buffer_len || frame_len > len || self.mergeable && num_buffers(memory, first) != 1 {
                return false;
            }
            take(&Received { memory, pieces: &[(first + *header_len, frame_len)], len: frame_len });
            true
        });
        row.doing("receiving")
    }

    fn receive_one(&mut self, take: &mut impl FnMut(&Received<'_>)) -> Result<bool> {
        let Some(used) = self.queue.ring.collect().doing("receiving")? else { return Ok(false) };
        let first = self.queue.buffer(used.head);
        let first_len = self.written(used.written)?;
        let head = self.queue.header_len;
        self.pieces[0] = (first + head, first_len.checked_sub(head).ok_or_else(cut)?);
        let merged = if self.mergeable { num_buffers(&self.queue.memory, first) } else { 1 };
        if merged == 0 || merged > MERGED_MAX {
            return Err(Error::new(format!("a received frame says that it has {merged} buffers")));
        }
        let mut len = self.pieces[0].1;
        for place in 1..merged {
            let used = self.queue.ring.collect().doing("receiving")?.ok_or_else(cut)?;
            self.pieces[place] = (self.queue.buffer(used.head), self.written(used.written)?);
            len += self.pieces[place].1;
        }
        take(&Received { memory: &self.queue.memory, pieces: &self.pieces[..merged], len });
        Ok(true)
    }

    fn post_all(&mut self) {
        let Queue { ring, buffers, buffer_len, .. } = &mut self.queue;
        let part = |head: u16| Part {
            offset: buffer(*buffers, *buffer_len, head),
            len: *buffer_len as u32,
            writable: true,
        };
        ring.add_row(usize::MAX, part);
    }

    /// What the device says that it wrote into a buffer; never more than there is.
    #[inline]
    fn written(&self, written: Option<u32>) -> Result<usize> {
        let max = self.queue.buffer_len;
        match written.map_or(max, |len| len as usize) {
            len if len <= max => Ok(len),
            len => Err(Error::new(format!("the device says that it wrote {len} bytes into {max}"))),
        }
    }
}

/// From one buffer to the next: an odd number of cache lines, so that their first lines spread over all sets of a cache.
#[inline]
fn stride(buffer_len: usize) -> usize {
    (buffer_len.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

#[cold]
fn cut() -> Error {
    Error::new("a received frame is cut")
}

/// A received frame, in the guest's memory.
pub struct Received<'a> {
    memory: &'a DriverMemory,
    pieces: &'a [(usize, usize)],
    len: usize,
}

impl Received<'_> {
    /// Bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // frames are not
    pub fn len(&self) -> usize {
        self.len
    }

    /// 8 little-endian bytes at `at`; `None` when they are not in the frame's first buffer.
    #[inline]
    pub fn stamp(&self, at: usize) -> Option<u64> {
        let (offset, len) = self.pieces[0];
        (at + 8 <= len).then(|| self.memory.read_u64(offset + at))
    }

    /// Copies the whole frame to the front of `to` and returns it; a frame that is longer is cut.
    #[inline]
    pub fn copy_to<'t>(&self, to: &'t mut [u8]) -> &'t [u8] {
        let mut at = 0;
        for &(offset, len) in self.pieces {
            let here = len.min(to.len() - at);
            self.memory.read(offset, &mut to[at..at + here]);
            at += here;
        }
        &to[..at]
    }
}

const PAGE_LEN: usize = 4096;

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;

//! A guest's receive ring: frames out of the switch.
//!
//! Frames are copied straight from where their sender keeps them into the buffers that this guest posted, merged over
//! several where a frame needs it and the guest can (virtio 1.2, 5.1.6.4). The used index is published once a send.

#![allow(unsafe_code)] // writes guest memory

use std::sync::Arc;

use super::walk::{Buffer, Head, Walker, copy_across};
use super::{Fault, Ring, RingState, RingView};
use crate::drops::DropReason;
use crate::frame::{Burst, FRAME_LEN_MAX, Frame, HEADER_LEN};
use crate::port::{Egress, EgressScratch};

/// Chains that one frame may be merged over. A guest whose buffers are so small that more are needed does not get the
/// frame.
const MERGED_MAX: usize = 256;
/// Buffers that one frame may be spread over, empty ones included.
const BUFFERS_MAX: usize = 1024;

/// The device's end of a receive virtqueue.
pub struct RingEgress {
    view: Arc<RingView>,
    ring: Arc<Ring>,
}

impl RingEgress {
    /// Tells the guest that it need not kick when it posts buffers: a send looks by itself.
    pub fn new(view: Arc<RingView>, ring: Arc<Ring>) -> RingEgress {
        let state = ring.lock();
        view.ask_for_silence(state.next_avail);
        drop(state);
        RingEgress { view, ring }
    }
}

impl Egress for RingEgress {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut state = self.ring.lock();
        let room = state.pending(&self.view);
        if state.fault.is_some() {
            picks.iter().for_each(|_| scratch.tally.drop(DropReason::NotReady));
            return picks.len();
        }
        let mut filling = Filling {
            view: &self.view,
            walker: Walker::new(&self.view),
            position: state.next_avail,
            room,
            used: state.next_used,
        };
        let mut settled = 0;
        let mut fault = None;
        for &pick in picks {
            let frame = burst.frame(usize::from(pick));
            match filling.deliver(&mut scratch.spread, &frame) {
                Ok(Delivery::Sent) => {
                    scratch.tally.frames += 1;
                    scratch.tally.bytes += frame.len() as u64;
                }
                Ok(Delivery::NeverFits) => scratch.tally.drop(DropReason::TooLong),
                Ok(Delivery::NoRoom) => break,
                Err(broken) => {
                    fault = Some(broken);
                    break;
                }
            }
            settled += 1;
        }
        filling.finish(&mut state);
        if let Some(fault) = fault {
            state.fail(&self.view, fault);
            picks[settled..].iter().for_each(|_| scratch.tally.drop(DropReason::NotReady));
            return picks.len();
        }
        settled
    }
}

enum Delivery {
    Sent,
    NoRoom,
    NeverFits,
}

/// One send: where we are in the available and in the used ring.
struct Filling<'v> {
    view: &'v RingView,
    walker: Walker<'v>,
    position: u16,
    room: u16,
    used: u16,
}

impl Filling<'_> {
    /// The common case, one chain of one buffer that has room, is dealt with here.
    #[inline]
    fn deliver(&mut self, spread: &mut Spread, frame: &Frame<'_>) -> Result<Delivery, Fault> {
        if self.room == 0 {
            return Ok(Delivery::NoRoom);
        }
        let need = self.view.header_len() + frame.len();
        let head = self.view.avail_entry(self.position);
        match self.walker.head(head)? {
            Head::Single { writable: false, .. } => Err(Fault::NotWritable),
            Head::Single { buffer, .. } if buffer.len as usize >= need => {
                // SAFETY: the walker found buffer.len bytes mapped, and they are enough for both headers and the body.
                unsafe { write_whole(buffer.start, frame, self.view.header_len()) };
                self.view.set_used(self.used, head, need as u32);
                self.advance(1);
                Ok(Delivery::Sent)
            }
            _ => self.deliver_spread(spread, frame, need),
        }
    }

    fn advance(&mut self, chains: u16) {
        self.position = self.position.wrapping_add(chains);
        self.used = self.used.wrapping_add(chains);
        self.room -= chains;
    }

    /// Over several buffers, and over several chains where the guest merges. All or nothing: nothing is written or used
    /// before all that is needed was found.
    #[cold]
    fn deliver_spread(
        &mut self,
        spread: &mut Spread,
        frame: &Frame<'_>,
        need: usize,
    ) -> Result<Delivery, Fault> {
        spread.clear();
        let merged_max = if self.view.options().mergeable { MERGED_MAX } else { 1 };
        while spread.len < need {
            let merged = spread.chains.len();
            if merged == merged_max.min(usize::from(self.view.size())) || spread.buffers.len() == BUFFERS_MAX
            {
                return Ok(Delivery::NeverFits);
            }
            if merged == usize::from(self.room) {
                return Ok(Delivery::NoRoom);
            }
            let head = self.view.avail_entry(self.position.wrapping_add(merged as u16));
            self.gather(head, spread, need)?;
        }
        let mut writer = Writer { buffers: &spread.buffers, at: 0 };
        // SAFETY: the buffers are mapped, and hold `need` bytes together, which is what is written.
        unsafe { writer.write_frame(frame, self.view.header_len(), spread.chains.len() as u16) };
        let mut left = need;
        for (place, &(head, len)) in spread.chains.iter().enumerate() {
            let written = left.min(len);
            self.view.set_used(self.used.wrapping_add(place as u16), head, written as u32);
            left -= written;
        }
        self.advance(spread.chains.len() as u16);
        Ok(Delivery::Sent)
    }

    /// Adds the chain of `head`, or as much of it as is needed.
    fn gather(&mut self, head: u16, spread: &mut Spread, need: usize) -> Result<(), Fault> {
        let before = spread.len;
        let mut writable = true;
        let mut visit = |buffer: Buffer, may_write: bool| {
            writable &= may_write;
            if !may_write {
                return false;
            }
            // Empty ones count too: a guest could post a whole ring of them, to be walked for every frame.
            spread.len += buffer.len as usize;
            spread.buffers.push(buffer);
            spread.len < need && spread.buffers.len() < BUFFERS_MAX
        };
        match self.walker.head(head)? {
            Head::Single { buffer, writable } => {
                visit(buffer, writable);
            }
            Head::Chain(first) => self.walker.walk(first, &mut visit)?,
        }
        if !writable {
            return Err(Fault::NotWritable);
        }
        spread.chains.push((head, spread.len - before));
        Ok(())
    }

    fn finish(self, state: &mut RingState) {
        if self.used != state.next_used {
            state.next_avail = self.position;
            state.next_used = self.used;
            state.publish(self.view);
        }
    }
}

/// What one frame is spread over. A worker's memory, which never grows.
pub(crate) struct Spread {
    buffers: Vec<Buffer>,
    /// Head, and bytes that were found in it.
    chains: Vec<(u16, usize)>,
    len: usize,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { buffers: Vec::with_capacity(BUFFERS_MAX), chains: Vec::with_capacity(MERGED_MAX), len: 0 }
    }
}

impl Spread {
    fn clear(&mut self) {
        self.buffers.clear();
        self.chains.clear();
        self.len = 0;
    }
}

/// The virtio-net header of a frame that needs nothing: all zero but `num_buffers`, which follows the 10-byte form.
#[inline]
fn net_header(buffers: u16) -> [u8; 12] {
    let [low, high] = buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high]
}

/// Writes net header, header copy and body at one place.
///
/// # Safety
/// `to` is mapped for `net_len` plus the frame's length, and the frame's pieces are readable.
#[inline]
unsafe fn write_whole(to: *mut u8, frame: &Frame<'_>, net_len: usize) {
    let net = net_header(1);
    // SAFETY: the caller's; with 10 bytes of net header the frame's first two are written twice. The length is a
    // constant: no call.
    unsafe { copy_across(net.as_ptr(), to, net.len()) };
    // SAFETY: within what the caller promised.
    let mut to = unsafe { to.add(net_len) };
    let header = frame.header();
    if header.len() == HEADER_LEN {
        // SAFETY: within what the caller promised. The length is a constant: no call.
        unsafe { copy_across(header.as_ptr(), to, HEADER_LEN) };
    } else {
        // SAFETY: within what the caller promised.
        unsafe { copy_across(header.as_ptr(), to, header.len()) };
    }
    // SAFETY: within what the caller promised, or one past it.
    to = unsafe { to.add(header.len()) };
    for piece in frame.body() {
        // SAFETY: within what the caller promised.
        unsafe { copy_across(piece.start(), to, piece.len()) };
        // SAFETY: within what the caller promised, or one past it.
        to = unsafe { to.add(piece.len()) };
    }
}

/// Writes bytes over buffers in turn.
struct Writer<'b> {
    buffers: &'b [Buffer],
    at: usize,
}

impl Writer<'_> {
    /// # Safety
    /// The buffers are mapped and have room for `net_len` and the frame; the frame's pieces are readable.
    unsafe fn write_frame(&mut self, frame: &Frame<'_>, net_len: usize, buffers: u16) {
        let net = net_header(buffers);
        // SAFETY: the caller's.
        unsafe { self.write(net.as_ptr(), net_len) };
        // SAFETY: the caller's.
        unsafe { self.write(frame.header().as_ptr(), frame.header().len()) };
        for piece in frame.body() {
            // SAFETY: the caller's.
            unsafe { self.write(piece.start(), piece.len()) };
        }
    }

    /// # Safety
    /// `from` is readable for `len` bytes, for which the buffers have room.
    unsafe fn write(&mut self, mut from: *const u8, mut len: usize) {
        while len > 0 {
            let Some((buffer, rest)) = self.buffers.split_first() else { return };
            let here = len.min(buffer.len as usize - self.at);
            // SAFETY: `at` is within the buffer.
            let to = unsafe { buffer.start.add(self.at) };
            // SAFETY: both have `here` bytes left.
            unsafe { copy_across(from, to, here) };
            // SAFETY: within `from`, or one past it.
            from = unsafe { from.add(here) };
            len -= here;
            self.at += here;
            if self.at == buffer.len as usize {
                (self.buffers, self.at) = (rest, 0);
            }
        }
    }
}

const _: () = assert!(FRAME_LEN_MAX / 1024 < MERGED_MAX, "guests that post 1 KiB buffers get every frame");

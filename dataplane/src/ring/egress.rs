//! A guest's receive ring: frames out of the switch.
//!
//! Frames are copied straight from where their sender keeps them into the buffers that this guest posted, merged over
//! several where a frame needs it and the guest can (virtio 1.2, 5.1.6.4). The used index is published once a send.

#![allow(unsafe_code)] // writes guest memory

use std::marker::PhantomData;
use std::sync::Arc;

use super::format::{Chain, Format, Run};
use super::walk::{Buffer, Found, Lookahead, Walker, copy_across, prefetch_for_write};
use super::{Fault, Ring, RingState, RingView};
use crate::drops::DropReason;
use crate::frame::{BURST_FRAMES, Burst, FRAME_LEN_MAX, Frame, HEADER_LEN};
use crate::port::{Egress, EgressScratch};

/// Chains that one frame may be merged over. A guest whose buffers are so small that more are needed does not get the
/// frame.
const MERGED_MAX: usize = 256;
/// Buffers that one frame may be spread over, empty ones included.
const BUFFERS_MAX: usize = 1024;
/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// The device's end of a receive virtqueue, of either form.
pub(crate) struct RingEgress<F> {
    view: Arc<RingView>,
    ring: Arc<Ring>,
    format: PhantomData<F>,
}

impl<F: Format> RingEgress<F> {
    /// Tells the guest that it need not kick when it posts buffers: a send looks by itself.
    pub(crate) fn new(view: Arc<RingView>, ring: Arc<Ring>) -> RingEgress<F> {
        let state = ring.lock();
        F::ask_for_silence(&view, state.next_avail);
        drop(state);
        RingEgress { view, ring, format: PhantomData }
    }
}

impl<F: Format> Egress for RingEgress<F> {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut state = self.ring.lock();
        let waiting = state.waiting::<F>(&self.view);
        if state.fault.is_some() {
            picks.iter().for_each(|_| scratch.tally.drop(DropReason::NotReady));
            return picks.len();
        }
        let EgressScratch { tally, spread, lookahead } = scratch;
        let mut filling = Filling::<F>::new(&self.view, &state, waiting, lookahead);
        let mut settled = 0;
        let mut fault = None;
        for &pick in picks {
            let frame = burst.frame(usize::from(pick));
            match filling.deliver(spread, &frame, picks.len() - settled) {
                Ok(Delivery::Sent) => {
                    tally.frames += 1;
                    tally.bytes += frame.len() as u64;
                }
                Ok(Delivery::NeverFits) => tally.drop(DropReason::TooLong),
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

/// One send: where we are among the guest's buffers.
struct Filling<'v, 's, F> {
    view: &'v RingView,
    walker: Walker<'v, F>,
    /// The next chain's position, and how many wait from there on, at most.
    position: u16,
    waiting: usize,
    /// Chains that were looked up, and how many of them are used or passed over.
    found: &'s mut Lookahead,
    found_count: usize,
    found_next: usize,
    run: Run,
    used: bool,
}

impl<'v, 's, F: Format> Filling<'v, 's, F> {
    fn new(view: &'v RingView, state: &RingState, waiting: usize, found: &'s mut Lookahead) -> Self {
        Filling {
            view,
            walker: Walker::new(view),
            position: state.next_avail,
            waiting,
            found,
            found_count: 0,
            found_next: 0,
            run: F::run(state),
            used: false,
        }
    }

    /// Finds the chains for the next `wanted` frames before the first is written, so that their memory is fetched from
    /// the guest's core for all of them at once. A fault is left for whoever uses the chain.
    #[inline]
    fn look_ahead(&mut self, wanted: usize) {
        let mut position = self.position;
        (self.found_count, self.found_next) = (0, 0);
        for _ in 0..wanted.min(self.waiting).min(BURST_FRAMES) {
            let Ok(Some(chain)) = F::chain(self.view, position) else { return };
            let found = self.walker.look_up(chain);
            if let Some(buffer) = found.single() {
                prefetch_for_write(buffer.start);
                prefetch_for_write(buffer.start.wrapping_add(CACHE_LINE));
            }
            self.found[self.found_count] = found;
            self.found_count += 1;
            position = F::behind(self.view, position, &chain);
        }
    }

    /// The common case, one chain of one buffer that has room, is dealt with here. `wanted` frames are to be delivered,
    /// this one included.
    #[inline]
    fn deliver(&mut self, spread: &mut Spread, frame: &Frame<'_>, wanted: usize) -> Result<Delivery, Fault> {
        if self.found_next == self.found_count {
            self.look_ahead(wanted);
        }
        let need = self.view.header_len() + frame.len();
        if self.found_next < self.found_count {
            let Found { chain, .. } = self.found[self.found_next];
            if let Some(buffer) = self.found[self.found_next].single().filter(|b| b.len as usize >= need) {
                if !self.found[self.found_next].is_writable() {
                    return Err(Fault::NotWritable);
                }
                // SAFETY: the walker found buffer.len bytes mapped, enough for both headers and the body.
                unsafe { write_whole(buffer.start, frame, self.view.header_len()) };
                self.give_back(&chain, need);
                return Ok(Delivery::Sent);
            }
        }
        self.deliver_spread(spread, frame, need)
    }

    #[inline]
    fn give_back(&mut self, chain: &Chain, written: usize) {
        F::give_back(self.view, &mut self.run, chain, written as u32);
        self.position = F::behind(self.view, self.position, chain);
        self.waiting -= 1;
        self.found_next += 1;
        self.used = true;
    }

    /// Over several buffers, and over several chains where the guest merges. All or nothing: nothing is written or used
    /// before all that is needed was found. Chains are read anew, and what was looked up of them is forgotten.
    #[cold]
    fn deliver_spread(
        &mut self,
        spread: &mut Spread,
        frame: &Frame<'_>,
        need: usize,
    ) -> Result<Delivery, Fault> {
        (self.found_count, self.found_next) = (0, 0);
        spread.clear();
        let merged_max = if self.view.options().mergeable { MERGED_MAX } else { 1 };
        let mut position = self.position;
        while spread.len < need {
            let merged = spread.chains.len();
            if merged == merged_max.min(usize::from(self.view.size())) || spread.buffers.len() == BUFFERS_MAX
            {
                return Ok(Delivery::NeverFits);
            }
            if merged == self.waiting {
                return Ok(Delivery::NoRoom);
            }
            let Some(chain) = F::chain(self.view, position)? else { return Ok(Delivery::NoRoom) };
            position = F::behind(self.view, position, &chain);
            self.gather(chain, spread, need)?;
        }
        let mut writer = Writer { buffers: &spread.buffers, at: 0 };
        // SAFETY: the buffers are mapped, and hold `need` bytes together, which is what is written.
        unsafe { writer.write_frame(frame, self.view.header_len(), spread.chains.len() as u16) };
        let mut left = need;
        for (chain, len) in &spread.chains {
            let written = left.min(*len);
            self.give_back(chain, written);
            left -= written;
        }
        (self.found_count, self.found_next) = (0, 0);
        Ok(Delivery::Sent)
    }

    /// Adds `chain`, or as much of it as is needed.
    fn gather(&mut self, chain: Chain, spread: &mut Spread, need: usize) -> Result<(), Fault> {
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
        self.walker.walk(&chain, &mut visit)?;
        if !writable {
            return Err(Fault::NotWritable);
        }
        spread.chains.push((chain, spread.len - before));
        Ok(())
    }

    fn finish(self, state: &mut RingState) {
        if self.used {
            state.next_avail = self.position;
            state.publish::<F>(self.view, self.run);
        }
    }
}

/// What one frame is spread over. A worker's memory, which never grows.
pub(crate) struct Spread {
    buffers: Vec<Buffer>,
    /// Chain, and bytes that were found in it.
    chains: Vec<(Chain, usize)>,
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

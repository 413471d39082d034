//! A guest's transmit ring: frames into the switch.
//!
//! One poll walks up to a burst of chains, copies each header, lends the bodies where they lie, and marks chains used in
//! order, with one publication of the used index. What stays unsettled is lent again by the next poll; chains that are
//! settled behind it are remembered by a bit each.

#![allow(unsafe_code)] // lends guest memory

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE};

use super::signal::empty;
use super::walk::{Buffer, Head, Walker, copy_header_in, copy_in, read_word};
use super::{Fault, Ring, RingState, RingView};
use crate::drops::DropReason;
use crate::frame::{BURST_FRAMES, Burst, BurstBuilder, FRAME_LEN_MAX, HEADER_LEN, Taken, check_len};
use crate::port::{Arming, Doorbell, Ingress, IngressScratch};

/// Descriptors of longer chains after which a burst ends, so that a guest whose chains are long and empty does not keep
/// its worker.
const DESCRIPTORS_MAX: usize = 1024;
/// Room for a virtio-net header of any size served here.
const NET_HEADER_MAX: usize = 12;

/// The device's end of a transmit virtqueue.
pub struct RingIngress {
    view: Arc<RingView>,
    ring: Arc<Ring>,
    queue: u16,
    kick: Option<Arc<OwnedFd>>,
}

impl RingIngress {
    /// Queue `queue` of its port. `kick` is a non-blocking eventfd, or `None` when the guest never kicks.
    pub fn new(view: Arc<RingView>, ring: Arc<Ring>, queue: u16, kick: Option<Arc<OwnedFd>>) -> RingIngress {
        RingIngress { view, ring, queue, kick }
    }
}

impl Ingress for RingIngress {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut state = self.ring.lock();
        let pending = state.pending(&self.view);
        if pending == 0 {
            return 0;
        }
        let mut round = Round::new(&self.view, &state, pending);
        let mut builder = scratch.burst.begin(self.queue);
        let fault = round.collect(&mut builder, &mut |reason| scratch.tally.drop(reason));
        if !builder.is_empty() {
            let taken = forward(&builder.burst());
            round.settle(taken, builder.len());
        }
        let gone = round.complete(&mut state);
        if let Some(fault) = fault {
            state.fail(&self.view, fault);
        }
        gone
    }
}

impl Doorbell for RingIngress {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(|kick| kick.as_fd())
    }

    fn arm(&self) -> Arming {
        if let Some(kick) = &self.kick {
            empty(kick);
        }
        let state = self.ring.lock();
        if state.fault.is_some() {
            return Arming::Dead;
        }
        self.view.ask_for_kicks(state.next_avail);
        if self.view.avail_index() == state.next_avail {
            return Arming::Quiet;
        }
        self.view.ask_for_silence(state.next_avail);
        Arming::Work
    }

    fn disarm(&self) {
        let state = self.ring.lock();
        self.view.ask_for_silence(state.next_avail);
    }

    fn fail(&self) {
        self.ring.lock().fail(&self.view, Fault::Panicked);
    }
}

/// One poll: up to a burst of chains from `next_avail` on, each known by its place counted from there.
struct Round<'v> {
    view: &'v RingView,
    walker: Walker<'v>,
    first: u16,
    chains: usize,
    /// By place: the head, to give back.
    heads: [u16; BURST_FRAMES],
    /// By place in the burst: the chain's place.
    places: [u8; BURST_FRAMES],
    /// Places whose chain is done with, and those that were before this poll.
    done: u64,
    done_before: u64,
}

/// What a chain turned out to be.
enum Outcome {
    Lent,
    Dropped(DropReason),
    /// There is no room for it in this burst.
    Later,
}

impl<'v> Round<'v> {
    fn new(view: &'v RingView, state: &RingState, pending: u16) -> Round<'v> {
        Round {
            view,
            walker: Walker::new(view),
            first: state.next_avail,
            chains: usize::from(pending).min(BURST_FRAMES),
            heads: [0; BURST_FRAMES],
            places: [0; BURST_FRAMES],
            done: state.settled_ahead,
            done_before: state.settled_ahead,
        }
    }

    /// Walks the chains and fills the burst. Stops before the first chain that breaks a rule and says which.
    fn collect(
        &mut self,
        builder: &mut BurstBuilder<'_, 'v>,
        count_drop: &mut dyn FnMut(DropReason),
    ) -> Option<Fault> {
        for place in 0..self.chains {
            let head = self.view.avail_entry(self.first.wrapping_add(place as u16));
            self.heads[place] = head;
            if self.done >> place & 1 == 1 {
                continue;
            }
            match self.lend(builder, head) {
                Ok(Outcome::Lent) => self.places[builder.len() - 1] = place as u8,
                Ok(Outcome::Dropped(reason)) => {
                    count_drop(reason);
                    self.done |= 1 << place;
                }
                Ok(Outcome::Later) => {
                    self.chains = place;
                    return None;
                }
                Err(fault) => {
                    self.chains = place;
                    return Some(fault);
                }
            }
        }
        None
    }

    fn lend(&mut self, builder: &mut BurstBuilder<'_, 'v>, head: u16) -> Result<Outcome, Fault> {
        if builder.is_full(0) {
            return Ok(Outcome::Later);
        }
        match self.walker.head(head)? {
            Head::Single { writable: true, .. } => Ok(Outcome::Dropped(DropReason::Malformed)),
            Head::Single { buffer, .. } if !builder.is_full(1) => Ok(self.lend_single(builder, buffer)),
            Head::Single { .. } => Ok(Outcome::Later),
            Head::Chain(_) if self.walker.walked() >= DESCRIPTORS_MAX => Ok(Outcome::Later),
            Head::Chain(first) => {
                let mut gathering = Gathering::new(builder, self.view.header_len());
                self.walker.walk(first, &mut |buffer, writable| gathering.take(buffer, writable))?;
                Ok(gathering.finish())
            }
        }
    }

    /// The whole chain is one buffer: net header, frame.
    #[inline]
    fn lend_single(&self, builder: &mut BurstBuilder<'_, 'v>, buffer: Buffer) -> Outcome {
        let net_len = self.view.header_len();
        let Some(frame_len) = (buffer.len as usize).checked_sub(net_len) else {
            return Outcome::Dropped(DropReason::Malformed);
        };
        if let Err(reason) = check_len(frame_len) {
            return Outcome::Dropped(reason);
        }
        // SAFETY: the walker found buffer.len bytes mapped, and the shortest net header has 10.
        if !is_plain(unsafe { read_word(buffer.start) }) {
            return Outcome::Dropped(DropReason::Malformed);
        }
        // SAFETY: within the buffer, as above.
        let frame = unsafe { buffer.start.add(net_len) };
        let header_len = frame_len.min(HEADER_LEN);
        let slot = builder.header_slot().as_mut_ptr();
        if header_len == HEADER_LEN {
            // SAFETY: the frame has HEADER_LEN bytes or more, and so has the slot. The length is a constant: no call.
            unsafe { copy_header_in(frame, slot) };
        } else {
            // SAFETY: the frame has header_len bytes, the slot more.
            unsafe { copy_in(frame, slot, header_len) };
        }
        let rest = frame_len - header_len;
        if rest > 0 {
            // SAFETY: within the buffer, as above.
            let body = unsafe { frame.add(header_len) };
            // SAFETY: `rest` bytes from there end the buffer, mapped as long as the view that `'v` borrows.
            unsafe { builder.push_piece(body, rest as u32) };
        }
        builder.commit(frame_len, usize::from(rest > 0));
        Outcome::Lent
    }

    fn settle(&mut self, taken: Taken, frames: usize) {
        // The common case at once: every chain is lent and taken, or was done before.
        if taken == Taken::ALL {
            self.done |= u64::MAX.checked_shr((BURST_FRAMES - self.chains) as u32).unwrap_or(0);
            return;
        }
        for index in 0..frames {
            if taken.settled(index) {
                self.done |= 1 << self.places[index];
            }
        }
    }

    /// Marks the leading chains that are done used, in order, and publishes once. Returns how many are newly done.
    fn complete(&mut self, state: &mut RingState) -> usize {
        let newly_done = (self.done & !self.done_before).count_ones() as usize;
        let leading = Taken(self.done).leading(self.chains);
        for &head in &self.heads[..leading] {
            self.view.set_used(state.next_used, head, 0);
            state.next_used = state.next_used.wrapping_add(1);
        }
        state.next_avail = state.next_avail.wrapping_add(leading as u16);
        state.settled_ahead = self.done.checked_shr(leading as u32).unwrap_or(0);
        if leading > 0 {
            state.publish(self.view);
        }
        newly_done
    }
}

/// Gathers a frame from several buffers: the net header and the frame's header are copied, across buffers where they
/// must be, and the rest is lent.
struct Gathering<'b, 's, 'v> {
    builder: &'b mut BurstBuilder<'s, 'v>,
    net_header: [u8; NET_HEADER_MAX],
    net_len: usize,
    net_have: usize,
    header_have: usize,
    frame_len: usize,
    pieces: usize,
    verdict: Option<Outcome>,
}

impl<'b, 's, 'v> Gathering<'b, 's, 'v> {
    fn new(builder: &'b mut BurstBuilder<'s, 'v>, net_len: usize) -> Self {
        let net_header = [0; NET_HEADER_MAX];
        Gathering {
            builder,
            net_header,
            net_len,
            net_have: 0,
            header_have: 0,
            frame_len: 0,
            pieces: 0,
            verdict: None,
        }
    }

    /// Whether the walk is to go on.
    fn take(&mut self, buffer: Buffer, writable: bool) -> bool {
        if writable {
            return self.give_up(Outcome::Dropped(DropReason::Malformed));
        }
        let Buffer { mut start, len } = buffer;
        let mut left = len as usize;
        let net = left.min(self.net_len - self.net_have);
        // SAFETY: `net` bytes of the buffer are mapped; net_have + net stays within the header.
        unsafe { copy_in(start, self.net_header[self.net_have..].as_mut_ptr(), net) };
        self.net_have += net;
        // SAFETY: within the buffer.
        start = unsafe { start.add(net) };
        left -= net;
        if self.frame_len + left > FRAME_LEN_MAX {
            return self.give_up(Outcome::Dropped(DropReason::TooLong));
        }
        self.frame_len += left;
        let header = left.min(HEADER_LEN - self.header_have);
        // SAFETY: `header` bytes of the buffer are mapped; header_have + header stays within the slot.
        unsafe { copy_in(start, self.builder.header_slot()[self.header_have..].as_mut_ptr(), header) };
        self.header_have += header;
        left -= header;
        if left == 0 {
            return true;
        }
        if self.builder.is_full(1) {
            let alone = self.builder.is_empty();
            return self.give_up(if alone {
                Outcome::Dropped(DropReason::Malformed)
            } else {
                Outcome::Later
            });
        }
        // SAFETY: within the buffer.
        let body = unsafe { start.add(header) };
        // SAFETY: `left` bytes from there end the buffer, mapped as long as the view that `'v` borrows.
        unsafe { self.builder.push_piece(body, left as u32) };
        self.pieces += 1;
        true
    }

    fn give_up(&mut self, outcome: Outcome) -> bool {
        self.verdict = Some(outcome);
        false
    }

    fn finish(self) -> Outcome {
        let net_start = std::array::from_fn(|at| self.net_header[at]);
        let verdict = self.verdict.or_else(|| {
            if self.net_have < self.net_len || !is_plain(net_start) {
                return Some(Outcome::Dropped(DropReason::Malformed));
            }
            check_len(self.frame_len).err().map(Outcome::Dropped)
        });
        match verdict {
            Some(outcome) => {
                self.builder.abandon(self.pieces);
                outcome
            }
            None => {
                self.builder.commit(self.frame_len, self.pieces);
                Outcome::Lent
            }
        }
    }
}

/// Whether the first bytes of a virtio-net header (virtio 1.2, 5.1.6) ask for nothing. No offload is negotiated, so
/// whatever else the header holds is noise: `num_buffers` and the DATA_VALID hint are for receivers.
#[inline]
fn is_plain([flags, gso_type, ..]: [u8; 8]) -> bool {
    flags & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 == 0 && gso_type == VIRTIO_NET_HDR_GSO_NONE as u8
}

//! A guest's transmit ring: frames into the switch.
//!
//! One poll walks up to a burst of chains, copies each header, lends the bodies where they lie, and marks chains used in
//! order, with one publication of the used index. What stays unsettled is lent again by the next poll; chains that are
//! settled behind it are remembered by a bit each.

#![allow(unsafe_code)] // lends guest memory

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::format::{Chain, Format};
use super::gathering::{Gathering, Outcome};
use super::signal::empty;
use super::walk::{Buffer, CACHE_LINE, Lookahead, Walker, copy_header_in, copy_in, prefetch, read_word};
use super::{Fault, Ring, RingState, RingView};
use crate::drops::DropReason;
use crate::frame::{
    BURST_FRAMES, Burst, BurstBuilder, ETHERNET_LEN, FRAME_LEN_MAX, HEADER_LEN, OFFLOAD_HEADER_LEN, Taken,
    check_len,
};
use crate::offload::{NET_HEADER_LEN, Offload, is_plain};
use crate::port::{Arming, Doorbell, Ingress, IngressScratch};

/// Descriptors of longer chains after which a burst ends, so that a guest whose chains are long and empty does not keep
/// its worker.
const DESCRIPTORS_MAX: usize = 1024;

/// The device's end of a transmit virtqueue, of either form.
pub(crate) struct RingIngress<F> {
    view: Arc<RingView>,
    ring: Arc<Ring>,
    queue: u16,
    kick: Option<Arc<OwnedFd>>,
    format: PhantomData<F>,
}

impl<F> RingIngress<F> {
    /// Queue `queue` of its port. `kick` is a non-blocking eventfd, or `None` when the guest never kicks.
    pub(crate) fn new(
        view: Arc<RingView>,
        ring: Arc<Ring>,
        queue: u16,
        kick: Option<Arc<OwnedFd>>,
    ) -> RingIngress<F> {
        RingIngress { view, ring, queue, kick, format: PhantomData }
    }
}

impl<F: Format> Ingress for RingIngress<F> {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut state = self.ring.lock();
        let waiting = state.waiting::<F>(&self.view);
        if waiting == 0 {
            return 0;
        }
        let IngressScratch { burst, tally, lookahead } = scratch;
        let mut round = Round::<F>::new(&self.view, &state, waiting, lookahead);
        let mut builder = burst.begin(self.queue);
        round.look_ahead();
        round.collect(&mut builder, &mut |reason| tally.drop(reason));
        if !builder.is_empty() {
            let taken = forward(&builder.burst());
            round.settle(taken, builder.len());
        }
        let (gone, fault) = (round.complete(&mut state), round.fault);
        if let Some(fault) = fault {
            state.fail(&self.view, fault);
        }
        gone
    }
}

impl<F: Format> Doorbell for RingIngress<F> {
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
        F::ask_for_kicks(&self.view, state.next_avail);
        if F::waiting(&self.view, &state) == Ok(0) {
            return Arming::Quiet;
        }
        F::ask_for_silence(&self.view, state.next_avail);
        Arming::Work
    }

    fn disarm(&self) {
        let state = self.ring.lock();
        F::ask_for_silence(&self.view, state.next_avail);
    }

    fn fail(&self) {
        self.ring.lock().fail(&self.view, Fault::Panicked);
    }
}

/// One poll: up to a burst of chains from `next_avail` on, each known by its place counted from there.
struct Round<'v, 's, F> {
    view: &'v RingView,
    walker: Walker<'v, F>,
    first: u16,
    /// Chains of this poll: as many as wait, then as many as were found, then as many as were dealt with.
    chains: usize,
    /// By place: the chain.
    found: &'s mut Lookahead,
    /// By place in the burst: the chain's place.
    places: [u8; BURST_FRAMES],
    /// Places whose chain is done with, and those that were before this poll.
    done: u64,
    done_before: u64,
    /// The first rule that was broken. What came before is served.
    fault: Option<Fault>,
}

impl<'v, 's, F: Format> Round<'v, 's, F> {
    fn new(view: &'v RingView, state: &RingState, waiting: usize, found: &'s mut Lookahead) -> Self {
        Round {
            view,
            walker: Walker::new(view),
            first: state.next_avail,
            chains: waiting.min(BURST_FRAMES),
            found,
            places: [0; BURST_FRAMES],
            done: state.settled_ahead,
            done_before: state.settled_ahead,
            fault: None,
        }
    }

    /// Finds all chains before the first frame is touched: what the guest's core wrote is then fetched for all of them
    /// at once, and not for one after the other.
    fn look_ahead(&mut self) {
        let (mut position, mut slots) = (self.first, 0);
        for place in 0..self.chains {
            let chain = match F::chain(self.view, position) {
                Ok(Some(chain)) => chain,
                Ok(None) => {
                    self.chains = place;
                    return;
                }
                Err(fault) => return self.stop(place, fault),
            };
            let found = self.walker.look_up(chain);
            if let Some(buffer) = found.single() {
                prefetch(buffer.start);
                prefetch(buffer.start.wrapping_add(CACHE_LINE));
            }
            self.found[place] = found;
            position = F::behind(self.view, position, &chain);
            slots += usize::from(chain.slots);
            if slots >= DESCRIPTORS_MAX {
                self.chains = place + 1;
                return;
            }
        }
    }

    /// Ends the poll before the chain at `place`, which breaks a rule.
    fn stop(&mut self, place: usize, fault: Fault) {
        self.chains = place;
        self.fault = Some(fault);
    }

    /// Fills the burst.
    fn collect(&mut self, builder: &mut BurstBuilder<'_, 'v>, count_drop: &mut dyn FnMut(DropReason)) {
        let mut place = 0;
        while place < self.chains {
            place += self.lend_plain(builder, place);
            if place == self.chains {
                return;
            }
            if self.done >> place & 1 == 0 {
                match self.lend(builder, place) {
                    Ok(Outcome::Lent) => self.places[builder.len() - 1] = place as u8,
                    Ok(Outcome::Dropped(reason)) => {
                        count_drop(reason);
                        self.done |= 1 << place;
                    }
                    Ok(Outcome::Later) => {
                        (self.chains, self.fault) = (place, None);
                        return;
                    }
                    Err(fault) => return self.stop(place, fault),
                }
            }
            place += 1;
        }
    }

    /// Lends the chains from `first` on as long as each is one buffer with a plain frame that the burst has room for, and
    /// says how many. What moves is in locals, which is half the work a frame; all else is for [`Self::lend`].
    #[inline]
    fn lend_plain(&mut self, builder: &mut BurstBuilder<'_, 'v>, first: usize) -> usize {
        let net_len = self.view.header_len();
        let mut row = builder.row();
        let mut count = 0;
        for (place, found) in self.found[..self.chains].iter().enumerate().skip(first) {
            let Some(buffer) = found.single() else { break };
            let frame_len = (buffer.len as usize).wrapping_sub(net_len);
            if self.done >> place & 1 == 1
                || row.is_full(1)
                || found.is_writable()
                || !(ETHERNET_LEN..=FRAME_LEN_MAX).contains(&frame_len)
            {
                break;
            }
            // SAFETY: the walker found the buffer mapped, and it has more bytes than the shortest net header.
            if !is_plain(unsafe { read_word(buffer.start) }) {
                break;
            }
            // SAFETY: the buffer has the net header and frame_len bytes behind it, as just checked.
            unsafe { lend_frame(&mut row, buffer.start.wrapping_add(net_len), frame_len) };
            self.places[row.len() - 1] = place as u8;
            count += 1;
        }
        let (frames, bytes) = row.counts();
        builder.resume(frames, bytes);
        count
    }

    #[inline]
    fn lend(&mut self, builder: &mut BurstBuilder<'_, 'v>, place: usize) -> Result<Outcome, Fault> {
        let found = self.found[place];
        match found.single() {
            Some(_) if builder.is_full(1) => Ok(Outcome::Later),
            Some(_) if found.is_writable() => Ok(Outcome::Dropped(DropReason::Malformed)),
            Some(buffer) => Ok(self.lend_single(builder, buffer)),
            None => self.lend_chain(builder, &found.chain),
        }
    }

    #[cold]
    fn lend_chain(&mut self, builder: &mut BurstBuilder<'_, 'v>, chain: &Chain) -> Result<Outcome, Fault> {
        if builder.is_full(0) || builder.is_full_of_segments() || self.walker.walked() >= DESCRIPTORS_MAX {
            return Ok(Outcome::Later);
        }
        let mut gathering = Gathering::new(builder, self.view.header_len(), self.view.options().send);
        self.walker.walk(chain, &mut |buffer, writable| gathering.take(buffer, writable))?;
        Ok(gathering.finish())
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
        let net = unsafe { read_word(buffer.start) };
        if !is_plain(net) {
            return self.lend_asking(builder, net, buffer, frame_len);
        }
        // SAFETY: the buffer has the net header and frame_len bytes behind it.
        unsafe { lend_frame(builder, buffer.start.wrapping_add(net_len), frame_len) };
        Outcome::Lent
    }

    /// As [`Self::lend_single`], of a frame whose net header begins with `net` and asks for something. Cold, which it need
    /// not be, so that the plain frame's way stays as short as it is without.
    #[cold]
    fn lend_asking(
        &self,
        builder: &mut BurstBuilder<'_, 'v>,
        net: [u8; 8],
        buffer: Buffer,
        frame_len: usize,
    ) -> Outcome {
        if builder.is_full_of_segments() {
            return Outcome::Later;
        }
        let mut net_header = [0; NET_HEADER_LEN];
        net_header[..net.len()].copy_from_slice(&net);
        let net_rest = &mut net_header[net.len()..];
        // SAFETY: within the buffer, whose net header has 10 bytes or more.
        let from = unsafe { buffer.start.add(net.len()) };
        // SAFETY: as above; these are the bytes that were not read yet.
        unsafe { copy_in(from, net_rest.as_mut_ptr(), net_rest.len()) };
        // SAFETY: within the buffer.
        let frame = unsafe { buffer.start.add(self.view.header_len()) };
        let header_len = frame_len.min(OFFLOAD_HEADER_LEN);
        let header = &mut builder.long_header_slot()[..header_len];
        // SAFETY: the frame has header_len bytes, and so has `header`.
        unsafe { copy_in(frame, header.as_mut_ptr(), header_len) };
        let offload = match Offload::parse(&net_header, header, frame_len, self.view.options().send) {
            Ok(Some(offload)) => offload,
            _ => return Outcome::Dropped(DropReason::Malformed),
        };
        let rest = frame_len - header_len;
        if rest > 0 {
            // SAFETY: within the buffer.
            let body = unsafe { frame.add(header_len) };
            // SAFETY: `rest` bytes from there end the buffer, mapped as long as the view that `'v` borrows.
            unsafe { builder.push_piece(body, rest as u32) };
        }
        builder.commit_asking(frame_len, usize::from(rest > 0), offload);
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

    /// Gives the leading chains that are done back, in order, and publishes once. Returns how many are newly done.
    fn complete(&mut self, state: &mut RingState) -> usize {
        let newly_done = (self.done & !self.done_before).count_ones() as usize;
        let leading = Taken(self.done).leading(self.chains);
        if leading == 0 {
            state.settled_ahead = self.done;
            return newly_done;
        }
        let (mut run, mut position) = (F::run(state), state.next_avail);
        for found in &self.found[..leading] {
            position = F::behind(self.view, position, &found.chain);
            F::give_back(self.view, &mut run, &found.chain, 0);
        }
        state.next_avail = position;
        state.settled_ahead = self.done.checked_shr(leading as u32).unwrap_or(0);
        state.publish::<F>(self.view, run);
        newly_done
    }
}

/// Adds a frame that needs nothing, of `len` bytes in one piece.
///
/// # Safety
/// `frame` is mapped for `len` bytes during `'v`, and `len` is that of a frame.
#[inline(always)]
pub(super) unsafe fn lend_frame<'v>(builder: &mut BurstBuilder<'_, 'v>, frame: *mut u8, len: usize) {
    let header_len = len.min(HEADER_LEN);
    let slot = builder.header_slot().as_mut_ptr();
    // SAFETY: the frame has header_len bytes, the slot as many or more.
    unsafe { copy_header_in(frame, slot, header_len) };
    let rest = len - header_len;
    if rest > 0 {
        // SAFETY: `rest` bytes from there end the frame.
        unsafe { builder.push_piece(frame.wrapping_add(header_len), rest as u32) };
    }
    builder.commit(len, usize::from(rest > 0));
}

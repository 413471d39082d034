//! A guest's receive ring: frames out of the switch.
//!
//! Frames are copied straight from where their sender keeps them into the buffers that this guest posted, merged over
//! several where a frame needs it and the guest can (virtio 1.2, 5.1.6.4). A frame that leaves something to its receiver
//! keeps that if this guest negotiated it; else its checksum is completed, or it is cut, in the pass that copies it. The
//! used index is published once a send.

#![allow(unsafe_code)] // has guest memory written

use std::marker::PhantomData;
use std::sync::Arc;

use super::format::{Chain, Format};
use super::walk::{Buffer, CACHE_LINE, Found, Lookahead, Walker, prefetch_for_write};
use super::writer::{Writer, write_segment, write_whole};
use super::{Fault, Ring, RingState, RingView};
use crate::drops::DropReason;
use crate::frame::{BURST_FRAMES, Burst, FRAME_LEN_MAX, Frame};
use crate::offload::{Offload, SEGMENTS_MAX, Segments};
use crate::port::{Egress, EgressScratch, Tally};

/// Chains that one frame may be merged over. A guest whose buffers are so small that more are needed does not get the
/// frame.
const MERGED_MAX: usize = 256;
/// Buffers that one frame may be spread over, empty ones included, all its segments together.
const BUFFERS_MAX: usize = 1024;

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
        while settled < picks.len() {
            settled += filling.deliver_plain(burst, &picks[settled..], tally);
            let Some(&pick) = picks.get(settled) else { break };
            let frame = burst.frame(usize::from(pick));
            match filling.deliver(spread, &frame, picks.len() - settled) {
                Ok(Delivery::Sent) => count(tally, &frame),
                Ok(Delivery::Cut(segments)) => {
                    count(tally, &frame);
                    tally.segments += segments as u64;
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

#[inline]
fn count(tally: &mut Tally, frame: &Frame<'_>) {
    tally.frames += 1;
    tally.bytes += frame.len() as u64;
}

enum Delivery {
    Sent,
    /// Sent in so many segments.
    Cut(usize),
    NoRoom,
    NeverFits,
}

/// Whether there are chains for a frame.
enum Room {
    Enough,
    NotNow,
    Never,
}

/// One send: where we are among the guest's buffers.
struct Filling<'v, 's, F: Format> {
    view: &'v RingView,
    walker: Walker<'v, F>,
    /// The next chain's position, and how many wait from there on, at most.
    position: u16,
    waiting: usize,
    /// Chains that were looked up, and how many of them are used or passed over.
    found: &'s mut Lookahead,
    found_count: usize,
    found_next: usize,
    run: F::Run,
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
            if found.single().is_none() {
                // It is read anew when it is used, and so is what follows.
                return;
            }
            position = F::behind(self.view, position, &chain);
        }
    }

    /// Delivers the picked frames as long as each is plain and the next chain is one buffer with room for it, and says how
    /// many. What moves is in locals, which is half the work a frame; all else is for [`Self::deliver`].
    #[inline]
    fn deliver_plain(&mut self, burst: &Burst<'_>, picks: &[u8], tally: &mut Tally) -> usize {
        if self.found_next == self.found_count {
            self.look_ahead(picks.len());
        }
        let (view, net_len, net) = (self.view, self.view.header_len(), net_header(None, 1));
        let (mut run, mut position, mut count, mut bytes) = (self.run, self.position, 0, 0);
        for (&pick, found) in picks.iter().zip(&self.found[self.found_next..self.found_count]) {
            let frame = burst.frame(usize::from(pick));
            let need = net_len + frame.len();
            let Some(buffer) = found.single() else { break };
            if frame.offload().is_some() || need > buffer.len as usize || !found.is_writable() {
                break;
            }
            // SAFETY: the walker found buffer.len bytes mapped, enough for both headers and the body.
            unsafe { write_whole(buffer.start, &frame, net, net_len) };
            F::wrote(view, buffer.start, need);
            F::give_back(view, &mut run, &found.chain, need as u32);
            position = F::behind(view, position, &found.chain);
            bytes += frame.len() as u64;
            count += 1;
        }
        (self.run, self.position) = (run, position);
        self.waiting -= count;
        self.found_next += count;
        self.used |= count > 0;
        tally.frames += count as u64;
        tally.bytes += bytes;
        count
    }

    /// `wanted` frames are to be delivered, this one included.
    #[inline]
    fn deliver(&mut self, spread: &mut Spread, frame: &Frame<'_>, wanted: usize) -> Result<Delivery, Fault> {
        if self.found_next == self.found_count {
            self.look_ahead(wanted);
        }
        match frame.offload() {
            None => self.deliver_whole(spread, frame, None),
            Some(offload) => self.deliver_asking(spread, frame, offload),
        }
    }

    /// Cold, which it need not be, so that the plain frame's way stays as short as it is without.
    #[cold]
    fn deliver_asking(
        &mut self,
        spread: &mut Spread,
        frame: &Frame<'_>,
        offload: &Offload,
    ) -> Result<Delivery, Fault> {
        if self.view.options().receive.has(offload.needs()) {
            self.deliver_whole(spread, frame, Some(offload))
        } else {
            self.deliver_segments(spread, frame)
        }
    }

    /// The common case, one chain of one buffer that has room, is dealt with here.
    #[inline(always)]
    fn deliver_whole(
        &mut self,
        spread: &mut Spread,
        frame: &Frame<'_>,
        offload: Option<&Offload>,
    ) -> Result<Delivery, Fault> {
        let need = self.view.header_len() + frame.len();
        if self.found_next < self.found_count {
            let Found { chain, .. } = self.found[self.found_next];
            if let Some(buffer) = self.found[self.found_next].single().filter(|b| b.len as usize >= need) {
                if !self.found[self.found_next].is_writable() {
                    return Err(Fault::NotWritable);
                }
                let net = net_header(offload, 1);
                // SAFETY: the walker found buffer.len bytes mapped, enough for both headers and the body.
                unsafe { write_whole(buffer.start, frame, net, self.view.header_len()) };
                F::wrote(self.view, buffer.start, need);
                self.give_back(&chain, need);
                return Ok(Delivery::Sent);
            }
        }
        self.deliver_spread(spread, frame, offload, need)
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
        offload: Option<&Offload>,
        need: usize,
    ) -> Result<Delivery, Fault> {
        self.forget();
        spread.clear();
        match self.gather_frame(spread, &mut { self.position }, need)? {
            Room::Enough => {}
            Room::NotNow => return Ok(Delivery::NoRoom),
            Room::Never => return Ok(Delivery::NeverFits),
        }
        let net = net_header(offload, spread.chains.len() as u16);
        let mut writer = Writer::new(&spread.buffers);
        // SAFETY: the buffers are mapped, and hold `need` bytes together, which is what is written.
        unsafe { writer.write_frame(frame, &net[..self.view.header_len()]) };
        self.give_back_all(spread);
        Ok(Delivery::Sent)
    }

    /// What stands for the frame at a guest that does not take it as it is: a frame with its checksum complete, or
    /// several. All or nothing, as above; each begins with a chain of its own.
    fn deliver_segments(&mut self, spread: &mut Spread, frame: &Frame<'_>) -> Result<Delivery, Fault> {
        let Some(mut segments) = Segments::of(frame) else { return Ok(Delivery::NeverFits) };
        let (count, net_len) = (segments.count(), self.view.header_len());
        let mut position = self.position;
        self.forget();
        spread.clear();
        for place in 1..=count {
            let len = if place < count { segments.segment_len() } else { segments.last_len() };
            match self.gather_frame(spread, &mut position, net_len + len)? {
                Room::Enough => {}
                Room::NotNow => return Ok(Delivery::NoRoom),
                Room::Never => return Ok(Delivery::NeverFits),
            }
        }
        let (mut buffers, mut chains) = (0, 0);
        for place in &spread.places {
            let Some(payload) = segments.next_payload() else { break };
            let net = net_header(None, (place.chains - chains) as u16);
            let target = &spread.buffers[buffers..place.buffers];
            // SAFETY: these buffers are mapped, and hold the net header and this segment together.
            unsafe { write_segment(target, &net[..net_len], &mut segments, payload) };
            (buffers, chains) = (place.buffers, place.chains);
        }
        self.give_back_all(spread);
        Ok(if count > 1 { Delivery::Cut(count) } else { Delivery::Sent })
    }

    /// Adds the chains that a frame of `need` bytes takes, from `position` on.
    fn gather_frame(&mut self, spread: &mut Spread, position: &mut u16, need: usize) -> Result<Room, Fault> {
        let merged_max = if self.view.options().mergeable { MERGED_MAX } else { 1 };
        let before = spread.chains.len();
        let mut len = 0;
        while len < need {
            let chains = spread.chains.len();
            if chains - before == merged_max
                || chains == usize::from(self.view.size())
                || spread.buffers.len() == BUFFERS_MAX
            {
                return Ok(Room::Never);
            }
            if chains == self.waiting {
                return Ok(Room::NotNow);
            }
            let Some(chain) = F::chain(self.view, *position)? else { return Ok(Room::NotNow) };
            *position = F::behind(self.view, *position, &chain);
            len += self.gather(chain, spread, need - len)?;
        }
        spread.places.push(Place { buffers: spread.buffers.len(), chains: spread.chains.len(), need });
        Ok(Room::Enough)
    }

    /// Adds `chain`, or as much of it as is needed. Says how many bytes that is.
    fn gather(&mut self, chain: Chain, spread: &mut Spread, need: usize) -> Result<usize, Fault> {
        let (mut len, mut writable) = (0, true);
        let mut visit = |buffer: Buffer, may_write: bool| {
            writable &= may_write;
            if !may_write {
                return false;
            }
            // Empty ones count too: a guest could post a whole ring of them, to be walked for every frame.
            len += buffer.len as usize;
            spread.buffers.push(buffer);
            len < need && spread.buffers.len() < BUFFERS_MAX
        };
        self.walker.walk(&chain, &mut visit)?;
        if !writable {
            return Err(Fault::NotWritable);
        }
        spread.chains.push((chain, len));
        Ok(len)
    }

    /// Gives back all chains that were gathered, filled one after the other.
    fn give_back_all(&mut self, spread: &Spread) {
        if F::IS_LOGGED {
            self.log_all(spread);
        }
        let mut first = 0;
        for place in &spread.places {
            let mut left = place.need;
            for (chain, len) in &spread.chains[first..place.chains] {
                let written = left.min(*len);
                self.give_back(chain, written);
                left -= written;
            }
            first = place.chains;
        }
        self.forget();
    }

    /// Takes note of what was written into the buffers that were gathered.
    fn log_all(&self, spread: &Spread) {
        let mut first = 0;
        for place in &spread.places {
            let mut left = place.need;
            for buffer in &spread.buffers[first..place.buffers] {
                let written = left.min(buffer.len as usize);
                F::wrote(self.view, buffer.start, written);
                left -= written;
            }
            first = place.buffers;
        }
    }

    /// Forgets what was looked up.
    fn forget(&mut self) {
        (self.found_count, self.found_next) = (0, 0);
    }

    fn finish(self, state: &mut RingState) {
        if self.used {
            state.next_avail = self.position;
            state.publish::<F>(self.view, self.run);
        }
    }
}

/// What one frame is spread over, or the segments that stand for it. A worker's memory, which never grows.
pub(crate) struct Spread {
    buffers: Vec<Buffer>,
    /// Chain, and bytes that were found in it. None is without a buffer.
    chains: Vec<(Chain, usize)>,
    /// By frame or segment.
    places: Vec<Place>,
}

/// Where the buffers and the chains of one frame end, behind those of the one before, and what it needs of them.
struct Place {
    buffers: usize,
    chains: usize,
    need: usize,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread {
            buffers: Vec::with_capacity(BUFFERS_MAX),
            chains: Vec::with_capacity(BUFFERS_MAX),
            places: Vec::with_capacity(SEGMENTS_MAX),
        }
    }
}

impl Spread {
    fn clear(&mut self) {
        self.buffers.clear();
        self.chains.clear();
        self.places.clear();
    }
}

/// The virtio-net header of a frame that is spread over `buffers` buffers. Of one that needs nothing it is all zero but
/// `num_buffers`, which follows the 10-byte form.
#[inline(always)]
fn net_header(offload: Option<&Offload>, buffers: u16) -> [u8; 12] {
    let [low, high] = buffers.to_le_bytes();
    offload.map_or([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high], |offload| offload.net_header(buffers))
}

const _: () = assert!(FRAME_LEN_MAX / 1024 < MERGED_MAX, "guests that post 1 KiB buffers get every frame");

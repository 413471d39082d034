//! The packed form of a virtqueue in the device role.
//!
//! Chains are given back in the order in which they came, so one place says both where the next chain is and where the
//! next used descriptor goes. A position is a [`Place`] in 16 bits.
//!
//! What a chain is, how many descriptors and which id, is decided once, by a look at the flags from its first descriptor
//! on; a walk of its buffers goes over just these descriptors, whatever their flags have become. An id is what gives the
//! chain back, and is believed for nothing else.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::super::format::{Chain, Format};
use super::super::view::{Descriptor, RingView};
use super::super::walk::CHAIN_MAX;
use super::super::{Fault, RingState};
use super::{Event, Place, Rest};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// See the module.
pub(crate) struct Packed;

/// Used chains from one place on. The first word of the run is held back: until it is written, the driver sees none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRun {
    pub(super) start: Place,
    pub(super) next: Place,
    /// Descriptors between the two.
    pub(super) slots: u32,
    /// What is to be written at the start.
    first: Rest,
    /// Some buffer was written.
    wrote: bool,
}

impl Format for Packed {
    type Run = PackedRun;

    const TABLES_ARE_SEQUENTIAL: bool = true;

    fn table_entry([addr, rest]: [u64; 2]) -> Descriptor {
        Rest(u64::from_le(rest)).descriptor(u64::from_le(addr))
    }

    /// A packed ring does not say how many.
    #[inline]
    fn waiting(view: &RingView, state: &RingState) -> Result<usize, Fault> {
        let place = Place::from_bits(state.next_avail);
        let rest = view.rest(place.index()).ok_or(Fault::DescriptorIndex)?;
        Ok(if rest.is(place.available()) { usize::from(view.size()) } else { 0 })
    }

    #[inline]
    fn chain(view: &RingView, position: u16) -> Result<Option<Chain>, Fault> {
        let place = Place::from_bits(position);
        let rest = view.rest(place.index()).ok_or(Fault::DescriptorIndex)?;
        if !rest.is(place.available()) {
            return Ok(None);
        }
        let first = descriptor(view, place.index(), rest)?;
        let (slots, id) =
            if first.flags & (NEXT | INDIRECT) == NEXT { end_of_chain(view, place)? } else { (1, rest.id()) };
        Ok(Some(Chain { id, slots, start: place.index(), first }))
    }

    #[inline]
    fn behind(view: &RingView, position: u16, chain: &Chain) -> u16 {
        let mut place = Place::from_bits(position);
        place.advance(chain.slots, view.size());
        place.bits()
    }

    fn follow(
        view: &RingView,
        chain: &Chain,
        place: &mut u16,
        _: &Descriptor,
    ) -> Result<Option<Descriptor>, Fault> {
        let after = |index, slots| {
            let mut place = Place::from_bits(index);
            place.advance(slots, view.size());
            place.index()
        };
        *place = after(*place, 1);
        if *place == after(chain.start, chain.slots) {
            return Ok(None);
        }
        let rest = view.rest(*place).ok_or(Fault::DescriptorIndex)?;
        descriptor(view, *place, rest).map(Some)
    }

    #[inline]
    fn run(state: &RingState) -> PackedRun {
        let start = Place::from_bits(state.next_avail);
        PackedRun { start, next: start, slots: 0, first: Rest(0), wrote: false }
    }

    /// With buffers used in order, one used descriptor in the name of the last chain stands for a run of them (virtio
    /// 1.2, 2.8.9); but buffers that were written must each say how far.
    #[inline]
    fn give_back(view: &RingView, run: &mut PackedRun, chain: &Chain, written: u32) {
        let write = if written > 0 { WRITE } else { 0 };
        let used = Rest::new(written, chain.id, run.next.used() | write);
        run.wrote |= written > 0;
        if run.slots == 0 {
            run.first = used;
        } else if view.options().in_order && !run.wrote {
            run.first = run.first.in_the_name_of(chain.id);
        } else {
            view.set_rest(run.next.index(), used);
        }
        run.next.advance(chain.slots, view.size());
        run.slots += u32::from(chain.slots);
    }

    #[inline]
    fn publish(view: &RingView, run: PackedRun, state: &mut RingState) -> bool {
        view.set_rest(run.start.index(), run.first);
        state.next_used = run.next.bits();
        view.wants_signal_packed(run.next, run.slots)
    }

    fn ask_for_kicks(view: &RingView, position: u16) {
        let place = Place::from_bits(position);
        view.set_device_event(if view.options().event_idx { Event::At(place) } else { Event::Always });
    }

    fn ask_for_silence(view: &RingView, _: u16) {
        view.set_device_event(Event::Never);
    }
}

/// Descriptor `index`, whose second word has been read.
#[inline]
fn descriptor(view: &RingView, index: u16, rest: Rest) -> Result<Descriptor, Fault> {
    Ok(rest.descriptor(view.address(index).ok_or(Fault::DescriptorIndex)?))
}

/// How many descriptors a chain of several has, and its id, which its last one tells.
fn end_of_chain(view: &RingView, first: Place) -> Result<(u16, u16), Fault> {
    let mut place = first;
    for slots in 2..=view.size().min(CHAIN_MAX) {
        place.advance(1, view.size());
        let rest = view.rest(place.index()).ok_or(Fault::DescriptorIndex)?;
        // The driver makes the first one available last, so this is no chain that is still growing.
        if !rest.is(place.available()) {
            return Err(Fault::NotAvailable);
        }
        if rest.flags() & NEXT == 0 {
            return Ok((slots, rest.id()));
        }
    }
    Err(Fault::ChainLength)
}

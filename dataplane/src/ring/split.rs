//! The split form of a virtqueue (virtio 1.2, 2.7). Positions run free over 16 bits; a ring's size is a power of two.

use virtio_bindings::virtio_ring::VRING_DESC_F_NEXT;

use super::format::{Chain, Format};
use super::logged::Loggable;
use super::view::{Descriptor, RingView};
use super::{Fault, Position, RingState};

/// See the module.
pub(crate) struct Split;

/// Used chains, by the next place of the used ring to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitRun {
    position: Position,
}

impl Format for Split {
    type Run = SplitRun;

    const TABLES_ARE_SEQUENTIAL: bool = false;

    fn table_entry(words: [u64; 2]) -> Descriptor {
        Descriptor::from_words(words)
    }

    #[inline]
    fn waiting(view: &RingView, state: &RingState) -> Result<usize, Fault> {
        let waiting = view.avail_index().wrapping_sub(state.next_avail);
        if waiting > view.size() { Err(Fault::IndexJump) } else { Ok(usize::from(waiting)) }
    }

    #[inline]
    fn chain(view: &RingView, position: u16) -> Result<Option<Chain>, Fault> {
        let id = view.avail_entry(position);
        let first = view.descriptor(id).ok_or(Fault::DescriptorIndex)?;
        Ok(Some(Chain { id, slots: 1, start: id, first }))
    }

    #[inline]
    fn behind(_: &RingView, position: u16, _: &Chain) -> u16 {
        position.wrapping_add(1)
    }

    #[inline]
    fn follow(
        view: &RingView,
        _: &Chain,
        _: &mut u16,
        descriptor: &Descriptor,
    ) -> Result<Option<Descriptor>, Fault> {
        if descriptor.flags & VRING_DESC_F_NEXT as u16 == 0 {
            return Ok(None);
        }
        view.descriptor(descriptor.next).map(Some).ok_or(Fault::DescriptorIndex)
    }

    #[inline]
    fn run(state: &RingState) -> SplitRun {
        SplitRun { position: Position::at(state.next_used) }
    }

    #[inline]
    fn give_back(view: &RingView, run: &mut SplitRun, chain: &Chain, written: u32) {
        view.set_used(run.position.get(), chain.id, written);
        run.position.advance();
    }

    #[inline]
    fn publish(view: &RingView, run: SplitRun, state: &mut RingState) -> bool {
        let position = run.position.get();
        state.next_used = position;
        view.publish_used(position);
        let old = std::mem::replace(&mut state.signalled, position);
        view.wants_signal(old, position)
    }

    fn ask_for_kicks(view: &RingView, position: u16) {
        view.ask_for_kicks(position);
    }

    fn ask_for_silence(view: &RingView, position: u16) {
        view.ask_for_silence(position);
    }
}

impl Loggable for Split {
    fn log_run(view: &RingView, run: &SplitRun, state: &RingState) {
        let count = run.position.get().wrapping_sub(state.next_used);
        view.log_used_entries(state.next_used, count);
    }

    fn log_published(view: &RingView, _: &SplitRun) {
        view.log_used_index();
    }

    fn log_wish(view: &RingView) {
        view.log_used_wish();
    }
}

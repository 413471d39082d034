//! The packed form of a ring whose place outlives this process ([`RingJournal`]).

use super::super::format::{Chain, Format};
use super::super::journal::RingJournal;
use super::super::logged::Loggable;
use super::super::view::{Descriptor, RingView};
use super::super::{Fault, RingState};
use super::device::{Packed, PackedRun};
use super::{Place, Rest};

/// As [`Packed`], and says in the view's journal what it does.
pub(crate) struct JournalledPacked;

impl Format for JournalledPacked {
    type Run = PackedRun;

    const TABLES_ARE_SEQUENTIAL: bool = Packed::TABLES_ARE_SEQUENTIAL;

    fn table_entry(words: [u64; 2]) -> Descriptor {
        Packed::table_entry(words)
    }

    #[inline]
    fn waiting(view: &RingView, state: &RingState) -> Result<usize, Fault> {
        Packed::waiting(view, state)
    }

    #[inline]
    fn chain(view: &RingView, position: u16) -> Result<Option<Chain>, Fault> {
        Packed::chain(view, position)
    }

    #[inline]
    fn behind(view: &RingView, position: u16, chain: &Chain) -> u16 {
        Packed::behind(view, position, chain)
    }

    fn follow(
        view: &RingView,
        chain: &Chain,
        place: &mut u16,
        descriptor: &Descriptor,
    ) -> Result<Option<Descriptor>, Fault> {
        Packed::follow(view, chain, place, descriptor)
    }

    #[inline]
    fn run(state: &RingState) -> PackedRun {
        Packed::run(state)
    }

    /// The first of a run is written over when the run is let go, and then it need not be put back.
    #[inline]
    fn give_back(view: &RingView, run: &mut PackedRun, chain: &Chain, written: u32) {
        if let (Some(journal), 1..) = (view.journal(), run.slots) {
            journal.keep(run.next.index(), Rest::new(chain.first.len, chain.id, chain.first.flags));
        }
        Packed::give_back(view, run, chain, written);
    }

    #[inline]
    fn publish(view: &RingView, run: PackedRun, state: &mut RingState) -> bool {
        if let Some(journal) = view.journal() {
            journal.intend(run.start, run.next);
        }
        let tell = Packed::publish(view, run, state);
        if let Some(journal) = view.journal() {
            journal.stand_at(run.next);
        }
        tell
    }

    fn ask_for_kicks(view: &RingView, position: u16) {
        Packed::ask_for_kicks(view, position);
    }

    fn ask_for_silence(view: &RingView, position: u16) {
        Packed::ask_for_silence(view, position);
    }
}

impl Loggable for JournalledPacked {
    fn log_run(view: &RingView, run: &PackedRun, _: &RingState) {
        view.log_descriptors(run.start.index(), run.slots);
    }

    fn log_published(view: &RingView, run: &PackedRun) {
        view.log_descriptors(run.start.index(), 1);
    }

    fn log_wish(view: &RingView) {
        view.log_device_event();
    }
}

/// Where a packed ring goes on after whoever had it was killed: see [`super::super::journal`]. `None`: the journal says
/// nothing that can be.
pub(in crate::ring) fn resume(view: &RingView, journal: &RingJournal) -> Option<Place> {
    let (before, next) = journal.is_begun().then(|| journal.places())??;
    if before != next && !view.rest(before.index())?.is(before.available()) {
        return Some(next);
    }
    put_back(view, journal, before);
    Some(before)
}

/// Puts back what a run from `start` on wrote over. The driver has not looked at it: to its eyes the run's first descriptor
/// is not used. What was not written over has the flags of another round.
fn put_back(view: &RingView, journal: &RingJournal, start: Place) {
    let mut place = start;
    for _ in 1..view.size() {
        place.advance(1, view.size());
        let index = place.index();
        if view.rest(index).is_some_and(|rest| rest.is(place.used()))
            && let Some(kept) = journal.kept(index).filter(|kept| kept.is(place.available()))
        {
            view.set_rest(index, kept);
        }
    }
}

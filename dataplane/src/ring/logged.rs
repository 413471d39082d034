//! A form of a virtqueue whose writes are logged: the form itself, and behind each of its writes the log.
//!
//! Everything of the ring engine is compiled for this once more, so that a ring that is not logged has no instruction of
//! it. The order of a burst: buffers are written and logged, used entries are written and logged, the guest is shown them,
//! and the one word that shows them is logged. So all that a guest was shown is in the log, but for that word, if we die
//! in between.

use std::marker::PhantomData;

use super::format::{Chain, Format};
use super::view::{Descriptor, RingView};
use super::{Fault, RingState, signal::signal};

/// See the module.
pub(crate) struct Logged<F>(PhantomData<F>);

/// A form that says where it writes.
pub(crate) trait Loggable: Format {
    /// Logs a run that is about to be published.
    fn log_run(view: &RingView, run: &Self::Run, state: &RingState);

    /// Logs the word that published it.
    fn log_published(view: &RingView, run: &Self::Run);

    /// Logs the word that tells the guest when to kick.
    fn log_wish(view: &RingView);
}

impl<F: Loggable> Format for Logged<F> {
    type Run = F::Run;

    const TABLES_ARE_SEQUENTIAL: bool = F::TABLES_ARE_SEQUENTIAL;
    const IS_LOGGED: bool = true;

    fn table_entry(words: [u64; 2]) -> Descriptor {
        F::table_entry(words)
    }

    #[inline]
    fn waiting(view: &RingView, state: &RingState) -> Result<usize, Fault> {
        F::waiting(view, state)
    }

    #[inline]
    fn chain(view: &RingView, position: u16) -> Result<Option<Chain>, Fault> {
        F::chain(view, position)
    }

    #[inline]
    fn behind(view: &RingView, position: u16, chain: &Chain) -> u16 {
        F::behind(view, position, chain)
    }

    #[inline]
    fn follow(
        view: &RingView,
        chain: &Chain,
        place: &mut u16,
        descriptor: &Descriptor,
    ) -> Result<Option<Descriptor>, Fault> {
        F::follow(view, chain, place, descriptor)
    }

    #[inline]
    fn wrote(view: &RingView, start: *mut u8, len: usize) {
        view.log_buffer(start, len);
    }

    #[inline]
    fn run(state: &RingState) -> F::Run {
        F::run(state)
    }

    #[inline]
    fn give_back(view: &RingView, run: &mut F::Run, chain: &Chain, written: u32) {
        F::give_back(view, run, chain, written);
    }

    fn publish(view: &RingView, run: F::Run, state: &mut RingState) -> bool {
        F::log_run(view, &run, state);
        let wants_signal = F::publish(view, run, state);
        F::log_published(view, &run);
        // Here and not where it was found: what came before is served, and the ring is marked once.
        if view.log_was_too_short() {
            state.fail(view, Fault::LogEnd);
        }
        if view.log_bell().is_some_and(|bell| signal(bell).is_err()) {
            state.fail(view, Fault::Jammed);
        }
        wants_signal
    }

    fn ask_for_kicks(view: &RingView, position: u16) {
        F::ask_for_kicks(view, position);
        F::log_wish(view);
    }

    fn ask_for_silence(view: &RingView, position: u16) {
        F::ask_for_silence(view, position);
        F::log_wish(view);
    }
}

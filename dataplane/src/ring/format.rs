//! What the two forms of a virtqueue do differently, seen from the device: where the next chain is, and how one is given
//! back. [`super::ingress`] and [`super::egress`] are written once over this, and compiled for each form.

use super::view::{Descriptor, RingView};
use super::{Fault, RingState};

/// A chain of descriptors that the guest made available, its first descriptor copied out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chain {
    /// What gives it back: the head's index, or the buffer id.
    pub id: u16,
    /// Descriptors of the ring that it takes; 1 in a split ring, where it takes one entry.
    pub slots: u16,
    /// Where it begins: for whoever walks it.
    pub start: u16,
    /// Its first descriptor.
    pub first: Descriptor,
}

/// One form of a virtqueue. Positions are as [`RingState`] keeps them.
pub(crate) trait Format: Send + Sync + Sized + 'static {
    /// The used chains that one call writes and publishes together.
    type Run: Copy;

    /// Entries of an indirect table follow one another, whatever their `next` says.
    const TABLES_ARE_SEQUENTIAL: bool;

    /// What is written is logged, for whoever migrates the guest.
    const IS_LOGGED: bool = false;

    /// An entry of an indirect table, from the two words that it is made of.
    fn table_entry(words: [u64; 2]) -> Descriptor;

    /// How many chains wait, at most; 0 only if none does. A lie about it breaks the ring.
    fn waiting(view: &RingView, state: &RingState) -> Result<usize, Fault>;

    /// The chain at `position`, of those that [`Self::waiting`] counted; `None`: there is none after all.
    fn chain(view: &RingView, position: u16) -> Result<Option<Chain>, Fault>;

    /// The position behind `chain`, which is at `position`.
    fn behind(view: &RingView, position: u16, chain: &Chain) -> u16;

    /// The descriptor after `descriptor`, which is at `place` of the chain (its start, to begin with); moves `place`
    /// there. `None`: the chain has ended.
    fn follow(
        view: &RingView,
        chain: &Chain,
        place: &mut u16,
        descriptor: &Descriptor,
    ) -> Result<Option<Descriptor>, Fault>;

    /// Takes note that `len` bytes of a buffer, from `start` on, have been written.
    #[inline(always)]
    fn wrote(_: &RingView, _start: *mut u8, _len: usize) {}

    /// Begins a run of used chains.
    fn run(state: &RingState) -> Self::Run;

    /// Adds a chain of which `written` bytes were written to the run. The guest does not see it yet.
    fn give_back(view: &RingView, run: &mut Self::Run, chain: &Chain, written: u32);

    /// Lets the guest see the run. Whether it wants to be told.
    fn publish(view: &RingView, run: Self::Run, state: &mut RingState) -> bool;

    /// Asks the guest to kick when it makes the chain at `position` available.
    fn ask_for_kicks(view: &RingView, position: u16);

    /// Tells the guest that kicks are not needed; a hint.
    fn ask_for_silence(view: &RingView, position: u16);
}

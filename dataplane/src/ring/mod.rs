//! Virtqueues, split and packed (virtio 1.2, 2.7 and 2.8), over raw memory, in the device role: our end of a guest's
//! rings; and in the driver role ([`DriverRing`]), for the guests that are built in.
//!
//! Two things make a ring. A [`RingView`] says where it lies and what was negotiated; it is immutable, and a change of
//! anything in it makes a new view. A [`Ring`] holds the positions and survives views. An [`ingress`] reads a guest's
//! transmit ring, an [`egress`] fills its receive ring; both take the ring's lock once a burst.
//!
//! The guest is hostile: each word it writes is read once into a local, checked, and then used. What breaks the rules of
//! the specification breaks that ring and nothing else ([`Fault`]).

/// `$then`, compiled for each form of a ring, where `$form` is the one that `$view` has. One that is logged pays for its
/// journal whether it has one or not.
macro_rules! with_form {
    ($view:expr, $form:ident => $then:expr) => {
        match ($view.options().packed, $view.is_logged(), $view.journal().is_some()) {
            (false, false, _) => {
                type $form = Split;
                $then
            }
            (true, false, false) => {
                type $form = Packed;
                $then
            }
            (true, false, true) => {
                type $form = JournalledPacked;
                $then
            }
            (false, true, _) => {
                type $form = Logged<Split>;
                $then
            }
            (true, true, _) => {
                type $form = Logged<JournalledPacked>;
                $then
            }
        }
    };
}

mod control;
mod driver;
mod driver_memory;
mod egress;
mod format;
mod gathering;
mod guard;
mod ingress;
mod journal;
mod log;
mod logged;
mod memory;
mod packed;
mod reverse;
mod signal;
mod span;
mod split;
mod view;
mod walk;
mod writer;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::port::{Doorbell, Egress, Ingress};

pub use control::{COMMAND_MAX, Command, ControlRing};
pub use driver::{
    DeviceFault, DeviceQueue, DriverEgress, DriverIngress, DriverOptions, DriverRing, MERGED_MAX, Part,
    SEND_BUFFER_LEN_MIN, Used,
};
pub use driver_memory::DriverMemory;
use egress::RingEgress;
pub(crate) use egress::Spread;
use format::Format;
pub use guard::GUARDS_MAX;
use ingress::RingIngress;
pub use journal::RingJournal;
pub use log::{DirtyLog, LOG_PAGE, RingLogging};
use logged::Logged;
pub use memory::{Mapping, MemoryError, MemoryTable, REGIONS_MAX, Region};
use packed::{JournalledPacked, Packed, Place};
pub(crate) use signal::start_watchdog;
use split::Split;
pub use view::{Call, RingError, RingLayout, RingOptions, RingSignals, RingView};
pub(crate) use walk::{Lookahead, lookahead};

/// Entries of a ring, at most (virtio 1.2, 2.7: 2^15).
pub const RING_SIZE_MAX: u16 = 1 << 15;

/// A position in a ring, kept in four bytes. Were it kept in two, the compiler would load two of them that lie side by
/// side, or one with its padding, at once; and a load that is wider than the last store to its bytes waits until that
/// store has left the core, behind all stores to the other core's memory. One such load a frame was two thirds of the
/// time of a send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position(u32);

impl Position {
    #[inline]
    pub(crate) fn at(position: u16) -> Position {
        Position(position.into())
    }

    #[inline]
    pub(crate) fn get(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    pub(crate) fn advance(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }
}

/// Whether a ring may have `size` entries: a power of two up to [`RING_SIZE_MAX`], or any number if it is packed.
pub fn is_ring_size(size: u16, packed: bool) -> bool {
    let whole = if packed { size > 0 } else { size.is_power_of_two() };
    whole && size <= RING_SIZE_MAX
}

/// What a guest did to lose its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The available index moved by more than the ring's size.
    IndexJump,
    /// A head in the available ring, or a `next`, is not less than the ring's size.
    DescriptorIndex,
    /// A buffer is not in guest memory, or wraps.
    Address,
    /// A chain has more descriptors than the ring, or than 1,024, or loops.
    ChainLength,
    /// An indirect table is empty, no multiple of 16 bytes, larger than a chain may be, nested, followed by a next
    /// descriptor, or was never negotiated.
    Indirect,
    /// A receive buffer is not device-writable.
    NotWritable,
    /// A chain of a packed ring runs on over descriptors that are not available.
    NotAvailable,
    /// A buffer was written that is past the end of the dirty log.
    LogEnd,
    /// The front end made the call eventfd blocking and kept it full.
    Jammed,
    /// Not the guest's doing: a mistake of ours ended a poll of the ring.
    Panicked,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::IndexJump => "available index jumped by more than the ring size",
            Fault::DescriptorIndex => "descriptor index out of range",
            Fault::Address => "buffer outside guest memory",
            Fault::ChainLength => "descriptor chain too long",
            Fault::Indirect => "bad indirect table",
            Fault::NotWritable => "receive buffer not writable",
            Fault::NotAvailable => "descriptor chain runs on over descriptors that are not available",
            Fault::LogEnd => "buffer past the end of the dirty log",
            Fault::Jammed => "call eventfd made blocking and kept full",
            Fault::Panicked => "a mistake in the switch",
        })
    }
}

/// The positions of one ring. Shared by the workers that serve it, one burst at a time; once the grace period has ended
/// for the last snapshot that had it, it is the stopping thread's.
#[derive(Default)]
pub struct Ring {
    state: Mutex<RingState>,
}

/// What moves in a ring. Written by the holder of the lock only.
#[derive(Default)]
pub(crate) struct RingState {
    /// The next entry of the available ring to look at; of a packed ring, the bits of a [`Place`].
    next_avail: u16,
    /// The next entry of the used ring to write; also what the used index says. Of a packed ring, the same as
    /// `next_avail`: what comes first goes first.
    next_used: u16,
    /// The used index that the last decision to signal was made for (virtio 1.2, 2.7.7.1).
    signalled: u16,
    /// Chains after `next_avail` that are settled before an earlier one: bit k for the chain k places on.
    settled_ahead: u64,
    /// Set once, when the guest broke the rules, or we did.
    fault: Option<Fault>,
}

impl Ring {
    /// The ring of `view` about to start at `base`, as [`Self::base`] said when it stopped; `None`: from its beginning.
    ///
    /// Errors: [`RingError::Position`].
    pub fn start(view: &RingView, base: Option<u16>) -> Result<Ring, RingError> {
        if !view.options().packed {
            if let Some(journal) = view.journal() {
                journal.begin(Place::START);
            }
            return Ok(Ring::new(base.unwrap_or(0), view.used_index()));
        }
        let mut place = base.map_or(Place::START, Place::from_bits);
        if place.index() >= view.size() {
            return Err(RingError::Position);
        }
        // User Mode Linux means the beginning and says 0, which is the first descriptor with the wrap counter turned over.
        // Whoever really is there has used some descriptor in the round before: not the first, if a chain lay over it.
        let was_used = |index| view.rest(index).is_some_and(|rest| rest.was_used());
        if place == Place::FIRST_TURNED && !(0..view.size()).any(was_used) {
            place = Place::START;
        }
        if let Some(journal) = view.journal() {
            journal.begin(place);
        }
        Ok(Ring::new(place.bits(), place.bits()))
    }

    /// The ring of `view` in place of one that was not stopped, but whose process was killed: what it had not given back
    /// comes again. A split ring goes on at its used index, `skew` entries of the available ring ahead of it; a packed one
    /// where its journal says.
    ///
    /// Errors: [`RingError::Position`]: the journal says nothing of this ring.
    pub fn resume(view: &RingView, skew: u16) -> Result<Ring, RingError> {
        let ring = if view.options().packed {
            let place = view.journal().and_then(|journal| packed::resume(view, journal));
            let place = place.ok_or(RingError::Position)?;
            if let Some(journal) = view.journal() {
                journal.stand_at(place);
            }
            Ring::new(place.bits(), place.bits())
        } else {
            let used = view.used_index();
            Ring::new(used.wrapping_add(skew), used)
        };
        view.log_ring();
        Ok(ring)
    }

    /// How far a split ring's place in the available ring is ahead of that in the used one; the same as long as it runs.
    pub fn skew(&self) -> u16 {
        let state = self.lock();
        state.next_avail.wrapping_sub(state.next_used)
    }

    /// Whether the ring stands at its beginning: nothing was ever used.
    pub fn is_at_beginning(&self, view: &RingView) -> bool {
        let beginning = if view.options().packed { Place::START.bits() } else { 0 };
        let state = self.lock();
        (state.next_avail, state.next_used) == (beginning, beginning)
    }

    fn new(base: u16, used: u16) -> Ring {
        let state =
            RingState { next_avail: base, next_used: used, signalled: used, settled_ahead: 0, fault: None };
        Ring { state: Mutex::new(state) }
    }

    /// The next available entry that has not been processed; of a packed ring the next descriptor, with the wrap counter
    /// in bit 15.
    pub fn base(&self) -> u16 {
        self.lock().next_avail
    }

    /// Gives back, as used, the chains whose frames were held while later ones were settled, so that no chain from
    /// [`Self::base`] on has been forwarded. Returns how many; their frames are dropped. Only for the thread that stopped
    /// the ring, whose last view this is, after the grace period.
    pub fn settle(&self, view: &RingView) -> u64 {
        with_form!(view, F => self.settle_as::<F>(view))
    }

    fn settle_as<F: Format>(&self, view: &RingView) -> u64 {
        let mut state = self.lock();
        let settled = std::mem::take(&mut state.settled_ahead);
        let mut held = 0;
        let (mut run, mut position) = (F::run(&state), state.next_avail);
        for place in 0..u64::BITS - settled.leading_zeros() {
            // They were all there when the ring was polled; a guest that took one back meanwhile harms itself.
            let Ok(Some(chain)) = F::chain(view, position) else { break };
            position = F::behind(view, position, &chain);
            F::give_back(view, &mut run, &chain, 0);
            held += u64::from(settled >> place & 1 == 0);
        }
        if position != state.next_avail {
            state.next_avail = position;
            state.publish::<F>(view, run);
        }
        held
    }

    /// Why the ring is broken, if it is.
    pub fn fault(&self) -> Option<Fault> {
        self.lock().fault
    }

    /// A worker that panicked left whole numbers behind; the ring goes on from them.
    fn lock(&self) -> MutexGuard<'_, RingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RingState {
    /// Marks the ring broken and tells the front end and the driver.
    #[cold]
    fn fail(&mut self, view: &RingView, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            view.report_fault();
        }
    }

    /// How many chains wait, at most; 0 for a ring that is broken, or is found to be.
    #[inline]
    fn waiting<F: Format>(&mut self, view: &RingView) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        F::waiting(view, self).unwrap_or_else(|fault| {
            self.fail(view, fault);
            0
        })
    }

    /// Publishes a run of used chains and signals the guest if it asked to be.
    #[inline]
    fn publish<F: Format>(&mut self, view: &RingView, run: F::Run) {
        if F::publish(view, run, self) && view.signal().is_err() {
            self.fail(view, Fault::Jammed);
        }
    }
}

/// The device's end of a guest's transmit ring, queue `queue` of its port. `kick` is a non-blocking eventfd, or `None`
/// when the guest never kicks.
pub fn ingress(view: Arc<RingView>, ring: Arc<Ring>, queue: u16, kick: Option<Arc<OwnedFd>>) -> RingEnd {
    with_form!(view, F => RingEnd::new(Arc::new(RingIngress::<F>::new(view, ring, queue, kick))))
}

/// The device's end of a guest's receive ring.
pub fn egress(view: Arc<RingView>, ring: Arc<Ring>) -> Arc<dyn Egress> {
    with_form!(view, F => Arc::new(RingEgress::<F>::new(view, ring)))
}

/// The two faces of a ring's ingress.
#[derive(Clone)]
pub struct RingEnd {
    /// The frames.
    pub ingress: Arc<dyn Ingress>,
    /// The notification.
    pub doorbell: Arc<dyn Doorbell>,
}

impl RingEnd {
    fn new(end: Arc<impl Ingress + Doorbell + 'static>) -> RingEnd {
        RingEnd { ingress: end.clone(), doorbell: end }
    }
}

#[cfg(all(test, loom))]
#[allow(unsafe_code)] // loom's cells
mod model;
#[cfg(test)]
mod tests;

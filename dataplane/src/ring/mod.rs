//! Split virtqueues (virtio 1.2, 2.7) over raw memory, in the device role: our end of a guest's rings; and in the driver
//! role ([`DriverRing`]), for the guests that are built in.
//!
//! Two things make a ring. A [`RingView`] says where it lies and what was negotiated; it is immutable, and a change of
//! anything in it makes a new view. A [`Ring`] holds the positions and survives views. [`RingIngress`] reads a guest's
//! transmit ring, [`RingEgress`] fills its receive ring; both take the ring's lock once a burst.
//!
//! The guest is hostile: each word it writes is read once into a local, checked, and then used. What breaks the rules of
//! the specification breaks that ring and nothing else ([`Fault`]).

mod driver;
mod driver_memory;
mod egress;
mod guard;
mod ingress;
mod memory;
mod signal;
mod view;
mod walk;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use driver::{DeviceFault, DriverOptions, DriverRing, Part, Used};
pub use driver_memory::DriverMemory;
pub use egress::RingEgress;
pub(crate) use egress::Spread;
pub use guard::GUARDS_MAX;
pub use ingress::RingIngress;
pub use memory::{Mapping, MemoryError, MemoryTable, REGIONS_MAX, Region};
pub(crate) use signal::start_watchdog;
pub use view::{RingError, RingLayout, RingOptions, RingSignals, RingView};

/// Entries of a ring, at most (virtio 1.2, 2.7: 2^15).
pub const RING_SIZE_MAX: u16 = 1 << 15;

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
            Fault::Jammed => "call eventfd made blocking and kept full",
            Fault::Panicked => "a mistake in the switch",
        })
    }
}

/// The positions of one ring. Shared by the workers that serve it, one burst at a time; once the grace period has ended
/// for the last snapshot that had it, it is the stopping thread's.
pub struct Ring {
    state: Mutex<RingState>,
}

/// What moves in a ring. Written by the holder of the lock only.
pub(crate) struct RingState {
    /// The next entry of the available ring to look at.
    next_avail: u16,
    /// The next entry of the used ring to write; also what the used index says.
    next_used: u16,
    /// The used index that the last decision to signal was made for (virtio 1.2, 2.7.7.1).
    signalled: u16,
    /// Chains after `next_avail` that are settled before an earlier one: bit k for the chain k places on.
    settled_ahead: u64,
    /// Set once, when the guest broke the rules, or we did.
    fault: Option<Fault>,
}

impl Ring {
    /// A ring about to start at `base`, the next available entry to process, whose used index stands at `used`.
    pub fn new(base: u16, used: u16) -> Ring {
        let state =
            RingState { next_avail: base, next_used: used, signalled: used, settled_ahead: 0, fault: None };
        Ring { state: Mutex::new(state) }
    }

    /// The next available entry that has not been processed: what GET_VRING_BASE answers.
    pub fn base(&self) -> u16 {
        self.lock().next_avail
    }

    /// Gives back, as used, the chains whose frames were held while later ones were settled, so that no chain from
    /// [`Self::base`] on has been forwarded. Returns how many; their frames are dropped. Only for the thread that stopped
    /// the ring, whose last view this is, after the grace period.
    pub fn settle(&self, view: &RingView) -> u64 {
        let mut state = self.lock();
        let chains = u64::BITS - state.settled_ahead.leading_zeros();
        let held = chains - state.settled_ahead.count_ones();
        for _ in 0..chains {
            let head = view.avail_entry(state.next_avail);
            view.set_used(state.next_used, head, 0);
            state.next_avail = state.next_avail.wrapping_add(1);
            state.next_used = state.next_used.wrapping_add(1);
        }
        state.settled_ahead = 0;
        if chains > 0 {
            state.publish(view);
        }
        u64::from(held)
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

    /// How many entries wait in the available ring; a jump breaks the ring.
    #[inline]
    fn pending(&mut self, view: &RingView) -> u16 {
        if self.fault.is_some() {
            return 0;
        }
        let pending = view.avail_index().wrapping_sub(self.next_avail);
        if pending > view.size() {
            self.fail(view, Fault::IndexJump);
            return 0;
        }
        pending
    }

    /// Publishes the used index up to `next_used` and signals the guest if it asked to be.
    #[inline]
    fn publish(&mut self, view: &RingView) {
        view.publish_used(self.next_used);
        let old = std::mem::replace(&mut self.signalled, self.next_used);
        if view.wants_signal(old, self.next_used) && view.signal().is_err() {
            self.fail(view, Fault::Jammed);
        }
    }
}

#[cfg(test)]
mod tests;

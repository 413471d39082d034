//! Split virtqueues (virtio 1.2, 2.7) over raw memory, in the device role: our end of a guest's rings; and in the driver
//! role ([`DriverRing`]), for the guests that are built in.
//!
//! Two things make a ring. A [`RingView`] says where it lies and what was negotiated; it is immutable, and a change of
//! anything in it makes a new view. A [`Ring`] holds the positions and survives views. An [`ingress`] reads a guest's
//! transmit ring, an [`egress`] fills its receive ring; both take the ring's lock once a burst.
//!
//! The guest is hostile: each word it writes is read once into a local, checked, and then used. What breaks the rules of
//! the specification breaks that ring and nothing else ([`Fault`]).

mod driver;
mod driver_memory;
mod egress;
mod format;
mod guard;
mod ingress;
mod memory;
mod packed;
mod signal;
mod split;
mod view;
mod walk;
mod writer;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::port::{Doorbell, Egress, Ingress};

pub use driver::{DeviceFault, DriverOptions, DriverRing, Part, Used};
pub use driver_memory::DriverMemory;
use egress::RingEgress;
pub(crate) use egress::Spread;
use format::{Format, Run};
pub use guard::GUARDS_MAX;
use ingress::RingIngress;
pub use memory::{Mapping, MemoryError, MemoryTable, REGIONS_MAX, Region};
pub(crate) use signal::start_watchdog;
use split::Split;
pub use view::{RingError, RingLayout, RingOptions, RingSignals, RingView};
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
    /// Set once, when the guest broke the rules.
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
    fn publish<F: Format>(&mut self, view: &RingView, run: Run) {
        if F::publish(view, run, self) && view.signal().is_err() {
            self.fail(view, Fault::Jammed);
        }
    }
}

/// The device's end of a guest's transmit ring, queue `queue` of its port. `kick` is a non-blocking eventfd, or `None`
/// when the guest never kicks.
pub fn ingress(view: Arc<RingView>, ring: Arc<Ring>, queue: u16, kick: Option<Arc<OwnedFd>>) -> RingEnd {
    RingEnd::new(Arc::new(RingIngress::<Split>::new(view, ring, queue, kick)))
}

/// The device's end of a guest's receive ring.
pub fn egress(view: Arc<RingView>, ring: Arc<Ring>) -> Arc<dyn Egress> {
    Arc::new(RingEgress::<Split>::new(view, ring))
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

#[cfg(test)]
mod tests;

//! What a driver gives to the switch: ingresses, egresses, and how to be told that an ingress has work.
//!
//! The two hot traits have one method each, called once a burst. [`Doorbell`] is the cold companion of an ingress that
//! lets its worker stop polling it. Each implementation guards its own mutable state by a lock taken once a burst; so
//! the snapshot may hand an ingress from worker to worker in one publish, and the order of its frames stays.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::drops::DropReason;
use crate::frame::{Burst, BurstScratch, Taken};
use crate::ring::{Lookahead, Ring, Spread, lookahead};

/// What one call did, besides what it returned. The worker adds it to the port's counters and clears it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames sent (egress).
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Segments that were made of frames among these, for a receiver that does not take them whole.
    pub segments: u64,
    /// Frames given up, by reason.
    pub drops: [u64; DropReason::COUNT],
}

impl Tally {
    /// Counts one drop.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Frames given up for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// A worker's memory for polls: one an ingress at a time.
pub struct IngressScratch {
    /// Where the burst is built.
    pub burst: BurstScratch,
    /// Frames that the ingress itself gave up before lending them; `frames` and `bytes` stay 0.
    pub tally: Tally,
    /// Where a ring keeps the chains that it has looked up.
    pub(crate) lookahead: Lookahead,
}

impl Default for IngressScratch {
    fn default() -> IngressScratch {
        IngressScratch { burst: BurstScratch::default(), tally: Tally::default(), lookahead: lookahead() }
    }
}

/// A worker's memory for sends.
pub struct EgressScratch {
    /// What was sent, and what was given up for good.
    pub tally: Tally,
    /// Where a ring collects the buffers that one frame needs.
    pub(crate) spread: Spread,
    /// Where a ring keeps the chains that it has looked up.
    pub(crate) lookahead: Lookahead,
}

impl Default for EgressScratch {
    fn default() -> EgressScratch {
        EgressScratch { tally: Tally::default(), spread: Spread::default(), lookahead: lookahead() }
    }
}

/// Frames into the switch.
pub trait Ingress: Send + Sync {
    /// Lends waiting frames to `forward` in one call; their memory goes back to its owner when it returns, except what
    /// [`Taken`] leaves unsettled, which the next poll lends again. Frames that are not fit to be lent are counted in
    /// `scratch.tally`. Returns how many frames left the sender, lent and settled or given up; 0 means idle.
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize;
}

/// Frames out of the switch.
pub trait Egress: Send + Sync {
    /// Sends the picked frames of `burst` in order and returns how many of `picks` are settled: sent, or given up for
    /// good and counted in `scratch.tally.drops`. For the rest there was no room. Sent frames and their bytes are added
    /// to `scratch.tally`. Never blocks, never fails.
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize;
}

/// What an idle ingress is from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arming {
    /// There is work already; nothing was armed.
    Work,
    /// Idle: its descriptor becomes readable when there is work.
    Quiet,
    /// There will be no work any more: the guest broke its ring, or the device is gone.
    Dead,
}

/// Lets the worker leave an idle ingress alone until there is work.
pub trait Doorbell: Send + Sync {
    /// Becomes readable when there may be work. `None`: the peer never tells, so the ingress is polled for ever.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Forgets old rings, asks to be told of the next frame, and looks once more.
    fn arm(&self) -> Arming;

    /// The worker polls again: telling is not needed.
    fn disarm(&self);

    /// A poll of the ingress panicked, and it will not be polled again: whoever looks after it should know.
    fn fail(&self) {}
}

/// One ingress with its doorbell: what a worker's duty is made of. Its identity (the `Arc`) is the duty's.
pub struct IngressEnd {
    /// The queue of the port, from 0.
    pub queue: u16,
    /// The frames.
    pub ingress: Arc<dyn Ingress>,
    /// The notification.
    pub doorbell: Arc<dyn Doorbell>,
    /// Microseconds without a frame after which the duty parks; 0 parks it at the first empty poll.
    pub linger_us: u32,
    /// Set when frames are to be consumed and counted, not forwarded: a virtqueue that is started but not enabled.
    pub discard: Option<DropReason>,
}

/// What stands in a queue pair of a virtio port, for the statistics.
#[derive(Clone, Default)]
pub struct QueueRings {
    /// The guest's transmit ring, once started.
    pub ingress: Option<Arc<Ring>>,
    /// The guest's receive ring, once started.
    pub egress: Option<Arc<Ring>>,
    /// Whether the front end enabled the ingress.
    pub ingress_enabled: bool,
    /// Whether the front end enabled the egress.
    pub egress_enabled: bool,
}

/// All that a port gives to the data plane at one time. A driver replaces it as a whole.
#[derive(Clone, Default)]
pub struct Attachment {
    /// Somebody is there: frames may pass when the administrative link is up too.
    pub carrier: bool,
    /// Started ingresses.
    pub ingress: Vec<Arc<IngressEnd>>,
    /// Started and enabled egresses, in queue order without gaps.
    pub egress: Vec<Arc<dyn Egress>>,
    /// Virtio ports: the queue pairs. Others: empty.
    pub rings: Vec<QueueRings>,
}

//! All that workers may read, immutable: who is where, who is up, and which ingresses each worker polls.
//!
//! A tree of `Arc`s, so that a change replaces only the parts that it touches. Built by [`crate::switch`], read by
//! workers through [`crate::grace`].

use std::sync::Arc;

use crate::drops::DropReason;
use crate::hub::HubTable;
use crate::port::{Egress, IngressEnd};

/// A port's place in the tables and in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u16);

impl PortIndex {
    /// As an index into tables.
    #[inline]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// A port as workers see it.
pub struct PortView {
    /// The hub it is on, as an index into [`Snapshot::hubs`].
    pub hub: Option<u32>,
    /// Set when what the port sends is dropped: its link is down.
    pub silenced: Option<DropReason>,
    /// Where frames for the port go: one an enabled queue. Empty: [`DropReason::NotReady`].
    pub egress: Box<[Arc<dyn Egress>]>,
}

/// One ingress that a worker must poll.
#[derive(Clone)]
pub struct Duty {
    /// Whose ingress it is.
    pub port: PortIndex,
    /// The ingress.
    pub end: Arc<IngressEnd>,
}

/// The whole switch at one time.
#[derive(Default)]
pub struct Snapshot {
    /// By [`PortIndex`]; free places are `None`.
    pub ports: Box<[Option<Arc<PortView>>]>,
    /// The tables that turn a frame's header into its takers.
    pub hubs: Box<[Arc<HubTable>]>,
    /// By worker.
    pub duties: Box<[Arc<[Duty]>]>,
}

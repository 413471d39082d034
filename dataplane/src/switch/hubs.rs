//! The hubs of a switch: who is on them, how they learn, and their tables.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::{Switch, is_up};
use crate::fdb::{Fdb, Learning};
use crate::hub::{HubOptions, HubTable, Member};
use crate::snapshot::PortIndex;

/// A hub that has ports.
pub(super) struct Hub {
    pub(super) slot: u32,
    ports: BTreeSet<PortIndex>,
    /// None: it does not learn.
    fdb: Option<Arc<Fdb>>,
}

impl Switch {
    /// Says whether and how a hub learns; takes effect at the next [`Self::publish`], for a hub without ports when it has
    /// one. A hub that stops learning forgets everything, what is static too.
    ///
    /// Errors: there is no memory for the addresses. A hub that gets its first port then just does not learn.
    pub fn set_learning(&mut self, hub: i32, learning: Learning) -> io::Result<()> {
        if let Some(known) = self.hubs.get_mut(&hub) {
            match (&known.fdb, learning.is_on) {
                (Some(fdb), true) => fdb.set_ageing(learning.ageing_s),
                _ => {
                    known.fdb = new_fdb(learning)?;
                    self.changes.hubs.insert(hub);
                    self.changes.any = true;
                }
            }
        }
        self.learning.insert(hub, learning);
        Ok(())
    }

    /// Whether and how a hub learns.
    pub fn learning(&self, hub: i32) -> Learning {
        self.learning.get(&hub).copied().unwrap_or_default()
    }

    /// Forgets what was said of a hub without ports.
    pub fn forget_hub(&mut self, hub: i32) {
        self.learning.remove(&hub);
        self.options.remove(&hub);
    }

    /// The FDB of a hub that has ports and learns.
    pub fn fdb(&self, hub: i32) -> Option<&Fdb> {
        self.hubs.get(&hub)?.fdb.as_deref()
    }

    /// Seconds since the switch was started: the clock of its FDBs.
    pub fn now_s(&self) -> u32 {
        self.epoch.elapsed().as_secs() as u32
    }

    /// Gives every FDB a turn of [`Fdb::sweep`].
    pub fn sweep(&self) {
        let now_s = self.now_s();
        self.hubs.values().filter_map(|hub| hub.fdb.as_ref()).for_each(|fdb| fdb.sweep(now_s));
    }

    /// Changes how a hub behaves, whether it has ports or not; takes effect at the next [`Self::publish`].
    pub fn set_hub_options(&mut self, hub: i32, options: HubOptions) {
        self.options.insert(hub, options);
        self.changes.hubs.insert(hub);
        self.changes.any = true;
    }

    /// The same for all hubs that were given no options of their own.
    pub fn set_default_hub_options(&mut self, options: HubOptions) {
        self.options_default = options;
        self.changes.hubs.extend(self.hubs.keys());
        self.changes.any = true;
    }

    /// How a hub behaves.
    pub fn hub_options(&self, hub: i32) -> HubOptions {
        self.options.get(&hub).copied().unwrap_or(self.options_default)
    }

    /// Takes a port off its hub.
    pub(super) fn leave_hub(&mut self, port: PortIndex, hub: Option<i32>) {
        let Some(id) = hub else { return };
        self.depart(port, hub);
        let Some(hub) = self.hubs.get_mut(&id) else { return };
        hub.fdb.iter().for_each(|fdb| fdb.forget(port));
        hub.ports.remove(&port);
        self.changes.hubs.insert(id);
    }

    /// Puts a port on a hub, which is made if need be.
    pub(super) fn join_hub(&mut self, port: PortIndex, hub: Option<i32>) {
        let Some(id) = hub else { return };
        if !self.hubs.contains_key(&id) {
            let taken: BTreeSet<u32> = self.hubs.values().map(|hub| hub.slot).collect();
            let slot = (0..).find(|slot| !taken.contains(slot)).expect("fewer hubs than numbers");
            self.tables.resize((slot as usize + 1).max(self.tables.len()), Arc::default());
            let fdb = new_fdb(self.learning(id)).ok().flatten();
            self.hubs.insert(id, Hub { slot, ports: BTreeSet::new(), fdb });
        }
        if let Some(hub) = self.hubs.get_mut(&id) {
            hub.ports.insert(port);
        }
    }

    /// Has the hub forget what it learned from a port, once no worker can learn it anew.
    pub(super) fn depart(&mut self, port: PortIndex, hub: Option<i32>) {
        let fdb = hub.and_then(|hub| self.hubs.get(&hub)?.fdb.clone());
        self.changes.departed.extend(fdb.map(|fdb| (fdb, port)));
    }

    /// Builds the table of a hub anew; one without ports is forgotten.
    pub(super) fn compile(&mut self, id: i32) {
        let Some(hub) = self.hubs.get(&id) else { return };
        let members: Vec<Member> = hub.ports.iter().filter_map(|&port| self.member(port)).collect();
        let table = HubTable::new(&members).with_options(self.hub_options(id));
        self.tables[hub.slot as usize] = Arc::new(match &hub.fdb {
            Some(fdb) => table.learning(fdb.clone()),
            None => table,
        });
        if hub.ports.is_empty() {
            self.hubs.remove(&id);
        }
    }

    fn member(&self, port: PortIndex) -> Option<Member> {
        let plan = &self.places[port.at()].as_ref()?.plan;
        Some(Member { port, up: is_up(plan), filter: plan.filter.clone() })
    }
}

/// An FDB, if there is to be one.
fn new_fdb(learning: Learning) -> io::Result<Option<Arc<Fdb>>> {
    if learning.is_on { Fdb::new(learning.ageing_s).map(|fdb| Some(Arc::new(fdb))) } else { Ok(None) }
}

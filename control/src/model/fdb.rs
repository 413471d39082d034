//! What hubs have learned, shown and changed; and whether they learn.

use std::collections::HashMap;

use ringyard_dataplane::fdb::{Fdb, FdbCounters, FdbEntry, Learning};
use ringyard_dataplane::snapshot::PortIndex;

use super::Model;
use super::info::line;
use super::netdev::{Netdev, Part};
use crate::qapi::QapiError;
use crate::wire::{
    FDB_LIMIT_MAX, FdbEntryInfo, FdbInfo, FdbStats, HubStats, XFdbAdd, XFdbDel, XFdbFlush, XQueryFdb, XSetHub,
};

/// An entry with the names of where it is.
struct Place<'m> {
    hub: i32,
    netdev: &'m str,
    entry: FdbEntry,
}

impl Model {
    /// `x-set-hub`: makes the hub if need be, and says whether and how it learns.
    pub fn set_hub(&mut self, set: &XSetHub) -> Result<(), QapiError> {
        let current = self.switch.learning(set.hubid);
        let learning = Learning {
            is_on: set.learning.unwrap_or(current.is_on),
            ageing_s: set.ageing.unwrap_or(current.ageing_s),
        };
        let no_memory = |error| QapiError::generic(format!("no memory for addresses: {error}"));
        self.switch.set_learning(set.hubid, learning).map_err(no_memory)?;
        self.is_changed = true;
        self.note_hub(set.hubid);
        Ok(())
    }

    /// `x-query-fdb`, by hub and address. To be called when the workers have followed.
    pub fn query_fdb(&self, query: &XQueryFdb) -> Result<FdbInfo, QapiError> {
        let port = query.netdev.as_deref().map(|netdev| self.port_of(netdev)).transpose()?;
        let hubs = self.hubs_named(query.hubid)?;
        let mut left = ANSWER_BYTES_MAX;
        let (places, mut more) = self.places(&hubs, port, query.limit());
        let mut entries = Vec::new();
        for Place { hub, netdev, entry } in places {
            let entry = FdbEntryInfo {
                hubid: hub,
                mac: entry.mac.to_string(),
                netdev: netdev.to_owned(),
                age: entry.age_s,
                is_static: entry.is_static,
            };
            let Some(rest) = usize::checked_sub(left, ENTRY_BYTES + netdev.len()) else {
                more = true;
                break;
            };
            left = rest;
            entries.push(entry);
        }
        Ok(FdbInfo { entries, more })
    }

    /// `x-fdb-add`: from now on the address is there and nowhere else, until it is deleted or the netdev leaves the hub.
    pub fn fdb_add(&mut self, add: &XFdbAdd) -> Result<(), QapiError> {
        let port = self.port_of(&add.netdev)?;
        let fdb = self.fdb(add.hubid)?;
        if self.hub_of_netdev(&add.netdev) != Some(add.hubid) {
            let text = format!("netdev '{}' is not on hub {}", add.netdev, add.hubid);
            return Err(QapiError::generic(text));
        }
        let full = |_| QapiError::generic(format!("hub {} has no room for static addresses", add.hubid));
        fdb.add_static(add.mac, port, self.switch.now_s()).map_err(full)?;
        self.statics.insert((add.hubid, add.mac), add.netdev.clone());
        self.is_changed = true;
        Ok(())
    }

    /// `x-fdb-del`: forgets an address, static or learned.
    pub fn fdb_del(&mut self, del: &XFdbDel) -> Result<(), QapiError> {
        let XFdbDel { hubid, mac } = del;
        let was_there = self.fdb(*hubid)?.remove(*mac);
        self.is_changed |= self.statics.remove(&(*hubid, *mac)).is_some();
        match was_there {
            true => Ok(()),
            false => Err(QapiError::generic(format!("address {mac} not found on hub {hubid}"))),
        }
    }

    /// `x-fdb-flush`: forgets what was learned; what is static stays.
    pub fn fdb_flush(&self, flush: &XFdbFlush) -> Result<(), QapiError> {
        let port = flush.netdev.as_deref().map(|netdev| self.port_of(netdev)).transpose()?;
        let hubs = self.hubs_named(flush.hubid)?;
        hubs.into_iter().filter_map(|hub| self.switch.fdb(hub)).for_each(|fdb| fdb.flush(port));
        Ok(())
    }

    /// `info fdb`
    pub fn info_fdb(&self) -> String {
        let (mut text, mut left) = (String::new(), FDB_LIMIT_MAX);
        for &hub in &self.hubs {
            if text.len() > INFO_BYTES_MAX {
                line(&mut text, "...");
                break;
            }
            let Learning { is_on, ageing_s } = self.switch.learning(hub);
            if !is_on {
                line(&mut text, &format!("hub {hub}: learning=off"));
                continue;
            }
            let count = self.fdb_counters(hub).entries;
            line(&mut text, &format!("hub {hub}: learning=on,ageing={ageing_s},entries={count}"));
            let (places, mut more) = self.places(&[hub], None, left);
            left -= places.len() as u32;
            for Place { netdev, entry, .. } in places {
                if text.len() > INFO_BYTES_MAX {
                    more = true;
                    break;
                }
                let age = if entry.is_static { "static".into() } else { format!("age={}", entry.age_s) };
                line(&mut text, &format!(" \\ {}: {netdev},{age}", entry.mac));
            }
            if more {
                line(&mut text, " \\ ...");
            }
        }
        text
    }

    /// The hubs' part of `x-query-stats`.
    pub(super) fn hub_stats(&self) -> Vec<HubStats> {
        let stats = |&hub: &i32| {
            let (learning, counters) = (self.switch.learning(hub), self.fdb_counters(hub));
            let FdbCounters { entries, learned, moved, aged, evicted, not_learned } = counters;
            HubStats {
                hubid: hub,
                learning: learning.is_on,
                ageing: learning.ageing_s,
                fdb: FdbStats { entries, learned, moved, aged, evicted, not_learned },
            }
        };
        self.hubs.iter().map(stats).collect()
    }

    /// Lets hubs forget addresses that are too old; to be called once a second or so.
    pub fn sweep(&self) {
        self.switch.sweep();
    }

    fn fdb_counters(&self, hub: i32) -> FdbCounters {
        self.switch.fdb(hub).map(Fdb::counters).unwrap_or_default()
    }

    /// Up to `limit` entries of these hubs, of one port or of all, by hub and address; and whether there are more.
    fn places(&self, hubs: &[i32], port: Option<PortIndex>, limit: u32) -> (Vec<Place<'_>>, bool) {
        let (names, now_s) = (self.names(), self.switch.now_s());
        let mut places: Vec<Place<'_>> = Vec::new();
        let mut more = false;
        for &hub in hubs {
            let Some(fdb) = self.switch.fdb(hub) else { continue };
            fdb.for_each_entry(now_s, |entry| {
                // A port without a name is being opened or closed, and is on no hub.
                let Some(netdev) = names.get(&entry.port) else { return true };
                if port.is_some_and(|port| port != entry.port) {
                    return true;
                }
                more |= places.len() >= limit as usize;
                if !more {
                    places.push(Place { hub, netdev, entry });
                }
                !more
            });
        }
        places.sort_by_key(|place| (place.hub, place.entry.mac));
        (places, more)
    }

    fn names(&self) -> HashMap<PortIndex, &str> {
        let name = |(id, netdev)| match netdev {
            &Netdev { part: Part::Backend(ref backend), .. } => Some((backend.index, String::as_str(id))),
            _ => None,
        };
        self.netdevs.iter().filter_map(name).collect()
    }

    fn port_of(&self, netdev: &str) -> Result<PortIndex, QapiError> {
        match self.netdevs.get(netdev) {
            Some(Netdev { part: Part::Backend(backend), .. }) => Ok(backend.index),
            _ => Err(QapiError::device_not_found(netdev)),
        }
    }

    pub(super) fn hub_of_netdev(&self, netdev: &str) -> Option<i32> {
        match &self.netdevs.get(netdev)?.part {
            Part::Backend(backend) => self.hub_of(backend),
            _ => None,
        }
    }

    /// One hub, which must be there, or all.
    fn hubs_named(&self, hub: Option<i32>) -> Result<Vec<i32>, QapiError> {
        match hub {
            None => Ok(self.hubs.clone()),
            Some(hub) if self.hubs.contains(&hub) => Ok(vec![hub]),
            Some(hub) => Err(QapiError::generic(format!("hub {hub} not found"))),
        }
    }

    fn fdb(&self, hub: i32) -> Result<&Fdb, QapiError> {
        self.hubs_named(Some(hub))?;
        let nothing = || QapiError::generic(format!("hub {hub} does not learn or has no ports"));
        self.switch.fdb(hub).ok_or_else(nothing)
    }
}

/// An entry in an answer takes no more than this beside the netdev's id.
const ENTRY_BYTES: usize = 120;
/// Entries in an answer take no more than this: ids may be long.
const ANSWER_BYTES_MAX: usize = 240 << 10;
/// A text of this length gets no further line but the one that says so; escaped, it stays below the 256 KiB too.
const INFO_BYTES_MAX: usize = 192 << 10;

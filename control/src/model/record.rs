//! What outlives this process of the model: the objects as tables of a configuration file, and of each what no file says of it
//! ([`Facts`]).
//!
//! A successor makes the objects again in whatever order it can, and [`Model::insert`] and its like give each what is
//! remembered of it when it comes. What has not come yet is part of the next record all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_drivers::store::Drawer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Model;
use super::netdev::{Backend, Driver, Netdev, NicPart, Part};
use super::written::{chardev_table, netdev_table};
use crate::qapi::{Form, Visitor};
use crate::wire::{NetdevAdd, NetdevSpec, RxFilterInfo, XFdbAdd, XSetRxFilter};

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// What a file says beside objects; not the model's.
    pub settings: Map<String, Value>,
    serial: u64,
    chardevs: Vec<Entry>,
    hubs: Vec<Value>,
    /// In an order that satisfies references.
    netdevs: Vec<Entry>,
    objects: Vec<Entry>,
    /// Addresses that were entered for good: the hub, the address, the netdev.
    statics: Vec<(i32, String, String)>,
}

/// One object.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    id: String,
    /// `chardev`, `netdev`, `nic` or `object`.
    table: String,
    members: Map<String, Value>,
    facts: Facts,
}

/// What no file says of an object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    is_configured: bool,
    serial: u64,
    /// What `set_link` said; of a dump whether it is on.
    link: bool,
    /// The members as they were given, if it has lost the netdev that they name.
    lost: Option<Map<String, Value>>,
    port: Option<PortFacts>,
    nic: Option<NicFacts>,
    /// Of a dump: the word for which frames, and under which number its file is kept.
    pub(super) dump: Option<(String, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct PortFacts {
    /// Where its counters are.
    place: u16,
    /// Under which number its descriptors are kept.
    number: u64,
    carrier: bool,
    /// The workers that were chosen for queues.
    workers: BTreeMap<u16, usize>,
    /// What its guest wants to receive.
    filter: Option<Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct NicFacts {
    mac: String,
    filter: Value,
    is_event_due: bool,
    ghost: Option<String>,
}

/// What a model remembers of the one before it.
#[derive(Default)]
pub(super) struct Remembered {
    /// By what they are and their ids, until they come.
    entries: BTreeMap<(Kind, String), Entry>,
    /// Ports whose peers are to be back before anything is forwarded.
    awaited: BTreeSet<String>,
}

/// Ids of these are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Chardev,
    Netdev,
    Object,
}

impl Record {
    /// What a configuration file would say.
    pub fn file(&self) -> Map<String, Value> {
        let mut file = self.settings.clone();
        let mut tables: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for entry in self.chardevs.iter().chain(&self.netdevs).chain(&self.objects) {
            tables.entry(&entry.table).or_default().push(entry.members.clone().into());
        }
        tables.insert("hub", self.hubs.clone());
        file.extend(tables.into_iter().map(|(name, table)| (name.to_owned(), table.into())));
        file
    }

    fn entries(self) -> impl Iterator<Item = ((Kind, String), Entry)> {
        let kinds =
            [(Kind::Chardev, self.chardevs), (Kind::Netdev, self.netdevs), (Kind::Object, self.objects)];
        kinds.into_iter().flat_map(|(kind, entries)| {
            entries.into_iter().map(move |entry| ((kind, entry.id.clone()), entry))
        })
    }
}

impl Model {
    /// Remembers what a model before this one was, until it is again.
    pub fn remember(&mut self, record: Record) {
        self.serial = record.serial;
        self.statics = record
            .statics
            .iter()
            .filter_map(|(hub, mac, netdev)| Some(((*hub, mac.parse().ok()?), netdev.clone())))
            .collect();
        self.remembered.entries = record.entries().collect();
    }

    /// Whether anything has changed that [`Self::record`] would say, since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// What is to outlive this process, without settings.
    pub fn record(&self) -> Record {
        let mut record = Record { serial: self.serial, ..Record::default() };
        record.hubs = self.hubs.iter().map(|&hub| self.hub_table(hub)).collect();
        for (id, chardev) in &self.chardevs {
            let Value::Object(members) = chardev_table(&chardev.spec) else { continue };
            let facts = Facts { is_configured: chardev.is_configured, ..Facts::default() };
            record.chardevs.push(Entry { id: id.clone(), table: "chardev".into(), members, facts });
        }
        let mut netdevs = self.by_age();
        netdevs.sort_by_key(|(_, netdev)| !matches!(netdev.part, Part::Backend(_)));
        record.netdevs.extend(netdevs.into_iter().map(|(id, netdev)| self.entry(id, netdev)));
        record.objects.extend(self.captures_by_age().into_iter().map(|(id, capture)| Entry {
            id: id.to_owned(),
            table: "object".into(),
            members: capture.spec.members(),
            facts: capture.facts(),
        }));
        for ((kind, _), entry) in &self.remembered.entries {
            match kind {
                Kind::Chardev => record.chardevs.push(entry.clone()),
                Kind::Netdev => record.netdevs.push(entry.clone()),
                Kind::Object => record.objects.push(entry.clone()),
            }
        }
        let statics = self.statics.iter().filter(|((hub, _), id)| self.hub_of_netdev(id) == Some(*hub));
        record.statics = statics.map(|((hub, mac), id)| (*hub, mac.to_string(), id.clone())).collect();
        record
    }

    fn entry(&self, id: &str, netdev: &Netdev) -> Entry {
        let mut members = netdev_table(netdev);
        let mut facts = Facts {
            is_configured: netdev.is_configured,
            serial: netdev.serial,
            link: netdev.link,
            ..Facts::default()
        };
        let (table, below) = match &netdev.part {
            Part::Backend(backend) => {
                facts.port = Some(self.port_facts(id, backend));
                ("netdev", None)
            }
            Part::Hubport(port) => ("netdev", port.netdev.as_ref()),
            Part::Nic(nic) => {
                facts.nic = Some(nic_facts(id, nic));
                ("nic", nic.netdev.as_ref())
            }
        };
        if !matches!(netdev.part, Part::Backend(_)) && below.is_none() && members.contains_key("netdev") {
            facts.lost = Some(netdev.spec.members());
            members.shift_remove("netdev");
        }
        Entry { id: id.to_owned(), table: table.to_owned(), members, facts }
    }

    fn port_facts(&self, id: &str, backend: &Backend) -> PortFacts {
        PortFacts {
            place: backend.index.0,
            number: backend.number,
            carrier: backend.attachment.carrier,
            workers: self.switch.chosen_workers(backend.index).clone(),
            filter: backend.filter.as_ref().map(|filter| shown(filter, id)),
        }
    }

    /// A place for the counters of a netdev: the one that it had, or a new one.
    pub(super) fn remembered_place(&mut self, id: &str) -> Option<PortIndex> {
        let port = self.remembered.netdev(id)?.port.as_ref()?;
        self.switch.restore_port(PortIndex(port.place)).ok()
    }

    /// Under which number the descriptors of a netdev are kept.
    pub(super) fn number_of(&mut self, id: &str) -> u64 {
        let port = self.remembered.netdev(id).and_then(|facts| facts.port.as_ref());
        port.map(|port| port.number).unwrap_or_else(|| self.next_serial())
    }

    /// Where the descriptors are that were once given to a netdev that is to come again.
    pub(super) fn left_descriptors(&self, id: &str) -> Option<Drawer> {
        self.remembered.netdev(id)?.port.as_ref().map(|port| self.drawer(port.number))
    }

    /// Where descriptors of a port, or of a dump, are kept.
    pub(super) fn drawer(&self, number: u64) -> Drawer {
        self.store.drawer(drawer_name(number))
    }

    /// Has nothing kept of a port that is gone, once the record no longer has it.
    pub(super) fn forget_drawer(&mut self, number: u64) {
        self.gone.push(drawer_name(number));
    }

    /// Has what is gone kept no longer; to be called when a record without it was written.
    pub fn forget_gone(&mut self) {
        self.gone.drain(..).for_each(|name| self.store.forget(&name));
    }

    /// The address that a nic was given when it was made.
    pub(super) fn remembered_mac(&self, id: &str) -> Option<Mac> {
        self.remembered.netdev(id)?.nic.as_ref()?.mac.parse().ok()
    }

    /// Whether a netdev can be had again without waiting for anybody: what it needs was left to us.
    pub fn is_left_to_us(&self, spec: &NetdevSpec) -> bool {
        let port = self.remembered.netdev(&spec.id).and_then(|facts| facts.port.as_ref());
        port.is_some_and(|port| !self.drawer(port.number).is_empty())
    }

    /// Forgets what did not come again.
    pub fn forget_remembered(&mut self) {
        self.is_changed |= !self.remembered.entries.is_empty();
        self.remembered.entries.clear();
    }

    /// Gives an object that has just come what is remembered of it, its port excepted.
    pub(super) fn recall(&mut self, kind: Kind, id: &str) {
        self.is_changed = true;
        let Some(Entry { facts, .. }) = self.remembered.entries.remove(&(kind, id.to_owned())) else {
            return;
        };
        match kind {
            Kind::Chardev => {
                self.chardevs.get_mut(id).into_iter().for_each(|it| it.is_configured = facts.is_configured);
            }
            Kind::Object => self.recall_capture(id, &facts),
            Kind::Netdev => self.recall_netdev(id, facts),
        }
    }

    fn recall_netdev(&mut self, id: &str, facts: Facts) {
        let Some(netdev) = self.netdevs.get_mut(id) else { return };
        (netdev.serial, netdev.link, netdev.is_configured) = (facts.serial, facts.link, facts.is_configured);
        if let Some(spec) = facts.lost.and_then(spec_of) {
            netdev.spec = spec;
        }
        match (&mut netdev.part, facts.port, facts.nic) {
            (Part::Backend(backend), Some(port), _) => {
                backend.filter = port.filter.and_then(filter_of).map(Arc::new);
                let index = backend.index;
                for (queue, worker) in port.workers {
                    // There may be fewer now.
                    let _ = self.switch.move_duty(index, queue, worker);
                }
            }
            (Part::Nic(nic), _, Some(known)) => {
                nic.mac = known.mac.parse().unwrap_or(nic.mac);
                let filter = filter_of(known.filter).unwrap_or_else(|| RxFilter::new(nic.mac));
                nic.filter = Arc::new(filter);
                (nic.is_event_due, nic.ghost) = (known.is_event_due, known.ghost);
            }
            _ => {}
        }
    }

    /// Enters the remembered addresses whose netdevs are there.
    pub fn recall_addresses(&mut self) {
        for ((hubid, mac), netdev) in self.statics.clone() {
            // One that is elsewhere by now is not to be there.
            let _ = self.fdb_add(&XFdbAdd { hubid, mac, netdev });
        }
    }

    /// Notes that a port had a carrier and is to have it again before frames are forwarded.
    pub(super) fn await_carrier(&mut self, id: &str) {
        let had = self.remembered.netdev(id).and_then(|facts| facts.port.as_ref());
        if had.is_some_and(|port| port.carrier) {
            self.remembered.awaited.insert(id.to_owned());
        }
    }

    /// Notes that a port has a carrier, or will not have one.
    pub(super) fn await_no_more(&mut self, id: &str) {
        self.remembered.awaited.remove(id);
    }

    /// Whether all ports that had carriers have them again, as far as they can be had at once.
    pub fn is_complete(&self) -> bool {
        self.remembered.awaited.is_empty()
    }

    /// Has nothing forwarded any more, from the end of the bursts under way on, and no connection of a guest served.
    pub fn halt(&mut self) {
        for netdev in self.netdevs.values() {
            if let Part::Backend(backend) = &netdev.part
                && let Driver::VhostUser { port, .. } = &backend.driver
            {
                port.halt();
            }
        }
        self.switch.halt();
    }

    /// Has nothing forwarded, or everything again, from the next publish on.
    pub fn hold(&mut self, is_held: bool) {
        self.switch.hold(is_held);
    }
}

impl Remembered {
    fn netdev(&self, id: &str) -> Option<&Facts> {
        self.entries.get(&(Kind::Netdev, id.to_owned())).map(|entry| &entry.facts)
    }

    /// Whether an object of that id is still to come.
    pub(super) fn has(&self, kind: Kind, id: &str) -> bool {
        self.entries.contains_key(&(kind, id.to_owned()))
    }

    /// Of a dump that is still to come.
    pub(super) fn object(&self, id: &str) -> Option<&Facts> {
        self.entries.get(&(Kind::Object, id.to_owned())).map(|entry| &entry.facts)
    }
}

impl Facts {
    /// Of a dump.
    pub(super) fn of_dump(
        serial: u64,
        is_configured: bool,
        is_on: bool,
        direction: &str,
        number: u64,
    ) -> Facts {
        let dump = Some((direction.to_owned(), number));
        Facts { serial, is_configured, link: is_on, dump, ..Facts::default() }
    }

    /// The serial, whether it is configured, and whether it is on.
    pub(super) fn of_object(&self) -> (u64, bool, bool) {
        (self.serial, self.is_configured, self.link)
    }
}

fn nic_facts(id: &str, nic: &NicPart) -> NicFacts {
    NicFacts {
        mac: nic.mac.to_string(),
        filter: shown(&nic.filter, id),
        is_event_due: nic.is_event_due,
        ghost: nic.ghost.clone(),
    }
}

fn shown(filter: &RxFilter, name: &str) -> Value {
    serde_json::to_value(RxFilterInfo::new(filter, name)).unwrap_or_default()
}

/// The filter that was shown so.
fn filter_of(shown: Value) -> Option<RxFilter> {
    let Value::Object(members) = shown else { return None };
    let change = XSetRxFilter::visit(Visitor::new(members, Form::Json)).ok()?;
    Some(change.apply(&RxFilter::new(Mac([0; 6]))))
}

fn spec_of(members: Map<String, Value>) -> Option<NetdevSpec> {
    NetdevAdd::visit(Visitor::new(members, Form::Json)).and_then(NetdevAdd::resolve).ok()
}

fn drawer_name(number: u64) -> String {
    format!("open/{number}")
}

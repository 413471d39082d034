//! The objects there are, as the tables of a configuration file that would make them again.

use std::collections::BTreeSet;

use ringyard_drivers::chardev::SocketRole;
use serde_json::{Map, Value, json};

use super::Model;
use super::netdev::{Netdev, Part};
use crate::wire::{ChardevSpec, FdRef, NetdevKind, Position};

/// See the module. Each list is in an order in which they can be made again.
#[derive(Debug, Default)]
pub struct WrittenObjects {
    /// `[[chardev]]`, by id.
    pub chardevs: Vec<Value>,
    /// `[[hub]]`, oldest first.
    pub hubs: Vec<Value>,
    /// `[[netdev]]`: backends, oldest first, then hub ports likewise.
    pub netdevs: Vec<Value>,
    /// `[[nic]]`, oldest first.
    pub nics: Vec<Value>,
    /// `[[object]]`, oldest first.
    pub objects: Vec<Value>,
    /// What no file can make again, and why: what it says of an object is the members beside `table` and `reason`.
    pub unwritable: Vec<Value>,
}

impl Model {
    /// What a file would have to say to make the objects again, those of clients too. Members are as they were given.
    pub fn written(&self) -> WrittenObjects {
        let mut written = WrittenObjects {
            chardevs: self.chardevs.values().map(|chardev| chardev_table(&chardev.spec)).collect(),
            hubs: self.hubs.iter().map(|&hub| self.hub_table(hub)).collect(),
            ..WrittenObjects::default()
        };
        let mut netdevs = self.by_age();
        netdevs.sort_by_key(|(_, netdev)| matches!(netdev.part, Part::Hubport(_)));
        let mut lost = BTreeSet::new();
        for (id, netdev) in netdevs.iter().filter(|(_, netdev)| matches!(netdev.part, Part::Backend(_))) {
            if let Some(reason) = passed_descriptor(netdev) {
                lost.insert(*id);
                written.unwritable.push(unwritable("netdev", netdev_table(netdev), &reason));
            }
        }
        for (id, netdev) in netdevs {
            let (table, list) = match netdev.part {
                Part::Nic(_) => ("nic", &mut written.nics),
                _ => ("netdev", &mut written.netdevs),
            };
            let members = netdev_table(netdev);
            match self.missing_below(netdev, &lost) {
                Some(reason) => written.unwritable.push(unwritable(table, members, &reason)),
                None if lost.contains(id) => {}
                None => list.push(members.into()),
            }
        }
        self.write_captures(&lost, &mut written);
        written
    }

    fn write_captures(&self, lost: &BTreeSet<&str>, written: &mut WrittenObjects) {
        let mut captures: Vec<_> = self.captures.values().collect();
        captures.sort_by_key(|capture| capture.serial);
        for spec in captures.into_iter().map(|capture| &capture.spec) {
            let mut members = spec.members();
            // Beside what is gone it can only be last.
            if matches!(spec.position(), Ok(Position::Beside(id)) if !self.captures.contains_key(&id)) {
                ["position", "insert"].iter().for_each(|member| drop(members.shift_remove(*member)));
            }
            let reason = match spec.fd() {
                _ if lost.contains(spec.given.netdev.as_str()) => {
                    Some(format!("it stands on '{}'", spec.given.netdev))
                }
                Some(_) => Some(format!("a client passed the descriptor of {}", spec.given.file)),
                None => None,
            };
            match reason {
                Some(reason) => written.unwritable.push(unwritable("object", members, &reason)),
                None => written.objects.push(members.into()),
            }
        }
    }

    pub(super) fn hub_table(&self, hub: i32) -> Value {
        let learning = self.switch.learning(hub);
        json!({"id": hub, "learning": learning.is_on, "ageing_s": learning.ageing_s})
    }

    /// Why a nic or a hub port cannot stand on what it names.
    fn missing_below(&self, netdev: &Netdev, lost: &BTreeSet<&str>) -> Option<String> {
        let below = match &netdev.spec.kind {
            NetdevKind::Nic(nic) => nic.netdev.as_ref()?,
            NetdevKind::Hubport(port) => port.netdev.as_ref()?,
            NetdevKind::VhostUser(_) | NetdevKind::Port(_) => return None,
        };
        let is_there = match &netdev.part {
            Part::Nic(nic) => nic.netdev.is_some(),
            Part::Hubport(port) => port.netdev.is_some(),
            Part::Backend(_) => true,
        };
        match (is_there, lost.contains(below.as_str())) {
            (false, _) => Some(format!("its netdev '{below}' is gone")),
            (true, true) => Some(format!("it stands on '{below}'")),
            (true, false) => None,
        }
    }
}

/// Why a port cannot be opened by another run: a client passed its descriptor.
fn passed_descriptor(netdev: &Netdev) -> Option<String> {
    let NetdevKind::Port(port) = &netdev.spec.kind else { return None };
    let passed = |fd: &FdRef| match fd {
        FdRef::Name(name) => Some(format!("a client passed the descriptor '{name}'")),
        FdRef::Set(id) | FdRef::WritableSet(id) => {
            Some(format!("a client passed the descriptor of /dev/fdset/{id}"))
        }
        FdRef::Number(_) => None,
    };
    port.fds().iter().find_map(passed)
}

fn unwritable(table: &str, mut members: Map<String, Value>, reason: &str) -> Value {
    members.insert("table".into(), table.into());
    members.insert("reason".into(), reason.into());
    members.into()
}

pub(super) fn chardev_table(spec: &ChardevSpec) -> Value {
    let mut members = json!({"type": "socket", "id": spec.id, "path": spec.path.display().to_string()});
    match spec.role {
        SocketRole::Server => members["server"] = json!(true),
        SocketRole::Client { reconnect: Some(pause) } => {
            members["reconnect-ms"] = json!(pause.as_millis() as u64);
        }
        SocketRole::Client { reconnect: None } => {}
    }
    members
}

/// The members with the type first, which a nic's table does not have.
pub(super) fn netdev_table(netdev: &Netdev) -> Map<String, Value> {
    let mut members = netdev.spec.members();
    let kind = members.shift_remove("type");
    if !matches!(netdev.part, Part::Nic(_)) {
        members.shift_insert(0, "type".into(), kind.into());
    }
    members
}

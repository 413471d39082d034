//! What a configuration and the objects that there are differ in, and how the latter are made to follow it.
//!
//! Objects that a configuration made are its own: one that the next configuration does not have goes, one that it has in
//! another form is made anew. What clients made stays; from when a configuration names it with the same members, it is the
//! configuration's own, too. Nothing is touched that does not have to be.

use std::collections::BTreeSet;
use std::fmt;

use super::Model;
use super::netdev::{HubportPart, Netdev, NicPart, Part};
use crate::qapi::QapiError;
use crate::wire::{ChardevSpec, Hubport, NetdevKind, NetdevSpec, NicSpec, ObjectSpec};

/// An object by the table of a configuration that it is in, and its id: `netdev.t0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    table: &'static str,
    /// The id.
    pub id: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Difference {
    /// Netdevs that go, for good or to be made anew.
    pub gone_netdevs: Vec<ObjectName>,
    /// Chardevs that go, after the netdevs.
    pub gone_chardevs: Vec<ObjectName>,
    /// Netdevs that become what they shall be while they stay what they are.
    pub changed: Vec<NetdevSpec>,
    /// Chardevs to be made.
    pub new_chardevs: Vec<ChardevSpec>,
    /// Netdevs to be made, in an order that satisfies references.
    pub new_netdevs: Vec<NetdevSpec>,
    /// What `object-add` makes and that goes, before the netdevs.
    pub gone_objects: Vec<ObjectName>,
    /// The same that is to be made, after the netdevs.
    pub new_objects: Vec<ObjectSpec>,
    /// Objects that are as they shall be.
    pub kept: Vec<ObjectName>,
    /// What the configuration cannot have, and why.
    pub refused: Vec<(ObjectName, QapiError)>,
}

impl ObjectName {
    /// Of a chardev.
    pub fn of_chardev(id: &str) -> ObjectName {
        ObjectName { table: "chardev", id: id.to_owned() }
    }

    /// Of a netdev; nics have a table of their own.
    pub fn of_netdev(spec: &NetdevSpec) -> ObjectName {
        let table = if matches!(spec.kind, NetdevKind::Nic(_)) { "nic" } else { "netdev" };
        ObjectName { table, id: spec.id.clone() }
    }

    /// Of what `object-add` makes.
    pub fn of_object(id: &str) -> ObjectName {
        ObjectName { table: "object", id: id.to_owned() }
    }

    /// Of a netdev that is no nic.
    pub fn of_port(id: &str) -> ObjectName {
        ObjectName { table: "netdev", id: id.to_owned() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.table, self.id)
    }
}

impl Model {
    /// How the objects differ from those of a configuration, whose references lead somewhere.
    pub fn difference(
        &self,
        chardevs: &[ChardevSpec],
        netdevs: &[NetdevSpec],
        objects: &[ObjectSpec],
    ) -> Difference {
        let mut difference = Difference::default();
        // Netdevs that have to be made anew because their chardev is.
        let mut uprooted = BTreeSet::new();
        for spec in chardevs {
            uprooted.extend(self.compare_chardev(spec, &mut difference));
        }
        for spec in netdevs {
            self.compare_netdev(spec, uprooted.contains(&spec.id), &mut difference);
        }
        let wanted: BTreeSet<&str> = chardevs.iter().map(|spec| spec.id.as_str()).collect();
        for (id, chardev) in self.chardevs.iter().filter(|(_, chardev)| chardev.is_configured) {
            if !wanted.contains(id.as_str()) {
                let name = ObjectName::of_chardev(id);
                match self.foreign_user(&chardev.user) {
                    false => difference.gone_chardevs.push(name),
                    true => difference.refused.push((name, busy(id))),
                }
            }
        }
        let wanted: BTreeSet<&str> = netdevs.iter().map(|spec| spec.id.as_str()).collect();
        let gone = self.by_age().into_iter().filter(|(_, netdev)| netdev.is_configured);
        let gone = gone.filter(|(id, _)| !wanted.contains(id));
        let gone = gone.map(|(_, netdev)| ObjectName::of_netdev(&netdev.spec));
        difference.gone_netdevs.extend(gone);
        objects.iter().for_each(|spec| self.compare_object(spec, &mut difference));
        let wanted: BTreeSet<&str> = objects.iter().map(|spec| spec.id.as_str()).collect();
        let gone = self.captures.iter().filter(|(_, capture)| capture.is_configured);
        let gone = gone.filter(|(id, _)| !wanted.contains(id.as_str()));
        difference.gone_objects.extend(gone.map(|(id, _)| ObjectName::of_object(id)));
        difference
    }

    /// What stands on a netdev that is made anew is made anew, too.
    fn compare_object(&self, spec: &ObjectSpec, difference: &mut Difference) {
        let name = ObjectName::of_object(&spec.id);
        let Some(capture) = self.captures.get(&spec.id) else {
            return difference.new_objects.push(spec.clone());
        };
        let netdev = &spec.given.netdev;
        let is_uprooted = difference.gone_netdevs.iter().any(|gone| gone.id == *netdev);
        if capture.spec == *spec && !is_uprooted {
            difference.kept.push(name);
        } else if !capture.is_configured {
            difference.refused.push((name, made_otherwise(&spec.id)));
        } else {
            difference.gone_objects.push(name);
            difference.new_objects.push(spec.clone());
        }
    }

    /// Returns the netdev that goes with a chardev which is to be made anew.
    fn compare_chardev(&self, spec: &ChardevSpec, difference: &mut Difference) -> Option<String> {
        let name = ObjectName::of_chardev(&spec.id);
        let Some(chardev) = self.chardevs.get(&spec.id) else {
            difference.new_chardevs.push(spec.clone());
            return None;
        };
        if chardev.spec == *spec {
            difference.kept.push(name);
        } else if !chardev.is_configured {
            difference.refused.push((name, made_otherwise(&spec.id)));
        } else if self.foreign_user(&chardev.user) {
            difference.refused.push((name, busy(&spec.id)));
        } else {
            difference.gone_chardevs.push(name);
            difference.new_chardevs.push(spec.clone());
            return chardev.user.clone();
        }
        None
    }

    fn compare_netdev(&self, spec: &NetdevSpec, is_uprooted: bool, difference: &mut Difference) {
        let Some(netdev) = self.netdevs.get(&spec.id) else {
            return difference.new_netdevs.push(spec.clone());
        };
        if netdev.spec == *spec && !is_uprooted {
            difference.kept.push(ObjectName::of_netdev(spec));
        } else if !netdev.is_configured {
            difference.refused.push((ObjectName::of_netdev(spec), made_otherwise(&spec.id)));
        } else if can_become(&netdev.spec, spec) {
            difference.changed.push(spec.clone());
        } else {
            difference.gone_netdevs.push(ObjectName::of_netdev(&netdev.spec));
            difference.new_netdevs.push(spec.clone());
        }
    }

    /// Whether a client made the netdev that uses a chardev.
    fn foreign_user(&self, user: &Option<String>) -> bool {
        user.as_ref().and_then(|user| self.netdevs.get(user)).is_some_and(|netdev| !netdev.is_configured)
    }

    /// Makes an object one of the configuration's own.
    pub fn adopt(&mut self, name: &ObjectName) {
        self.is_changed = true;
        let is_configured = match name.table {
            "object" => self.captures.get_mut(&name.id).map(|capture| &mut capture.is_configured),
            "chardev" => self.chardevs.get_mut(&name.id).map(|chardev| &mut chardev.is_configured),
            _ => self.netdevs.get_mut(&name.id).map(|netdev| &mut netdev.is_configured),
        };
        is_configured.into_iter().for_each(|is_configured| *is_configured = true);
    }

    /// Whether there is such a hub.
    pub fn has_hub(&self, hub: i32) -> bool {
        self.hubs.contains(&hub)
    }

    /// Makes a nic or a hub port what `spec` says, of which [`Difference::changed`] says that it can; from the next publish
    /// on.
    pub fn change_netdev(&mut self, spec: NetdevSpec) -> Result<(), QapiError> {
        let id = spec.id.clone();
        self.is_changed = true;
        match spec.kind.clone() {
            NetdevKind::Nic(options) => self.change_nic(&id, options)?,
            NetdevKind::Hubport(options) => {
                self.note_hub(options.hubid);
                if let Some(Netdev { part: Part::Hubport(port), .. }) = self.netdevs.get_mut(&id) {
                    port.hub = options.hubid;
                }
                options.netdev.iter().for_each(|backend| self.replan(backend));
            }
            NetdevKind::VhostUser(_) | NetdevKind::Port(_) => {}
        }
        self.netdevs.get_mut(&id).into_iter().for_each(|netdev| netdev.spec = spec.clone());
        Ok(())
    }

    /// Whether all that a netdev names is there.
    pub fn has_what_it_names(&self, spec: &NetdevSpec) -> bool {
        match &spec.kind {
            NetdevKind::VhostUser(options) => self.chardevs.contains_key(&options.chardev),
            NetdevKind::Nic(NicSpec { netdev: Some(backend), .. })
            | NetdevKind::Hubport(Hubport { netdev: Some(backend), .. }) => {
                matches!(self.netdevs.get(backend), Some(Netdev { part: Part::Backend(_), .. }))
            }
            _ => true,
        }
    }

    /// Gives a backend that was made anew what stands on it and lost the one before.
    pub fn reattach(&mut self, id: &str) {
        let stands = |(name, netdev): (&String, &Netdev)| {
            let named = match (&netdev.spec.kind, &netdev.part) {
                (NetdevKind::Nic(spec), Part::Nic(NicPart { netdev: None, .. })) => &spec.netdev,
                (NetdevKind::Hubport(spec), Part::Hubport(HubportPart { netdev: None, .. })) => &spec.netdev,
                _ => return None,
            };
            (named.as_deref() == Some(id)).then(|| name.clone())
        };
        let stands: Vec<String> = self.netdevs.iter().filter_map(stands).collect();
        stands.iter().for_each(|name| self.attach(name, id));
        self.replan(id);
    }

    /// Puts a nic or a hub port on a backend, if no other one is there.
    fn attach(&mut self, name: &str, id: &str) {
        let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get(id) else { return };
        let (has_nic, has_hubport) = (backend.nic.is_some(), backend.hubport.is_some());
        let is_nic = match self.netdevs.get_mut(name).map(|netdev| &mut netdev.part) {
            Some(Part::Nic(nic)) if !has_nic => {
                (nic.netdev, nic.ghost) = (Some(id.to_owned()), None);
                true
            }
            Some(Part::Hubport(port)) if !has_hubport => {
                port.netdev = Some(id.to_owned());
                false
            }
            _ => return,
        };
        self.is_changed = true;
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(id) {
            let place = if is_nic { &mut backend.nic } else { &mut backend.hubport };
            *place = Some(name.to_owned());
        }
    }
}

/// Whether an object can become another one without being made anew: what it stands on stays.
fn can_become(old: &NetdevSpec, new: &NetdevSpec) -> bool {
    match (&old.kind, &new.kind) {
        (NetdevKind::Nic(old), NetdevKind::Nic(new)) => old.netdev == new.netdev,
        (NetdevKind::Hubport(old), NetdevKind::Hubport(new)) => old.netdev == new.netdev,
        _ => false,
    }
}

fn made_otherwise(id: &str) -> QapiError {
    QapiError::generic(format!("'{id}' was made by a client, with other members"))
}

fn busy(id: &str) -> QapiError {
    QapiError::generic(format!("Chardev '{id}' is busy"))
}

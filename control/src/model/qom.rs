//! The tree of objects: `qom-list`, `qom-get` and `qom-set`.
//!
//! It is small: `/objects` has what `object-add` made, `/chardevs` the chardevs, and `/machine/peripheral` the nics, each with
//! the `virtio-backend` that NIC_RX_FILTER_CHANGED names.

use serde_json::{Value, json};

use super::Model;
use super::chardev::Chardev;
use super::netdev::{Netdev, NicPart, Part};
use super::object::{Capture, Property};
use crate::qapi::{QapiError, written};
use crate::wire::{ObjectPropertyInfo, QomGet, QomSet, UnixSocketAddress};

/// An object of the tree.
#[derive(Clone, Copy)]
enum Node<'m> {
    Root,
    Machine,
    Peripheral,
    Objects,
    Chardevs,
    Capture(&'m Capture),
    Chardev(&'m Chardev),
    Nic(&'m Netdev, &'m NicPart),
    NicBackend(&'m Netdev, &'m NicPart),
}

/// A node, and how it is reached from the root.
#[derive(Clone)]
struct Found<'m> {
    path: Vec<&'m str>,
    node: Node<'m>,
}

/// Why a path leads to no object.
enum Lost {
    Nowhere,
    Ambiguous,
}

impl Model {
    /// `qom-list`
    pub fn qom_list(&self, path: &str) -> Result<Vec<ObjectPropertyInfo>, QapiError> {
        let found = self.resolve(path).map_err(|lost| match lost {
            Lost::Nowhere => QapiError::device_not_found(path),
            Lost::Ambiguous => QapiError::generic(format!("Path '{path}' is ambiguous")),
        })?;
        let info =
            |(name, kind, _)| ObjectPropertyInfo { name, kind, description: None, default_value: None };
        Ok(self.properties(&found).into_iter().map(info).collect())
    }

    /// `qom-get`
    pub fn qom_get(&self, get: &QomGet) -> Result<Value, QapiError> {
        let QomGet { path, property } = get;
        let found = self.resolve(path).map_err(|_| QapiError::device_not_found(path))?;
        let (.., value) = self.property(&found, property)?;
        Ok(value)
    }

    /// `qom-set`: takes effect at the next publish.
    pub fn qom_set(&mut self, set: QomSet) -> Result<(), QapiError> {
        let QomSet { path, property, value } = set;
        let found = self.resolve(&path).map_err(|_| QapiError::device_not_found(&path))?;
        self.property(&found, &property)?;
        let read_only = format!("Property '{}.{property}' is not writable", found.node.type_name());
        let set = match (found.node, found.path.last()) {
            (Node::Capture(_), Some(id)) => {
                let id = (*id).to_owned();
                self.set_capture(&id, &property, value)
            }
            _ => None,
        };
        set.unwrap_or_else(|| Err(QapiError::generic(read_only)))
    }

    /// The object that a path leads to: from the root, or anywhere when it does not begin there.
    fn resolve(&self, path: &str) -> Result<Found<'_>, Lost> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let root = Found { path: Vec::new(), node: Node::Root };
        if path.starts_with('/') {
            return self.descend(root, &parts).ok_or(Lost::Nowhere);
        }
        let mut found = Vec::new();
        self.search(root, &parts, &mut found);
        match found.len() {
            0 => Err(Lost::Nowhere),
            1 => Ok(found.remove(0)),
            _ => Err(Lost::Ambiguous),
        }
    }

    fn descend<'m>(&'m self, from: Found<'m>, parts: &[&str]) -> Option<Found<'m>> {
        parts.iter().try_fold(from, |found, part| {
            self.children(&found).into_iter().find(|child| child.path.last() == Some(part))
        })
    }

    /// Finds every object in and below `from` that is reached by `parts` from somewhere.
    fn search<'m>(&'m self, from: Found<'m>, parts: &[&str], found: &mut Vec<Found<'m>>) {
        found.extend(self.descend(from.clone(), parts));
        self.children(&from).into_iter().for_each(|child| self.search(child, parts, found));
    }

    fn children<'m>(&'m self, found: &Found<'m>) -> Vec<Found<'m>> {
        let child = |name: &'m str, node| {
            let mut path = found.path.clone();
            path.push(name);
            Found { path, node }
        };
        match found.node {
            Node::Root => vec![
                child("objects", Node::Objects),
                child("machine", Node::Machine),
                child("chardevs", Node::Chardevs),
            ],
            Node::Machine => vec![child("peripheral", Node::Peripheral)],
            Node::Objects => {
                self.captures.iter().map(|(id, capture)| child(id, Node::Capture(capture))).collect()
            }
            Node::Chardevs => {
                self.chardevs.iter().map(|(id, chardev)| child(id, Node::Chardev(chardev))).collect()
            }
            Node::Peripheral => {
                let nic = |(id, netdev): (&'m String, &'m Netdev)| match &netdev.part {
                    Part::Nic(nic) => Some(child(id, Node::Nic(netdev, nic))),
                    _ => None,
                };
                self.netdevs.iter().filter_map(nic).collect()
            }
            Node::Nic(netdev, nic) => vec![child("virtio-backend", Node::NicBackend(netdev, nic))],
            Node::Capture(_) | Node::Chardev(_) | Node::NicBackend(..) => Vec::new(),
        }
    }

    fn property(&self, found: &Found<'_>, name: &str) -> Result<Property, QapiError> {
        let property = self.properties(found).into_iter().find(|(known, ..)| known == name);
        let kind = found.node.type_name();
        property.ok_or_else(|| QapiError::generic(format!("Property '{kind}.{name}' not found")))
    }

    /// Those of the object itself, then what is below it.
    fn properties(&self, found: &Found<'_>) -> Vec<Property> {
        let property = |name: &str, kind: &str, value: Value| (name.to_owned(), kind.to_owned(), value);
        let mut properties = vec![property("type", "string", json!(found.node.type_name()))];
        match found.node {
            Node::Capture(capture) => properties.extend(capture.all_properties()),
            Node::Chardev(chardev) => properties.extend([
                property("connected", "bool", json!(chardev.is_connected())),
                property("addr", "SocketAddress", address(chardev)),
            ]),
            Node::Nic(netdev, nic) | Node::NicBackend(netdev, nic) => properties.extend([
                property("mac", "str", json!(nic.filter.main_mac.to_string())),
                property("netdev", "str", json!(nic.netdev.as_deref().unwrap_or_default())),
                property("link", "bool", json!(netdev.link)),
            ]),
            Node::Root | Node::Machine | Node::Peripheral | Node::Objects | Node::Chardevs => {}
        }
        properties.extend(self.children(found).into_iter().map(|child| {
            let name = child.path.last().copied().unwrap_or_default();
            let kind = format!("child<{}>", child.node.type_name());
            property(name, &kind, json!(format!("/{}", child.path.join("/"))))
        }));
        properties
    }
}

impl Node<'_> {
    /// As QEMU calls what is the same there.
    fn type_name(self) -> &'static str {
        match self {
            Node::Root | Node::Machine | Node::Peripheral | Node::Objects | Node::Chardevs => "container",
            Node::Capture(_) => Capture::TYPE,
            Node::Chardev(_) => "chardev-socket",
            Node::Nic(..) => "nic",
            Node::NicBackend(..) => "virtio-net-device",
        }
    }
}

/// Where a chardev's socket is, in the flat form.
fn address(chardev: &Chardev) -> Value {
    let path = chardev.path().display().to_string();
    let mut members = written(&UnixSocketAddress { path, is_abstract: None, tight: None });
    members.insert("type".into(), "unix".into());
    members.into()
}

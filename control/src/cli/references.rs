//! Whether all that objects name is there, is of a kind that can be named so, and is named by one object only.

use std::collections::BTreeMap;

use super::fault::{Fault, Given};
use crate::model::{already_connected, no_backend, wrong_kind};
use crate::qapi::QapiError;
use crate::wire::{ChardevSpec, Hubport, NetdevKind, NetdevSpec, NicSpec, ObjectSpec, VhostUserSpec};

/// What one object says of another.
struct Reference<'a> {
    /// The member that says it.
    member: &'static str,
    /// What the object is, for error texts.
    kind: &'static str,
    target: &'a str,
}

/// Every reference that leads nowhere.
pub(super) fn check(
    chardevs: &[Given<ChardevSpec>],
    netdevs: &[Given<NetdevSpec>],
    objects: &[Given<ObjectSpec>],
) -> Vec<Fault> {
    let by_id: BTreeMap<&str, &NetdevSpec> =
        netdevs.iter().map(|given| (given.spec.id.as_str(), &given.spec)).collect();
    let mut first = BTreeMap::new();
    let mut faults = Vec::new();
    for given in netdevs {
        let Some(reference) = reference(&given.spec) else { continue };
        let Reference { member, kind, target } = reference;
        let lost = match member {
            "chardev" => missing_chardev(chardevs, target),
            _ => unfit_netdev(&by_id, &reference),
        };
        if let Some(error) = lost {
            faults.push(given.origin.fault(error.about(member)));
            continue;
        }
        if let Some(other) = first.insert((kind, target), given) {
            let error = match member {
                "chardev" => QapiError::generic(format!("Device '{target}' is in use")),
                _ => already_connected(target, kind, &other.spec.id),
            };
            let earlier = other.origin.note(&format!("'{}' has it already", other.spec.id), member);
            faults.push(given.origin.fault(error.about(member)).after(earlier));
        }
    }
    for given in objects {
        let netdev = by_id.get(given.spec.given.netdev.as_str()).map(|spec| &spec.kind);
        if !matches!(netdev, Some(NetdevKind::VhostUser(_) | NetdevKind::Port(_))) {
            faults.push(given.origin.fault(no_backend()));
        }
    }
    faults
}

fn reference(spec: &NetdevSpec) -> Option<Reference<'_>> {
    let (member, kind, target) = match &spec.kind {
        NetdevKind::VhostUser(VhostUserSpec { chardev, .. }) => ("chardev", "netdev", chardev),
        NetdevKind::Nic(NicSpec { netdev, .. }) => ("netdev", "nic", netdev.as_ref()?),
        NetdevKind::Hubport(Hubport { netdev, .. }) => ("netdev", "hub port", netdev.as_ref()?),
        NetdevKind::Port(_) => return None,
    };
    Some(Reference { member, kind, target })
}

fn missing_chardev(chardevs: &[Given<ChardevSpec>], id: &str) -> Option<QapiError> {
    let is_there = chardevs.iter().any(|chardev| chardev.spec.id == id);
    (!is_there).then(|| QapiError::generic(format!("chardev \"{id}\" not found")))
}

fn unfit_netdev(netdevs: &BTreeMap<&str, &NetdevSpec>, reference: &Reference<'_>) -> Option<QapiError> {
    let target = reference.target;
    let Some(netdev) = netdevs.get(target) else {
        return Some(QapiError::generic(format!("netdev '{target}' not found")));
    };
    let what = format!("a {}", reference.kind);
    match netdev.kind {
        NetdevKind::VhostUser(_) | NetdevKind::Port(_) => None,
        NetdevKind::Nic(_) => Some(wrong_kind(target, "nic", &what)),
        NetdevKind::Hubport(_) => Some(wrong_kind(target, "hub port", &what)),
    }
}

//! The rx-filters of nics, shown and set.

use std::sync::Arc;

use ringyard_dataplane::filter::{RxFilter, RxState};
use serde::Serialize;

use super::Model;
use super::netdev::{Netdev, Part};
use crate::json::to_qmp_line;
use crate::monitor::REPLY_BYTES_MAX;
use crate::qapi::QapiError;
use crate::wire::{FailoverNegotiated, NicRxFilterChanged, RxFilterInfo, XSetRxFilter};

impl Model {
    /// `query-rx-filter`: of one nic, or of all, oldest first. Their next changes are events again. What takes every VLAN lists
    /// all of them, as QEMU has it, unless the reply were too long.
    pub fn query_rx_filter(&mut self, name: Option<&str>) -> Result<Vec<RxFilterInfo>, QapiError> {
        if let Some(name) = name {
            let netdev = self.netdevs.get_mut(name).ok_or_else(|| no_client(name))?;
            let Part::Nic(nic) = &mut netdev.part else { return Err(no_nic(name)) };
            nic.is_event_due = true;
            return Ok(with_vlans(vec![RxFilterInfo::new(&nic.filter, name)]));
        }
        for netdev in self.netdevs.values_mut() {
            if let Part::Nic(nic) = &mut netdev.part {
                nic.is_event_due = true;
            }
        }
        let info = |(id, netdev): (&str, &Netdev)| match &netdev.part {
            Part::Nic(nic) => Some(RxFilterInfo::new(&nic.filter, id)),
            _ => None,
        };
        Ok(with_vlans(self.by_age().into_iter().filter_map(info).collect()))
    }

    /// `x-set-rx-filter`: from the next publish on, the nic's port takes what the filter admits.
    pub fn set_rx_filter(&mut self, change: XSetRxFilter) -> Result<(), QapiError> {
        let name = change.name.clone();
        let netdev = self.netdevs.get(&name).ok_or_else(|| no_client(&name))?;
        let Part::Nic(nic) = &netdev.part else { return Err(no_nic(&name)) };
        let filter = change.apply(&nic.filter);
        self.change_filter(&name, filter);
        Ok(())
    }

    /// Takes what the guest of a backend wants to receive, or that there is none who wants anything. It holds for the port
    /// itself while there is no nic, and for whatever nic comes.
    pub(super) fn take_filter(&mut self, id: &str, filter: Option<RxFilter>) {
        let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(id) else { return };
        backend.filter = filter.map(Arc::new);
        self.is_changed = true;
        let Some(nic) = backend.nic.clone() else { return self.replan(id) };
        let wanted = backend.filter.clone();
        if let Some(Netdev { part: Part::Nic(part), .. }) = self.netdevs.get(&nic) {
            let filter = wanted.map_or_else(|| RxFilter::new(part.mac), |wanted| RxFilter::clone(&wanted));
            self.change_filter(&nic, filter);
        }
    }

    /// The driver of a backend's guest takes the nic for a standby.
    pub(super) fn tell_failover(&mut self, id: &str) {
        let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get(id) else { return };
        let nic = backend.nic.clone();
        self.events.extend(nic.map(|device_id| FailoverNegotiated { device_id }.into()));
    }

    /// Gives a nic another filter. The first change since somebody asked for filters is an event.
    pub(super) fn change_filter(&mut self, id: &str, filter: RxFilter) {
        let Some(Netdev { part: Part::Nic(nic), .. }) = self.netdevs.get_mut(id) else { return };
        if *nic.filter == filter {
            return;
        }
        nic.filter = Arc::new(filter);
        self.is_changed = true;
        let backend = nic.netdev.clone();
        if std::mem::take(&mut nic.is_event_due) {
            let path = format!("/machine/peripheral/{id}/virtio-backend");
            self.events.push(NicRxFilterChanged { name: Some(id.to_owned()), path }.into());
        }
        backend.iter().for_each(|backend| self.replan(backend));
    }
}

/// Lists all VLANs where every one is taken, if a reply has room for that. Its length is counted beforehand: a thousand nics
/// would list four million.
fn with_vlans(mut filters: Vec<RxFilterInfo>) -> Vec<RxFilterInfo> {
    let takes_all = |info: &RxFilterInfo| info.vlan.0 == RxState::All;
    let listing = filters.iter().filter(|info| takes_all(info)).count();
    let bytes = to_qmp_len(&filters) + listing * to_qmp_len(&RxFilterInfo::all_vlans());
    if bytes <= REPLY_BYTES_MAX - AROUND_BYTES {
        filters
            .iter_mut()
            .filter(|info| takes_all(info))
            .for_each(|info| info.vlan_table = RxFilterInfo::all_vlans());
    }
    filters
}

/// Bytes of a value in a reply.
fn to_qmp_len(value: &impl Serialize) -> usize {
    serde_json::to_value(value).map_or(0, |value| to_qmp_line(&value).len())
}

/// What stands around a reply's value, an `id` of moderate length included.
const AROUND_BYTES: usize = 1 << 10;

fn no_client(name: &str) -> QapiError {
    QapiError::generic(format!("invalid net client name: {name}"))
}

fn no_nic(name: &str) -> QapiError {
    QapiError::generic(format!("net client({name}) isn't a NIC"))
}

//! The rx-filters of nics, shown and set.

use std::sync::Arc;

use ringyard_dataplane::filter::RxFilter;

use super::Model;
use super::netdev::{Netdev, Part};
use crate::qapi::QapiError;
use crate::wire::{FailoverNegotiated, NicRxFilterChanged, RxFilterInfo, XSetRxFilter};

impl Model {
    /// `query-rx-filter`: of one nic, or of all, oldest first. Their next changes are events again.
    pub fn query_rx_filter(&mut self, name: Option<&str>) -> Result<Vec<RxFilterInfo>, QapiError> {
        if let Some(name) = name {
            let netdev = self.netdevs.get_mut(name).ok_or_else(|| no_client(name))?;
            let Part::Nic(nic) = &mut netdev.part else { return Err(no_nic(name)) };
            nic.is_event_due = true;
            return Ok(vec![RxFilterInfo::new(&nic.filter, name)]);
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
        Ok(self.by_age().into_iter().filter_map(info).collect())
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
        let backend = nic.netdev.clone();
        if std::mem::take(&mut nic.is_event_due) {
            let path = format!("/machine/peripheral/{id}/virtio-backend");
            self.events.push(NicRxFilterChanged { name: Some(id.to_owned()), path }.into());
        }
        backend.iter().for_each(|backend| self.replan(backend));
    }
}

fn no_client(name: &str) -> QapiError {
    QapiError::generic(format!("invalid net client name: {name}"))
}

fn no_nic(name: &str) -> QapiError {
    QapiError::generic(format!("net client({name}) isn't a NIC"))
}

//! The rx-filters of nics, shown and set.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Model;
use super::netdev::{Netdev, NicPart, Part};
use crate::qapi::QapiError;
use crate::wire::{XSetRxFilter, rx_filter_info};

impl Model {
    /// `query-rx-filter`: of one nic, or of all, oldest first.
    pub fn query_rx_filter(&self, name: Option<&str>) -> Result<Value, QapiError> {
        if let Some(name) = name {
            let netdev = self.netdevs.get(name).ok_or_else(|| no_client(name))?;
            let nic = nic_part(&netdev.part).ok_or_else(|| no_nic(name))?;
            return Ok(json!([rx_filter_info(&nic.filter, name)]));
        }
        let info = |(id, netdev): (&str, &Netdev)| Some(rx_filter_info(&nic_part(&netdev.part)?.filter, id));
        Ok(self.by_age().into_iter().filter_map(info).collect())
    }

    /// `x-set-rx-filter`: from the next publish on, the nic's port takes what the filter admits.
    pub fn set_rx_filter(&mut self, change: XSetRxFilter) -> Result<(), QapiError> {
        let name = change.name.clone();
        let netdev = self.netdevs.get_mut(&name).ok_or_else(|| no_client(&name))?;
        let Part::Nic(nic) = &mut netdev.part else { return Err(no_nic(&name)) };
        nic.filter = Arc::new(change.apply(&nic.filter));
        if let Some(backend) = nic.netdev.clone() {
            self.replan(&backend);
        }
        Ok(())
    }
}

fn nic_part(part: &Part) -> Option<&NicPart> {
    match part {
        Part::Nic(nic) => Some(nic),
        _ => None,
    }
}

fn no_client(name: &str) -> QapiError {
    QapiError::generic(format!("invalid net client name: {name}"))
}

fn no_nic(name: &str) -> QapiError {
    QapiError::generic(format!("net client({name}) isn't a NIC"))
}

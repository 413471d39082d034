//! `query-netdev`: the backends, as they could be added again.

use serde_json::{Value, json};

use super::Model;
use super::netdev::{Backend, Driver, Netdev, Part};

impl Model {
    /// `query-netdev`, newest first; nics and hub ports are no backends.
    pub fn query_netdev(&self) -> Value {
        let info = |(_, netdev): (&str, &Netdev)| match &netdev.part {
            Part::Backend(backend) => Some(netdev_info(netdev, backend)),
            _ => None,
        };
        self.by_age().into_iter().rev().filter_map(info).collect()
    }
}

fn netdev_info(netdev: &Netdev, backend: &Backend) -> Value {
    let mut members = netdev.spec.members();
    if let Driver::Port(port) = &backend.driver {
        port.complete(&mut members);
    }
    if let Some(peer) = backend.nic.as_ref().or(backend.hubport.as_ref()) {
        members.insert("peer-id".into(), json!(peer));
    }
    members.into()
}

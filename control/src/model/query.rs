//! `query-netdev`: the backends, as they could be added again.

use super::Model;
use super::netdev::{Backend, Driver, Netdev, Part};
use crate::wire::NetdevInfo;

impl Model {
    /// `query-netdev`, newest first; nics and hub ports are no backends.
    pub fn query_netdev(&self) -> Vec<NetdevInfo> {
        let info = |(_, netdev): (&str, &Netdev)| match &netdev.part {
            Part::Backend(backend) => Some(netdev_info(netdev, backend)),
            _ => None,
        };
        self.by_age().into_iter().rev().filter_map(info).collect()
    }
}

fn netdev_info(netdev: &Netdev, backend: &Backend) -> NetdevInfo {
    let mut members = netdev.spec.members();
    if let Driver::Port(port) = &backend.driver {
        port.complete(&mut members);
    }
    NetdevInfo::new(members, backend.nic.as_deref().or(backend.hubport.as_deref()))
}

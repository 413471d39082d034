//! Finding the `user` netdevs that the human monitor's commands are about.

use ringyard_drivers::user::UserControl;

use super::Model;
use super::netdev::{Driver, Netdev, Part};
use crate::open::Job;
use crate::usernet::{NamedNetwork, Usernet};
use crate::wire::{host_forward, host_forward_end};

impl Model {
    /// `hostfwd_add`. Errors: what the monitor prints.
    pub fn hostfwd_add(&self, id: Option<&str>, rule: &str) -> Result<Job, String> {
        let network = self.user_network(id)?;
        let forward = host_forward(rule).map_err(|error| format!("{error}\r\n"))?;
        Ok(Job::Usernet(Usernet::AddHostForward { network, forward }))
    }

    /// `hostfwd_remove`. Errors: what the monitor prints.
    pub fn hostfwd_remove(&self, id: Option<&str>, text: &str) -> Result<Job, String> {
        let network = self.user_network(id)?;
        let end = host_forward_end(text).ok_or("invalid format\r\n")?;
        Ok(Job::Usernet(Usernet::RemoveHostForward { network, end, text: text.to_owned() }))
    }

    /// `info usernet`
    pub fn info_usernet(&self) -> Job {
        let networks = self.by_age().into_iter().filter_map(|(id, netdev)| {
            let network = control_of(netdev)?;
            let Part::Backend(backend) = &netdev.part else { return None };
            Some(NamedNetwork { id: id.to_owned(), hub: self.hub_of(backend), network })
        });
        Job::Usernet(Usernet::Connections(networks.collect()))
    }

    /// The one that is named, or the oldest.
    fn user_network(&self, id: Option<&str>) -> Result<UserControl, String> {
        let Some(id) = id else {
            let found = self.by_age().into_iter().find_map(|(_, netdev)| control_of(netdev));
            return found.ok_or_else(|| "user mode network stack not in use\r\n".to_owned());
        };
        let netdev = self.netdevs.get(id).ok_or_else(|| format!("unrecognized netdev id '{id}'\r\n"))?;
        control_of(netdev).ok_or_else(|| "invalid device specified\r\n".to_owned())
    }
}

fn control_of(netdev: &Netdev) -> Option<UserControl> {
    match &netdev.part {
        Part::Backend(backend) => match &backend.driver {
            Driver::Port(port) => port.user_control(),
            Driver::VhostUser { .. } => None,
        },
        _ => None,
    }
}

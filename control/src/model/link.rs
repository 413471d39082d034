//! Links, and the plan that a port's objects add up to.

use ringyard_dataplane::switch::PortPlan;
use ringyard_drivers::vhost_user::NicState;

use super::Model;
use super::netdev::{Backend, Driver, Netdev, NicPart, Part};
use crate::qapi::QapiError;
use crate::wire::SetLink;

impl Model {
    /// `set_link`: on a netdev it holds for the nic too, on a nic or a hub port for that alone. What it says stays until
    /// it says otherwise, whoever comes and goes.
    pub fn set_link(&mut self, set: &SetLink) -> Result<(), QapiError> {
        let netdev = self.netdevs.get_mut(&set.name);
        let netdev = netdev.ok_or_else(|| QapiError::device_not_found(&set.name))?;
        netdev.link = set.up;
        self.is_changed = true;
        let (backend, nic) = match &netdev.part {
            Part::Backend(backend) => (Some(set.name.clone()), backend.nic.clone()),
            Part::Nic(nic) => (nic.netdev.clone(), None),
            Part::Hubport(port) => (port.netdev.clone(), None),
        };
        if let Some(nic) = nic.and_then(|nic| self.netdevs.get_mut(&nic)) {
            nic.link = set.up;
        }
        backend.iter().for_each(|backend| self.replan(backend));
        Ok(())
    }

    /// Has the guest behind a backend see its nic: by its own front end, and by its monitor if that is followed.
    fn tell_guest(&self, id: &str) {
        let Some(Netdev { part: Part::Backend(backend), link, .. }) = self.netdevs.get(id) else { return };
        let link = self.is_link_up(*link, backend);
        let nic = match backend.nic.as_ref().and_then(|nic| self.netdevs.get(nic)) {
            Some(Netdev { part: Part::Nic(nic), .. }) => Some(nic),
            _ => None,
        };
        if let Driver::VhostUser { port, .. } = &backend.driver {
            port.set_nic(NicState {
                mac: nic.map(|nic| nic.mac),
                standby: nic.is_some_and(|nic| nic.failover),
                link,
            });
        }
        if let Some(NicPart { follower: Some(follower), .. }) = nic {
            follower.follower.set_link(link);
        }
    }

    /// Gives the switch the present plan of a backend; takes effect at the next publish.
    pub(super) fn replan(&mut self, id: &str) {
        let Some(Netdev { part: Part::Backend(backend), link, .. }) = self.netdevs.get(id) else { return };
        let filter = match backend.nic.as_ref().and_then(|nic| self.netdevs.get(nic)) {
            Some(Netdev { part: Part::Nic(nic), .. }) => Some(nic.filter.clone()),
            _ => backend.filter.clone(),
        };
        let (hub, link) = (self.hub_of(backend), self.is_link_up(*link, backend));
        let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(id) else { return };
        let mut attachment = backend.attachment.clone();
        attachment.ingress.extend(backend.announcer.iter().map(|speaker| speaker.end.clone()));
        if link && attachment.carrier {
            // What a port sends while its link is down goes nowhere, and is no traffic of it.
            attachment = backend.captured.wrap(attachment);
        }
        self.switch.set_port(backend.index, PortPlan { hub, link, filter, attachment });
        self.tell_guest(id);
    }

    /// The hub that a backend is on.
    pub(super) fn hub_of(&self, backend: &Backend) -> Option<i32> {
        match &self.netdevs.get(backend.hubport.as_ref()?)?.part {
            Part::Hubport(port) => Some(port.hub),
            _ => None,
        }
    }

    /// Whether a backend, whose own link is `link`, and all that belongs to it are up.
    pub(super) fn is_link_up(&self, link: bool, backend: &Backend) -> bool {
        let others = [&backend.nic, &backend.hubport].into_iter().flatten();
        link && others.filter_map(|id| self.netdevs.get(id)).all(|netdev| netdev.link)
    }
}

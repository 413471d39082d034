//! Announcements of nics: under way by name, each sent at its pace.

use std::collections::BTreeMap;
use std::time::Instant;

use ringyard_dataplane::announce::Announcer;
use ringyard_dataplane::mac::Mac;

use super::Model;
use super::netdev::{Driver, Netdev, Part, Speaker};
use crate::qapi::QapiError;
use crate::wire::AnnounceSelf;

/// Announcements under way, at most.
const TIMERS_MAX: usize = 256;

/// What is under way.
#[derive(Default)]
pub(super) struct Timers(BTreeMap<String, Timer>);

struct Timer {
    announce: AnnounceSelf,
    sent: i64,
    next: Instant,
}

impl Model {
    /// `announce-self`: the first announcement is sent after the next [`Self::publish`], those that follow by
    /// [`Self::announce_due`].
    pub fn announce_self(&mut self, announce: AnnounceSelf) -> Result<(), QapiError> {
        let id = announce.id.clone().unwrap_or_default();
        self.timers.0.remove(&id);
        if announce.rounds == 0 {
            return Ok(());
        }
        if announce.rounds < 0 {
            return Err(QapiError::generic("Parameter 'rounds' expects a non-negative value"));
        }
        if self.timers.0.len() >= TIMERS_MAX {
            let text = format!("too many announcements: at most {TIMERS_MAX} can be under way");
            return Err(QapiError::generic(text));
        }
        self.timers.0.insert(id, Timer { announce, sent: 0, next: Instant::now() });
        self.announce_due();
        Ok(())
    }

    /// When [`Self::announce_due`] has something to do.
    pub fn next_announcement(&self) -> Option<Instant> {
        self.timers.0.values().map(|timer| timer.next).min()
    }

    /// Sends the announcements that are due.
    pub fn announce_due(&mut self) {
        let now = Instant::now();
        let mut timers = std::mem::take(&mut self.timers);
        for timer in timers.0.values_mut().filter(|timer| timer.next <= now) {
            self.announce_nics(&timer.announce);
            timer.sent += 1;
            timer.next = now + timer.announce.pause(timer.sent);
        }
        timers.0.retain(|_, timer| timer.sent < timer.announce.rounds);
        self.timers = timers;
    }

    /// One round: every nic whose links are up speaks once.
    fn announce_nics(&mut self, announce: &AnnounceSelf) {
        let nic = |(id, netdev): (&str, &Netdev)| match &netdev.part {
            Part::Nic(nic) if announce.names(id) => Some((nic.netdev.clone()?, nic.filter.main_mac)),
            _ => None,
        };
        let nics: Vec<(String, Mac)> = self.by_age().into_iter().filter_map(nic).collect();
        for (backend, mac) in &nics {
            if self.announce(backend, *mac) {
                self.ask_guest_to_announce(backend);
            }
        }
    }

    /// A guest that can speaks for itself as well, of addresses that only it knows (VIRTIO_NET_F_GUEST_ANNOUNCE).
    fn ask_guest_to_announce(&self, id: &str) {
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get(id)
            && let Driver::VhostUser { port, .. } = &backend.driver
        {
            port.announce();
        }
    }

    /// Has a port announce `mac`, if its links are up; whether they are.
    pub(super) fn announce(&mut self, id: &str, mac: Mac) -> bool {
        let Some(Netdev { part: Part::Backend(backend), link, .. }) = self.netdevs.get(id) else {
            return false;
        };
        if !backend.attachment.carrier || !self.is_link_up(*link, backend) {
            return false;
        }
        if let Some(speaker) = &backend.announcer {
            speaker.announcer.announce(mac);
            return true;
        }
        let announcer = match Announcer::new() {
            Ok(announcer) => announcer,
            Err(error) => {
                tracing::warn!("announcing {mac} on netdev '{id}': {error}");
                return true;
            }
        };
        announcer.announce(mac);
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(id) {
            backend.announcer = Some(Speaker { end: announcer.end(), announcer });
        }
        self.replan(id);
        true
    }
}

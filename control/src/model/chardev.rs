//! Chardevs: sockets that wait for a netdev to use them.

use std::path::Path;
use std::sync::Arc;

use ringyard_drivers::chardev::SocketChardev;

use super::record::Kind;
use super::{Model, OBJECTS_MAX};
use crate::open::Job;
use crate::qapi::QapiError;
use crate::wire::{ChardevAdd, ChardevInfo, ChardevSpec};

/// An open chardev.
pub(super) struct Chardev {
    pub(super) spec: ChardevSpec,
    socket: Arc<SocketChardev>,
    /// The one netdev that uses it.
    pub(super) user: Option<String>,
    /// A configuration made it, or has it too.
    pub(super) is_configured: bool,
}

impl Chardev {
    /// Where its socket is.
    pub(super) fn path(&self) -> &Path {
        &self.spec.path
    }

    /// Whether somebody is at the other end.
    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_connected()
    }
}

impl Model {
    /// `chardev-add`: reserves the id and yields the job that opens the socket.
    pub fn chardev_add(&mut self, add: ChardevAdd) -> Result<Job, QapiError> {
        self.check_chardev_id(&add.id)?;
        self.add_chardev(add.resolve()?)
    }

    /// The same for what the command line resolved.
    pub fn add_chardev(&mut self, spec: ChardevSpec) -> Result<Job, QapiError> {
        self.check_chardev_id(&spec.id)?;
        if self.chardevs.len() + self.opening_chardevs.len() >= OBJECTS_MAX {
            return Err(QapiError::generic(format!("too many chardevs: at most {OBJECTS_MAX} are possible")));
        }
        self.opening_chardevs.insert(spec.id.clone());
        let drawer = self.store.drawer(format_args!("chardev/{}", spec.id));
        let is_restored = self.remembered.has(Kind::Chardev, &spec.id);
        Ok(Job::OpenChardev { spec, access: self.access.clone(), drawer, is_restored })
    }

    pub(super) fn finish_chardev(
        &mut self,
        spec: ChardevSpec,
        opened: Result<Arc<SocketChardev>, String>,
    ) -> Result<(), QapiError> {
        self.opening_chardevs.remove(&spec.id);
        let failed = |why: String| QapiError::generic(format!("Failed to add chardev '{}': {why}", spec.id));
        let socket = opened.map_err(failed)?;
        let chardev = Chardev { socket, user: None, is_configured: false, spec };
        let id = chardev.spec.id.clone();
        self.chardevs.insert(id.clone(), chardev);
        self.recall(Kind::Chardev, &id);
        Ok(())
    }

    /// `chardev-remove`: closes a socket that no netdev uses.
    pub fn chardev_remove(&mut self, id: &str) -> Result<(), QapiError> {
        let chardev = self.chardevs.get(id);
        let chardev = chardev.ok_or_else(|| QapiError::generic(format!("Chardev '{id}' not found")))?;
        if chardev.user.is_some() {
            return Err(QapiError::generic(format!("Chardev '{id}' is busy")));
        }
        // A netdev that was just deleted may hold the socket for a moment longer; its path is free now.
        chardev.socket.remove_file();
        self.chardevs.remove(id);
        self.gone.push(format!("chardev/{id}"));
        self.is_changed = true;
        Ok(())
    }

    /// Removes all chardevs. No netdev may be left.
    pub(super) fn clear_chardevs(&mut self) {
        let chardevs = std::mem::take(&mut self.chardevs);
        self.gone.extend(chardevs.keys().map(|id| format!("chardev/{id}")));
        chardevs.values().for_each(|chardev| chardev.socket.remove_file());
    }

    /// `query-chardev`
    pub fn query_chardev(&self) -> Vec<ChardevInfo> {
        let info = |(id, chardev): (&String, &Chardev)| ChardevInfo {
            label: id.clone(),
            filename: chardev.spec.filename(chardev.is_connected()),
            frontend_open: chardev.user.is_some(),
        };
        self.chardevs.iter().map(info).collect()
    }

    /// The socket of a chardev that nobody uses yet.
    pub(super) fn free_chardev(&self, id: &str) -> Result<Arc<SocketChardev>, QapiError> {
        let chardev = self.chardevs.get(id);
        let chardev = chardev.ok_or_else(|| QapiError::generic(format!("chardev \"{id}\" not found")))?;
        match chardev.user {
            Some(_) => Err(QapiError::generic(format!("Device '{id}' is in use"))),
            None => Ok(chardev.socket.clone()),
        }
    }

    /// Notes which netdev uses a chardev from now on.
    pub(super) fn set_chardev_user(&mut self, id: &str, user: Option<&str>) {
        if let Some(chardev) = self.chardevs.get_mut(id) {
            chardev.user = user.map(str::to_owned);
        }
    }

    fn check_chardev_id(&self, id: &str) -> Result<(), QapiError> {
        if self.chardevs.contains_key(id) || self.opening_chardevs.contains(id) {
            return Err(QapiError::generic(format!("Chardev with id '{id}' already exists")));
        }
        Ok(())
    }
}

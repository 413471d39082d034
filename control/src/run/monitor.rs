//! A monitor: where its clients come from, and the descriptors that its clients named with `getfd`.
//!
//! Names belong to the monitor, not to the client: they outlast a connection, as in QEMU.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use ringyard_drivers::chardev::SocketAccess;
use ringyard_drivers::errno;
use ringyard_drivers::store::Drawer;
use ringyard_drivers::stream::Address;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::client::Client;
use super::origin::{Origin, is_exposed};
use super::{Control, MONITORS, Stopper};
use crate::cli::{MonitorConfig, MonitorSource};
use crate::json::Layout;
use crate::qapi::QapiError;
use crate::wire::check_fd_name;

/// Descriptors that a monitor keeps, at most.
const NAMED_FDS_MAX: usize = 256;

/// See the module.
pub(super) struct Monitor {
    /// As it was asked for.
    pub(super) config: MonitorConfig,
    /// Where its clients come from.
    pub(super) origin: Origin,
    /// It has no more clients than it has now, and goes with the last one.
    pub(super) is_leaving: bool,
    /// What to call it: the option's value, with the port that it got.
    pub(super) place: String,
    /// How its clients are written to.
    pub(super) layout: Layout,
    names: NamedFds,
}

/// A monitor to be opened beside control, or what came of that.
pub struct OpenedMonitor {
    config: MonitorConfig,
    opened: Result<(Origin, Option<OwnedFd>), String>,
}

impl OpenedMonitor {
    /// Opens a monitor; may take as long as a name server does, unless `stopper` is used. A listener outlives this process in
    /// `drawer`; one that was left there is not made again.
    pub fn open(
        config: MonitorConfig,
        access: &SocketAccess,
        stopper: &Stopper,
        drawer: Drawer,
    ) -> OpenedMonitor {
        let opened = Origin::open(&config.source, access, stopper, drawer);
        OpenedMonitor { config, opened }
    }

    /// One whose only client is there.
    pub(super) fn of_client(config: MonitorConfig, socket: OwnedFd) -> OpenedMonitor {
        OpenedMonitor { config, opened: Ok((Origin::Given, Some(socket))) }
    }

    /// One that cannot be opened.
    pub fn refused(config: MonitorConfig, why: String) -> OpenedMonitor {
        OpenedMonitor { config, opened: Err(why) }
    }

    /// As it was asked for.
    pub(super) fn config(&self) -> &MonitorConfig {
        &self.config
    }
}

impl Control {
    /// Has the monitor serve clients from now on. Errors: why it was not opened, or cannot be watched.
    pub(super) fn insert_monitor(&mut self, opened: OpenedMonitor) -> Result<(), String> {
        let (origin, client) = opened.opened?;
        let monitor = Monitor::new(&opened.config, origin);
        if monitor.origin.inet_address().is_some_and(is_exposed) {
            tracing::warn!(
                "monitor on {}: QMP has no authentication, and whoever reaches that address controls this switch",
                monitor.place
            );
        }
        let number = self.next_monitor;
        self.next_monitor += 1;
        if let Some(fd) = monitor.origin.fd() {
            let token = EventData::new_u64(MONITORS + number as u64);
            epoll::add(&self.epoll, fd, token, EventFlags::IN)
                .map_err(|error| format!("watching a monitor: {error}"))?;
        }
        self.monitors.insert(number, monitor);
        self.succession.is_changed = true;
        client.into_iter().for_each(|socket| self.add_client(socket, number));
        Ok(())
    }

    /// Has the monitor of this configuration take no more clients. Those it has are answered what they asked, and let go.
    pub(super) fn retire_monitor(&mut self, config: &MonitorConfig) {
        let is_it = |monitor: &Monitor| !monitor.is_leaving && monitor.config == *config;
        let mut monitors = self.monitors.iter_mut();
        let Some((&number, monitor)) = monitors.find(|(_, monitor)| is_it(monitor)) else { return };
        // Closing its socket takes it out of epoll, but for an inherited one.
        if let Some(fd) = monitor.origin.fd() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        (monitor.origin, monitor.is_leaving) = (Origin::Given, true);
        self.succession.monitor_drawer(config).forget_all();
        self.succession.is_changed = true;
        let clients = self.clients.values_mut().filter(|client| client.monitor == number);
        clients.for_each(Client::end);
    }
}

/// Descriptors by name.
#[derive(Default)]
pub(super) struct NamedFds(BTreeMap<String, OwnedFd>);

impl Monitor {
    /// The monitor that `config` describes.
    pub(super) fn new(config: &MonitorConfig, origin: Origin) -> Monitor {
        let place = match (&config.source, origin.inet_address()) {
            (MonitorSource::Listen { address: Address::Unix { path, tight: None }, .. }, _) => path.clone(),
            (MonitorSource::Listen { .. } | MonitorSource::Fd(_), Some(address)) => format!("tcp:{address}"),
            _ => config.to_string(),
        };
        let layout = if config.pretty { Layout::Pretty } else { Layout::Line };
        let (config, names) = (config.clone(), NamedFds::default());
        Monitor { config, origin, is_leaving: false, place, layout, names }
    }

    /// Its named descriptors.
    pub(super) fn names(&mut self) -> &mut NamedFds {
        &mut self.names
    }
}

impl NamedFds {
    /// `getfd`: a name that exists gets the new descriptor.
    pub(super) fn add(&mut self, name: String, passed: Option<OwnedFd>) -> Result<(), QapiError> {
        let none = || QapiError::generic("No file descriptor supplied via SCM_RIGHTS");
        let fd = passed.ok_or_else(none)?;
        check_fd_name(&name)?;
        if self.0.len() >= NAMED_FDS_MAX && !self.0.contains_key(&name) {
            let text = format!("too many file descriptors: a monitor keeps at most {NAMED_FDS_MAX}");
            return Err(QapiError::generic(text));
        }
        self.0.insert(name, fd);
        Ok(())
    }

    /// `closefd`
    pub(super) fn close(&mut self, name: &str) -> Result<(), QapiError> {
        match self.0.remove(name) {
            Some(_) => Ok(()),
            None => Err(QapiError::generic(format!("File descriptor named '{name}' not found"))),
        }
    }

    /// The descriptor of that name, which is used up.
    pub(super) fn take(&mut self, name: &str) -> Result<OwnedFd, QapiError> {
        self.0.remove(name).ok_or_else(|| unknown_name(name))
    }
}

/// The error for a name that no `getfd` gave.
pub(super) fn unknown_name(name: &str) -> QapiError {
    QapiError::generic(format!("File descriptor named '{name}' has not been found"))
}

/// A duplicate of a descriptor that this process was started with; the number itself stays open.
pub(super) fn inherited(number: i32) -> Result<OwnedFd, QapiError> {
    let duplicate = |process: Pid| {
        let process = pidfd_open(process, PidfdFlags::empty())?;
        pidfd_getfd(process, number, PidfdGetfdFlags::empty())
    };
    duplicate(getpid()).map_err(|error| {
        QapiError::generic(format!("Can't use file descriptor {number}: {}", errno::text(error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> Option<OwnedFd> {
        rustix::io::dup(std::io::stderr()).ok()
    }

    fn refused<T>(result: Result<T, QapiError>) -> String {
        result.err().expect("the test asks for what is refused").desc
    }

    #[test]
    fn a_name_is_used_up() {
        let mut names = NamedFds::default();
        names.add("a".into(), fd()).expect("a descriptor came along");
        assert!(names.take("a").is_ok());
        assert_eq!(refused(names.take("a")), "File descriptor named 'a' has not been found");
        assert_eq!(refused(names.close("a")), "File descriptor named 'a' not found");
    }

    #[test]
    fn getfd_wants_a_descriptor_and_a_name() {
        let mut names = NamedFds::default();
        assert_eq!(refused(names.add("a".into(), None)), "No file descriptor supplied via SCM_RIGHTS");
        let digit = "Parameter 'fdname' expects a name not starting with a digit";
        assert_eq!(refused(names.add("1a".into(), fd())), digit);
    }

    #[test]
    fn names_are_limited_but_can_be_given_again() {
        let mut names = NamedFds::default();
        for number in 0..NAMED_FDS_MAX {
            names.add(format!("a{number}"), fd()).expect("there is room");
        }
        assert!(refused(names.add("b".into(), fd())).starts_with("too many file descriptors"));
        assert!(names.add("a0".into(), fd()).is_ok());
    }

    #[test]
    fn a_number_is_a_descriptor_of_this_process() {
        assert!(inherited(2).is_ok());
        let expected = "Can't use file descriptor 2147483647: Bad file descriptor";
        assert_eq!(refused(inherited(i32::MAX)), expected);
    }
}

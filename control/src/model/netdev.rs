//! Netdevs of all kinds, how they come and go, and how they hold on to each other.
//!
//! A backend (vhost-user, tap, …) is a port of the switch. It carries at most one nic, the guest's side of it, and at most
//! one hub port, its place on a hub; these name it, and it knows them.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::announce::Announcer;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::{Attachment, IngressEnd};
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_drivers::capture::Captured;
use ringyard_drivers::line::PortKey;
use ringyard_drivers::vhost_user::{Keeping, VhostUserPort};

use super::record::Kind;
use super::{Model, OBJECTS_MAX};
use crate::follow::{Followed, Follower};
use crate::open::Job;
use crate::port::{OpenPort, Opening, PortSpec};
use crate::qapi::QapiError;
use crate::wire::{FdRef, Hubport, NetdevAdd, NetdevKind, NetdevSpec, NicSpec, VhostUserSpec, mac_of_number};

/// Where the descriptors that options name come from.
pub type FdSource<'a> = dyn FnMut(&FdRef) -> Result<OwnedFd, QapiError> + 'a;

/// Any object of `netdev_add`.
pub(super) struct Netdev {
    /// Grows with age.
    pub(super) serial: u64,
    pub(super) spec: NetdevSpec,
    /// What `set_link` said last.
    pub(super) link: bool,
    /// A configuration made it, or has it too.
    pub(super) is_configured: bool,
    pub(super) part: Part,
}

/// What an object is, and to what it belongs.
pub(super) enum Part {
    Backend(Box<Backend>),
    Nic(NicPart),
    Hubport(HubportPart),
}

/// A port of the switch.
pub(super) struct Backend {
    key: PortKey,
    pub(super) index: PortIndex,
    /// Under which its descriptors outlive this process.
    pub(super) number: u64,
    pub(super) driver: Driver,
    /// What the driver gave last.
    pub(super) attachment: Attachment,
    /// How the driver said last that it stands; until it says so the port itself is asked.
    pub(super) state: Option<String>,
    /// What the guest itself wants to receive, if it told us.
    pub(super) filter: Option<Arc<RxFilter>>,
    pub(super) nic: Option<String>,
    pub(super) hubport: Option<String>,
    /// Speaks for the guest; made when it is first needed.
    pub(super) announcer: Option<Speaker>,
    /// What it is captured in, head first.
    pub(super) captures: Vec<String>,
    /// What wraps its ends for those that are on.
    pub(super) captured: Captured,
}

/// A port that is being opened, with the place that is kept for it.
pub(super) struct Opened {
    spec: NetdevSpec,
    index: PortIndex,
    number: u64,
}

/// What speaks for a guest, and what its port's attachment gets of that.
pub(super) struct Speaker {
    pub(super) announcer: Arc<Announcer>,
    pub(super) end: Arc<IngressEnd>,
}

/// What drives a port.
pub(super) enum Driver {
    VhostUser {
        chardev: String,
        /// Dropping it stops the port's thread.
        port: VhostUserPort,
    },
    Port(Box<dyn OpenPort>),
}

/// The guest's side of a backend.
pub(super) struct NicPart {
    pub(super) netdev: Option<String>,
    /// Its address as it was made; the filter has the one that the guest uses.
    pub(super) mac: Mac,
    /// Its guest may take it for the standby of another.
    pub(super) failover: bool,
    pub(super) filter: Arc<RxFilter>,
    /// Nobody was told that the filter has changed since somebody asked for it.
    pub(super) is_event_due: bool,
    pub(super) follower: Option<NicFollower>,
    /// How `info network` showed the netdev when it was deleted; it goes on showing that.
    pub(super) ghost: Option<String>,
}

/// What follows the monitor of a nic's machine.
pub(super) struct NicFollower {
    pub(super) key: PortKey,
    pub(super) follower: Follower,
    /// How it stands.
    pub(super) state: String,
}

/// A backend's place on a hub, or an empty one.
pub(super) struct HubportPart {
    pub(super) hub: i32,
    pub(super) netdev: Option<String>,
}

impl Model {
    /// `netdev_add`: done at once, unless a job is yielded, whose outcome ends it.
    pub fn netdev_add(&mut self, add: NetdevAdd, fds: &mut FdSource<'_>) -> Result<Option<Job>, QapiError> {
        self.check_netdev_id(&add.id)?;
        self.add_netdev(add.resolve()?, fds)
    }

    /// The same for what the command line resolved.
    pub fn add_netdev(&mut self, spec: NetdevSpec, fds: &mut FdSource<'_>) -> Result<Option<Job>, QapiError> {
        self.check_netdev_id(&spec.id)?;
        match spec.kind.clone() {
            NetdevKind::VhostUser(options) => self.add_vhost_user(spec, options).map(|()| None),
            NetdevKind::Port(port) => self.start_opening(spec, port, fds).map(Some),
            NetdevKind::Hubport(options) => self.add_hubport(spec, options).map(|()| None),
            NetdevKind::Nic(options) => self.add_nic(spec, options).map(|()| None),
        }
    }

    /// `netdev_del`: when the next publish is over, no worker can touch it. The job, if any, is to run after that.
    pub fn netdev_del(&mut self, id: &str) -> Result<Option<Job>, QapiError> {
        let ghost = self.netdevs.get(id).map(|netdev| self.info_line(id, netdev));
        let netdev = self.netdevs.remove(id).ok_or_else(|| QapiError::device_not_found(id))?;
        tracing::debug!("netdev '{id}' is deleted");
        self.is_changed = true;
        self.await_no_more(id);
        match netdev.part {
            Part::Backend(backend) => return Ok(self.remove_backend(id, *backend, ghost)),
            Part::Nic(nic) => {
                nic.follower.iter().for_each(|follower| drop(self.ids.remove(&follower.key)));
                self.detach(nic.netdev, |backend| backend.nic = None);
            }
            Part::Hubport(port) => self.detach(port.netdev, |backend| backend.hubport = None),
        }
        Ok(None)
    }

    fn add_vhost_user(&mut self, spec: NetdevSpec, options: VhostUserSpec) -> Result<(), QapiError> {
        let VhostUserSpec { chardev, queues } = options;
        let socket = self.free_chardev(&chardev)?;
        let index = self.add_port(&spec.id)?;
        let number = self.number_of(&spec.id);
        let keeping = Keeping { store: self.store.clone(), chardev: chardev.clone() };
        if keeping.has_connection() {
            self.await_carrier(&spec.id);
        }
        let key = PortKey(self.next_serial());
        let port = match VhostUserPort::start(socket, queues, self.board.line(key), keeping) {
            Ok(port) => port,
            Err(error) => {
                self.switch.remove_port(index);
                return Err(QapiError::generic(format!("starting the port '{}': {error}", spec.id)));
            }
        };
        self.set_chardev_user(&chardev, Some(&spec.id));
        let driver = Driver::VhostUser { chardev, port };
        self.insert_backend(key, Opened { spec, index, number }, driver, Attachment::default());
        Ok(())
    }

    fn start_opening(
        &mut self,
        spec: NetdevSpec,
        port: Arc<dyn PortSpec>,
        fds: &mut FdSource<'_>,
    ) -> Result<Job, QapiError> {
        let left = self.left_descriptors(&spec.id);
        let mut left = left.map(|drawer| (0..).map(move |index| drawer.take(format_args!("{FD}/{index}"))));
        let mut fd = |reference: &FdRef| {
            let fd = match left.as_mut().map(|left| left.next().flatten()) {
                Some(left) => left.ok_or_else(|| QapiError::generic("its descriptor could not be kept")),
                None => fds(reference),
            };
            fd.map_err(|error| {
                let desc = port.fd_error(match reference {
                    FdRef::Number(_) => format!("{}: {}", spec.id, error.desc),
                    _ => error.desc,
                });
                QapiError { desc, ..error }
            })
        };
        let fds: Result<Vec<OwnedFd>, QapiError> = port.fds().iter().map(&mut fd).collect();
        let (port, fds) = match fds {
            Ok(fds) => (port, fds),
            Err(error) => (port.without_fds(&error.desc).ok_or(error)?, Vec::new()),
        };
        let index = self.add_port(&spec.id)?;
        let number = self.number_of(&spec.id);
        let drawer = self.drawer(number);
        for (index, fd) in fds.iter().enumerate().filter(|(_, fd)| port.can_outlive_us(fd)) {
            drawer.keep(format_args!("{FD}/{index}"), fd);
        }
        let id = spec.id.clone();
        self.opening_netdevs.insert(id.clone(), Opened { spec, index, number });
        let opening = Opening { id, fds, access: self.access.clone(), drawer };
        Ok(Job::OpenPort { spec: port, opening })
    }

    pub(super) fn finish_port(
        &mut self,
        id: &str,
        opened: Result<Box<dyn OpenPort>, String>,
    ) -> Result<(), QapiError> {
        let place = self.opening_netdevs.remove(id).ok_or_else(|| QapiError::device_not_found(id))?;
        let key = PortKey(self.next_serial());
        let started = opened.and_then(|mut port| match port.start(self.board.line(key)) {
            Ok(()) => Ok(port),
            Err(error) => {
                self.closing.push(Job::ClosePort { id: id.to_owned(), port });
                Err(format!("starting the port '{id}': {error}"))
            }
        });
        match started {
            Ok(port) => {
                let attachment = port.attachment();
                self.insert_backend(key, place, Driver::Port(port), attachment);
                Ok(())
            }
            Err(why) => {
                self.switch.remove_port(place.index);
                self.forget_drawer(place.number);
                Err(QapiError::generic(why))
            }
        }
    }

    fn insert_backend(&mut self, key: PortKey, place: Opened, driver: Driver, attachment: Attachment) {
        let Opened { spec, index, number } = place;
        let id = spec.id.clone();
        let backend = Backend {
            key,
            index,
            number,
            driver,
            attachment,
            state: None,
            filter: None,
            nic: None,
            hubport: None,
            announcer: None,
            captures: Vec::new(),
            captured: Captured::default(),
        };
        self.ids.insert(key, id.clone());
        self.insert(spec, Part::Backend(Box::new(backend)));
        self.replan(&id);
    }

    fn add_nic(&mut self, spec: NetdevSpec, options: NicSpec) -> Result<(), QapiError> {
        if self.count(|part| matches!(part, Part::Nic(_))) >= OBJECTS_MAX {
            return Err(QapiError::generic("too many NICs"));
        }
        let (id, netdev) = (spec.id.clone(), options.netdev);
        if let Some(netdev) = &netdev {
            let backend = self.backend_for(netdev, "a nic")?;
            if let Some(other) = &backend.nic {
                return Err(already_connected(netdev, "nic", other));
            }
            backend.nic = Some(id);
        }
        let mac = options.mac.or_else(|| self.remembered_mac(&spec.id)).unwrap_or_else(|| self.free_mac());
        let filter = match netdev.as_ref().and_then(|netdev| self.netdevs.get(netdev)) {
            Some(Netdev { part: Part::Backend(backend), .. }) => backend.filter.clone(),
            _ => None,
        };
        let filter = filter.unwrap_or_else(|| Arc::new(RxFilter::new(mac)));
        let follower = options.follow.map(|followed| self.start_follower(&spec.id, followed, mac));
        let follower = follower.transpose().inspect_err(|_| {
            self.detach(netdev.clone(), |backend| backend.nic = None);
        })?;
        let (netdev_id, failover) = (netdev.clone(), options.failover);
        let (ghost, is_event_due) = (None, true);
        let nic = NicPart { netdev: netdev_id, mac, failover, filter, is_event_due, follower, ghost };
        self.insert(spec, Part::Nic(nic));
        netdev.iter().for_each(|netdev| self.replan(netdev));
        Ok(())
    }

    /// Gives a nic what is said of it now. What is said as before, or no more, stays as the guest left it.
    pub(super) fn change_nic(&mut self, id: &str, options: NicSpec) -> Result<(), QapiError> {
        let Some(Netdev { part: Part::Nic(nic), spec, .. }) = self.netdevs.get_mut(id) else { return Ok(()) };
        let NetdevKind::Nic(old) = &spec.kind else { return Ok(()) };
        let new_mac = options.mac.filter(|_| options.mac != old.mac);
        let mac = new_mac.unwrap_or(nic.filter.main_mac);
        let filter = RxFilter { main_mac: mac, ..(*nic.filter).clone() };
        if old.follow != options.follow {
            let old = nic.follower.take();
            old.iter().for_each(|follower| drop(self.ids.remove(&follower.key)));
            let follower =
                options.follow.map(|followed| self.start_follower(id, followed, mac)).transpose()?;
            if let Some(Netdev { part: Part::Nic(nic), .. }) = self.netdevs.get_mut(id) {
                nic.follower = follower;
            }
        }
        self.change_filter(id, filter);
        Ok(())
    }

    fn start_follower(&mut self, id: &str, followed: Followed, mac: Mac) -> Result<NicFollower, QapiError> {
        let key = PortKey(self.next_serial());
        let follower = Follower::start(followed, mac, true, self.board.line(key));
        let follower = follower
            .map_err(|error| QapiError::generic(format!("starting to follow for '{id}': {error}")))?;
        self.ids.insert(key, id.to_owned());
        Ok(NicFollower { key, follower, state: String::new() })
    }

    fn add_hubport(&mut self, spec: NetdevSpec, options: Hubport) -> Result<(), QapiError> {
        if self.count(|part| matches!(part, Part::Hubport(_))) >= OBJECTS_MAX {
            return Err(QapiError::generic(format!(
                "too many hub ports: at most {OBJECTS_MAX} are possible"
            )));
        }
        let Hubport { hubid: hub, netdev } = options;
        let id = spec.id.clone();
        if let Some(netdev) = &netdev {
            let backend = self.backend_for(netdev, "a hub port")?;
            if let Some(other) = &backend.hubport {
                return Err(already_connected(netdev, "hub port", other));
            }
            backend.hubport = Some(id);
        }
        self.note_hub(hub);
        self.insert(spec, Part::Hubport(HubportPart { hub, netdev: netdev.clone() }));
        netdev.iter().for_each(|netdev| self.replan(netdev));
        Ok(())
    }

    /// Hubs stay when their ports go; so that they cannot pile up, the oldest empty one is forgotten when there are too
    /// many.
    pub(super) fn note_hub(&mut self, hub: i32) {
        if self.hubs.contains(&hub) {
            return;
        }
        if self.hubs.len() >= OBJECTS_MAX {
            let used: HashSet<i32> = self.netdevs.values().filter_map(Netdev::hub).collect();
            if let Some(empty) = self.hubs.iter().position(|hub| !used.contains(hub)) {
                self.switch.forget_hub(self.hubs.remove(empty));
            }
        }
        self.hubs.push(hub);
        self.is_changed = true;
    }

    fn remove_backend(&mut self, id: &str, backend: Backend, ghost: Option<String>) -> Option<Job> {
        self.ids.remove(&backend.key);
        self.switch.remove_port(backend.index);
        self.close_captures(backend.captures);
        self.forget_drawer(backend.number);
        if let Some(Netdev { part: Part::Nic(nic), .. }) = named(&mut self.netdevs, &backend.nic) {
            (nic.netdev, nic.ghost) = (None, ghost);
        }
        if let Some(Netdev { part: Part::Hubport(port), .. }) = named(&mut self.netdevs, &backend.hubport) {
            port.netdev = None;
        }
        match backend.driver {
            Driver::VhostUser { chardev, .. } => {
                self.set_chardev_user(&chardev, None);
                None
            }
            Driver::Port(port) => Some(Job::ClosePort { id: id.to_owned(), port }),
        }
    }

    /// Makes a backend forget a nic or a hub port that is gone.
    fn detach(&mut self, id: Option<String>, forget: impl FnOnce(&mut Backend)) {
        let Some(id) = id else { return };
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(&id) {
            forget(backend);
        }
        self.replan(&id);
    }

    fn insert(&mut self, spec: NetdevSpec, part: Part) {
        let serial = self.next_serial();
        tracing::debug!("netdev '{}' is added", spec.id);
        let id = spec.id.clone();
        self.netdevs.insert(id.clone(), Netdev { serial, spec, link: true, is_configured: false, part });
        self.recall(Kind::Netdev, &id);
    }

    fn add_port(&mut self, id: &str) -> Result<PortIndex, QapiError> {
        if let Some(index) = self.remembered_place(id) {
            return Ok(index);
        }
        let full = |_| QapiError::generic(format!("too many netdevs: a switch has {OBJECTS_MAX} ports"));
        self.switch.add_port().map_err(full)
    }

    fn backend_for(&mut self, id: &str, what: &str) -> Result<&mut Backend, QapiError> {
        let netdev = self.netdevs.get_mut(id);
        match netdev.ok_or_else(|| QapiError::generic(format!("netdev '{id}' not found")))? {
            Netdev { part: Part::Backend(backend), .. } => Ok(backend),
            Netdev { part: Part::Nic(_), .. } => Err(wrong_kind(id, "nic", what)),
            Netdev { part: Part::Hubport(_), .. } => Err(wrong_kind(id, "hub port", what)),
        }
    }

    /// The first default address that no nic has.
    fn free_mac(&self) -> Mac {
        let taken: HashSet<Mac> = self.netdevs.values().filter_map(Netdev::main_mac).collect();
        let mut macs = (MAC_NUMBER_FIRST..).map(mac_of_number);
        macs.find(|mac| !taken.contains(mac)).expect("there are far fewer nics than addresses")
    }

    fn count(&self, kind: impl Fn(&Part) -> bool) -> usize {
        self.netdevs.values().filter(|netdev| kind(&netdev.part)).count()
    }

    fn check_netdev_id(&self, id: &str) -> Result<(), QapiError> {
        if self.netdevs.contains_key(id) || self.opening_netdevs.contains_key(id) {
            return Err(QapiError::duplicate_id(id));
        }
        Ok(())
    }
}

impl Netdev {
    fn hub(&self) -> Option<i32> {
        match &self.part {
            Part::Hubport(port) => Some(port.hub),
            _ => None,
        }
    }

    fn main_mac(&self) -> Option<Mac> {
        match &self.part {
            Part::Nic(nic) => Some(nic.mac),
            _ => None,
        }
    }
}

fn named<'a>(netdevs: &'a mut BTreeMap<String, Netdev>, id: &Option<String>) -> Option<&'a mut Netdev> {
    netdevs.get_mut(id.as_ref()?)
}

/// The error for a netdev that has such an object already.
pub(crate) fn already_connected(netdev: &str, kind: &str, other: &str) -> QapiError {
    QapiError::generic(format!("netdev '{netdev}' is already connected to the {kind} '{other}'"))
}

/// The error for an object that `what` cannot stand on.
pub(crate) fn wrong_kind(id: &str, kind: &str, what: &str) -> QapiError {
    QapiError::generic(format!(
        "netdev '{id}' is a {kind}: {what} stands on a netdev such as vhost-user or tap"
    ))
}

/// What descriptors are kept as that somebody gave us for a port.
pub(super) const FD: &str = "fd";
/// Of 52:54:00:12:34:56.
const MAC_NUMBER_FIRST: u32 = 0x12_3456;

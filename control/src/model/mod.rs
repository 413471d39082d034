//! The one mutable model: every object that the user made, what belongs to what, and the switch that follows it.
//!
//! Only the control thread has it. A command changes objects and the plans of the ports they bear on at once; workers
//! follow at the next [`Model::publish`], so many commands and reports share one. What may block is no part of it: a
//! command that needs it yields a [`Job`](crate::open::Job), and [`Model::finish`] takes what came of that.

mod announce;
mod chardev;
mod difference;
mod fdb;
mod filter;
mod info;
mod link;
mod netdev;
mod object;
mod qom;
mod query;
mod record;
mod stats;
mod usernet;
mod worker;
mod written;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use ringyard_dataplane::counters::PORTS_MAX;
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::switch::{Switch, SwitchConfig, WorkerStatus};
use ringyard_drivers::chardev::SocketAccess;
use ringyard_drivers::line::{News, PortKey, Report, SocketName, Switchboard};
use ringyard_drivers::store::Store;

use crate::open::{Job, Outcome};
use crate::qapi::QapiError;
use crate::wire::{
    Event, InetSocketAddress, NetdevStreamConnected, NetdevStreamDisconnected, NetdevVhostUserConnected,
    NetdevVhostUserDisconnected, ObjectSpec, SocketAddress, UnixSocketAddress, VsockSocketAddress,
};
use announce::Timers;
use chardev::Chardev;
pub use difference::{Difference, ObjectName};
pub(crate) use netdev::FdSource;
use netdev::{Driver, Netdev, NicPart, Opened, Part};
pub(crate) use netdev::{already_connected, wrong_kind};
use object::Capture;
pub(crate) use object::{no_backend, taken_object};
pub use record::Record;
use record::Remembered;

/// Nics, hub ports and chardevs that there can be, of each: as many as ports.
pub const OBJECTS_MAX: usize = PORTS_MAX;

/// See the module.
pub struct Model {
    switch: Switch,
    board: Switchboard,
    access: Arc<SocketAccess>,
    chardevs: BTreeMap<String, Chardev>,
    netdevs: BTreeMap<String, Netdev>,
    /// Chardevs under way: their ids are taken.
    opening_chardevs: BTreeSet<String>,
    /// Netdevs under way, with the places that are kept for them.
    opening_netdevs: BTreeMap<String, Opened>,
    captures: BTreeMap<String, Capture>,
    /// Objects under way: their ids are taken.
    opening_objects: BTreeMap<String, (ObjectSpec, u64)>,
    /// Who reports under which key.
    ids: HashMap<PortKey, String>,
    /// Hubs in the order in which they were made. They stay when their last port goes, as in QEMU.
    hubs: Vec<i32>,
    /// Counts up with every object; also the source of port keys.
    serial: u64,
    /// Drivers to be answered after the next publish.
    answers: Vec<Sender<()>>,
    /// Ports that could not be started and dumps without a netdev, to be closed in good order.
    closing: Vec<Job>,
    timers: Timers,
    events: Vec<Event>,
    /// What is open outlives this process there.
    store: Store,
    /// Something is not as the last record says.
    is_changed: bool,
    /// Names in the store of what is gone.
    gone: Vec<String>,
    /// What is to come again.
    remembered: Remembered,
    /// Addresses that were entered for good, and where they are; what is not there any more is passed over.
    statics: BTreeMap<(i32, Mac), String>,
}

impl Model {
    /// An empty model over a switch that it starts. Counters that a process before this one left in `store` go on.
    pub fn new(config: &SwitchConfig, access: Arc<SocketAccess>, store: Store) -> io::Result<Model> {
        let left = store.take(COUNTERS).map(|file| Switch::resume(config, file));
        let switch = match left.transpose() {
            Ok(Some(switch)) => switch,
            Ok(None) => Switch::start(config)?,
            Err(error) => {
                tracing::warn!("the counters begin anew: {error}");
                Switch::start(config)?
            }
        };
        // That it fails is logged; then there is just no next one.
        let _ = store.keep(COUNTERS, switch.journal_file());
        Ok(Model {
            switch,
            board: Switchboard::new()?,
            access,
            chardevs: BTreeMap::new(),
            netdevs: BTreeMap::new(),
            opening_chardevs: BTreeSet::new(),
            opening_netdevs: BTreeMap::new(),
            captures: BTreeMap::new(),
            opening_objects: BTreeMap::new(),
            ids: HashMap::new(),
            hubs: Vec::new(),
            serial: 0,
            answers: Vec::new(),
            closing: Vec::new(),
            timers: Timers::default(),
            events: Vec::new(),
            store,
            is_changed: true,
            gone: Vec::new(),
            remembered: Remembered::default(),
            statics: BTreeMap::new(),
        })
    }

    /// Becomes readable when drivers have reports for [`Self::take_reports`].
    pub fn reports_fd(&self) -> BorrowedFd<'_> {
        self.board.fd()
    }

    /// Takes in all that drivers reported. They are answered by the next [`Self::publish`].
    pub fn take_reports(&mut self) {
        for report in self.board.drain() {
            self.take_report(report);
        }
    }

    fn take_report(&mut self, report: Report) {
        // A report that is dropped tells its driver that the port is gone.
        let Some(id) = self.ids.get(&report.port).cloned() else { return };
        let backend = match self.netdevs.get_mut(&id) {
            Some(Netdev { part: Part::Backend(backend), .. }) => backend,
            Some(Netdev { part: Part::Nic(_), .. }) => return self.take_nic_report(&id, report.news),
            _ => return,
        };
        let (attachment, done) = match report.news {
            News::Attached { attachment, done } => (attachment, done),
            News::Dropped { frames } => {
                return self.switch.count_ingress_drops(backend.index, DropReason::NoRoom, frames);
            }
            News::State { text } => {
                if !text.is_empty() {
                    tracing::info!("netdev '{id}': {text}");
                }
                backend.state = Some(text);
                return;
            }
            News::Filter { filter, done } => {
                self.answers.extend(done);
                return self.take_filter(&id, Some(*filter));
            }
            News::NoFilter => return self.take_filter(&id, None),
            News::Standby => return self.tell_failover(&id),
            News::Announce { mac } => {
                self.announce(&id, mac);
                return;
            }
            News::Connected { peer } => {
                let connected = NetdevStreamConnected { netdev_id: id, addr: address_of(peer) };
                return self.events.push(connected.into());
            }
            News::Disconnected => {
                return self.events.push(NetdevStreamDisconnected { netdev_id: id }.into());
            }
        };
        let old = std::mem::replace(&mut backend.attachment, attachment);
        let carrier = backend.attachment.carrier;
        if carrier != old.carrier {
            self.is_changed = true;
            self.events.extend(carrier_event(&id, &backend.driver, carrier));
        }
        // The switch holds it too, and hands it to the thread that frees things.
        drop(old);
        self.answers.push(done);
        if carrier {
            self.await_no_more(&id);
        }
        self.replan(&id);
    }

    /// Takes what follows a nic's machine has to say.
    fn take_nic_report(&mut self, id: &str, news: News) {
        match news {
            News::Filter { filter, done } => {
                self.answers.extend(done);
                self.change_filter(id, *filter);
            }
            News::State { text } => {
                if let Some(Netdev { part: Part::Nic(NicPart { follower: Some(follower), .. }), .. }) =
                    self.netdevs.get_mut(id)
                    && follower.state != text
                {
                    tracing::info!("nic '{id}': x-follow: {text}");
                    follower.state = text;
                }
            }
            _ => {}
        }
    }

    /// Who may use the sockets that are made.
    pub fn access(&self) -> SocketAccess {
        *self.access
    }

    /// Says who may use the sockets that are made from now on.
    pub fn set_access(&mut self, access: Arc<SocketAccess>) {
        self.access = access;
    }

    /// Makes the workers follow, then answers the drivers whose reports were taken. Returns the events since the last time.
    pub fn publish(&mut self) -> Vec<Event> {
        self.switch.publish();
        for done in self.answers.drain(..) {
            // The driver's thread may have ended.
            let _ = done.send(());
        }
        std::mem::take(&mut self.events)
    }

    /// Runs `work` on another thread once all that was taken away before the last publish is freed. It must not block.
    pub fn after_reaping(&self, work: impl FnOnce() + Send + 'static) {
        self.switch.after_reaping(work);
    }

    /// Takes in what came of a job; the error is for whoever caused the job.
    pub fn finish(&mut self, outcome: Outcome) -> Result<(), QapiError> {
        match outcome {
            Outcome::Chardev { spec, opened } => self.finish_chardev(spec, opened),
            Outcome::Port { id, opened } => self.finish_port(&id, opened),
            Outcome::Dump { id, opened } => self.finish_dump(&id, opened),
            Outcome::Printed(_) | Outcome::Monitor(_) | Outcome::Config(_) | Outcome::Closed => Ok(()),
        }
    }

    /// Takes everything away; the jobs close what has to be closed beside control, after the next [`Self::publish`].
    pub fn clear(&mut self) -> Vec<Job> {
        let ids: Vec<String> = self.netdevs.keys().cloned().collect();
        let jobs = ids.iter().filter_map(|id| self.netdev_del(id).ok().flatten()).collect();
        self.clear_chardevs();
        jobs
    }

    /// What is to be closed beside control after the next [`Self::publish`], since it was made last.
    pub fn take_closing(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.closing)
    }

    /// How many ports there are.
    pub fn port_count(&self) -> usize {
        self.netdevs.values().filter(|netdev| matches!(netdev.part, Part::Backend(_))).count()
    }

    /// How the workers are doing.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.switch.workers()
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// All netdevs, oldest first.
    fn by_age(&self) -> Vec<(&str, &Netdev)> {
        let mut netdevs: Vec<_> = self.netdevs.iter().map(|(id, netdev)| (id.as_str(), netdev)).collect();
        netdevs.sort_by_key(|(_, netdev)| netdev.serial);
        netdevs
    }
}

/// What the counters are kept as.
const COUNTERS: &str = "counters";

/// What a guest's coming and going looks like to monitors; the carrier of other ports has no event.
fn carrier_event(id: &str, driver: &Driver, carrier: bool) -> Option<Event> {
    let Driver::VhostUser { chardev, .. } = driver else { return None };
    tracing::info!("netdev '{id}': the guest {}", if carrier { "is connected" } else { "is gone" });
    let netdev_id = id.to_owned();
    Some(match carrier {
        true => NetdevVhostUserConnected { netdev_id, chardev_id: chardev.clone() }.into(),
        false => NetdevVhostUserDisconnected { netdev_id }.into(),
    })
}

/// A stream's peer in the words of the schema.
fn address_of(peer: SocketName) -> SocketAddress {
    match peer {
        SocketName::Inet { host, port, ipv6 } => SocketAddress::Inet(InetSocketAddress {
            host,
            port: port.to_string(),
            ipv4: (!ipv6).then_some(true),
            ipv6: ipv6.then_some(true),
            ..InetSocketAddress::default()
        }),
        SocketName::Unix { path, tight } => {
            SocketAddress::Unix(UnixSocketAddress { path, is_abstract: tight.map(|_| true), tight })
        }
        SocketName::Vsock { cid, port } => {
            SocketAddress::Vsock(VsockSocketAddress { cid: cid.to_string(), port: port.to_string() })
        }
    }
}

#[cfg(test)]
mod tests;

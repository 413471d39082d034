//! From a configuration to a run that is ready: workers, the command line's objects, then the monitors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ringyard_dataplane::switch::SwitchConfig;
use ringyard_drivers::chardev::SocketAccess;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::caller::Callers;
use super::command::Asker;
use super::fdset::FdSets;
use super::hands::Hands;
use super::monitor::{OpenedMonitor, inherited, unknown_name};
use super::origin::await_either;
use super::stdio::Stdio;
use super::{CALLS, CLIENTS, Control, KEEPER, Legacy, OUTCOMES, RELOAD, REPORTS, STOP, Stopper, Succession};
use crate::cli::{ConfigSource, MonitorConfig, MonitorSource, Placement, RunConfig};
use crate::model::{Model, ObjectName};
use crate::open::{Job, socket_access};
use crate::qapi::QapiError;
use crate::wire::FdRef;

impl Control {
    /// Starts everything that `config` says. Blocks as long as the objects need to open, unless `stopper` is used.
    ///
    /// Errors: a sentence that begins with the option that cannot be had; then nothing is left.
    pub fn start(config: &RunConfig, stopper: Stopper) -> Result<Control, String> {
        Control::start_with(config, stopper, Legacy::default())
    }

    /// The same, in place of a run before this one if there is something left of it: then `config` is not looked at.
    pub fn start_with(config: &RunConfig, stopper: Stopper, legacy: Legacy) -> Result<Control, String> {
        let began = Instant::now();
        let (succession, left) = Succession::open(&legacy);
        let config = left.as_ref().map_or(config, |left| &left.config).clone();
        let config = &config;
        let access = socket_access(&config.sockets).map_err(|why| format!("--socket-group: {why}"))?;
        let access = Arc::new(access);
        let switch = SwitchConfig { cores: cores(&config.placement)?, mode: config.mode };
        keep_off(&switch.cores);
        allow_descriptors();
        let doing = |what: &'static str| move |error| format!("{what}: {error}");
        let mut model =
            Model::new(&switch, access.clone(), legacy.store).map_err(doing("starting the workers"))?;
        model.set_full_receiver(config.full_receiver);
        let mut control = Control {
            model,
            hands: Hands::new().map_err(doing("making an eventfd"))?,
            stopper,
            epoll: epoll::create(CreateFlags::CLOEXEC)
                .map_err(|error| format!("making an epoll: {error}"))?,
            monitors: BTreeMap::new(),
            next_monitor: 0,
            clients: BTreeMap::new(),
            callers: Callers::new().map_err(doing("making an eventfd"))?,
            stdio: None,
            next_client: CLIENTS,
            name: config.name.clone(),
            fdsets: FdSets::default(),
            asked: BTreeMap::new(),
            next_ticket: 0,
            jobs: Vec::new(),
            deaf_until: None,
            sweep_at: Instant::now(),
            ending: None,
            source: ConfigSource::default(),
            applied: config.clone(),
            reload: None,
            reload_again: false,
            succession,
        };
        let furnished = match left {
            Some(left) => control.restore(left, &access, began, legacy.grace),
            None => control.furnish(config, &access),
        };
        match furnished {
            Ok(()) => {
                control.say_ready();
                Ok(control)
            }
            Err(why) => {
                control.take_down();
                Err(why)
            }
        }
    }

    fn furnish(&mut self, config: &RunConfig, access: &SocketAccess) -> Result<(), String> {
        for spec in &config.chardevs {
            let job = self.model.add_chardev(spec.clone());
            let added = job.and_then(|job| self.finish_now(Some(job)));
            added.map_err(|error| format!("-chardev {}: {error}", spec.id))?;
            self.model.adopt(&ObjectName::of_chardev(&spec.id));
        }
        for set in &config.hubs {
            self.model.set_hub(set).map_err(|error| format!("-hub {}: {error}", set.hubid))?;
        }
        for spec in &config.netdevs {
            let job = self.model.add_netdev(spec.clone(), &mut own_fd);
            let added = job.and_then(|job| self.finish_now(job));
            added.map_err(|error| format!("-netdev {}: {error}", spec.id))?;
            self.model.adopt(&ObjectName::of_netdev(spec));
        }
        for spec in &config.objects {
            let job = self.model.add_object(spec.clone(), &mut own_fd);
            let added = job.and_then(|job| self.finish_now(Some(job)));
            added.map_err(|error| format!("-object {}: {error}", spec.id))?;
            self.model.adopt(&ObjectName::of_object(&spec.id));
        }
        self.model.publish();
        for monitor in &config.monitors {
            self.open_monitor(monitor, access).map_err(|why| match monitor.source {
                MonitorSource::Connect { reconnect: None, .. } => {
                    format!("-qmp {monitor}: {why}; to listen there, add server=on,wait=off")
                }
                _ => format!("-qmp {monitor}: {why}"),
            })?;
        }
        self.watch().map_err(|error| format!("watching descriptors: {error}"))?;
        for (number, monitor) in config.monitors.iter().enumerate() {
            if let MonitorSource::Listen { wait: true, .. } = monitor.source {
                self.await_client(number)?;
            }
        }
        Ok(())
    }

    pub(super) fn open_monitor(
        &mut self,
        config: &MonitorConfig,
        access: &SocketAccess,
    ) -> Result<(), String> {
        if config.source != MonitorSource::Stdio {
            let drawer = self.succession.monitor_drawer(config);
            let opened = OpenedMonitor::open(config.clone(), access, &self.stopper, drawer);
            return self.insert_monitor(opened);
        }
        let (stdio, socket) = Stdio::open().map_err(|error| format!("making a socket: {error}"))?;
        self.stdio = Some(stdio);
        self.insert_monitor(OpenedMonitor::of_client(config.clone(), socket))
    }

    /// Waits for the first client of a monitor.
    fn await_client(&mut self, number: usize) -> Result<(), String> {
        tracing::info!("waiting for a client of the monitor on {}", self.monitors[&number].place);
        while !self.clients.values().any(|client| client.monitor == number) {
            if self.stopper.is_used() {
                let place = &self.monitors[&number].place;
                return Err(format!("-qmp {place}: told to stop while waiting for a client"));
            }
            if let Some(fd) = self.monitors[&number].origin.fd() {
                await_either([fd, self.stopper.fd()]);
            }
            self.accept(number);
        }
        Ok(())
    }

    /// Waits for a job: before the run begins, this thread has nothing else to do. When the stopper ends the wait, the
    /// job is left to [`Self::take_down`].
    fn finish_now(&mut self, job: Option<Job>) -> Result<(), QapiError> {
        let Some(job) = job else { return Ok(()) };
        self.defer(Asker::nobody(), job);
        self.publish();
        loop {
            if let Some((ticket, outcome)) = self.hands.drain().pop() {
                self.asked.remove(&ticket);
                return self.model.finish(outcome);
            }
            if self.stopper.is_used() {
                return Err(QapiError::generic("told to stop while this was being opened"));
            }
            await_either([self.hands.fd(), self.stopper.fd()]);
        }
    }

    pub(super) fn watch(&self) -> rustix::io::Result<()> {
        let sources = [
            (self.model.reports_fd(), REPORTS),
            (self.hands.fd(), OUTCOMES),
            (self.stopper.fd(), STOP),
            (self.stopper.reload_fd(), RELOAD),
            (self.callers.fd(), CALLS),
        ];
        for (fd, token) in sources {
            epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        }
        if let Some(fd) = self.succession.store.keeper() {
            epoll::add(&self.epoll, fd, EventData::new_u64(KEEPER), EventFlags::IN)?;
        }
        Ok(())
    }

    fn say_ready(&mut self) {
        // What is there outlives this process from now on.
        self.write_down();
        self.succession.store.tell("READY=1");
        let count =
            |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let ports = count(self.model.port_count(), "port");
        let workers = count(self.model.workers().len(), "worker");
        let places: Vec<&str> = self.monitors.values().map(|monitor| monitor.place.as_str()).collect();
        match places.is_empty() {
            true => tracing::info!("ready: {ports}, {workers}, no monitor"),
            false => tracing::info!("ready: {ports}, {workers}, monitor on {}", places.join(", ")),
        }
    }
}

/// The cores of the workers. A number of workers leaves their places to the kernel, which knows what else is busy.
fn cores(placement: &Placement) -> Result<Vec<Option<usize>>, String> {
    let cores = match placement {
        Placement::Workers(count) => return Ok(vec![None; *count]),
        Placement::Cores(cores) => cores,
    };
    let allowed =
        sched_getaffinity(None).map_err(|error| format!("--cores: asking for our cores: {error}"))?;
    let usable = |core: usize| core < CpuSet::MAX_CPU && allowed.is_set(core);
    match cores.iter().find(|&&core| !usable(core)) {
        Some(core) => {
            let list: Vec<String> =
                (0..CpuSet::MAX_CPU).filter(|&core| usable(core)).map(|core| core.to_string()).collect();
            Err(format!("--cores: core {core} is not ours to use; these are: {}", list.join(",")))
        }
        None => Ok(cores.iter().copied().map(Some).collect()),
    }
}

/// Takes as many descriptors as we may: the usual limit of 1024 is a few hundred ports. Without them, opening fails.
fn allow_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Leaves the workers' cores to them, if there are others: this thread and all that it starts from now on run elsewhere. A
/// worker that shares its core is put aside for milliseconds whenever somebody makes a port. Workers pin themselves.
fn keep_off(cores: &[Option<usize>]) {
    let Ok(mut ours) = sched_getaffinity(None) else { return };
    cores.iter().flatten().for_each(|&core| ours.unset(core));
    if ours.count() > 0 {
        // Where that is not allowed everything works, only less evenly.
        let _ = sched_setaffinity(None, &ours);
    }
}

/// Descriptors on the command line are inherited ones; there is no monitor that could have named any.
pub(super) fn own_fd(reference: &FdRef) -> Result<std::os::fd::OwnedFd, QapiError> {
    match reference {
        FdRef::Number(number) => inherited(*number),
        FdRef::Name(name) => Err(unknown_name(name)),
        FdRef::Set(id) => FdSets::default().open(*id),
        FdRef::WritableSet(id) => FdSets::default().open_to_write(*id),
    }
}

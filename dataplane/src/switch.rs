//! The running switch, as its one control thread holds it: ports go in and out, and [`Switch::publish`] makes the
//! workers follow.
//!
//! Changes are collected as [`PortPlan`]s and take effect together. Publishing builds the next snapshot out of the parts
//! of the last one that are still true, swaps it in, waits until no worker uses the old one, and gives what is retired
//! to a thread that frees it: unmapping a guest takes longer than anyone should wait.

mod hubs;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::bells::Bells;
use crate::counters::{Journal, PORTS_MAX, PortCounters};
use crate::drops::DropReason;
use crate::fdb::{Fdb, Learning};
use crate::filter::RxFilter;
use crate::grace::{self, Publisher};
pub use crate::hub::HubOptions;
use crate::hub::HubTable;
use crate::port::{Attachment, IngressEnd};
use crate::ring;
use crate::snapshot::{Duty, PortIndex, PortView, Snapshot};
use crate::worker::{self, Mode};
use hubs::Hub;

/// Which cores work, and how.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// A worker each, pinned to this core; `None`: not pinned.
    pub cores: Vec<Option<usize>>,
    /// What idle workers do.
    pub mode: Mode,
}

/// All that the data plane has to know of a port.
#[derive(Clone, Default)]
pub struct PortPlan {
    /// The hub it is on, by the user's number.
    pub hub: Option<i32>,
    /// The administrative link is up.
    pub link: bool,
    /// What its NIC wants; `None` takes everything.
    pub filter: Option<Arc<RxFilter>>,
    /// What its driver gave. Its link is up when the administrative link is and this has a carrier.
    pub attachment: Attachment,
}

/// How a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// It sleeps.
    pub asleep: bool,
    /// Ingresses it polls.
    pub duties: usize,
    /// Ingresses that it gave up because polling them panicked.
    pub panics: u64,
}

/// There are [`PORTS_MAX`] ports already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchFull;

/// There is no worker of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchWorker;

struct WorkerHandle {
    core: Option<usize>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    panics: Arc<AtomicU64>,
}

/// A port, and which worker polls each of its queues.
struct Place {
    plan: PortPlan,
    view: Arc<PortView>,
    workers: BTreeMap<u16, usize>,
    /// What the user chose, started or not.
    chosen: BTreeMap<u16, usize>,
}

/// The switch. Dropping it stops the workers.
pub struct Switch {
    publisher: Publisher<Snapshot>,
    journal: Arc<Journal>,
    workers: Vec<WorkerHandle>,
    stop: Arc<AtomicBool>,
    reaper: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    places: Vec<Option<Place>>,
    hubs: BTreeMap<i32, Hub>,
    /// What was said of hubs, whether they have ports or not.
    learning: BTreeMap<i32, Learning>,
    /// When the clock began by which hubs learn and forget.
    epoch: Instant,
    /// Of hubs that were given some, whether they have ports or not.
    options: BTreeMap<i32, HubOptions>,
    /// Of all others.
    options_default: HubOptions,
    tables: Vec<Arc<HubTable>>,
    duties: Vec<Arc<[Duty]>>,
    changes: Changes,
    /// Nothing is polled.
    is_held: bool,
}

/// What has to be built anew at the next publish.
#[derive(Default)]
struct Changes {
    hubs: BTreeSet<i32>,
    workers: BTreeSet<usize>,
    removed: Vec<PortIndex>,
    /// What the FDBs are to forget: ports that left or went down.
    departed: Vec<(Arc<Fdb>, PortIndex)>,
    moved: BTreeSet<(PortIndex, u16)>,
    any: bool,
}

impl Switch {
    /// Starts the workers, with nothing to do.
    pub fn start(config: &SwitchConfig) -> io::Result<Switch> {
        Switch::start_with(config, Journal::new(config.cores.len())?)
    }

    /// The same in place of a switch that is no more: counters go on in its [`Self::journal_file`], port by port
    /// ([`Self::restore_port`]).
    ///
    /// Errors: as [`Self::start`], and a file of another version.
    pub fn resume(config: &SwitchConfig, journal_file: OwnedFd) -> io::Result<Switch> {
        Switch::start_with(config, Journal::adopt(journal_file, config.cores.len())?)
    }

    fn start_with(config: &SwitchConfig, journal: Journal) -> io::Result<Switch> {
        ring::start_watchdog()?;
        let count = config.cores.len();
        let journal = Arc::new(journal);
        let duties: Vec<Arc<[Duty]>> = (0..count).map(|_| Arc::from([])).collect();
        let (publisher, readers) =
            grace::channel(Snapshot { duties: duties.clone().into(), ..Snapshot::default() }, count);
        let (stop, epoch) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let mut workers = Vec::new();
        for ((index, reader), &core) in readers.into_iter().enumerate().zip(&config.cores) {
            let (journal, stop, mode) = (journal.clone(), stop.clone(), config.mode);
            let panics = Arc::new(AtomicU64::new(0));
            let told = panics.clone();
            let setup = worker::Setup {
                index,
                mode,
                epoch,
                reader,
                journal,
                bells: Bells::new()?,
                stop,
                panics: told,
            };
            let wake = setup.bells.wake();
            let thread = thread::Builder::new().name(format!("worker {index}")).spawn(move || {
                if let Some(id) = core {
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                worker::run(setup);
            })?;
            workers.push(WorkerHandle { core, wake, thread: Some(thread), panics });
        }
        let (reaper, retired) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || retired.into_iter().for_each(|job| job()))?;
        Ok(Switch {
            publisher,
            journal,
            workers,
            stop,
            reaper,
            places: Vec::new(),
            hubs: BTreeMap::new(),
            learning: BTreeMap::new(),
            epoch,
            options: BTreeMap::new(),
            options_default: HubOptions::default(),
            tables: Vec::new(),
            duties,
            changes: Changes::default(),
            is_held: false,
        })
    }

    /// A place for a new port, on no hub and with its counters at 0.
    pub fn add_port(&mut self) -> Result<PortIndex, SwitchFull> {
        let free = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if free == PORTS_MAX {
            return Err(SwitchFull);
        }
        self.journal.clear(free);
        Ok(self.place_port(free))
    }

    /// The place `port`, which a port had in the switch before this one, with its counters as they were.
    ///
    /// Errors: there is no such place, or it is taken.
    pub fn restore_port(&mut self, port: PortIndex) -> Result<PortIndex, SwitchFull> {
        let free = port.at();
        if free >= PORTS_MAX || self.places.get(free).is_some_and(Option::is_some) {
            return Err(SwitchFull);
        }
        self.journal.take_over(free);
        Ok(self.place_port(free))
    }

    fn place_port(&mut self, free: usize) -> PortIndex {
        self.places.resize_with(self.places.len().max(free + 1), || None);
        let plan = PortPlan::default();
        let view = Arc::new(view(&plan, None));
        self.places[free] = Some(Place { view, plan, workers: BTreeMap::new(), chosen: BTreeMap::new() });
        self.changes.any = true;
        PortIndex(free as u16)
    }

    /// Replaces all that is known of a port; takes effect at the next [`Self::publish`].
    ///
    /// # Panics
    /// If there is no such port.
    pub fn set_port(&mut self, port: PortIndex, plan: PortPlan) {
        let mut place = self.places[port.at()].take().expect("the caller has the port");
        if place.plan.hub != plan.hub {
            self.leave_hub(port, place.plan.hub);
            self.join_hub(port, plan.hub);
        } else if is_up(&place.plan) && !is_up(&plan) {
            self.depart(port, plan.hub);
        }
        self.changes.hubs.extend(plan.hub);
        self.changes.any = true;
        self.changes.workers.extend(place.workers.values());
        let kept: BTreeMap<u16, usize> = std::mem::take(&mut place.workers);
        for end in &plan.attachment.ingress {
            let known = kept.get(&end.queue).or_else(|| place.chosen.get(&end.queue)).copied();
            let worker = known.unwrap_or_else(|| self.least_loaded(&place.workers));
            place.workers.insert(end.queue, worker);
            self.changes.workers.insert(worker);
        }
        let slot = plan.hub.and_then(|hub| self.hubs.get(&hub)).map(|hub| hub.slot);
        place.view = Arc::new(view(&plan, slot));
        let old = std::mem::replace(&mut place.plan, plan);
        self.places[port.at()] = Some(place);
        self.retire_later(old);
    }

    /// Takes a port away at the next [`Self::publish`]; its counters are added to [`Self::retired_counters`].
    ///
    /// # Panics
    /// If there is no such port.
    pub fn remove_port(&mut self, port: PortIndex) {
        self.set_port(port, PortPlan::default());
        self.changes.removed.push(port);
    }

    /// Gives queue `queue` of a port to `worker` for as long as the port lives, whether it is started yet or not; takes
    /// effect at the next [`Self::publish`]. Its frames keep their order, and none is lost.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn move_duty(&mut self, port: PortIndex, queue: u16, worker: usize) -> Result<(), NoSuchWorker> {
        if worker >= self.workers.len() {
            return Err(NoSuchWorker);
        }
        let place = self.places[port.at()].as_mut().expect("the caller has the port");
        place.chosen.insert(queue, worker);
        self.changes.moved.insert((port, queue));
        self.changes.any = true;
        Ok(())
    }

    /// Has workers poll nothing, or everything again; takes effect at the next [`Self::publish`]. What senders have to send
    /// waits where it is.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
        self.changes.workers.extend(0..self.workers.len());
        self.changes.any = true;
    }

    /// The workers that the user chose for queues of a port.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn chosen_workers(&self, port: PortIndex) -> &BTreeMap<u16, usize> {
        &self.places[port.at()].as_ref().expect("the caller has the port").chosen
    }

    /// The worker that polls queue `queue` of a port; `None` while the queue is not started.
    pub fn worker_of(&self, port: PortIndex, queue: u16) -> Option<usize> {
        self.places[port.at()].as_ref()?.workers.get(&queue).copied()
    }

    /// Counts frames of a port that nobody will forward any more, under `reason`.
    pub fn count_ingress_drops(&mut self, port: PortIndex, reason: DropReason, frames: u64) {
        let mut drops = [0; DropReason::COUNT];
        drops[reason as usize] = frames;
        self.journal.control_block(port.at()).count_ingress(frames, 0, 0, 0, &drops);
    }

    /// Makes the workers follow all changes since the last call, and returns when none of them can use anything that
    /// was taken away.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.changes.any) {
            return;
        }
        let moved = self.take_moved();
        if !moved.is_empty() {
            // Taken from one before it is given to the other: of two that have it at once, the late one could silence
            // the doorbell that the other waits for.
            self.follow();
        }
        for (port, queue) in moved {
            let Some(place) = &mut self.places[port.at()] else { continue };
            let worker = place.chosen[&queue];
            place.workers.insert(queue, worker);
            self.changes.workers.insert(worker);
        }
        self.follow();
    }

    /// How often workers were made to follow something.
    pub fn generation(&self) -> u64 {
        self.publisher.generation()
    }

    /// Takes the duties that are to move from the workers that have them.
    fn take_moved(&mut self) -> Vec<(PortIndex, u16)> {
        let mut taken = Vec::new();
        for (port, queue) in std::mem::take(&mut self.changes.moved) {
            let Some(place) = &mut self.places[port.at()] else { continue };
            match place.workers.get(&queue).copied() {
                Some(worker) if worker != place.chosen[&queue] => {
                    place.workers.remove(&queue);
                    self.changes.workers.insert(worker);
                    taken.push((port, queue));
                }
                _ => {}
            }
        }
        taken
    }

    /// One step of [`Self::publish`].
    fn follow(&mut self) {
        for hub in std::mem::take(&mut self.changes.hubs) {
            self.compile(hub);
        }
        let workers = std::mem::take(&mut self.changes.workers);
        let mut changed = Vec::new();
        for worker in workers {
            let duties = self.duties_of(worker);
            if !same_duties(&duties, &self.duties[worker]) {
                self.duties[worker] = duties;
                changed.push(worker);
            }
        }
        let removed = std::mem::take(&mut self.changes.removed);
        let retired = self.publisher.swap(self.snapshot(&removed));
        for &worker in &changed {
            crate::eventfd::add(&*self.workers[worker].wake);
        }
        let old = self.publisher.wait(retired, thread::yield_now);
        // A sleeper whose duties changed is awake by now; it must drop its share before the reaper has the rest.
        for &worker in &changed {
            while !self.publisher.has_caught_up(worker) {
                thread::yield_now();
            }
        }
        // Not before: a worker would have learned them anew from what it still had of the old snapshot.
        for (fdb, port) in std::mem::take(&mut self.changes.departed) {
            fdb.flush(Some(port));
        }
        for port in removed {
            self.journal.retire(port.at());
            self.places[port.at()] = None;
        }
        self.retire_later(old);
    }

    /// Runs `job` on the thread that frees retired parts, after all parts retired so far are freed.
    pub fn after_reaping(&self, job: impl FnOnce() + Send + 'static) {
        // The reaper lives as long as this sender.
        let _ = self.reaper.send(Box::new(job));
    }

    /// The counters of a port.
    pub fn counters(&self, port: PortIndex) -> PortCounters {
        self.journal.port(port.at())
    }

    /// The counters of all ports that were removed, added up.
    pub fn retired_counters(&self) -> PortCounters {
        self.journal.retired()
    }

    /// The file that holds all counters, for whoever keeps it beyond this process.
    pub fn journal_file(&self) -> &OwnedFd {
        self.journal.file()
    }

    /// How the workers are doing.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let status = |(index, worker): (usize, &WorkerHandle)| WorkerStatus {
            core: worker.core,
            asleep: self.publisher.is_asleep(index),
            duties: self.duties[index].len(),
            // Relaxed: a count, written by the worker.
            panics: worker.panics.load(Ordering::Relaxed),
        };
        self.workers.iter().enumerate().map(status).collect()
    }

    fn retire_later(&self, part: impl Send + 'static) {
        self.after_reaping(move || drop(part));
    }

    /// The worker with the fewest duties, those in `also` counted.
    fn least_loaded(&self, also: &BTreeMap<u16, usize>) -> usize {
        let mut load = vec![0; self.workers.len()];
        let placed = self.places.iter().flatten().flat_map(|place| place.workers.values());
        placed.chain(also.values()).for_each(|&worker| load[worker] += 1);
        (0..load.len()).min_by_key(|&worker| load[worker]).unwrap_or(0)
    }

    fn duties_of(&self, worker: usize) -> Arc<[Duty]> {
        let mut duties = Vec::new();
        if self.is_held {
            return duties.into();
        }
        for (index, place) in self.places.iter().enumerate() {
            let Some(place) = place else { continue };
            let mine = |end: &&Arc<IngressEnd>| place.workers.get(&end.queue) == Some(&worker);
            let port = PortIndex(index as u16);
            duties.extend(
                place.plan.attachment.ingress.iter().filter(mine).map(|end| Duty { port, end: end.clone() }),
            );
        }
        duties.into()
    }

    fn snapshot(&self, removed: &[PortIndex]) -> Snapshot {
        let mut ports: Vec<_> =
            self.places.iter().map(|place| place.as_ref().map(|place| place.view.clone())).collect();
        removed.iter().for_each(|port| ports[port.at()] = None);
        Snapshot { ports: ports.into(), hubs: self.tables.clone().into(), duties: self.duties.clone().into() }
    }
}

impl Switch {
    /// Ends the workers, each when it has done the burst that it is at. Nothing is forwarded any more, whatever is published.
    pub fn halt(&mut self) {
        // Relaxed: the ring that follows is a system call, and the join orders the rest.
        self.stop.store(true, Ordering::Relaxed);
        for worker in &mut self.workers {
            crate::eventfd::add(&*worker.wake);
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.halt();
    }
}

fn is_up(plan: &PortPlan) -> bool {
    plan.link && plan.attachment.carrier
}

fn view(plan: &PortPlan, hub: Option<u32>) -> PortView {
    PortView {
        hub,
        silenced: (!is_up(plan)).then_some(DropReason::LinkDown),
        egress: plan.attachment.egress.clone().into(),
    }
}

fn same_duties(a: &[Duty], b: &[Duty]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.port == b.port && Arc::ptr_eq(&a.end, &b.end))
}

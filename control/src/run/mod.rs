//! A run of the switch: one control thread that waits in epoll for monitors, drivers, openers and the wish to stop.
//!
//! Each turn takes in all that is ready, then publishes once, then lets replies out; so what a reply says is true for
//! the workers too, and a hundred reports cost one grace period. Nothing that may block runs here: it leaves as a job for
//! the [`hands`], and only the client that asked for it waits.

mod caller;
mod client;
mod command;
mod config;
mod fdset;
mod hands;
mod monitor;
mod origin;
mod reload;
mod restore;
mod settings;
mod start;
mod stdio;
mod stop;
mod upgrade;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cli::{ConfigSource, RunConfig};
use crate::model::Model;
use crate::open::{Job, Outcome};
use crate::qapi::{QapiError, Word};
use crate::wire::{Event, Shutdown, ShutdownCause};
use caller::Callers;
pub use caller::EVENTS_MAX;
pub(crate) use caller::{Caller, Ended};
use client::Client;
use command::Asker;
use fdset::FdSets;
use hands::{Hands, Ticket};
use monitor::Monitor;
pub use monitor::OpenedMonitor;
use reload::Reload;
use restore::Succession;
pub use restore::{FORMAT, GRACE, Legacy};
use stdio::Stdio;
pub(crate) use stop::ignored_signals;
pub use stop::{Hangup, Stopper};

/// Clients of all monitors together; a further one is hung up on.
pub const CLIENTS_MAX: usize = 64;

/// See the module.
pub struct Control {
    model: Model,
    hands: Hands,
    stopper: Stopper,
    epoll: OwnedFd,
    /// By number; none is used again.
    monitors: BTreeMap<usize, Monitor>,
    next_monitor: usize,
    clients: BTreeMap<u64, Client>,
    callers: Callers,
    /// Behind the clients, so that it goes after them: it writes what they were told.
    stdio: Option<Stdio>,
    next_client: u64,
    /// What `query-name` says.
    name: Option<String>,
    fdsets: FdSets,
    /// Who waits for which job.
    asked: BTreeMap<Ticket, Asker>,
    next_ticket: u64,
    /// Jobs to begin after the next publish.
    jobs: Vec<(Ticket, Job)>,
    /// Until then no client is accepted, since there were no descriptors to be had.
    deaf_until: Option<Instant>,
    /// When hubs next forget what is too old.
    sweep_at: Instant,
    /// Why the run ends.
    ending: Option<ShutdownCause>,
    /// Where the configuration is read again.
    source: ConfigSource,
    /// What the run follows: as it was read last, but for what needs another run.
    applied: RunConfig,
    /// The reload under way.
    reload: Option<Reload>,
    /// It is to be followed by another one.
    reload_again: bool,
    /// What was before this run, and comes after it.
    succession: Succession,
}

impl Control {
    /// Serves until `quit` or the stopper, then takes everything down in good order.
    ///
    /// Errors: only if epoll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let reason = loop {
            let ready = self.wait()?;
            self.turn(&ready);
            if self.succession.is_handed {
                // Nothing is taken down: sockets keep their files, and guests their connections.
                std::mem::forget(self);
                return Ok(());
            }
            if let Some(reason) = self.ending {
                break reason;
            }
        };
        let reason = Word(reason);
        tracing::info!("stopping ({})", reason.name());
        self.succession.store.tell("STOPPING=1");
        self.broadcast(&Shutdown { guest: false, reason }.into());
        for client in self.clients.values_mut() {
            client.flush();
        }
        self.take_down();
        Ok(())
    }

    fn wait(&mut self) -> io::Result<Vec<(u64, EventFlags)>> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let wishes = [self.deaf_until, self.model.next_announcement(), self.succession.next()];
        let until = wishes.into_iter().flatten().fold(self.sweep_at, Instant::min);
        let limit = timespec(until.saturating_duration_since(Instant::now()));
        let count = match epoll::wait(&self.epoll, &mut events, Some(&limit)) {
            Err(Errno::INTR) => 0,
            count => count?,
        };
        if self.deaf_until.is_some_and(|until| until <= Instant::now()) {
            self.deaf_until = None;
            self.listen(EventFlags::IN);
        }
        self.model.announce_due();
        if self.sweep_at <= Instant::now() {
            self.model.sweep();
            self.sweep_at = Instant::now() + SWEEP_PAUSE;
        }
        Ok(events[..count].iter().map(|event| (event.data.u64(), event.flags)).collect())
    }

    fn turn(&mut self, ready: &[(u64, EventFlags)]) {
        for &(token, flags) in ready {
            match token {
                REPORTS => self.model.take_reports(),
                OUTCOMES => self.take_outcomes(),
                CALLS => self.take_calls(),
                STOP => self.ending = Some(ShutdownCause::HostSignal),
                RELOAD => self.hang_up(),
                KEEPER => self.hear_keeper(),
                MONITORS..CLIENTS => self.accept((token - MONITORS) as usize),
                client => {
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.receive(flags);
                    }
                }
            }
        }
        if self.succession.is_handed {
            // There are no workers that could follow anything.
            return;
        }
        self.tend_succession();
        loop {
            self.execute_all();
            self.publish();
            self.callers.flush();
            let relieved = self.clients.values_mut().fold(false, |any, client| client.flush() | any);
            if !relieved || self.ending.is_some() {
                break;
            }
        }
        self.tend_clients();
    }

    /// Executes what clients ask, until each waits for us or we for it.
    fn execute_all(&mut self) {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            while let Some(command) = self.clients.get_mut(&id).and_then(Client::next_command) {
                if let Some(result) = self.execute(id, command) {
                    self.answer(id, result);
                }
                if self.ending.is_some() {
                    return;
                }
            }
        }
    }

    /// Makes the workers follow the model; then jobs may begin, and clients hear of events.
    fn publish(&mut self) {
        for event in self.model.publish() {
            self.broadcast(&event);
        }
        self.write_down();
        for job in self.model.take_closing() {
            self.defer(Asker::nobody(), job);
        }
        for (ticket, job) in self.jobs.drain(..) {
            // What is opened may be what was just closed, and what is closed must have no other owner.
            let inbox = self.hands.inbox();
            self.model.after_reaping(move || inbox.submit(ticket, job));
        }
    }

    fn broadcast(&mut self, event: &Event) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.clients.values_mut().for_each(|client| client.tell(event, now));
        self.callers.tell(event);
    }

    fn take_outcomes(&mut self) {
        for (ticket, outcome) in self.hands.drain() {
            let Some(outcome) = self.take_reload_outcome(ticket, outcome) else {
                self.asked.remove(&ticket);
                continue;
            };
            let printed = match &outcome {
                Outcome::Printed(text) => Some(json!(text)),
                _ => None,
            };
            let result = self.model.finish(outcome).map(|()| json!({}));
            let Some(asker) = self.asked.remove(&ticket) else { continue };
            self.answer(asker.client, printed.map_or_else(|| asker.form.render(result), Ok));
        }
    }

    /// Answers a client's or a caller's command. One that left does not learn what became of it.
    fn answer(&mut self, asker: u64, result: Result<Value, QapiError>) {
        match self.clients.get_mut(&asker) {
            Some(client) => client.answer(result),
            None => self.callers.answer(asker, result),
        }
    }

    /// Has a job done after the next publish; its outcome answers `asker`.
    fn defer(&mut self, asker: Asker, job: Job) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket, asker);
        self.jobs.push((ticket, job));
        ticket
    }

    fn accept(&mut self, monitor: usize) {
        let Some(next_client) = self.monitors.get(&monitor).map(|monitor| monitor.origin.next_client())
        else {
            return;
        };
        match next_client {
            Ok(Some(socket)) => self.add_client(socket, monitor),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("accepting a monitor's client: {error}");
                self.deaf_until = Some(Instant::now() + ACCEPT_PAUSE);
                self.listen(EventFlags::empty());
            }
        }
    }

    fn add_client(&mut self, socket: OwnedFd, monitor: usize) {
        let Monitor { origin, layout, .. } = &self.monitors[&monitor];
        if self.clients.len() >= CLIENTS_MAX {
            tracing::debug!("a monitor's client is turned away: there are {CLIENTS_MAX} already");
            return origin.forget_client();
        }
        let id = self.next_client;
        self.next_client += 1;
        let client = Client::new(socket, monitor, *layout);
        match epoll::add(&self.epoll, client.fd(), EventData::new_u64(id), EventFlags::empty()) {
            Ok(()) => drop(self.clients.insert(id, client)),
            Err(error) => {
                tracing::warn!("watching a monitor's client: {error}");
                origin.forget_client();
            }
        }
    }

    /// Lets go of the clients that are finished, and tells epoll what to wait for with the others.
    fn tend_clients(&mut self) {
        let (epoll, monitors) = (&self.epoll, &self.monitors);
        let before = self.clients.len();
        self.clients.retain(|_, client| {
            let stays = !client.is_finished();
            if !stays {
                // Of an inherited socket there is another descriptor: closing this one is not enough.
                let _ = epoll::delete(epoll, client.fd());
                monitors[&client.monitor].origin.forget_client();
            }
            stays
        });
        let clients = &self.clients;
        let has_client = |number| clients.values().any(|client| client.monitor == number);
        self.monitors.retain(|&number, monitor| !monitor.is_leaving || has_client(number));
        if before > 0 && self.clients.is_empty() {
            self.fdsets.clear();
        }
        for (&id, client) in &mut self.clients {
            let wanted = client.wanted();
            if wanted != client.interest {
                // Cannot fail: the socket was added and is open.
                let _ = epoll::modify(epoll, client.fd(), EventData::new_u64(id), wanted);
                client.interest = wanted;
            }
        }
    }

    /// Sets what is waited for at the monitors' sockets.
    fn listen(&self, flags: EventFlags) {
        for (&number, monitor) in &self.monitors {
            let token = EventData::new_u64(MONITORS + number as u64);
            let Some(fd) = monitor.origin.fd() else { continue };
            // Cannot fail: the socket was added and is open.
            let _ = epoll::modify(&self.epoll, fd, token, flags);
        }
    }

    /// Removes every object, and waits for what has to be closed, for a limited time.
    fn take_down(&mut self) {
        // Socket files first: nobody shall come any more.
        self.monitors.clear();
        let closing = self.model.clear();
        for job in closing {
            self.defer(Asker::nobody(), job);
        }
        self.publish();
        let deadline = Instant::now() + CLOSE_TIME_MAX;
        while !self.asked.is_empty() && Instant::now() < deadline {
            await_readable([self.hands.fd(), self.model.reports_fd()], deadline);
            // Drivers that wait for an answer, and jobs that wait for them.
            self.model.take_reports();
            for (ticket, outcome) in self.hands.drain() {
                self.asked.remove(&ticket);
                // What was still being opened is closed like the rest.
                if let Outcome::Port { id, opened: Ok(port) } = outcome {
                    self.defer(Asker::nobody(), Job::ClosePort { id, port });
                }
            }
            self.publish();
        }
        if !self.asked.is_empty() {
            tracing::warn!(
                "{} ports are not closed in time; their scripts are left running",
                self.asked.len()
            );
        }
        // Whoever starts a switch after one that was told to end wants what the configuration says.
        self.succession.store.forget_all();
    }
}

/// Waits until one of them is.
fn await_readable(fds: [BorrowedFd<'_>; 2], deadline: Instant) {
    let limit = timespec(deadline.saturating_duration_since(Instant::now()));
    // Interrupted, or in time: the caller looks in either case.
    let _ = poll(&mut fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)), Some(&limit));
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// Events taken in one turn.
const EVENTS: usize = 64;
/// Pause after a client could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two turns of forgetting addresses; a wake-up costs microseconds.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a run waits for downscripts.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// What epoll calls the sources: monitors and clients count up from their first.
const REPORTS: u64 = 0;
const OUTCOMES: u64 = 1;
const STOP: u64 = 2;
const RELOAD: u64 = 3;
const CALLS: u64 = 4;
const KEEPER: u64 = 5;
const MONITORS: u64 = 6;
const CLIENTS: u64 = 1 << 32;

#[cfg(test)]
mod tests;

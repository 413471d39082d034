//! Following a configuration that has changed.
//!
//! It is read beside control, with the command line that the run began with, and nothing happens while there is anything
//! wrong with it. Then what goes, what stays and changes, and what needs no opening is done at once, for one publish. What
//! has to be opened waits until all that goes is closed: it may have the same name or place. It is opened all at once, and
//! whatever stands on it follows as it comes. What cannot be made is reported; the rest is done all the same.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use ringyard_drivers::chardev::SocketAccess;

use super::Control;
use super::command::Asker;
use super::hands::Ticket;
use super::start::own_fd;
use crate::cli::{ConfigSource, MonitorConfig, RunConfig};
use crate::model::{Difference, ObjectName};
use crate::open::{Job, Outcome};
use crate::qapi::QapiError;
use crate::wire::{ChardevSpec, NetdevKind, NetdevSpec, ObjectSpec, ReloadReport, ShutdownCause, XReload};

/// See the module.
pub(super) struct Reload {
    /// Who is told besides the log.
    asker: Option<Asker>,
    source: ConfigSource,
    dry_run: bool,
    /// Jobs of this stage.
    waiting: BTreeSet<Ticket>,
    stage: Stage,
    /// To be opened once what goes is closed.
    chardevs: Vec<ChardevSpec>,
    /// Likewise.
    monitors: Vec<MonitorConfig>,
    /// To be added, once what they name is there.
    netdevs: Vec<NetdevSpec>,
    /// To be opened one after the other, once all netdevs are there.
    objects: VecDeque<ObjectSpec>,
    report: ReloadReport,
    /// It is no reload: what the run before had is opened again.
    is_restoring: bool,
}

/// What the jobs of a reload are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Closing,
    Opening,
}

impl Control {
    /// The same run, which reads its configuration from there when it is told to do so again.
    pub fn reloading(mut self, source: ConfigSource) -> Control {
        self.source = source;
        self
    }

    /// `x-reload`: the answer comes later.
    pub(super) fn begin_reload(&mut self, asker: Option<Asker>, request: XReload) -> Result<(), QapiError> {
        if self.reload.is_some() {
            return Err(QapiError::generic("a reload is under way"));
        }
        let source = match request.file {
            Some(file) => self.source.with_file(PathBuf::from(file)),
            None if self.source.file().is_none() => {
                let text = "there is no configuration file: name one with 'file', or start with -c FILE.toml";
                return Err(QapiError::generic(text));
            }
            None => self.source.clone(),
        };
        let ticket = self.defer(Asker::nobody(), Job::ReadConfig(Box::new(source.clone())));
        self.reload = Some(Reload {
            asker,
            source,
            dry_run: request.dry_run.unwrap_or(false),
            waiting: BTreeSet::from([ticket]),
            stage: Stage::Reading,
            chardevs: Vec::new(),
            monitors: Vec::new(),
            netdevs: Vec::new(),
            objects: VecDeque::new(),
            report: ReloadReport::default(),
            is_restoring: false,
        });
        Ok(())
    }

    /// Opens again what the run before had, as far as it could not be had at once.
    pub(super) fn open_later(
        &mut self,
        netdevs: Vec<NetdevSpec>,
        objects: Vec<ObjectSpec>,
        monitors: Vec<MonitorConfig>,
    ) {
        let mut reload = Reload {
            asker: None,
            source: ConfigSource::default(),
            dry_run: false,
            waiting: BTreeSet::new(),
            stage: Stage::Opening,
            chardevs: Vec::new(),
            monitors,
            netdevs,
            objects: objects.into(),
            report: ReloadReport::default(),
            is_restoring: true,
        };
        self.open_all(&mut reload);
        self.advance(reload);
    }

    /// A SIGHUP. Whoever closes the terminal wants an end; during a reload another one is noted.
    pub(super) fn hang_up(&mut self) {
        self.stopper.take_reload();
        if self.stopper.has_lost_terminal() {
            self.ending = Some(ShutdownCause::HostSignal);
        } else if self.reload.is_some() {
            self.reload_again = true;
        } else if let Err(error) = self.begin_reload(None, XReload::default()) {
            tracing::error!("SIGHUP: {error}");
        }
    }

    /// Takes an outcome that the reload under way waits for; gives back any other.
    pub(super) fn take_reload_outcome(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Outcome> {
        let Some(mut reload) = self.reload.take_if(|reload| reload.waiting.remove(&ticket)) else {
            return Some(outcome);
        };
        let name = match outcome {
            Outcome::Config(Ok(read)) => {
                self.follow(reload, read.0, read.1);
                return None;
            }
            Outcome::Config(Err(error)) => {
                self.end_reload(&reload, Err(QapiError::generic(error.in_one_line())));
                return None;
            }
            Outcome::Chardev { ref spec, .. } => ObjectName::of_chardev(&spec.id),
            Outcome::Port { ref id, .. } => ObjectName::of_port(id),
            Outcome::Dump { ref id, .. } => ObjectName::of_object(id),
            Outcome::Monitor(opened) => {
                let name = monitor_name(opened.config());
                if let Err(why) = self.insert_monitor(*opened) {
                    reload.report.fail(&name, &QapiError::generic(why));
                }
                self.advance(reload);
                return None;
            }
            Outcome::Closed | Outcome::Printed(_) => {
                self.advance(reload);
                return None;
            }
        };
        let opened = match &outcome {
            Outcome::Port { id, .. } => Some(id.clone()),
            _ => None,
        };
        match self.model.finish(outcome) {
            Ok(()) => {
                self.adopt(&name, reload.is_restoring);
                opened.iter().for_each(|id| self.model.reattach(id));
            }
            Err(error) => reload.report.fail(&name, &error),
        }
        self.advance(reload);
        None
    }

    /// Begins to follow a configuration in which nothing is wrong.
    fn follow(&mut self, mut reload: Reload, config: RunConfig, access: SocketAccess) {
        let difference = self.model.difference(&config.chardevs, &config.netdevs, &config.objects);
        reload.report = report(&difference);
        let settings = self.changed_settings(&config);
        reload
            .report
            .changed
            .extend(settings.iter().flat_map(|setting| setting.names(&self.applied, &config)));
        let (gone, new) = self.changed_monitors(&config);
        reload.report.deleted.extend(gone.iter().map(monitor_name));
        reload.report.added.extend(new.iter().map(monitor_name));
        reload.report.restart_needed = self.restart_needed(&config);
        if reload.dry_run {
            return self.end_reload(&reload, Ok(()));
        }
        self.source = reload.source.clone();
        self.model.set_access(Arc::new(access));
        settings.into_iter().for_each(|setting| self.set(setting, &config, &mut reload.report));
        let (placement, mode) = (self.applied.placement.clone(), self.applied.mode);
        self.applied = RunConfig { placement, mode, ..config };
        self.succession.is_changed = true;
        gone.iter().for_each(|monitor| self.retire_monitor(monitor));
        reload.monitors = new;
        self.follow_objects(reload, difference);
    }

    fn follow_objects(&mut self, mut reload: Reload, difference: Difference) {
        difference.kept.iter().for_each(|name| self.model.adopt(name));
        for name in &difference.gone_objects {
            // It is there, as below.
            if let Ok(job) = self.model.object_del(&name.id) {
                reload.waiting.insert(self.defer(Asker::nobody(), job));
            }
        }
        for name in &difference.gone_netdevs {
            // It is there: nothing has happened since the difference was taken.
            if let Ok(Some(job)) = self.model.netdev_del(&name.id) {
                reload.waiting.insert(self.defer(Asker::nobody(), job));
            }
        }
        for name in &difference.gone_chardevs {
            if let Err(error) = self.model.chardev_remove(&name.id) {
                reload.report.fail(name, &error);
            }
        }
        for spec in difference.changed {
            let name = ObjectName::of_netdev(&spec);
            if let Err(error) = self.model.change_netdev(spec) {
                reload.report.fail(&name, &error);
            }
        }
        reload.stage = Stage::Closing;
        (reload.chardevs, reload.netdevs) = (difference.new_chardevs, difference.new_netdevs);
        reload.objects = difference.new_objects.into();
        self.advance(reload);
    }

    /// Does what can be done now, and ends when there is no more to wait for.
    fn advance(&mut self, mut reload: Reload) {
        if reload.stage == Stage::Closing && reload.waiting.is_empty() {
            reload.stage = Stage::Opening;
            self.open_all(&mut reload);
        }
        self.add_those_ready(&mut reload);
        if !reload.waiting.is_empty() {
            self.reload = Some(reload);
            return;
        }
        // What they name could not be made: they say so.
        for spec in std::mem::take(&mut reload.netdevs) {
            self.add_now(spec, &mut reload.report, reload.is_restoring);
        }
        while let Some(spec) = reload.objects.pop_front() {
            let name = ObjectName::of_object(&spec.id);
            match self.model.add_object(spec, &mut own_fd) {
                Ok(job) => {
                    reload.waiting.insert(self.defer(Asker::nobody(), job));
                    self.reload = Some(reload);
                    return;
                }
                Err(error) => reload.report.fail(&name, &error),
            }
        }
        self.end_reload(&reload, Ok(()));
    }

    fn open_all(&mut self, reload: &mut Reload) {
        for spec in std::mem::take(&mut reload.chardevs) {
            let name = ObjectName::of_chardev(&spec.id);
            match self.model.add_chardev(spec) {
                Ok(job) => drop(reload.waiting.insert(self.defer(Asker::nobody(), job))),
                Err(error) => reload.report.fail(&name, &error),
            }
        }
        for config in std::mem::take(&mut reload.monitors) {
            let (access, stopper) = (self.model.access(), self.stopper.clone());
            let drawer = self.succession.monitor_drawer(&config);
            let job = Job::OpenMonitor { config, access, stopper, drawer };
            reload.waiting.insert(self.defer(Asker::nobody(), job));
        }
        let is_port = |spec: &mut NetdevSpec| matches!(spec.kind, NetdevKind::Port(_));
        for spec in reload.netdevs.extract_if(.., is_port) {
            let name = ObjectName::of_netdev(&spec);
            match self.model.add_netdev(spec, &mut own_fd) {
                Ok(Some(job)) => drop(reload.waiting.insert(self.defer(Asker::nobody(), job))),
                Ok(None) => {}
                Err(error) => reload.report.fail(&name, &error),
            }
        }
    }

    fn add_those_ready(&mut self, reload: &mut Reload) {
        let (mut left, mut report) = (Vec::new(), std::mem::take(&mut reload.report));
        for spec in std::mem::take(&mut reload.netdevs) {
            match !matches!(spec.kind, NetdevKind::Port(_)) && self.model.has_what_it_names(&spec) {
                true => self.add_now(spec, &mut report, reload.is_restoring),
                false => left.push(spec),
            }
        }
        (reload.netdevs, reload.report) = (left, report);
    }

    /// Makes an object one of the configuration's own, unless it is restored: then it is what it was.
    fn adopt(&mut self, name: &ObjectName, is_restoring: bool) {
        if !is_restoring {
            self.model.adopt(name);
        }
    }

    /// Adds what is no port that has to be opened.
    fn add_now(&mut self, spec: NetdevSpec, report: &mut ReloadReport, is_restoring: bool) {
        let (name, id) = (ObjectName::of_netdev(&spec), spec.id.clone());
        match self.model.add_netdev(spec, &mut own_fd) {
            Ok(_) => {
                self.adopt(&name, is_restoring);
                self.model.reattach(&id);
            }
            Err(error) => report.fail(&name, &error),
        }
    }

    /// Says what came of it, and begins the next one if there was a wish for it.
    fn end_reload(&mut self, reload: &Reload, result: Result<(), QapiError>) {
        if reload.is_restoring {
            return self.end_restoring(&reload.report);
        }
        let file = reload.source.file().unwrap_or("the command line".as_ref()).display();
        match &result {
            Ok(()) if reload.dry_run => {}
            Ok(()) if reload.report.failed.is_empty() => {
                tracing::info!("configuration of {file}: {}", reload.report.summary());
            }
            Ok(()) => tracing::warn!("configuration of {file}: {}", reload.report.summary()),
            Err(error) => tracing::error!("the configuration is not changed: {error}"),
        }
        if let Some(asker) = reload.asker {
            let report = || serde_json::to_value(&reload.report).unwrap_or_default();
            self.answer(asker.client, asker.form.render(result.map(|()| report())));
        }
        if std::mem::take(&mut self.reload_again) {
            // There is a file: one was just read.
            let _ = self.begin_reload(None, XReload::default());
        }
    }
}

impl Control {
    /// What did not come again is gone for good.
    fn end_restoring(&mut self, report: &ReloadReport) {
        for failure in &report.failed {
            tracing::warn!("restoring {}: {}", failure.id, failure.desc);
        }
        self.model.recall_addresses();
        self.model.forget_remembered();
        if std::mem::take(&mut self.reload_again) {
            // There may be no file.
            let _ = self.begin_reload(None, XReload::default());
        }
    }
}

/// What is to be done, as it is told.
fn report(difference: &Difference) -> ReloadReport {
    let chardevs = difference.new_chardevs.iter().map(|spec| ObjectName::of_chardev(&spec.id));
    let objects = difference.new_objects.iter().map(|spec| ObjectName::of_object(&spec.id));
    let made = chardevs.chain(difference.new_netdevs.iter().map(ObjectName::of_netdev)).chain(objects);
    let made: Vec<String> = made.map(|name| name.to_string()).collect();
    let gone =
        difference.gone_chardevs.iter().chain(&difference.gone_netdevs).chain(&difference.gone_objects);
    let gone: Vec<String> = gone.map(ObjectName::to_string).collect();
    let (replaced, added): (Vec<String>, _) = made.into_iter().partition(|name| gone.contains(name));
    let deleted = gone.into_iter().filter(|name| !replaced.contains(name)).collect();
    let changed = difference.changed.iter().map(|spec| ObjectName::of_netdev(spec).to_string()).collect();
    let mut report = ReloadReport { added, deleted, replaced, changed, ..ReloadReport::default() };
    difference.refused.iter().for_each(|(name, error)| report.fail(name, error));
    report
}

/// A monitor as it is told of.
fn monitor_name(config: &MonitorConfig) -> String {
    format!("qmp.{config}")
}

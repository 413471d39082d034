//! A run in place of one that died, or that handed over: from what that one kept to frames that pass as before.
//!
//! What the run before wrote down last is what counts, not the command line. First comes what needs nobody's leave, since
//! its descriptors were kept: guests wait. Until all of it is back, for a limited time, no frame is forwarded, so that none
//! finds its receiver missing. What has to be opened anew follows as it can, as after a reload.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringyard_drivers::chardev::SocketAccess;
use ringyard_drivers::record::Record;
use ringyard_drivers::store::{self, Drawer, Store};
use serde_json::{Map, Value};

use super::Control;
use super::command::Asker;
use super::start::own_fd;
use crate::cli::{self, MonitorConfig, MonitorSource, RunConfig};
use crate::model::{self, ObjectName};
use crate::open::Job;
use crate::qapi::QapiError;
use crate::wire::{NetdevKind, NetdevSpec};

/// The version of what a run leaves to the next one.
pub const FORMAT: u32 = 1;
/// How long frames wait for ports that are not back, unless told otherwise.
pub const GRACE: Duration = Duration::from_millis(200);

/// What a run may have from one before it.
pub struct Legacy {
    /// Where everything outlives this process.
    pub store: Store,
    /// How long frames wait for ports that are not back.
    pub grace: Duration,
    /// How often whoever keeps it wants a sign of life.
    pub watchdog: Option<Duration>,
}

impl Default for Legacy {
    /// Nothing.
    fn default() -> Legacy {
        Legacy { store: Store::none(), grace: GRACE, watchdog: None }
    }
}

impl Legacy {
    /// How often a service manager wants a sign of life from this process (sd_watchdog_enabled(3)): twice as often as it looks.
    pub fn watchdog_of_environment() -> Option<Duration> {
        let number = |variable: &str| std::env::var(variable).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|&limit| limit > 0)?;
        (is_ours || store::has_keeper()).then(|| Duration::from_micros(limit / 2).max(SIGN_PAUSE_MIN))
    }
}

/// What the run before wrote down.
pub(super) struct Left {
    pub(super) config: RunConfig,
    pub(super) record: model::Record,
}

/// What a run has to do with those before and after it.
pub(super) struct Succession {
    pub(super) store: Store,
    /// Where it is written down what there is; none without a keeper.
    journal: Option<Record>,
    /// Something beside the model is not as it was written down.
    pub(super) is_changed: bool,
    /// Until then no frame is forwarded; and since when there is a run.
    held: Option<(Instant, Instant)>,
    /// When nobody can want any more what was left and not taken.
    sweep_at: Option<Instant>,
    /// A service manager wants a sign of life this often, and next at this time.
    watchdog: Option<(Duration, Instant)>,
    /// Who waits for an upgrade.
    pub(super) upgrade_asker: Option<Asker>,
    /// Our keeper is gone.
    pub(super) is_alone: bool,
    /// Everything is the next process's.
    pub(super) is_handed: bool,
}

impl Succession {
    /// Opens the journal, with what the run before wrote down, if that can be read. Else nothing is left of it.
    pub(super) fn open(legacy: &Legacy) -> (Succession, Option<Left>) {
        let mut succession = Succession {
            store: legacy.store.clone(),
            journal: None,
            is_changed: true,
            held: None,
            sweep_at: None,
            watchdog: legacy.watchdog.map(|pause| (pause, Instant::now())),
            upgrade_asker: None,
            is_alone: false,
            is_handed: false,
        };
        if !succession.store.is_there() {
            return (succession, None);
        }
        let left = legacy.store.take(MODEL).and_then(|file| match adopt(file) {
            Ok((journal, left)) => {
                succession.journal = Some(journal);
                succession.sweep_at = Some(Instant::now() + UNTAKEN_TIME);
                Some(left)
            }
            Err(why) => {
                tracing::error!("what the run before left is of no use, and this one begins afresh: {why}");
                None
            }
        });
        if left.is_none() {
            succession.store.forget_untaken();
            match Record::new("ringyard-model", KIND, RECORD_LEN_MAX, 0) {
                Ok((journal, file)) => {
                    succession.journal = Some(journal);
                    // That it fails is logged.
                    let _ = succession.store.keep(MODEL, file);
                }
                Err(error) => tracing::warn!("a next run will not know this one: {error}"),
            }
        }
        (succession, left)
    }

    /// Where a monitor's listener is kept.
    pub(super) fn monitor_drawer(&self, config: &MonitorConfig) -> Drawer {
        self.store.drawer(format_args!("monitor/{config}"))
    }

    /// When [`Control::tend_succession`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let signs = self.watchdog.map(|(_, at)| at);
        [self.held.map(|(until, _)| until), self.sweep_at, signs].into_iter().flatten().min()
    }
}

impl Control {
    /// Makes what was left, as far as that can be done at once; the rest is begun.
    pub(super) fn restore(
        &mut self,
        left: Left,
        access: &SocketAccess,
        began: Instant,
        grace: Duration,
    ) -> Result<(), String> {
        let Left { config, record } = left;
        self.model.remember(record);
        self.model.hold(true);
        for spec in &config.chardevs {
            let job = self.model.add_chardev(spec.clone());
            self.have(&ObjectName::of_chardev(&spec.id), job.map(Some));
        }
        for set in &config.hubs {
            let made = self.model.set_hub(set);
            self.have(&ObjectName::of_port(&format!("hub {}", set.hubid)), made.map(|()| None));
        }
        let mut later = Vec::new();
        for spec in config.netdevs {
            if self.can_be_had_now(&spec) {
                let name = ObjectName::of_netdev(&spec);
                let job = self.model.add_netdev(spec, &mut own_fd);
                self.have(&name, job);
            } else {
                later.push(spec);
            }
        }
        self.model.recall_addresses();
        self.succession.held = Some((Instant::now() + grace, began));
        self.tend_succession();
        self.publish();
        self.watch().map_err(|error| format!("watching descriptors: {error}"))?;
        // A peer that does not answer must keep nobody waiting.
        let calls = |monitor: &MonitorConfig| matches!(monitor.source, MonitorSource::Connect { .. });
        let (calling, others): (Vec<_>, Vec<_>) = config.monitors.into_iter().partition(calls);
        for monitor in others {
            if let Err(why) = self.open_monitor(&monitor, access) {
                tracing::warn!("restoring the monitor {monitor}: {why}");
            }
        }
        self.open_later(later, config.objects, calling);
        Ok(())
    }

    /// Does a job that does not block, on this thread.
    fn have(&mut self, name: &ObjectName, job: Result<Option<Job>, QapiError>) {
        let had = job.and_then(|job| job.map_or(Ok(()), |job| self.model.finish(job.run())));
        if let Err(error) = had {
            tracing::warn!("restoring {name}: {error}");
        }
    }

    fn can_be_had_now(&self, spec: &NetdevSpec) -> bool {
        match spec.kind {
            NetdevKind::Port(_) => self.model.is_left_to_us(spec),
            _ => self.model.has_what_it_names(spec),
        }
    }

    /// Forwards again when everybody is back, or was waited for long enough; lets go of what nobody took.
    pub(super) fn tend_succession(&mut self) {
        let now = Instant::now();
        if let Some((until, began)) = self.succession.held
            && (self.model.is_complete() || until <= now)
        {
            self.succession.held = None;
            self.model.hold(false);
            let milliseconds = began.elapsed().as_secs_f64() * 1e3;
            let late = if self.model.is_complete() { "" } else { ", without some that are not back" };
            tracing::info!("restored: {} ports in {milliseconds:.1} ms{late}", self.model.port_count());
        }
        if let Some((pause, at)) = &mut self.succession.watchdog
            && *at <= now
        {
            *at = now + *pause;
            self.succession.store.tell("WATCHDOG=1");
        }
        if self.succession.sweep_at.is_some_and(|at| at <= now) && self.reload.is_none() {
            self.succession.sweep_at = None;
            let left = self.succession.store.forget_untaken();
            if !left.is_empty() {
                tracing::debug!("kept for nobody: {}", left.join(", "));
            }
        }
    }

    /// Writes down what there is, if it is not what was written last. To be done before anybody is told of it.
    pub(super) fn write_down(&mut self) {
        let is_changed = self.model.take_changed() | std::mem::take(&mut self.succession.is_changed);
        if !is_changed || self.succession.journal.is_none() {
            return self.model.forget_gone();
        }
        let mut record = self.model.record();
        record.settings = self.settings();
        let Some(journal) = &mut self.succession.journal else { return };
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        if journal.write(&bytes).is_err() {
            tracing::warn!("there is too much to be written down: a next run will not know what has changed");
        }
        self.model.forget_gone();
    }

    /// What a file would say beside objects.
    fn settings(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut members)) = serde_json::to_value(self.query_config()) else {
            return Map::new();
        };
        members.retain(|name, _| SETTINGS.contains(&name.as_str()));
        members
    }
}

/// Where a run wrote, and what. Errors: a sentence.
fn adopt(file: OwnedFd) -> Result<(Record, Left), String> {
    let (journal, bytes) = Record::adopt(file, KIND, 0).map_err(|error| error.to_string())?;
    Ok((journal, read(&bytes)?))
}

/// What a run wrote, which is believed as little as what anybody else writes.
fn read(bytes: &[u8]) -> Result<Left, String> {
    let record: model::Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let config = cli::read_members(record.file()).map_err(|error| error.in_one_line())?;
    Ok(Left { config, record })
}

/// What it is kept as.
const MODEL: &str = "model";
/// What is in it.
const KIND: u64 = u64::from_le_bytes(*b"ryModel\0") | (FORMAT as u64) << 56;
/// Bytes of it, at most: some 20 KiB a nic that names VLANs, and less otherwise. Memory is taken as it is used.
const RECORD_LEN_MAX: usize = 32 << 20;

/// Those of a file's members that are no objects.
const SETTINGS: [&str; 4] = ["qmp", "switch", "sockets", "log"];
/// Between two signs of life, at least.
const SIGN_PAUSE_MIN: Duration = Duration::from_millis(10);
/// After this time a port has taken what was left to it.
const UNTAKEN_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Vec<u8> {
        let entry = |id: &str, table: &str, members: Value| json!({"id": id, "table": table, "members": members, "facts": {"is_configured": true, "link": true}});
        let record = json!({
            "settings": {"switch": {"workers": 2}, "log": {"level": "warn"}},
            "serial": 7,
            "chardevs": [entry("c", "chardev", json!({"type": "socket", "id": "c", "path": "p", "server": true}))],
            "hubs": [{"id": 3, "learning": true, "ageing_s": 77}],
            "netdevs": [
                entry("n", "netdev", json!({"type": "vhost-user", "id": "n", "chardev": "c"})),
                entry("g", "nic", json!({"id": "g", "netdev": "n"})),
            ],
            "objects": [],
            "statics": [[3, "52:54:00:00:00:01", "n"]],
        });
        serde_json::to_vec(&record).expect("it has string keys")
    }

    #[test]
    fn what_a_run_wrote_is_a_configuration() {
        let Left { config, .. } = read(&record()).expect("it is whole");
        let ids: Vec<&str> = config.netdevs.iter().map(|spec| spec.id.as_str()).collect();
        assert_eq!((ids, config.chardevs.len(), config.hubs.len()), (vec!["n", "g"], 1, 1));
    }

    #[test]
    fn what_is_garbled_is_an_error_or_another_configuration_and_nothing_worse() {
        let whole = record();
        for at in 0..whole.len() {
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
            for other in [b'"', b'{', b'0', b'-', b'\\', 0xFF] {
                let mut garbled = whole.clone();
                garbled[at] = other;
                let _ = read(&garbled);
            }
        }
    }
}

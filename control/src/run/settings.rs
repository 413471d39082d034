//! What a configuration changes beside objects: settings, how hubs learn, and monitors.

use std::collections::{BTreeMap, BTreeSet};

use ringyard_dataplane::fdb::Learning;

use super::Control;
use crate::cli::{MonitorConfig, MonitorSource, Placement, RunConfig};
use crate::log;
use crate::wire::{ReloadReport, XSetHub};

/// A setting that is to change.
pub(super) enum Setting {
    Name,
    FullReceiver,
    Sockets,
    LogLevel,
    Hub(i32, Learning),
}

impl Control {
    /// The monitors there are.
    pub(super) fn present_monitors(&self) -> Vec<MonitorConfig> {
        let present = self.monitors.values().filter(|monitor| !monitor.is_leaving);
        present.map(|monitor| monitor.config.clone()).collect()
    }

    /// The monitors that go, and those that come. The one on stdio can do neither.
    pub(super) fn changed_monitors(&self, config: &RunConfig) -> (Vec<MonitorConfig>, Vec<MonitorConfig>) {
        let (mut gone, mut new) = (self.present_monitors(), Vec::new());
        for monitor in &config.monitors {
            match gone.iter().position(|present| present == monitor) {
                Some(kept) => drop(gone.remove(kept)),
                None => new.push(monitor.clone()),
            }
        }
        let can_change = |monitor: &MonitorConfig| monitor.source != MonitorSource::Stdio;
        gone.retain(can_change);
        new.retain(can_change);
        (gone, new)
    }

    /// What only a new run can have.
    pub(super) fn restart_needed(&self, new: &RunConfig) -> Vec<String> {
        let old = &self.applied;
        let stdio = |monitors: &[MonitorConfig]| {
            monitors.iter().find(|monitor| monitor.source == MonitorSource::Stdio).cloned()
        };
        let placement = if matches!(new.placement, Placement::Workers(_)) { "workers" } else { "cores" };
        let differs = [
            (old.placement != new.placement, format!("switch.{placement}")),
            (old.mode != new.mode, "switch.mode".to_owned()),
            (stdio(&self.present_monitors()) != stdio(&new.monitors), "qmp.stdio".to_owned()),
        ];
        differs.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
    }

    /// The settings that change.
    pub(super) fn changed_settings(&self, config: &RunConfig) -> Vec<Setting> {
        let old = &self.applied;
        let scalars = [
            (old.name != config.name, Setting::Name),
            (old.full_receiver != config.full_receiver, Setting::FullReceiver),
            (old.sockets != config.sockets, Setting::Sockets),
            (old.log_level != config.log_level, Setting::LogLevel),
        ];
        let scalars = scalars.into_iter().filter_map(|(differs, setting)| differs.then_some(setting));
        let (before, after) = (learning(&old.hubs), learning(&config.hubs));
        let said = |hubs: &BTreeMap<i32, Learning>, hub| hubs.get(&hub).copied().unwrap_or_default();
        let hubs: BTreeSet<i32> = before.keys().chain(after.keys()).copied().collect();
        let hubs = hubs.into_iter().filter(|&hub| {
            let is_new = after.contains_key(&hub) && !self.model.has_hub(hub);
            is_new || said(&before, hub) != said(&after, hub)
        });
        let hubs: Vec<Setting> = hubs.map(|hub| Setting::Hub(hub, said(&after, hub))).collect();
        scalars.chain(hubs).collect()
    }

    /// Changes one.
    pub(super) fn set(&mut self, setting: Setting, config: &RunConfig, report: &mut ReloadReport) {
        match setting {
            Setting::Name => self.name.clone_from(&config.name),
            Setting::FullReceiver => self.model.set_full_receiver(config.full_receiver),
            // Those who make sockets have them already.
            Setting::Sockets => {}
            Setting::LogLevel => log::set_level(config.log_level),
            Setting::Hub(hubid, Learning { is_on, ageing_s }) => {
                let set = XSetHub { hubid, learning: Some(is_on), ageing: Some(ageing_s) };
                if let Err(error) = self.model.set_hub(&set) {
                    report.fail(&format_args!("hub.{hubid}"), &error);
                }
            }
        }
    }
}

impl Setting {
    /// As the file has it.
    pub(super) fn names(&self, old: &RunConfig, new: &RunConfig) -> Vec<String> {
        match self {
            Setting::Name => vec!["switch.name".into()],
            Setting::FullReceiver => vec!["switch.full-receiver".into()],
            Setting::LogLevel => vec!["log.level".into()],
            Setting::Hub(hub, _) => vec![format!("hub.{hub}")],
            Setting::Sockets => {
                let group = (old.sockets.group != new.sockets.group).then(|| "sockets.group".into());
                group
                    .into_iter()
                    .chain((old.sockets.mode != new.sockets.mode).then(|| "sockets.mode".into()))
                    .collect()
            }
        }
    }
}

/// How hubs learn, by what is said of them one after the other.
fn learning(hubs: &[XSetHub]) -> BTreeMap<i32, Learning> {
    let mut learning: BTreeMap<i32, Learning> = BTreeMap::new();
    for set in hubs {
        let hub = learning.entry(set.hubid).or_default();
        hub.is_on = set.learning.unwrap_or(hub.is_on);
        hub.ageing_s = set.ageing.unwrap_or(hub.ageing_s);
    }
    learning
}

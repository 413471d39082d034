//! `x-reload`: reading the configuration again, and what came of it; `x-query-config`: what it would have to be.

use std::fmt;

use serde_json::Value;

use crate::qapi::{QapiError, answer, arguments};

arguments! {
    /// The arguments of `x-reload`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct XReload as "q_obj_x-reload-arg" {
        /// A file to read instead of the present one, and from then on.
        pub file: Option<String>,
        /// Whether only to say what would be done.
        pub dry_run: Option<bool>,
    }
}

arguments! {
    /// The arguments of `x-upgrade`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct XUpgrade as "q_obj_x-upgrade-arg" {
        /// The program that goes on; without, what is there now under the running one's name.
        pub binary: Option<String>,
    }
}

answer! {
    /// What `x-reload` returns: names as a file has them, such as `netdev.t0` and `switch.name`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ReloadReport as "ReloadReport" {
        /// Objects that are new.
        pub added: Vec<String>,
        /// Objects that are gone.
        pub deleted: Vec<String>,
        /// Objects that were made anew.
        pub replaced: Vec<String>,
        /// Objects that changed while they stayed, and settings.
        pub changed: Vec<String>,
        /// What could not be done.
        pub failed: Vec<ReloadFailure>,
        /// Settings that a running switch cannot change.
        pub restart_needed: Vec<String>,
    }
}

answer! {
    /// An object that is not as it shall be.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ReloadFailure as "ReloadFailure" {
        /// As in the lists.
        pub id: String,
        /// Why.
        pub desc: String,
    }
}

answer! {
    /// What `x-query-config` returns: the tables of a configuration file.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ConfigInfo as "ConfigInfo" {
        /// Monitors, as `-qmp` has them.
        pub qmp: Vec<String>,
        /// `[switch]`
        pub switch: SwitchConfig,
        /// `[sockets]`
        pub sockets: SocketsConfig,
        /// `[log]`
        pub log: LogConfig,
        /// `[[chardev]]`
        pub chardev: Vec<Value>,
        /// `[[hub]]`
        pub hub: Vec<Value>,
        /// `[[netdev]]`
        pub netdev: Vec<Value>,
        /// `[[nic]]`
        pub nic: Vec<Value>,
        /// `[[object]]`
        pub object: Vec<Value>,
        /// Objects that no file can make again: their members, the `table` that they would be in, and the `reason`.
        pub unwritable: Vec<Value>,
    }
}

answer! {
    /// The settings of the whole switch.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SwitchConfig as "SwitchConfig" {
        /// What the user calls it.
        pub name: Option<String>,
        /// How many workers there are, if they have no cores of their own.
        pub workers: Option<usize>,
        /// The workers' cores.
        pub cores: Option<String>,
        /// Whether workers sleep.
        pub mode: String,
        /// What becomes of frames for a receiver that is full.
        pub full_receiver: String,
    }
}

answer! {
    /// Who may use the sockets that are made.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SocketsConfig as "SocketsConfig" {
        /// Their group, if it is not the process's.
        pub group: Option<String>,
        /// Their permission bits, in octal.
        pub mode: String,
    }
}

answer! {
    /// What is logged.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LogConfig as "LogConfig" {
        /// From which level on.
        pub level: String,
    }
}

impl ReloadReport {
    /// Notes that something is not as it shall be.
    pub fn fail(&mut self, name: &impl fmt::Display, error: &QapiError) {
        let id = name.to_string();
        for list in [&mut self.added, &mut self.replaced, &mut self.changed] {
            list.retain(|name| *name != id);
        }
        self.failed.push(ReloadFailure { id, desc: error.desc.clone() });
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let failed: Vec<String> =
            self.failed.iter().map(|failure| format!("{} ({})", failure.id, failure.desc)).collect();
        let parts = [
            ("added", &self.added),
            ("deleted", &self.deleted),
            ("replaced", &self.replaced),
            ("changed", &self.changed),
            ("failed", &failed),
            ("restart needed for", &self.restart_needed),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if parts.is_empty() { String::from("nothing has changed") } else { parts.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_not_told_as_done() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut report = ReloadReport { added: names(&["netdev.a", "netdev.b"]), ..ReloadReport::default() };
        assert_eq!(ReloadReport::default().summary(), "nothing has changed");
        report.fail(&"netdev.a", &QapiError::generic("why"));
        report.restart_needed = names(&["switch.mode"]);
        let expected = "added netdev.b; failed netdev.a (why); restart needed for switch.mode";
        assert_eq!(report.summary(), expected);
    }
}

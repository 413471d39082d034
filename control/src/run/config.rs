//! `x-query-config`: what a configuration file would have to say for another run like this one.

use super::Control;
use crate::cli::{Placement, RunConfig};
use crate::qapi::Word;
use crate::wire::{ConfigInfo, LogConfig, SocketsConfig, SwitchConfig};

impl Control {
    /// The settings and objects by the names of the file's tables.
    pub(super) fn query_config(&self) -> ConfigInfo {
        let config = &self.applied;
        let objects = self.model.written();
        ConfigInfo {
            qmp: self.present_monitors().iter().map(ToString::to_string).collect(),
            switch: switch_config(config),
            sockets: SocketsConfig {
                group: config.sockets.group.clone(),
                mode: format!("{:04o}", config.sockets.mode),
            },
            log: LogConfig { level: Word(config.log_level).name().to_owned() },
            chardev: objects.chardevs,
            hub: objects.hubs,
            netdev: objects.netdevs,
            nic: objects.nics,
            object: objects.objects,
            unwritable: objects.unwritable,
        }
    }
}

fn switch_config(config: &RunConfig) -> SwitchConfig {
    let (workers, cores) = match &config.placement {
        Placement::Workers(count) => (Some(*count), None),
        Placement::Cores(cores) => {
            let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
            (None, Some(cores.join(",")))
        }
    };
    SwitchConfig {
        name: config.name.clone(),
        workers,
        cores,
        mode: Word(config.mode).name().to_owned(),
        full_receiver: Word(config.full_receiver).name().to_owned(),
    }
}

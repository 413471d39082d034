//! Everything that may block, as values: the model makes a [`Job`] on the control thread, any other thread runs it, and
//! the model is given its [`Outcome`].

use std::fs;
use std::sync::Arc;

use ringyard_drivers::capture::{Dump, DumpOptions};
use ringyard_drivers::chardev::{self, SocketChardev};
use ringyard_drivers::store::Drawer;

use crate::cli::{self, CliError, ConfigSource, MonitorConfig, RunConfig};
use crate::port::{OpenPort, Opening, PortSpec};
use crate::run::{OpenedMonitor, Stopper};
use crate::usernet::Usernet;
use crate::wire::ChardevSpec;

/// Something to be done beside the control thread.
pub enum Job {
    /// Makes or connects a socket.
    OpenChardev {
        /// What to open.
        spec: ChardevSpec,
        /// Who may use a socket that we make.
        access: Arc<chardev::SocketAccess>,
        /// Where a server outlives this process.
        drawer: Drawer,
        /// A process before this one had it.
        is_restored: bool,
    },
    /// Opens a port.
    OpenPort {
        /// What to open.
        spec: Arc<dyn PortSpec>,
        /// The netdev that waits for it, and what it brings along.
        opening: Opening,
    },
    /// Closes a port that is in use no more.
    ClosePort {
        /// The netdev that it was.
        id: String,
        /// The port.
        port: Box<dyn OpenPort>,
    },
    /// Opens a file to capture frames in.
    OpenDump(DumpOptions),
    /// Closes one that nothing is recorded in any more.
    CloseDump {
        /// The object that it was.
        id: String,
        /// The file.
        dump: Dump,
    },
    /// Asks the helpers of `user` netdevs.
    Usernet(Usernet),
    /// Opens a monitor.
    OpenMonitor {
        /// What to open.
        config: MonitorConfig,
        /// Who may use a socket that we make.
        access: chardev::SocketAccess,
        /// Ends the wait for a name or a peer.
        stopper: Stopper,
        /// Where a listener outlives this process.
        drawer: Drawer,
    },
    /// Reads a configuration again.
    ReadConfig(Box<ConfigSource>),
}

/// What became of a [`Job`].
pub enum Outcome {
    /// Of [`Job::OpenChardev`].
    Chardev {
        /// What was to be opened.
        spec: ChardevSpec,
        /// The socket, or why there is none.
        opened: Result<Arc<SocketChardev>, String>,
    },
    /// Of [`Job::OpenPort`].
    Port {
        /// The netdev.
        id: String,
        /// The port, or why there is none.
        opened: Result<Box<dyn OpenPort>, String>,
    },
    /// Of [`Job::OpenDump`].
    Dump {
        /// The object.
        id: String,
        /// The file, or why there is none.
        opened: Result<Dump, String>,
    },
    /// Of [`Job::Usernet`]: what the human monitor prints.
    Printed(String),
    /// Of [`Job::OpenMonitor`].
    Monitor(Box<OpenedMonitor>),
    /// Of [`Job::ReadConfig`].
    Config(Result<Box<(RunConfig, chardev::SocketAccess)>, CliError>),
    /// Of [`Job::ClosePort`] and [`Job::CloseDump`].
    Closed,
}

impl Job {
    /// Does it; may take as long as a script does.
    pub fn run(self) -> Outcome {
        match self {
            Job::OpenChardev { spec, access, drawer, is_restored } => {
                let opened = match is_restored {
                    true => SocketChardev::restore(&spec.path, spec.role, &access, &drawer),
                    false => SocketChardev::open(&spec.path, spec.role, &access),
                };
                opened.iter().for_each(|socket| socket.keep(&drawer));
                Outcome::Chardev { spec, opened: opened.map_err(|error| error.to_string()) }
            }
            Job::OpenPort { spec, opening } => {
                Outcome::Port { id: opening.id.clone(), opened: spec.open(opening) }
            }
            Job::ClosePort { id, port } => {
                if let Err(why) = port.close() {
                    tracing::warn!("netdev '{id}': {why}");
                }
                Outcome::Closed
            }
            Job::OpenDump(options) => Outcome::Dump { id: options.id.clone(), opened: Dump::open(options) },
            Job::CloseDump { id, dump } => {
                if let Err(why) = dump.close() {
                    tracing::warn!("filter-dump '{id}': {why}");
                }
                Outcome::Closed
            }
            Job::Usernet(usernet) => Outcome::Printed(usernet.run()),
            Job::OpenMonitor { config, access, stopper, drawer } => {
                Outcome::Monitor(Box::new(OpenedMonitor::open(config, &access, &stopper, drawer)))
            }
            Job::ReadConfig(source) => Outcome::Config(read_config(&source).map(Box::new)),
        }
    }

    /// The outcome when it cannot be done; what is to be closed is dropped without good order then.
    pub fn refusal(&self, why: &str) -> Outcome {
        match self {
            Job::OpenChardev { spec, .. } => {
                Outcome::Chardev { spec: spec.clone(), opened: Err(why.to_owned()) }
            }
            Job::OpenPort { opening, .. } => {
                Outcome::Port { id: opening.id.clone(), opened: Err(why.to_owned()) }
            }
            Job::OpenDump(DumpOptions { id, .. }) => {
                Outcome::Dump { id: id.clone(), opened: Err(why.to_owned()) }
            }
            Job::ClosePort { .. } | Job::CloseDump { .. } => Outcome::Closed,
            Job::Usernet(_) => Outcome::Printed(format!("{why}\r\n")),
            Job::OpenMonitor { config, .. } => {
                Outcome::Monitor(Box::new(OpenedMonitor::refused(config.clone(), why.to_owned())))
            }
            Job::ReadConfig(_) => Outcome::Config(Err(CliError::Usage(why.to_owned()))),
        }
    }
}

fn read_config(source: &ConfigSource) -> Result<(RunConfig, chardev::SocketAccess), CliError> {
    let config = source.read()?;
    let access = socket_access(&config.sockets);
    let access = access.map_err(|why| CliError::Usage(format!("--socket-group: {why}")))?;
    Ok((config, access))
}

/// Finds the number of the group that sockets shall have.
pub fn socket_access(access: &cli::SocketAccess) -> Result<chardev::SocketAccess, String> {
    let group = access.group.as_deref().map(group_number).transpose()?;
    Ok(chardev::SocketAccess { mode: access.mode, group })
}

/// The number of the group `name`, which may be a number itself.
pub(crate) fn group_number(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string(GROUPS)
        .map_err(|error| format!("looking up the group '{name}' in {GROUPS}: {error}"))?;
    let number_of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let found = groups.lines().find_map(number_of);
    found
        .ok_or_else(|| format!("there is no group '{name}' in {GROUPS}; a group can also be given by number"))
}

const GROUPS: &str = "/etc/group";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_number_or_a_name_of_the_host() {
        assert_eq!(group_number("17"), Ok(17));
        assert_eq!(group_number("root"), Ok(0));
        let error = group_number("no such group").expect_err("names have no spaces");
        assert!(error.starts_with("there is no group 'no such group'"), "{error}");
    }
}

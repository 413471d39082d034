//! Everything that may block, as values: the model makes a [`Job`] on the control thread, any other thread runs it, and
//! the model is given its [`Outcome`].
//!
//! This is also where options become what the drivers want to know, so that nothing else depends on how they are opened.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringyard_drivers::chardev::{self, SocketChardev};
use ringyard_drivers::tap::{self, TapOptions, TapPort};

use crate::cli;
use crate::wire::{ChardevSpec, Script, TapSource, TapSpec};

/// Something to be done beside the control thread.
pub enum Job {
    /// Makes or connects a socket.
    OpenChardev {
        /// What to open.
        spec: ChardevSpec,
        /// Who may use a socket that we make.
        access: Arc<chardev::SocketAccess>,
    },
    /// Opens a tap and runs its script.
    OpenTap {
        /// The netdev that waits for it.
        id: String,
        /// What to open.
        spec: TapSpec,
        /// The descriptors, where the spec names some.
        fds: Vec<OwnedFd>,
    },
    /// Runs a tap's downscript and closes it.
    CloseTap(OpenTap),
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
    /// Of [`Job::OpenTap`].
    Tap {
        /// The netdev.
        id: String,
        /// The tap, or why there is none.
        opened: Result<OpenTap, String>,
    },
    /// Of [`Job::CloseTap`].
    Closed,
}

/// A tap with what its options came to.
pub struct OpenTap {
    /// The driver's.
    pub port: TapPort,
    /// The script that was run.
    pub script: Option<PathBuf>,
    /// The script that will be run.
    pub downscript: Option<PathBuf>,
}

impl Job {
    /// Does it; may take as long as a script does.
    pub fn run(self) -> Outcome {
        match self {
            Job::OpenChardev { spec, access } => {
                let opened = SocketChardev::open(&spec.path, spec.role, &access);
                Outcome::Chardev { spec, opened: opened.map_err(|error| error.to_string()) }
            }
            Job::OpenTap { id, spec, fds } => Outcome::Tap { id, opened: open_tap(spec, fds) },
            Job::CloseTap(tap) => {
                let name = tap.port.ifname().to_owned();
                if let Err(error) = tap.port.close() {
                    tracing::warn!("closing the tap {name}: {error}");
                }
                Outcome::Closed
            }
        }
    }

    /// The outcome when it cannot be done; a tap is closed without its downscript then.
    pub fn refusal(&self, why: &str) -> Outcome {
        match self {
            Job::OpenChardev { spec, .. } => {
                Outcome::Chardev { spec: spec.clone(), opened: Err(why.to_owned()) }
            }
            Job::OpenTap { id, .. } => Outcome::Tap { id: id.clone(), opened: Err(why.to_owned()) },
            Job::CloseTap(_) => Outcome::Closed,
        }
    }
}

/// Finds the number of the group that sockets shall have.
pub fn socket_access(access: &cli::SocketAccess) -> Result<chardev::SocketAccess, String> {
    let group = access.group.as_deref().map(group_number).transpose()?;
    Ok(chardev::SocketAccess { mode: access.mode, group })
}

fn group_number(name: &str) -> Result<u32, String> {
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

fn open_tap(spec: TapSpec, fds: Vec<OwnedFd>) -> Result<OpenTap, String> {
    let (source, script, downscript) = match spec.source {
        TapSource::Name { ifname, script, downscript, queues, vnet_hdr } => {
            let source = tap::TapSource::Name { ifname, queues, vnet_hdr };
            (source, installed(script), installed(downscript))
        }
        TapSource::Fd(_) | TapSource::Fds(_) => (tap::TapSource::Fds(fds), None, None),
    };
    let options = TapOptions {
        source,
        script: script.clone(),
        downscript: downscript.clone(),
        sndbuf_bytes: spec.sndbuf_bytes,
    };
    let port = TapPort::open(options).map_err(|error| error.to_string())?;
    Ok(OpenTap { port, script, downscript })
}

/// The script to run: a default one only if it is there.
fn installed(script: Script) -> Option<PathBuf> {
    match script {
        Script::Off => None,
        Script::Default(path) => Path::exists(&path).then_some(path),
        Script::Run(path) => Some(path),
    }
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

    #[test]
    fn a_default_script_runs_only_where_it_is_installed() {
        assert_eq!(installed(Script::Default("/no/such/script".into())), None);
        assert_eq!(installed(Script::Default("/".into())), Some("/".into()));
        assert_eq!(installed(Script::Run("/no/such/script".into())), Some("/no/such/script".into()));
        assert_eq!(installed(Script::Off), None);
    }
}

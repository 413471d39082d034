//! The process behind a `user` port: this program, started again as `ringyard slirp-helper`.
//!
//! It is two processes. The outer one ([`warden`]) stays what the switch is; it runs the programs that answer guests, passes
//! on changes of resolv.conf, and ends with the inner one. The inner one ([`serve`]) loads libslirp, opens all that needs
//! privileges, locks itself up ([`namespaces`], [`root`], [`sandbox`]) and only then sees a frame.
//!
//! Standard input is the channel to the switch, standard output the socket of the frames; the first message on the channel
//! says what to be.

mod commands;
mod device;
mod library;
mod namespaces;
mod root;
mod sandbox;
mod serve;
mod stack;
pub(super) mod warden;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};

use crate::sandbox::Allowed;
use crate::sys::process::close_others;

use super::channel::{Channel, Reply, Request, Start};
use namespaces::Side;

/// The subcommand, which no help shows.
pub const SUBCOMMAND: &str = "slirp-helper";
/// libslirp by the name that its ABI has.
pub(super) const LIBRARY: &str = "libslirp.so.0";
/// How a helper's own directory is called, with numbers behind it.
pub(super) const DIRECTORY_PREFIX: &str = "ringyard-user-";
pub(crate) use commands::SMBD;

/// The version of the libslirp that this host has.
///
/// Errors: why there is none, and which package has it.
pub fn library_version() -> Result<String, String> {
    library::Library::load(LIBRARY).map(|library| library.version())
}

/// Runs the helper, on the descriptors that it was started with, until the switch closes the channel.
pub fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // Nobody is there to be told.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<ExitCode> {
    sandbox::die_with_parent()?;
    let (channel, frames) = take_descriptors()?;
    let mut channel = Channel::new(channel);
    let Request::Start(start) = channel.receive(START_TIME_MAX)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if let Err(why) = judge(&start, std::env::args_os().nth(2)) {
        return refuse(&mut channel, &why);
    }
    let (notices, notes) = warden::notice_pair()?;
    let commands = match commands::Commands::listen(&start.options, start.directory.as_deref()) {
        Ok(commands) => commands,
        Err(error) => return refuse(&mut channel, &format!("listening for guests' connections: {error}")),
    };
    match namespaces::split() {
        Ok(Side::Parent(helper)) => {
            // The channel ends when the inner process does.
            drop((channel, frames, notices));
            warden::watch(helper, commands, &notes)
        }
        Ok(Side::Child(namespaces)) => {
            drop((commands, notes));
            inner(channel, &start, namespaces, frames, notices)
        }
        Err(error) => refuse(&mut channel, &format!("starting the process of libslirp: {error}")),
    }
}

/// Whether we may be that. Where the switch is confined, its opener has told us what may be.
fn judge(start: &Start, allowed: Option<OsString>) -> Result<(), String> {
    let Some(allowed) = allowed else { return Ok(()) };
    let allowed: Allowed = serde_json::from_slice(allowed.as_bytes())
        .map_err(|error| format!("what programs may be run cannot be read: {error}"))?;
    if start.library != LIBRARY {
        return Err(format!("the sandbox does not permit loading {}", start.library));
    }
    let name = start.directory.as_deref().map(|path| path.file_name().unwrap_or_default());
    if name.is_some_and(|name| !name.as_bytes().starts_with(DIRECTORY_PREFIX.as_bytes())) {
        return Err("the sandbox does not permit that directory".into());
    }
    allowed.judge_user(&start.options)
}

fn inner(
    mut channel: Channel,
    start: &Start,
    namespaces: namespaces::Namespaces,
    frames: OwnedFd,
    notices: OwnedFd,
) -> io::Result<ExitCode> {
    sandbox::die_with_parent()?;
    let reached_by_nobody = start.directory.as_deref().filter(|_| sandbox::becomes_nobody(namespaces));
    if let Some(Err(error)) = reached_by_nobody.map(commands::hand_over) {
        return refuse(&mut channel, &format!("handing the sockets over: {error}"));
    }
    match serve::Server::start(start, namespaces, frames, notices) {
        Ok((server, confined)) => {
            channel.send(&Reply::Ready(confined), ANSWER_TIME_MAX)?;
            server.run(channel)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => refuse(&mut channel, &why),
    }
}

fn refuse(channel: &mut Channel, why: &str) -> io::Result<ExitCode> {
    channel.send(&Reply::Failed(why.to_owned()), ANSWER_TIME_MAX)?;
    Ok(ExitCode::FAILURE)
}

/// Moves both descriptors away from where anybody prints to.
fn take_descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    let (channel, frames) = (stdin().try_clone_to_owned()?, stdout().try_clone_to_owned()?);
    close_others([channel.as_fd(), frames.as_fd()]);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    Ok((channel, frames))
}

/// How long the switch may take to say what to be.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the switch may take to read an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

//! One switch, as its keeper sees it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use ringyard_drivers::store::{self, KEEPER_FD, Notice, Shelf};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// See the module. Dropping it leaves the process alone.
pub(super) struct Child {
    process: std::process::Child,
    /// Readable when it has ended.
    ended: OwnedFd,
    /// Until it has no other end.
    socket: Option<OwnedFd>,
    /// What it said when it was loaded.
    pub(super) hello: Option<String>,
    /// When it said that it serves.
    pub(super) ready_at: Option<Instant>,
}

impl Child {
    /// Starts `program`, which waits for its turn.
    pub(super) fn start(program: &Path, arguments: &[OsString]) -> io::Result<Child> {
        let (socket, theirs) = store::keeper_sockets()?;
        // From here on a child has it. There is no other thread that could start one at the same time.
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let number = theirs.as_raw_fd().to_string();
        let mut command = Command::new(program);
        command.args(arguments).arg0(PROCESS_NAME).env(KEEPER_FD, number);
        // What a service manager said it said to the keeper.
        ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].iter().for_each(|name| {
            command.env_remove(name);
        });
        let mut process = command.spawn()?;
        match pidfd_open(Pid::from_child(&process), PidfdFlags::empty()) {
            Ok(ended) => Ok(Child { process, ended, socket: Some(socket), hello: None, ready_at: None }),
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(error.into())
            }
        }
    }

    /// Lets it begin, with what is on the shelf.
    pub(super) fn begin(&mut self, shelf: &Shelf) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| store::begin(socket, shelf.kept()))
    }

    /// Takes in what it sent.
    pub(super) fn hear(&mut self, shelf: &mut Shelf) -> Vec<Notice> {
        let Some(socket) = &self.socket else { return Vec::new() };
        // Only it has the other end.
        let mut notices = shelf.serve(socket, |_| true);
        if notices.contains(&Notice::Gone) {
            self.socket = None;
        }
        let is_hello =
            |notice: &mut Notice| matches!(notice, Notice::Said(_, text) if text.starts_with(HELLO));
        for notice in notices.extract_if(.., is_hello) {
            if let Notice::Said(_, text) = notice {
                self.hello = Some(text);
            }
        }
        notices
    }

    /// Hears nothing of it any more.
    pub(super) fn hang_up(&mut self) {
        self.socket = None;
    }

    /// Says something to it.
    pub(super) fn say(&self, text: &str) {
        // One that is gone hears nothing; that it is gone is seen elsewhere.
        let _ = self.socket.as_ref().map(|socket| store::say(socket, text));
    }

    /// Whether it has ended, and how.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.ended, signal);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How long it has served.
    pub(super) fn lived(&self) -> Duration {
        self.ready_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Readable when there is something of it to look at.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.ended.as_fd()), self.socket.as_ref().map(AsFd::as_fd)].into_iter().flatten()
    }
}

/// How a process ended: what stands behind its name.
pub(super) fn last_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(PANICKED)) => "has panicked".into(),
        (None, code) => format!("ended with status {}", code.unwrap_or_default()),
    }
}

/// With which a program ends whose main thread panics.
pub(super) const PANICKED: i32 = 101;
/// What ps shows.
const PROCESS_NAME: &str = "ringyard-switch";
/// How the first thing that a switch says begins.
pub(super) const HELLO: &str = "LOADED=1";

//! Socket character devices: a unix socket that a front end connects to, or that we connect to.
//!
//! One port at a time uses a chardev, and one connection at a time stands on it. A server's listener is made at once and
//! stays for the chardev's life, so that front ends find it whatever happens to their connections; a client connects
//! again by itself, at an interval. Nothing here waits without watching the caller's stop.

mod server;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

pub use server::Server;

use crate::errno;
use crate::store::Drawer;

/// Who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Listens.
    Server,
    /// Connects.
    Client {
        /// Time between two attempts. Without it, the first attempt must succeed, and later ones follow each second.
        reconnect: Option<Duration>,
    },
}

/// Who may use a socket file that is made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits.
    pub mode: u32,
    /// Group; `None`: this process's.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    fn default() -> Self {
        SocketAccess { mode: 0o600, group: None }
    }
}

/// Why a chardev cannot be opened; the text is what the user reads.
#[derive(Debug)]
pub struct OpenError(String);

impl OpenError {
    /// `doing`, and what came of it; who we are, where that is what is wrong.
    fn new(doing: String, error: impl Into<io::Error>) -> OpenError {
        OpenError(format!("{doing}: {}", errno::with_user(error)))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// An open socket chardev. Dropping the last handle removes a server's socket file, if it is still ours.
pub struct SocketChardev {
    path: PathBuf,
    origin: Origin,
    connected: AtomicBool,
    /// Held by the port that uses the chardev, for as long as its thread runs.
    user: Mutex<()>,
}

/// Where connections come from.
enum Origin {
    Server(Server),
    Client {
        interval: Duration,
        /// The connection made by `open`, until the first port takes it.
        first: Mutex<Option<UnixStream>>,
    },
}

impl SocketChardev {
    /// Binds and listens, or connects. Returns at once; a server that nobody accepts at is an error like no server.
    pub fn open(
        path: &Path,
        role: SocketRole,
        access: &SocketAccess,
    ) -> Result<Arc<SocketChardev>, OpenError> {
        let origin = match role {
            SocketRole::Server => Origin::Server(Server::bind(path, access)?),
            SocketRole::Client { reconnect } => {
                let first = match (connect_to(path), reconnect) {
                    (Ok(stream), _) => Some(stream),
                    (Err(_), Some(_)) => None,
                    (Err(error), None) => {
                        let doing = format!("Failed to connect to '{}'", path.display());
                        return Err(OpenError::new(doing, error));
                    }
                };
                Origin::Client { interval: interval(reconnect), first: Mutex::new(first) }
            }
        };
        Ok(Arc::new(SocketChardev::new(path, origin)))
    }

    /// As [`Self::open`], in place of a process before this one, which left a server in `drawer`. A client does not connect at
    /// once, and does not fail: the one before had found its server.
    ///
    /// Errors: a server was not left, and cannot be had.
    pub fn restore(
        path: &Path,
        role: SocketRole,
        access: &SocketAccess,
        drawer: &Drawer,
    ) -> Result<Arc<SocketChardev>, OpenError> {
        let origin = match role {
            SocketRole::Server => match Server::restore(path, drawer) {
                Some(server) => Origin::Server(server),
                None => Origin::Server(Server::bind(path, access)?),
            },
            SocketRole::Client { reconnect } => {
                Origin::Client { interval: interval(reconnect), first: Mutex::new(None) }
            }
        };
        Ok(Arc::new(SocketChardev::new(path, origin)))
    }

    fn new(path: &Path, origin: Origin) -> SocketChardev {
        let connected = matches!(&origin, Origin::Client { first, .. } if lock(first).is_some());
        let connected = AtomicBool::new(connected);
        SocketChardev { path: path.to_owned(), origin, connected, user: Mutex::new(()) }
    }

    /// Leaves a server in `drawer`, for [`Self::restore`].
    pub fn keep(&self, drawer: &Drawer) {
        if let Origin::Server(server) = &self.origin {
            server.keep(drawer);
        }
    }

    /// Whether somebody is at the other end.
    pub fn is_connected(&self) -> bool {
        // Relaxed: a status that goes with nothing else.
        self.connected.load(Ordering::Relaxed)
    }

    /// The socket's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes room for another socket at a server's path at once, though a port's thread may still be ending.
    pub fn remove_file(&self) {
        if let Origin::Server(server) = &self.origin {
            server.remove_file();
        }
    }

    /// Makes the calling port the user; waits until the one before has gone.
    pub(crate) fn occupy(&self) -> MutexGuard<'_, ()> {
        lock(&self.user)
    }

    /// Notes whether a connection stands; written by the chardev's user.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Waits for the next connection, non-blocking; `None` when `stop` became readable before.
    pub(crate) fn next_connection(&self, stop: BorrowedFd<'_>) -> Option<UnixStream> {
        match &self.origin {
            Origin::Server(server) => server.accept(stop),
            Origin::Client { interval, first } => {
                if let Some(stream) = lock(first).take() {
                    return Some(stream);
                }
                // The interval comes first: a server that hangs up at once does not keep us busy.
                while !wait(stop, *interval) {
                    if let Ok(stream) = connect_to(&self.path) {
                        return Some(stream);
                    }
                }
                None
            }
        }
    }
}

/// Between two attempts to connect.
fn interval(reconnect: Option<Duration>) -> Duration {
    reconnect.unwrap_or(RECONNECT).max(RECONNECT_MIN)
}

/// Connects without blocking, even at a server whose queue is full.
pub fn connect_to(path: &Path) -> rustix::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket.into())
}

/// Waits for `stop` to become readable, at most for `limit`; whether it did.
fn wait(stop: BorrowedFd<'_>, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(stop, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&limit)), Ok(1..) | Err(Errno::INVAL | Errno::NOMEM))
}

/// What is guarded here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two attempts to connect, unless the user says.
const RECONNECT: Duration = Duration::from_secs(1);
/// Between two attempts to connect, at least.
const RECONNECT_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;

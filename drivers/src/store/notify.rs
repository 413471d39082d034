//! The wire to whoever started this process (sd_notify(3), sd_listen_fds(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt::{self, Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getpid, getppid};

use super::keeper::KEEPER_FD;
use super::wire;
use crate::sys::inherited;

/// A socket whose other end is the keeper's.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: OwnedFd,
    /// The keeper is ours.
    pub(super) is_ours: bool,
}

impl Notifier {
    /// To a socket that many send to. Errors: nobody listens there.
    pub(super) fn connect(address: &OsStr) -> io::Result<Notifier> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path @ [b'/', ..] => SocketAddrUnix::new(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "NOTIFY_SOCKET is no unix socket")),
        };
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // A keeper whose queue is full is waited for, but not for ever.
        set_socket_timeout(&socket, Timeout::Send, Some(SEND_TIME_MAX))?;
        connect(&socket, &address)?;
        Ok(Notifier { socket, is_ours: false })
    }

    /// To our own keeper.
    pub(super) fn over(socket: OwnedFd) -> Notifier {
        Notifier { socket, is_ours: true }
    }

    /// Sends a message, with a descriptor.
    pub(super) fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        match wire::send(&self.socket, text, fd.as_slice()) {
            Err(Errno::AGAIN) => Err(no_answer()),
            sent => Ok(sent?),
        }
    }

    /// Waits until everything that was sent before is taken in: the keeper closes a pipe that we send.
    pub(super) fn barrier(&self) -> io::Result<()> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        self.send("BARRIER=1", Some(theirs.as_fd()))?;
        drop(theirs);
        let deadline = Instant::now() + BARRIER_TIME_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            // The end of the pipe is told without being asked for.
            match poll(&mut [PollFd::from_borrowed_fd(ours.as_fd(), PollFlags::empty())], Some(&left)) {
                Ok(0) => return Err(no_answer()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The descriptors that systemd gave to this process and that have `ours` as names, with their names, the first time. Others
/// stay where they are; none of all is given to processes that this one starts.
pub(super) fn inherited(ours: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if number_of("LISTEN_PID") != Some(getpid().as_raw_pid()) || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let numbers = LISTEN_FDS_START..LISTEN_FDS_START.saturating_add(number_of("LISTEN_FDS").unwrap_or(0));
    let mut taken = Vec::new();
    for (number, name) in numbers.zip(names.split(':')) {
        let is_open = inherited::look(number, |fd| fcntl_setfd(fd, FdFlags::CLOEXEC).is_ok()) == Some(true);
        if is_open && ours(name) {
            taken.extend(inherited::take(number).ok().map(|fd| (name.to_owned(), fd)));
        }
    }
    taken
}

/// Whether this process is the child of our own keeper.
pub fn has_keeper() -> bool {
    keeper_fd().is_some()
}

/// The number of the socket to our own keeper, if this process is its child: the variable may be meant for an ancestor, and
/// the number be another's here, but who made the socket is our parent.
fn keeper_fd() -> Option<RawFd> {
    let number = number_of(KEEPER_FD)?;
    let maker = inherited::look(number, |fd| sockopt::socket_peercred(fd))?.ok()?.pid;
    (getppid() == Some(maker)).then_some(number)
}

/// The socket to our own keeper, the first time.
pub(super) fn socket_of_keeper() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = keeper_fd()?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let socket = inherited::take(number).ok()?;
    // What this process starts is not to have it.
    fcntl_setfd(&socket, FdFlags::CLOEXEC).ok()?;
    Some(socket)
}

fn number_of(variable: &str) -> Option<RawFd> {
    env::var(variable).ok()?.parse().ok()
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the keeper does not answer")
}

/// The first of the descriptors that systemd gives.
const LISTEN_FDS_START: RawFd = 3;
/// How long a keeper may take to make room in its queue.
pub(super) const SEND_TIME_MAX: Duration = Duration::from_secs(2);
/// How long it may take to come to a barrier.
const BARRIER_TIME_MAX: Duration = Duration::from_secs(5);

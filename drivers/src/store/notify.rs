//! The wire to whoever started this process (sd_notify(3), sd_listen_fds(3)).

#![allow(unsafe_code)] // owning the descriptors that the environment names

use std::env;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getpid, getppid};

use super::envelope;

/// A socket that is connected to the keeper's.
#[derive(Debug)]
pub(super) struct Notifier(OwnedFd);

impl Notifier {
    /// Errors: nobody listens there.
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
        Ok(Notifier(socket))
    }

    /// Sends a message, with a descriptor.
    pub(super) fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds = fd.map(|fd| [fd]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(no_answer()),
                Err(error) => return Err(error.into()),
            }
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

/// The descriptors that a keeper gave to this process with its envelopes in them, and its names for them, the first time.
/// Other descriptors that it was started with stay where they are; none of all is given to processes that this one starts.
pub fn inherited() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if !is_meant_for_us() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let count: RawFd = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let numbers = LISTEN_FDS_START..LISTEN_FDS_START.saturating_add(count);
    let mut taken = Vec::new();
    for (number, name) in numbers.zip(names.split(':')) {
        // SAFETY: it is borrowed for this call only, whether or not it is open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl_setfd(fd, FdFlags::CLOEXEC).is_ok() && envelope::number(name).is_some() {
            // SAFETY: it is open, and whoever started this process opened it for us under a name of ours, once.
            taken.push((name.to_owned(), unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    taken
}

/// Whether `LISTEN_FDS` speaks to this process and not to an ancestor. systemd names us; our keeper names itself, since it
/// does not know our number before it has to say it.
fn is_meant_for_us() -> bool {
    let named =
        |variable: &str| env::var(variable).ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    named("LISTEN_PID") == Some(getpid()) || named(KEEPER_PID).is_some_and(|pid| getppid() == Some(pid))
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the keeper does not answer")
}

/// The variable in which our keeper says who it is.
pub const KEEPER_PID: &str = "RINGYARD_KEEPER_PID";
/// The first of the descriptors that are given.
pub const LISTEN_FDS_START: RawFd = 3;
/// How long a keeper may take to make room in its queue.
const SEND_TIME_MAX: Duration = Duration::from_secs(2);
/// How long it may take to come to a barrier.
const BARRIER_TIME_MAX: Duration = Duration::from_secs(5);

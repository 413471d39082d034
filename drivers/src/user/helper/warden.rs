//! The helper's outer process: it waits for the inner one to end, runs programs for guests, and tells the inner one, which
//! cannot see the host's files, what resolv.conf says now.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::commands::Commands;
use super::root::RESOLV_CONF;

/// How often resolv.conf is looked at: as often as nobody minds.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of resolv.conf that are passed on.
pub(super) const NOTICE_LEN_MAX: usize = 1 << 16;

/// The socket on which the inner process hears of changes, and ours.
pub(super) fn notice_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Looks after the inner process until it ends; how it ended.
pub(super) fn watch(helper: Pid, mut commands: Commands, notes: &OwnedFd) -> io::Result<ExitCode> {
    let ended = pidfd_open(helper, PidfdFlags::empty())?;
    let mut seen = stamp();
    loop {
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(commands.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let limit = Timespec { tv_sec: LOOK_PAUSE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            break;
        }
        let ready: Vec<usize> = (0..fds.len() - 1).filter(|&at| !fds[at + 1].revents().is_empty()).collect();
        drop(fds);
        if commands.is_busy() && ready.is_empty() {
            commands.serve(None, helper);
        }
        for index in ready {
            commands.serve(Some(index), helper);
        }
        let now = stamp();
        if now != seen {
            seen = now;
            tell(notes);
        }
    }
    let status = waitpid(Some(helper), WaitOptions::empty())?.map(|(_, status)| {
        let signal = status.terminating_signal().map(|signal| KILLED + signal);
        signal.or(status.exit_status()).unwrap_or_default()
    });
    Ok(ExitCode::from(status.and_then(|status| u8::try_from(status).ok()).unwrap_or_default()))
}

/// What changes when the file does.
fn stamp() -> Option<(u64, u64, u64, i64, i64)> {
    let file = fs::metadata(RESOLV_CONF).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

fn tell(notes: &OwnedFd) {
    let mut text = fs::read(RESOLV_CONF).unwrap_or_default();
    text.truncate(NOTICE_LEN_MAX);
    // An inner process that does not listen is about to end.
    let _ = send(notes.as_fd(), &text, SendFlags::NOSIGNAL);
}

/// Of a helper that was killed, the status is that and the signal's number.
pub(in crate::user) const KILLED: i32 = 128;

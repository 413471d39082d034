//! One helper process, from its start to its end.

use std::fs;
use std::io::{self, PipeReader, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringyard_dataplane::port::Attachment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Launch;
use super::channel::{Channel, Reply, Request, Start};
use super::helper::DIRECTORY_PREFIX;
use super::helper::warden::KILLED;
use super::options::{GuestTarget, UserOptions};
use crate::datagram::{Bare, DatagramOptions, DatagramQueue, Destination, attachment};
use crate::minder::{Alarm, Stop, Wait};
use crate::program::{Program, Running};
use crate::sandbox::Errand;

/// A running helper.
pub(super) struct Helper {
    process: Running,
    errors: Option<PipeReader>,
    /// It is of no use any more: its socket is not, or it does not answer.
    alarm: Arc<Alarm>,
    _directory: Option<Directory>,
    /// A copy of the channel's socket, by which the helper is told to end.
    leash: std::os::unix::net::UnixStream,
}

/// Why a helper is watched no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The port goes away.
    Stopped,
    /// It is of no use any more: how so, behind "the helper".
    Died(String),
}

impl Helper {
    /// Starts a helper and waits until it serves, or `stop`.
    ///
    /// Errors: a sentence.
    pub(super) fn start(
        launch: &Launch,
        options: UserOptions,
        alarm: Arc<Alarm>,
        stop: &Stop,
    ) -> Result<(Helper, Channel, Attachment), String> {
        let failed = |error: io::Error| format!("starting the helper process: {error}");
        let (mut channel, theirs) = Channel::pair().map_err(failed)?;
        let leash = channel.try_clone().map_err(failed)?;
        let (frames, their_frames) = frame_sockets().map_err(failed)?;
        let directory = needs_directory(&options).then(Directory::make).transpose().map_err(failed)?;
        let (errors, their_errors) = io::pipe().map_err(failed)?;
        // It leads a group, so that what a terminal sends to the switch (Ctrl-C) is not for it.
        let program = Program::new(Errand::UserHelper { program: launch.program.clone() }).sweeping();
        let program = program.input(theirs).output(their_frames).errors(their_errors.into());
        let process = program.start().map_err(failed)?;
        // Whatever else has its other end, nothing here waits for more than there is.
        let errors = Some(errors).filter(|errors| ioctl_fionbio(errors, true).is_ok());
        let start = Start {
            options,
            library: launch.library.clone(),
            directory: directory.as_ref().map(|directory| directory.0.clone()),
            socket_mode: launch.socket_mode,
            socket_group: launch.socket_group,
        };
        let mut started = Helper { process, errors, alarm, _directory: directory, leash };
        let told = channel.send(&Request::Start(Box::new(start)), START_TIME_MAX);
        match told.and_then(|()| started.await_reply(&mut channel, stop)) {
            Ok(Reply::Ready(confined)) => {
                tracing::info!("a user port's helper serves: {confined}");
                let attachment = queue(frames, started.alarm.clone());
                Ok((started, channel, attachment))
            }
            Ok(Reply::Failed(why)) => Err(why),
            Ok(_) => Err("the helper process answers something else".into()),
            Err(error) => {
                Err(format!("the helper process does not get ready: {error}{}", started.last_words()))
            }
        }
    }

    fn await_reply(&mut self, channel: &mut Channel, stop: &Stop) -> io::Result<Reply> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match stop.wait(&[(channel.fd(), PollFlags::IN)], Some(left)) {
                Wait::Ready(_) => {
                    if let Some(reply) = channel.receive_ready()? {
                        return Ok(reply);
                    }
                }
                Wait::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
                Wait::Stopped => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
    }

    /// Passes on what it says, until it is of no use any more or `stop`.
    pub(super) fn watch(&mut self, stop: &Stop) -> End {
        let mut words = Allowance::new();
        loop {
            let mut fds = vec![(self.process.ended(), PollFlags::IN), (self.alarm.fd(), PollFlags::IN)];
            fds.extend(self.errors.as_ref().map(|errors| (errors.as_fd(), PollFlags::IN)));
            match stop.wait(&fds, None) {
                Wait::Stopped => return End::Stopped,
                Wait::Ready(0) => return End::Died(self.how_it_ended()),
                // The socket closes a moment before the process is gone.
                Wait::Ready(1) => {
                    return match stop.wait(&[(self.process.ended(), PollFlags::IN)], Some(LAST_MOMENT)) {
                        Wait::Stopped => End::Stopped,
                        Wait::Ready(_) => End::Died(self.how_it_ended()),
                        Wait::TimedOut => End::Died("is of no use any more".into()),
                    };
                }
                Wait::Ready(_) => self.pass_on(&mut words),
                Wait::TimedOut => {}
            }
        }
    }

    /// Logs what it wrote to its standard error, as far as the allowance goes.
    fn pass_on(&mut self, words: &mut Allowance) {
        let Some(errors) = &mut self.errors else { return };
        let mut chunk = [0; WORDS_LEN_MAX as usize];
        match errors.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(count) if count > 0 => {
                if words.take() {
                    let text = String::from_utf8_lossy(&chunk[..count]);
                    tracing::warn!("the helper of a user port says: {}", text.trim_end());
                }
            }
            _ => self.errors = None,
        }
    }

    fn how_it_ended(&mut self) -> String {
        match self.process.wait() {
            Ok(status) => {
                let code = status.code().unwrap_or_default();
                // The outer process says how the inner one ended.
                match status.signal().or((code > KILLED).then_some(code - KILLED)) {
                    Some(signal) => format!("was killed by signal {signal}"),
                    None => format!("ended with status {code}"),
                }
            }
            Err(error) => format!("cannot be asked after: {error}"),
        }
    }

    /// What it wrote to its standard error, if it has ended.
    fn last_words(&mut self) -> String {
        self.end();
        let mut words = Vec::new();
        if let Some(errors) = &mut self.errors {
            // As far as it is there; what came before an error is kept.
            let _ = errors.take(WORDS_LEN_MAX).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words);
        if words.trim().is_empty() { String::new() } else { format!(": {}", words.trim()) }
    }

    /// Ends it: it does so by itself when its channel ends, and else is killed.
    fn end(&mut self) {
        let _ = self.leash.shutdown(Shutdown::Both);
        let limit = Timespec { tv_sec: END_TIME_MAX.as_secs() as i64, tv_nsec: 0 };
        // One that has not ended by then is killed.
        let mut fds = [PollFd::from_borrowed_fd(self.process.ended(), PollFlags::IN)];
        if poll(&mut fds, Some(&limit)) != Ok(1) {
            self.process.kill();
        }
        // Of what it was nothing is left to say.
        let _ = self.process.wait();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A few messages a second may be logged.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new() -> Allowance {
        Allowance { left: WORDS_MAX, since: Instant::now() }
    }

    fn take(&mut self) -> bool {
        if self.since.elapsed() > Duration::from_secs(1) {
            *self = Allowance::new();
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

/// A directory of one helper's, for sockets and Samba's files.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Directory> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let process = std::process::id();
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{process}-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                // Somebody else's, or of an earlier process of that number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Directory(path)),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("removing {}: {error}", Path::display(&self.0));
        }
    }
}

/// Whether programs are run for guests.
fn needs_directory(options: &UserOptions) -> bool {
    let command = |target: &GuestTarget| matches!(target, GuestTarget::Command(_));
    options.smb.is_some() || options.guest_forwards.iter().any(|forward| command(&forward.target))
}

/// The two ends of the frames' way. Of this kind, messages keep their bounds and their order, and each end notices when
/// the other one goes.
fn frame_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&ours, &theirs] {
        // As much as the host permits, which may be less.
        let _ = set_socket_send_buffer_size(end, BUFFER_LEN);
        let _ = set_socket_recv_buffer_size(end, BUFFER_LEN);
    }
    Ok((ours, theirs))
}

fn queue(frames: OwnedFd, alarm: Arc<Alarm>) -> Attachment {
    let frames = Arc::new(frames);
    attachment(Arc::new(DatagramQueue::new(
        Bare,
        DatagramOptions {
            receive: frames.clone(),
            send: frames,
            destination: Destination::Connected,
            queue: 0,
            alarm,
        },
    )))
}

/// How long a helper may take to get ready: it may connect to devices, and resolve their names.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a helper may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(1);
/// From the end of a helper's sockets to its own.
const LAST_MOMENT: Duration = Duration::from_millis(200);
/// Bytes of what it says that are passed on at a time.
const WORDS_LEN_MAX: u64 = 1024;
/// Messages of a helper that are logged in a second.
const WORDS_MAX: u32 = 10;
/// Bytes of frames that wait for the other end.
const BUFFER_LEN: usize = 1 << 20;

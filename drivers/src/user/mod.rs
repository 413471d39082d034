//! `user`: guests reach the network as whoever runs the switch, through libslirp in a helper process.
//!
//! The stack is C, talks to the world and is as old as the modem; so it runs in a process of its own that may do nothing
//! else ([`helper`]), and frames cross to it over a socket, which the switch's workers serve as any other datagram socket.
//! The port's own thread starts the helper and watches it: one that ends, whatever ended it, costs a link-down and is
//! started again, after a pause that grows as long as it keeps ending.

mod channel;
pub mod helper;
mod options;
mod process;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ringyard_dataplane::port::Attachment;

use crate::line::Line;
use crate::minder::{Alarm, Minder, Stop};
#[cfg(any(test, fuzzing))]
pub use channel::fuzzing;
use channel::{Channel, Reply, Request};
pub use options::{
    Device, GuestForward, GuestTarget, HostEnd, HostForward, Ipv4Side, Ipv6Side, SmbShare, UserOptions,
};
use process::{End, Helper};

/// How a helper is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program, to be run with the one argument [`helper::SUBCOMMAND`].
    pub program: PathBuf,
    /// libslirp.
    pub library: String,
    /// Permission bits of unix sockets that it makes.
    pub socket_mode: u32,
    /// Their group.
    pub socket_group: Option<u32>,
}

impl Launch {
    /// This program itself, and libslirp as the host has it.
    pub fn new(socket_mode: u32, socket_group: Option<u32>) -> Launch {
        let program = PathBuf::from("/proc/self/exe");
        Launch { program, library: helper::LIBRARY.into(), socket_mode, socket_group }
    }
}

/// An open `user` port. Dropping it ends the helper.
pub struct UserPort {
    shared: Arc<Shared>,
    attachment: Attachment,
    lines: Sender<Line>,
    minder: Minder,
    /// Disconnected when the port's thread has ended, and the helper with it.
    ended: Receiver<()>,
}

/// What can be asked of a running port, from any thread; each call may take [`ANSWER_TIME_MAX`].
#[derive(Clone)]
pub struct UserControl(Arc<Shared>);

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// What was to be removed is not there.
    NotFound,
    /// A sentence.
    Failed(String),
}

struct Shared {
    launch: Launch,
    /// With the rules that were added since; a helper is started with these.
    options: Mutex<UserOptions>,
    /// There while a helper runs; its lock is held while an answer is waited for, never by workers.
    talk: Mutex<Option<Talk>>,
    /// Unix sockets that helpers made, with device and inode.
    sockets: Mutex<Vec<(String, u64, u64)>>,
}

/// What speaking with a helper takes.
struct Talk {
    channel: Channel,
    /// Ends the helper.
    alarm: Arc<Alarm>,
}

impl UserPort {
    /// Starts the helper and waits until it serves.
    ///
    /// Errors: what `netdev_add` is to answer.
    pub fn open(id: &str, options: UserOptions, launch: Launch) -> Result<UserPort, String> {
        let shared = Shared {
            launch,
            options: Mutex::new(options),
            talk: Mutex::default(),
            sockets: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let (answer, answers) = bounded(1);
        let (lines, incoming) = bounded(1);
        let (lives, ended) = bounded(0);
        let minded = shared.clone();
        let body = move |stop: &Stop| {
            mind(stop, &minded, &answer, &incoming);
            minded.remove_sockets();
            drop::<Sender<()>>(lives);
        };
        let minder = Minder::start(&format!("user-{id}"), body)
            .map_err(|error| format!("starting the port's thread: {error}"))?;
        // The thread answers within its own limits.
        let attachment = answers.recv().map_err(|_| "the port's thread ended".to_owned())??;
        Ok(UserPort { shared, attachment, lines, minder, ended })
    }

    /// What workers get of it at first.
    pub fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    /// Reports over `line` from now on. Called once.
    pub fn start(&self, line: Line) -> io::Result<()> {
        // There is room for the one that ever comes; a thread that has ended has nothing to report.
        let _ = self.lines.try_send(line);
        Ok(())
    }

    /// What can be asked of it.
    pub fn control(&self) -> UserControl {
        UserControl(self.shared.clone())
    }

    /// As `info network` shows it.
    pub fn info(&self) -> String {
        self.shared.info()
    }

    /// What it is, with the rules that were added since.
    pub fn options(&self) -> UserOptions {
        self.shared.options().clone()
    }

    /// Ends it and waits for that, so that what the host listened on is free. May take seconds.
    ///
    /// Errors: it has not ended yet.
    pub fn close(self) -> Result<(), String> {
        drop(self.minder);
        match self.ended.recv_timeout(CLOSE_TIME_MAX) {
            Err(RecvTimeoutError::Timeout) => Err("the helper process does not end".into()),
            _ => Ok(()),
        }
    }
}

impl UserControl {
    /// Has the host listen for a guest.
    pub fn add_host_forward(&self, forward: HostForward) -> Result<(), RequestError> {
        forward.check().map_err(RequestError::Failed)?;
        let request = Request::AddHostForward(forward.clone());
        self.0.ask(&request, |options| options.host_forwards.push(forward.clone()))?;
        self.0.note_sockets(&[forward]);
        Ok(())
    }

    /// Has the host listen no more.
    pub fn remove_host_forward(&self, end: &HostEnd) -> Result<(), RequestError> {
        self.0.ask(&Request::RemoveHostForward(end.clone()), |options| {
            // As often as it was added it has to be removed.
            if let Some(index) = options.host_forwards.iter().position(|forward| forward.from == *end) {
                options.host_forwards.remove(index);
            }
        })?;
        Ok(())
    }

    /// The connections, as libslirp lists them: lines that end in LF.
    pub fn connections(&self) -> Result<String, RequestError> {
        match self.0.ask(&Request::Connections, |_| {})? {
            Reply::Text(text) => Ok(text),
            _ => Err(RequestError::Failed("the helper answers something else".into())),
        }
    }
}

impl fmt::Debug for UserControl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("UserControl")
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::NotFound => out.write_str("not found"),
            RequestError::Failed(why) => out.write_str(why),
        }
    }
}

impl Shared {
    fn options(&self) -> MutexGuard<'_, UserOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self) -> MutexGuard<'_, Option<Talk>> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the unix sockets of `forwards`, which a helper has just made.
    fn note_sockets(&self, forwards: &[HostForward]) {
        for forward in forwards {
            let HostEnd::Unix(path) = &forward.from else { continue };
            let Ok(file) = fs::symlink_metadata(path) else { continue };
            if file.file_type().is_socket() {
                let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
                sockets.retain(|(known, ..)| known != path);
                sockets.push((path.clone(), file.dev(), file.ino()));
            }
        }
    }

    /// Removes them, but for those that are somebody else's by now.
    fn remove_sockets(&self) {
        let sockets = std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, device, inode) in sockets {
            let ours =
                fs::symlink_metadata(&path).is_ok_and(|file| (file.dev(), file.ino()) == (device, inode));
            if ours && let Err(error) = fs::remove_file(&path) {
                tracing::warn!("removing {path}: {error}");
            }
        }
    }

    fn info(&self) -> String {
        let options = self.options();
        let restrict = if options.restrict { "on" } else { "off" };
        format!("net={},restrict={restrict}", options.ipv4.network)
    }

    /// Asks the helper, and makes the `change` that follows from its consent: before another helper can be started, which
    /// then gets it.
    fn ask(&self, request: &Request, change: impl FnOnce(&mut UserOptions)) -> Result<Reply, RequestError> {
        let mut talk = self.talk();
        let Some(Talk { channel, alarm }) = talk.as_mut() else {
            return Err(RequestError::Failed("the helper is not running".into()));
        };
        let reply = channel.send(request, ANSWER_TIME_MAX).and_then(|()| channel.receive(ANSWER_TIME_MAX));
        match reply {
            Ok(Reply::NotFound) => Err(RequestError::NotFound),
            Ok(Reply::Failed(why)) => Err(RequestError::Failed(why)),
            Ok(reply) => {
                change(&mut self.options());
                Ok(reply)
            }
            Err(error) => {
                // It hangs, and a late answer would be taken for the next one's: another helper is needed.
                alarm.raise();
                *talk = None;
                Err(RequestError::Failed(format!("the helper does not answer: {error}")))
            }
        }
    }
}

/// What opening waits for.
type Answer = Result<Attachment, String>;

/// The port's thread.
fn mind(stop: &Stop, shared: &Shared, answer: &Sender<Answer>, lines: &Receiver<Line>) {
    let mut helper = match start(stop, shared) {
        Ok((helper, attachment)) => {
            let _ = answer.send(Ok(attachment));
            helper
        }
        Err(why) => {
            let _ = answer.send(Err(why));
            return;
        }
    };
    // Until the port is in the model, which is at once, or is dropped.
    let Some(line) = await_line(stop, lines) else { return };
    let mut pause = PAUSE_MIN;
    loop {
        let since = Instant::now();
        let end = helper.watch(stop);
        *shared.talk() = None;
        let attachment = Attachment::default();
        if end == End::Stopped || line.attach(attachment).is_err() {
            return;
        }
        drop(helper);
        let End::Died(how) = end else { return };
        tracing::warn!("the helper of a user port {how}; it is started again");
        line.show(format!("error: the helper {how}"));
        if since.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        let (next, attachment) = loop {
            if !stop.sleep(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match start(stop, shared) {
                Ok(started) => break started,
                Err(why) => line.show(format!("error: {why}")),
            }
        };
        helper = next;
        if line.attach(attachment).is_err() {
            return;
        }
        line.show(shared.info());
    }
}

fn await_line(stop: &Stop, lines: &Receiver<Line>) -> Option<Line> {
    loop {
        match lines.recv_timeout(LINE_PAUSE) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) if stop.sleep(Duration::ZERO) => {}
            Err(_) => return None,
        }
    }
}

fn start(stop: &Stop, shared: &Shared) -> Result<(Helper, Attachment), String> {
    let alarm = Arc::new(Alarm::new().map_err(|error| format!("making an eventfd: {error}"))?);
    let options = shared.options().clone();
    let forwards = options.host_forwards.clone();
    let (helper, channel, attachment) = Helper::start(&shared.launch, options, alarm.clone(), stop)?;
    shared.note_sockets(&forwards);
    *shared.talk() = Some(Talk { channel, alarm });
    Ok((helper, attachment))
}

/// How long a helper may take to answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an end may take, that of a helper that has to be killed included.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// Before a helper that ended is started again; doubled each time, up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a port that is not yet in the model looks whether it ever will be.
const LINE_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;

//! The switch's end of its opener.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PTracer, Pid, set_ptracer};

use super::Needs;
use super::messages::{Reply, Request, receive, send};
use super::opener::SUBCOMMAND;

/// An opener that has not begun yet.
pub(super) struct Helper {
    socket: OwnedFd,
    child: Child,
}

/// One at work.
pub(crate) struct Client {
    socket: Arc<OwnedFd>,
    /// Held from a question to its answer.
    answers: Mutex<Receiver<(Reply, Vec<OwnedFd>)>>,
    /// Who waits for the end of which program.
    ends: Arc<Ends>,
    is_gone: Arc<AtomicBool>,
}

/// Programs, by their numbers.
#[derive(Default)]
struct Ends(Mutex<HashMap<i32, End>>);

enum End {
    /// Somebody waits for it.
    Awaited(Sender<ExitStatus>),
    /// It has come before whoever started the program knew its number.
    Come(ExitStatus),
}

static CLIENT: OnceLock<Client> = OnceLock::new();

/// What the opener reads of our memory, to see whether it can.
static MARK: AtomicU64 = AtomicU64::new(0x72_696e_6779_6172);

/// The opener, where there is one.
pub(crate) fn opener() -> Option<&'static Client> {
    CLIENT.get()
}

impl Helper {
    /// Starts one, and asks it whether it can do its work; nothing is confined yet.
    ///
    /// Errors: a sentence.
    pub(super) fn start(needs: Needs) -> Result<Helper, String> {
        let failed = |error: io::Error| format!("starting the opener: {error}");
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, theirs) = pair.map_err(|error| failed(error.into()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).stdin(theirs).stdout(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(failed)?;
        drop(command);
        let mut helper = Helper { socket, child };
        match helper.greet(needs) {
            Ok(()) => Ok(helper),
            Err(why) => {
                let _ = helper.child.kill();
                let _ = helper.child.wait();
                Err(why)
            }
        }
    }

    fn greet(&mut self, needs: Needs) -> Result<(), String> {
        // Where Yama is, only ancestors look into a process otherwise.
        let _ = set_ptracer(PTracer::ProcessID(Pid::from_child(&self.child)));
        let failed = |error: io::Error| format!("the opener does not get ready: {error}");
        let hello = Request::Hello {
            address: MARK.as_ptr().addr() as u64,
            // Relaxed: never written.
            value: MARK.load(Ordering::Relaxed),
            number: self.socket.as_raw_fd(),
            writable: needs.writable,
            allowed: needs.allowed,
        };
        send(&self.socket, &hello, &[]).map_err(failed)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut fds, Some(&START_TIME_MAX)).map_err(|error| failed(error.into()))? == 0 {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        match receive(&self.socket).map_err(failed)?.0 {
            Reply::Ready => Ok(()),
            Reply::Refused(why) => Err(why),
            _ => Err("the opener says something else".into()),
        }
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// It has the listener of our filter now, and serves.
    pub(super) fn begin(self, listener: OwnedFd) -> io::Result<()> {
        send(&self.socket, &Request::Begin, &[listener.as_fd()])?;
        // With it we could answer ourselves.
        drop(listener);
        let socket = Arc::new(self.socket);
        let (told, answers) = bounded(1);
        let (ends, is_gone) = (Arc::new(Ends::default()), Arc::new(AtomicBool::new(false)));
        let client = Client {
            socket: socket.clone(),
            answers: Mutex::new(answers),
            ends: ends.clone(),
            is_gone: is_gone.clone(),
        };
        let body = move || hear(&socket, &told, &ends, &is_gone);
        thread::Builder::new().name("opener's news".into()).spawn(body)?;
        let _ = CLIENT.set(client);
        Ok(())
    }
}

/// Passes on what the opener says, until it has ended.
fn hear(socket: &OwnedFd, told: &Sender<(Reply, Vec<OwnedFd>)>, ends: &Ends, is_gone: &AtomicBool) {
    loop {
        match receive(socket) {
            Ok((Reply::Note(text), _)) => tracing::warn!("{text}"),
            Ok((Reply::Ended { program, status }, _)) => {
                let status = ExitStatus::from_raw(status);
                let mut ends = ends.lock();
                match ends.remove(&program) {
                    Some(End::Awaited(waiting)) => _ = waiting.send(status),
                    _ => _ = ends.insert(program, End::Come(status)),
                }
            }
            Ok(answer) => {
                // Room for it is there as long as every question has one.
                let _ = told.try_send(answer);
            }
            Err(_) => break,
        }
    }
    // Relaxed: for texts only.
    is_gone.store(true, Ordering::Relaxed);
    ends.lock().clear();
    tracing::error!(
        "the process that opens things for the switch has ended: ports go on, and nothing can be opened"
    );
}

impl Client {
    /// Asks, with descriptors; the number and the descriptors of the answer.
    pub(crate) fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<(i32, Vec<OwnedFd>)> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // One that came too late is nobody's.
        answers.try_iter().for_each(drop);
        send(&self.socket, request, fds)?;
        match answers.recv_timeout(ANSWER_TIME_MAX) {
            Ok((Reply::Done(number), fds)) => Ok((number, fds)),
            Ok((Reply::Failed(error), _)) => Err(io::Error::from_raw_os_error(error)),
            Ok((Reply::Refused(why), _)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(_) => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
    }

    /// Starts a program: its number, what becomes readable at its end, and its status then.
    pub(crate) fn start(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(i32, OwnedFd, Receiver<ExitStatus>)> {
        let (program, fds) = self.ask(request, fds)?;
        let handle = fds.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
        let (waiting, end) = bounded(1);
        let mut ends = self.ends.lock();
        match ends.remove(&program) {
            Some(End::Come(status)) => _ = waiting.send(status),
            _ => _ = ends.insert(program, End::Awaited(waiting)),
        }
        Ok((program, handle, end))
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const START_TIME_MAX: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// None of its answers takes long.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

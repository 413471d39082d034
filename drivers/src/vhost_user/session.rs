//! One connection, from its first message to its end.
//!
//! What happens to a request that is refused is the same for all: who asked for a reply is told, and the connection goes
//! on; who did not would go on in the belief that it was served, so the connection ends. Requests that are not known
//! here change nothing and are skipped.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{FrontendReq, VhostUserU64};
use vm_memory::ByteValued;

use super::Port;
use super::channel::{self, Channel, Message};
use super::control_queue::Watch;
use super::device::{Answer, Device, Refusal};
use super::journal::{self, Journal};
use super::keeping::Recorded;
use super::known::{Known, KnownRequest};

/// Why a connection ended.
pub(super) enum End {
    /// The front end closed it.
    Closed,
    /// The front end broke the protocol, or was refused something that it takes for granted.
    Broken(String),
    /// The port is going away.
    Stopped,
}

/// A connection with the device behind it.
pub(super) struct Session<'a> {
    channel: Channel<'a>,
    device: Device<'a>,
    port: &'a Port<'a>,
    /// What a process before this one knew of it, until we go on with that.
    known: Option<Known>,
}

impl<'a> Session<'a> {
    /// A new one.
    pub(super) fn new(socket: UnixStream, port: &'a Port<'a>) -> Session<'a> {
        let mut device = Device::new(port);
        device.journal = Journal::begin(port.keeping, socket.as_fd(), device.vrings.len());
        Session { channel: Channel::new(socket, port.stop), device, port, known: None }
    }

    /// The one that a process before this one was killed with, if there is one that can be gone on with.
    pub(super) fn resume(port: &'a Port<'a>) -> Option<Session<'a>> {
        let found = Journal::find(port.keeping, 2 * usize::from(port.pairs) + 1)?;
        let restored = found.and_then(|(socket, journal, known)| {
            Device::restore(port, journal, &known).map(|device| (socket, device, known))
        });
        match restored {
            Ok((socket, device, known)) => {
                Some(Session { channel: Channel::new(socket, port.stop), device, port, known: Some(known) })
            }
            Err(why) => {
                tracing::warn!(socket = port.name, why, "vhost-user: a connection cannot be gone on with");
                journal::forget(port.keeping);
                None
            }
        }
    }

    /// Serves until the end; then the port has no rings.
    pub(super) fn run(mut self) -> End {
        let mut result = self.go_on();
        while result.is_ok() {
            result = self.turn();
            self.device.record();
        }
        let detached = self.device.detach();
        self.device.end_journal();
        match (detached, result) {
            (Ok(()), Err(end)) => end,
            _ => End::Stopped,
        }
    }

    /// Goes on where a process before this one was killed.
    fn go_on(&mut self) -> Result<(), End> {
        let Some(known) = self.known.take() else { return Ok(()) };
        self.device.go_on(known.attached).map_err(|_| End::Stopped)?;
        tracing::info!(socket = self.port.name, "vhost-user: went on with a connection");
        if let (Some(reply), Some(journal)) = (known.reply, &self.device.journal) {
            let fd = reply.fd.map(|number| journal.take(number)).transpose().map_err(End::Broken)?;
            let (sent, was_sending) = journal.reply_progress();
            // Killed in the very call that sends: who has the reply has more to say, as a rule, and who waits for it says
            // nothing.
            if !(was_sending && self.channel.is_readable_within(REPLY_DOUBT)) {
                self.send(&reply.bytes, sent, fd.as_ref())?;
            }
        }
        let Some(KnownRequest { request, need_reply, body, fds: numbers }) = known.request else {
            return Ok(());
        };
        let Some(journal) = &self.device.journal else { return Ok(()) };
        let fds = numbers.iter().map(|&number| journal.take(number)).collect::<Result<_, _>>();
        let message = Message { request, need_reply, body, fds: fds.map_err(End::Broken)? };
        // It may not have left the socket. It is the same, or one like it that came after it: either will do.
        if self.channel.is_next(&message) { Ok(()) } else { self.serve(message, Some(numbers)) }
    }

    /// Waits for one thing to happen, and sees to it.
    fn turn(&mut self) -> Result<(), End> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let watch = self.device.control_watch();
        let (kick, limit) = match &watch {
            Watch::Nothing => (None, None),
            Watch::Kick(ring) => (ring.kick_fd(), None),
            Watch::Look(pause) => {
                (None, Some(Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) }))
            }
        };
        let fds = [self.port.stop, self.port.trouble.as_fd(), self.port.notices.wake_fd(), self.channel.fd()];
        let mut fds: Vec<PollFd<'_>> = fds.into_iter().chain(kick).map(readable).collect();
        if self.port.gate.wait(|| poll(&mut fds, limit.as_ref())).is_err() {
            return Ok(());
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let [stop, trouble, notice, message, kick] = [0, 1, 2, 3, 4].map(ready);
        if stop {
            return Err(End::Stopped);
        }
        if trouble {
            let _ = rustix::io::read(&*self.port.trouble, &mut [0; 8]);
            if self.device.has_lost_memory() {
                return Err(End::Broken("a file of its memory was truncated".into()));
            }
            self.device.retire_broken().map_err(|_| End::Stopped)?;
        }
        if notice {
            let _ = rustix::io::read(self.port.notices.wake_fd(), &mut [0; 8]);
            self.device.take_notices();
        }
        if kick || limit.is_some() {
            self.device.serve_commands().map_err(|_| End::Stopped)?;
        }
        if message { self.receive() } else { Ok(()) }
    }

    /// Receives one message and answers it.
    fn receive(&mut self) -> Result<(), End> {
        if self.device.journal.is_none() {
            let message = self.channel.receive()?;
            return self.serve(message, None);
        }
        let (message, left) = match self.channel.peek()? {
            Some((message, len)) => (message, len),
            // Nobody sends such; whoever does may lose this one when we are killed now.
            None => (self.channel.receive()?, 0),
        };
        let recorded = self.device.record_request(&message);
        self.channel.discard(left)?;
        self.serve(message, recorded)
    }

    /// Serves a message, and records what became of it before that is told.
    fn serve(&mut self, message: Message, recorded: Recorded) -> Result<(), End> {
        let Message { request, need_reply, body, fds } = message;
        let answer = self.device.serve(request, &body, fds);
        if answer.is_ok() {
            self.device.note_served(request, &body, recorded.as_deref().unwrap_or_default());
        }
        self.device.tend_control().map_err(|_| End::Stopped)?;
        let need_reply = need_reply && self.device.acknowledges();
        let (reply, fd) = reply(request, need_reply, answer)?;
        self.device.record_outcome(reply.as_deref(), fd.as_ref());
        reply.map_or(Ok(()), |reply| self.send(&reply, 0, fd.as_ref()))
    }

    fn send(&self, reply: &[u8], from: usize, fd: Option<&OwnedFd>) -> Result<(), End> {
        self.channel.send(reply, from, fd.map(OwnedFd::as_fd), |sent, is_sending| {
            if let Some(journal) = &self.device.journal {
                journal.set_reply_progress(sent, is_sending);
            }
        })
    }
}

/// What is sent to whoever made `request`, and with which descriptor.
fn reply(
    request: u32,
    need_reply: bool,
    answer: Result<Answer, Refusal>,
) -> Result<(Option<Vec<u8>>, Option<OwnedFd>), End> {
    let say = |body: &[u8]| Ok((Some(channel::reply(request, body)), None));
    let acknowledge = |value: u64| say(VhostUserU64::new(value).as_slice());
    match answer {
        Ok(Answer::Done) if need_reply => acknowledge(0),
        Ok(Answer::Done) => Ok((None, None)),
        Ok(Answer::Value(value)) => acknowledge(value),
        Ok(Answer::State(state)) => say(state.as_slice()),
        Ok(Answer::Log(log)) => say(log.as_slice()),
        Ok(Answer::Config(config)) => say(&config),
        Ok(Answer::Inflight(body, fd)) => Ok((Some(channel::reply(request, body.as_slice())), Some(fd))),
        Err(Refusal::Unplugged) => Err(End::Stopped),
        Err(Refusal::Unknown) if need_reply => acknowledge(1),
        Err(Refusal::Unknown) => Ok((None, None)),
        Err(Refusal::Bad(why)) if need_reply && !is_question(request) => {
            tracing::debug!(request, why, "vhost-user: refused");
            acknowledge(1)
        }
        Err(Refusal::Bad(why)) => Err(End::Broken(format!("request {request}: {why}"))),
    }
}

/// Whether a request has a reply of its own; there is no way to say no in that one.
fn is_question(request: u32) -> bool {
    [FrontendReq::GET_FEATURES, FrontendReq::GET_PROTOCOL_FEATURES, FrontendReq::GET_QUEUE_NUM]
        .into_iter()
        .chain([
            FrontendReq::SET_LOG_BASE,
            FrontendReq::GET_MAX_MEM_SLOTS,
            FrontendReq::GET_STATUS,
            FrontendReq::GET_VRING_BASE,
            FrontendReq::GET_INFLIGHT_FD,
        ])
        .any(|question| question as u32 == request)
}

/// How long who has a reply may take to say more.
const REPLY_DOUBT: Duration = Duration::from_millis(20);

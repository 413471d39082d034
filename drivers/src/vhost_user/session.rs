//! One connection, from its first message to its end.
//!
//! What happens to a request that is refused is the same for all: who asked for a reply is told, and the connection goes
//! on; who did not would go on in the belief that it was served, so the connection ends. Requests that are not known
//! here change nothing and are skipped.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{FrontendReq, VhostUserU64};
use vm_memory::ByteValued;

use super::Port;
use super::channel::{Channel, Message};
use super::control_queue::Watch;
use super::device::{Answer, Device, Refusal};

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
}

impl<'a> Session<'a> {
    /// A new one.
    pub(super) fn new(socket: UnixStream, port: &'a Port<'a>) -> Session<'a> {
        Session { channel: Channel::new(socket, port.stop), device: Device::new(port), port }
    }

    /// Serves until the end; then the port has no rings.
    pub(super) fn run(mut self) -> End {
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        match self.device.detach() {
            Ok(()) => end,
            Err(_) => End::Stopped,
        }
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
        if poll(&mut fds, limit.as_ref()).is_err() {
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
        if message { self.serve() } else { Ok(()) }
    }

    /// Receives one message and answers it.
    fn serve(&mut self) -> Result<(), End> {
        let Message { request, need_reply, body, fds } = self.channel.receive()?;
        let answer = self.device.serve(request, &body, fds);
        self.device.tend_control().map_err(|_| End::Stopped)?;
        let need_reply = need_reply && self.device.acknowledges();
        let acknowledge = |value: u64| self.channel.reply(request, VhostUserU64::new(value).as_slice());
        match answer {
            Ok(Answer::Done) if need_reply => acknowledge(0),
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Value(value)) => acknowledge(value),
            Ok(Answer::State(state)) => self.channel.reply(request, state.as_slice()),
            Ok(Answer::Log(log)) => self.channel.reply(request, log.as_slice()),
            Ok(Answer::Config(config)) => self.channel.reply(request, &config),
            Err(Refusal::Unplugged) => Err(End::Stopped),
            Err(Refusal::Unknown) if need_reply => acknowledge(1),
            Err(Refusal::Unknown) => Ok(()),
            Err(Refusal::Bad(why)) if need_reply && !is_question(request) => {
                tracing::debug!(request, why, "vhost-user: refused");
                acknowledge(1)
            }
            Err(Refusal::Bad(why)) => Err(End::Broken(format!("request {request}: {why}"))),
        }
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
        ])
        .any(|question| question as u32 == request)
}

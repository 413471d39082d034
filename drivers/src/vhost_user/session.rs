//! One connection, from its first message to its end.
//!
//! What happens to a request that is refused is the same for all: who asked for a reply is told, and the connection goes
//! on; who did not would go on in the belief that it was served, so the connection ends. Requests that are not known
//! here change nothing and are skipped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::{FrontendReq, VhostUserU64};
use vm_memory::ByteValued;

use super::channel::{Channel, Message};
use super::device::{Answer, Device, Refusal};
use crate::line::Line;

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
    stop: BorrowedFd<'a>,
    trouble: Arc<OwnedFd>,
}

impl<'a> Session<'a> {
    /// `stop` ends it; `trouble` is what broken rings and truncated memory signal.
    pub(super) fn new(
        name: &'a str,
        socket: UnixStream,
        pairs: u16,
        line: &'a Line,
        stop: BorrowedFd<'a>,
        trouble: Arc<OwnedFd>,
    ) -> Session<'a> {
        let device = Device::new(name, pairs, line, trouble.clone());
        Session { channel: Channel::new(socket, stop), device, stop, trouble }
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
        let mut fds = [
            PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.trouble.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.channel.fd(), PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            return Ok(());
        }
        let [stop, trouble, message] = fds.map(|fd| !fd.revents().is_empty());
        if stop {
            return Err(End::Stopped);
        }
        if trouble {
            let _ = rustix::io::read(&*self.trouble, &mut [0; 8]);
            if self.device.has_lost_memory() {
                return Err(End::Broken("a file of its memory was truncated".into()));
            }
            self.device.retire_broken().map_err(|_| End::Stopped)?;
        }
        if message { self.serve() } else { Ok(()) }
    }

    /// Receives one message and answers it.
    fn serve(&mut self) -> Result<(), End> {
        let Message { request, need_reply, body, fds } = self.channel.receive()?;
        let answer = self.device.serve(request, &body, fds);
        let need_reply = need_reply && self.device.acknowledges();
        let acknowledge = |value: u64| self.channel.reply(request, VhostUserU64::new(value).as_slice());
        match answer {
            Ok(Answer::Done) if need_reply => acknowledge(0),
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Value(value)) => acknowledge(value),
            Ok(Answer::State(state)) => self.channel.reply(request, state.as_slice()),
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
        .chain([FrontendReq::GET_MAX_MEM_SLOTS, FrontendReq::GET_STATUS, FrontendReq::GET_VRING_BASE])
        .any(|question| question as u32 == request)
}

//! vhost-user, the back end: the virtqueues of a guest, served through a [`SocketChardev`].
//!
//! One thread a port waits for a front end, serves its messages, and waits for the next one when it is gone. A
//! [`channel`] carries whole messages, under a time limit; [`device`] keeps what was negotiated and turns every change
//! into a whole new attachment; [`Vring`](crate::vring::Vring) is one ring of it, [`memory`] the guest's memory, [`log`] what of it we wrote while
//! the guest is migrated.
//!
//! Where a port is kept for a successor of this process, a [`journal`] is written of each connection: what is [`known`] of it,
//! told by [`keeping`]. A port that finds such a connection goes on with it, and its front end notices nothing. For all of
//! us being gone, a front end can keep an [`inflight`] buffer.
//!
//! Where the front end hands the control queue on, the same thread serves it ([`control_queue`]), and answers a command when
//! the switch goes by what [`control`] made of it. What control has to say comes by [`nic`], and goes into the
//! [`config`]uration space; a front end that has opened a [`backchannel`] hears of it.
//!
//! Messages and their numbers are the `vhost` crate's; the loop over them is ours. Its `BackendReqHandler` refuses what
//! QEMU sends (SET_VRING_ENABLE before SET_FEATURES) and NET_SET_MTU, SET_STATUS and GET_STATUS, cuts ring indexes to 8
//! bits before anyone can check them, and retries without end when a socket is full, a message stays half, or descriptors
//! do not fit: any front end could keep its thread for ever.

mod backchannel;
mod body;
mod channel;
mod config;
mod control;
mod control_queue;
mod device;
mod features;
mod gate;
mod inflight;
mod journal;
mod keeping;
mod known;
mod log;
mod memory;
mod nic;
mod session;
mod socket_call;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::chardev::SocketChardev;
use crate::line::Line;
use gate::Gate;
pub use journal::Keeping;
pub use nic::NicState;
use nic::Notices;
use session::{End, Session};

/// Queue pairs of a port, at most: messages about a ring's descriptors have 8 bits for its index.
pub const QUEUES_MAX: u16 = 128;

/// A port whose frames come from, and go to, whoever connects to its chardev. Dropping it asks its thread to end and
/// does not wait for that; the chardev's next port does.
pub struct VhostUserPort {
    stop: Arc<OwnedFd>,
    notices: Arc<Notices>,
    gate: Arc<Gate>,
}

/// What the port's thread has from its beginning to its end.
struct Port<'a> {
    /// The socket's path, for the log.
    name: &'a str,
    /// Queue pairs.
    pairs: u16,
    line: &'a Line,
    /// Becomes readable when the port goes away.
    stop: BorrowedFd<'a>,
    /// What broken rings and truncated memory signal.
    trouble: Arc<OwnedFd>,
    notices: &'a Notices,
    /// Who keeps its connections.
    keeping: &'a Keeping,
    gate: &'a Gate,
}

impl VhostUserPort {
    /// Serves `queues` queue pairs, at least 1 and at most [`QUEUES_MAX`], to one front end after the other; first to the
    /// one that was there when a process before this one was killed, if that is kept.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(
        chardev: Arc<SocketChardev>,
        queues: u16,
        line: Line,
        keeping: Keeping,
    ) -> io::Result<VhostUserPort> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new);
        let (stop, trouble) = (event()?, event()?);
        let notices = Arc::new(Notices::new(event()?));
        let port = VhostUserPort { stop: stop.clone(), notices: notices.clone(), gate: Arc::default() };
        let gate = port.gate.clone();
        let pairs = queues.clamp(1, QUEUES_MAX);
        thread::Builder::new().name("vhost-user".into()).spawn(move || {
            let name = chardev.path().display().to_string();
            let (stop, notices) = (stop.as_fd(), &*notices);
            let port = Port {
                name: &name,
                pairs,
                line: &line,
                stop,
                trouble,
                notices,
                keeping: &keeping,
                gate: &gate,
            };
            serve(&chardev, &port);
        })?;
        Ok(port)
    }

    /// Has guests see their nic like this from now on. What one has negotiated stays until the next negotiates.
    pub fn set_nic(&self, state: NicState) {
        self.notices.set(state);
    }

    /// Has its thread do nothing any more, before another process goes on with its connection; this one is to end.
    pub fn halt(&self) {
        if !self.gate.halt() {
            tracing::error!("vhost-user: a port does not come to rest");
        }
    }

    /// Has the guest announce itself, if it can.
    pub fn announce(&self) {
        self.notices.announce();
    }
}

impl Drop for VhostUserPort {
    fn drop(&mut self) {
        // Never read by the thread: it stays readable, whatever the thread waits for.
        ringyard_dataplane::eventfd::add(&*self.stop);
    }
}

/// One front end after the other, until the port is gone.
fn serve(chardev: &SocketChardev, port: &Port<'_>) {
    let _in_use = chardev.occupy();
    let path = port.name;
    let mut before = Session::resume(port);
    loop {
        let session = match before.take() {
            Some(session) => session,
            None => {
                let Some(socket) = port.gate.wait(|| chardev.next_connection(port.stop)) else { break };
                tracing::debug!(socket = path, "vhost-user: front end connected");
                Session::new(socket, port)
            }
        };
        chardev.set_connected(true);
        let end = session.run();
        chardev.set_connected(false);
        match end {
            End::Closed => tracing::info!(socket = path, "vhost-user: front end disconnected"),
            End::Broken(why) => tracing::warn!(socket = path, why, "vhost-user: connection ended"),
            End::Stopped => break,
        }
    }
    chardev.set_connected(false);
}

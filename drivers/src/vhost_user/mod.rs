//! vhost-user, the back end: the virtqueues of a guest, served through a [`SocketChardev`].
//!
//! One thread a port waits for a front end, serves its messages, and waits for the next one when it is gone. A
//! [`channel`] carries whole messages, under a time limit; [`device`] keeps what was negotiated and turns every change
//! into a whole new attachment; [`Vring`](crate::vring::Vring) is one ring of it, [`memory`] the guest's memory.
//!
//! Messages and their numbers are the `vhost` crate's; the loop over them is ours. Its `BackendReqHandler` refuses what
//! QEMU sends (SET_VRING_ENABLE before SET_FEATURES) and NET_SET_MTU, SET_STATUS and GET_STATUS, cuts ring indexes to 8
//! bits before anyone can check them, and retries without end when a socket is full, a message stays half, or descriptors
//! do not fit: any front end could keep its thread for ever.

mod body;
mod channel;
mod device;
mod features;
mod memory;
mod session;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::chardev::SocketChardev;
use crate::line::Line;
use session::{End, Session};

/// Queue pairs of a port, at most: messages about a ring's descriptors have 8 bits for its index.
pub const QUEUES_MAX: u16 = 128;

/// A port whose frames come from, and go to, whoever connects to its chardev. Dropping it asks its thread to end and
/// does not wait for that; the chardev's next port does.
pub struct VhostUserPort {
    stop: Arc<OwnedFd>,
}

impl VhostUserPort {
    /// Serves `queues` queue pairs, at least 1 and at most [`QUEUES_MAX`], to one front end after the other.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(chardev: Arc<SocketChardev>, queues: u16, line: Line) -> io::Result<VhostUserPort> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let trouble = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let port = VhostUserPort { stop: stop.clone() };
        let pairs = queues.clamp(1, QUEUES_MAX);
        thread::Builder::new()
            .name("vhost-user".into())
            .spawn(move || serve(&chardev, pairs, &line, &stop, &trouble))?;
        Ok(port)
    }
}

impl Drop for VhostUserPort {
    fn drop(&mut self) {
        // Never read by the thread: it stays readable, whatever the thread waits for.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
    }
}

/// One front end after the other, until the port is gone.
fn serve(chardev: &SocketChardev, pairs: u16, line: &Line, stop: &OwnedFd, trouble: &Arc<OwnedFd>) {
    let _in_use = chardev.occupy();
    let path = chardev.path().display().to_string();
    while let Some(socket) = chardev.next_connection(stop.as_fd()) {
        chardev.set_connected(true);
        tracing::debug!(socket = path, "vhost-user: front end connected");
        let end = Session::new(&path, socket, pairs, line, stop.as_fd(), trouble.clone()).run();
        chardev.set_connected(false);
        match end {
            End::Closed => tracing::info!(socket = path, "vhost-user: front end disconnected"),
            End::Broken(why) => tracing::warn!(socket = path, why, "vhost-user: connection ended"),
            End::Stopped => break,
        }
    }
    chardev.set_connected(false);
}

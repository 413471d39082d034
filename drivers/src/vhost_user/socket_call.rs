//! Call descriptors that are sockets, as those of User Mode Linux are, which cannot wait for eventfds.
//!
//! A send that must not wait does not, whatever the other end does. It is the port's own thread all the same that sends:
//! what a guest chose to be called by is no business of a worker, beyond the eventfd that wakes that thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::ring::Call;
use rustix::net::{AddressFamily, SendFlags, send, sockopt};

use crate::flag::Flag;

/// A call that goes through a socket.
pub(super) struct SocketCall {
    socket: OwnedFd,
    /// Set by whoever calls, taken by the port's thread.
    due: Flag,
    wake: Arc<OwnedFd>,
}

impl SocketCall {
    /// Whether `fd` is a unix socket at all.
    pub(super) fn is_socket(fd: &OwnedFd) -> bool {
        sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
    }

    /// `wake` is the non-blocking eventfd that the port's thread waits for.
    pub(super) fn new(socket: OwnedFd, wake: Arc<OwnedFd>) -> SocketCall {
        SocketCall { socket, due: Flag::new(), wake }
    }

    /// What the ring calls.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        let own = self.clone();
        Call::Other(Arc::new(move || own.ask()))
    }

    fn ask(&self) {
        self.due.raise(|| ringyard_dataplane::eventfd::add(&*self.wake));
    }

    /// Calls, if that is due. A full socket already says what there is to say. To be done after the eventfd was emptied.
    pub(super) fn relay(&self) {
        if self.due.take(|| false) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = send(&self.socket, &1u64.to_ne_bytes(), flags);
        }
    }
}

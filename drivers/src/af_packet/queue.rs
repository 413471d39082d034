//! The hot half of an `af-packet` port: one socket, both ways.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch};

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::ring::Ring;
use super::socket::Socket;
use crate::minder::Alarm;

/// See the module.
pub(super) struct Queue {
    pub(super) socket: Socket,
    pub(super) number: u16,
    /// The worker that has the duty uses it, a burst at a time.
    inbox: Mutex<Inbox>,
    /// Used by one worker at a time, a burst long.
    outbox: Mutex<Outbox>,
    /// Nothing has come since the doorbell rang. Written by the worker that has the duty; relaxed, since that is the only
    /// one that reads it.
    rung: AtomicBool,
    /// Only another socket helps. Written by the worker that has the duty; relaxed, since the alarm carries it.
    broken: AtomicBool,
    alarm: Arc<Alarm>,
}

/// The way out of a queue, to an interface that takes certain frames as they are.
pub(super) struct Sender {
    pub queue: Arc<Queue>,
    pub offloads: Offloads,
}

impl Queue {
    pub(super) fn new(socket: Socket, ring: Ring, number: u16, alarm: Arc<Alarm>) -> Queue {
        Queue {
            number,
            inbox: Mutex::new(Inbox::new(ring)),
            outbox: Mutex::new(Outbox::new()),
            socket,
            rung: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            alarm,
        }
    }

    /// Frames that were lent and not settled.
    pub(super) fn held(&self) -> usize {
        self.inbox().held()
    }

    /// Whether the socket is of no use any more, however its interface stands.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingress for Queue {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut inbox = self.inbox();
        let given_up = if inbox.held() == 0 { inbox.fill(&self.socket, scratch) } else { 0 };
        if inbox.is_out_of_step() && !self.broken.swap(true, Ordering::Relaxed) {
            self.alarm.raise();
        }
        if inbox.held() == 0 {
            return given_up;
        }
        self.rung.store(false, Ordering::Relaxed);
        given_up + inbox.lend(self.number, scratch, forward)
    }
}

impl Doorbell for Queue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    /// Epoll itself looks for new frames when it is armed. A bell that rang for nothing rang for an error, and would go on.
    fn arm(&self) -> Arming {
        if self.inbox().held() > 0 {
            return Arming::Work;
        }
        if self.rung.swap(false, Ordering::Relaxed) && self.socket.take_error() {
            self.alarm.raise();
            return Arming::Dead;
        }
        Arming::Quiet
    }

    fn disarm(&self) {
        self.rung.store(true, Ordering::Relaxed);
    }
}

impl Egress for Sender {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let Queue { socket, outbox, alarm, .. } = &*self.queue;
        if alarm.is_raised() {
            scratch.tally.drops[DropReason::IoError as usize] += picks.len() as u64;
            return picks.len();
        }
        let mut outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = outbox.send(socket.as_fd(), self.offloads, &mut scratch.tally, burst, picks);
        if sent.fault {
            alarm.raise();
        }
        sent.settled
    }
}

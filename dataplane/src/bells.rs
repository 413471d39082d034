//! One epoll for all doorbells of a worker, and for the wake-up call of whoever published something for it.
//!
//! Doorbells are armed for one ring each (`EPOLLONESHOT`): while a duty is polled, its peer may kick as often as it
//! likes and costs this worker nothing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Doorbells learned of at once; more wait for the next look.
const EVENTS: usize = 64;
/// The key of the wake-up call.
const WAKE: u64 = u64::MAX;
const NO_EVENT: epoll::Event = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };

/// How long to wait for a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Just look.
    None,
    /// Sleep until one rings.
    Forever,
}

/// The bells of one worker.
pub(crate) struct Bells {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    rung: Vec<u64>,
    next_key: u64,
}

impl Bells {
    /// No doorbells yet, only the wake-up call.
    pub(crate) fn new() -> io::Result<Bells> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Bells { epoll, wake, rung: Vec::with_capacity(EVENTS), next_key: 0 })
    }

    /// The wake-up call: an eventfd to add to.
    pub(crate) fn wake(&self) -> Arc<OwnedFd> {
        self.wake.clone()
    }

    /// Hangs up a doorbell, not armed, and returns its key.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        let key = self.next_key;
        self.next_key += 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(key), EventFlags::ONESHOT)?;
        Ok(key)
    }

    /// Arms a doorbell for one ring.
    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, key: u64) {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        // Cannot fail: the descriptor was added and its owner still has it open.
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(key), flags);
    }

    /// Takes a doorbell down. To be done before its last owner goes: a guest may have the same eventfd open, and then
    /// closing ours would not take it out.
    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for bells; [`Self::rung`] has them.
    pub(crate) fn wait(&mut self, patience: Patience) {
        let timeout = match patience {
            Patience::None => Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
            Patience::Forever => None,
        };
        let mut events = [NO_EVENT; EVENTS];
        // Interrupted is as good as not rung: the worker looks again.
        let count = epoll::wait(&self.epoll, &mut events, timeout).unwrap_or(0);
        let keys = events[..count].iter().map(|event| event.data.u64());
        self.rung.clear();
        self.rung.extend(keys.clone().filter(|key| *key != WAKE));
        if keys.clone().any(|key| key == WAKE) {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
    }

    /// The keys of the doorbells that rang.
    pub(crate) fn rung(&self) -> &[u64] {
        &self.rung
    }
}

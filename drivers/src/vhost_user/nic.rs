//! What control has to say to a guest: what its nic is, how its link stands, and that it should announce itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringyard_dataplane::mac::Mac;

/// A guest's nic, as far as the guest can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicState {
    /// Its address; `None`: there is no nic, and the guest has whatever address it likes.
    pub mac: Option<Mac>,
    /// The guest may take it for the standby of another (VIRTIO_NET_F_STANDBY).
    pub standby: bool,
    /// The link is up.
    pub link: bool,
}

impl Default for NicState {
    fn default() -> NicState {
        NicState { mac: None, standby: false, link: true }
    }
}

/// Where the last word on a nic lies. Written by control, read by the port's thread.
pub(super) struct Notices {
    state: Mutex<NicState>,
    /// Set by control, taken by the port's thread.
    announce: AtomicBool,
    /// Becomes readable when there is something new.
    wake: Arc<OwnedFd>,
}

impl Notices {
    /// `wake` is a non-blocking eventfd.
    pub(super) fn new(wake: Arc<OwnedFd>) -> Notices {
        Notices { state: Mutex::default(), announce: AtomicBool::new(false), wake }
    }

    pub(super) fn set(&self, state: NicState) {
        let old = std::mem::replace(&mut *self.lock(), state);
        if old != state {
            self.wake();
        }
    }

    pub(super) fn announce(&self) {
        // Release: pairs with the acquire of whoever takes it.
        self.announce.store(true, Ordering::Release);
        self.wake();
    }

    /// The nic as it is now.
    pub(super) fn state(&self) -> NicState {
        *self.lock()
    }

    /// Whether the guest was to announce itself since the last time.
    pub(super) fn take_announce(&self) -> bool {
        self.announce.swap(false, Ordering::Acquire)
    }

    /// The descriptor that [`Self::new`] was given.
    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The same, for others who have something for the port's thread.
    pub(super) fn waker(&self) -> Arc<OwnedFd> {
        self.wake.clone()
    }

    fn wake(&self) {
        ringyard_dataplane::eventfd::add(&*self.wake);
    }

    /// Whoever panicked left a whole state behind.
    fn lock(&self) -> std::sync::MutexGuard<'_, NicState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

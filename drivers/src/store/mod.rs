//! Descriptors that outlive this process: a switch that dies or is replaced leaves its sockets, memory and devices to the next
//! one.
//!
//! They are kept by whoever started the switch, systemd or our own keeper, with systemd's protocol (sd_notify(3),
//! `FDSTORE=1`): datagrams to `NOTIFY_SOCKET`, and at the next start `LISTEN_FDS` and `LISTEN_FDNAMES`. Our keeper has a
//! socket of its own instead of either ([`keeper`]). systemd has rules that do not suit: it keeps only one of several
//! descriptors of the same open file, bounds names and all of them together (an environment variable ends at 128 KiB), and
//! has no word for replacing. So each descriptor goes in an [`envelope`], under a short name that is used once; of two with
//! the same name inside, the later counts. There is no moment at which a name has nothing.
//!
//! Not the crate `sd-notify`: it makes a socket a message, which a locked process may not, and has no barrier.

mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keeper;
mod notify;
mod shelf;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envelope::Letter;
pub use keeper::{Heard, KEEPER_FD, begin, keeper_sockets, say};
use notify::Notifier;
pub use notify::has_keeper;
pub use shelf::{Notice, Shelf, notify_socket};

/// Bytes of a name, at most.
pub const NAME_LEN_MAX: usize = 1024;

/// Descriptors that outlive this process, by name. Names are paths: `vhost-user/CHARDEV/socket`.
#[derive(Clone, Debug, Default)]
pub struct Store(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    notifier: Notifier,
    /// The number of the next envelope; none is used twice, also not by the processes before.
    next: AtomicU64,
    /// Numbers of the envelopes that are kept, by name.
    kept: Mutex<BTreeMap<String, u64>>,
    /// What a predecessor kept and nobody took yet.
    found: Mutex<BTreeMap<String, OwnedFd>>,
    /// Somebody was told that the keeper does not answer.
    is_lost: AtomicBool,
}

impl Store {
    /// One that keeps nothing and has nothing.
    pub fn none() -> Store {
        Store::default()
    }

    /// The store of this process, if it was started with one. Under our own keeper, which is told `hello`, it returns when it
    /// is this process's turn. To be called once.
    ///
    /// Errors: there is one that cannot be used.
    pub fn of_environment(hello: &str) -> io::Result<Store> {
        if let Some(socket) = notify::socket_of_keeper() {
            let notifier = Notifier::over(socket);
            notifier.send(hello, None)?;
            let kept = keeper::await_turn(&notifier)?;
            return Ok(Store::new(notifier, kept));
        }
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) => {
                Store::at(&address, notify::inherited(|label| envelope::number(label).is_some()))
            }
            None => Ok(Store::none()),
        }
    }

    /// The store whose keeper listens at `address`, which is a path, or `@` and an abstract name. What a predecessor kept is
    /// among `given`, by the keeper's names; what else is there is not touched.
    pub fn at(address: &OsStr, given: impl IntoIterator<Item = (String, OwnedFd)>) -> io::Result<Store> {
        Ok(Store::new(Notifier::connect(address)?, given))
    }

    fn new(notifier: Notifier, given: impl IntoIterator<Item = (String, OwnedFd)>) -> Store {
        let (mut kept, mut found, mut stale) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut next = 0;
        for (label, envelope) in given {
            let Some(number) = envelope::number(&label) else { continue };
            next = next.max(number + 1);
            match envelope::open(&envelope) {
                Ok(Letter { name, fd }) if kept.get(&name).is_none_or(|&other| other < number) => {
                    found.insert(name.clone(), fd);
                    stale.extend(kept.insert(name, number));
                }
                Ok(_) => stale.push(number),
                Err(error) => {
                    tracing::warn!("a kept descriptor is of no use: {error}");
                    stale.push(number);
                }
            }
        }
        let inner = Inner {
            notifier,
            next: AtomicU64::new(next),
            kept: Mutex::new(kept),
            found: Mutex::new(found),
            is_lost: AtomicBool::new(false),
        };
        stale.into_iter().for_each(|number| inner.discard(number));
        Store(Some(Arc::new(inner)))
    }

    /// Whether somebody keeps what is given to [`Self::keep`].
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Has a duplicate of `fd` kept instead of what is kept under that name. Some microseconds, on any thread; of several
    /// threads that use one name at the same time, the last counts.
    ///
    /// Errors: no descriptors to be had, or the keeper is gone, which is logged once. What was kept before still is.
    pub fn keep(&self, name: &str, fd: impl AsFd) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        // Relaxed: only that no number comes twice counts.
        let number = inner.next.fetch_add(1, Ordering::Relaxed);
        let envelope = envelope::seal(name, fd.as_fd())?;
        let kept = inner.notifier.send(
            &format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", envelope::label(number)),
            Some(envelope.as_fd()),
        );
        inner.noted(kept)?;
        let before = lock(&inner.kept).insert(name.to_owned(), number);
        before.into_iter().for_each(|number| inner.discard(number));
        Ok(())
    }

    /// Has what is kept under `name`, and under any name that begins with it and `/`, kept no longer. What of it was not taken
    /// is closed.
    pub fn forget(&self, name: &str) {
        let Some(inner) = &self.0 else { return };
        drop(remove_all(&mut lock(&inner.found), name));
        let forgotten = remove_all(&mut lock(&inner.kept), name);
        forgotten.into_iter().for_each(|(_, number)| inner.discard(number));
    }

    /// Returns when the keeper has all that was sent before, also by other threads.
    ///
    /// Errors: it does not say so in time.
    pub fn barrier(&self) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.noted(inner.notifier.barrier())
    }

    /// What a predecessor kept under that name, once. It stays kept until it is replaced or forgotten.
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.0.as_ref()?.found).remove(name)
    }

    /// Whether a predecessor kept something under that name that nobody took yet.
    pub fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|inner| lock(&inner.found).contains_key(name))
    }

    /// Names of what nobody took yet, under `name` and `/`.
    pub fn names_under(&self, name: &str) -> Vec<String> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let found = lock(&inner.found);
        found.range::<String, _>(below(name)).map(|(name, _)| name.clone()).collect()
    }

    /// What is kept under `name` and `/`.
    pub fn drawer(&self, name: impl Display) -> Drawer {
        Drawer { store: self.clone(), name: name.to_string() }
    }

    /// Has nothing kept any longer.
    pub fn forget_all(&self) {
        let Some(inner) = &self.0 else { return };
        lock(&inner.found).clear();
        let kept = std::mem::take(&mut *lock(&inner.kept));
        kept.into_values().for_each(|number| inner.discard(number));
    }

    /// Closes what a predecessor kept and nobody took, and has it kept no longer. Returns its names.
    pub fn forget_untaken(&self) -> Vec<String> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let left = std::mem::take(&mut *lock(&inner.found));
        for name in left.keys() {
            let number = lock(&inner.kept).remove(name);
            number.into_iter().for_each(|number| inner.discard(number));
        }
        left.into_keys().collect()
    }

    /// What becomes readable when our own keeper says something; nobody else does.
    pub fn keeper(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().filter(|inner| inner.notifier.is_ours).map(|inner| inner.notifier.as_fd())
    }

    /// What it says. Does not wait.
    pub fn hear(&self) -> Heard {
        self.keeper().map_or(Heard::Nothing, keeper::hear)
    }

    /// Tells whoever started us how we are, in the words of sd_notify(3): `READY=1`. Nothing hangs on it.
    pub fn tell(&self, state: &str) {
        if let Some(inner) = &self.0 {
            let _ = inner.noted(inner.notifier.send(state, None));
        }
    }
}

impl Inner {
    fn discard(&self, number: u64) {
        let _ = self
            .noted(self.notifier.send(&format!("FDSTOREREMOVE=1\nFDNAME={}", envelope::label(number)), None));
    }

    /// Logs the first of the keeper's failures.
    fn noted(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result
            // Relaxed: one message more would do no harm.
            && !self.is_lost.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("what is open is not kept for a next start any more: {error}");
        }
        result
    }
}

/// What is kept of one thing, under names of its own. Without a store it is always empty.
#[derive(Clone, Debug, Default)]
pub struct Drawer {
    store: Store,
    name: String,
}

impl Drawer {
    /// As [`Store::keep`]; that it fails is logged, and the thing is had without being kept.
    pub fn keep(&self, name: impl Display, fd: impl AsFd) {
        let _ = self.store.keep(&format!("{}/{name}", self.name), fd);
    }

    /// As [`Store::take`].
    pub fn take(&self, name: impl Display) -> Option<OwnedFd> {
        self.store.take(&format!("{}/{name}", self.name))
    }

    /// Whether there is anything in it that nobody took.
    pub fn is_empty(&self) -> bool {
        self.store.names_under(&self.name).is_empty()
    }

    /// As [`Store::forget`], of all that is in it.
    pub fn forget_all(&self) {
        self.store.forget(&self.name);
    }
}

/// Takes out what has that name or is below it.
fn remove_all<T>(map: &mut BTreeMap<String, T>, name: &str) -> Vec<(String, T)> {
    let names: Vec<String> = map.range::<String, _>(below(name)).map(|(name, _)| name.clone()).collect();
    let names = names.into_iter().chain([name.to_owned()]);
    names.filter_map(|name| map.remove_entry(&name)).collect()
}

/// All names that begin with `name` and `/`.
fn below(name: &str) -> (Bound<String>, Bound<String>) {
    // `0` comes next to `/`.
    (Bound::Excluded(format!("{name}/")), Bound::Excluded(format!("{name}0")))
}

/// What is guarded here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! Whoever keeps descriptors for switches of this process, and an eye on these.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::{self, JoinHandle};

use ringyard_drivers::store::{Shelf, Store, notify_socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// See the module. Its thread ends with it.
pub struct Keeper {
    dir: tempfile::TempDir,
    shelf: Arc<Mutex<Shelf>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// One that has nothing.
    pub fn start() -> Keeper {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = notify_socket(&dir.path().join("notify")).expect("a socket");
        let (shelf, stop) = (Arc::new(Mutex::new(Shelf::new(1000))), Arc::new(AtomicBool::new(false)));
        let (theirs, stopped) = (shelf.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                wait_for(socket.as_fd());
                theirs.lock().expect("nobody panics with it").serve(&socket, |_| true);
            }
        });
        Keeper { dir, shelf, stop, thread: Some(thread) }
    }

    fn address(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// An empty store.
    pub fn store(&self) -> Store {
        Store::at(self.address().as_os_str(), []).expect("the keeper is there")
    }

    /// A store with all that is kept.
    pub fn successor(&self) -> Store {
        let shelf = self.shelf.lock().expect("nobody panics with it");
        let copy = |(label, fd): &(String, OwnedFd)| (label.clone(), fd.try_clone().expect("a descriptor"));
        let kept: Vec<_> = shelf.kept().iter().map(copy).collect();
        drop(shelf);
        Store::at(self.address().as_os_str(), kept).expect("the keeper is there")
    }

    /// Keeps nothing any more.
    pub fn clear(&self) {
        self.store().barrier().expect("the keeper is there");
        self.shelf.lock().expect("nobody panics with it").clear();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Waits until something has come, for a moment.
fn wait_for(fd: BorrowedFd<'_>) {
    let limit = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit));
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Notes when a thread other than this one panics: nobody joins a port's.
pub fn watch_for_panics() {
    static WATCHING: Once = Once::new();
    let tester = thread::current().id();
    WATCHING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.fetch_or(thread::current().id() != tester, Ordering::Relaxed);
            before(info);
        }));
    });
}

/// No other thread has.
pub fn assert_no_panic() {
    assert!(!PANICKED.swap(false, Ordering::Relaxed), "a thread of the switch has panicked");
}

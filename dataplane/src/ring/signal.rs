//! Signalling an eventfd that the other side shares, and could make block.
//!
//! Signals are written to non-blocking eventfds, but that flag belongs to the open file: a front end can clear it, keep
//! the counter full, and so hold up whoever writes. Each thread therefore says what it is about to write to. A watchdog
//! looks now and then; whom it finds at the same write twice, on an eventfd that was made blocking, it sets free by
//! emptying the counter, and the ring that did this is broken.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, preadv2};

/// Between two looks of the watchdog: nobody is held up for longer than two of them.
const LOOK: Duration = Duration::from_millis(20);

/// The eventfd was made blocking and kept full; the write has ended all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jammed;

/// What one thread is writing to.
#[derive(Default)]
struct Writer {
    /// A number that is new for each write, and the eventfd. Set and cleared by the thread, read by the watchdog.
    current: Mutex<Option<(u64, Arc<OwnedFd>)>>,
    /// The watchdog has set the thread free. Written by the watchdog, cleared by the thread.
    freed: AtomicBool,
}

/// A thread's own part, and the number of its next write.
struct Own {
    writer: Arc<Writer>,
    next: Cell<u64>,
}

/// All threads that have ever signalled and are still there.
static WRITERS: Mutex<Vec<Weak<Writer>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: OnceCell<Own> = const { OnceCell::new() };
}

/// Adds 1 to a non-blocking eventfd. A full counter already says what there is to say.
pub(crate) fn signal(eventfd: &Arc<OwnedFd>) -> Result<(), Jammed> {
    OWN.with(|own| own.get_or_init(Own::new).write(eventfd))
}

impl Own {
    fn new() -> Own {
        let writer = Arc::new(Writer::default());
        let mut writers = lock(&WRITERS);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(&writer));
        Own { writer, next: Cell::new(0) }
    }

    fn write(&self, eventfd: &Arc<OwnedFd>) -> Result<(), Jammed> {
        let number = self.next.get();
        self.next.set(number + 1);
        *lock(&self.writer.current) = Some((number, eventfd.clone()));
        crate::eventfd::add(&**eventfd);
        *lock(&self.writer.current) = None;
        // Relaxed: set under the lock that was just taken, if it was.
        if self.writer.freed.load(Ordering::Relaxed) {
            self.writer.freed.store(false, Ordering::Relaxed);
            return Err(Jammed);
        }
        Ok(())
    }
}

/// Starts the thread that sets writers free, if it does not run yet; it runs as long as the process.
///
/// Errors: no thread to be had.
pub(crate) fn start_watchdog() -> io::Result<()> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if STARTED.set(()).is_ok() {
        thread::Builder::new().name("watchdog".into()).spawn(watch)?;
    }
    Ok(())
}

fn watch() {
    let mut before: Vec<(Weak<Writer>, u64)> = Vec::new();
    loop {
        thread::sleep(LOOK);
        let mut now = Vec::new();
        for writer in lock(&WRITERS).iter() {
            let Some(alive) = writer.upgrade() else { continue };
            let current = lock(&alive.current);
            let Some((number, eventfd)) = &*current else { continue };
            if before.iter().any(|(who, what)| who.ptr_eq(writer) && what == number) && blocks(eventfd) {
                alive.freed.store(true, Ordering::Relaxed);
                empty(eventfd);
            }
            now.push((writer.clone(), *number));
        }
        before = now;
    }
}

/// A thread that is only slow, or was not let run, writes to an eventfd that is as it was made.
fn blocks(eventfd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(eventfd).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
}

/// Reads an eventfd empty. Without waiting in any case: the front end may take O_NONBLOCK away again, which is not the
/// descriptor's but the file's.
pub(super) fn empty(eventfd: &OwnedFd) {
    /// The offset of a file that has none.
    const HERE: u64 = u64::MAX;
    let mut count = [0; 8];
    let _ = preadv2(eventfd, &mut [IoSliceMut::new(&mut count)], HERE, ReadWriteFlags::NOWAIT);
}

/// A thread that panicked left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::time::Instant;

    #[test]
    fn p13_eventfd_that_is_made_to_block_holds_nobody_up_for_long() {
        start_watchdog().unwrap();
        let honest = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let full = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        assert_eq!(signal(&full), Ok(()), "a full counter that does not block is no fault");
        rustix::fs::fcntl_setfl(&full, OFlags::empty()).unwrap();
        let began = Instant::now();
        assert_eq!(signal(&full), Err(Jammed));
        assert!(began.elapsed() < Duration::from_secs(1), "held up for {:?}", began.elapsed());
        assert_eq!(signal(&honest), Ok(()));
    }
}

//! A port's own thread, for what is not forwarding: a peer that comes and goes, a device that fails and comes back.
//!
//! Workers never wait for it. What they find out they say by raising an [`Alarm`]; the thread sleeps until then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_dataplane::eventfd;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::flag::Flag;

/// The thread's owner. Dropping it tells the thread to end, and does not wait for that.
pub struct Minder {
    stop: Arc<OwnedFd>,
}

impl Minder {
    /// Starts a thread of the given name, at most 15 bytes of which show, that runs `body`.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(name: &str, body: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Minder> {
        let stop = Arc::new(event()?);
        let minder = Minder { stop: stop.clone() };
        thread::Builder::new().name(name.to_owned()).spawn(move || body(&Stop(stop)))?;
        Ok(minder)
    }
}

impl Drop for Minder {
    fn drop(&mut self) {
        // Never read by the thread: it stays readable, whatever the thread waits for.
        eventfd::add(&*self.stop);
    }
}

/// What tells the thread to end.
pub struct Stop(Arc<OwnedFd>);

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This descriptor of those that were waited for is ready, or failed; the first one if there are several.
    Ready(usize),
    /// The time is over.
    TimedOut,
    /// The port goes away: the thread ends.
    Stopped,
}

impl Stop {
    /// Becomes readable when the port goes away, and stays so.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits that long. False: the port goes away.
    pub fn sleep(&self, time: Duration) -> bool {
        self.wait(&[], Some(time)) != Wait::Stopped
    }

    /// Waits until one of `fds` has what is asked of it, an error or an end included; without a limit for ever.
    pub fn wait(&self, fds: &[(BorrowedFd<'_>, PollFlags)], limit: Option<Duration>) -> Wait {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut polled = vec![PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
        polled.extend(fds.iter().map(|&(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        loop {
            let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
            match poll(&mut polled, left.as_ref()) {
                Ok(0) => return Wait::TimedOut,
                Ok(_) if !polled[0].revents().is_empty() => return Wait::Stopped,
                Ok(_) => {
                    let ready = polled[1..].iter().position(|fd| !fd.revents().is_empty());
                    return ready.map_or(Wait::TimedOut, Wait::Ready);
                }
                Err(Errno::INTR) => {}
                // No memory for it: as if nothing had come, but not at once.
                Err(_) => thread::sleep(POLL_PAUSE),
            }
        }
    }
}

/// How a worker tells the thread that something is wrong.
pub(crate) struct Alarm {
    fd: OwnedFd,
    /// So that a worker that finds the same thing wrong again does not say so again.
    raised: Flag,
}

impl Alarm {
    /// Errors: no descriptor to be had.
    pub(crate) fn new() -> io::Result<Alarm> {
        Ok(Alarm { fd: event()?, raised: Flag::new() })
    }

    /// Wakes the thread, unless it was woken already. Never waits.
    pub(crate) fn raise(&self) {
        self.raised.raise(|| eventfd::add(&self.fd));
    }

    /// Whether it was raised since it was cleared last.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.is_raised()
    }

    /// Done by the thread before it looks for what is wrong, so that nothing found later is missed.
    pub(crate) fn clear(&self) {
        self.take();
    }

    /// The same; whether it was raised. Where only the descriptor says so, it was raised while it was cleared last.
    pub(crate) fn take(&self) -> bool {
        self.raised.take(|| rustix::io::read(&self.fd, &mut [0; 8]).is_ok())
    }

    /// Readable while it is raised.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn event() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// After a `poll` that failed.
const POLL_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_thread_ends_when_its_owner_goes() {
        let (ended, end) = channel();
        let minder = Minder::start("test", move |stop| {
            while stop.sleep(Duration::from_secs(100)) {}
            ended.send(()).expect("the test waits");
        });
        drop(minder.expect("a thread can be had"));
        assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn an_alarm_wakes_the_thread_once_until_it_is_cleared() {
        let alarm = Alarm::new().expect("an eventfd can be made");
        let stop = Stop(Arc::new(event().expect("an eventfd can be made")));
        let wait = || stop.wait(&[(alarm.fd(), PollFlags::IN)], Some(Duration::ZERO));
        assert_eq!(wait(), Wait::TimedOut);
        alarm.raise();
        alarm.raise();
        assert!(alarm.is_raised());
        assert_eq!(wait(), Wait::Ready(0));
        alarm.clear();
        assert_eq!((wait(), alarm.is_raised()), (Wait::TimedOut, false));
        alarm.raise();
        assert_eq!(wait(), Wait::Ready(0));
        assert!(alarm.take() && !alarm.take());
        // As if it had been cleared while it was raised.
        rustix::io::write(&alarm.fd, &1u64.to_ne_bytes()).expect("it takes a number");
        assert!(alarm.take() && !alarm.take());
        assert_eq!(wait(), Wait::TimedOut);
    }
}

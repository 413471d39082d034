//! The threads beside control that do what may block: a few at most, started when there is work, gone when there is none.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use crate::open::{Job, Outcome};

/// Jobs under way at once; further ones wait for their turn.
pub(super) const HANDS_MAX: usize = 16;

/// Names a job until its outcome is taken; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub u64);

/// Control's end.
pub(super) struct Hands {
    shared: Arc<Shared>,
    outcomes: Receiver<(Ticket, Outcome)>,
}

/// Where jobs are left, for any thread to do so.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    done: Sender<(Ticket, Outcome)>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Ticket, Job)>,
    threads: usize,
}

impl Hands {
    /// Without a thread yet.
    pub(super) fn new() -> io::Result<Hands> {
        let (done, outcomes) = unbounded();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Hands { shared: Arc::new(Shared { queue: Mutex::default(), done, wake }), outcomes })
    }

    /// Where to leave jobs.
    pub(super) fn inbox(&self) -> Inbox {
        Inbox(self.shared.clone())
    }

    /// Becomes readable when there are outcomes.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// The outcomes since the last call.
    pub(super) fn drain(&self) -> Vec<(Ticket, Outcome)> {
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        self.outcomes.try_iter().collect()
    }
}

impl Inbox {
    /// Has a job done; returns at once.
    pub(super) fn submit(&self, ticket: Ticket, job: Job) {
        let mut queue = self.0.lock();
        queue.jobs.push_back((ticket, job));
        if queue.threads == HANDS_MAX {
            return;
        }
        let shared = self.0.clone();
        match thread::Builder::new().name("opener".into()).spawn(move || shared.work()) {
            Ok(_) => queue.threads += 1,
            // Another thread will come to it.
            Err(_) if queue.threads > 0 => {}
            Err(error) => {
                let jobs: Vec<_> = queue.jobs.drain(..).collect();
                drop(queue);
                let why = format!("starting a thread: {error}");
                jobs.into_iter().for_each(|(ticket, job)| self.0.post(ticket, job.refusal(&why)));
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let Some((ticket, job)) = queue.jobs.pop_front() else {
                queue.threads -= 1;
                return;
            };
            drop(queue);
            let refusal = job.refusal("an error of ringyard itself: see its stderr");
            self.post(ticket, outcome(|| job.run(), refusal));
        }
    }

    fn post(&self, ticket: Ticket, outcome: Outcome) {
        // When control has gone, what was opened is dropped.
        let _ = self.done.send((ticket, outcome));
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// No code that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `work` yields; `refusal` if it panics: somebody waits, and the thread has more to do.
fn outcome(work: impl FnOnce() -> Outcome, refusal: Outcome) -> Outcome {
    // What the job had is dropped by its panic, and nobody else saw it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ChardevSpec;
    use ringyard_drivers::chardev::{SocketAccess, SocketRole};
    use ringyard_drivers::store::Drawer;

    #[test]
    fn more_jobs_than_hands_are_all_done() {
        let hands = Hands::new().expect("an eventfd can be made");
        for number in 0..3 * HANDS_MAX as u64 {
            let role = SocketRole::Client { reconnect: None };
            let spec = ChardevSpec { id: "c".into(), path: "/no/such/socket".into(), role };
            let access = Arc::new(SocketAccess { mode: 0o600, group: None });
            let job = Job::OpenChardev { spec, access, drawer: Drawer::default(), is_restored: false };
            hands.inbox().submit(Ticket(number), job);
            assert!(hands.shared.lock().threads <= HANDS_MAX);
        }
        let mut done: Vec<Ticket> = (0..3 * HANDS_MAX)
            .map(|_| hands.outcomes.recv().expect("every job has an outcome"))
            .map(|(ticket, _)| ticket)
            .collect();
        done.sort_unstable();
        assert_eq!(done, (0..3 * HANDS_MAX as u64).map(Ticket).collect::<Vec<_>>());
    }

    #[test]
    fn a_job_that_panics_is_answered_all_the_same() {
        let refusal = Outcome::Port { id: "t".into(), opened: Err("why".into()) };
        let outcome = outcome(|| panic!("as an error of ours would"), refusal);
        assert!(matches!(outcome, Outcome::Port { opened: Err(why), .. } if why == "why"));
    }
}

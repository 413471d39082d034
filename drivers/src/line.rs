//! The line from a port's own thread to the control thread.
//!
//! A driver whose peer comes, goes, or changes its rings builds a whole new [`Attachment`], sends it over its [`Line`]
//! and waits. Control drains all reports, publishes once and answers each: by then no worker uses anything of the
//! attachment before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringyard_dataplane::port::Attachment;
use rustix::event::{EventfdFlags, eventfd};

/// A port's name between its driver and control; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey(pub u64);

/// What a driver tells control.
pub struct Report {
    /// Whose report it is.
    pub port: PortKey,
    /// What is new.
    pub news: News,
}

/// What there is to tell.
pub enum News {
    /// The port changes.
    Attached {
        /// What it is from now on.
        attachment: Attachment,
        /// To be answered once published; dropped unanswered when the port is no more.
        done: Sender<()>,
    },
    /// Frames that came in, were held, and will not be forwarded any more: their ring was stopped.
    Dropped {
        /// How many.
        frames: u64,
    },
}

/// The port has been taken away: its thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplugged;

/// A driver's end.
pub struct Line {
    port: PortKey,
    reports: Sender<Report>,
    wake: Arc<OwnedFd>,
}

impl Line {
    /// Makes the port what `attachment` says and returns when no worker uses what it was before.
    ///
    /// Errors: [`Unplugged`]; then nobody uses it either.
    pub fn attach(&self, attachment: Attachment) -> Result<(), Unplugged> {
        let (done, answered) = bounded(1);
        self.tell(News::Attached { attachment, done })?;
        answered.recv().map_err(|_| Unplugged)
    }

    /// Has frames counted that the port dropped itself. Does not wait.
    pub fn count_dropped(&self, frames: u64) {
        if frames > 0 {
            // The books of a port that is gone are closed.
            let _ = self.tell(News::Dropped { frames });
        }
    }

    fn tell(&self, news: News) -> Result<(), Unplugged> {
        self.reports.send(Report { port: self.port, news }).map_err(|_| Unplugged)?;
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }
}

/// Control's end of all lines.
pub struct Switchboard {
    reports: Receiver<Report>,
    sender: Sender<Report>,
    wake: Arc<OwnedFd>,
}

impl Switchboard {
    /// Without lines yet.
    pub fn new() -> io::Result<Switchboard> {
        let (sender, reports) = unbounded();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Switchboard { reports, sender, wake })
    }

    /// A line for the port `port`.
    pub fn line(&self, port: PortKey) -> Line {
        Line { port, reports: self.sender.clone(), wake: self.wake.clone() }
    }

    /// Becomes readable when there are reports.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// All reports that wait, oldest first.
    pub fn drain(&self) -> Vec<Report> {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        self.reports.try_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn driver_waits_until_its_report_is_answered() {
        let board = Switchboard::new().unwrap();
        let line = board.line(PortKey(7));
        let driver = thread::spawn(move || line.attach(Attachment::default()));
        let report = loop {
            if let Some(report) = board.drain().pop() {
                break report;
            }
        };
        assert_eq!(report.port, PortKey(7));
        assert!(!driver.is_finished());
        let News::Attached { done, .. } = report.news else { panic!("it attached") };
        done.send(()).unwrap();
        assert_eq!(driver.join().unwrap(), Ok(()));
    }

    #[test]
    fn drops_are_told_in_passing_and_only_if_there_are_some() {
        let board = Switchboard::new().unwrap();
        let line = board.line(PortKey(7));
        line.count_dropped(0);
        line.count_dropped(3);
        let told: Vec<Report> = board.drain();
        assert!(matches!(told[..], [Report { port: PortKey(7), news: News::Dropped { frames: 3 } }]));
    }

    #[test]
    fn driver_of_a_port_that_is_gone_is_told() {
        let board = Switchboard::new().unwrap();
        let line = board.line(PortKey(7));
        let driver = thread::spawn(move || line.attach(Attachment::default()));
        while board.drain().is_empty() {}
        assert_eq!(driver.join().unwrap(), Err(Unplugged));
    }
}

//! The line from a port's own thread to the control thread.
//!
//! A driver whose peer comes, goes, or changes its rings builds a whole new [`Attachment`], sends it over its [`Line`]
//! and waits. Control drains all reports, publishes once and answers each: by then no worker uses anything of the
//! attachment before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::mac::Mac;
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
    /// How the port stands from now on, for people to read.
    State {
        /// As `info network` shows it.
        text: String,
    },
    /// The guest's address is to be announced to all others, once.
    Announce {
        /// It.
        mac: Mac,
    },
    /// What the guest's driver wants to receive from now on.
    Filter {
        /// All of it.
        filter: Box<RxFilter>,
        /// To be answered once published, if anybody waits; dropped unanswered when the port is no more.
        done: Option<Sender<()>>,
    },
    /// The guest that wanted to receive something else is gone.
    NoFilter,
    /// The guest's driver takes the nic for the standby of another (VIRTIO_NET_F_STANDBY).
    Standby,
    /// The peer of a stream is there.
    Connected {
        /// Its name, or ours where it has none.
        peer: SocketName,
    },
    /// The peer of a stream is gone.
    Disconnected,
}

/// A socket's address, for people to read and for the events of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    /// TCP.
    Inet {
        /// A number, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether the host is an IPv6 address.
        ipv6: bool,
    },
    /// A unix socket.
    Unix {
        /// Empty for one that has no name.
        path: String,
        /// Whether the path is a name of Linux's abstract kind; then whether the address ends where the name does.
        tight: Option<bool>,
    },
    /// A socket between a host and its guests.
    Vsock {
        /// The machine.
        cid: u32,
        /// The port.
        port: u32,
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

    /// Has `text` shown of the port from now on. Does not wait.
    pub fn show(&self, text: impl Into<String>) {
        // Of a port that is gone nothing is shown.
        let _ = self.tell(News::State { text: text.into() });
    }

    /// Has the guest's nic receive what `filter` says. Does not wait.
    pub fn filter(&self, filter: RxFilter) {
        let _ = self.tell(News::Filter { filter: Box::new(filter), done: None });
    }

    /// As [`Self::filter`], and returns when workers go by it.
    ///
    /// Errors: [`Unplugged`].
    pub fn set_filter(&self, filter: RxFilter) -> Result<(), Unplugged> {
        let (done, answered) = bounded(1);
        self.tell(News::Filter { filter: Box::new(filter), done: Some(done) })?;
        answered.recv().map_err(|_| Unplugged)
    }

    /// Has the guest's nic receive what it would if its driver had never spoken. Does not wait.
    pub fn forget_filter(&self) {
        let _ = self.tell(News::NoFilter);
    }

    /// Tells monitors that the guest's driver takes the nic for the standby of another. Does not wait.
    pub fn standby(&self) {
        let _ = self.tell(News::Standby);
    }

    /// Has the guest's address announced to all others. Does not wait.
    pub fn announce(&self, mac: Mac) {
        let _ = self.tell(News::Announce { mac });
    }

    /// Tells monitors that the peer of a stream is there. Does not wait.
    pub fn connected(&self, peer: SocketName) {
        let _ = self.tell(News::Connected { peer });
    }

    /// Tells monitors that the peer of a stream is gone. Does not wait.
    pub fn disconnected(&self) {
        let _ = self.tell(News::Disconnected);
    }

    fn tell(&self, news: News) -> Result<(), Unplugged> {
        self.reports.send(Report { port: self.port, news }).map_err(|_| Unplugged)?;
        ringyard_dataplane::eventfd::add(&*self.wake);
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

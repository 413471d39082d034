//! `dgram`, and the datagram forms of `socket`: a frame a datagram and nothing else, over UDP, a multicast group, a unix
//! socket, or a socket that somebody else made.
//!
//! The frames are the business of `datagram`. Here sockets are made, and each kind knows how to find
//! out what is wrong with it and what to do about that (`Medium::mend`): an address or an interface that is gone takes
//! the carrier along, and comes back with it. A peer that is not there is no fault; its frames are drops.

mod given;
mod inet;
mod multicast;
mod unix;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::port::Attachment;
use rustix::event::PollFlags;

use crate::chardev::SocketAccess;
use crate::datagram::{self, DatagramOptions, DatagramQueue, Encapsulation};
use crate::errno;
use crate::line::{Line, Unplugged};
use crate::links::Links;
use crate::minder::{Alarm, Minder, Stop, Wait};
use given::Given;
use inet::Inet;
use multicast::Multicast;

pub use unix::UnixName;

/// What frames go over.
#[derive(Debug)]
pub enum Wire {
    /// UDP: bound to `local`, sending to `remote`, hearing everybody.
    Inet {
        /// Ours.
        local: SocketAddrV4,
        /// The peer's.
        remote: SocketAddrV4,
    },
    /// A multicast group: all its members hear each other.
    Multicast {
        /// The group and its port.
        group: SocketAddrV4,
        /// The address of the interface to use; `None` leaves that to the routes.
        interface: Option<Ipv4Addr>,
        /// The socket to hear with; without one it is made.
        socket: Option<OwnedFd>,
    },
    /// Unix datagrams: bound to `local`, sending to `remote`.
    Unix {
        /// Ours. What is at its path is removed first.
        local: UnixName,
        /// The peer's; [`UnixName::Unnamed`]: whoever is the first to send us something.
        remote: UnixName,
    },
    /// A datagram socket that is ready. One that is not connected answers whoever is the first to send something; over IP,
    /// until that is silent and somebody else sends something.
    Given(OwnedFd),
}

/// An open port.
pub struct DgramPort {
    attachment: Attachment,
    /// Until [`Self::start`].
    watch: Option<Watch>,
    /// Held for its end: dropping it stops the port's thread.
    minder: Option<Minder>,
}

/// One kind of wire, open.
trait Medium: Send {
    /// What workers get of it.
    fn attachment(&self) -> Attachment;

    /// Looks for a fault, and repairs what can be. Whether workers need a new attachment.
    ///
    /// Errors: what is wrong, for the user to read.
    fn mend(&mut self) -> Result<bool, String>;
}

impl DgramPort {
    /// Makes the sockets.
    ///
    /// Errors: the text for the user.
    pub fn open(wire: Wire, access: &SocketAccess) -> Result<DgramPort, String> {
        let alarm = Alarm::new().map_err(|error| format!("making an eventfd: {}", errno::text(error)))?;
        let alarm = Arc::new(alarm);
        let medium: Box<dyn Medium> = match wire {
            Wire::Inet { local, remote } => Box::new(Inet::open(local, remote, alarm.clone())?),
            Wire::Multicast { group, interface, socket } => {
                Box::new(Multicast::open(group, interface, socket, alarm.clone())?)
            }
            Wire::Unix { local, remote } => {
                return Ok(DgramPort {
                    attachment: unix::open(&local, &remote, access, alarm)?,
                    watch: None,
                    minder: None,
                });
            }
            Wire::Given(socket) => Box::new(Given::open(socket, alarm.clone())?),
        };
        let links = Links::open_with_addresses()
            .map_err(|error| format!("watching the interfaces: {}", errno::text(error)))?;
        let attachment = medium.attachment();
        Ok(DgramPort { attachment, watch: Some(Watch { medium, alarm, links }), minder: None })
    }

    /// What workers get at first.
    pub fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    /// Starts to look after it; `info` is what to show while all is well.
    pub fn start(&mut self, line: Line, info: String) -> io::Result<()> {
        if let Some(watch) = self.watch.take() {
            self.minder = Some(Minder::start("dgram", move |stop| {
                // Nobody is told of a port that was unplugged.
                let _ = watch.run(stop, &line, &info);
            })?);
        }
        Ok(())
    }
}

/// What the port's thread looks at.
struct Watch {
    medium: Box<dyn Medium>,
    alarm: Arc<Alarm>,
    /// Something happened to an interface or an address of the host.
    links: Links,
}

impl Watch {
    fn run(mut self, stop: &Stop, line: &Line, info: &str) -> Result<(), Unplugged> {
        let mut fault = None;
        loop {
            let watched = [(self.alarm.fd(), PollFlags::IN), (self.links.as_fd(), PollFlags::IN)];
            if stop.wait(&watched, fault.as_ref().map(|_| PAUSE)) == Wait::Stopped {
                return Ok(());
            }
            let alarmed = self.alarm.take();
            self.links.clear();
            match self.medium.mend() {
                Ok(renewed) if renewed || fault.is_some() => {
                    fault = None;
                    line.show(info);
                    line.attach(self.medium.attachment())?;
                }
                // A fault that is none by the time that we look may be one again for the next frame.
                Ok(_) if alarmed && !stop.sleep(PAUSE) => return Ok(()),
                Ok(_) => {}
                Err(why) if fault.as_ref() == Some(&why) => {}
                Err(why) => {
                    line.show(format!("error: {why}"));
                    if fault.replace(why).is_none() {
                        line.attach(Attachment::default())?;
                    }
                }
            }
        }
    }
}

/// Makes an attachment of one queue.
fn attachment<E: Encapsulation>(encapsulation: E, options: DatagramOptions) -> Attachment {
    datagram::attachment(Arc::new(DatagramQueue::new(encapsulation, options)))
}

/// The same over a socket of somebody else's.
fn attachment_of_given<E: Encapsulation>(encapsulation: E, options: DatagramOptions) -> Attachment {
    datagram::attachment(Arc::new(DatagramQueue::over_given(encapsulation, options)))
}

/// Between two attempts to repair something.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

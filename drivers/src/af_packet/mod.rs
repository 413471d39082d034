//! `af-packet`: an interface of the host that stays the host's: frames are taken and sent through packet sockets.
//!
//! Each queue is a socket with a receive ring of its own (`ring`, `inbox`), and several share the interface's frames as
//! their fanout says. Frames go out by `sendmmsg` (`outbox`). What the interface's other side sends is heard; what the
//! host's own network stack sends over it is not.
//!
//! The ring is of TPACKET_V2, not V3. V3's blocks become ours when they are full or a timer of at least 1 ms says so, so a
//! lone frame waits for that: a ping through two relays of that kind takes 0.64 ms instead of 0.15 ms (means; Linux 6.18), and
//! several times that with earlier kernels, whose timer counts ticks. What V3 saves is small: of the relay that `outbox` speaks of
//! it takes 0.94 (64 B) to 1.00 (1514 B) of the processor time. And a slot of V2 goes back alone, so a held frame keeps
//! nothing but itself.
//!
//! Frames come behind a virtio-net header, for the kernel cannot be told to leave nothing to us: a veth's peer sends frames
//! of 64 KiB that are still to be cut, and checksums that are partial. The way out takes from us what the interface itself
//! does, if that is wanted.
//!
//! The interface may go down, vanish, and come back. A thread of the port's watches it, and takes the carrier down until
//! sockets on it can be had again.

mod features;
mod inbox;
mod life;
mod outbox;
mod queue;
mod ring;
mod socket;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ringyard_dataplane::port::Attachment;

use crate::errno;
use crate::line::Line;
use crate::links::Links;
use crate::minder::{Alarm, Minder};
use life::Life;

/// What workers call for it.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_recvmmsg, libc::SYS_sendmmsg];
/// Queues of a port, at most: the members that a fanout group has unless it is told otherwise.
pub const QUEUES_MAX: u16 = 256;

/// How frames are shared among the queues: packet(7), PACKET_FANOUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fanout {
    /// By flow.
    Hash = libc::PACKET_FANOUT_HASH,
    /// In turn.
    LoadBalance = libc::PACKET_FANOUT_LB,
    /// By the processor that they came in on.
    Cpu = libc::PACKET_FANOUT_CPU,
    /// To the first whose ring has room.
    Rollover = libc::PACKET_FANOUT_ROLLOVER,
    /// By chance.
    Random = libc::PACKET_FANOUT_RND,
    /// By the device's queue.
    QueueMapping = libc::PACKET_FANOUT_QM,
}

/// All that opening a port needs.
#[derive(Clone, Debug)]
pub struct AfPacketOptions {
    /// The interface.
    pub ifname: String,
    /// Sockets, from 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// How they share frames, if there are several.
    pub fanout: Fanout,
    /// Whether frames are taken that are for neither the interface nor a group.
    pub promiscuous: bool,
    /// Whether what the interface can do for a frame (complete its checksum, cut it) is left to it.
    pub offloads: bool,
}

/// Why a port could not be opened.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    fn new(doing: impl fmt::Display, error: impl Into<io::Error>) -> OpenError {
        OpenError(format!("{doing}: {}", errno::text(error)))
    }
}

/// An open port. Dropping it ends its thread.
pub struct AfPacketPort {
    /// Until it is asked for once the port is started: what is attached later is the thread's, and this must not keep it.
    attachment: Mutex<Attachment>,
    /// Until the port is started.
    life: Option<Life>,
    minder: Option<Minder>,
}

impl AfPacketPort {
    /// Opens the sockets. The interface must be there, and may be down.
    pub fn open(options: AfPacketOptions) -> Result<AfPacketPort, OpenError> {
        if options.queues == 0 || options.queues > QUEUES_MAX {
            return Err(OpenError(format!("af-packet number of queues must be in range [1, {QUEUES_MAX}]")));
        }
        let links = Links::open().map_err(|error| OpenError::new("watching interfaces", error))?;
        let alarm = Alarm::new().map_err(|error| OpenError::new("making an eventfd", error))?;
        let (life, attachment) = Life::begin(options, links, Arc::new(alarm))?;
        Ok(AfPacketPort { attachment: Mutex::new(attachment), life: Some(life), minder: None })
    }

    /// What workers get at first; to be asked for once when the port is started.
    pub fn attachment(&self) -> Attachment {
        let mut first = self.attachment.lock().unwrap_or_else(PoisonError::into_inner);
        if self.life.is_some() { first.clone() } else { std::mem::take(&mut first) }
    }

    /// Starts the thread that watches the interface; once.
    pub fn start(&mut self, line: Line, info: String) -> io::Result<()> {
        if let Some(life) = self.life.take() {
            self.minder = Some(Minder::start("af-packet", move |stop| life.run(&line, &info, stop))?);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../af_packet_tests.rs"]
mod tests;

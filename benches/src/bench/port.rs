//! One end of the way that frames take: a guest behind a vhost-user connection, a guest of a switch in this process, or
//! a packet socket.

use std::time::{Duration, Instant};

use super::frame::{Shape, Stamp};
use super::packet::PacketPort;
use crate::error::{Doing, Error, Result};
use crate::front_end::FrontEnd;
use crate::guest::{Guest, Received, SendQueue};
use crate::traffic::SEQUENCE;

/// Frames received in one turn from one queue.
const TURN: usize = 64;

/// See the module.
pub enum Port {
    /// Behind a vhost-user connection.
    Plugged(Box<FrontEnd>),
    /// Without one.
    Bare(Box<Guest>),
    /// A tap's or another interface's other side.
    Packet(Box<PacketPort>),
}

/// A received frame.
pub enum Seen<'a> {
    /// In a guest's buffers.
    Ring(&'a Received<'a>),
    /// Copied out of the kernel.
    Bytes(&'a [u8]),
}

impl Seen<'_> {
    /// Bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // frames are not
    pub fn len(&self) -> usize {
        match self {
            Seen::Ring(frame) => frame.len(),
            Seen::Bytes(bytes) => bytes.len(),
        }
    }

    /// The 8 bytes where a stamp stands.
    #[inline]
    pub fn stamp(&self) -> Option<Stamp> {
        let word = match self {
            Seen::Ring(frame) => frame.stamp(SEQUENCE)?,
            Seen::Bytes(bytes) => u64::from_le_bytes(bytes.get(SEQUENCE..SEQUENCE + 8)?.try_into().ok()?),
        };
        Stamp::read(word)
    }

    /// Whether every byte is that of `frame`; `scratch` is as long as any frame.
    pub fn equals(&self, frame: &[u8], scratch: &mut [u8]) -> bool {
        match self {
            Seen::Ring(received) => received.len() == frame.len() && received.copy_to(scratch) == frame,
            Seen::Bytes(bytes) => *bytes == frame,
        }
    }
}

impl Port {
    /// Queue pairs.
    pub fn queues(&self) -> usize {
        self.guest().map_or(1, |guest| guest.pairs().len())
    }

    /// The guest, if it is one.
    pub fn guest(&self) -> Option<&Guest> {
        match self {
            Port::Plugged(front_end) => Some(&front_end.guest),
            Port::Bare(guest) => Some(guest),
            Port::Packet(_) => None,
        }
    }

    fn guest_mut(&mut self) -> Option<&mut Guest> {
        match self {
            Port::Plugged(front_end) => Some(&mut front_end.guest),
            Port::Bare(guest) => Some(guest),
            Port::Packet(_) => None,
        }
    }

    /// Makes all of a queue's buffers ready for [`Self::send`] with that shape.
    pub fn prepare(&mut self, queue: usize, shape: &mut Shape) -> Result<()> {
        let Some(guest) = self.guest_mut() else { return Ok(()) };
        let sender = &mut guest.pairs_mut()[queue].send;
        let size = usize::from(sender.queue().layout().size);
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        loop {
            sender.reclaim().doing("taking back sent buffers")?;
            if sender.room() >= size {
                break;
            }
            if Instant::now() > deadline {
                let kept = size - sender.room();
                return Err(Error::new(format!("the back end keeps {kept} sent buffers")));
            }
            std::thread::yield_now();
        }
        if let Some(frame) = shape.only() {
            sender.prepare(frame.stamped(0));
        }
        Ok(())
    }

    /// Sends up to `count` frames numbered from `first` on and hands them over. How many there was room for.
    #[inline]
    pub fn send(&mut self, queue: usize, shape: &mut Shape, first: Stamp, count: usize) -> Result<usize> {
        let guest = match self {
            Port::Plugged(front_end) => &mut front_end.guest,
            Port::Bare(guest) => &mut **guest,
            Port::Packet(socket) => return socket.send(shape, first, count),
        };
        let sender = &mut guest.pairs_mut()[queue].send;
        let sent = match shape.only().map(|frame| frame.len()) {
            Some(len) => sender.send_row(count, len, SEQUENCE, |place| numbered(first, place)),
            None => (0..count).take_while(|&place| send_one_of(sender, shape, first, place)).count(),
        };
        if sent > 0 {
            sender.flush();
        }
        Ok(sent)
    }

    /// Sends one frame that no shape knows. Whether there was room.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<bool> {
        self.reclaim()?;
        let Some(guest) = self.guest_mut() else {
            let Port::Packet(socket) = self else { return Ok(false) };
            return socket.send_frame(frame);
        };
        let sender = &mut guest.pair().send;
        let sent = sender.send(frame);
        sender.flush();
        Ok(sent)
    }

    /// Takes back the buffers of frames that were read.
    #[inline]
    pub fn reclaim(&mut self) -> Result<()> {
        if let Some(guest) = self.guest_mut() {
            for pair in guest.pairs_mut() {
                pair.send.reclaim().doing("taking back sent buffers")?;
            }
        }
        Ok(())
    }

    /// Shows what came on any queue, a turn of each. How many frames.
    #[inline]
    pub fn receive(&mut self, mut take: impl FnMut(Seen<'_>)) -> Result<usize> {
        let guest = match self {
            Port::Plugged(front_end) => &mut front_end.guest,
            Port::Bare(guest) => &mut **guest,
            Port::Packet(socket) => return socket.receive(|bytes| take(Seen::Bytes(bytes))),
        };
        let mut count = 0;
        for pair in guest.pairs_mut() {
            count += pair.receive.receive(TURN, |frame| take(Seen::Ring(frame)))?;
        }
        Ok(count)
    }
}

#[inline]
fn numbered(first: Stamp, place: usize) -> u64 {
    Stamp { sequence: first.sequence + place as u64, ..first }.word()
}

#[inline]
fn send_one_of(sender: &mut SendQueue, shape: &mut Shape, first: Stamp, place: usize) -> bool {
    let frame = shape.frame(first.sequence + place as u64);
    sender.send(frame.stamped(numbered(first, place)))
}

/// How long a back end may keep sent buffers when nothing more is sent.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);

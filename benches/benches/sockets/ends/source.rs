//! What sends: datagrams by the batch, one by one or as one that the kernel cuts (UDP_SEGMENT); a stream from the pages
//! of a file, which costs the sender no copy.

use std::os::fd::OwnedFd;

use ringyard_benches::traffic::Template;
use ringyard_tests::error::{Doing, Result};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::{Errno, write};

use super::Source;
use crate::batch::{BATCH, Batch};

/// One frame a datagram, with something before it or nothing.
pub struct DatagramSource {
    socket: OwnedFd,
    prefix: Vec<u8>,
    gso: bool,
    template: Template,
    batch: Batch,
    /// Frames that were sent.
    sent: u64,
    /// Frames that lie in the batch, from the first of `sent` on.
    stamped: usize,
    /// The place of the first of them.
    first: usize,
}

impl DatagramSource {
    pub fn new(socket: OwnedFd, prefix: Vec<u8>, gso: bool) -> Result<DatagramSource> {
        Ok(DatagramSource {
            socket,
            prefix,
            gso,
            template: Template::new(0, 1, 64)?,
            batch: Batch::new(BATCH, 2048),
            sent: 0,
            stamped: 0,
            first: 0,
        })
    }

    fn len(&self) -> usize {
        self.prefix.len() + self.template.len()
    }

    /// Puts the next frames into the batch, when none is left there.
    fn stamp(&mut self, most: usize) {
        if self.stamped > 0 {
            return;
        }
        // What is cut must not be longer than a datagram.
        let whole = if self.gso { UDP_MAX / self.len() } else { BATCH };
        (self.first, self.stamped) = (0, most.min(BATCH).min(whole));
        let (from, len) = (self.prefix.len(), self.len());
        for place in 0..self.stamped {
            let frame = self.template.stamp(self.sent + place as u64);
            self.batch.buffer(place)[from..len].copy_from_slice(frame);
        }
    }
}

impl Source for DatagramSource {
    fn start(&mut self, len: usize) -> Result<()> {
        self.template = Template::new(0, 1, len)?;
        for place in 0..BATCH {
            self.batch.buffer(place)[..self.prefix.len()].copy_from_slice(&self.prefix);
        }
        (self.sent, self.stamped) = (0, 0);
        Ok(())
    }

    fn send(&mut self, most: usize) -> Result<usize> {
        self.stamp(most);
        let (first, len) = (self.first, self.len());
        let sent = match self.gso {
            true => self.batch.send_as_one(&self.socket, self.stamped, len),
            false => self.batch.send(&self.socket, first, first + self.stamped.min(most), len),
        };
        let sent = sent.doing("sending datagrams")?;
        self.sent += sent as u64;
        self.first += sent;
        self.stamped -= sent;
        Ok(sent)
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}

/// Frames with their length before them, on a stream.
pub struct StreamSource {
    socket: OwnedFd,
    file: OwnedFd,
    record: u64,
    /// Bytes that were sent.
    sent: u64,
}

impl StreamSource {
    pub fn new(socket: OwnedFd) -> Result<StreamSource> {
        Ok(StreamSource { socket, file: file(64)?, record: 64 + 4, sent: 0 })
    }

    fn send_up_to(&mut self, end: u64) -> Result<()> {
        let period = self.record * period(self.record as usize - 4);
        while self.sent < end {
            let mut at = self.sent % period;
            let len = (end - self.sent).min(period - at);
            match sendfile(&self.socket, &self.file, Some(&mut at), len as usize) {
                Ok(sent) => self.sent += sent as u64,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error).doing("sending a stream"),
            }
        }
        Ok(())
    }
}

impl Source for StreamSource {
    fn start(&mut self, len: usize) -> Result<()> {
        self.file = file(len)?;
        (self.record, self.sent) = (len as u64 + 4, 0);
        Ok(())
    }

    fn send(&mut self, most: usize) -> Result<usize> {
        let before = self.sent / self.record;
        self.send_up_to((before + most as u64) * self.record)?;
        Ok((self.sent / self.record - before) as usize)
    }

    fn sent(&self) -> u64 {
        self.sent / self.record
    }

    fn complete(&mut self) -> Result<bool> {
        self.send_up_to(self.sent.next_multiple_of(self.record))?;
        Ok(self.sent.is_multiple_of(self.record))
    }
}

/// How many numbers there are on a stream, from 0: a file of frames is sent over and over.
pub fn period(len: usize) -> u64 {
    (FILE_LEN / (len + 4)) as u64
}

/// All frames of a period, as they go on a stream.
fn file(len: usize) -> Result<OwnedFd> {
    let mut template = Template::new(0, 1, len)?;
    let mut bytes = Vec::with_capacity(FILE_LEN);
    for number in 0..period(len) {
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.extend_from_slice(template.stamp(number));
    }
    let file = memfd_create("frames", MemfdFlags::CLOEXEC).doing("making a file of frames")?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = write(&file, rest).doing("writing a file of frames")?;
        rest = &rest[written..];
    }
    Ok(file)
}

/// Fits a second-level cache.
const FILE_LEN: usize = 256 << 10;
/// The longest UDP datagram over IPv4.
const UDP_MAX: usize = 65_507;

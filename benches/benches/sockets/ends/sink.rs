//! What counts: datagrams by the batch, a stream by its bytes, a packet socket's ring by the block. Lengths and numbers
//! are looked at of every frame, all bytes of a sample, which is every frame where they are short.

use std::os::fd::OwnedFd;

use ringyard_benches::traffic::{FRAME_LEN_MIN, Faults, SEQUENCE, Template, Verifier};
use ringyard_tests::error::{Doing, Error, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::Sink;
use super::source::period;
use crate::batch::{BATCH, Batch};
use crate::ring::Ring;

/// What one frame a record is held against.
struct Tally {
    prefix: Vec<u8>,
    len: usize,
    verifier: Verifier,
    /// Records of another length or with something else before the frame.
    foreign: u64,
}

impl Tally {
    fn new(prefix: Vec<u8>, len: usize) -> Result<Tally> {
        let verifier = Verifier::new(&Template::new(0, 1, len)?);
        Ok(Tally { len: prefix.len() + len, prefix, verifier, foreign: 0 })
    }

    /// What has to be read of a record to know its number.
    fn head_len(&self) -> usize {
        self.prefix.len() + 64
    }

    /// Counts a record of `len` bytes of which `bytes` were read. All of them are compared when they are `whole`.
    #[inline]
    fn take(&mut self, bytes: &[u8], len: usize, whole: bool) {
        let prefix = self.prefix.len();
        if len != self.len || bytes.len() < prefix + FRAME_LEN_MIN || bytes[..prefix] != self.prefix {
            self.foreign += 1;
            return;
        }
        let frame = &bytes[prefix..];
        if whole {
            self.verifier.check(frame);
            return;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&frame[SEQUENCE..FRAME_LEN_MIN]);
        self.verifier.count(u64::from_le_bytes(number));
    }

    fn faults(&self, sent: u64) -> Faults {
        let mut faults = self.verifier.faults(sent);
        faults.foreign += self.foreign;
        faults
    }
}

/// One frame a datagram, or many of the same length when UDP_GRO is on.
pub struct DatagramSink {
    socket: OwnedFd,
    gro: bool,
    batch: Batch,
    tally: Tally,
    reads: u32,
}

impl DatagramSink {
    pub fn new(socket: OwnedFd, prefix: Vec<u8>, gro: bool) -> Result<DatagramSink> {
        let batch = if gro { Batch::new(GRO_BATCH, 64 << 10) } else { Batch::new(BATCH, 2048) };
        Ok(DatagramSink { socket, gro, batch, tally: Tally::new(prefix, 64)?, reads: 0 })
    }
}

impl Sink for DatagramSink {
    fn start(&mut self, len: usize) -> Result<()> {
        self.tally = Tally::new(self.tally.prefix.clone(), len)?;
        Ok(())
    }

    fn drain(&mut self) -> Result<usize> {
        self.reads = self.reads.wrapping_add(1);
        let sample = self.gro || self.reads.is_multiple_of(SAMPLE);
        let room = if sample { usize::MAX } else { self.tally.head_len() };
        let got = self.batch.receive(&self.socket, room, libc::MSG_TRUNC).doing("receiving datagrams")?;
        let mut frames = 0;
        for place in 0..got {
            let (len, segment) = (self.batch.received_len(place), self.batch.segment_len(place));
            let bytes = self.batch.received(place);
            if !self.gro {
                let whole = bytes.len() == len;
                self.tally.take(bytes, len, whole);
                frames += 1;
                continue;
            }
            for (index, one) in bytes.chunks(segment.max(1)).enumerate() {
                self.tally.take(one, one.len(), index == 0);
                frames += 1;
            }
        }
        Ok(frames)
    }

    fn next(&self) -> u64 {
        self.tally.verifier.next()
    }

    fn faults(&self, sent: u64) -> Faults {
        self.tally.faults(sent)
    }
}

/// Frames with their length before them. Bytes are counted; of each read the first whole frame is compared.
pub struct StreamSink {
    socket: OwnedFd,
    /// Whether the kernel can throw bytes away without copying them.
    discards: bool,
    buffer: Vec<u8>,
    template: Template,
    /// Bytes that have come.
    received: u64,
    corrupted: u64,
    reads: u32,
}

impl StreamSink {
    pub fn new(socket: OwnedFd, discards: bool) -> Result<StreamSink> {
        let buffer = vec![0; STREAM_READ_LEN];
        let template = Template::new(0, 1, 64)?;
        Ok(StreamSink { socket, discards, buffer, template, received: 0, corrupted: 0, reads: 0 })
    }

    fn record(&self) -> u64 {
        self.template.len() as u64 + 4
    }

    fn compare(&mut self, len: usize) {
        let (record, frame_len) = (self.record(), self.template.len());
        let first = self.received.next_multiple_of(record);
        let at = (first - self.received) as usize;
        let Some(bytes) = self.buffer[..len].get(at..at + record as usize) else { return };
        let (length, frame) = bytes.split_at(4);
        // Frames before it may have been lost, so its own number says which one it is.
        let mut number = [0; 8];
        number.copy_from_slice(&frame[SEQUENCE..FRAME_LEN_MIN]);
        let number = u64::from_le_bytes(number);
        let expected = self.template.stamp(number);
        if length != (frame_len as u32).to_be_bytes() || frame != expected || number >= period(frame_len) {
            self.corrupted += 1;
        }
    }
}

impl Sink for StreamSink {
    fn start(&mut self, len: usize) -> Result<()> {
        self.template = Template::new(0, 1, len)?;
        (self.received, self.corrupted) = (0, 0);
        Ok(())
    }

    fn drain(&mut self) -> Result<usize> {
        self.reads = self.reads.wrapping_add(1);
        let compared = !self.discards || self.reads.is_multiple_of(SAMPLE);
        let flags = if compared { RecvFlags::empty() } else { RecvFlags::TRUNC };
        let len = match recv(&self.socket, self.buffer.as_mut_slice(), flags | RecvFlags::DONTWAIT) {
            // With TRUNC the second number is what came; without, both are the same.
            Ok((_, 0)) => return Err(Error::new("the switch closed the stream")),
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(error) => return Err(error).doing("receiving a stream"),
        };
        if compared {
            self.compare(len);
        }
        let before = self.next();
        self.received += len as u64;
        Ok((self.next() - before) as usize)
    }

    fn next(&self) -> u64 {
        self.received / self.record()
    }

    fn faults(&self, sent: u64) -> Faults {
        let lost = sent.saturating_sub(self.next());
        Faults { lost, corrupted: self.corrupted, ..Faults::default() }
    }
}

/// An interface, by a packet socket's ring.
pub struct PacketSink {
    _socket: OwnedFd,
    ring: Ring,
    tally: Tally,
}

impl PacketSink {
    pub fn new(socket: OwnedFd) -> Result<PacketSink> {
        let ring = Ring::of(&socket)?;
        Ok(PacketSink { _socket: socket, ring, tally: Tally::new(Vec::new(), 64)? })
    }
}

impl Sink for PacketSink {
    fn start(&mut self, len: usize) -> Result<()> {
        self.tally = Tally::new(Vec::new(), len)?;
        Ok(())
    }

    fn drain(&mut self) -> Result<usize> {
        let mut frames = 0;
        while frames < BLOCK_FRAMES_MAX
            && let Some(block) = self.ring.block()
        {
            let mut whole = true;
            self.ring.for_each(block, |frame| {
                self.tally.take(frame, frame.len(), whole);
                whole = false;
            });
            frames += block.frames;
        }
        Ok(frames)
    }

    fn next(&self) -> u64 {
        self.tally.verifier.next()
    }

    fn faults(&self, sent: u64) -> Faults {
        self.tally.faults(sent)
    }
}

/// Of so many reads one is of whole frames.
const SAMPLE: u32 = 16;
const GRO_BATCH: usize = 16;
const STREAM_READ_LEN: usize = 256 << 10;
/// Frames of one turn, about.
const BLOCK_FRAMES_MAX: usize = 256;

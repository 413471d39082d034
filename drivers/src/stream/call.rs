//! One system call's worth of records, described where their frames lie.
//!
//! A record's length and header stand together in memory of our own, and heads that follow each other are one vector: the
//! records of a burst of short frames are given to the kernel in one piece. A body is given piece by piece.

use std::os::fd::BorrowedFd;

use ringyard_dataplane::frame::{BURST_FRAMES, Frame, HEADER_LEN};
use ringyard_dataplane::offload::{Payload, Segments};
use rustix::io::Errno;

use super::WORD_LEN;
use crate::sys::outgoing::{MESSAGE_VECTORS_MAX, MessageRoom, Messages};
use crate::sys::vector::Vector;

/// Lengths and headers of one call: of as many segments as have two vectors each, with room for long headers.
const HEADS_LEN: usize = 64 * 1024;

/// Room for a call, used again for the next one.
pub(super) struct CallRoom {
    messages: MessageRoom,
    sent: [Sent; BURST_FRAMES],
}

/// The records of some frames.
pub(super) struct Call<'m> {
    messages: Messages<'m>,
    bytes: usize,
    sent: &'m mut [Sent; BURST_FRAMES],
    count: usize,
}

/// A frame of the call.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent {
    /// Where its records end, counted from the call's first byte.
    pub end: usize,
    /// How many segments it was cut into; 0 for none.
    pub segments: usize,
}

impl CallRoom {
    pub(super) fn new() -> CallRoom {
        let messages = MessageRoom::new(1, MESSAGE_VECTORS_MAX, HEADS_LEN);
        CallRoom { messages, sent: [Sent::default(); BURST_FRAMES] }
    }

    /// A call without frames.
    pub(super) fn begin(&mut self) -> Call<'_> {
        Call { messages: self.messages.begin(), bytes: 0, sent: &mut self.sent, count: 0 }
    }
}

impl<'m> Call<'m> {
    /// The frames, in order.
    pub(super) fn sent(&self) -> &[Sent] {
        &self.sent[..self.count]
    }

    /// Bytes of all records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the records of `frame`; not if they may not fit. A burst's frames at most.
    pub(super) fn add(&mut self, frame: &Frame<'m>) -> bool {
        let segments = if frame.offload().is_none() {
            let header = frame.header();
            if !self.messages.has_room(1 + frame.body().len(), WORD_LEN + header.len()) {
                return false;
            }
            self.add_record(header, frame.payload(header.len()));
            0
        } else {
            let Some(segments) = self.add_segments(frame) else { return false };
            segments
        };
        self.sent[self.count] = Sent { end: self.bytes, segments };
        self.count += 1;
        true
    }

    /// Each segment a record. How many they are, 0 for one that is whole; `None` when they may not fit.
    fn add_segments(&mut self, frame: &Frame<'m>) -> Option<usize> {
        let mut segments = Segments::of(frame)?;
        let count = segments.count();
        // A piece more for each place where the payload is cut, and one for what the header copy has of it.
        let vectors = 2 * count + frame.body().len() + 1;
        if !self.messages.has_room(vectors, count * (WORD_LEN + segments.header_len())) {
            return None;
        }
        while let Some(payload) = segments.next_payload() {
            self.add_record(segments.header(payload.sum()), payload);
        }
        Some(if count > 1 { count } else { 0 })
    }

    /// Adds one record, for which there is room.
    #[inline]
    fn add_record(&mut self, header: &[u8], payload: Payload<'m>) {
        let len = WORD_LEN + header.len();
        let record_len = header.len() + payload.len();
        self.messages.add_own(len, |head| {
            head[..WORD_LEN].copy_from_slice(&(record_len as u32).to_be_bytes());
            match header.first_chunk::<HEADER_LEN>() {
                // The usual length, at compile time.
                Some(header) if len == WORD_LEN + HEADER_LEN => head[WORD_LEN..].copy_from_slice(header),
                _ => head[WORD_LEN..].copy_from_slice(header),
            }
            len
        });
        Vector::all_of(&payload).for_each(|vector| self.messages.add(vector));
        self.bytes += WORD_LEN + record_len;
    }

    /// Sends what fits; how many bytes that was.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        loop {
            match self.messages.send_as_one(socket) {
                Err(Errno::INTR) => {}
                sent => return sent,
            }
        }
    }

    /// Copies the bytes from `from` up to `to`, counted from the call's first, to the front of `room`, and says how many
    /// they are; as many as there is room for.
    pub(super) fn copy_to(&self, from: usize, to: usize, room: &mut [u8]) -> usize {
        self.messages.copy_to(from, to, room)
    }
}

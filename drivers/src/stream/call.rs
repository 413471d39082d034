//! One system call's worth of records, described where their frames lie.
//!
//! A record's length and header stand together in memory of our own, and heads that follow each other are one vector: the
//! records of a burst of short frames are given to the kernel in one piece. A body is given piece by piece.

#![allow(unsafe_code)] // sends, and copies, from lent memory, which no slice may describe

use std::os::fd::BorrowedFd;

use ringyard_dataplane::frame::{BURST_FRAMES, Frame, HEADER_LEN};
use ringyard_dataplane::offload::{Payload, Segments};
use rustix::io::Errno;

use super::WORD_LEN;
use crate::message;

/// What the kernel takes in one call (UIO_MAXIOV).
const VECTORS_MAX: usize = 1024;
/// Lengths and headers of one call: of as many segments as have two vectors each, with room for long headers.
const HEADS_LEN: usize = 64 * 1024;

/// The records of some frames.
pub(super) struct Call {
    heads: Box<[u8]>,
    heads_len: usize,
    vectors: Box<[libc::iovec; VECTORS_MAX]>,
    vectors_len: usize,
    /// The last vector ends where the heads do.
    ends_in_heads: bool,
    bytes: usize,
    sent: [Sent; BURST_FRAMES],
    count: usize,
}

// SAFETY: the pointers are followed only by the worker that wrote them, while the frames are lent that they point into.
unsafe impl Send for Call {}

/// A frame of the call.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent {
    /// Where its records end, counted from the call's first byte.
    pub end: usize,
    /// How many segments it was cut into; 0 for none.
    pub segments: usize,
}

impl Call {
    pub(super) fn new() -> Call {
        const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Call {
            heads: vec![0; HEADS_LEN].into(),
            heads_len: 0,
            vectors: Box::new([EMPTY; VECTORS_MAX]),
            vectors_len: 0,
            ends_in_heads: false,
            bytes: 0,
            sent: [Sent::default(); BURST_FRAMES],
            count: 0,
        }
    }

    /// Forgets all frames.
    pub(super) fn clear(&mut self) {
        (self.heads_len, self.vectors_len, self.ends_in_heads) = (0, 0, false);
        (self.bytes, self.count) = (0, 0);
    }

    /// The frames, in order.
    pub(super) fn sent(&self) -> &[Sent] {
        &self.sent[..self.count]
    }

    /// Bytes of all records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the records of `frame`; not if they may not fit. A burst's frames at most.
    pub(super) fn add(&mut self, frame: &Frame<'_>) -> bool {
        let segments = if frame.offload().is_none() {
            let header = frame.header();
            if !self.has_room(1 + frame.body().len(), WORD_LEN + header.len()) {
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
    fn add_segments(&mut self, frame: &Frame<'_>) -> Option<usize> {
        let mut segments = Segments::of(frame)?;
        let count = segments.count();
        // A piece more for each place where the payload is cut, and one for what the header copy has of it.
        let vectors = 2 * count + frame.body().len() + 1;
        if !self.has_room(vectors, count * (WORD_LEN + segments.header_len())) {
            return None;
        }
        while let Some(payload) = segments.next_payload() {
            self.add_record(segments.header(payload.sum()), payload);
        }
        Some(if count > 1 { count } else { 0 })
    }

    fn has_room(&self, vectors: usize, heads_len: usize) -> bool {
        self.vectors_len + vectors <= VECTORS_MAX && self.heads_len + heads_len <= HEADS_LEN
    }

    /// Adds one record, for which there is room.
    #[inline]
    fn add_record(&mut self, header: &[u8], payload: Payload<'_>) {
        let (at, len) = (self.heads_len, WORD_LEN + header.len());
        let head = &mut self.heads[at..at + len];
        let record_len = header.len() + payload.len();
        head[..WORD_LEN].copy_from_slice(&(record_len as u32).to_be_bytes());
        match header.first_chunk::<HEADER_LEN>() {
            // The usual length, at compile time.
            Some(header) if len == WORD_LEN + HEADER_LEN => head[WORD_LEN..].copy_from_slice(header),
            _ => head[WORD_LEN..].copy_from_slice(header),
        }
        let start = head.as_ptr();
        self.heads_len += len;
        match self.vectors[..self.vectors_len].last_mut() {
            Some(last) if self.ends_in_heads => last.iov_len += len,
            _ => self.push(start, len),
        }
        self.ends_in_heads = true;
        for piece in payload.pieces() {
            self.push(piece.start(), piece.len());
            self.ends_in_heads = false;
        }
        self.bytes += WORD_LEN + record_len;
    }

    #[inline]
    fn push(&mut self, start: *const u8, len: usize) {
        self.vectors[self.vectors_len] = libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len };
        self.vectors_len += 1;
    }

    /// Sends what fits; how many bytes that was.
    pub(super) fn send(&self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        loop {
            // SAFETY: the vectors describe heads of ours and frames that are lent, which are only read.
            match unsafe { message::send(socket, &self.vectors[..self.vectors_len]) } {
                Err(Errno::INTR) => {}
                sent => return sent,
            }
        }
    }

    /// Copies the bytes from `from` up to `to`, counted from the call's first, to the front of `room`, and says how many
    /// they are; as many as there is room for.
    pub(super) fn copy_to(&self, from: usize, to: usize, room: &mut [u8]) -> usize {
        let (mut start, mut copied) = (0, 0);
        for vector in &self.vectors[..self.vectors_len] {
            let end = start + vector.iov_len;
            let here = from.max(start)..to.min(end);
            if here.start < here.end {
                let Some(room) = room.get_mut(copied..copied + here.len()) else { break };
                let source = vector.iov_base.cast_const().cast::<u8>().wrapping_add(here.start - start);
                // SAFETY: the vector is readable while its frame is lent, whoever else writes there; `room` is ours.
                unsafe { std::ptr::copy_nonoverlapping(source, room.as_mut_ptr(), here.len()) };
                copied += here.len();
            }
            start = end;
        }
        copied
    }
}

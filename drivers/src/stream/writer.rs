//! What goes out: the records of a whole burst in one system call ([`Call`]), as far as there is room for them.
//!
//! When the kernel takes a part only, the rest of the frame that it cut is copied aside and goes first the next time. What
//! is behind that was not sent.

use std::os::fd::BorrowedFd;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, FRAME_LEN_MAX, Frame, OFFLOAD_HEADER_LEN};
use ringyard_dataplane::offload::{SEGMENTS_MAX, Segments};
use ringyard_dataplane::port::Tally;
use rustix::io::Errno;

use super::WORD_LEN;
use super::call::{Call, CallRoom};
use crate::sys::message;
use crate::sys::vector::Vector;

/// The records of the longest frame that is cut into the most segments.
const TAIL_LEN: usize = FRAME_LEN_MAX + SEGMENTS_MAX * (WORD_LEN + OFFLOAD_HEADER_LEN);

/// One egress's means to send. Used by one worker at a time, a burst long.
pub(super) struct Writer {
    room: CallRoom,
    tail: Tail,
    /// Why nothing can be sent any more.
    broken: Option<Errno>,
}

impl Writer {
    pub(super) fn new() -> Writer {
        let tail = Tail { memory: vec![0; TAIL_LEN].into(), start: 0, end: 0 };
        Writer { room: CallRoom::new(), tail, broken: None }
    }

    /// Why nothing can be sent any more, if that is so.
    pub(super) fn broken(&self) -> Option<Errno> {
        self.broken
    }

    /// Whether a part of a frame waits for room.
    pub(super) fn is_cut(&self) -> bool {
        self.broken.is_none() && !self.tail.is_empty()
    }

    /// Sends that part. Whether it is all gone, or lost with the stream.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> bool {
        if self.broken.is_none() {
            self.broken = self.tail.send(socket).err();
        }
        !self.is_cut()
    }

    /// Sends `picks` in order and says how many are settled; the rest found no room. Of a broken stream, all are lost.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        burst: &Burst<'_>,
        picks: &[u8],
        tally: &mut Tally,
    ) -> usize {
        let (mut settled, result) = (0, self.broken.map_or(Ok(()), Err));
        let result = result.and_then(|()| self.send_all(socket, burst, picks, tally, &mut settled));
        if let Err(error) = result {
            self.broken = Some(error);
            tally.drops[DropReason::IoError as usize] += (picks.len() - settled) as u64;
            settled = picks.len();
        }
        settled
    }

    /// Adds to `settled` until all are or there is no room.
    ///
    /// Errors: why the stream is broken.
    fn send_all(
        &mut self,
        socket: BorrowedFd<'_>,
        burst: &Burst<'_>,
        picks: &[u8],
        tally: &mut Tally,
        settled: &mut usize,
    ) -> Result<(), Errno> {
        let mut frames_max = BURST_FRAMES;
        while self.tail.send(socket)? && *settled < picks.len() {
            let rest = &picks[*settled..];
            let mut call = self.room.begin();
            let frames = rest.iter().take(frames_max).map(|&pick| burst.frame(usize::from(pick)));
            frames.take_while(|frame| call.add(frame)).for_each(drop);
            if call.sent().is_empty() {
                let frame = burst.frame(usize::from(rest[0]));
                count(tally, &frame, self.tail.take(&frame));
                *settled += 1;
                continue;
            }
            match call.send(socket) {
                Ok(sent) => {
                    *settled += self.tail.settle(&call, sent, burst, rest, tally);
                    if sent < call.bytes() {
                        return Ok(());
                    }
                }
                Err(error) if is_full(error) => return Ok(()),
                // A sender has taken its memory away. Whose frame it was shows when they go one by one.
                Err(Errno::FAULT) if call.sent().len() > 1 => frames_max = 1,
                Err(Errno::FAULT) => {
                    tally.drop(DropReason::IoError);
                    *settled += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn count(tally: &mut Tally, frame: &Frame<'_>, segments: usize) {
    tally.frames += 1;
    tally.bytes += frame.len() as u64;
    tally.segments += segments as u64;
}

/// Records that go before all others, or the rest of them: of a frame that was cut, or of one that is in too many pieces
/// for one call.
struct Tail {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Tail {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Sends what there is. Whether it is all gone.
    fn send(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        while self.start < self.end {
            let bytes = &self.memory[self.start..self.end];
            match message::send(socket, &[Vector::of(bytes)]) {
                Ok(sent) => self.start += sent,
                Err(Errno::INTR) => {}
                Err(error) if is_full(error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// After a call that took `sent` bytes of `picks`: how many of these are settled, the one that was cut included,
    /// whose rest it takes.
    fn settle(
        &mut self,
        call: &Call<'_>,
        sent: usize,
        burst: &Burst<'_>,
        picks: &[u8],
        tally: &mut Tally,
    ) -> usize {
        let (mut start, mut settled) = (0, 0);
        for (of, &pick) in call.sent().iter().zip(picks) {
            if sent < of.end {
                if sent == start {
                    break;
                }
                (self.start, self.end) = (0, call.copy_to(sent, of.end, &mut self.memory));
            }
            count(tally, &burst.frame(usize::from(pick)), of.segments);
            settled += 1;
            start = of.end;
            if sent < start {
                break;
            }
        }
        settled
    }

    /// Takes the records of a whole frame, when there is nothing else. How many segments it was cut into; 0 for none.
    fn take(&mut self, frame: &Frame<'_>) -> usize {
        (self.start, self.end) = (0, 0);
        let Some(mut segments) = Segments::of(frame) else {
            self.put(frame.len(), |room| frame.copy_to(room).is_some());
            return 0;
        };
        let (count, header_len) = (segments.count(), segments.header_len());
        while let Some(payload) = segments.next_payload() {
            self.put(header_len + payload.len(), |room| {
                let (header, body) = room.split_at_mut(header_len);
                let sum = payload.copy_to(body);
                sum.map(|sum| header.copy_from_slice(segments.header(sum))).is_some()
            });
        }
        if count > 1 { count } else { 0 }
    }

    /// Adds a record of `len` bytes that `write` writes. There is room for those of any frame ([`TAIL_LEN`]).
    fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8]) -> bool) {
        let Some(room) = self.memory.get_mut(self.end..self.end + WORD_LEN + len) else { return };
        let (word, record) = room.split_at_mut(WORD_LEN);
        word.copy_from_slice(&(len as u32).to_be_bytes());
        if write(record) {
            self.end += WORD_LEN + len;
        }
    }
}

/// Whether there is no room now, and there will be.
fn is_full(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM)
}

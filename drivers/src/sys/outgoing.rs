//! Messages for sendmmsg(2), described where their bytes lie: in frames that are lent, or here, for what nobody else keeps.
//!
//! First vectors are collected, message by message. Bytes that are copied here and follow each other are one vector. Then
//! messages are made of rows of vectors, and sent, perhaps several times, until all are gone.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr, slice};

use libc::{cmsghdr, iovec, mmsghdr};
use ringyard_dataplane::offload::Payload;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::checked;
use super::vector::Vector;

/// Vectors of one message that the kernel takes (UIO_MAXIOV).
pub(crate) const MESSAGE_VECTORS_MAX: usize = 1024;

/// Room for messages, used again for call after call.
pub(crate) struct MessageRoom {
    messages: Box<[mmsghdr]>,
    /// A place for each message.
    cuts: Box<[CutControl]>,
    vectors: Box<[iovec]>,
    /// Bytes that are copied here. Cells, since vectors describe the first of them while further ones are written.
    own: Box<[Cell<u8>]>,
}

// SAFETY: the pointers in it are followed only in `Messages`, which has it exclusively and has written them itself.
unsafe impl Send for MessageRoom {}

/// A control message UDP_SEGMENT.
#[repr(C)]
#[derive(Clone, Copy)]
struct CutControl {
    header: cmsghdr,
    len: u16,
    padding: [u16; 3],
}

impl MessageRoom {
    /// For so many messages, vectors of all of them, and bytes that are copied.
    pub(crate) fn new(messages: usize, vectors: usize, own: usize) -> MessageRoom {
        // SAFETY: numbers, for which zeros are values.
        let mut cut: CutControl = unsafe { mem::zeroed() };
        cut.header.cmsg_level = libc::SOL_UDP;
        cut.header.cmsg_type = libc::UDP_SEGMENT;
        cut.header.cmsg_len = (size_of::<cmsghdr>() + size_of::<u16>()) as _;
        // SAFETY: numbers and pointers, for which zeros are values.
        let message = unsafe { mem::zeroed() };
        MessageRoom {
            messages: vec![message; messages].into(),
            cuts: vec![cut; messages].into(),
            vectors: vec![Vector::EMPTY.raw(); vectors].into(),
            own: vec![Cell::new(0); own].into(),
        }
    }

    /// No message yet; of memory that outlives this loan.
    #[inline]
    pub(crate) fn begin<'m>(&'m mut self) -> Messages<'m> {
        Messages {
            messages: &mut self.messages,
            cuts: &mut self.cuts,
            vectors: &mut self.vectors,
            own: &self.own,
            vectors_len: 0,
            own_len: 0,
            described: 0,
            ends_in_own: false,
            memory: PhantomData,
        }
    }
}

/// Messages of memory that is readable during `'m`, whoever else writes there.
pub(crate) struct Messages<'m> {
    messages: &'m mut [mmsghdr],
    cuts: &'m mut [CutControl],
    vectors: &'m mut [iovec],
    own: &'m [Cell<u8>],
    /// Vectors that are collected.
    vectors_len: usize,
    /// Bytes that are copied here.
    own_len: usize,
    /// Messages that were made of vectors collected.
    described: usize,
    /// The last vector ends where the bytes do that are copied here, and the next ones may lengthen it.
    ends_in_own: bool,
    memory: PhantomData<&'m [u8]>,
}

impl<'m> Messages<'m> {
    /// Forgets all of them.
    #[inline]
    pub(crate) fn clear(&mut self) {
        (self.vectors_len, self.own_len, self.described, self.ends_in_own) = (0, 0, 0, false);
    }

    /// Vectors that are collected.
    #[inline]
    pub(crate) fn vectors(&self) -> usize {
        self.vectors_len
    }

    /// Whether there is room for so many vectors and bytes to be copied.
    #[inline]
    pub(crate) fn has_room(&self, vectors: usize, own: usize) -> bool {
        self.vectors_len + vectors <= self.vectors.len() && self.own_len + own <= self.own.len()
    }

    /// What is added from now on is another message's: no vector goes on.
    #[inline]
    pub(crate) fn next_message(&mut self) {
        self.ends_in_own = false;
    }

    /// Adds bytes that `write` writes to the front of `len_max` bytes, and says how many. There is room.
    #[inline]
    pub(crate) fn add_own(&mut self, len_max: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.own_len;
        assert!(start + len_max <= self.own.len());
        let place = self.own.as_ptr().wrapping_add(start).cast::<u8>().cast_mut();
        // SAFETY: as just checked, bytes of ours behind all that vectors describe; nobody else has a reference to them.
        let len = write(unsafe { slice::from_raw_parts_mut(place, len_max) }).min(len_max);
        self.own_len += len;
        if self.ends_in_own {
            self.vectors[self.vectors_len - 1].iov_len += len;
        } else if len > 0 {
            self.push(iovec { iov_base: place.cast(), iov_len: len });
            self.ends_in_own = true;
        }
    }

    /// Adds a vector. There is room.
    #[inline]
    pub(crate) fn add(&mut self, vector: Vector<'m>) {
        self.push(vector.raw());
    }

    /// Adds the pieces of `payload`, in `pieces_max` vectors at most; of more pieces it is a copy that is added. There is
    /// room.
    #[inline]
    pub(crate) fn add_payload(&mut self, payload: &Payload<'m>, pieces_max: usize) {
        let (before, ended_in_own) = (self.vectors_len, self.ends_in_own);
        for vector in Vector::all_of(payload) {
            if self.vectors_len - before == pieces_max {
                (self.vectors_len, self.ends_in_own) = (before, ended_in_own);
                return self.add_copy(payload);
            }
            self.push(vector.raw());
        }
    }

    #[cold]
    #[inline(never)]
    fn add_copy(&mut self, payload: &Payload<'_>) {
        self.add_own(payload.len(), |room| payload.copy_to(room).map_or(0, |_| payload.len()));
    }

    #[inline]
    fn push(&mut self, vector: iovec) {
        self.vectors[self.vectors_len] = vector;
        self.vectors_len += 1;
        self.ends_in_own = false;
    }

    /// Makes message `at`, one of the first or the one behind them, of these vectors, which are collected: for `destination`
    /// or where the socket is connected to, and to be cut into datagrams of `cut_len` bytes unless that is 0.
    #[inline]
    pub(crate) fn describe(
        &mut self,
        at: usize,
        vectors: Range<usize>,
        cut_len: u16,
        destination: Option<&'m SocketAddrAny>,
    ) {
        assert!(at <= self.described);
        let vectors = &mut self.vectors[..self.vectors_len][vectors];
        let header = &mut self.messages[at].msg_hdr;
        (header.msg_iov, header.msg_iovlen) = (vectors.as_mut_ptr(), vectors.len() as _);
        (header.msg_name, header.msg_namelen) = match destination {
            Some(address) => (address.as_ptr().cast_mut().cast(), address.addr_len()),
            None => (ptr::null_mut(), 0),
        };
        (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
        if cut_len > 0 {
            let control = &mut self.cuts[at];
            control.len = cut_len;
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = size_of::<CutControl>() as _;
        }
        self.described = self.described.max(at + 1);
    }

    /// Sends these messages, in order, and never waits. How many went, at least 1.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, messages: Range<usize>) -> Result<usize, Errno> {
        let messages = &mut self.messages[..self.described][messages];
        let (first, count) = (messages.as_mut_ptr(), messages.len());
        // SAFETY: the messages were described since this began, and so are made of vectors that were collected since;
        // these are of memory that is readable during `'m`, whoever else writes there, or of bytes here, and so are
        // destinations and what cuts. The kernel writes to the messages only.
        let sent = checked(unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count as u32, FLAGS as _) })?;
        Ok((sent as usize).min(count))
    }

    /// Sends all that is collected as one message, on a stream, and never waits. How many bytes of it went.
    pub(crate) fn send_as_one(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.describe(0, 0..self.vectors_len, 0, None);
        self.send(socket, 0..1)?;
        Ok(self.messages[0].msg_len as usize)
    }

    /// Copies the bytes from `from` up to `to`, counted from the first that is collected, to the front of `room`, and says
    /// how many they are; as many as there is room for.
    pub(crate) fn copy_to(&self, from: usize, to: usize, room: &mut [u8]) -> usize {
        let (mut start, mut copied) = (0, 0);
        for vector in &self.vectors[..self.vectors_len] {
            let end = start + vector.iov_len;
            let here = from.max(start)..to.min(end);
            if here.start < here.end {
                let Some(room) = room.get_mut(copied..copied + here.len()) else { break };
                let source = vector.iov_base.cast_const().cast::<u8>().wrapping_add(here.start - start);
                // SAFETY: the vector is readable during `'m`, whoever else writes there; `room` is the caller's.
                unsafe { ptr::copy_nonoverlapping(source, room.as_mut_ptr(), here.len()) };
                copied += here.len();
            }
            start = end;
        }
        copied
    }
}

const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lend_pieces;
    use ringyard_dataplane::frame::BurstScratch;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    fn put<'a>(bytes: &'a [u8]) -> impl FnOnce(&mut [u8]) -> usize + 'a {
        |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }
    }

    #[test]
    fn what_is_copied_one_behind_the_other_is_one_vector_of_its_message() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets can be made");
        let (mut room, lent) = (MessageRoom::new(2, 8, 64), *b"lent");
        let mut messages = room.begin();
        messages.add_own(9, put(b"ab"));
        messages.add_own(9, put(b"cd"));
        messages.add(Vector::of(&lent));
        messages.add_own(9, put(b""));
        assert_eq!(messages.vectors(), 2);
        messages.describe(0, 0..2, 0, None);
        messages.next_message();
        messages.add_own(9, put(b"ef"));
        messages.next_message();
        messages.add_own(9, put(b"gh"));
        messages.describe(1, 2..4, 0, None);
        assert!(messages.has_room(4, 56) && !messages.has_room(5, 0) && !messages.has_room(0, 57));
        assert_eq!(messages.send(ours.as_fd(), 0..2), Ok(2));
        let mut bytes = [0; 16];
        for expected in [&b"abcdlent"[..], b"efgh"] {
            let len = theirs.recv(&mut bytes).expect("it was sent");
            assert_eq!(&bytes[..len], expected);
        }
        assert_eq!((messages.copy_to(2, 10, &mut bytes), &bytes[..8]), (8, &b"cdlentef"[..]));
        messages.clear();
        assert!(messages.has_room(8, 64));
    }

    #[test]
    fn payload_of_too_many_pieces_is_copied() {
        let frame: Vec<u8> = (0..200).collect();
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        lend_pieces(&mut builder, &[0; 10], &frame.chunks(10).collect::<Vec<_>>());
        let burst = builder.burst();
        let payload = burst.frame(0).payload(14);
        let pieces = payload.pieces().count();
        for (pieces_max, vectors, own) in [(pieces, pieces, 0), (pieces - 1, 1, frame.len() - 14)] {
            let mut room = MessageRoom::new(1, 64, 256);
            let mut messages = room.begin();
            messages.add_payload(&payload, pieces_max);
            assert_eq!((messages.vectors(), messages.own_len), (vectors, own));
            let mut copy = vec![0; frame.len()];
            assert_eq!(messages.copy_to(0, usize::MAX, &mut copy), frame.len() - 14);
            assert_eq!(copy[..frame.len() - 14], frame[14..]);
        }
    }

    #[test]
    #[should_panic(expected = "range end index 1 out of range")]
    fn message_that_is_not_described_is_not_sent() {
        let (ours, _theirs) = UnixDatagram::pair().expect("a pair of sockets can be made");
        let _ = MessageRoom::new(1, 1, 1).begin().send(ours.as_fd(), 0..1);
    }
}

//! How a burst goes out: one `sendmmsg`, a message a datagram of [prefix, header copy, body pieces], or a message for many
//! datagrams of one length, which the kernel cuts (UDP_SEGMENT).
//!
//! First datagrams are collected, each a row of vectors; a frame whose sender left something to its receiver is cut or
//! completed here. Then they are sent. What the kernel refuses, it refuses for the first datagram that it was not yet
//! given; so whatever happens, the call is made again from there.

#![allow(unsafe_code)] // sendmmsg from lent memory, which no slice may describe

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, BURST_PIECES, Burst, FRAME_LEN_MAX, OFFLOAD_HEADER_LEN};
use ringyard_dataplane::offload::{Payload, Segments};
use ringyard_dataplane::port::Tally;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::Encapsulation;

/// Datagrams that are collected before they are sent.
const DATAGRAMS_MAX: usize = BURST_FRAMES;
/// Vectors of these: the pieces of a whole burst, and for each datagram a prefix, a header, what the header copy has of the
/// body, and a piece that was cut in two.
const VECTORS_MAX: usize = BURST_PIECES + 4 * DATAGRAMS_MAX;
/// Vectors of one message that the kernel takes (UIO_MAXIOV).
const MESSAGE_VECTORS_MAX: usize = 1024;
/// Pieces of a frame that goes without a copy. Of a longer one there is only one in a burst.
const PIECES_MAX: usize = 1000;
const _: () = assert!(PIECES_MAX + 3 <= MESSAGE_VECTORS_MAX && 2 * PIECES_MAX > BURST_PIECES);
/// Datagrams of one message: what every kernel with UDP_SEGMENT takes.
const TRAIN_MAX: usize = 64;
/// Bytes of one message: of a UDP datagram over IPv4.
const TRAIN_LEN_MAX: usize = 65_507;
/// After so many sends a length that was once too long to be cut by the kernel is tried again: a path's MTU may grow.
const TRAIN_RETRY: u32 = 1 << 14;

/// One queue's means to send.
pub(super) struct Outbox {
    arrays: Arrays,
    datagrams: [Datagram; DATAGRAMS_MAX],
    count: usize,
    vector_count: usize,
    /// `prefix_len_max` bytes each, by datagram.
    prefixes: Box<[u8]>,
    prefix_len_max: usize,
    /// Rebuilt ones, by datagram.
    headers: Box<[[u8; OFFLOAD_HEADER_LEN]; DATAGRAMS_MAX]>,
    /// For a frame of very many pieces.
    bounce: Box<[u8]>,
    /// `None`: where the socket is connected to.
    destination: Option<SocketAddrAny>,
    /// Datagrams shorter than this may be sent many in a message; 0 where the kernel cannot.
    train_below: usize,
    trains_at_all: bool,
    sends: u32,
}

/// One that is collected.
#[derive(Clone, Copy, Default)]
struct Datagram {
    vectors_start: u16,
    vectors_end: u16,
    len: u32,
    /// The place in the picks of the frame that it is of.
    place: u8,
    /// How many there are of that frame, at the last of them; else 0.
    of: u16,
}

/// What became of the picks of one call.
#[derive(Default)]
pub(super) struct Sent {
    /// How many are settled.
    pub settled: usize,
    /// The socket, or its address, is of no use.
    pub fault: bool,
    /// Nobody is where a frame was to go, or we may not send there.
    pub gone: bool,
}

/// How far a call has come.
struct Progress<'a> {
    tally: &'a mut Tally,
    /// Bytes of the picked frame at a place.
    frame_len: &'a dyn Fn(usize) -> usize,
    /// Picks that are settled.
    settled: usize,
    /// The next pick was sent in part.
    cut: bool,
    /// The next pick was given up and counted: its other segments go the same way.
    failed: bool,
    fault: bool,
    gone: bool,
}

impl Outbox {
    pub(super) fn new(
        socket: BorrowedFd<'_>,
        destination: Option<SocketAddrAny>,
        prefix_max: usize,
    ) -> Outbox {
        let trains_at_all = cuts(socket);
        Outbox {
            arrays: Arrays::new(),
            datagrams: [Datagram::default(); DATAGRAMS_MAX],
            count: 0,
            vector_count: 0,
            prefixes: vec![0; DATAGRAMS_MAX * prefix_max].into(),
            prefix_len_max: prefix_max,
            headers: Box::new([[0; OFFLOAD_HEADER_LEN]; DATAGRAMS_MAX]),
            bounce: vec![0; FRAME_LEN_MAX].into(),
            destination,
            train_below: if trains_at_all { usize::MAX } else { 0 },
            trains_at_all,
            sends: 0,
        }
    }

    /// From now on.
    pub(super) fn set_destination(&mut self, destination: Option<SocketAddrAny>) {
        self.destination = destination;
    }

    /// Sends the picked frames in order, as far as there is room.
    pub(super) fn send<E: Encapsulation>(
        &mut self,
        encapsulation: &E,
        socket: BorrowedFd<'_>,
        tally: &mut Tally,
        burst: &Burst<'_>,
        picks: &[u8],
    ) -> Sent {
        self.count_send();
        let frame_len = |place: usize| burst.frame(usize::from(picks[place])).len();
        let mut progress = Progress::new(tally, &frame_len);
        (self.count, self.vector_count) = (0, 0);
        for (place, &pick) in (0..).zip(picks) {
            let frame = burst.frame(usize::from(pick));
            let Some(mut segments) = Segments::of(&frame) else {
                let header = frame.header();
                let ready = self.make_room(encapsulation, socket, &mut progress);
                if !ready {
                    return progress.end();
                }
                self.collect(encapsulation, header, &frame.payload(header.len()), place, 1);
                continue;
            };
            let count = segments.count();
            for number in 1..=count {
                let Some(payload) = segments.next_payload() else { break };
                if !self.make_room(encapsulation, socket, &mut progress) {
                    return progress.end();
                }
                let header = segments.header(payload.sum());
                let slot = self.count;
                self.headers[slot][..header.len()].copy_from_slice(header);
                let header = ptr::slice_from_raw_parts(self.headers[slot].as_ptr(), header.len());
                // SAFETY: this slot is not written again before what is collected was sent, and `collect` does not write
                // to headers.
                let header = unsafe { &*header };
                self.collect(encapsulation, header, &payload, place, if number == count { count } else { 0 });
            }
        }
        self.flush(encapsulation, socket, &mut progress);
        progress.end()
    }

    fn count_send(&mut self) {
        self.sends = self.sends.wrapping_add(1);
        if self.sends.is_multiple_of(TRAIN_RETRY) && self.trains_at_all {
            self.train_below = usize::MAX;
        }
    }

    /// Sends what is collected if there is no room for another datagram. Whether there is then.
    #[inline]
    fn make_room<E: Encapsulation>(
        &mut self,
        encapsulation: &E,
        socket: BorrowedFd<'_>,
        progress: &mut Progress<'_>,
    ) -> bool {
        self.count < DATAGRAMS_MAX || self.flush(encapsulation, socket, progress)
    }

    /// Adds a datagram. There is room.
    #[inline]
    fn collect<E: Encapsulation>(
        &mut self,
        encapsulation: &E,
        header: &[u8],
        body: &Payload<'_>,
        place: u8,
        of: usize,
    ) {
        let start = self.vector_count;
        let prefix_start = self.count * self.prefix_len_max;
        let prefix = &mut self.prefixes[prefix_start..prefix_start + self.prefix_len_max];
        let prefix_len = encapsulation.wrap(prefix);
        let prefix = prefix.as_ptr();
        if prefix_len > 0 {
            self.push_vector(prefix, prefix_len);
        }
        self.push_vector(header.as_ptr(), header.len());
        let body_start = self.vector_count;
        for piece in body.pieces() {
            if self.vector_count - body_start == PIECES_MAX {
                self.vector_count = body_start;
                // It has room for any frame.
                let _ = body.copy_to(&mut self.bounce);
                self.push_vector(self.bounce.as_ptr(), body.len());
                break;
            }
            self.push_vector(piece.start(), piece.len());
        }
        self.datagrams[self.count] = Datagram {
            vectors_start: start as u16,
            vectors_end: self.vector_count as u16,
            len: (prefix_len + header.len() + body.len()) as u32,
            place,
            of: of as u16,
        };
        self.count += 1;
    }

    #[inline]
    fn push_vector(&mut self, start: *const u8, len: usize) {
        self.arrays.vectors[self.vector_count] =
            libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len };
        self.vector_count += 1;
    }

    /// Sends what is collected. Whether all of it is settled: if not, the kernel had no room for the rest.
    fn flush<E: Encapsulation>(
        &mut self,
        encapsulation: &E,
        socket: BorrowedFd<'_>,
        progress: &mut Progress<'_>,
    ) -> bool {
        let (mut at, mut retried, mut singly) = (0, false, false);
        while at < self.count {
            if progress.skips(&self.datagrams[at]) {
                at += 1;
                continue;
            }
            let messages = self.form(at, singly);
            match self.arrays.send(socket, messages) {
                Ok(sent) => {
                    for _ in 0..self.arrays.datagrams_of(sent) {
                        progress.sent(&self.datagrams[at]);
                        at += 1;
                    }
                    retried = false;
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    encapsulation.take_back(self.count - at);
                    progress.no_room();
                    (self.count, self.vector_count) = (0, 0);
                    return false;
                }
                Err(Errno::MSGSIZE | Errno::INVAL | Errno::IO) if self.arrays.trains[0] > 1 => {
                    // Too long for the path or the device to be cut: each of them alone may pass, in fragments.
                    self.train_below = self.datagrams[at].len as usize;
                }
                Err(error) if !retried && may_be_pending(error) => retried = true,
                // Of whichever of them it is, the others are innocent.
                Err(_) if self.arrays.trains[0] > 1 => (singly, retried) = (true, false),
                Err(error) => {
                    progress.fail(&self.datagrams[at], error);
                    (at, retried) = (at + 1, false);
                }
            }
        }
        (self.count, self.vector_count) = (0, 0);
        true
    }

    /// Makes messages of the datagrams from `first` on, one of each if they go `singly`. How many.
    fn form(&mut self, first: usize, singly: bool) -> usize {
        let (mut at, mut messages) = (first, 0);
        while at < self.count {
            let train = if self.train_below > 0 && !singly { self.train(at) } else { 1 };
            let last = &self.datagrams[at + train - 1];
            let (start, end) = (self.datagrams[at].vectors_start, last.vectors_end);
            let cut_len = if train > 1 { self.datagrams[at].len as u16 } else { 0 };
            self.arrays.describe(messages, usize::from(start)..usize::from(end), cut_len, &self.destination);
            self.arrays.trains[messages] = train as u8;
            messages += 1;
            at += train;
        }
        messages
    }

    /// How many datagrams from `first` on can go in one message: of one length but the last, which may be shorter.
    fn train(&self, first: usize) -> usize {
        let locomotive = self.datagrams[first];
        if locomotive.len as usize >= self.train_below {
            return 1;
        }
        let (mut count, mut len) = (1, locomotive.len);
        for car in &self.datagrams[first + 1..self.count] {
            len += car.len;
            let vectors = car.vectors_end - locomotive.vectors_start;
            let fits = count < TRAIN_MAX
                && len as usize <= TRAIN_LEN_MAX
                && usize::from(vectors) <= MESSAGE_VECTORS_MAX;
            if !fits || car.len > locomotive.len {
                break;
            }
            count += 1;
            if car.len < locomotive.len {
                break;
            }
        }
        count
    }
}

impl<'a> Progress<'a> {
    fn new(tally: &'a mut Tally, frame_len: &'a dyn Fn(usize) -> usize) -> Progress<'a> {
        Progress { tally, frame_len, settled: 0, cut: false, failed: false, fault: false, gone: false }
    }

    /// The next datagram has gone out.
    #[inline]
    fn sent(&mut self, datagram: &Datagram) {
        self.cut = datagram.of == 0;
        if self.cut {
            return;
        }
        self.settled += 1;
        self.tally.frames += 1;
        self.tally.bytes += (self.frame_len)(usize::from(datagram.place)) as u64;
        if datagram.of > 1 {
            self.tally.segments += u64::from(datagram.of);
        }
    }

    /// Whether the next datagram is of a frame that was given up.
    #[inline]
    fn skips(&mut self, datagram: &Datagram) -> bool {
        if !self.failed {
            return false;
        }
        self.failed = datagram.of == 0;
        true
    }

    /// The kernel does not take the next datagram: its frame is lost.
    #[cold]
    fn fail(&mut self, datagram: &Datagram, error: Errno) {
        self.tally.drop(if error == Errno::MSGSIZE { DropReason::TooLong } else { DropReason::IoError });
        self.settled += 1;
        self.failed = datagram.of == 0;
        self.cut = false;
        self.fault |= is_fault(error);
        self.gone |= matches!(error, Errno::CONNREFUSED | Errno::NOENT | Errno::PERM | Errno::ACCESS);
    }

    /// The next datagram waits, unless a part of its frame is gone: it cannot be sent again.
    fn no_room(&mut self) {
        if self.cut {
            self.tally.drop(DropReason::NoRoom);
            self.settled += 1;
        }
    }

    fn end(self) -> Sent {
        Sent { settled: self.settled, fault: self.fault, gone: self.gone }
    }
}

/// Whether an error may be of an earlier datagram, told by an ICMP message.
fn may_be_pending(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::HOSTDOWN
            | Errno::NOPROTOOPT
            | Errno::PROTO
            | Errno::MSGSIZE
            | Errno::INTR
            | Errno::ACCESS
            | Errno::OPNOTSUPP
            | Errno::CONNRESET
    )
}

/// Whether an error says that no datagram will ever go out. Nobody there, no way there, too long, not allowed: that may be
/// otherwise for the next one.
fn is_fault(error: Errno) -> bool {
    matches!(
        error,
        Errno::BADF
            | Errno::NOTSOCK
            | Errno::PIPE
            | Errno::NODEV
            | Errno::NXIO
            | Errno::ADDRNOTAVAIL
            | Errno::NOTCONN
            | Errno::DESTADDRREQ
            | Errno::INVAL
            | Errno::AFNOSUPPORT
    )
}

/// What the system call wants, a place a message.
struct Arrays {
    messages: Box<[libc::mmsghdr; DATAGRAMS_MAX]>,
    controls: Box<[CutControl; DATAGRAMS_MAX]>,
    vectors: Box<[libc::iovec; VECTORS_MAX]>,
    /// Datagrams in each message.
    trains: [u8; DATAGRAMS_MAX],
}

/// A control message UDP_SEGMENT.
#[repr(C)]
#[derive(Clone, Copy)]
struct CutControl {
    header: libc::cmsghdr,
    len: u16,
    padding: [u16; 3],
}

// SAFETY: the pointers in it are set anew before each call, which is made by whoever has it exclusively, and mean nothing
// between calls.
unsafe impl Send for Arrays {}

impl Arrays {
    fn new() -> Arrays {
        // SAFETY: numbers and pointers, for which zeros are values.
        let mut controls: Box<[CutControl; DATAGRAMS_MAX]> = Box::new(unsafe { mem::zeroed() });
        for control in controls.iter_mut() {
            control.header.cmsg_level = libc::SOL_UDP;
            control.header.cmsg_type = libc::UDP_SEGMENT;
            control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        }
        // SAFETY: as above.
        let messages = Box::new(unsafe { mem::zeroed() });
        // SAFETY: as above.
        let vectors = Box::new(unsafe { mem::zeroed() });
        Arrays { messages, controls, vectors, trains: [0; DATAGRAMS_MAX] }
    }

    /// Makes message `at` one of these vectors, to be cut into datagrams of `cut_len` bytes unless that is 0.
    #[inline]
    fn describe(
        &mut self,
        at: usize,
        vectors: std::ops::Range<usize>,
        cut_len: u16,
        destination: &Option<SocketAddrAny>,
    ) {
        let header = &mut self.messages[at].msg_hdr;
        let vectors = &mut self.vectors[vectors];
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len() as _;
        (header.msg_name, header.msg_namelen) = match destination {
            Some(address) => (address.as_ptr().cast_mut().cast(), address.addr_len()),
            None => (ptr::null_mut(), 0),
        };
        (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
        if cut_len > 0 {
            let control = &mut self.controls[at];
            control.len = cut_len;
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = size_of::<CutControl>() as _;
        }
    }

    /// Sends the first `count` messages. How many went out, at least 1.
    fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
        debug_assert!(count <= DATAGRAMS_MAX);
        let messages = self.messages.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` messages were described since the vectors were collected; these point to prefixes and
        // headers of ours and into frames that are lent, all readable for their lengths whoever else writes there. The
        // kernel writes to the messages only.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages, count as u32, flags) };
        if sent > 0 {
            return Ok((sent as usize).min(count));
        }
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }

    /// Datagrams in the first `messages` messages.
    #[inline]
    fn datagrams_of(&self, messages: usize) -> usize {
        self.trains[..messages].iter().map(|&train| usize::from(train)).sum()
    }
}

/// Whether the kernel cuts what is sent by this socket: whether it is UDP, and the kernel knows how.
fn cuts(socket: BorrowedFd<'_>) -> bool {
    let (mut len, mut len_len) = (0, size_of::<libc::c_int>() as u32);
    // SAFETY: an int, by its address and size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            ptr::from_mut::<libc::c_int>(&mut len).cast(),
            &mut len_len,
        )
    };
    result == 0
}

//! How a burst goes out: one `sendmmsg`, a message a datagram of [prefix, header copy, body pieces], or a message for many
//! datagrams of one length, which the kernel cuts (UDP_SEGMENT).
//!
//! First datagrams are collected, each a row of vectors; a frame whose sender left something to its receiver is cut or
//! completed here. Then they are sent. What the kernel refuses, it refuses for the first datagram that it was not yet
//! given; so whatever happens, the call is made again from there.

use std::os::fd::BorrowedFd;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, BURST_PIECES, Burst, FRAME_LEN_MAX, OFFLOAD_HEADER_LEN};
use ringyard_dataplane::offload::{Payload, Segments};
use ringyard_dataplane::port::Tally;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::Encapsulation;
use crate::sys::option;
use crate::sys::outgoing::{MESSAGE_VECTORS_MAX, MessageRoom, Messages};
use crate::sys::vector::Vector;

/// Datagrams that are collected before they are sent.
const DATAGRAMS_MAX: usize = BURST_FRAMES;
/// Vectors of these: the pieces of a whole burst, and for each datagram a prefix, a header, what the header copy has of the
/// body, and a piece that was cut in two.
const VECTORS_MAX: usize = BURST_PIECES + 4 * DATAGRAMS_MAX;
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
    room: MessageRoom,
    datagrams: [Datagram; DATAGRAMS_MAX],
    /// Datagrams in each message.
    trains: [u8; DATAGRAMS_MAX],
    prefix_len_max: usize,
    /// `None`: where the socket is connected to.
    destination: Option<SocketAddrAny>,
    /// Datagrams shorter than this may be sent many in a message; 0 where the kernel cannot.
    train_below: usize,
    trains_at_all: bool,
    sends: u32,
}

/// Datagrams of one burst that are collected.
struct Collected<'m> {
    messages: Messages<'m>,
    datagrams: &'m mut [Datagram; DATAGRAMS_MAX],
    count: usize,
    trains: &'m mut [u8; DATAGRAMS_MAX],
    prefix_len_max: usize,
    destination: Option<&'m SocketAddrAny>,
    train_below: &'m mut usize,
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
        // Whether it is UDP, and the kernel knows how.
        let trains_at_all = option::get(socket, option::UDP_SEGMENT).is_ok();
        // A prefix and a rebuilt header of each, and a frame of very many pieces.
        let own = DATAGRAMS_MAX * (prefix_max + OFFLOAD_HEADER_LEN) + FRAME_LEN_MAX;
        Outbox {
            room: MessageRoom::new(DATAGRAMS_MAX, VECTORS_MAX, own),
            datagrams: [Datagram::default(); DATAGRAMS_MAX],
            trains: [0; DATAGRAMS_MAX],
            prefix_len_max: prefix_max,
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
        let mut collected = self.begin();
        for (place, &pick) in (0..).zip(picks) {
            let frame = burst.frame(usize::from(pick));
            let Some(mut segments) = Segments::of(&frame) else {
                let header = frame.header();
                let ready = collected.make_room(encapsulation, socket, &mut progress);
                if !ready {
                    return progress.end();
                }
                let start = collected.begin(encapsulation);
                collected.messages.add(Vector::of(header));
                collected.end(start, header.len(), &frame.payload(header.len()), place, 1);
                continue;
            };
            let count = segments.count();
            for number in 1..=count {
                let Some(payload) = segments.next_payload() else { break };
                if !collected.make_room(encapsulation, socket, &mut progress) {
                    return progress.end();
                }
                let header = segments.header(payload.sum());
                let start = collected.begin(encapsulation);
                collected.messages.add_own(header.len(), |room| {
                    room[..header.len()].copy_from_slice(header);
                    header.len()
                });
                let of = if number == count { count } else { 0 };
                collected.end(start, header.len(), &payload, place, of);
            }
        }
        collected.flush(encapsulation, socket, &mut progress);
        progress.end()
    }

    fn begin(&mut self) -> Collected<'_> {
        Collected {
            messages: self.room.begin(),
            datagrams: &mut self.datagrams,
            count: 0,
            trains: &mut self.trains,
            prefix_len_max: self.prefix_len_max,
            destination: self.destination.as_ref(),
            train_below: &mut self.train_below,
        }
    }

    fn count_send(&mut self) {
        self.sends = self.sends.wrapping_add(1);
        if self.sends.is_multiple_of(TRAIN_RETRY) && self.trains_at_all {
            self.train_below = usize::MAX;
        }
    }
}

/// Where a datagram begins.
struct Start {
    vector: usize,
    prefix_len: usize,
}

impl<'m> Collected<'m> {
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

    /// Adds a prefix, which a header is to follow. There is room for a datagram.
    #[inline]
    fn begin<E: Encapsulation>(&mut self, encapsulation: &E) -> Start {
        let (vector, mut prefix_len) = (self.messages.vectors(), 0);
        self.messages.next_message();
        self.messages.add_own(self.prefix_len_max, |prefix| {
            prefix_len = encapsulation.wrap(prefix);
            prefix_len
        });
        Start { vector, prefix_len }
    }

    /// Adds the body behind these.
    #[inline]
    fn end(&mut self, start: Start, header_len: usize, body: &Payload<'m>, place: u8, of: usize) {
        self.messages.add_payload(body, PIECES_MAX);
        self.datagrams[self.count] = Datagram {
            vectors_start: start.vector as u16,
            vectors_end: self.messages.vectors() as u16,
            len: (start.prefix_len + header_len + body.len()) as u32,
            place,
            of: of as u16,
        };
        self.count += 1;
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
            match self.messages.send(socket, 0..messages) {
                Ok(sent) => {
                    for _ in 0..self.datagrams_of(sent) {
                        progress.sent(&self.datagrams[at]);
                        at += 1;
                    }
                    retried = false;
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    encapsulation.take_back(self.count - at);
                    progress.no_room();
                    self.clear();
                    return false;
                }
                Err(Errno::MSGSIZE | Errno::INVAL | Errno::IO) if self.trains[0] > 1 => {
                    // Too long for the path or the device to be cut: each of them alone may pass, in fragments.
                    *self.train_below = self.datagrams[at].len as usize;
                }
                Err(error) if !retried && may_be_pending(error) => retried = true,
                // Of whichever of them it is, the others are innocent.
                Err(_) if self.trains[0] > 1 => (singly, retried) = (true, false),
                Err(error) => {
                    progress.fail(&self.datagrams[at], error);
                    (at, retried) = (at + 1, false);
                }
            }
        }
        self.clear();
        true
    }

    fn clear(&mut self) {
        self.count = 0;
        self.messages.clear();
    }

    /// Makes messages of the datagrams from `first` on, one of each if they go `singly`. How many.
    fn form(&mut self, first: usize, singly: bool) -> usize {
        let (mut at, mut messages) = (first, 0);
        while at < self.count {
            let train = if *self.train_below > 0 && !singly { self.train(at) } else { 1 };
            let last = &self.datagrams[at + train - 1];
            let (start, end) = (self.datagrams[at].vectors_start, last.vectors_end);
            let cut_len = if train > 1 { self.datagrams[at].len as u16 } else { 0 };
            let vectors = usize::from(start)..usize::from(end);
            self.messages.describe(messages, vectors, cut_len, self.destination);
            self.trains[messages] = train as u8;
            messages += 1;
            at += train;
        }
        messages
    }

    /// How many datagrams from `first` on can go in one message: of one length but the last, which may be shorter.
    fn train(&self, first: usize) -> usize {
        let locomotive = self.datagrams[first];
        if locomotive.len as usize >= *self.train_below {
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

    /// Datagrams in the first `messages` messages.
    #[inline]
    fn datagrams_of(&self, messages: usize) -> usize {
        self.trains[..messages].iter().map(|&train| usize::from(train)).sum()
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

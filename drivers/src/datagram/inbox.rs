//! Where datagrams are read to: one `recvmmsg` fills many slots, each long enough for any frame, and frames stay in them
//! while they are held.
//!
//! Slots are virtual memory that is touched as far as datagrams are long. How many a call fills follows from how long
//! they were the last time, so that a read is about a burst ([`BURST_BYTES`]) and at most 64 datagrams.
//!
//! What the kernel had put together (UDP_GRO) is lent together, so that it is one message again on its way out: 43 frames
//! of 1514 B each in one datagram after another take 211 ns a frame from socket to socket instead of 247, and others what
//! they took (medians of 300 interleaved rounds each).

use std::os::fd::BorrowedFd;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_BYTES, BURST_FRAMES, Burst, ETHERNET_LEN, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::IngressScratch;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::{Encapsulation, Maker, PREFIX_LEN_MAX, Refusal, Source};
use crate::sys::incoming::{Incoming, Told, Wanted};
use crate::sys::{address, option};

/// Bytes of a slot: a whole number of cache lines, and an odd one, so that the first lines of slots do not all compete for
/// the same places of the cache.
const SLOT_LEN: usize = (PREFIX_LEN_MAX + FRAME_LEN_MAX + 1).next_multiple_of(128) + 64;
/// A datagram that fills its slot was cut, or might have been.
const _: () = assert!(SLOT_LEN > PREFIX_LEN_MAX + FRAME_LEN_MAX);
/// Slots: as many datagrams as a burst has frames.
const SLOTS: usize = BURST_FRAMES;
/// Pending errors that one read takes off the socket.
const ERRORS_MAX: usize = 8;
/// Reads in a row without a datagram, after which the socket is looked at more closely.
const EMPTY_READS_MAX: u32 = 16;

/// Datagrams that were read and not forwarded yet.
pub(super) struct Inbox {
    memory: Box<[u8]>,
    incoming: Incoming<SLOTS>,
    wants_source: bool,
    /// The kernel may put several datagrams of one length into one slot (UDP_GRO).
    coalesces: bool,
    /// What the last read brought, a slot each.
    datagrams: [Told; SLOTS],
    count: usize,
    /// The slot that is lent from next, and where in it.
    slot: usize,
    offset: usize,
    /// Frames that were lent and not settled, before all that was not lent yet.
    held: [Extent; BURST_FRAMES],
    held_count: usize,
    /// Slots that the next read offers.
    wanted: usize,
    empty_reads: u32,
}

/// A frame in `memory`.
#[derive(Clone, Copy, Default)]
struct Extent {
    start: usize,
    len: usize,
}

/// What a read found.
pub(super) enum Received {
    /// As many datagrams as there were slots for.
    Full,
    /// All that there were.
    Drained,
    /// Datagrams without a byte, or none many times in a row though there seemed to be something.
    Suspicious,
    /// The descriptor is of no use.
    Broken,
}

impl Inbox {
    pub(super) fn new(socket: BorrowedFd<'_>, maker: Maker, wants_source: bool) -> Inbox {
        // Only where we are the only reader: whoever has a socket of somebody else's after us does not expect it.
        let coalesces = match maker {
            Maker::Us => option::set(socket, option::UDP_GRO, 1).is_ok(),
            Maker::SomebodyElse => option::get(socket, option::UDP_GRO).is_ok_and(|on| on != 0),
        };
        Inbox {
            memory: vec![0; SLOTS * SLOT_LEN].into(),
            incoming: Incoming::new(),
            wants_source,
            coalesces,
            datagrams: [Told::default(); SLOTS],
            count: 0,
            slot: 0,
            offset: 0,
            held: [Extent::default(); BURST_FRAMES],
            held_count: 0,
            wanted: SLOTS,
            empty_reads: 0,
        }
    }

    /// Whether there is nothing to be lent (again).
    pub(super) fn is_empty(&self) -> bool {
        self.held_count == 0 && self.slot == self.count
    }

    /// How many datagrams that is.
    pub(super) fn left(&self) -> usize {
        let slots = self.datagrams[self.slot..self.count].iter();
        let count = |slot: &Told| {
            if slot.cut { 1 } else { slot.len.div_ceil(slot.segment_len.max(1)).max(1) }
        };
        let datagrams: usize = slots.map(count).sum();
        // Of the slot that is lent from, some are gone already.
        let gone = self.datagrams[..self.count]
            .get(self.slot)
            .map_or(0, |slot| self.offset / slot.segment_len.max(1));
        self.held_count + datagrams - gone
    }

    /// Reads what waits, as far as there are slots. Only when [`Self::is_empty`].
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Received {
        self.clear();
        let read = self.read(socket);
        let Ok(count) = read else {
            return match read {
                Err(Errno::AGAIN) => self.received_nothing(),
                _ => Received::Broken,
            };
        };
        let mut longest = 0;
        for (slot, datagram) in self.datagrams[..count].iter_mut().enumerate() {
            *datagram = self.incoming.told(slot);
            longest = longest.max(datagram.len);
        }
        self.count = count;
        let all = count == self.wanted;
        self.wanted = (BURST_BYTES / longest.max(1)).clamp(1, SLOTS);
        self.empty_reads = 0;
        match longest {
            0 => Received::Suspicious,
            _ if all => Received::Full,
            _ => Received::Drained,
        }
    }

    /// How many datagrams came, at least 1.
    ///
    /// Errors: AGAIN, when there is none; others when the descriptor is of no use.
    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let wanted = Wanted {
            count: self.wanted,
            slot_len: SLOT_LEN,
            with_source: self.wants_source,
            with_control: self.coalesces,
        };
        let mut errors = 0;
        loop {
            let error = match self.incoming.read(socket, &mut self.memory, wanted) {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            let broken = matches!(error, Errno::BADF | Errno::NOTSOCK | Errno::INVAL);
            errors += 1;
            // An interrupted call or somebody's ICMP message: the next one gets what waits.
            if error == Errno::AGAIN || broken {
                return Err(error);
            }
            if errors == ERRORS_MAX {
                return Err(Errno::AGAIN);
            }
        }
    }

    #[cold]
    fn received_nothing(&mut self) -> Received {
        self.empty_reads += 1;
        if self.empty_reads < EMPTY_READS_MAX {
            return Received::Drained;
        }
        self.empty_reads = 0;
        Received::Suspicious
    }

    /// Forgets what the last read brought.
    pub(super) fn clear(&mut self) {
        (self.count, self.slot, self.offset) = (0, 0, 0);
    }

    /// Whether the last datagram of the last read has no byte.
    pub(super) fn ends_empty(&self) -> bool {
        self.datagrams[..self.count].last().is_some_and(|datagram| datagram.len == 0)
    }

    /// Forgets those without a byte behind the last one that has some.
    #[cold]
    pub(super) fn cut_empty_end(&mut self) {
        while self.ends_empty() {
            self.count -= 1;
        }
    }

    /// Whether the last read brought something from there.
    pub(super) fn has_source(&self, address: &SocketAddrAny) -> bool {
        let address = address::bytes(address);
        (0..self.count).any(|slot| self.incoming.name(slot, self.datagrams[slot].source_len) == address)
    }

    /// Who sent the first datagram of the last read that says so; over IP, the first that can be a frame.
    pub(super) fn first_source(&self) -> Option<SocketAddrAny> {
        const UNIX: [u8; FAMILY_LEN] = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
        let slot = (0..self.count).find(|&slot| {
            let Told { segment_len, source_len, .. } = self.datagrams[slot];
            let can_be_peer =
                segment_len >= ETHERNET_LEN || self.incoming.name(slot, source_len).starts_with(&UNIX);
            source_len > FAMILY_LEN && can_be_peer
        })?;
        Some(address::any(self.incoming.name(slot, self.datagrams[slot].source_len)))
    }

    /// Lends what is held and then what was not lent yet, as much as a burst takes. What `forward` leaves unsettled stays.
    /// Returns how many frames are gone.
    pub(super) fn lend<E: Encapsulation>(
        &mut self,
        encapsulation: &E,
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
    ) -> usize {
        let IngressScratch { burst, tally, .. } = scratch;
        let mut builder = burst.begin(queue);
        let mut dropped = 0;
        let mut drop = |reason| {
            dropped += 1;
            tally.drop(reason);
        };
        for &Extent { start, len } in &self.held[..self.held_count] {
            // It was one before.
            let _ = builder.push_slice(&self.memory[start..start + len]);
        }
        while !builder.is_full(1) && self.slot < self.count {
            let (slot, offset) = (self.slot, self.offset);
            let datagram = self.datagrams[slot];
            if offset == 0 && self.held_count == 0 && !datagram.fits_behind(builder.len()) {
                break;
            }
            let len = datagram.segment_len.min(datagram.len - offset);
            (self.slot, self.offset) = datagram.after(slot, offset + len);
            if datagram.cut {
                drop(DropReason::TooLong);
                continue;
            }
            if len == 0 {
                drop(DropReason::Runt);
                continue;
            }
            let start = slot * SLOT_LEN + offset;
            let bytes = &self.memory[start..start + len];
            let source = Source(self.incoming.name(slot, datagram.source_len));
            let pushed = encapsulation.unwrap(bytes, source).and_then(|prefix| {
                let frame = bytes.get(prefix..).unwrap_or_default();
                builder.push_slice(frame).map_err(Refusal::Drop)?;
                Ok(Extent { start: start + prefix, len: frame.len() })
            });
            match pushed {
                Ok(extent) => self.held[builder.len() - 1] = extent,
                Err(Refusal::Drop(reason)) => drop(reason),
                Err(Refusal::Ignore) => {}
            }
        }
        let lent = builder.len();
        let taken = if lent > 0 { forward(&builder.burst()) } else { Taken::ALL };
        self.held_count = 0;
        for index in (0..lent).filter(|&index| !taken.settled(index)) {
            self.held[self.held_count] = self.held[index];
            self.held_count += 1;
        }
        dropped + lent - self.held_count
    }
}

impl Told {
    /// Whether all of it has a place in a burst that has `frames` already: what came together goes together, so that it
    /// can be one message again. Of what is more than a burst, the first part does.
    #[inline]
    fn fits_behind(&self, frames: usize) -> bool {
        frames == 0
            || self.segment_len == self.len
            || frames + self.len.div_ceil(self.segment_len) <= BURST_FRAMES
    }

    /// Where to go on behind `offset` in slot `slot`.
    #[inline]
    fn after(&self, slot: usize, offset: usize) -> (usize, usize) {
        if offset >= self.len || self.cut { (slot + 1, 0) } else { (slot, offset) }
    }
}

/// Bytes of an address that is none: a unix socket without a name.
const FAMILY_LEN: usize = size_of::<libc::sa_family_t>();

//! Where datagrams are read to: one `recvmmsg` fills many slots, each long enough for any frame, and frames stay in them
//! while they are held.
//!
//! Slots are virtual memory that is touched as far as datagrams are long. How many a call fills follows from how long
//! they were the last time, so that a read is about a burst ([`BURST_BYTES`]) and at most 64 datagrams.
//!
//! What the kernel had put together (UDP_GRO) is lent together, so that it is one message again on its way out: 43 frames
//! of 1514 B each in one datagram after another take 211 ns a frame from socket to socket instead of 247, and others what
//! they took (medians of 300 interleaved rounds each).

#![allow(unsafe_code)] // recvmmsg, which rustix does not have

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_BYTES, BURST_FRAMES, Burst, ETHERNET_LEN, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::IngressScratch;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::{Encapsulation, Maker, PREFIX_LEN_MAX, Refusal, Source};

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
/// Room for the control messages of one datagram.
const CONTROL_WORDS: usize = 16;

/// Datagrams that were read and not forwarded yet.
pub(super) struct Inbox {
    memory: Box<[u8]>,
    arrays: Arrays,
    wants_source: bool,
    /// The kernel may put several datagrams of one length into one slot (UDP_GRO).
    coalesces: bool,
    /// What the last read brought, a slot each.
    datagrams: [Datagram; SLOTS],
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

/// What lies in one slot.
#[derive(Clone, Copy, Default)]
struct Datagram {
    len: usize,
    /// Bytes of each datagram in it but the last; as many as `len` if it is one.
    segment_len: usize,
    source_len: usize,
    /// The kernel had more, of it or of what it says about it.
    cut: bool,
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
            Maker::Us => set_coalescing(socket),
            Maker::SomebodyElse => is_coalescing(socket),
        };
        Inbox {
            memory: vec![0; SLOTS * SLOT_LEN].into(),
            arrays: Arrays::new(),
            wants_source,
            coalesces,
            datagrams: [Datagram::default(); SLOTS],
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

    /// Reads what waits, as far as there are slots. Only when [`Self::is_empty`].
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Received {
        self.clear();
        let read = self.arrays.read(socket, &mut self.memory, self.wanted, self.wants_source, self.coalesces);
        let Ok(count) = read else {
            return match read {
                Err(Errno::AGAIN) => self.received_nothing(),
                _ => Received::Broken,
            };
        };
        let mut longest = 0;
        for (slot, datagram) in self.datagrams[..count].iter_mut().enumerate() {
            *datagram = self.arrays.datagram(slot);
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
        let len = address.addr_len() as usize;
        // SAFETY: an address is that many initialized bytes, and any bytes are u8.
        let address = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), len) };
        (0..self.count).any(|slot| self.arrays.name(slot, self.datagrams[slot].source_len) == address)
    }

    /// Who sent the first datagram of the last read that says so; over IP, the first that can be a frame.
    pub(super) fn first_source(&self) -> Option<SocketAddrAny> {
        const UNIX: [u8; FAMILY_LEN] = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
        let slot = (0..self.count).find(|&slot| {
            let Datagram { segment_len, source_len, .. } = self.datagrams[slot];
            let can_be_peer =
                segment_len >= ETHERNET_LEN || self.arrays.name(slot, source_len).starts_with(&UNIX);
            source_len > FAMILY_LEN && can_be_peer
        })?;
        let name = ptr::from_ref(&self.arrays.names[slot]);
        // SAFETY: the kernel wrote an address of that length there, and it fits (`Arrays::datagram`).
        Some(unsafe { SocketAddrAny::read(name.cast(), self.datagrams[slot].source_len as u32) })
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
            let source = Source(self.arrays.name(slot, datagram.source_len));
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

impl Datagram {
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

/// What the system call wants besides the memory, a place a slot.
struct Arrays {
    messages: Box<[libc::mmsghdr; SLOTS]>,
    vectors: Box<[libc::iovec; SLOTS]>,
    names: Box<[libc::sockaddr_storage; SLOTS]>,
    controls: Box<[[u64; CONTROL_WORDS]; SLOTS]>,
}

// SAFETY: the pointers in it are set anew before each call, which is made by whoever has it exclusively, and mean nothing
// between calls.
unsafe impl Send for Arrays {}

impl Arrays {
    fn new() -> Arrays {
        // SAFETY: numbers and pointers, for which zeros are values.
        let messages = Box::new(unsafe { mem::zeroed() });
        // SAFETY: as above.
        let vectors = Box::new(unsafe { mem::zeroed() });
        // SAFETY: as above.
        let names = Box::new(unsafe { mem::zeroed() });
        Arrays { messages, vectors, names, controls: Box::new([[0; CONTROL_WORDS]; SLOTS]) }
    }

    /// Reads up to `wanted` datagrams, a slot of `memory` each. How many, at least 1.
    ///
    /// Errors: AGAIN, when there is none; others when the descriptor is of no use.
    fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [u8],
        wanted: usize,
        with_source: bool,
        with_control: bool,
    ) -> Result<usize, Errno> {
        let slots = memory.chunks_exact_mut(SLOT_LEN).take(wanted);
        for (at, slot) in slots.enumerate() {
            self.vectors[at] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut self.messages[at].msg_hdr;
            header.msg_iov = &mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            if with_source {
                header.msg_name = ptr::from_mut(&mut self.names[at]).cast();
                header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            }
            if with_control {
                header.msg_control = self.controls[at].as_mut_ptr().cast();
                header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
            }
        }
        let mut errors = 0;
        loop {
            let messages = self.messages.as_mut_ptr();
            // SAFETY: the first `wanted` of `messages` name memory of ours that nobody else uses during the call: a slot, a
            // name, a control buffer each, with their lengths.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    messages,
                    wanted as u32,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if count > 0 {
                return Ok((count as usize).min(wanted));
            }
            let error = last_errno();
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

    /// What the last read put into slot `slot`.
    #[inline]
    fn datagram(&self, slot: usize) -> Datagram {
        let libc::mmsghdr { msg_hdr: header, msg_len } = &self.messages[slot];
        let len = *msg_len as usize;
        let has_name = !header.msg_name.is_null();
        let name_len = (header.msg_namelen as usize).min(size_of::<libc::sockaddr_storage>());
        let mut segment_len = len;
        if header.msg_controllen > 0 && !header.msg_control.is_null() {
            segment_len = segment_len_told(header).filter(|&told| told > 0).unwrap_or(len);
        }
        // Without its control message a slot of several would be taken for one.
        let lost_control = header.msg_flags & libc::MSG_CTRUNC != 0 && !header.msg_control.is_null();
        Datagram {
            len,
            segment_len: segment_len.min(len),
            source_len: if has_name { name_len } else { 0 },
            cut: header.msg_flags & libc::MSG_TRUNC != 0 || lost_control,
        }
    }

    #[inline]
    fn name(&self, slot: usize, len: usize) -> &[u8] {
        if len == 0 {
            return &[];
        }
        let name = ptr::from_ref(&self.names[slot]).cast();
        // SAFETY: a name is initialized memory of at least `len` bytes (`datagram`), and any bytes are u8.
        unsafe { std::slice::from_raw_parts(name, len) }
    }
}

/// What UDP_GRO says of the datagrams in one slot.
fn segment_len_told(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled in as many bytes of control messages as `msg_controllen` says, in a buffer that is aligned.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie in the buffer as a whole.
        let found = unsafe { control.read() };
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
            // SAFETY: the data follow its header in the buffer.
            let data = unsafe { libc::CMSG_DATA(control) };
            // SAFETY: of this message they are an int.
            let told = unsafe { data.cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(told).ok();
        }
        // SAFETY: both are of the same buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

/// Has the kernel hand over datagrams of one flow together, where it can.
fn set_coalescing(socket: BorrowedFd<'_>) -> bool {
    let on: libc::c_int = 1;
    // SAFETY: an int, by its address and size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as u32,
        )
    };
    result == 0
}

/// Whether somebody has asked for that before us.
fn is_coalescing(socket: BorrowedFd<'_>) -> bool {
    let (mut on, mut len): (libc::c_int, u32) = (0, size_of::<libc::c_int>() as u32);
    // SAFETY: an int, by its address and size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            ptr::from_mut(&mut on).cast(),
            &mut len,
        )
    };
    result == 0 && on != 0
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Bytes of an address that is none: a unix socket without a name.
const FAMILY_LEN: usize = size_of::<libc::sa_family_t>();

//! The relay of datagrams: `recvmmsg` into 64 buffers, `sendmmsg` from where they lie; L2TPv3's session is looked at and
//! rewritten in place. The other form receives what UDP_GRO has put together, and has the kernel cut what it sends
//! (UDP_SEGMENT), whether it came so or one by one. Sockets that take frames from anybody are not connected, and every
//! datagram has its address.

use std::os::fd::OwnedFd;

use ringyard_tests::error::{Doing, Result};
use rustix::event::PollFlags;

use super::Idler;
use crate::batch::{BATCH, Batch, Control, header_of, send, set_name, set_option};
use crate::medium::{End, Medium, Side, l2tpv3_header};

/// What stands before frames that come in and before those that go out.
pub struct Prefix {
    ingress: Vec<u8>,
    egress: Vec<u8>,
}

impl Prefix {
    pub fn of(medium: Medium) -> Prefix {
        if !medium.is_l2tpv3() {
            return Prefix { ingress: Vec::new(), egress: Vec::new() };
        }
        let header = |side: Side, end| l2tpv3_header(side.session(end)).to_vec();
        Prefix { ingress: header(Side::A, End::Switch), egress: header(Side::B, End::Peer) }
    }

    /// Rewrites what stands before every frame of `bytes`, which are `segment` apart. Whether it was right.
    #[inline]
    fn exchange(&self, bytes: &mut [u8], segment: usize) -> bool {
        let len = self.ingress.len();
        for one in bytes.chunks_mut(segment.max(1)) {
            if one.len() <= len || one[..len] != self.ingress {
                return false;
            }
            one[..len].copy_from_slice(&self.egress);
        }
        true
    }
}

/// One datagram a frame.
pub fn run(from: &OwnedFd, (to, name): (&OwnedFd, &[u8]), prefix: Prefix) -> Result<()> {
    let mut batch = Batch::new(BATCH, SLOT_LEN);
    let (mut empty, mut full) = (Idler::new(), Idler::new());
    loop {
        let got = batch.receive(from, SLOT_LEN, 0).doing("receiving")?;
        if got == 0 {
            empty.idle(from, PollFlags::IN)?;
            continue;
        }
        empty.worked();
        for place in 0..got {
            if !prefix.ingress.is_empty() {
                prefix.exchange(batch.received(place), SLOT_LEN);
            }
        }
        let mut sent = 0;
        while sent < got {
            match batch.send_received(to, name, sent, got).doing("sending")? {
                0 => full.idle(to, PollFlags::OUT)?,
                count => {
                    full.worked();
                    sent += count;
                }
            }
        }
    }
}

/// As many frames a datagram as the kernel allows, both ways.
pub fn run_gso(from: &OwnedFd, (to, name): (&OwnedFd, &[u8]), prefix: Prefix) -> Result<()> {
    set_option(from, libc::SOL_UDP, libc::UDP_GRO, 1).doing("switching UDP_GRO on")?;
    let mut batch = Batch::new(BATCH, GRO_SLOT_LEN);
    let mut trains: Vec<Train> = Vec::with_capacity(BATCH);
    let mut vectors: Vec<libc::iovec> = Vec::with_capacity(BATCH);
    let (mut empty, mut full) = (Idler::new(), Idler::new());
    loop {
        let got = batch.receive(from, GRO_SLOT_LEN, 0).doing("receiving")?;
        if got == 0 {
            empty.idle(from, PollFlags::IN)?;
            continue;
        }
        empty.worked();
        trains.clear();
        vectors.clear();
        for place in 0..got {
            let segment = batch.segment_len(place);
            let bytes = batch.received(place);
            if !prefix.ingress.is_empty() && !prefix.exchange(bytes, segment) {
                continue;
            }
            vectors.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
            match trains.last_mut() {
                Some(train) if train.takes(bytes.len(), segment) => train.add(bytes.len()),
                _ => trains.push(Train::new(bytes.len(), segment)),
            }
        }
        let mut headers = couple(&mut trains, &mut vectors, name);
        let mut sent = 0;
        while sent < headers.len() {
            match send(to, &mut headers[sent..]).doing("sending")? {
                0 => full.idle(to, PollFlags::OUT)?,
                count => {
                    full.worked();
                    sent += count;
                }
            }
        }
    }
}

/// Frames of one length that go out as one.
struct Train {
    segment: usize,
    len: usize,
    vectors: usize,
    control: Control,
}

impl Train {
    fn new(len: usize, segment: usize) -> Train {
        Train { segment, len, vectors: 1, control: Control::segments(segment) }
    }

    fn takes(&self, len: usize, segment: usize) -> bool {
        let whole = self.len + len;
        // Only the last one may be shorter.
        segment == self.segment
            && self.len.is_multiple_of(segment)
            && whole <= UDP_MAX
            && whole.div_ceil(segment) <= SEGMENTS_MAX
    }

    fn add(&mut self, len: usize) {
        self.len += len;
        self.vectors += 1;
    }
}

fn couple(trains: &mut [Train], mut vectors: &mut [libc::iovec], name: &[u8]) -> Vec<libc::mmsghdr> {
    let mut headers = Vec::with_capacity(trains.len());
    for train in trains {
        let (own, rest) = vectors.split_at_mut(train.vectors);
        vectors = rest;
        let alone = train.len <= train.segment;
        let mut header = header_of(own, if alone { None } else { Some(&mut train.control) });
        set_name(&mut header, name);
        headers.push(header);
    }
    headers
}

/// Room for a frame of 1,514 bytes and what stands before it.
const SLOT_LEN: usize = 2048;
const GRO_SLOT_LEN: usize = 64 << 10;
/// The longest UDP datagram over IPv4.
const UDP_MAX: usize = 65_507;
/// UDP_MAX_SEGMENTS of older kernels.
const SEGMENTS_MAX: usize = 64;

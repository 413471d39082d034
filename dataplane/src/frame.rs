//! A frame as the data plane sees it: lent, in the sender's memory, with its first bytes copied out once.
//!
//! [`BurstBuilder`] is how an ingress makes a [`Burst`]: it copies each frame's first [`HEADER_LEN`] bytes into the
//! worker's scratch memory and remembers where the rest lies. Every decision is made on that copy, and the copy is what
//! the receiver gets, so a sender that rewrites its memory after a check gains nothing. A frame whose sender leaves
//! something to its receiver ([`Offload`]) has a longer copy, up to [`OFFLOAD_HEADER_LEN`] bytes, kept apart so that the
//! others cost what they cost without. The lifetime of a burst is that of the poll that lends it.

mod lent;

use std::marker::PhantomData;

use crate::drops::DropReason;
use crate::mac::Mac;
use crate::offload::{NET_HEADER_LEN, Offload, Offloads, Payload};

/// Frames in a burst, at most; a [`Taken`] has a bit for each.
pub const BURST_FRAMES: usize = 64;
/// Bytes in a burst: the frame that reaches this ends it, so that ports share a worker by bytes and not by frames.
pub const BURST_BYTES: usize = 128 * 1024;
/// Segments that the frames of a burst may have to be cut into: the frame that reaches this is the last of its kind in
/// it, so that a sender whose segments are small does not keep its worker.
pub const BURST_SEGMENTS: usize = 1024;
/// Pieces in a burst, at most.
pub const BURST_PIECES: usize = 1024;
/// Bytes of a frame that are copied out of the sender's memory before anything is decided.
pub const HEADER_LEN: usize = 64;
/// As [`HEADER_LEN`], of a frame with an [`Offload`]: its headers up to the transport's end in there.
pub const OFFLOAD_HEADER_LEN: usize = 256;
/// Bytes of an Ethernet header; what is shorter is no frame.
pub const ETHERNET_LEN: usize = 14;
/// The longest frame: an IP packet of 65,535 bytes behind an Ethernet header with two VLAN tags.
pub const FRAME_LEN_MAX: usize = 65_535 + ETHERNET_LEN + 8;

/// A stretch of the sender's memory behind a frame's header copy. Never seen as a slice: the sender may write to it.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    start: *const u8,
    len: u32,
}

impl Piece {
    /// The `len` bytes from `start` on, for whoever lends them to say so.
    #[inline]
    pub fn at(start: *const u8, len: u32) -> Piece {
        Piece { start, len }
    }

    /// First byte. Readable for [`Piece::len`] bytes as long as the burst lives.
    #[inline]
    pub fn start(&self) -> *const u8 {
        self.start
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of ours, of one frame at most.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Piece {
        Piece { start: bytes.as_ptr(), len: bytes.len() as u32 }
    }

    /// Its first `len` bytes, of which there are as many.
    #[inline]
    pub(crate) fn front(self, len: usize) -> Piece {
        debug_assert!(len <= self.len());
        Piece { len: len as u32, ..self }
    }

    /// All but its first `len` bytes, of which there are as many.
    #[inline]
    pub(crate) fn after(self, len: usize) -> Piece {
        debug_assert!(len <= self.len());
        Piece { start: self.start.wrapping_add(len), len: self.len - len as u32 }
    }
}

/// Which frames of a burst are settled (delivered or dropped), a bit each. The rest the ingress lends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(pub u64);

impl Taken {
    /// Every frame of every burst.
    pub const ALL: Taken = Taken(u64::MAX);

    /// Whether frame `index` is settled.
    #[inline]
    pub fn settled(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// How many of the first `frames` frames are settled before the first unsettled one.
    #[inline]
    pub fn leading(self, frames: usize) -> usize {
        (self.0.trailing_ones() as usize).min(frames)
    }
}

#[derive(Clone, Copy, Default)]
struct Extent {
    len: u32,
    first_piece: u16,
    /// How many, and [`ASKS`].
    pieces: u16,
}

/// Beside the number of pieces: the frame has an [`Offload`]. So extents stay as small as they are.
const ASKS: u16 = 1 << 15;
const _: () = assert!(BURST_PIECES < ASKS as usize);

/// What a frame with an offload has besides.
#[derive(Clone, Copy)]
struct Extension {
    header: [u8; OFFLOAD_HEADER_LEN],
    /// `None` only where no frame is.
    offload: Option<Offload>,
}

impl Extension {
    const EMPTY: Extension = Extension { header: [0; OFFLOAD_HEADER_LEN], offload: None };
}

/// One worker's memory for the burst that it is being lent. Made once, used for every poll.
pub struct BurstScratch {
    headers: Box<[[u8; HEADER_LEN]; BURST_FRAMES]>,
    extensions: Box<[Extension; BURST_FRAMES]>,
    extents: Box<[Extent; BURST_FRAMES]>,
    pieces: Vec<Piece>,
    /// What the frames with an offload may have to be cut into. Not the builder's, whose counts are to stay in registers.
    segments: usize,
}

impl Default for BurstScratch {
    fn default() -> BurstScratch {
        BurstScratch {
            headers: Box::new([[0; HEADER_LEN]; BURST_FRAMES]),
            extensions: Box::new([Extension::EMPTY; BURST_FRAMES]),
            extents: Box::new([Extent::default(); BURST_FRAMES]),
            pieces: Vec::with_capacity(BURST_PIECES),
            segments: 0,
        }
    }
}

impl BurstScratch {
    /// Starts an empty burst of frames whose memory lives for `'m`, read from queue `queue` of its port.
    #[inline]
    pub fn begin<'s, 'm>(&'s mut self, queue: u16) -> BurstBuilder<'s, 'm> {
        self.pieces.clear();
        self.segments = 0;
        BurstBuilder { scratch: self, frames: 0, bytes: 0, queue, memory: PhantomData }
    }
}

/// Collects the frames of one poll.
pub struct BurstBuilder<'s, 'm> {
    scratch: &'s mut BurstScratch,
    frames: usize,
    bytes: usize,
    queue: u16,
    memory: PhantomData<&'m [u8]>,
}

impl<'m> BurstBuilder<'_, 'm> {
    /// Whether the burst has reached one of its limits ([`BURST_FRAMES`], [`BURST_BYTES`]) or has less than
    /// `pieces_wanted` pieces left.
    #[inline]
    pub fn is_full(&self, pieces_wanted: usize) -> bool {
        self.frames == BURST_FRAMES
            || self.bytes >= BURST_BYTES
            || self.scratch.pieces.len() + pieces_wanted > BURST_PIECES
    }

    /// Whether the burst has reached [`BURST_SEGMENTS`]: then no frame that may have an offload is to be added. Apart from
    /// [`Self::is_full`], so that plain frames do not pay for it.
    #[inline]
    pub fn is_full_of_segments(&self) -> bool {
        self.scratch.segments >= BURST_SEGMENTS
    }

    /// Frames so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames
    }

    /// Whether there is no frame yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Adds a frame that lies in one piece of the port's own memory.
    ///
    /// Errors: [`DropReason::Runt`] and [`DropReason::TooLong`], and nothing is added.
    ///
    /// # Panics
    /// If the burst [is full](Self::is_full).
    pub fn push_slice(&mut self, frame: &'m [u8]) -> Result<(), DropReason> {
        check_len(frame.len())?;
        let slot = &mut self.scratch.headers[self.frames];
        let rest = match frame.split_first_chunk() {
            // A copy of a length that is known now.
            Some((header, rest)) => {
                *slot = *header;
                rest
            }
            None => {
                slot[..frame.len()].copy_from_slice(frame);
                &[]
            }
        };
        let pieces = self.push_rest(rest);
        self.commit(frame.len(), pieces);
        Ok(())
    }

    /// As [`Self::push_slice`], of a frame that came behind the virtio-net header `net`, whose sender may ask for
    /// `sender`.
    ///
    /// Errors: also [`DropReason::Malformed`], when `net` lies.
    pub fn push_asking(
        &mut self,
        net: &[u8; NET_HEADER_LEN],
        frame: &'m [u8],
        sender: Offloads,
    ) -> Result<(), DropReason> {
        check_len(frame.len())?;
        let header_len = frame.len().min(OFFLOAD_HEADER_LEN);
        let Some(offload) = Offload::parse(net, &frame[..header_len], frame.len(), sender)? else {
            return self.push_slice(frame);
        };
        self.long_header_slot()[..header_len].copy_from_slice(&frame[..header_len]);
        let pieces = self.push_rest(&frame[header_len..]);
        self.commit_asking(frame.len(), pieces, offload);
        Ok(())
    }

    fn push_rest(&mut self, rest: &'m [u8]) -> usize {
        if rest.is_empty() {
            return 0;
        }
        self.scratch.pieces.push(Piece::of(rest));
        1
    }

    /// Where the ring engine copies the next frame's header to.
    #[inline]
    pub(crate) fn header_slot(&mut self) -> &mut [u8; HEADER_LEN] {
        &mut self.scratch.headers[self.frames]
    }

    /// As [`Self::header_slot`], when the frame may turn out to have an offload.
    #[inline]
    pub(crate) fn long_header_slot(&mut self) -> &mut [u8; OFFLOAD_HEADER_LEN] {
        &mut self.scratch.extensions[self.frames].header
    }

    /// Takes back the last `pieces` pieces, of a frame that turned out to be none.
    #[inline]
    pub(crate) fn abandon(&mut self, pieces: usize) {
        let keep = self.scratch.pieces.len() - pieces;
        self.scratch.pieces.truncate(keep);
    }

    /// Ends the frame whose header stands in [`Self::header_slot`] and whose last `pieces` pieces were pushed.
    #[inline]
    pub(crate) fn commit(&mut self, len: usize, pieces: usize) {
        let first_piece = (self.scratch.pieces.len() - pieces) as u16;
        self.scratch.extents[self.frames] = Extent { len: len as u32, first_piece, pieces: pieces as u16 };
        self.frames += 1;
        self.bytes += len;
    }

    /// As [`Self::commit`], of a frame whose header stands in [`Self::long_header_slot`] and asks for `offload`.
    pub(crate) fn commit_asking(&mut self, len: usize, pieces: usize, offload: Offload) {
        let frame = self.frames;
        self.scratch.segments += offload.segments(len);
        let extension = &mut self.scratch.extensions[frame];
        extension.offload = Some(offload);
        // Whoever only classifies does not ask which of the two copies is the right one.
        self.scratch.headers[frame].copy_from_slice(&extension.header[..HEADER_LEN]);
        self.commit(len, pieces);
        self.scratch.extents[frame].pieces |= ASKS;
    }

    /// The same builder, in a variable of its own that nobody else knows: its counts stay in registers as long as frames are
    /// added in a row. [`Self::resume`] takes them over.
    #[inline]
    pub(crate) fn row(&mut self) -> BurstBuilder<'_, 'm> {
        let BurstBuilder { frames, bytes, queue, memory, .. } = *self;
        BurstBuilder { scratch: self.scratch, frames, bytes, queue, memory }
    }

    /// Goes on behind a [row](Self::row) that ended at `frames` frames and `bytes` bytes.
    #[inline]
    pub(crate) fn resume(&mut self, frames: usize, bytes: usize) {
        (self.frames, self.bytes) = (frames, bytes);
    }

    /// Frames and their bytes so far.
    #[inline]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.frames, self.bytes)
    }

    /// The burst, to be lent.
    #[inline]
    pub fn burst(&self) -> Burst<'_> {
        Burst {
            headers: &self.scratch.headers,
            extensions: &self.scratch.extensions,
            extents: &self.scratch.extents[..self.frames],
            pieces: &self.scratch.pieces,
            bytes: self.bytes,
            queue: self.queue,
        }
    }
}

/// Whether a frame of `len` bytes may enter the switch.
#[inline]
pub fn check_len(len: usize) -> Result<(), DropReason> {
    if len < ETHERNET_LEN {
        return Err(DropReason::Runt);
    }
    if len > FRAME_LEN_MAX {
        return Err(DropReason::TooLong);
    }
    Ok(())
}

/// The frames of one poll, lent.
pub struct Burst<'a> {
    headers: &'a [[u8; HEADER_LEN]; BURST_FRAMES],
    extensions: &'a [Extension; BURST_FRAMES],
    extents: &'a [Extent],
    pieces: &'a [Piece],
    bytes: usize,
    queue: u16,
}

impl<'a> Burst<'a> {
    /// Frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    /// Whether nothing is lent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Bytes of all frames together.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The queue of the sending port that the frames came from.
    #[inline]
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Frame `index`, counted from 0.
    #[inline]
    pub fn frame(&self, index: usize) -> Frame<'a> {
        let extent = self.extents[index];
        Frame {
            len: extent.len as usize,
            header: &self.headers[index & (BURST_FRAMES - 1)],
            extensions: self.extensions,
            index,
            first_piece: extent.first_piece,
            piece_count: extent.pieces,
            pieces: self.pieces,
        }
    }

    /// How many frames in a row, after frame `index`, begin with the same 16 bytes as it: addresses, type, and all of a VLAN
    /// tag. A hub decides by nothing else.
    #[inline]
    pub fn alike_after(&self, index: usize) -> usize {
        let front = |index: usize| {
            let header = &self.headers[index & (BURST_FRAMES - 1)];
            u128::from_ne_bytes(std::array::from_fn(|at| header[at]))
        };
        let whole = |index: usize| self.extents[index].len >= 16;
        if !whole(index) {
            return 0;
        }
        let first = front(index);
        (index + 1..self.len()).take_while(|&next| front(next) == first && whole(next)).count()
    }

    /// All frames in order.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'a>> + '_ {
        (0..self.len()).map(|index| self.frame(index))
    }
}

/// One Ethernet frame without FCS, lent.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    len: usize,
    /// The whole slot: what is behind a shorter frame is an earlier one's, and nobody is shown it.
    header: &'a [u8; HEADER_LEN],
    /// Those of the whole burst, as the pieces below.
    extensions: &'a [Extension; BURST_FRAMES],
    index: usize,
    first_piece: u16,
    /// And [`ASKS`].
    piece_count: u16,
    /// Those of the whole burst: whoever only classifies does not pay for finding the frame's own.
    pieces: &'a [Piece],
}

impl<'a> Frame<'a> {
    /// Bytes from the destination address to the end of the payload.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // a frame has 14 bytes or more
    pub fn len(&self) -> usize {
        self.len
    }

    /// The copy of the frame's first bytes: [`HEADER_LEN`], [`OFFLOAD_HEADER_LEN`] when it has an offload, or all of a
    /// shorter frame; at least [`ETHERNET_LEN`].
    #[inline]
    pub fn header(&self) -> &'a [u8] {
        match self.extension() {
            None => &self.header[..self.len.min(HEADER_LEN)],
            Some(extension) => &extension.header[..self.len.min(OFFLOAD_HEADER_LEN)],
        }
    }

    /// What the sender leaves to the receiver: `None`, the frame is whole.
    #[inline]
    pub fn offload(&self) -> Option<&'a Offload> {
        self.extension().and_then(|extension| extension.offload.as_ref())
    }

    #[inline]
    fn extension(&self) -> Option<&'a Extension> {
        (self.piece_count & ASKS != 0).then(|| &self.extensions[self.index & (BURST_FRAMES - 1)])
    }

    /// What follows the first `headers` bytes, which are no more than the header copy.
    #[inline]
    pub fn payload(&self, headers: usize) -> Payload<'a> {
        Payload::new(&self.header()[headers..], self.body(), self.len - headers)
    }

    /// What follows the header, in the sender's memory.
    #[inline]
    pub fn body(&self) -> &'a [Piece] {
        let first = usize::from(self.first_piece);
        &self.pieces[first..first + usize::from(self.piece_count & !ASKS)]
    }

    /// Copies the whole frame to the front of `to`, for a receiver that cannot take it in pieces. Returns its length, or
    /// `None` when `to` is shorter.
    pub fn copy_to(&self, to: &mut [u8]) -> Option<usize> {
        Some(self.copy_front(to.get_mut(..self.len)?))
    }

    /// The destination address.
    #[inline]
    pub fn destination(&self) -> Mac {
        let h = self.header;
        Mac([h[0], h[1], h[2], h[3], h[4], h[5]])
    }

    /// The source address.
    #[inline]
    pub fn source(&self) -> Mac {
        // One check instead of six; the header is never shorter.
        let Some([.., a, b, c, d, e, f]) = self.header.first_chunk::<12>() else { return Mac::default() };
        Mac([*a, *b, *c, *d, *e, *f])
    }

    /// The VLAN that an outermost 802.1Q tag names: `None` when untagged. A tag that is cut after its type has no
    /// number and reads as [`VLAN_CUT`], which no filter admits.
    #[inline]
    pub fn vlan(&self) -> Option<u16> {
        let h = self.header;
        if h[12] != 0x81 || h[13] != 0x00 {
            return None;
        }
        Some(if self.len < 16 { VLAN_CUT } else { u16::from_be_bytes([h[14], h[15]]) & 0x0fff })
    }
}

/// What [`Frame::vlan`] says of a frame that ends inside its VLAN tag.
pub const VLAN_CUT: u16 = 0x1000;

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

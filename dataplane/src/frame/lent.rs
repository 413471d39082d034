//! Frames in pieces of a memory that no slice may describe, since somebody else may write there: an ingress that shares
//! its memory with a kernel or a guest adds them to a burst here, and who needs a frame in one piece copies them.

#![allow(unsafe_code)] // lends memory that others may write to

use super::{BurstBuilder, Frame, HEADER_LEN, OFFLOAD_HEADER_LEN, Piece, check_len};
use crate::drops::DropReason;
use crate::offload::{NET_HEADER_LEN, Offload, Offloads};

impl BurstBuilder<'_, '_> {
    /// Adds a piece of the frame that the next [`Self::commit`] ends.
    ///
    /// # Safety
    /// `start` is readable for `len` bytes during `'m`, whoever else writes there.
    #[inline]
    pub(crate) unsafe fn push_piece(&mut self, start: *const u8, len: u32) {
        self.scratch.pieces.push(Piece { start, len });
    }

    /// Adds the frame that lies in `pieces`, one behind the other; some may be empty.
    ///
    /// Errors: [`DropReason::Runt`] and [`DropReason::TooLong`], and nothing is added.
    ///
    /// # Safety
    /// Each piece is readable for its length as long as the burst lives, whoever else writes there. The burst
    /// [has room](Self::is_full) for as many pieces.
    pub unsafe fn push_lent(&mut self, pieces: &[Piece]) -> Result<(), DropReason> {
        let len = len_of(pieces);
        check_len(len)?;
        let header_len = len.min(HEADER_LEN);
        // SAFETY: as the caller promises, the pieces are readable.
        unsafe { copy_front(pieces, &mut self.header_slot()[..header_len]) };
        // SAFETY: as above.
        let count = unsafe { self.push_behind(pieces, header_len) };
        self.commit(len, count);
        Ok(())
    }

    /// As [`Self::push_lent`], of a frame that came behind the virtio-net header `net`, whose sender may ask for `sender`.
    ///
    /// Errors: also [`DropReason::Malformed`], when `net` lies.
    ///
    /// # Safety
    /// As [`Self::push_lent`].
    pub unsafe fn push_lent_asking(
        &mut self,
        net: &[u8; NET_HEADER_LEN],
        pieces: &[Piece],
        sender: Offloads,
    ) -> Result<(), DropReason> {
        let len = len_of(pieces);
        check_len(len)?;
        let header_len = len.min(OFFLOAD_HEADER_LEN);
        let header = &mut self.long_header_slot()[..header_len];
        // SAFETY: as the caller promises, the pieces are readable.
        unsafe { copy_front(pieces, header) };
        let Some(offload) = Offload::parse(net, header, len, sender)? else {
            // SAFETY: as above.
            return unsafe { self.push_lent(pieces) };
        };
        // SAFETY: as above.
        let count = unsafe { self.push_behind(pieces, header_len) };
        self.commit_asking(len, count, offload);
        Ok(())
    }

    /// Adds all but the first `header_len` bytes, and says in how many pieces.
    ///
    /// # Safety
    /// As [`Self::push_lent`].
    unsafe fn push_behind(&mut self, pieces: &[Piece], header_len: usize) -> usize {
        let (mut skip, mut count) = (header_len, 0);
        for piece in pieces {
            let here = skip.min(piece.len());
            skip -= here;
            let rest = piece.after(here);
            if !rest.is_empty() {
                // SAFETY: a part of a piece that is readable.
                unsafe { self.push_piece(rest.start(), rest.len() as u32) };
                count += 1;
            }
        }
        count
    }
}

impl Frame<'_> {
    /// Copies as much of the frame's front to the front of `to` as there is room for. Returns how many bytes.
    pub fn copy_front(&self, to: &mut [u8]) -> usize {
        let room = to.len().min(self.len);
        let header = self.header();
        let (front, mut rest) = to[..room].split_at_mut(room.min(header.len()));
        front.copy_from_slice(&header[..front.len()]);
        for piece in self.body() {
            let (here, behind) = rest.split_at_mut(piece.len().min(rest.len()));
            // SAFETY: the piece is readable for its length while the burst lives, and `here` is no longer and ours.
            unsafe { std::ptr::copy_nonoverlapping(piece.start(), here.as_mut_ptr(), here.len()) };
            rest = behind;
        }
        room
    }
}

fn len_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::len).sum()
}

/// Copies the first bytes of `pieces`, which have as many, to all of `to`.
///
/// # Safety
/// The pieces are readable.
unsafe fn copy_front(pieces: &[Piece], to: &mut [u8]) {
    let mut left = to;
    for piece in pieces {
        let (here, behind) = left.split_at_mut(piece.len().min(left.len()));
        // SAFETY: `here` is no longer than the piece, and is memory of our own.
        unsafe { std::ptr::copy_nonoverlapping(piece.start(), here.as_mut_ptr(), here.len()) };
        left = behind;
        if left.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{BURST_PIECES, BurstScratch, FRAME_LEN_MAX};

    /// The frame as a receiver gets it, after `bytes` were pushed in pieces of these lengths.
    fn pushed(bytes: &[u8], lens: &[usize], net: Option<[u8; 10]>) -> Result<Vec<u8>, DropReason> {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for len in lens {
            pieces.push(Piece::at(bytes[start..start + len].as_ptr(), *len as u32));
            start += len;
        }
        assert_eq!(start, bytes.len());
        match net {
            // SAFETY: the pieces are of `bytes`.
            None => unsafe { builder.push_lent(&pieces)? },
            // SAFETY: as above.
            Some(net) => unsafe { builder.push_lent_asking(&net, &pieces, Offloads::ALL)? },
        }
        let burst = builder.burst();
        let frame = burst.frame(0);
        assert_eq!(frame.offload().is_some(), net.is_some_and(|net| net[0] == 1));
        let mut copy = vec![0; frame.len()];
        frame.copy_to(&mut copy).unwrap();
        Ok(copy)
    }

    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn frame_is_the_same_however_it_is_cut() {
        for lens in [&[300][..], &[1, 13, 50, 0, 236], &[64, 236], &[63, 1, 1, 235], &[0, 0, 299, 1]] {
            assert_eq!(pushed(&numbered(300), lens, None).unwrap(), numbered(300), "{lens:?}");
        }
        let long = numbered(FRAME_LEN_MAX);
        let lens: Vec<usize> = long.chunks(3840).map(<[u8]>::len).collect();
        assert_eq!(pushed(&long, &lens, None).unwrap(), long);
        assert!(lens.len() < BURST_PIECES);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(pushed(&numbered(13), &[6, 7], None), Err(DropReason::Runt));
        assert_eq!(pushed(&[], &[], None), Err(DropReason::Runt));
        let long = numbered(FRAME_LEN_MAX + 1);
        assert_eq!(pushed(&long, &[FRAME_LEN_MAX, 1], None), Err(DropReason::TooLong));
        assert_eq!(pushed(&long, &[FRAME_LEN_MAX, 1], Some([0; 10])), Err(DropReason::TooLong));
    }

    #[test]
    fn net_header_counts_and_may_lie() {
        let mut frame = numbered(400);
        (frame[12], frame[13], frame[14], frame[23]) = (8, 0, 0x45, 17);
        let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0];
        for lens in [&[400][..], &[12, 30, 358], &[256, 144], &[255, 145]] {
            assert_eq!(pushed(&frame, lens, Some(checksum)).unwrap(), frame, "{lens:?}");
            assert_eq!(pushed(&frame, lens, Some([0; 10])).unwrap(), frame, "{lens:?}");
            let beyond = [1, 0, 0, 0, 0, 0, 200, 1, 6, 0];
            assert_eq!(pushed(&frame, lens, Some(beyond)), Err(DropReason::Malformed));
        }
    }
}

//! A frame's payload: what lies behind its headers, lent, in the header copy's rest and in the sender's pieces.

use std::marker::PhantomData;

use crate::frame::Piece;

/// Bytes of a frame from some place on, to be taken off bit by bit.
#[derive(Clone, Copy)]
pub struct Payload<'f> {
    first: Piece,
    rest: &'f [Piece],
    len: usize,
    frame: PhantomData<&'f [u8]>,
}

impl<'f> Payload<'f> {
    /// What is left of the header copy, and then the pieces, `len` bytes together: the longest frame's at most.
    pub(crate) fn new(copied: &'f [u8], pieces: &'f [Piece], len: usize) -> Payload<'f> {
        Payload { first: Piece::of(copied), rest: pieces, len, frame: PhantomData }
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first `len` bytes off, or all if there are less.
    #[inline]
    pub fn take(&mut self, len: usize) -> Payload<'f> {
        let taken = Payload { len: len.min(self.len), ..*self };
        self.skip(taken.len);
        taken
    }

    /// The bytes in pieces, none of them empty.
    #[inline]
    pub fn pieces(&self) -> Pieces<'f> {
        Pieces(*self)
    }

    /// `len` bytes, of which there are as many.
    fn skip(&mut self, mut len: usize) {
        self.len -= len;
        while len >= self.first.len() {
            let Some((next, rest)) = self.rest.split_first() else { break };
            len -= self.first.len();
            (self.first, self.rest) = (*next, rest);
        }
        self.first = self.first.after(len);
    }
}

/// The pieces of a [`Payload`].
pub struct Pieces<'f>(Payload<'f>);

impl Iterator for Pieces<'_> {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        let Pieces(left) = self;
        if left.first.is_empty() {
            left.skip(0);
        }
        let here = left.first.len().min(left.len);
        if here == 0 {
            return None;
        }
        let piece = left.first.front(here);
        left.skip(here);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::Sum;

    #[test]
    fn bytes_come_off_in_order_whatever_the_pieces() {
        let bytes: Vec<u8> = (0..100).collect();
        let cuts = [&bytes[..0], &bytes[0..7], &bytes[7..7], &bytes[7..40], &bytes[40..100]];
        for step in 1..=101 {
            let pieces: Vec<Piece> = cuts[1..].iter().map(|cut| Piece::of(cut)).collect();
            let mut payload = Payload::new(cuts[0], &pieces, 100);
            let mut whole = Vec::new();
            while !payload.is_empty() {
                let part = payload.take(step);
                assert_eq!(part.len(), step.min(100 - whole.len()));
                assert!(part.pieces().all(|piece| !piece.is_empty()));
                let mut copy = vec![0; part.len()];
                assert!(part.copy_to(&mut copy[1..]).is_none());
                assert_eq!(part.copy_to(&mut copy).unwrap().folded(), Sum::of(&copy).folded());
                assert_eq!(part.sum().folded(), Sum::of(&copy).folded());
                whole.extend(copy);
            }
            assert_eq!(whole, bytes);
            assert_eq!(payload.take(1).len(), 0);
        }
    }
}

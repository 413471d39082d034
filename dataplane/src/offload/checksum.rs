//! The Internet checksum (RFC 1071) over bytes that lie anywhere, in stretches of any length.
//!
//! A stretch is summed as native words of 32 bits in sums of 64, which cannot overflow and which the compiler turns into
//! vector code for any processor; byte order and odd places are put right once a stretch. Sums may be made in the same
//! pass as a copy, so that a byte is loaded once.

#![allow(unsafe_code)] // sums and copies guest memory, which no slice may describe

use std::ops::AddAssign;

use super::Payload;

/// A one's complement sum of 16-bit words in network order, the last of which may be half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Of words in network order, as native numbers. Not folded.
    total: u64,
    /// The last word has but its first byte.
    odd: bool,
}

impl Sum {
    /// Of `bytes`.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        // SAFETY: a slice is readable.
        unsafe { Sum::of_lent(bytes.as_ptr(), bytes.len()) }
    }

    /// Of memory that somebody else may write meanwhile; then it is the sum of anything.
    ///
    /// # Safety
    /// `start` is readable for `len` bytes.
    #[inline]
    pub(crate) unsafe fn of_lent(start: *const u8, len: usize) -> Sum {
        // SAFETY: the caller's; nothing is written.
        unsafe { pass::<false>(start, std::ptr::null_mut(), len) }
    }

    /// Copies `len` bytes, and says their sum.
    ///
    /// # Safety
    /// `from` is readable and `to` is writable for `len` bytes; they do not overlap.
    #[inline]
    pub(crate) unsafe fn of_copy(from: *const u8, to: *mut u8, len: usize) -> Sum {
        // SAFETY: the caller's.
        unsafe { pass::<true>(from, to, len) }
    }

    /// Of a number of 16 bits.
    #[inline]
    pub fn of_word(word: u16) -> Sum {
        Sum { total: u64::from(word), odd: false }
    }

    /// Of the pseudo-header's protocol and length (RFC 793, RFC 8200).
    #[inline]
    pub(crate) fn of_length(protocol: u8, len: usize) -> Sum {
        Sum { total: u64::from(protocol) + len as u64, odd: false }
    }

    /// All of it in 16 bits.
    #[inline]
    pub fn folded(self) -> u16 {
        let mut total = self.total;
        while total >> 16 != 0 {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    /// What goes into the field: never 0, which UDP has for "none" and which is the same number as 0xffff in all others.
    #[inline]
    pub fn checksum(self) -> u16 {
        match !self.folded() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

impl Payload<'_> {
    /// The sum of the bytes.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for piece in self.pieces() {
            // SAFETY: pieces of a frame are readable while it is lent, which the payload's lifetime says.
            sum += unsafe { Sum::of_lent(piece.start(), piece.len()) };
        }
        sum
    }

    /// Copies the bytes to the front of `to` and says their sum, or `None` when `to` is shorter.
    pub fn copy_to(&self, to: &mut [u8]) -> Option<Sum> {
        let (mut sum, mut left) = (Sum::default(), to.get_mut(..self.len())?);
        for piece in self.pieces() {
            let (here, behind) = left.split_at_mut_checked(piece.len())?;
            // SAFETY: as in `sum`; `here` has the piece's length, and is memory of our own.
            sum += unsafe { Sum::of_copy(piece.start(), here.as_mut_ptr(), piece.len()) };
            left = behind;
        }
        Some(sum)
    }
}

impl AddAssign for Sum {
    /// Of the bytes of both, one behind the other.
    #[inline]
    fn add_assign(&mut self, next: Sum) {
        let next_total = u64::from(next.folded());
        // Behind half a word each byte changes its place in its word.
        let shifted = if self.odd { u64::from((next_total as u16).swap_bytes()) } else { next_total };
        self.total = u64::from(self.folded()) + shifted;
        self.odd ^= next.odd;
    }
}

/// What one turn of the loop takes.
type Block = [u32; 16];

/// # Safety
/// `from` is readable for `len` bytes; with `COPY`, `to` is writable for as many, elsewhere.
#[inline]
unsafe fn pass<const COPY: bool>(from: *const u8, to: *mut u8, len: usize) -> Sum {
    let (mut lane, mut left, mut native) = (Lane::<COPY> { from, to }, len, 0u64);
    while left >= size_of::<Block>() {
        // SAFETY: a whole block is left.
        let block: Block = unsafe { lane.next() };
        native += block.iter().map(|word| u64::from(*word)).sum::<u64>();
        left -= size_of::<Block>();
    }
    while left >= 8 {
        // SAFETY: eight bytes are left.
        let word: u64 = unsafe { lane.next() };
        native += (word >> 32) + (word & 0xffff_ffff);
        left -= 8;
    }
    if left & 4 != 0 {
        // SAFETY: four bytes are left.
        native += u64::from(unsafe { lane.next::<u32>() });
    }
    if left & 2 != 0 {
        // SAFETY: two bytes are left.
        native += u64::from(unsafe { lane.next::<u16>() });
    }
    if left & 1 != 0 {
        // SAFETY: a byte is left.
        let last: u8 = unsafe { lane.next() };
        native += u64::from(u16::from_ne_bytes([last, 0]));
    }
    // RFC 1071, 2(B): the sum of swapped words is the swapped sum.
    let folded = Sum { total: (native >> 32) + (native & 0xffff_ffff), odd: false }.folded();
    Sum { total: u64::from(u16::from_be(folded)), odd: !len.is_multiple_of(2) }
}

/// Where a pass is.
struct Lane<const COPY: bool> {
    from: *const u8,
    to: *mut u8,
}

impl<const COPY: bool> Lane<COPY> {
    /// Reads a number or several, writes them if it is to, and goes on behind them.
    ///
    /// # Safety
    /// `T` is made of numbers; `from` is readable for one, and with `COPY` `to` is writable for one.
    #[inline(always)]
    unsafe fn next<T: Copy>(&mut self) -> T {
        // SAFETY: the caller's; unaligned, and any bytes are numbers.
        let value = unsafe { self.from.cast::<T>().read_unaligned() };
        if COPY {
            // SAFETY: the caller's.
            unsafe { self.to.cast::<T>().write_unaligned(value) };
        }
        self.from = self.from.wrapping_add(size_of::<T>());
        self.to = self.to.wrapping_add(size_of::<T>());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word for word, as RFC 1071 has it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn example_of_the_rfc_sums_to_what_it_says() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.folded(), sum.checksum()), (0xddf2, !0xddf2));
    }

    #[test]
    fn checksum_is_never_zero() {
        assert_eq!(Sum::of(&[0xff, 0xff]).checksum(), 0xffff);
        assert_eq!(Sum::of(&[]).checksum(), 0xffff);
        assert_eq!(Sum::of(&[0xff, 0xfe]).checksum(), 1);
    }

    #[test]
    fn longest_frame_of_ones_does_not_overflow() {
        let ones = vec![0xff; crate::frame::FRAME_LEN_MAX];
        assert_eq!(Sum::of(&ones).folded(), naive(&ones));
    }

    proptest! {
        #[test]
        fn stretches_at_odd_places_sum_as_one(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            skip in 0usize..9,
        ) {
            let bytes = &bytes[skip.min(bytes.len())..];
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort();
            let (mut sum, mut copied, mut start) = (Sum::default(), Sum::default(), 0);
            let mut copy = vec![0xaa; bytes.len() + 1];
            for end in ends {
                sum += Sum::of(&bytes[start..end]);
                // SAFETY: both hold the range, and are not the same memory.
                copied += unsafe {
                    Sum::of_copy(bytes[start..end].as_ptr(), copy[start..end].as_mut_ptr(), end - start)
                };
                start = end;
            }
            prop_assert_eq!(sum.folded(), naive(bytes));
            prop_assert_eq!(copied, sum);
            prop_assert_eq!(&copy[..bytes.len()], bytes);
            prop_assert_eq!(copy[bytes.len()], 0xaa, "nothing is written behind the end");
        }

        #[test]
        fn checksum_is_what_etherparse_has(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let theirs = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes).ones_complement();
            let theirs = theirs.to_be();
            prop_assert_eq!(Sum::of(&bytes).checksum(), if theirs == 0 { 0xffff } else { theirs });
        }
    }
}

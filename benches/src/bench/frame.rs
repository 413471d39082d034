//! Frames of the sizes that RFC 2544 and others name, and the stamp that tells each from all others.
//!
//! A size counts the FCS, as the RFC does; a virtio ring carries none, so 4 bytes fewer travel. Every frame is Ethernet,
//! IPv4 and UDP; its payload is the stamp and then a fixed pattern, so that the receiver knows every byte.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use etherparse::PacketBuilder;
use ringyard_dataplane::mac::Mac;

use crate::error::{Doing, Error, Result};
use crate::traffic::SEQUENCE;

/// Bytes of the FCS, which sizes count and rings do not carry.
pub const FCS: usize = 4;
/// The smallest size.
pub const SIZE_MIN: usize = 64;
/// The largest size.
pub const SIZE_MAX: usize = 9018;
/// RFC 2544, 9.1, for Ethernet.
pub const RFC_2544: [usize; 7] = [64, 128, 256, 512, 1024, 1280, 1518];
/// Jumbo frames, as CSIT measures them.
pub const JUMBO: usize = 9000;
/// The simple IMIX: how many frames of which size.
pub const IMIX: [(usize, usize); 3] = [(28, 64), (16, 570), (4, 1518)];
const TRAFFIC_PORT: u16 = 9000;

/// What a trial's frames measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of this many bytes, FCS included.
    Fixed(usize),
    /// The simple IMIX, in an even order.
    Imix,
}

impl Size {
    /// The sizes of each frame of one round, in the order in which they are sent.
    pub fn pattern(self) -> Vec<usize> {
        match self {
            Size::Fixed(bytes) => vec![bytes],
            Size::Imix => even_order(&IMIX),
        }
    }

    /// Bytes of the mean frame, FCS included.
    pub fn mean(self) -> f64 {
        let pattern = self.pattern();
        pattern.iter().sum::<usize>() as f64 / pattern.len() as f64
    }

    /// As people call it: `64 B`, or `IMIX`.
    pub fn label(self) -> String {
        match self {
            Size::Fixed(bytes) => format!("{bytes} B"),
            Size::Imix => "IMIX".into(),
        }
    }

    /// The longest frame's bytes, FCS included.
    pub fn max(self) -> usize {
        self.pattern().into_iter().max().unwrap_or(SIZE_MIN)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Size::Fixed(bytes) => write!(f, "{bytes}"),
            Size::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Size::Imix);
        }
        match text.parse() {
            Ok(bytes @ SIZE_MIN..=SIZE_MAX) => Ok(Size::Fixed(bytes)),
            _ => Err(format!("'{text}' is neither imix nor a frame size from {SIZE_MIN} to {SIZE_MAX}")),
        }
    }
}

/// One frame, to be stamped again and again.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// Of `size` bytes, FCS included, between those addresses.
    pub fn new(source: Mac, destination: Mac, size: usize) -> Result<Frame> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(Error::new(format!("frames have {SIZE_MIN} to {SIZE_MAX} bytes, not {size}")));
        }
        let host = |mac: Mac| [10, 0, mac.0[4], mac.0[5]];
        let builder = PacketBuilder::ethernet2(source.0, destination.0)
            .ipv4(host(source), host(destination), 64)
            .udp(TRAFFIC_PORT, TRAFFIC_PORT);
        let len = size - FCS;
        let payload: Vec<u8> = (0..len - SEQUENCE).map(|at| (at * 31 + 7) as u8).collect();
        let mut bytes = Vec::with_capacity(len);
        builder.write(&mut bytes, &payload).doing("building a frame")?;
        // No checksum (RFC 768): the stamp changes with every frame and all bytes are compared.
        bytes[SEQUENCE - 2..SEQUENCE].fill(0);
        Ok(Frame { bytes })
    }

    /// The frame as it travels, with that stamp.
    #[inline]
    pub fn stamped(&mut self, stamp: u64) -> &[u8] {
        self.bytes[SEQUENCE..SEQUENCE + 8].copy_from_slice(&stamp.to_le_bytes());
        &self.bytes
    }

    /// Bytes that travel.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // frames are not
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What a stream sends: one frame, or several in turn.
#[derive(Clone, Debug)]
pub struct Shape {
    frames: Vec<Frame>,
}

impl Shape {
    /// Frames of that size between those addresses.
    pub fn new(source: Mac, destination: Mac, size: Size) -> Result<Shape> {
        let frame = |bytes: usize| Frame::new(source, destination, bytes);
        Ok(Shape { frames: size.pattern().into_iter().map(frame).collect::<Result<_>>()? })
    }

    /// The frame whose number is `sequence`.
    #[inline]
    pub fn frame(&mut self, sequence: u64) -> &mut Frame {
        if self.frames.len() == 1 {
            return &mut self.frames[0];
        }
        let place = sequence as usize % self.frames.len();
        &mut self.frames[place]
    }

    /// The frame, when all are the same.
    #[inline]
    pub fn only(&mut self) -> Option<&mut Frame> {
        match &mut self.frames[..] {
            [frame] => Some(frame),
            _ => None,
        }
    }
}

/// The 8 bytes that tell a frame: a mark, the flow, the trial, the number within both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The flow.
    pub flow: u8,
    /// The trial, modulo 4096.
    pub trial: u16,
    /// The number, from 0.
    pub sequence: u64,
}

impl Stamp {
    const MARK: u64 = 0x5b6;

    /// As it travels.
    #[inline]
    pub fn word(self) -> u64 {
        Stamp::MARK << 52
            | u64::from(self.flow) << 44
            | u64::from(self.trial & 0xfff) << 32
            | self.sequence & 0xffff_ffff
    }

    /// `None` for what no bench sent.
    #[inline]
    pub fn read(word: u64) -> Option<Stamp> {
        (word >> 52 == Stamp::MARK).then_some(Stamp {
            flow: (word >> 44) as u8,
            trial: (word >> 32) as u16 & 0xfff,
            sequence: word & 0xffff_ffff,
        })
    }
}

/// Spreads each kind as evenly as it goes: the kind that is most behind its share comes next.
fn even_order(kinds: &[(usize, usize)]) -> Vec<usize> {
    let total: usize = kinds.iter().map(|(count, _)| count).sum();
    let mut sent = vec![0usize; kinds.len()];
    let mut order = Vec::with_capacity(total);
    for place in 1..=total {
        let behind = |kind: &usize| (kinds[*kind].0 * place) as isize - (sent[*kind] * total) as isize;
        let next = (0..kinds.len()).max_by_key(behind).unwrap_or(0);
        sent[next] += 1;
        order.push(kinds[next].1);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::guest_mac;

    #[test]
    fn sizes_count_the_fcs_that_does_not_travel() {
        for size in RFC_2544.into_iter().chain([JUMBO]) {
            let mut frame = Frame::new(guest_mac(0), guest_mac(1), size).unwrap();
            assert_eq!(frame.len(), size - 4);
            let packet = etherparse::SlicedPacket::from_ethernet(frame.stamped(1)).unwrap();
            assert!(packet.transport.is_some());
        }
        assert!(Frame::new(guest_mac(0), guest_mac(1), 63).is_err());
    }

    #[test]
    fn imix_has_its_shares_in_an_even_order() {
        let pattern = Size::Imix.pattern();
        for (count, size) in IMIX {
            assert_eq!(pattern.iter().filter(|bytes| **bytes == size).count(), count);
            // In every half there is half of them.
            let half = pattern[..24].iter().filter(|bytes| **bytes == size).count();
            assert!(half.abs_diff(count / 2) <= 1, "{size}: {half} in the first half");
        }
        assert!((Size::Imix.mean() - 353.8).abs() < 0.1);
        assert_eq!(Size::Imix.max(), 1518);
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for text in ["64", "1518", "9000", "imix"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["63", "9019", "", "big"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn stamps_come_back_and_other_words_are_none() {
        let stamp = Stamp { flow: 3, trial: 4095, sequence: 0xffff_fffe };
        assert_eq!(Stamp::read(stamp.word()), Some(stamp));
        assert_eq!(Stamp::read(0), None);
        assert_eq!(Stamp::read(!stamp.word()), None);
    }
}

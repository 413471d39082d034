//! What built-in guests send, and the proof that it arrived: every byte of a frame follows from its template and its
//! sequence number.
//!
//! A frame is Ethernet, IPv4, UDP; its payload is the sequence number and then words that count up from a product of it.
//! The receiver builds the frame it expects and compares. That is cheap (about 60 ns for 1,500 bytes), so that the
//! measurement stays one of the switch, and finds any byte that is wrong, not only those in the right place of a sum.

use std::fmt;

use etherparse::PacketBuilder;
use ringyard_dataplane::mac::Mac;

use crate::error::{Doing, Error, Result};

/// Where the sequence number stands: behind Ethernet, IPv4 and UDP.
pub const SEQUENCE: usize = 14 + 20 + 8;
/// The shortest frame: a sequence number and nothing behind it.
pub const FRAME_LEN_MIN: usize = SEQUENCE + 8;
/// The longest frame.
pub const FRAME_LEN_MAX: usize = 1514;
/// UDP destination port of frames that count.
const TRAFFIC_PORT: u16 = 9000;
/// UDP destination port of frames that only ask whether the way is open: discard.
const PROBE_PORT: u16 = 9;
/// Where the UDP destination port stands.
const PORT: usize = 14 + 20 + 2;

/// The address of built-in guest `index`, counted from 0: locally administered, apart from QEMU's.
pub fn guest_mac(index: usize) -> Mac {
    let [high, low] = (index as u16).to_be_bytes();
    Mac([0x52, 0x59, 0, 0, high, low.wrapping_add(1)])
}

/// One flow's frame, to be stamped with sequence numbers.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
}

impl Template {
    /// A frame of `len` bytes without FCS from guest `from` to guest `to`.
    pub fn new(from: usize, to: usize, len: usize) -> Result<Template> {
        Template::to_port(from, to, len, TRAFFIC_PORT)
    }

    /// The shortest frame, which no verifier counts.
    pub fn probe(from: usize, to: usize) -> Result<Template> {
        Template::to_port(from, to, FRAME_LEN_MIN, PROBE_PORT)
    }

    fn to_port(from: usize, to: usize, len: usize, port: u16) -> Result<Template> {
        if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&len) {
            return Err(Error::new(format!(
                "frames have {FRAME_LEN_MIN} to {FRAME_LEN_MAX} bytes, not {len}"
            )));
        }
        let address = |guest: usize| [10, 0, (guest >> 8) as u8, (guest as u8).wrapping_add(1)];
        let builder = PacketBuilder::ethernet2(guest_mac(from).0, guest_mac(to).0)
            .ipv4(address(from), address(to), 64)
            .udp(TRAFFIC_PORT, port);
        let mut bytes = Vec::with_capacity(len);
        builder.write(&mut bytes, &vec![0; len - SEQUENCE]).doing("building a frame")?;
        // No checksum (RFC 768): the payload changes with every frame and is verified as a whole.
        bytes[SEQUENCE - 2..SEQUENCE].fill(0);
        Ok(Template { bytes })
    }

    /// The frame as number `sequence`.
    #[inline]
    pub fn stamp(&mut self, sequence: u64) -> &[u8] {
        let mut word = sequence;
        let mut step = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut chunks = self.bytes[SEQUENCE..].chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&word.to_le_bytes());
            word = step;
            step = step.wrapping_add(0x0101_0101_0101_0101);
        }
        let rest = chunks.into_remainder();
        let len = rest.len();
        rest.copy_from_slice(&word.to_le_bytes()[..len]);
        &self.bytes
    }

    /// Bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // frames are not
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What did not arrive as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that did not arrive.
    pub lost: u64,
    /// Frames that arrived with a wrong byte, or cut, or grown.
    pub corrupted: u64,
    /// Frames that arrived after a later one, or twice.
    pub reordered: u64,
    /// Frames of somebody else.
    pub foreign: u64,
}

impl Faults {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }

    /// Adds those of another flow.
    pub fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.lost, "lost"),
            (self.corrupted, "corrupted"),
            (self.reordered, "reordered"),
            (self.foreign, "foreign"),
        ];
        let named: Vec<String> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        if named.is_empty() { f.write_str("no faults") } else { f.write_str(&named.join(", ")) }
    }
}

/// The receiving end of a flow.
pub struct Verifier {
    expected: Template,
    next: u64,
    frames: u64,
    faults: Faults,
}

impl Verifier {
    /// Expects frames like `template`, numbered from 0.
    pub fn new(template: &Template) -> Verifier {
        Verifier { expected: template.clone(), next: 0, frames: 0, faults: Faults::default() }
    }

    /// Checks one received frame, all of it.
    #[inline]
    pub fn check(&mut self, frame: &[u8]) {
        if frame.len() < FRAME_LEN_MIN || frame[..12] != self.expected.bytes[..12] {
            self.faults.foreign += 1;
            return;
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&frame[SEQUENCE..FRAME_LEN_MIN]);
        let sequence = u64::from_le_bytes(sequence);
        if self.expected.stamp(sequence) != frame {
            if frame[PORT..PORT + 2] != PROBE_PORT.to_be_bytes() {
                self.faults.corrupted += 1;
            }
            return;
        }
        self.count(sequence);
    }

    /// Checks no more than a sequence number: for load, where the receiver must not be slower than the switch.
    #[inline]
    pub fn count(&mut self, sequence: u64) {
        self.frames += 1;
        if sequence == self.next {
            self.next += 1;
        } else if sequence > self.next {
            self.faults.lost += sequence - self.next;
            self.next = sequence + 1;
        } else {
            self.faults.reordered += 1;
            self.faults.lost = self.faults.lost.saturating_sub(1);
        }
    }

    /// Number of the next frame, which is also how many frames have arrived or been lost.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Good frames that arrived.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// What went wrong, when `sent` frames were sent and no more will come.
    pub fn faults(&self, sent: u64) -> Faults {
        Faults { lost: self.faults.lost + sent.saturating_sub(self.next), ..self.faults }
    }

    /// What went wrong so far.
    pub fn faults_so_far(&self) -> Faults {
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(numbers: &[u64], spoil: impl Fn(usize, &mut Vec<u8>)) -> Faults {
        let mut template = Template::new(0, 1, 100).unwrap();
        let mut verifier = Verifier::new(&template);
        for (place, &number) in numbers.iter().enumerate() {
            let mut frame = template.stamp(number).to_vec();
            spoil(place, &mut frame);
            verifier.check(&frame);
        }
        verifier.faults(4)
    }

    #[test]
    fn frames_in_order_have_no_faults() {
        assert_eq!(sent(&[0, 1, 2, 3], |_, _| ()), Faults::default());
    }

    #[test]
    fn lost_frames_are_counted_in_the_middle_and_at_the_end() {
        assert_eq!(sent(&[0, 2, 3], |_, _| ()), Faults { lost: 1, ..Faults::default() });
        assert_eq!(sent(&[0, 1], |_, _| ()), Faults { lost: 2, ..Faults::default() });
        assert_eq!(sent(&[], |_, _| ()), Faults { lost: 4, ..Faults::default() });
    }

    #[test]
    fn late_and_double_frames_are_reordered() {
        assert_eq!(sent(&[0, 2, 1, 3], |_, _| ()), Faults { reordered: 1, ..Faults::default() });
        assert_eq!(sent(&[0, 1, 1, 2, 3], |_, _| ()), Faults { reordered: 1, ..Faults::default() });
    }

    #[test]
    fn every_single_wrong_bit_is_found() {
        for bit in 0..800 {
            let faults = sent(&[0, 1, 2, 3], |place, frame| {
                if place == 3 {
                    frame[bit / 8] ^= 1 << (bit % 8);
                }
            });
            assert!(!faults.is_none(), "bit {bit}");
            assert_eq!(faults.lost, 1, "a spoilt frame does not count as arrived: bit {bit}");
        }
    }

    #[test]
    fn cut_and_grown_frames_are_corrupted() {
        let cut = sent(&[0, 1, 2, 3], |place, frame| frame.truncate(100 - usize::from(place == 0)));
        assert_eq!((cut.corrupted, cut.lost), (1, 1));
        let grown = sent(&[0, 1, 2, 3], |place, frame| frame.resize(100 + usize::from(place == 0), 0));
        assert_eq!((grown.corrupted, grown.lost), (1, 1));
    }

    #[test]
    fn frames_are_valid_ethernet_ipv4_udp() {
        let mut template = Template::new(0, 1, 64).unwrap();
        let packet = etherparse::SlicedPacket::from_ethernet(template.stamp(7)).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
        assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
        assert_eq!(ip.header().total_len(), 50);
        let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
        assert_eq!((udp.destination_port(), udp.length(), udp.checksum()), (TRAFFIC_PORT, 30, 0));
    }

    #[test]
    fn probes_are_no_traffic() {
        let mut verifier = Verifier::new(&Template::new(0, 1, FRAME_LEN_MIN).unwrap());
        verifier.check(Template::probe(0, 1).unwrap().stamp(0));
        assert_eq!((verifier.frames(), verifier.faults(0)), (0, Faults::default()));
    }
}

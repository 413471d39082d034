//! A train: datagrams of one flow that follow each other in a burst, written to the kernel as one frame that it cuts
//! again (USO). One way through the kernel's stack then serves all of them, which is most of what a small one costs: of
//! 64 B datagrams sent from one namespace to another on two cores, 1.5 to 2.7 times as many arrive (medians of 5 runs).
//!
//! What the receiver gets out of the frame is what the datagrams were, byte for byte but for one thing: where all of
//! them have DF set, and so are never fragmented, their identifications are counted on from the first (RFC 6864, 4.1).
//! Only datagrams whose checksum is left to the receiver are coupled: a wrong one is never made right.

use ringyard_dataplane::frame::{Burst, Frame};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offloads, Payload, Sum};
use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4};

/// Body pieces of one train: two each of as many datagrams of 1,472 bytes as fit a packet are 88.
pub(super) const TRAIN_PIECES_MAX: usize = 96;
/// Bytes of the headers, and what the two length fields can say.
const HEADER_LEN_MAX: usize = START_V6 + UDP_LEN;
const PACKET_LEN_MAX: usize = 65_535;
/// Where IP begins, and where UDP does.
const NETWORK: usize = 14;
const START_V4: usize = NETWORK + 20;
const START_V6: usize = NETWORK + 40;
const UDP_LEN: usize = 8;
/// Where the checksum lies in the UDP header.
const CHECKSUM: usize = 6;
const UDP: u8 = 17;

/// Two datagrams or more, coupled.
pub(super) struct Train {
    /// How many of the picks it was made of.
    pub count: usize,
    /// Bytes of their frames.
    pub bytes: usize,
    pub net: [u8; NET_HEADER_LEN],
    header: [u8; HEADER_LEN_MAX],
    header_len: usize,
}

impl Train {
    /// Of as many of the picked frames, from the first on, as can be coupled; `None` if that is one. `receiver` is what
    /// the kernel takes.
    #[inline]
    pub(super) fn of(burst: &Burst<'_>, picks: &[u8], receiver: Offloads) -> Option<Train> {
        let (&first, rest) = picks.split_first()?;
        if rest.is_empty() {
            return None;
        }
        let locomotive = Car::of(&burst.frame(usize::from(first)))?;
        if !receiver.has(locomotive.needs()) {
            return None;
        }
        let (mut count, mut payload_len, mut pieces) = (1, locomotive.payload_len, locomotive.pieces);
        for &pick in rest {
            let Some(car) = Car::of(&burst.frame(usize::from(pick))) else { break };
            payload_len += car.payload_len;
            pieces += car.pieces;
            let fits = locomotive.start + UDP_LEN - NETWORK + payload_len <= PACKET_LEN_MAX
                && pieces <= TRAIN_PIECES_MAX;
            if !fits || !locomotive.couples(&car, count) {
                payload_len -= car.payload_len;
                break;
            }
            count += 1;
            // A shorter one is the last.
            if car.payload_len < locomotive.payload_len {
                break;
            }
        }
        (count > 1).then(|| locomotive.pull(count, payload_len))
    }

    /// All headers of the one frame.
    pub(super) fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }

    /// What `frame`, one of those that were coupled, adds to it.
    pub(super) fn payload<'f>(&self, frame: &Frame<'f>) -> Payload<'f> {
        frame.payload(self.header_len)
    }
}

/// A datagram that may be coupled: whole, with headers that have no options, its checksum left to the receiver.
struct Car<'f> {
    header: &'f [u8],
    /// Where UDP begins.
    start: usize,
    payload_len: usize,
    /// That its payload lies in.
    pieces: usize,
}

impl<'f> Car<'f> {
    #[inline]
    fn of(frame: &Frame<'f>) -> Option<Car<'f>> {
        let offload = frame.offload()?;
        let header = frame.header();
        let start = start(header)?;
        let (packet_len, udp_len) = (frame.len() - NETWORK, frame.len().checked_sub(start)?);
        let told_len = match start {
            START_V4 => usize::from(word(header, NETWORK + 2)?),
            _ => usize::from(word(header, NETWORK + 4)?) + START_V6 - NETWORK,
        };
        let checksum = offload.checksum();
        let fits = offload.segmentation().is_none()
            && (usize::from(checksum.start), usize::from(checksum.offset)) == (start, CHECKSUM)
            && told_len == packet_len
            && usize::from(word(header, start + 4)?) == udp_len
            && udp_len > UDP_LEN;
        let pieces = frame.payload(start + UDP_LEN).pieces().count();
        fits.then_some(Car { header, start, payload_len: udp_len - UDP_LEN, pieces })
    }

    fn needs(&self) -> Offloads {
        Offloads::CHECKSUM.with(if self.start == START_V4 { Offloads::USO4 } else { Offloads::USO6 })
    }

    /// Whether `next` can be number `number` behind this one.
    #[inline]
    fn couples(&self, next: &Car<'_>, number: usize) -> bool {
        let same = |from: usize, to: usize| self.header[from..to] == next.header[from..to];
        let ports = same(self.start, self.start + 4);
        let packets = match self.start {
            START_V4 => {
                const DF: u8 = 0x40;
                let identification = |car: &Car<'_>| word(car.header, NETWORK + 4).unwrap_or_default();
                let follows = identification(next) == identification(self).wrapping_add(number as u16);
                // Up to the length, flags to protocol, the addresses.
                same(0, NETWORK + 2)
                    && same(NETWORK + 6, NETWORK + 10)
                    && same(NETWORK + 12, START_V4)
                    && (follows || self.header[NETWORK + 6] & DF != 0)
            }
            _ => same(0, NETWORK + 4) && same(NETWORK + 6, START_V6),
        };
        self.start == next.start && next.payload_len <= self.payload_len && packets && ports
    }

    /// The train of `count` datagrams behind this one's headers, which together have `payload_len` bytes of payload.
    fn pull(&self, count: usize, payload_len: usize) -> Train {
        let Car { start, .. } = *self;
        let header_len = start + UDP_LEN;
        let udp_len = UDP_LEN + payload_len;
        let mut header = [0; HEADER_LEN_MAX];
        header[..header_len].copy_from_slice(&self.header[..header_len]);
        let addresses = if start == START_V4 {
            put(&mut header, NETWORK + 2, (start - NETWORK + udp_len) as u16);
            put(&mut header, NETWORK + 10, 0);
            let sum = Sum::of(&header[NETWORK..start]).folded();
            put(&mut header, NETWORK + 10, !sum);
            NETWORK + 12
        } else {
            put(&mut header, NETWORK + 4, udp_len as u16);
            NETWORK + 8
        };
        put(&mut header, start + 4, udp_len as u16);
        let mut pseudo = Sum::of(&header[addresses..start]);
        pseudo += Sum::of_word(u16::from(UDP));
        pseudo += Sum::of_word(udp_len as u16);
        put(&mut header, start + CHECKSUM, pseudo.folded());
        let mut net = [0; NET_HEADER_LEN];
        net[..2].copy_from_slice(&[VIRTIO_NET_HDR_F_NEEDS_CSUM as u8, VIRTIO_NET_HDR_GSO_UDP_L4 as u8]);
        let words = [header_len, self.payload_len, start, CHECKSUM];
        for (place, word) in net[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&(word as u16).to_le_bytes());
        }
        Train { count, bytes: count * header_len + payload_len, net, header, header_len }
    }
}

/// Where UDP begins in a packet that is no fragment, and whose IP header is right and has nothing but the usual.
#[inline]
fn start(header: &[u8]) -> Option<usize> {
    match (word(header, 12)?, *header.get(NETWORK)?) {
        (0x0800, 0x45) => {
            let fragment = word(header, NETWORK + 6)? & 0x3fff != 0;
            let whole = header.get(NETWORK..START_V4)?;
            (header[NETWORK + 9] == UDP && !fragment && Sum::of(whole).folded() == 0xffff).then_some(START_V4)
        }
        (0x86dd, 0x60..0x70) => (*header.get(NETWORK + 6)? == UDP).then_some(START_V6),
        _ => None,
    }
}

#[inline]
fn word(header: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?]))
}

fn put(header: &mut [u8], at: usize, word: u16) {
    header[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;

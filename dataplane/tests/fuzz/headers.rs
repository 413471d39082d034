//! Net headers and frames, however they lie.
//!
//! What is taken for an offload must be within the frame, survive being written as a net header, and, where the frame is to
//! be cut, give frames that etherparse finds whole, with right checksums, which together carry the payload.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ringyard_dataplane::frame::{BurstScratch, Frame};
use ringyard_dataplane::offload::{Offload, Offloads, Segments};

const OFFLOADS: [Offloads; 6] =
    [Offloads::CHECKSUM, Offloads::TSO4, Offloads::TSO6, Offloads::ECN, Offloads::USO4, Offloads::USO6];

/// Runs the target: a byte of offloads, a byte that is not used, a net header of ten bytes, and the frame.
pub fn asked(input: &[u8]) {
    let Some((&[wanted, _], rest)) = input.split_first_chunk() else { return };
    let Some((net, frame)) = rest.split_first_chunk::<10>() else { return };
    let chosen = OFFLOADS.iter().enumerate().filter(|(bit, _)| wanted >> bit & 1 == 1);
    let sender = chosen.fold(Offloads::NONE, |all, (_, one)| all.with(*one)).consistent();
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    if builder.push_asking(net, frame, sender).is_err() {
        return;
    }
    let burst = builder.burst();
    let lent = burst.frame(0);
    let mut copy = vec![0; lent.len()];
    assert_eq!(lent.copy_to(&mut copy), Some(frame.len()));
    assert!(copy == frame, "what is lent is what was sent");
    if let Some(offload) = lent.offload() {
        assert!(sender.has(offload.needs()));
        check(offload, &lent, frame);
    }
}

fn check(offload: &Offload, lent: &Frame<'_>, frame: &[u8]) {
    let checksum = offload.checksum();
    let field = usize::from(checksum.start) + usize::from(checksum.offset);
    assert!(field + 2 <= offload.header_len() && offload.header_len() <= lent.header().len());
    let net: [u8; 10] = std::array::from_fn(|at| offload.net_header(1)[at]);
    let again = Offload::parse(&net, lent.header(), frame.len(), Offloads::ALL);
    assert_eq!(again, Ok(Some(*offload)), "as a receiver reads it");
    let mut segments = Segments::of(lent).expect("it has an offload");
    let (count, mut made, mut carried) = (segments.count(), 0, Vec::new());
    while let Some(payload) = segments.next_payload() {
        made += 1;
        let mut bytes = vec![0; payload.len()];
        let sum = payload.copy_to(&mut bytes).expect("there is room");
        let whole = [segments.header(sum), &bytes].concat();
        let len = if made == count { segments.last_len() } else { segments.segment_len() };
        assert_eq!(whole.len(), len);
        if offload.segmentation().is_some() {
            check_segment(&whole);
        }
        carried.extend(bytes);
    }
    assert_eq!(made, count);
    assert!(carried == frame[offload.header_len()..], "all of the payload, in order");
}

/// A frame that was cut off is whole to somebody else, and all of its transport sums up.
fn check_segment(bytes: &[u8]) {
    let packet = SlicedPacket::from_ethernet(bytes).expect("a segment is a frame");
    let (protocol, transport) = match packet.transport.expect("a segment has a transport") {
        TransportSlice::Tcp(tcp) => (6, tcp.slice()),
        TransportSlice::Udp(udp) => (17, udp.slice()),
        other => panic!("{other:?}"),
    };
    let addresses = match packet.net.expect("a segment is an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            // Over its bytes as they are: etherparse leaves out a bit that nobody uses.
            assert_eq!(sum(header.slice()) % 0xffff, 0, "{bytes:x?}");
            [header.source(), header.destination()].concat()
        }
        NetSlice::Ipv6(ip) => [ip.header().source(), ip.header().destination()].concat(),
        other => panic!("{other:?}"),
    };
    let pseudo = [&addresses[..], &[0, protocol], &(transport.len() as u16).to_be_bytes()].concat();
    assert_eq!(sum(&pseudo) % 0xffff, (0xffff - sum(transport) % 0xffff) % 0xffff, "{bytes:x?}");
}

/// Of big-endian words (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into())).sum()
}

/// Runs the target: a frame, which the hub looks at.
pub fn plain(frame: &[u8]) {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    // A frame behind it, and one before it, whose bytes must not show.
    let other = [0x5a; 100];
    builder.push_slice(&other).expect("a frame");
    let pushed = builder.push_slice(frame);
    assert_eq!(pushed.is_ok(), (14..=65_557).contains(&frame.len()));
    builder.push_slice(&other).expect("a frame");
    if pushed.is_err() {
        return;
    }
    let burst = builder.burst();
    let lent = burst.frame(1);
    assert_eq!((lent.len(), lent.header().len()), (frame.len(), frame.len().min(64)));
    assert_eq!((lent.destination().0, lent.source().0), (first(frame), first(&frame[6..])));
    let tagged = frame[12..14] == [0x81, 0];
    let vlan = frame.get(14..16).map_or(0x1000, |tag| u16::from_be_bytes([tag[0], tag[1]]) & 0xfff);
    assert_eq!(lent.vlan(), tagged.then_some(vlan));
    assert_eq!(burst.alike_after(0), if frame.get(..16) == Some(&other[..16]) { 2 } else { 0 });
    let mut copy = vec![0; frame.len() + 1];
    assert_eq!(lent.copy_to(&mut copy), Some(frame.len()));
    assert!(copy[..frame.len()] == *frame && copy[frame.len()] == 0);
}

fn first(bytes: &[u8]) -> [u8; 6] {
    std::array::from_fn(|at| bytes[at])
}

//! virtio-net headers that lie: H01, H03 to H08, H10, H11.

use etherparse::PacketBuilder;

use crate::error::Result;
use crate::hostile::attacker::Setup;
use crate::hostile::bout::Bout;
use crate::hostile::innocents::{ATTACKER, Kind};
use crate::traffic::guest_mac;

/// CSUM, GUEST_CSUM, the TSOs, ECN, UFO and USO, both ways.
pub(super) const OFFLOADS: u64 = 0b11 | 0b1111 << 7 | 0b1111 << 11 | 0b111 << 54;
const NEEDS_CSUM: u8 = 1;
const TCPV4: u8 = 1;
const UDP: u8 = 3;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;
/// Where TCP begins in a frame, and its checksum in TCP.
const TCP_START: u16 = 34;
const TCP_CHECKSUM: u16 = 16;
/// Bytes of all headers of a TCP frame.
const TCP_HEADERS: u16 = 54;

/// A virtio-net header (virtio 1.2, 5.1.6).
pub(super) fn net_header(
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
) -> [u8; 12] {
    let mut header = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, word) in [(2, hdr_len), (4, gso_size), (6, csum_start), (8, csum_offset)] {
        header[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// A TCP frame to the first innocent, with `len` bytes of payload.
pub(super) fn tcp(len: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(guest_mac(ATTACKER).0, guest_mac(0).0)
        .ipv4([10, 0, 0, 3], [10, 0, 0, 1], 64)
        .tcp(1, 2, 3, 4);
    let mut frame = Vec::new();
    // Writing to a vector fails only for lengths that do not fit an IP packet; then the frame is empty, which is seen.
    let _ = builder.write(&mut frame, &vec![0x5a; len]);
    frame
}

/// Sends frames behind headers, by an attacker with every offload that is offered.
fn behind(bout: &mut Bout<'_>, headers: &[(&str, [u8; 12])], frame: &[u8]) -> Result<()> {
    let setup = Setup { features: OFFLOADS, ..Setup::SPLIT };
    for (name, header) in headers {
        bout.sends_with(name, setup, |attacker| {
            let whole = attacker.frame_behind(0, header, frame);
            attacker.post(&[whole]);
        })?;
    }
    Ok(())
}

pub(super) fn checksum(bout: &mut Bout<'_>) -> Result<()> {
    let at = |start: u16, offset: u16| net_header(NEEDS_CSUM, 0, 0, 0, start, offset);
    let frame = Kind::Attack.frame(100);
    behind(
        bout,
        &[
            ("starts beyond the frame", at(101, 0)),
            ("starts at its end", at(100, 0)),
            ("starts far beyond it", at(0xffff, 0)),
            ("ends beyond it", at(90, 10)),
            ("ends one byte beyond it", at(90, 9)),
            ("its offset is far beyond", at(34, 0xffff)),
            ("both wrap", at(0xffff, 0xffff)),
            ("starts in the Ethernet header", at(0, 0)),
            ("starts in the IP header", at(14, 2)),
        ],
        &frame,
    )
}

pub(super) fn kinds(bout: &mut Bout<'_>) -> Result<()> {
    let of = |kind: u8| net_header(NEEDS_CSUM, kind, TCP_HEADERS, 500, TCP_START, TCP_CHECKSUM);
    behind(
        bout,
        &[
            ("2", of(2)),
            ("6", of(6)),
            ("0x7f", of(0x7f)),
            ("0xff", of(0xff)),
            ("ECN alone", of(ECN)),
            ("UDP of a TCP frame", of(UDP)),
            ("USO of a TCP frame", of(UDP_L4)),
            ("IPv6 of an IPv4 frame", of(TCPV6)),
            ("USO and ECN", of(UDP_L4 | ECN)),
        ],
        &tcp(1400),
    )
}

pub(super) fn no_size(bout: &mut Bout<'_>) -> Result<()> {
    let of = |kind: u8, size: u16| net_header(NEEDS_CSUM, kind, TCP_HEADERS, size, TCP_START, TCP_CHECKSUM);
    behind(
        bout,
        &[
            ("TCP", of(TCPV4, 0)),
            ("TCP and ECN", of(TCPV4 | ECN, 0)),
            ("UDP", of(UDP, 0)),
            ("USO", of(UDP_L4, 0)),
            ("segments of one byte", of(TCPV4, 1)),
            ("segments of 65,535 bytes", of(TCPV4, 0xffff)),
        ],
        &tcp(1400),
    )
}

pub(super) fn no_checksum(bout: &mut Bout<'_>) -> Result<()> {
    let of = |flags: u8, kind: u8| net_header(flags, kind, TCP_HEADERS, 500, TCP_START, TCP_CHECKSUM);
    behind(
        bout,
        &[("TCP", of(0, TCPV4)), ("TCP, data valid", of(2, TCPV4)), ("USO", of(0, UDP_L4))],
        &tcp(1400),
    )
}

pub(super) fn header_length(bout: &mut Bout<'_>) -> Result<()> {
    let of = |len: u16| net_header(NEEDS_CSUM, TCPV4, len, 500, TCP_START, TCP_CHECKSUM);
    behind(
        bout,
        &[
            ("0", of(0)),
            ("1", of(1)),
            ("one byte less", of(TCP_HEADERS - 1)),
            ("more than the frame", of(2000)),
            ("65,535", of(0xffff)),
        ],
        &tcp(1400),
    )?;
    let plain = |len: u16| net_header(0, 0, len, 0, 0, 0);
    behind(bout, &[("65,535 of a plain frame", plain(0xffff))], &Kind::Attack.frame(100))
}

pub(super) fn not_negotiated(bout: &mut Bout<'_>) -> Result<()> {
    for (name, header) in [
        ("a checksum", net_header(NEEDS_CSUM, 0, 0, 0, TCP_START, TCP_CHECKSUM)),
        ("TCP segmentation", net_header(NEEDS_CSUM, TCPV4, TCP_HEADERS, 500, TCP_START, TCP_CHECKSUM)),
        ("UDP segmentation", net_header(NEEDS_CSUM, UDP_L4, 42, 500, TCP_START, 6)),
        ("data valid", net_header(2, 0, 0, 0, 0, 0)),
        ("receive-side coalescing", net_header(4, 0, 0, 0, 0, 0)),
    ] {
        bout.sends(name, |attacker| {
            let whole = attacker.frame_behind(0, &header, &tcp(1400));
            attacker.post(&[whole]);
        })?;
    }
    Ok(())
}

pub(super) fn buffers(bout: &mut Bout<'_>) -> Result<()> {
    for count in [1u16, 2, 0xffff] {
        bout.sends(&format!("{count}"), |attacker| {
            let mut header = [0; 12];
            header[10..].copy_from_slice(&count.to_le_bytes());
            let whole = attacker.frame_behind(0, &header, &Kind::Attack.frame(100));
            attacker.post(&[whole]);
        })?;
    }
    Ok(())
}

pub(super) fn larger(bout: &mut Bout<'_>) -> Result<()> {
    for (name, len) in [("with a hash", 20), ("with a hash and more", 24)] {
        bout.sends(name, |attacker| {
            let whole = attacker.frame_behind(0, &vec![0; len], &Kind::Attack.frame(100));
            attacker.post(&[whole]);
        })?;
    }
    bout.sends("the smaller one of old drivers", |attacker| {
        let whole = attacker.frame_behind(0, &[0; 10], &Kind::Attack.frame(100));
        attacker.post(&[whole]);
    })
}

pub(super) fn every_bit(bout: &mut Bout<'_>) -> Result<()> {
    let setup = Setup { features: OFFLOADS, ..Setup::SPLIT };
    for (name, frame) in [("a TCP frame", tcp(1400)), ("a frame of no protocol", Kind::Attack.frame(100))] {
        bout.sends_with(&format!("each bit alone, {name}"), setup, |attacker| {
            for bit in 0..96 {
                let mut header = net_header(NEEDS_CSUM, TCPV4, TCP_HEADERS, 500, TCP_START, TCP_CHECKSUM);
                header[bit / 8] ^= 1 << (bit % 8);
                let whole = attacker.frame_behind(bit as u64, &header, &frame);
                attacker.post(&[whole]);
            }
        })?;
        bout.sends_with(&format!("all bits, {name}"), setup, |attacker| {
            let whole = attacker.frame_behind(0, &[0xff; 12], &frame);
            attacker.post(&[whole]);
        })?;
    }
    Ok(())
}

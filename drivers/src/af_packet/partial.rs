//! The virtio-net header of a frame whose checksum is partial, where the kernel says that it is, but writes no header.

use ringyard_dataplane::offload::NET_HEADER_LEN;
use virtio_bindings::virtio_net::VIRTIO_NET_HDR_F_NEEDS_CSUM;

const IPV6_LEN: usize = 40;
/// VLAN tags that are looked behind.
const TAGS_MAX: usize = 2;
/// IPv6 extension headers that are looked behind.
const EXTENSIONS_MAX: usize = 8;

/// Asks for the checksum of `frame`'s transport; for nothing where that is neither TCP nor UDP.
pub(super) fn net_header(frame: &[u8]) -> [u8; NET_HEADER_LEN] {
    let mut header = [0; NET_HEADER_LEN];
    let Some((start, offset)) = field(frame) else { return header };
    let (Ok(start), true) = (u16::try_from(start), frame.len() >= start + usize::from(offset) + 2) else {
        return header;
    };
    header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..].copy_from_slice(&offset.to_le_bytes());
    header
}

/// Has the checksum of the virtio-net header `net` begin `by` bytes later, if it asks for one.
pub(super) fn move_by(by: u16, net: &mut [u8]) {
    if net[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 != 0 {
        let start = u16::from_le_bytes([net[6], net[7]]).wrapping_add(by);
        net[6..8].copy_from_slice(&start.to_le_bytes());
    }
}

/// Where the transport begins, and where its checksum is from there.
fn field(frame: &[u8]) -> Option<(usize, u16)> {
    let (mut at, mut kind) = (14, word(frame, 12)?);
    for _ in 0..TAGS_MAX {
        if matches!(kind, 0x8100 | 0x88a8) {
            kind = word(frame, at + 2)?;
            at += 4;
        }
    }
    let (start, transport) = match kind {
        0x0800 => (at + usize::from(frame.get(at)? & 0xf) * 4, *frame.get(at + 9)?),
        0x86dd => behind_extensions(frame, at + IPV6_LEN, *frame.get(at + 6)?)?,
        _ => return None,
    };
    match transport {
        6 => Some((start, 16)),
        17 => Some((start, 6)),
        _ => None,
    }
}

fn behind_extensions(frame: &[u8], mut at: usize, mut next: u8) -> Option<(usize, u8)> {
    for _ in 0..EXTENSIONS_MAX {
        // Hop-by-hop options, routing, destination options.
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        (next, at) = (*frame.get(at)?, at + 8 * (1 + usize::from(*frame.get(at + 1)?)));
    }
    Some((at, next))
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, tags: usize, network: &[u8], len: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 5]));
        frame.extend(kind.to_be_bytes());
        frame.extend(network);
        frame.resize(len, 0);
        frame
    }

    fn asked(frame: &[u8]) -> Option<(u16, u16)> {
        let net = net_header(frame);
        assert_eq!(net[1..6], [0; 5]);
        (net[0] == 1).then(|| (u16::from_le_bytes([net[6], net[7]]), u16::from_le_bytes([net[8], net[9]])))
    }

    #[test]
    fn the_field_is_found_behind_tags_options_and_extensions() {
        let v4 = |transport| [0x46, 0, 0, 0, 0, 0, 0, 0, 64, transport];
        assert_eq!(asked(&frame(0x0800, 0, &v4(6), 80)), Some((38, 16)));
        assert_eq!(asked(&frame(0x0800, 2, &v4(17), 80)), Some((46, 6)));
        assert_eq!(asked(&frame(0x0800, 0, &v4(1), 80)), None);
        let mut v6 = [0; 48];
        (v6[0], v6[6], v6[40]) = (0x60, 60, 17);
        assert_eq!(asked(&frame(0x86dd, 1, &v6, 90)), Some((66, 6)));
    }

    #[test]
    fn what_is_cut_or_something_else_asks_for_nothing() {
        let whole = frame(0x0800, 1, &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6], 60);
        assert_eq!(asked(&whole), Some((38, 16)));
        for len in 0..56 {
            assert_eq!(asked(&whole[..len]), None, "{len}");
        }
        assert_eq!(asked(&frame(0x0806, 0, &[], 60)), None);
        assert_eq!(asked(&frame(0x8100, 4, &[], 28)), None);
    }
}

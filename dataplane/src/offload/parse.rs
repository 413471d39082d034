//! From a sender's virtio-net header and the copy of its frame's first bytes to an [`Offload`], or to `malformed`.
//!
//! Of the sender's header only what has to be told is read: flags, type, segment size, and where the checksum lies. That
//! must agree with the frame's own headers, which are parsed here: up to two VLAN tags, IPv4 with options, IPv6 with
//! extension headers, TCP or UDP. `hdr_len` is not believed, and `num_buffers` is for receivers.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use super::{Checksum, NET_HEADER_LEN, Offload, Offloads, SEGMENTS_MAX, SegmentKind, Segmentation};
use crate::drops::DropReason;

/// VLAN tags that are looked behind.
const TAGS_MAX: usize = 2;
/// IPv6 extension headers that are looked behind.
const EXTENSIONS_MAX: usize = 8;
/// Bytes that an IP packet can say that it has.
const IP_LEN_MAX: usize = 65_535;
const IPV6_LEN: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Offload {
    /// What the virtio-net header `net` asks for a frame of `frame_len` bytes that begins with `header`: all of it, or at
    /// least 256 bytes. `sender` is what the sender may ask for. `None`: nothing.
    ///
    /// Errors: [`DropReason::Malformed`] when `net` asks for more than that, or for what does not fit the frame.
    pub fn parse(
        net: &[u8; NET_HEADER_LEN],
        header: &[u8],
        frame_len: usize,
        sender: Offloads,
    ) -> Result<Option<Offload>, DropReason> {
        let word = |at: usize| u16::from_le_bytes([net[at], net[at + 1]]);
        let checksum = Checksum { start: word(6), offset: word(8) };
        let needs_checksum = net[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 != 0;
        let plain = net[1] == VIRTIO_NET_HDR_GSO_NONE as u8;
        let offload = match (needs_checksum, plain) {
            (false, true) => return Ok(None),
            (false, false) => None,
            (true, true) => checksum_only(checksum, header),
            (true, false) => segmentation(net[1], word(4), checksum, header, frame_len),
        };
        match offload {
            Some(offload) if sender.has(offload.needs) => Ok(Some(offload.offload)),
            _ => Err(DropReason::Malformed),
        }
    }
}

/// What was asked, before it is known whether the sender may.
struct Asked {
    offload: Offload,
    needs: Offloads,
}

/// The field lies in the header copy and behind the VLAN tags, which the hub has read already.
fn checksum_only(checksum: Checksum, header: &[u8]) -> Option<Asked> {
    let (network, _) = network(header)?;
    let start = usize::from(checksum.start);
    let end = start + usize::from(checksum.offset) + 2;
    if start < network || end > header.len() {
        return None;
    }
    let header_len = layers(header).map_or(end, |layers| layers.end.max(end)) as u16;
    Some(Asked { offload: Offload { checksum, segmentation: None, header_len }, needs: Offloads::CHECKSUM })
}

fn segmentation(
    gso_type: u8,
    size: u16,
    checksum: Checksum,
    header: &[u8],
    frame_len: usize,
) -> Option<Asked> {
    let layers = layers(header)?;
    let ecn = gso_type & VIRTIO_NET_HDR_GSO_ECN as u8 != 0;
    let kind = kind(gso_type & !(VIRTIO_NET_HDR_GSO_ECN as u8), layers.is_v4)?;
    let (transport, field) = if kind.is_tcp() { (TCP, 16) } else { (UDP, 6) };
    let fits = layers.transport == transport
        && !layers.is_part
        && usize::from(checksum.start) == layers.start
        && checksum.offset == field
        && (kind.is_tcp() || !ecn);
    let ip_len = frame_len - layers.network - if layers.is_v4 { 0 } else { IPV6_LEN };
    let payload = frame_len - layers.end;
    let size_fits = size > 0 && payload.div_ceil(usize::from(size)) <= SEGMENTS_MAX;
    if !fits || !size_fits || ip_len > IP_LEN_MAX {
        return None;
    }
    // What fits one segment is one.
    let several = payload > usize::from(size);
    let segmentation = Segmentation { kind, ecn, size, network: layers.network as u16 };
    let offload =
        Offload { checksum, segmentation: several.then_some(segmentation), header_len: layers.end as u16 };
    Some(Asked { offload, needs: kind.needs().with_if(ecn, Offloads::ECN) })
}

fn kind(gso_type: u8, is_v4: bool) -> Option<SegmentKind> {
    match (u32::from(gso_type), is_v4) {
        (VIRTIO_NET_HDR_GSO_TCPV4, true) => Some(SegmentKind::Tcp4),
        (VIRTIO_NET_HDR_GSO_TCPV6, false) => Some(SegmentKind::Tcp6),
        (VIRTIO_NET_HDR_GSO_UDP_L4, true) => Some(SegmentKind::Udp4),
        (VIRTIO_NET_HDR_GSO_UDP_L4, false) => Some(SegmentKind::Udp6),
        _ => None,
    }
}

/// Where the headers of a TCP or UDP packet lie, all of them in the header copy.
#[derive(Debug, PartialEq, Eq)]
struct Layers {
    is_v4: bool,
    /// Where the IP header begins.
    network: usize,
    transport: u8,
    /// Where the transport's header begins, and where it ends.
    start: usize,
    end: usize,
    /// It can't be cut: a fragment, or a packet that a router is to send on to another address, which is the one that
    /// the pseudo-header has.
    is_part: bool,
}

/// Where the VLAN tags end, and the type of what follows.
fn network(header: &[u8]) -> Option<(usize, u16)> {
    let mut at = 14;
    let mut ether_type = word(header, 12)?;
    for _ in 0..TAGS_MAX {
        if !matches!(ether_type, 0x8100 | 0x88a8) {
            break;
        }
        ether_type = word(header, at + 2)?;
        at += 4;
    }
    Some((at, ether_type))
}

fn layers(header: &[u8]) -> Option<Layers> {
    let layers = match network(header)? {
        (at, 0x0800) => layers_v4(header, at)?,
        (at, 0x86dd) => layers_v6(header, at)?,
        _ => return None,
    };
    let transport_len = match layers.transport {
        TCP => usize::from(header.get(layers.start + 12)? >> 4) * 4,
        UDP => 8,
        _ => return None,
    };
    let end = layers.start + transport_len;
    let whole = end <= header.len() && (layers.transport == UDP || transport_len >= 20);
    whole.then_some(Layers { end, ..layers })
}

fn layers_v4(header: &[u8], network: usize) -> Option<Layers> {
    let version = header.get(network)?;
    let len = usize::from(version & 0x0f) * 4;
    let is_part = word(header, network + 6)? & 0x3fff != 0;
    let transport = *header.get(network + 9)?;
    let start = network + len;
    let fits = version >> 4 == 4 && len >= 20;
    fits.then_some(Layers { is_v4: true, network, transport, start, end: start, is_part })
}

fn layers_v6(header: &[u8], network: usize) -> Option<Layers> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    if header.get(network)? >> 4 != 6 {
        return None;
    }
    let mut transport = *header.get(network + 6)?;
    let (mut start, mut is_part) = (network + IPV6_LEN, false);
    for _ in 0..EXTENSIONS_MAX {
        let len = match transport {
            HOP_BY_HOP | DESTINATION => usize::from(*header.get(start + 1)?) * 8 + 8,
            ROUTING => {
                is_part |= *header.get(start + 3)? != 0;
                usize::from(*header.get(start + 1)?) * 8 + 8
            }
            FRAGMENT => {
                is_part = true;
                8
            }
            _ => break,
        };
        transport = *header.get(start)?;
        start += len;
    }
    Some(Layers { is_v4: false, network, transport, start, end: start, is_part })
}

#[inline]
fn word(header: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?]))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

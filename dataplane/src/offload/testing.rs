//! Frames with offloads, for tests.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::{NET_HEADER_LEN, SegmentKind};

pub(crate) const KINDS: [SegmentKind; 4] =
    [SegmentKind::Tcp4, SegmentKind::Tcp6, SegmentKind::Udp4, SegmentKind::Udp6];

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub kind: SegmentKind,
    pub tags: usize,
    /// Words of 4 bytes of IPv4 options, or IPv6 extension headers of 8 bytes.
    pub extras: usize,
    /// Words of 4 bytes of TCP options.
    pub options: usize,
    pub payload: usize,
}

impl Shape {
    pub(crate) fn of(kind: SegmentKind, payload: usize) -> Shape {
        Shape { kind, tags: 0, extras: 0, options: 0, payload }
    }
}

/// A frame whose checksum is partial.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub bytes: Vec<u8>,
    pub network: usize,
    pub start: usize,
    pub header_len: usize,
    kind: SegmentKind,
}

impl Sample {
    pub(crate) fn new(shape: Shape) -> Sample {
        let Shape { kind, tags, extras, options, payload } = shape;
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in 0..tags {
            bytes.extend(if tags == 2 && tag == 0 { [0x88, 0xa8, 0, 7] } else { [0x81, 0, 0, 5] });
        }
        let transport_len = if kind.is_tcp() { 20 + 4 * options } else { 8 };
        let ip_payload = transport_len + payload;
        let network = bytes.len() + 2;
        let protocol = if kind.is_tcp() { 6 } else { 17 };
        if kind.is_v4() {
            bytes.extend(ipv4(extras, protocol, ip_payload));
        } else {
            bytes.extend(ipv6(extras, protocol, ip_payload));
        }
        let start = bytes.len();
        bytes.extend([0x12, 0x34, 0x56, 0x78]);
        if kind.is_tcp() {
            bytes.extend([
                0xff,
                0xff,
                0xfe,
                0,
                1,
                2,
                3,
                4,
                ((5 + options) as u8) << 4,
                0x99,
                1,
                0,
                0,
                0,
                0,
                0,
            ]);
            bytes.extend(std::iter::repeat_n(1, 4 * options));
        } else {
            bytes.extend((ip_payload as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        let header_len = bytes.len();
        bytes.extend((0..payload).map(|i| (i * 7 + i / 251) as u8));
        let mut sample = Sample { bytes, network, start, header_len, kind };
        let pseudo = sample.pseudo(protocol, ip_payload);
        let field = start + usize::from(sample.field());
        sample.bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        sample
    }

    /// From the start of the transport header to its checksum.
    pub(crate) fn field(&self) -> u16 {
        if self.kind.is_tcp() { 16 } else { 6 }
    }

    /// Asks for the checksum alone.
    pub(crate) fn net_checksum(&self) -> [u8; NET_HEADER_LEN] {
        net(1, 0, 0, 0, self.start as u16, self.field())
    }

    /// Asks for segments of `size`.
    pub(crate) fn net_segments(&self, size: u16, ecn: bool) -> [u8; NET_HEADER_LEN] {
        let gso_type = self.kind.gso_type() | if ecn { 0x80 } else { 0 };
        net(1, gso_type, 0xdead, size, self.start as u16, self.field())
    }

    fn pseudo(&self, protocol: u8, len: usize) -> u16 {
        let addresses = if self.kind.is_v4() { 12..20 } else { 8..40 };
        let addresses = &self.bytes[self.network..][addresses];
        let words = addresses.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum::<u32>() + u32::from(protocol) + len as u32;
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

/// A virtio-net header of 10 bytes.
pub(crate) fn net(
    flags: u8,
    gso_type: u8,
    header_len: u16,
    size: u16,
    start: u16,
    offset: u16,
) -> [u8; NET_HEADER_LEN] {
    let mut net = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
    for (place, word) in net[2..].chunks_mut(2).zip([header_len, size, start, offset]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    net
}

fn ipv4(options: usize, protocol: u8, payload: usize) -> Vec<u8> {
    let len = 20 + 4 * options;
    let total = ((len + payload) as u16).to_be_bytes();
    let mut bytes =
        vec![8, 0, 0x40 | (len / 4) as u8, 0, total[0], total[1], 0xff, 0xfe, 0x40, 0, 64, protocol];
    bytes.extend([0, 0, 10, 1, 2, 3, 10, 4, 5, 6]);
    bytes.extend(std::iter::repeat_n(1, 4 * options));
    let header = etherparse::Ipv4Header::from_slice(&bytes[2..]).unwrap().0;
    bytes[12..14].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    bytes
}

/// The extension headers are all of destination options, after one of hop-by-hop options.
fn ipv6(extensions: usize, protocol: u8, payload: usize) -> Vec<u8> {
    let len = ((8 * extensions + payload) as u16).to_be_bytes();
    let kind = |place: usize| match place {
        _ if place == extensions => protocol,
        0 => 0,
        _ => 60,
    };
    let mut bytes = vec![0x86, 0xdd, 0x60, 0, 0, 0, len[0], len[1], kind(0), 64];
    bytes.extend((0..32).map(|i| 0xe0 + i));
    for place in 0..extensions {
        bytes.extend([kind(place + 1), 0, 1, 4, 0, 0, 0, 0]);
    }
    bytes
}

/// What etherparse finds in a whole, correct frame.
pub(crate) struct Found {
    pub payload: Vec<u8>,
    pub sequence: u32,
    pub flags: u8,
    pub identification: u16,
}

/// Panics when the frame is not whole and correct.
pub(crate) fn check(frame: &[u8]) -> Found {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (mut identification, mut is_v4) = (0, false);
    let addresses = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "of the IPv4 header");
            (identification, is_v4) = (header.identification, true);
            (header.source.to_vec(), header.destination.to_vec())
        }
        NetSlice::Ipv6(ip) => (ip.header().source().to_vec(), ip.header().destination().to_vec()),
        other => panic!("{other:?}"),
    };
    let array4 = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).unwrap();
    let array6 = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).unwrap();
    let (source, destination) = addresses;
    let (payload, sequence, flags, has, wants);
    match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            wants = if is_v4 {
                tcp.calc_checksum_ipv4(array4(&source), array4(&destination)).unwrap()
            } else {
                tcp.calc_checksum_ipv6(array6(&source), array6(&destination)).unwrap()
            };
            (payload, sequence, flags, has) =
                (tcp.payload().to_vec(), tcp.sequence_number(), tcp.header_slice()[13], tcp.checksum());
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
            let header = udp.to_header();
            wants = if is_v4 {
                header.calc_checksum_ipv4_raw(array4(&source), array4(&destination), udp.payload()).unwrap()
            } else {
                header.calc_checksum_ipv6_raw(array6(&source), array6(&destination), udp.payload()).unwrap()
            };
            (payload, sequence, flags, has) = (udp.payload().to_vec(), 0, 0, udp.checksum());
        }
        other => panic!("{other:?}"),
    }
    assert!(has != 0 && (has == wants || (has, wants) == (0xffff, 0)), "checksum {has:#x} for {wants:#x}");
    Found { payload, sequence, flags, identification }
}

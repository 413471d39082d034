//! Offloads: what a sender leaves to its receiver, and what is done for a receiver that does not take it.
//!
//! A sender's virtio-net header (virtio 1.2, 5.1.6) is parsed and checked against the copy of the frame's first bytes
//! ([`Offload::parse`]); what it lies about makes the frame `malformed`. A receiver that negotiated what an [`Offload`]
//! asks gets the frame whole behind a net header made of what we parsed ([`Offload::net_header`]); no sender's header is
//! ever passed on. For any other receiver [`Segments`] makes frames that ask for nothing.

mod checksum;
mod parse;
mod payload;
mod segment;
#[cfg(test)]
pub(crate) mod testing;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

pub use checksum::Sum;
pub use payload::{Payload, Pieces};
pub use segment::Segments;

/// Bytes of the virtio-net header without `num_buffers`: the form that a kernel's tap has.
pub const NET_HEADER_LEN: usize = 10;
/// Segments that one frame may be cut into; a sender whose segments are so small that there would be more gets
/// `malformed`. At the longest frame they are 64 bytes.
pub const SEGMENTS_MAX: usize = 1024;

/// A set of offloads: what a receiver negotiated, or what a sender may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u8);

impl Offloads {
    /// None.
    pub const NONE: Offloads = Offloads(0);
    /// VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM: the checksum of the transport is partial.
    pub const CHECKSUM: Offloads = Offloads(1);
    /// VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4: TCP over IPv4 to be segmented.
    pub const TSO4: Offloads = Offloads(1 << 1);
    /// VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6: TCP over IPv6 to be segmented.
    pub const TSO6: Offloads = Offloads(1 << 2);
    /// VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_ECN: TCP to be segmented whose CWR flag is set.
    pub const ECN: Offloads = Offloads(1 << 3);
    /// VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4: UDP over IPv4 to be segmented.
    pub const USO4: Offloads = Offloads(1 << 4);
    /// VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO6: UDP over IPv6 to be segmented.
    pub const USO6: Offloads = Offloads(1 << 5);
    /// All.
    pub const ALL: Offloads = Offloads((1 << 6) - 1);

    /// These and `others`.
    #[inline]
    pub const fn with(self, others: Offloads) -> Offloads {
        Offloads(self.0 | others.0)
    }

    /// These, and `others` too if `wanted`.
    pub const fn with_if(self, wanted: bool, others: Offloads) -> Offloads {
        if wanted { self.with(others) } else { self }
    }

    /// These but `others`.
    pub const fn without(self, others: Offloads) -> Offloads {
        Offloads(self.0 & !others.0)
    }

    /// Whether all of `others` are among these.
    #[inline]
    pub const fn has(self, others: Offloads) -> bool {
        self.0 & others.0 == others.0
    }

    /// What these amount to: none is of use without [`Self::CHECKSUM`], nor [`Self::ECN`] without TSO (virtio 1.2,
    /// 5.1.3.1).
    pub const fn consistent(self) -> Offloads {
        if !self.has(Offloads::CHECKSUM) {
            return Offloads::NONE;
        }
        let tso = self.has(Offloads::TSO4) || self.has(Offloads::TSO6);
        if tso { self } else { self.without(Offloads::ECN) }
    }
}

/// What one frame asks of its receiver, found true. Only [`Self::parse`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    checksum: Checksum,
    segmentation: Option<Segmentation>,
    /// Bytes up to the end of the transport header as we parsed it; of an unknown transport, to the end of the field.
    header_len: u16,
}

/// A checksum to complete: the sum of all bytes from `start` on goes to the 2 bytes at `start + offset`, where the sum of
/// the pseudo-header stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// From the frame's first byte; not before the end of its VLAN tags.
    pub start: u16,
    /// From `start`.
    pub offset: u16,
}

/// A frame to be cut into several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What is cut.
    pub kind: SegmentKind,
    /// The TCP header has CWR set, which belongs to the first segment only.
    pub ecn: bool,
    /// Bytes of payload in each segment, at least 1; the last one may have less. The frame has more.
    pub size: u16,
    /// Where the IP header begins.
    network: u16,
}

/// What protocols a frame to be cut has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl SegmentKind {
    fn is_tcp(self) -> bool {
        matches!(self, SegmentKind::Tcp4 | SegmentKind::Tcp6)
    }

    fn is_v4(self) -> bool {
        matches!(self, SegmentKind::Tcp4 | SegmentKind::Udp4)
    }

    /// What a receiver needs to take it whole.
    fn needs(self) -> Offloads {
        Offloads::CHECKSUM.with(match self {
            SegmentKind::Tcp4 => Offloads::TSO4,
            SegmentKind::Tcp6 => Offloads::TSO6,
            SegmentKind::Udp4 => Offloads::USO4,
            SegmentKind::Udp6 => Offloads::USO6,
        })
    }

    fn gso_type(self) -> u8 {
        (match self {
            SegmentKind::Tcp4 => VIRTIO_NET_HDR_GSO_TCPV4,
            SegmentKind::Tcp6 => VIRTIO_NET_HDR_GSO_TCPV6,
            SegmentKind::Udp4 | SegmentKind::Udp6 => VIRTIO_NET_HDR_GSO_UDP_L4,
        }) as u8
    }
}

impl Offload {
    /// The checksum to complete.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// How to cut the frame, if it is to be cut.
    pub fn segmentation(&self) -> Option<Segmentation> {
        self.segmentation
    }

    /// Bytes of all headers, from the frame's first byte to the end of the transport's. Not more than the header copy.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// How many frames stand for one of `frame_len` bytes at a receiver that takes no offload: 1 to [`SEGMENTS_MAX`].
    #[inline]
    pub(crate) fn segments(&self, frame_len: usize) -> usize {
        let payload = frame_len - self.header_len();
        self.segmentation.map_or(1, |cut| payload.div_ceil(usize::from(cut.size)))
    }

    /// What a receiver must have negotiated to get the frame as it is.
    #[inline]
    pub fn needs(&self) -> Offloads {
        match self.segmentation {
            None => Offloads::CHECKSUM,
            Some(Segmentation { kind, ecn, .. }) => kind.needs().with_if(ecn, Offloads::ECN),
        }
    }

    /// The virtio-net header for a receiver that has what the frame [needs](Self::needs), in front of a frame that fills
    /// `buffers` buffers. Its first [`NET_HEADER_LEN`] bytes are the form without `num_buffers`.
    #[inline]
    pub fn net_header(&self, buffers: u16) -> [u8; 12] {
        let (gso_type, size) = match self.segmentation {
            None => (VIRTIO_NET_HDR_GSO_NONE as u8, 0),
            Some(Segmentation { kind, ecn, size, .. }) => {
                (kind.gso_type() | if ecn { VIRTIO_NET_HDR_GSO_ECN as u8 } else { 0 }, size)
            }
        };
        let mut header = [0; 12];
        header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        header[1] = gso_type;
        let words = [self.header_len, size, self.checksum.start, self.checksum.offset, buffers];
        for (place, word) in header[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }
}

/// Whether the first bytes of a virtio-net header ask for nothing. Flags that are hints to receivers, and those that
/// nobody negotiated, are noise.
#[inline]
pub fn is_plain([flags, gso_type, ..]: [u8; 8]) -> bool {
    flags & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 == 0 && gso_type == VIRTIO_NET_HDR_GSO_NONE as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_without_checksum_are_none() {
        assert_eq!(Offloads::ALL.without(Offloads::CHECKSUM).consistent(), Offloads::NONE);
        assert_eq!(Offloads::ALL.consistent(), Offloads::ALL);
        let ecn = Offloads::CHECKSUM.with(Offloads::ECN);
        assert_eq!(ecn.consistent(), Offloads::CHECKSUM);
        assert_eq!(ecn.with(Offloads::TSO6).consistent(), ecn.with(Offloads::TSO6));
        assert_eq!(Offloads::NONE.with_if(false, Offloads::ALL), Offloads::NONE);
    }

    #[test]
    fn hints_alone_are_plain() {
        assert!(is_plain([0; 8]));
        assert!(is_plain([0xfe, 0, 1, 2, 3, 4, 5, 6]), "only NEEDS_CSUM asks for something");
        assert!(!is_plain([1, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!is_plain([0, 0x80, 0, 0, 0, 0, 0, 0]), "ECN alone is no type");
    }
}

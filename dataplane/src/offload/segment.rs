//! What a receiver gets that does not take a frame's offload: the frame with its checksum complete, or its segments.
//!
//! Each of them is a header, rebuilt here from the header copy, and a stretch of the lent payload. The payload comes
//! first, because its sum goes into the header: a ring copies and sums it in one pass, a tap sums it before it writes.
//! TCP is cut as RFC 9293 and RFC 3168 have it (sequence numbers; FIN and PSH on the last segment, CWR on the first),
//! UDP into datagrams of their own, and every IPv4 packet has the next identification (RFC 6864).

use super::{Offload, Payload, SegmentKind, Segmentation, Sum};
use crate::frame::{Frame, OFFLOAD_HEADER_LEN};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
const IPV6_LEN: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The frames that stand for one frame with an offload.
pub struct Segments<'f> {
    offload: &'f Offload,
    /// That of the current one, but for the checksum.
    header: [u8; OFFLOAD_HEADER_LEN],
    rest: Payload<'f>,
    len: usize,
    next: usize,
    template: Template,
}

/// What all segments share, and what they count from.
#[derive(Default)]
struct Template {
    /// Of the addresses, which the checksum covers.
    addresses: Sum,
    identification: u16,
    sequence: u32,
    flags: u8,
}

impl<'f> Segments<'f> {
    /// Of `frame`; `None` when it has no offload.
    pub fn of(frame: &Frame<'f>) -> Option<Segments<'f>> {
        let offload = frame.offload()?;
        let headers = &frame.header()[..offload.header_len()];
        let mut header = [0; OFFLOAD_HEADER_LEN];
        header[..headers.len()].copy_from_slice(headers);
        let template = offload.segmentation.map(|cut| Template::new(&cut, offload, headers));
        Some(Segments {
            offload,
            header,
            rest: frame.payload(headers.len()),
            len: frame.len(),
            next: 0,
            template: template.unwrap_or_default(),
        })
    }

    /// How many there are, from 1 to [`super::SEGMENTS_MAX`].
    pub fn count(&self) -> usize {
        self.offload.segments(self.len)
    }

    /// Bytes of each but the last.
    pub fn segment_len(&self) -> usize {
        match self.offload.segmentation {
            Some(cut) => self.offload.header_len() + usize::from(cut.size),
            None => self.len,
        }
    }

    /// Bytes of the last.
    pub fn last_len(&self) -> usize {
        let before = (self.count() - 1) * (self.segment_len() - self.offload.header_len());
        self.len - before
    }

    /// Bytes of each one's headers.
    pub fn header_len(&self) -> usize {
        self.offload.header_len()
    }

    /// The payload of the next one, whose header [`Self::header`] then makes.
    pub fn next_payload(&mut self) -> Option<Payload<'f>> {
        if self.next == self.count() {
            return None;
        }
        let Some(cut) = self.offload.segmentation else {
            self.next = 1;
            return Some(self.rest.take(self.len));
        };
        let payload = self.rest.take(usize::from(cut.size));
        let is_last = self.next + 1 == self.count();
        self.describe(&cut, payload.len(), is_last);
        self.next += 1;
        Some(payload)
    }

    /// The header of the one whose payload was last given and has the sum `payload`.
    pub fn header(&mut self, payload: Sum) -> &[u8] {
        let start = usize::from(self.offload.checksum.start);
        let field = start + usize::from(self.offload.checksum.offset);
        let header = &mut self.header[..self.offload.header_len()];
        let mut sum = Sum::of(&header[start..]);
        sum += payload;
        put(header, field, sum.checksum());
        header
    }

    /// Says in all headers what a segment with `payload` bytes is. The sum of the pseudo-header goes where the checksum
    /// is to stand.
    fn describe(&mut self, cut: &Segmentation, payload: usize, is_last: bool) {
        let (network, start) = (usize::from(cut.network), usize::from(self.offload.checksum.start));
        let header = &mut self.header[..self.offload.header_len()];
        let transport_len = header.len() - start + payload;
        if cut.kind.is_v4() {
            put(header, network + 2, (start - network + transport_len) as u16);
            put(header, network + 4, self.template.identification.wrapping_add(self.next as u16));
            put(header, network + 10, 0);
            let sum = Sum::of(&header[network..start]);
            put(header, network + 10, !sum.folded());
        } else {
            put(header, network + 4, (start - network - IPV6_LEN + transport_len) as u16);
        }
        let mut pseudo = self.template.addresses;
        if cut.kind.is_tcp() {
            let done = (self.next * usize::from(cut.size)) as u32;
            let sequence = self.template.sequence.wrapping_add(done);
            header[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            let not_last = if is_last { 0 } else { FIN | PSH };
            let not_first = if self.next == 0 { 0 } else { CWR };
            header[start + 13] = self.template.flags & !not_last & !not_first;
            pseudo += Sum::of_length(TCP, transport_len);
        } else {
            put(header, start + 4, transport_len as u16);
            pseudo += Sum::of_length(UDP, transport_len);
        }
        put(header, start + usize::from(self.offload.checksum.offset), pseudo.folded());
    }
}

impl Template {
    fn new(cut: &Segmentation, offload: &Offload, header: &[u8]) -> Template {
        let (network, start) = (usize::from(cut.network), usize::from(offload.checksum.start));
        let addresses = if cut.kind.is_v4() { network + 12..network + 20 } else { network + 8..network + 40 };
        let (mut sequence, mut flags) = (0, 0);
        if cut.kind.is_tcp() {
            let at = start + 4;
            sequence = u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            flags = header[start + 13];
        }
        let identification = match cut.kind {
            SegmentKind::Tcp4 | SegmentKind::Udp4 => {
                u16::from_be_bytes([header[network + 4], header[network + 5]])
            }
            SegmentKind::Tcp6 | SegmentKind::Udp6 => 0,
        };
        Template { addresses: Sum::of(&header[addresses]), identification, sequence, flags }
    }
}

fn put(header: &mut [u8], at: usize, word: u16) {
    header[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;

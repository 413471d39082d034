//! Frames for a receiver whose buffers are small: each frame, or each of the segments that stand for it, is copied over
//! as many buffers of a fixed length as it needs, once.

use ringyard_dataplane::frame::Frame;
use ringyard_dataplane::offload::{Offloads, Payload, Segments};

use crate::sys::vector::{Room, Vector, Vectors};

/// What a receiver takes, and in what form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Offloads that it takes as they are; the others are done before.
    pub(crate) offloads: Offloads,
    /// Bytes of virtio-net header in front of each frame: 0, 10 or 12.
    pub(crate) net_header_len: usize,
    /// Bytes of a buffer, more than the net header's.
    pub(crate) buffer_len: usize,
}

/// How much of a receiver one frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Frames that stand for it.
    pub(crate) frames: usize,
    /// Buffers for all of them.
    pub(crate) buffers: usize,
    /// Buffers for the longest of them.
    pub(crate) longest: usize,
    /// Bytes of the longest of them, without a net header.
    pub(crate) len: usize,
}

impl Form {
    /// What `frame` needs.
    pub(crate) fn needs(&self, frame: &Frame<'_>) -> Needs {
        match self.segments(frame) {
            None => {
                let (len, buffers) = (frame.len(), self.buffers(frame.len()));
                Needs { frames: 1, buffers, longest: buffers, len }
            }
            Some(segments) => {
                let (frames, last) = (segments.count(), self.buffers(segments.last_len()));
                // That of a frame that is one segment is said to be longer than it is.
                let len = if frames > 1 { segments.segment_len() } else { segments.last_len() };
                let longest = self.buffers(len);
                Needs { frames, buffers: (frames - 1) * longest + last, longest, len }
            }
        }
    }

    /// Gives `send` all that stands for `frame`, in order.
    pub(crate) fn each(&self, frame: &Frame<'_>, mut send: impl FnMut(Bytes<'_>)) {
        // Of 12 bytes, the last two say that it is one buffer.
        let net = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let Some(mut segments) = self.segments(frame) else {
            let header = frame.header();
            let net = frame.offload().map_or(net, |offload| offload.net_header(1));
            return send(self.bytes(&net, header, frame.payload(header.len())));
        };
        while let Some(payload) = segments.next_payload() {
            send(self.bytes(&net, segments.header(payload.sum()), payload));
        }
    }

    /// What must be made of `frame`: `None`, nothing.
    fn segments<'f>(&self, frame: &Frame<'f>) -> Option<Segments<'f>> {
        let taken = |needs| self.net_header_len > 0 && self.offloads.has(needs);
        frame.offload().filter(|offload| !taken(offload.needs())).and_then(|_| Segments::of(frame))
    }

    fn buffers(&self, frame_len: usize) -> usize {
        (self.net_header_len + frame_len).div_ceil(self.buffer_len)
    }

    fn bytes<'f>(&self, net: &'f [u8; NET_HEADER_MAX], header: &'f [u8], payload: Payload<'f>) -> Bytes<'f> {
        let len = self.net_header_len + header.len() + payload.len();
        let net = &net[..self.net_header_len];
        Bytes { front: [net, header], rest: Vector::all_of(&payload), here: Vector::EMPTY, len }
    }
}

/// The bytes of one frame as its receiver is to get them, taken off buffer by buffer.
pub(crate) struct Bytes<'f> {
    /// What comes before the pieces; empty when taken.
    front: [&'f [u8]; 2],
    rest: Vectors<'f>,
    /// What is left of the stretch that was begun.
    here: Vector<'f>,
    /// Of all that is left.
    len: usize,
}

impl Bytes<'_> {
    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the next bytes off, as many as there is room for, and copies them there. Returns how many.
    #[inline]
    pub(crate) fn copy(&mut self, mut room: Room<'_>) -> usize {
        let before = room.len();
        while room.len() > 0 {
            if self.here.len() == 0 && !self.begin() {
                break;
            }
            room.take(&mut self.here);
        }
        let copied = before - room.len();
        self.len -= copied;
        copied
    }

    /// Goes on to the next stretch that has bytes.
    fn begin(&mut self) -> bool {
        for front in &mut self.front {
            let bytes = std::mem::take(front);
            if !bytes.is_empty() {
                self.here = Vector::of(bytes);
                return true;
            }
        }
        let Some(vector) = self.rest.next() else { return false };
        self.here = vector;
        true
    }
}

/// Bytes of the longest virtio-net header.
const NET_HEADER_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use ringyard_dataplane::frame::{BurstScratch, FRAME_LEN_MAX};

    use crate::testing::lend_pieces;

    /// What a receiver of that form gets of a frame in pieces, buffer by buffer, and what it needs for it.
    fn sent(form: Form, net: [u8; 10], frame: &[u8], cuts: usize) -> (Vec<Vec<Vec<u8>>>, Needs) {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        lend_pieces(&mut builder, &net, &frame.chunks(cuts).collect::<Vec<_>>());
        let burst = builder.burst();
        let mut frames = Vec::new();
        form.each(&burst.frame(0), |mut bytes| {
            let mut buffers = Vec::new();
            while bytes.len() > 0 {
                let mut buffer = vec![0; form.buffer_len];
                let len = bytes.copy(Room::of(&mut buffer));
                buffer.truncate(len);
                buffers.push(buffer);
            }
            frames.push(buffers);
        });
        (frames, form.needs(&burst.frame(0)))
    }

    fn check(frames: &[Vec<Vec<u8>>], needs: Needs, buffer_len: usize) {
        assert_eq!(frames.len(), needs.frames);
        assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), needs.buffers);
        assert_eq!(frames.iter().map(Vec::len).max(), Some(needs.longest));
        for buffers in frames {
            let (_, full) = buffers.split_last().unwrap();
            assert!(full.iter().all(|buffer| buffer.len() == buffer_len));
        }
    }

    #[test]
    fn whole_frame_fills_buffer_after_buffer() {
        for len in [14, 63, 64, 65, 4095, 4096, 4097, 8192, FRAME_LEN_MAX] {
            let frame: Vec<u8> = (0..len).map(|at| at as u8).collect();
            for net_header_len in [0, 10, 12] {
                for cuts in [1500, 3840, 70_000] {
                    let form = Form { offloads: Offloads::ALL, net_header_len, buffer_len: 4096 };
                    let (frames, needs) = sent(form, [0; 10], &frame, cuts);
                    check(&frames, needs, 4096);
                    assert_eq!(frames.len(), 1);
                    let whole = frames[0].concat();
                    assert_eq!(
                        whole[..net_header_len],
                        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..net_header_len]
                    );
                    assert_eq!(whole[net_header_len..], frame);
                }
            }
        }
    }

    /// A UDP frame over IPv4 with `payload` bytes, and the net header that asks for datagrams of `size` bytes.
    fn datagrams(payload: usize, size: u8) -> ([u8; 10], Vec<u8>) {
        let mut frame = vec![7; 42 + payload];
        (frame[12], frame[13], frame[14], frame[20], frame[21], frame[23]) = (8, 0, 0x45, 0, 0, 17);
        ([1, 5, 0, 0, size, 0, 34, 0, 6, 0], frame)
    }

    #[test]
    fn segments_begin_a_buffer_each() {
        let (net, frame) = datagrams(250, 100);
        let form = Form { offloads: Offloads::NONE, net_header_len: 0, buffer_len: 64 };
        let (frames, needs) = sent(form, net, &frame, 70_000);
        check(&frames, needs, 64);
        let lens: Vec<usize> = frames.iter().map(|buffers| buffers.concat().len()).collect();
        assert_eq!(lens, [142, 142, 92]);
        assert_eq!(needs, Needs { frames: 3, buffers: 3 + 3 + 2, longest: 3, len: 142 });
    }

    #[test]
    fn receiver_of_offloads_gets_the_frame_whole_behind_its_net_header() {
        let (net, frame) = datagrams(250, 100);
        let form = Form { offloads: Offloads::ALL, net_header_len: 12, buffer_len: 2048 };
        let (frames, needs) = sent(form, net, &frame, 70_000);
        check(&frames, needs, 2048);
        let whole = frames[0].concat();
        assert_eq!((whole.len(), whole[0], whole[1]), (12 + frame.len(), 1, 5));
        assert_eq!(whole[10..12], [1, 0], "one buffer");
        let without = Form { net_header_len: 0, ..form };
        assert_eq!(sent(without, net, &frame, 70_000).0.len(), 3, "nobody could say what it asks");
    }

    #[test]
    fn checksum_alone_is_one_frame() {
        let (mut net, frame) = datagrams(250, 0);
        net[1] = 0;
        let form = Form { offloads: Offloads::NONE, net_header_len: 0, buffer_len: 4096 };
        let (frames, needs) = sent(form, net, &frame, 70_000);
        assert_eq!(needs, Needs { frames: 1, buffers: 1, longest: 1, len: frame.len() });
        assert_ne!(frames[0][0][40..42], frame[40..42], "the checksum is complete");
        assert_eq!(frames[0][0][42..], frame[42..]);
    }
}

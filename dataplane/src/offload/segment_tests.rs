use super::super::testing::{Found, KINDS, Sample, Shape, check};
use super::super::{Offloads, SEGMENTS_MAX};
use super::*;
use crate::frame::BurstScratch;
use proptest::prelude::*;

/// All frames that stand for the one in `bytes`.
fn segments(bytes: &[u8], net: &[u8; 10]) -> Vec<Vec<u8>> {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_asking(net, bytes, Offloads::ALL).unwrap();
    let burst = builder.burst();
    let mut segments = Segments::of(&burst.frame(0)).unwrap();
    let (count, len, last_len) = (segments.count(), segments.segment_len(), segments.last_len());
    let mut all: Vec<Vec<u8>> = Vec::new();
    while let Some(payload) = segments.next_payload() {
        let mut bytes = segments.header(payload.sum()).to_vec();
        assert_eq!(bytes.len(), segments.header_len());
        for piece in payload.pieces() {
            // SAFETY: the piece is part of `bytes`, or of the burst's scratch memory.
            #[allow(unsafe_code)]
            bytes.extend(unsafe { std::slice::from_raw_parts(piece.start(), piece.len()) });
        }
        all.push(bytes);
    }
    assert_eq!(all.len(), count);
    assert!(all[..count - 1].iter().all(|segment| segment.len() == len));
    assert_eq!(all[count - 1].len(), last_len);
    all
}

#[test]
fn frame_without_offload_has_no_segments() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 100));
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_asking(&[0; 10], &sample.bytes, Offloads::ALL).unwrap();
    assert!(Segments::of(&builder.burst().frame(0)).is_none());
}

#[test]
fn flags_stand_where_they_belong() {
    let mut sample = Sample::new(Shape::of(SegmentKind::Tcp4, 2500));
    sample.bytes[sample.start + 13] = 0xff;
    let flags: Vec<u8> = segments(&sample.bytes, &sample.net_segments(1000, true))
        .iter()
        .map(|segment| check(segment).flags)
        .collect();
    assert_eq!(flags, [!FIN & !PSH, !FIN & !PSH & !CWR, !CWR]);
}

#[test]
fn sequence_and_identification_wrap() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 2500));
    let found: Vec<Found> =
        segments(&sample.bytes, &sample.net_segments(1000, false)).iter().map(|s| check(s)).collect();
    let numbers: Vec<_> = found.iter().map(|found| (found.sequence, found.identification)).collect();
    assert_eq!(numbers, [(0xffff_fe00, 0xfffe), (0x1e8, 0xffff), (0x5d0, 0)]);
}

#[test]
fn most_segments_are_cut() {
    let sample = Sample::new(Shape::of(SegmentKind::Udp6, SEGMENTS_MAX));
    let all = segments(&sample.bytes, &sample.net_segments(1, false));
    assert_eq!(all.len(), SEGMENTS_MAX);
    all.iter().for_each(|segment| assert_eq!(check(segment).payload.len(), 1));
}

#[test]
fn zero_checksum_of_udp_is_sent_as_ones() {
    let mut sample = Sample::new(Shape::of(SegmentKind::Udp4, 2));
    let before = segments(&sample.bytes, &sample.net_checksum()).remove(0);
    let field = sample.start + 6;
    // What the checksum is now, the payload makes up for.
    let checksum = u16::from_be_bytes([before[field], before[field + 1]]);
    let payload = u16::from_be_bytes([before[sample.header_len], before[sample.header_len + 1]]);
    let sum = Sum::of(&[payload.to_be_bytes(), checksum.to_be_bytes()].concat()).folded();
    sample.bytes[sample.header_len..].copy_from_slice(&sum.to_be_bytes());
    let after = segments(&sample.bytes, &sample.net_checksum()).remove(0);
    assert_eq!(after[field..field + 2], [0xff, 0xff]);
    check(&after);
}

proptest! {
    #[test]
    fn segments_are_correct_frames_and_make_up_the_payload(
        kind in prop::sample::select(&KINDS),
        tags in 0usize..3,
        (extras, options) in (0usize..8, 0usize..10),
        payload in 0usize..20_000,
        size in 1u16..4_000,
    ) {
        let size = size.max(payload.div_ceil(SEGMENTS_MAX) as u16);
        let sample = Sample::new(Shape { kind, tags, extras, options, payload });
        let all = segments(&sample.bytes, &sample.net_segments(size, false));
        let mut whole = Vec::new();
        for (place, segment) in all.iter().enumerate() {
            let found = check(segment);
            prop_assert_eq!(&segment[..sample.network], &sample.bytes[..sample.network]);
            if kind.is_tcp() {
                prop_assert_eq!(found.sequence, 0xffff_fe00u32.wrapping_add(whole.len() as u32));
            }
            if kind.is_v4() {
                prop_assert_eq!(found.identification, 0xfffeu16.wrapping_add(place as u16));
            }
            let last = place + 1 == all.len();
            prop_assert!(found.payload.len() == usize::from(size) || last && found.payload.len() <= usize::from(size));
            whole.extend(found.payload);
        }
        prop_assert_eq!(&whole[..], &sample.bytes[sample.header_len..]);
    }

    #[test]
    fn completed_frame_differs_in_its_checksum_only(
        kind in prop::sample::select(&KINDS),
        (tags, extras, options) in (0usize..3, 0usize..8, 0usize..10),
        payload in 0usize..3_000,
    ) {
        let sample = Sample::new(Shape { kind, tags, extras, options, payload });
        let all = segments(&sample.bytes, &sample.net_checksum());
        prop_assert_eq!(all.len(), 1);
        check(&all[0]);
        let field = sample.start + usize::from(sample.field());
        let mut same = all[0].clone();
        same[field..field + 2].copy_from_slice(&sample.bytes[field..field + 2]);
        prop_assert_eq!(same, sample.bytes);
    }
}

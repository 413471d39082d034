use super::super::testing::{KINDS, Sample, Shape, net};
use super::*;
use crate::frame::OFFLOAD_HEADER_LEN;
use proptest::prelude::*;

fn parse(bytes: &[u8], net: &[u8; NET_HEADER_LEN], sender: Offloads) -> Result<Option<Offload>, DropReason> {
    Offload::parse(net, &bytes[..bytes.len().min(OFFLOAD_HEADER_LEN)], bytes.len(), sender)
}

/// What all senders may ask for is not enough for.
fn is_a_lie(bytes: &[u8], net: &[u8; NET_HEADER_LEN]) -> bool {
    parse(bytes, net, Offloads::ALL) == Err(DropReason::Malformed)
}

#[test]
fn empty_header_asks_for_nothing() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 10));
    assert_eq!(parse(&sample.bytes, &[0; NET_HEADER_LEN], Offloads::NONE), Ok(None));
    let hints = net(2 | 4, 0, 0xffff, 0xffff, 0xffff, 0xffff);
    assert_eq!(parse(&sample.bytes, &hints, Offloads::NONE), Ok(None), "nothing of it is for us");
}

#[test]
fn every_shape_is_understood_behind_tags_options_and_extensions() {
    for kind in KINDS {
        for tags in 0..=2 {
            for (extras, options) in [(0, 0), (1, 3), (8, 10)] {
                let sample = Sample::new(Shape { kind, tags, extras, options, payload: 3000 });
                let net = sample.net_segments(1000, false);
                let offload = parse(&sample.bytes, &net, Offloads::ALL).unwrap().unwrap();
                assert_eq!(offload.header_len(), sample.header_len, "hdr_len is not believed");
                let cut = offload.segmentation().unwrap();
                assert_eq!((cut.kind, cut.size, cut.ecn), (kind, 1000, false));
                assert_eq!(usize::from(cut.network), sample.network);
                let offload =
                    parse(&sample.bytes, &sample.net_checksum(), Offloads::CHECKSUM).unwrap().unwrap();
                assert_eq!((offload.header_len(), offload.segmentation()), (sample.header_len, None));
            }
        }
    }
}

#[test]
fn what_was_not_negotiated_is_a_lie() {
    for (kind, needed) in
        KINDS.into_iter().zip([Offloads::TSO4, Offloads::TSO6, Offloads::USO4, Offloads::USO6])
    {
        let sample = Sample::new(Shape::of(kind, 3000));
        let net = sample.net_segments(1000, false);
        let lacking = Offloads::ALL.without(needed);
        assert_eq!(parse(&sample.bytes, &net, lacking), Err(DropReason::Malformed));
        assert!(parse(&sample.bytes, &net, Offloads::CHECKSUM.with(needed)).is_ok());
        let lacking = Offloads::ALL.without(Offloads::CHECKSUM);
        assert_eq!(parse(&sample.bytes, &sample.net_checksum(), lacking), Err(DropReason::Malformed));
        assert_eq!(parse(&sample.bytes, &net, lacking), Err(DropReason::Malformed));
        // Also where the frame turns out to be one segment, which needs no segmentation.
        let short = Sample::new(Shape::of(kind, 10));
        let net = short.net_segments(1000, false);
        assert_eq!(parse(&short.bytes, &net, Offloads::CHECKSUM), Err(DropReason::Malformed));
    }
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let net = sample.net_segments(1000, true);
    assert!(parse(&sample.bytes, &net, Offloads::ALL).unwrap().unwrap().segmentation().unwrap().ecn);
    let lacking = Offloads::ALL.without(Offloads::ECN);
    assert_eq!(parse(&sample.bytes, &net, lacking), Err(DropReason::Malformed));
}

#[test]
fn checksum_field_must_lie_in_the_frame_and_in_the_header_copy() {
    let bytes = vec![0x55; 300];
    assert!(!is_a_lie(&bytes, &net(1, 0, 0, 0, 14, 0)));
    assert!(!is_a_lie(&bytes, &net(1, 0, 0, 0, 14, 240)), "the last two bytes of the copy");
    assert!(is_a_lie(&bytes, &net(1, 0, 0, 0, 14, 241)));
    assert!(is_a_lie(&bytes, &net(1, 0, 0, 0, 255, 0)));
    assert!(is_a_lie(&bytes, &net(1, 0, 0, 0, 0xffff, 0xffff)), "adds up beyond 16 bits");
    assert!(!is_a_lie(&bytes[..60], &net(1, 0, 0, 0, 50, 8)));
    assert!(is_a_lie(&bytes[..60], &net(1, 0, 0, 0, 50, 9)));
    assert!(is_a_lie(&bytes[..60], &net(1, 0, 0, 0, 0, 40)), "the addresses were looked at already");
    assert!(is_a_lie(&bytes[..60], &net(1, 0, 0, 0, 13, 40)));
    let end = parse(&bytes, &net(1, 0, 0, 0, 20, 10), Offloads::ALL).unwrap().unwrap();
    assert_eq!(end.header_len(), 32, "of an unknown protocol, up to the field's end");
}

#[test]
fn checksum_does_not_replace_a_vlan_tag() {
    let mut shape = Shape::of(SegmentKind::Udp4, 40);
    shape.tags = 2;
    let sample = Sample::new(shape);
    assert!(is_a_lie(&sample.bytes, &net(1, 0, 0, 0, 14, 0)), "the number of the VLAN it is admitted to");
    assert!(is_a_lie(&sample.bytes, &net(1, 0, 0, 0, 21, 0)));
    assert!(!is_a_lie(&sample.bytes, &net(1, 0, 0, 0, 22, 0)));
    assert!(is_a_lie(&sample.bytes[..15], &net(1, 0, 0, 0, 13, 0)), "ends in its tag");
}

#[test]
fn each_lie_about_segments_is_found() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let good = sample.net_segments(1000, false);
    assert!(!is_a_lie(&sample.bytes, &good));
    let changed = |at: usize, value: u8| {
        let mut net = good;
        net[at] = value;
        net
    };
    assert!(is_a_lie(&sample.bytes, &changed(0, 0)), "no NEEDS_CSUM");
    for gso_type in [2, 3, 4, 5, 6, 0x7f, 0x80, 0x83, 0x85] {
        assert!(is_a_lie(&sample.bytes, &changed(1, gso_type)), "type {gso_type:#x}");
    }
    assert!(is_a_lie(&sample.bytes, &sample.net_segments(0, false)), "size 0");
    assert!(is_a_lie(&sample.bytes, &sample.net_segments(2, false)), "1,500 segments");
    assert!(!is_a_lie(&sample.bytes, &sample.net_segments(3, false)), "1,000 segments");
    assert!(is_a_lie(&sample.bytes, &changed(6, good[6] + 1)), "start");
    assert!(is_a_lie(&sample.bytes, &changed(8, good[8] - 1)), "offset");
    for hdr_len in [0, 1, 0xff] {
        assert!(!is_a_lie(&sample.bytes, &changed(2, hdr_len)));
    }
}

#[test]
fn segments_max_is_the_last_that_passes() {
    let net = |payload| Sample::new(Shape::of(SegmentKind::Udp4, payload));
    let most = net(2 * SEGMENTS_MAX);
    assert!(!is_a_lie(&most.bytes, &most.net_segments(2, false)));
    let more = net(2 * SEGMENTS_MAX + 1);
    assert!(is_a_lie(&more.bytes, &more.net_segments(2, false)));
}

#[test]
fn headers_that_cannot_be_cut_are_lies() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let net4 = sample.net_segments(1000, false);
    let with = |at: usize, value: u8| {
        let mut bytes = sample.bytes.clone();
        bytes[at] = value;
        bytes
    };
    assert!(is_a_lie(&with(14, 0x55), &net4), "version");
    assert!(is_a_lie(&with(14, 0x44), &net4), "IHL 4");
    assert!(is_a_lie(&with(20, 0x20), &net4), "more fragments");
    assert!(is_a_lie(&with(21, 1), &net4), "a later fragment");
    assert!(is_a_lie(&with(23, 17), &net4), "UDP");
    assert!(is_a_lie(&with(46, 0x40), &net4), "data offset 4");
    assert!(is_a_lie(&sample.bytes[..53], &net4), "TCP header cut");
    let mut shape = Shape::of(SegmentKind::Tcp6, 3000);
    shape.extras = 1;
    let sample = Sample::new(shape);
    let net6 = sample.net_segments(1000, false);
    for (kind, left, is_lie) in [(60, 1, false), (43, 0, false), (43, 1, true), (44, 0, true), (51, 0, true)]
    {
        let mut bytes = sample.bytes.clone();
        (bytes[20], bytes[54 + 3]) = (kind, left);
        assert_eq!(is_a_lie(&bytes, &net6), is_lie, "extension {kind}, {left} segments left");
    }
}

#[test]
fn chains_of_extension_headers_are_bounded() {
    let with = |extras| Sample::new(Shape { extras, ..Shape::of(SegmentKind::Udp6, 3000) });
    let most = with(EXTENSIONS_MAX);
    assert!(!is_a_lie(&most.bytes, &most.net_segments(1000, false)));
    let more = with(EXTENSIONS_MAX + 1);
    assert!(is_a_lie(&more.bytes, &more.net_segments(1000, false)));
    let offload = parse(&more.bytes, &more.net_checksum(), Offloads::ALL).unwrap().unwrap();
    assert_eq!(offload.header_len(), more.start + 8, "the field is found by the sender's word");
}

#[test]
fn packet_longer_than_its_length_field_can_say_is_a_lie() {
    let fits = Sample::new(Shape::of(SegmentKind::Tcp4, 65_535 - 40));
    assert!(!is_a_lie(&fits.bytes, &fits.net_segments(1448, false)));
    let mut longer = fits.bytes.clone();
    longer.push(0);
    assert!(is_a_lie(&longer, &fits.net_segments(1448, false)));
}

#[test]
fn what_fits_one_segment_only_needs_its_checksum() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp6, 1000));
    for (size, several) in [(1000, false), (999, true)] {
        let net = sample.net_segments(size, false);
        let offload = parse(&sample.bytes, &net, Offloads::ALL).unwrap().unwrap();
        assert_eq!(offload.segmentation().is_some(), several);
        assert_eq!(offload.needs() == Offloads::CHECKSUM, !several);
    }
}

#[test]
fn net_header_is_made_of_what_was_parsed() {
    let sample = Sample::new(Shape { options: 3, ..Shape::of(SegmentKind::Tcp4, 3000) });
    let offload = parse(&sample.bytes, &sample.net_segments(1000, true), Offloads::ALL).unwrap().unwrap();
    assert_eq!(offload.net_header(3), [1, 0x81, 66, 0, 0xe8, 3, 34, 0, 16, 0, 3, 0]);
    let mut noise = sample.net_checksum();
    (noise[0], noise[4], noise[5]) = (0xff, 9, 9);
    let offload = parse(&sample.bytes, &noise, Offloads::ALL).unwrap().unwrap();
    assert_eq!(offload.net_header(1), [1, 0, 66, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
}

proptest! {
    /// Whatever comes in: no panic, and what passes has its headers in the copy.
    #[test]
    fn any_header_on_any_frame_is_parsed_or_refused(
        kind in prop::sample::select(&KINDS),
        (tags, extras, options) in (0usize..4, 0usize..10, 0usize..11),
        payload in 0usize..600,
        words in any::<[u16; 4]>(),
        (flags, gso_type) in (any::<u8>(), any::<u8>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in 14usize..1000,
    ) {
        let sample = Sample::new(Shape { kind, tags, extras, options, payload });
        let mut bytes = sample.bytes.clone();
        bytes.truncate(keep.max(14));
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let random = net(flags, gso_type, words[0], words[1], words[2], words[3]);
        for net in [random, sample.net_checksum(), sample.net_segments(words[1] % 700, gso_type > 127)] {
            if let Ok(Some(offload)) = parse(&bytes, &net, Offloads::ALL) {
                prop_assert!(offload.header_len() <= bytes.len().min(OFFLOAD_HEADER_LEN));
                let Checksum { start, offset } = offload.checksum();
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= offload.header_len());
                if let Some(cut) = offload.segmentation() {
                    let payload = bytes.len() - offload.header_len();
                    prop_assert!(payload > usize::from(cut.size));
                    prop_assert!(payload <= SEGMENTS_MAX * usize::from(cut.size));
                }
            }
        }
    }
}

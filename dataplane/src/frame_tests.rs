use super::*;
use crate::offload::SegmentKind;
use crate::offload::testing::{Sample, Shape};

fn frame_of(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

#[test]
fn short_frame_lies_in_the_header_copy_alone() {
    let bytes = frame_of(60);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(3);
    builder.push_slice(&bytes).unwrap();
    let burst = builder.burst();
    assert_eq!((burst.len(), burst.bytes(), burst.queue()), (1, 60, 3));
    assert_eq!(burst.frame(0).header(), &bytes[..]);
    assert!(burst.frame(0).body().is_empty());
}

#[test]
fn long_frame_has_a_header_and_one_piece() {
    let bytes = frame_of(1500);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&bytes).unwrap();
    let burst = builder.burst();
    let frame = burst.frame(0);
    assert_eq!(frame.header(), &bytes[..HEADER_LEN]);
    assert_eq!(frame.body().len(), 1);
    assert_eq!(frame.body()[0].len(), 1500 - HEADER_LEN);
    assert_eq!(frame.body()[0].start(), bytes[HEADER_LEN..].as_ptr());
    let mut copy = [0; 1501];
    assert_eq!(frame.copy_to(&mut copy), Some(1500));
    assert_eq!(copy[..1500], bytes);
    assert_eq!(frame.copy_to(&mut copy[..1499]), None);
}

#[test]
fn front_of_a_frame_is_copied_as_far_as_there_is_room() {
    let bytes = frame_of(1500);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&bytes).unwrap();
    builder.push_slice(&bytes[..20]).unwrap();
    let burst = builder.burst();
    for room in [0, 1, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 1, 1499, 1500, 1600] {
        let mut copy = vec![0xee; room];
        let copied = burst.frame(0).copy_front(&mut copy);
        assert_eq!(copied, room.min(1500));
        assert_eq!(copy[..copied], bytes[..copied]);
        assert!(copy[copied..].iter().all(|byte| *byte == 0xee));
    }
    let mut copy = [0; 64];
    assert_eq!(burst.frame(1).copy_front(&mut copy), 20);
    assert_eq!(burst.frame(1).copy_front(&mut copy[..15]), 15);
}

#[test]
fn runts_and_giants_are_refused() {
    let mut scratch = BurstScratch::default();
    let giant = frame_of(FRAME_LEN_MAX + 1);
    let mut builder = scratch.begin(0);
    assert_eq!(builder.push_slice(&giant[..13]), Err(DropReason::Runt));
    assert_eq!(builder.push_slice(&giant), Err(DropReason::TooLong));
    assert!(builder.is_empty());
    assert_eq!(builder.push_slice(&giant[..FRAME_LEN_MAX]), Ok(()));
}

#[test]
fn burst_is_full_by_frames_and_by_bytes() {
    let small = frame_of(14);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    for _ in 0..BURST_FRAMES {
        assert!(!builder.is_full(1));
        builder.push_slice(&small).unwrap();
    }
    assert!(builder.is_full(0));
    let large = frame_of(FRAME_LEN_MAX);
    let mut builder = scratch.begin(0);
    builder.push_slice(&large).unwrap();
    assert!(!builder.is_full(1));
    builder.push_slice(&large).unwrap();
    assert!(builder.is_full(0), "two frames of the greatest length pass 128 KiB");
}

#[test]
fn vlan_is_read_from_a_whole_tag_only() {
    let mut tagged = frame_of(18);
    tagged[12..16].copy_from_slice(&[0x81, 0x00, 0xe0, 0x05]);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&tagged).unwrap();
    builder.push_slice(&tagged[..15]).unwrap();
    let untagged = frame_of(18);
    builder.push_slice(&untagged).unwrap();
    let vlans: Vec<_> = builder.burst().frames().map(|f| f.vlan()).collect();
    assert_eq!(vlans, [Some(5), Some(VLAN_CUT), None]);
}

#[test]
fn leading_settled_run_ends_at_the_first_gap() {
    assert_eq!(Taken(0b1011).leading(4), 2);
    assert_eq!(Taken::ALL.leading(64), 64);
    assert_eq!(Taken(0).leading(5), 0);
    assert!(Taken(0b100).settled(2) && !Taken(0b100).settled(1));
}

#[test]
fn frame_that_asks_carries_its_offload_and_a_longer_header() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let plain = frame_of(1500);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&plain).unwrap();
    builder.push_asking(&sample.net_segments(1000, false), &sample.bytes, Offloads::ALL).unwrap();
    builder.push_asking(&[0; 10], &plain, Offloads::NONE).unwrap();
    builder.push_asking(&sample.net_checksum(), &sample.bytes[..60], Offloads::ALL).unwrap();
    let burst = builder.burst();
    let lens: Vec<_> = burst.frames().map(|frame| frame.header().len()).collect();
    assert_eq!(lens, [HEADER_LEN, OFFLOAD_HEADER_LEN, HEADER_LEN, 60]);
    let asking: Vec<_> = burst.frames().map(|frame| frame.offload().is_some()).collect();
    assert_eq!(asking, [false, true, false, true]);
    let (frame, mut copy) = (burst.frame(1), [0; 4000]);
    let len = frame.copy_to(&mut copy).unwrap();
    assert_eq!(&copy[..len], sample.bytes);
    assert_eq!(frame.destination(), Mac([2, 0, 0, 0, 0, 2]));
    assert_eq!(frame.payload(sample.header_len).len(), 3000);
}

#[test]
fn slot_of_a_frame_that_asked_is_plain_in_the_next_burst() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let mut scratch = BurstScratch::default();
    scratch.begin(0).push_asking(&sample.net_checksum(), &sample.bytes, Offloads::ALL).unwrap();
    let mut builder = scratch.begin(0);
    builder.push_slice(&sample.bytes).unwrap();
    assert!(builder.burst().frame(0).offload().is_none());
    assert_eq!(builder.burst().frame(0).body().len(), 1);
}

#[test]
fn frame_that_lies_is_not_added() {
    let sample = Sample::new(Shape::of(SegmentKind::Tcp4, 3000));
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    let net = sample.net_segments(1000, false);
    assert_eq!(builder.push_asking(&net, &sample.bytes, Offloads::NONE), Err(DropReason::Malformed));
    assert_eq!(builder.push_asking(&net, &sample.bytes[..13], Offloads::ALL), Err(DropReason::Runt));
    assert!(builder.is_empty());
}

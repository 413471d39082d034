//! What a guest may post for receiving, and what it gets.

use super::*;

/// Posts an empty writable buffer.
pub(super) fn post_buffer(world: &mut World, index: u16, addr: u64, len: u32) {
    world.describe(index, addr, len, WRITE, 0);
    world.post(index);
}

fn header(buffers: u8) -> Vec<u8> {
    let mut header = NET_HEADER.to_vec();
    header[10] = buffers;
    header
}

#[test]
fn frame_lands_behind_a_net_header_and_nothing_is_written_behind_it() {
    let mut world = World::new(16);
    world.put(BUFFERS, &[0xaa; 200]);
    post_buffer(&mut world, 3, BUFFERS, 200);
    let (settled, tally) = world.send(&[frame(1, 60)]);
    assert_eq!((settled, tally.frames, tally.bytes), (1, 1, 60));
    assert_eq!(world.used(), [(3, 72)]);
    assert_eq!(world.get(BUFFERS, 12), header(1));
    assert_eq!(world.get(BUFFERS + 12, 60), frame(1, 60));
    assert_eq!(world.get(BUFFERS + 72, 128), [0xaa; 128]);
}

#[test]
fn legacy_header_has_ten_bytes() {
    let mut world = World::with(16, RingOptions { mergeable: false, version_1: false, ..OPTIONS });
    post_buffer(&mut world, 0, BUFFERS, 200);
    world.send(&[frame(1, 60)]);
    assert_eq!((world.used(), world.get(BUFFERS + 10, 60)), (vec![(0, 70)], frame(1, 60)));
}

#[test]
fn frames_beyond_the_room_are_not_settled() {
    let mut world = World::new(16);
    (0..2).for_each(|index| post_buffer(&mut world, index, BUFFERS + u64::from(index) * 0x1000, 0x1000));
    let (settled, tally) = world.send(&[frame(1, 60), frame(2, 1500), frame(3, 60)]);
    assert_eq!((settled, tally.frames, tally.dropped()), (2, 2, 0));
    assert_eq!(world.get(BUFFERS + 0x1000 + 12, 1500), frame(2, 1500));
}

#[test]
fn h09_frame_is_merged_over_chains_or_not_begun() {
    let mut world = World::new(16);
    (0..3).for_each(|index| post_buffer(&mut world, index, BUFFERS + u64::from(index) * 0x1000, 512));
    assert_eq!(world.send(&[frame(1, 1600)]).0, 0, "three buffers of 512 bytes are not enough");
    assert_eq!((world.used(), world.get(BUFFERS, 1)), (vec![], vec![0]));
    post_buffer(&mut world, 3, BUFFERS + 0x3000, 512);
    assert_eq!(world.send(&[frame(1, 1600)]).0, 1);
    assert_eq!(world.used(), [(0, 512), (1, 512), (2, 512), (3, 76)]);
    assert_eq!(world.get(BUFFERS, 12), header(4));
    let mut whole = world.get(BUFFERS + 12, 500);
    (1..4).for_each(|index| whole.extend(world.get(BUFFERS + index * 0x1000, 512)));
    assert_eq!(whole[..1600], frame(1, 1600));
}

#[test]
fn chain_of_several_buffers_is_filled_in_order() {
    let mut world = World::with(16, RingOptions { mergeable: false, ..OPTIONS });
    world.describe(0, BUFFERS, 12, NEXT | WRITE, 1);
    world.describe(1, BUFFERS + 0x1000, 0, NEXT | WRITE, 2);
    world.describe(2, HIGH - 100, 2000, WRITE, 0);
    world.post(0);
    assert_eq!(world.send(&[frame(1, 1000)]).0, 1);
    assert_eq!((world.used(), world.get(HIGH - 100, 1000)), (vec![(0, 1012)], frame(1, 1000)));
}

#[test]
fn frame_that_never_fits_is_dropped_and_smaller_ones_go_on() {
    let mut world = World::with(16, RingOptions { mergeable: false, ..OPTIONS });
    post_buffer(&mut world, 0, BUFFERS, 100);
    let (settled, tally) = world.send(&[frame(1, 1500), frame(2, 60)]);
    assert_eq!((settled, tally.frames, tally.drops[DropReason::TooLong as usize]), (2, 1, 1));
    assert_eq!((world.used(), world.get(BUFFERS + 12, 60)), (vec![(0, 72)], frame(2, 60)));
    let mut world = World::new(4);
    (0..4).for_each(|index| post_buffer(&mut world, index, BUFFERS, 64));
    assert_eq!(
        world.send(&[frame(1, 1500)]).1.drops[DropReason::TooLong as usize],
        1,
        "the whole ring is too small"
    );
}

#[test]
fn g27_buffer_that_is_not_writable_breaks_the_ring_unwritten() {
    for chained in [false, true] {
        let mut world = World::new(16);
        post_buffer(&mut world, 0, BUFFERS, 200);
        world.describe(1, BUFFERS + 0x1000, 2000, if chained { NEXT } else { 0 }, 2);
        world.describe(2, BUFFERS + 0x2000, 2000, WRITE, 0);
        world.post(1);
        let (settled, tally) = world.send(&[frame(1, 60), frame(2, 60), frame(3, 60)]);
        assert_eq!((settled, tally.frames, tally.drops[DropReason::NotReady as usize]), (3, 1, 2));
        assert_eq!((world.fault(), world.used()), (Some(Fault::NotWritable), vec![(0, 72)]));
        assert_eq!(world.get(BUFFERS + 0x1000, 100), [0; 100]);
        assert_eq!(world.send(&[frame(1, 60)]).1.drops[DropReason::NotReady as usize], 1);
    }
}

#[test]
fn bad_chains_break_a_receive_ring_too() {
    type Make = fn(&mut World);
    let faults: [(Fault, Make); 3] = [
        (Fault::Address, |world| post_buffer(world, 0, END - 10, 2000)),
        (Fault::ChainLength, |world| {
            world.describe(0, BUFFERS, 1, NEXT | WRITE, 0);
            world.post(0);
        }),
        (Fault::Indirect, |world| {
            world.describe(0, TABLES, 15, INDIRECT, 0);
            world.post(0);
        }),
    ];
    for (fault, make) in faults {
        let mut world = World::new(16);
        make(&mut world);
        let (settled, tally) = world.send(&[frame(1, 60)]);
        assert_eq!((settled, tally.frames, world.fault(), world.used()), (1, 0, Some(fault), vec![]));
    }
}

#[test]
fn empty_buffers_count_toward_what_one_frame_may_be_spread_over() {
    let mut world = World::new(256);
    for index in 0..255 {
        world.describe_at(
            HIGH + 16 * u64::from(index),
            BUFFERS,
            0,
            if index < 254 { NEXT | WRITE } else { WRITE },
            index + 1,
        );
    }
    world.describe(0, HIGH, 16 * 255, INDIRECT, 0);
    (0..5).for_each(|_| world.post(0));
    post_buffer(&mut world, 255, BUFFERS, 2000);
    let (settled, tally) = world.send(&[frame(1, 60)]);
    assert_eq!((settled, tally.frames, tally.drops[DropReason::TooLong as usize]), (1, 0, 1));
    assert_eq!((world.fault(), world.used()), (None, vec![]));
}

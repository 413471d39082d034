//! What a guest may write into a transmit ring, and what becomes of it; G numbers are those of the hostile suite.

use super::*;

/// A ring whose only chain is made by `make`; what one poll says.
fn poll_of(make: impl FnOnce(&mut World)) -> (World, Polled) {
    let mut world = World::new(16);
    make(&mut world);
    let polled = world.poll();
    (world, polled)
}

/// A chain that must break the ring and give nothing, not even when polled again.
pub(super) fn breaks(fault: Fault, make: impl FnOnce(&mut World)) {
    let (world, polled) = poll_of(make);
    assert_eq!((world.fault(), polled.frames.len(), polled.gone), (Some(fault), 0, 0));
    assert_eq!(world.poll().gone, 0, "a broken ring stays broken");
    assert_eq!(world.used(), []);
}

/// A chain that is dropped and given back while the ring goes on.
fn drops(reason: DropReason, make: impl FnOnce(&mut World)) {
    let (mut world, polled) = poll_of(make);
    assert_eq!((world.fault(), polled.frames.len(), polled.gone), (None, 0, 1));
    assert_eq!(polled.dropped(reason), 1, "{reason}");
    assert_eq!(world.used(), [(0, 0)]);
    world.post_frame(5, BUFFERS + 0x4000, &frame(9, 60));
    assert_eq!(world.poll().frames, [frame(9, 60)], "the ring goes on");
}

#[test]
fn frames_are_lent_in_order_and_given_back_once_a_burst() {
    let mut world = World::new(16);
    for index in 0..3 {
        world.post_frame(
            index,
            BUFFERS + u64::from(index) * 0x1000,
            &frame(index as u8, 60 + 700 * usize::from(index)),
        );
    }
    let polled = world.poll();
    assert_eq!(polled.frames, [frame(0, 60), frame(1, 760), frame(2, 1460)]);
    assert_eq!((polled.gone, world.used()), (3, vec![(0, 0), (1, 0), (2, 0)]));
    assert_eq!(world.poll().gone, 0);
}

#[test]
fn ring_wraps_and_indices_wrap() {
    let mut world = World::new(4);
    for round in 0..40_000u32 {
        world.post_frame((round % 4) as u16, BUFFERS, &frame(round as u8, 14));
        assert_eq!(world.poll().gone, 1);
    }
    world.post_frame(0, BUFFERS, &frame(1, 14));
    assert_eq!(world.poll().frames, [frame(1, 14)]);
}

#[test]
fn unsettled_frames_are_lent_again_and_settled_ones_are_not() {
    let mut world = World::new(16);
    (0..4).for_each(|index| {
        world.post_frame(index, BUFFERS + u64::from(index) * 0x100, &frame(index as u8, 60))
    });
    let polled = world.poll_taking(Taken(0b1001));
    assert_eq!((polled.frames.len(), polled.gone), (4, 2));
    assert_eq!(world.used(), [(0, 0)], "only the leading settled run is given back");
    let polled = world.poll_taking(Taken(0b10));
    assert_eq!(polled.frames, [frame(1, 60), frame(2, 60)]);
    assert_eq!((polled.gone, world.used().len()), (1, 1));
    let polled = world.poll();
    assert_eq!((polled.frames, polled.gone), (vec![frame(1, 60)], 1));
    assert_eq!(world.used(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    assert_eq!(world.poll().gone, 0);
}

#[test]
fn stopped_ring_gives_back_what_it_held_before_settled_chains() {
    let mut world = World::new(16);
    for index in 0..6 {
        world.post_frame(index, BUFFERS + 0x100 * u64::from(index), &frame(index as u8, 60));
    }
    assert_eq!(world.poll_taking(Taken(0b011001)).gone, 3);
    // Of a packed ring the wrap counter is in bit 15.
    let base = |world: &World| world.ring.base() & !(1 << 15);
    assert_eq!((world.used().len(), base(&world)), (1, 1), "the first was settled in order");
    assert_eq!(world.ring.settle(&world.view), 2, "the second and third were held");
    assert_eq!(world.used(), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(base(&world), 5, "the last was held too, and nothing behind it was settled: it stays");
    assert_eq!(world.ring.settle(&world.view), 0, "once");
    assert_eq!(world.poll().frames, [frame(5, 60)], "it goes on where it said");
}

#[test]
fn g01_g02_loops_break_the_ring() {
    breaks(Fault::ChainLength, |world| {
        world.describe(0, BUFFERS, 1, NEXT, 0);
        world.post(0);
    });
    breaks(Fault::ChainLength, |world| {
        world.describe(0, BUFFERS, 1, NEXT, 1);
        world.describe(1, BUFFERS, 1, NEXT, 0);
        world.post(0);
    });
}

#[test]
fn g05_to_g07_addresses_outside_memory_break_the_ring() {
    for (addr, len) in [
        (0, 100),
        (LOW - 1, 100),
        (END, 100),
        (END - 50, 51),
        (LOW, u32::MAX),
        (u64::MAX - 10, 100),
        (u64::MAX, 1),
        (END, 0),
        (0, 0),
    ] {
        breaks(Fault::Address, |world| {
            world.describe(0, addr, len, 0, 0);
            world.post(0);
        });
        breaks(Fault::Address, |world| {
            world.describe(0, BUFFERS, 20, NEXT, 1);
            world.describe(1, addr, len, 0, 0);
            world.post(0);
        });
    }
}

#[test]
fn g06_buffer_over_two_regions_that_touch_is_whole() {
    let (_, polled) = poll_of(|world| world.post_frame(0, HIGH - 40, &frame(3, 1000)));
    assert_eq!(polled.frames, [frame(3, 1000)]);
}

#[test]
fn g08_empty_descriptors_are_skipped() {
    let (_, polled) = poll_of(|world| {
        world.put(BUFFERS, &NET_HEADER);
        world.put(BUFFERS + 12, &frame(4, 60));
        world.describe(0, BUFFERS, 0, NEXT, 1);
        world.describe(1, BUFFERS, 72, NEXT, 2);
        world.describe(2, BUFFERS, 0, 0, 0);
        world.post(0);
    });
    assert_eq!(polled.frames, [frame(4, 60)]);
}

#[test]
fn g08_chains_that_are_long_and_empty_share_the_worker() {
    let mut world = World::new(128);
    for index in 0..127 {
        world.describe_at(HIGH + 16 * u64::from(index), BUFFERS, 0, NEXT, index + 1);
    }
    world.put(BUFFERS + 12, &frame(4, 60));
    world.describe_at(HIGH + 16 * 127, BUFFERS, 72, 0, 0);
    world.describe(0, HIGH, 16 * 128, INDIRECT, 0);
    (0..64).for_each(|_| world.post(0));
    let polls: Vec<usize> =
        std::iter::repeat_with(|| world.poll().gone).take_while(|&gone| gone > 0).collect();
    assert_eq!(polls, [8; 8], "a poll ends after 1,024 descriptors, and the next one goes on");
}

#[test]
fn g10_g11_frames_that_are_too_long_are_dropped_without_a_copy() {
    drops(DropReason::TooLong, |world| {
        for index in 0..15 {
            world.describe(index, LOW, 60_000, NEXT, index + 1);
        }
        world.describe(15, LOW, 60_000, 0, 0);
        world.post(0);
    });
    drops(DropReason::TooLong, |world| {
        world.describe(0, LOW, 12 + crate::frame::FRAME_LEN_MAX as u32 + 1, 0, 0);
        world.post(0);
    });
}

#[test]
fn g12_to_g14_what_is_no_frame_is_dropped() {
    for len in [0, 1, 11] {
        drops(DropReason::Malformed, |world| {
            world.describe(0, BUFFERS, len, 0, 0);
            world.post(0);
        });
        drops(DropReason::Malformed, |world| {
            world.describe(0, BUFFERS, len, NEXT, 1);
            world.describe(1, BUFFERS, 0, 0, 0);
            world.post(0);
        });
    }
    for len in [12, 13, 25] {
        drops(DropReason::Runt, |world| {
            world.describe(0, BUFFERS, len, 0, 0);
            world.post(0);
        });
    }
}

#[test]
fn g15_headers_in_single_bytes_are_put_together() {
    let mut world = World::new(128);
    world.put(BUFFERS, &NET_HEADER);
    world.put(BUFFERS + 12, &frame(6, 80));
    for index in 0..92 {
        world.describe(index, BUFFERS + u64::from(index), 1, if index < 91 { NEXT } else { 0 }, index + 1);
    }
    world.post(0);
    assert_eq!(world.poll().frames, [frame(6, 80)]);
}

#[test]
fn g16_indirect_tables_work_alone_behind_a_descriptor_and_across_regions() {
    for table in [TABLES, TABLES + 3, HIGH - 24] {
        let (_, polled) = poll_of(|world| {
            world.put(BUFFERS, &NET_HEADER);
            world.put(BUFFERS + 0x100, &frame(7, 90));
            world.describe_at(table, BUFFERS, 12, NEXT, 1);
            world.describe_at(table + 16, BUFFERS + 0x100, 90, 0, 0);
            world.describe(0, table, 32, INDIRECT, 0);
            world.post(0);
        });
        assert_eq!(polled.frames, [frame(7, 90)]);
    }
    let (_, polled) = poll_of(|world| {
        world.put(BUFFERS, &NET_HEADER);
        world.put(BUFFERS + 12, &frame(7, 90));
        world.describe_at(TABLES, BUFFERS + 12, 90, 0, 0);
        world.describe(0, BUFFERS, 12, NEXT, 1);
        world.describe(1, TABLES, 16, INDIRECT, 0);
        world.post(0);
    });
    assert_eq!(polled.frames, [frame(7, 90)]);
}

#[test]
fn g17_to_g23_bad_indirect_tables_break_the_ring() {
    let broken_table = |fault, len, flags| {
        breaks(fault, |world| {
            world.describe_at(TABLES, BUFFERS, 100, 0, 0);
            world.describe(0, TABLES, len, INDIRECT | flags, 1);
            world.describe(1, BUFFERS, 100, 0, 0);
            world.post(0);
        });
    };
    broken_table(Fault::Indirect, 0, 0);
    broken_table(Fault::Indirect, 17, 0);
    broken_table(Fault::Indirect, 16, NEXT);
    broken_table(Fault::Indirect, 17 * 16, 0);
    broken_table(Fault::Indirect, 65_536 * 16, 0);
    let broken_entry = |fault, flags, next| {
        breaks(fault, |world| {
            world.describe_at(TABLES, BUFFERS, 100, flags, next);
            world.describe_at(TABLES + 16, BUFFERS, 100, NEXT, 0);
            world.describe(0, TABLES, 32, INDIRECT, 0);
            world.post(0);
        });
    };
    broken_entry(Fault::Indirect, INDIRECT, 0);
    if !World::IS_PACKED {
        broken_entry(Fault::ChainLength, NEXT, 0);
        broken_entry(Fault::ChainLength, NEXT, 1);
        broken_entry(Fault::DescriptorIndex, NEXT, 2);
    }
    for table in [0, END - 8, u64::MAX - 15] {
        breaks(Fault::Address, |world| {
            world.describe(0, table, 16, INDIRECT, 0);
            world.post(0);
        });
    }
}

#[test]
fn indirect_table_that_was_not_negotiated_breaks_the_ring() {
    let mut world = World::with(16, RingOptions { indirect: false, ..OPTIONS });
    world.describe_at(TABLES, BUFFERS, 100, 0, 0);
    world.describe(0, TABLES, 16, INDIRECT, 0);
    world.post(0);
    assert_eq!((world.poll().gone, world.fault()), (0, Some(Fault::Indirect)));
}

#[test]
fn g26_g28_writable_buffers_in_a_transmit_chain_are_refused() {
    drops(DropReason::Malformed, |world| {
        world.describe(0, BUFFERS, 100, WRITE, 0);
        world.post(0);
    });
    drops(DropReason::Malformed, |world| {
        world.describe(0, BUFFERS, 50, NEXT | WRITE, 1);
        world.describe(1, BUFFERS, 50, 0, 0);
        world.post(0);
    });
}

#[test]
fn g32_heads_posted_twice_are_two_frames() {
    let mut world = World::new(16);
    world.post_frame(0, BUFFERS, &frame(1, 60));
    world.post(0);
    assert_eq!((world.poll().gone, world.used()), (2, vec![(0, 0), (0, 0)]));
}

#[test]
fn good_frames_before_a_bad_chain_are_delivered() {
    let mut world = World::new(16);
    world.post_frame(0, BUFFERS, &frame(1, 60));
    world.describe(9, 0, 100, 0, 0);
    world.post(9);
    world.post_frame(1, BUFFERS + 0x1000, &frame(2, 60));
    let polled = world.poll();
    assert_eq!((polled.frames, polled.gone), (vec![frame(1, 60)], 1));
    assert_eq!((world.fault(), world.used()), (Some(Fault::Address), vec![(0, 0)]));
}

#[test]
fn h03_offloads_that_were_not_negotiated_are_dropped() {
    for (at, value) in [(0, 1), (1, 1), (1, 4), (1, 0x80), (1, 5)] {
        drops(DropReason::Malformed, |world| {
            world.post_frame(0, BUFFERS, &frame(1, 60));
            world.put(BUFFERS + at, &[value]);
        });
    }
}

#[test]
fn g29_frame_is_what_was_copied_whatever_the_guest_writes_meanwhile() {
    let mut world = World::new(16);
    world.post_frame(0, BUFFERS, &frame(1, 60));
    let ingress = world.ingress();
    let mut scratch = IngressScratch::default();
    ingress.ingress.poll(&mut scratch, &mut |burst| {
        let before = burst.frame(0).destination();
        world.put(BUFFERS + 12, &[0xff; 60]);
        world.put(DESC, &[0xff; 16]);
        assert_eq!((burst.frame(0).destination(), burst.frame(0).len()), (before, 60));
        Taken::ALL
    });
    assert_eq!(world.used(), [(0, 0)]);
}

#[test]
fn chain_of_a_large_ring_is_bounded_too() {
    for (entries, fault) in [(1024, None), (1025, Some(Fault::Indirect))] {
        // The rings overlap; only the first entries of each are used.
        let mut world = World::new(2048);
        let place = |index: u16| HIGH + 16 * u64::from(index);
        (0..entries).for_each(|index| world.describe_at(place(index), BUFFERS, 0, NEXT, index + 1));
        world.describe_at(place(entries - 1), BUFFERS, 0, 0, 0);
        world.describe(0, HIGH, u32::from(entries) * 16, INDIRECT, 0);
        world.post(0);
        world.poll();
        assert_eq!(world.fault(), fault, "{entries} entries");
    }
}

#[test]
fn p14_kick_descriptor_made_blocking_keeps_nobody() {
    use crate::port::Arming;
    use rustix::event::{EventfdFlags, eventfd};
    let world = World::new(16);
    let kick = Arc::new(eventfd(1, EventfdFlags::empty()).unwrap());
    let ingress = crate::ring::ingress(world.view.clone(), world.ring.clone(), 0, Some(kick.clone()));
    let (done, armed) = std::sync::mpsc::channel();
    std::thread::spawn(move || (0..2).for_each(|_| done.send(ingress.doorbell.arm()).unwrap()));
    for _ in 0..2 {
        assert_eq!(armed.recv_timeout(std::time::Duration::from_secs(10)), Ok(Arming::Quiet));
    }
    let mut looked = [rustix::event::PollFd::new(&kick, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut looked, Some(&Default::default())), Ok(0), "old rings are forgotten");
}

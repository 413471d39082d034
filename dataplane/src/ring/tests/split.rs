//! Split rings: all rules, those that packed rings do not have, and the oracle, which knows split rings only.

use super::*;

type World = super::World<false>;

#[allow(clippy::duplicate_mod)] // once for each form
#[path = "offloads.rs"]
mod offloads;
#[path = "oracle.rs"]
mod oracle;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "receive.rs"]
mod receive;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "rules.rs"]
mod rules;

use receive::post_buffer;
use rules::breaks;

#[test]
fn g03_g04_indices_beyond_the_ring_break_it() {
    for head in [16, 17, 0x8000, 0xffff] {
        breaks(Fault::DescriptorIndex, |world| world.post(head));
        breaks(Fault::DescriptorIndex, |world| {
            world.describe(0, BUFFERS, 100, NEXT, head);
            world.post(0);
        });
    }
}

#[test]
fn g24_g25_index_that_jumps_or_goes_back_breaks_the_ring() {
    for index in [17, 40_000, 0xffff] {
        breaks(Fault::IndexJump, |world| world.publish(index));
    }
    let mut world = World::new(16);
    (0..16).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
    assert_eq!(world.poll().gone, 16, "a full ring is no jump");
    world.publish(15);
    assert_eq!((world.poll().gone, world.fault()), (0, Some(Fault::IndexJump)));
}

#[test]
fn g29_guest_that_rewrites_everything_all_the_time_is_survived() {
    use std::sync::atomic::AtomicBool;
    let mut world = World::new(16);
    (0..16).for_each(|index| world.post_frame(index, BUFFERS + u64::from(index) * 0x200, &frame(1, 100)));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = DESC + (random >> 33) % 256;
                world.put(place, &random.to_le_bytes()[4..5]);
            }
        });
        for round in 0..20_000u16 {
            world.publish(round.wrapping_mul(3));
            let polled = world.poll();
            assert!(polled.frames.iter().all(|frame| frame.len() <= crate::frame::FRAME_LEN_MAX));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn notifications_are_asked_for_once_armed_and_work_is_seen_at_the_last_look() {
    use crate::port::Arming;
    let mut world = World::new(16);
    let ingress = world.ingress();
    ingress.doorbell.disarm();
    assert_eq!(world.get_u16(USED), 1, "VRING_USED_F_NO_NOTIFY");
    assert_eq!(ingress.doorbell.arm(), Arming::Quiet);
    assert_eq!(world.get_u16(USED), 0);
    world.post_frame(0, BUFFERS, &frame(1, 60));
    assert_eq!(ingress.doorbell.arm(), Arming::Work);
    assert_eq!(world.get_u16(USED), 1);
    world.publish(1000);
    world.poll();
    assert_eq!(ingress.doorbell.arm(), Arming::Dead);
}

#[test]
fn event_index_asks_for_the_next_buffer() {
    use crate::port::Arming;
    let mut world = World::with(16, RingOptions { event_idx: true, ..OPTIONS });
    let avail_event = USED + 4 + 16 * 8;
    let ingress = world.ingress();
    world.post_frame(0, BUFFERS, &frame(1, 60));
    world.poll();
    assert_eq!(ingress.doorbell.arm(), Arming::Quiet);
    assert_eq!(world.get_u16(avail_event), 1);
    ingress.doorbell.disarm();
    assert_eq!(world.get_u16(avail_event), 0);
}

#[test]
fn g03_g24_bad_indices_break_a_receive_ring_too() {
    for (fault, make) in [
        (Fault::DescriptorIndex, (|world| world.post(16)) as fn(&mut World)),
        (Fault::IndexJump, |world| world.publish(17)),
    ] {
        let mut world = World::new(16);
        make(&mut world);
        let (settled, tally) = world.send(&[frame(1, 60)]);
        assert_eq!((settled, tally.frames, world.fault(), world.used()), (1, 0, Some(fault), vec![]));
    }
}

#[test]
fn guest_is_signalled_once_a_burst_and_only_if_it_asks() {
    use rustix::event::{EventfdFlags, eventfd};
    let call = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let signals = RingSignals { call: Some(call.clone().into()), ..RingSignals::default() };
    let count = || {
        let mut value = [0; 8];
        rustix::io::read(&*call, &mut value).map_or(0, |_| u64::from_ne_bytes(value))
    };
    for event_idx in [false, true] {
        let mut world = World::telling(16, RingOptions { event_idx, ..OPTIONS }, signals.clone());
        let used_event = AVAIL + 4 + 16 * 2;
        (0..6).for_each(|index| post_buffer(&mut world, index, BUFFERS + u64::from(index) * 0x100, 0x100));
        world.send(&[frame(1, 60), frame(2, 60)]);
        assert_eq!(count(), 1, "asked by default");
        world.put(AVAIL, &[1]); // VRING_AVAIL_F_NO_INTERRUPT
        world.put(used_event, &[4]);
        world.send(&[frame(3, 60), frame(4, 60)]);
        assert_eq!(count(), 0, "not asked");
        world.put(AVAIL, &[0]);
        world.send(&[frame(5, 60)]);
        assert_eq!(count(), 1, "entry 4 was asked for");
    }
}

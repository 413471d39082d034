//! Packed rings: all rules, and those that split rings do not have.

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::port::Arming;
use crate::ring::format::Format;
use crate::ring::packed::Packed;
use crate::ring::{MemoryTable, RingError};

type World = super::World<true>;

#[allow(clippy::duplicate_mod)] // once for each form
#[path = "offloads.rs"]
mod offloads;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "receive.rs"]
mod receive;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "rules.rs"]
mod rules;

use receive::post_buffer;
use rules::breaks;

/// The flags that say whose a descriptor is, in the first round.
const AVAILABLE: u16 = 1 << 7;
const USED_BIT: u16 = 1 << 15;
/// Event suppression structures: flags in the upper half.
const DISABLE: u32 = 1 << 16;
const AT: u32 = 2 << 16;

impl World {
    /// Overwrites the flags of a descriptor of the ring.
    fn set_flags(&self, index: u16, flags: u16) {
        self.put(DESC + 16 * u64::from(index) + 14, &flags.to_le_bytes());
    }

    fn flags(&self, index: u16) -> u16 {
        self.get_u16(DESC + 16 * u64::from(index) + 14)
    }

    fn event(&self, part: u64) -> u32 {
        u32::from_le_bytes(self.get(part, 4).try_into().unwrap())
    }

    /// A frame in three descriptors: header and frame in parts.
    fn post_in_three(&mut self, index: u16, addr: u64, frame: &[u8]) {
        self.put(addr, &NET_HEADER);
        self.put(addr + 12, frame);
        self.describe(index, addr, 5, NEXT, index + 1);
        self.describe(index + 1, addr + 5, 27, NEXT, index + 2);
        self.describe(index + 2, addr + 32, frame.len() as u32 - 20, 0, 0);
        self.post(index);
    }
}

#[test]
fn g33_rings_of_any_size_go_round_with_chains_over_their_end() {
    for size in [3, 5, 7, 16, 100] {
        let mut world = World::new(size);
        for round in 0..5 * size {
            let sent = frame(round as u8, 60 + usize::from(round % 50));
            if round % 3 == 0 {
                world.post_frame(round % size, BUFFERS, &sent);
            } else {
                world.post_in_three(round % (size - 2), BUFFERS, &sent);
            }
            let polled = world.poll();
            assert_eq!((polled.frames, polled.gone, world.fault()), (vec![sent], 1, None), "{size}: {round}");
            assert_eq!(world.poll().gone, 0);
        }
    }
}

#[test]
fn g33_ring_of_one_descriptor_works() {
    let mut world = World::new(1);
    for round in 0..10 {
        world.post_frame(0, BUFFERS, &frame(round, 60));
        assert_eq!(world.poll().frames, [frame(round, 60)]);
    }
    world.describe(0, BUFFERS, 100, NEXT, 0);
    world.post(0);
    assert_eq!((world.poll().gone, world.fault()), (0, Some(Fault::ChainLength)));
}

#[test]
fn g33_chain_that_runs_on_over_what_is_not_available_breaks_the_ring() {
    for flags in [0, USED_BIT, AVAILABLE | USED_BIT, NEXT | USED_BIT] {
        breaks(Fault::NotAvailable, |world| {
            world.post_in_three(0, BUFFERS, &frame(1, 60));
            world.set_flags(1, flags);
        });
    }
}

#[test]
fn g33_flags_of_another_round_make_nothing_available() {
    for flags in [0, USED_BIT, AVAILABLE | USED_BIT] {
        let mut world = World::new(16);
        world.post_frame(0, BUFFERS, &frame(1, 60));
        world.set_flags(0, flags);
        assert_eq!(
            (world.poll().gone, world.fault(), world.ingress().doorbell.arm()),
            (0, None, Arming::Quiet)
        );
        world.set_flags(0, AVAILABLE);
        assert_eq!(world.poll().frames, [frame(1, 60)]);
        world.set_flags(0, flags);
        assert_eq!((world.poll().gone, world.fault()), (0, None), "it is not looked at again in this round");
    }
}

#[test]
fn g33_whole_ring_that_stays_available_is_served_once_a_round() {
    let mut world = World::new(16);
    (0..16).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
    assert_eq!(world.poll().gone, 16);
    (0..16).for_each(|index| world.set_flags(index, AVAILABLE));
    assert_eq!((world.poll().gone, world.fault()), (0, None));
    (0..16).for_each(|index| world.set_flags(index, USED_BIT));
    assert_eq!((world.poll().gone, world.fault()), (16, None), "a guest may post its ring at once");
}

#[test]
fn g33_broken_ring_stays_broken_and_is_not_empty() {
    let mut world = World::new(16);
    world.describe(0, 0, 100, 0, 0);
    world.post(0);
    assert_eq!((world.poll().gone, world.fault()), (0, Some(Fault::Address)));
    world.post_frame(1, BUFFERS, &frame(1, 60));
    for _ in 0..3 {
        assert_eq!((world.poll().gone, world.ingress().doorbell.arm()), (0, Arming::Dead));
    }
}

#[test]
fn ids_are_given_back_as_they_came_and_mean_nothing_else() {
    let mut world = World::new(16);
    for index in 0..4 {
        world.post_frame(index, BUFFERS + 0x1000 * u64::from(index), &frame(index as u8, 60));
        let id = [0xffff, 7, 7, 16][usize::from(index)] as u16;
        world.put(DESC + 16 * u64::from(index) + 12, &id.to_le_bytes());
    }
    let polled = world.poll();
    assert_eq!(polled.frames, [0, 1, 2, 3].map(|index| frame(index, 60)));
    assert_eq!((world.used(), world.fault()), (vec![(0xffff, 0), (7, 0), (7, 0), (16, 0)], None));
}

#[test]
fn id_of_a_chain_is_that_of_its_last_descriptor() {
    let mut world = World::new(16);
    world.post_in_three(0, BUFFERS, &frame(1, 60));
    world.post_frame(3, BUFFERS + 0x1000, &frame(2, 60));
    (0..3).for_each(|index| world.put(DESC + 16 * index + 12, &(100 + index as u16).to_le_bytes()));
    assert_eq!(world.poll().gone, 2);
    assert_eq!(world.used(), [(102, 0), (3, 0)]);
    assert_eq!([1, 2].map(|index| world.flags(index) & (AVAILABLE | USED_BIT)), [AVAILABLE; 2], "left alone");
}

#[test]
fn entries_of_an_indirect_table_follow_each_other_whatever_they_say() {
    let mut world = World::new(16);
    world.put(BUFFERS, &NET_HEADER);
    world.put(BUFFERS + 12, &frame(7, 90));
    for (place, flags) in [(0, 0), (1, NEXT), (2, AVAILABLE | USED_BIT)] {
        world.describe_at(TABLES + 16 * place, BUFFERS + 34 * place, 34, flags, 99);
    }
    world.describe(0, TABLES, 48, INDIRECT, 0);
    world.post(0);
    assert_eq!(world.poll().frames, [frame(7, 90)]);
}

#[test]
fn one_descriptor_gives_a_burst_back_when_in_order() {
    let mut world = World::with(16, RingOptions { in_order: true, ..OPTIONS });
    (0..3).for_each(|index| world.post_frame(index, BUFFERS + 0x100 * u64::from(index), &frame(1, 60)));
    world.post_in_three(3, BUFFERS + 0x300, &frame(2, 60));
    assert_eq!(world.poll().gone, 4);
    assert_eq!(world.used(), [(3, 0)], "in the name of the last");
    assert_eq!((1..6).map(|index| world.flags(index) & USED_BIT).max(), Some(0), "the rest is not written");
    world.post_frame(9, BUFFERS, &frame(3, 60));
    assert_eq!(world.poll().frames, [frame(3, 60)], "the ring goes on behind the burst");
    assert_eq!(world.flags(6), AVAILABLE | USED_BIT);
}

#[test]
fn written_buffers_say_how_far_each_when_in_order() {
    let mut world = World::with(16, RingOptions { in_order: true, ..OPTIONS });
    (0..4).for_each(|index| post_buffer(&mut world, index, BUFFERS + 0x1000 * u64::from(index), 512));
    assert_eq!(world.send(&[frame(1, 60), frame(2, 1000), frame(3, 60)]).0, 3);
    assert_eq!(world.used(), [(0, 72), (1, 512), (2, 500), (3, 72)]);
}

#[test]
fn burst_that_is_given_back_shows_with_its_first_descriptor_and_not_before() {
    for (in_order, others) in [(false, AVAILABLE | USED_BIT), (true, AVAILABLE)] {
        let mut world = World::with(16, RingOptions { in_order, ..OPTIONS });
        (0..3).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
        let (view, mut state) = (world.view.clone(), world.ring.lock());
        let (mut run, mut position) = (Packed::run(&state), state.next_avail);
        for _ in 0..3 {
            let chain = Packed::chain(&view, position).unwrap().unwrap();
            position = Packed::behind(&view, position, &chain);
            Packed::give_back(&view, &mut run, &chain, 0);
        }
        assert_eq!([0, 1, 2].map(|index| world.flags(index)), [AVAILABLE, others, others]);
        assert!(!Packed::publish(&view, run, &mut state), "there is nobody to tell");
        assert_eq!([0, 1, 2].map(|index| world.flags(index)), [AVAILABLE | USED_BIT, others, others]);
    }
}

#[test]
fn kicks_are_asked_for_as_negotiated_and_work_is_seen_at_the_last_look() {
    for (event_idx, wish) in [(false, 0), (true, AT | 1 << 15)] {
        let mut world = World::with(3, RingOptions { event_idx, ..OPTIONS });
        let ingress = world.ingress();
        ingress.doorbell.disarm();
        assert_eq!(world.event(USED), DISABLE);
        assert_eq!((ingress.doorbell.arm(), world.event(USED)), (Arming::Quiet, wish));
        world.post_in_three(0, BUFFERS, &frame(1, 60));
        assert_eq!((ingress.doorbell.arm(), world.event(USED)), (Arming::Work, DISABLE));
        assert_eq!(world.poll().gone, 1);
        assert_eq!(
            (ingress.doorbell.arm(), world.event(USED)),
            (Arming::Quiet, wish & !(1 << 15)),
            "the next round"
        );
    }
}

#[test]
fn guest_is_signalled_once_a_burst_and_only_if_it_asks() {
    let call = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let signals = RingSignals { call: Some(call.clone().into()), ..RingSignals::default() };
    let count = || {
        let mut value = [0; 8];
        rustix::io::read(&*call, &mut value).map_or(0, |_| u64::from_ne_bytes(value))
    };
    let mut world = World::telling(6, RingOptions { event_idx: true, ..OPTIONS }, signals);
    (0..6).for_each(|index| post_buffer(&mut world, index, BUFFERS + u64::from(index) * 0x100, 0x100));
    let asked: [(u32, u64); 4] = [(0, 1), (DISABLE, 0), (AT | 1 << 15 | 4, 0), (AT | 1 << 15 | 3, 1)];
    for (seed, (wish, calls)) in (0..).zip(asked) {
        world.put(AVAIL, &wish.to_le_bytes());
        assert_eq!(world.send(&[frame(seed, 60)]).0, 1);
        assert_eq!(count(), calls, "{wish:#x}");
    }
    world.put(AVAIL, &(AT | 1 << 15 | 4).to_le_bytes());
    assert_eq!((world.send(&[frame(5, 60), frame(6, 60)]).0, count()), (2, 1), "the first of two");
    post_buffer(&mut world, 0, BUFFERS, 0x100);
    world.put(AVAIL, &(AT | 1 << 15).to_le_bytes());
    assert_eq!((world.send(&[frame(7, 60)]).0, count()), (1, 0), "that was a round ago");
}

#[test]
fn guest_that_rewrites_everything_all_the_time_is_survived() {
    use std::sync::atomic::AtomicBool;
    let world = World::new(16);
    let stop = AtomicBool::new(false);
    let words = world.mapping.words(0, 32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Half of what is written makes a small buffer available, in one round or the other.
                let place = (random >> 59) as usize;
                let flags =
                    [AVAILABLE, USED_BIT, AVAILABLE | NEXT, USED_BIT | INDIRECT][(random >> 40) as usize % 4];
                let rest = (random >> 50 & 0xff) | 3 << 32 | u64::from(flags) << 48;
                words[place].store(if place.is_multiple_of(2) { BUFFERS } else { rest }, Ordering::Relaxed);
            }
        });
        for _ in 0..5_000 {
            let fresh = Ring::start(&world.view, None).unwrap();
            *world.ring.lock() = fresh.state.into_inner().unwrap();
            let polled = world.poll();
            assert!(polled.gone <= 64);
            assert!(polled.frames.iter().all(|frame| frame.len() <= crate::frame::FRAME_LEN_MAX));
            assert!(world.send(&[frame(1, 60), frame(2, 200)]).0 <= 2);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn view_of_a_packed_ring_lies_where_it_says() {
    let (mapping, _) = Mapping::memfd("parts", 0x1000).unwrap();
    let mapping = Arc::new(mapping);
    let region = Region { guest_addr: 0, user_addr: 0x7000, len: 0x1000, offset: 0, mapping };
    let memory = Arc::new(MemoryTable::new(vec![region]).unwrap());
    let options = RingOptions { packed: true, ..OPTIONS };
    let view = |size, desc: u64, avail: u64, used: u64| {
        let layout = RingLayout { size, desc: 0x7000 + desc, avail: 0x7000 + avail, used: 0x7000 + used };
        RingView::new(memory.clone(), layout, options, RingSignals::default()).map(drop)
    };
    assert_eq!(view(255, 0, 0xff0, 0xffc), Ok(()));
    assert_eq!(view(257, 0, 0xff0, 0xffc), Err(RingError::Address), "descriptors beyond the end");
    assert_eq!(view(255, 0, 0xff2, 0xffc), Err(RingError::Alignment));
    assert_eq!(view(255, 0, 0xff0, 0x1000), Err(RingError::Address));
    assert_eq!(view(255, 8, 0xff0, 0xffc), Err(RingError::Alignment));
    assert_eq!(view(0, 0, 0xff0, 0xffc), Err(RingError::Size));
    assert_eq!(view(0x8001, 0, 0xff0, 0xffc), Err(RingError::Size));
}

#[test]
fn ring_goes_on_where_it_stopped_if_that_is_in_it() {
    let mut world = World::new(5);
    (0..3).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
    world.poll();
    assert_eq!(world.ring.base(), 3 | 1 << 15);
    world.ring = Arc::new(Ring::start(&world.view, Some(world.ring.base())).unwrap());
    (0..4).for_each(|index| world.post_frame(index, BUFFERS, &frame(2, 60)));
    assert_eq!((world.poll().gone, world.ring.base()), (4, 2));
    for base in [5, 5 | 1 << 15, 0x7fff, 0xffff] {
        assert_eq!(Ring::start(&world.view, Some(base)).err(), Some(RingError::Position));
        // A ring whose size changed under it is no more than broken.
        world.ring = Arc::new(Ring::new(base, base));
        assert_eq!((world.poll().gone, world.fault()), (0, Some(Fault::DescriptorIndex)));
        assert_eq!(world.send(&[frame(1, 60)]).1.frames, 0);
    }
}

#[test]
fn ring_that_stopped_at_its_turn_goes_on_there_though_a_chain_lay_over_the_turn_before() {
    let mut world = World::new(4);
    let post = |world: &mut World, parts: u16| {
        world.put(BUFFERS, &NET_HEADER);
        (0..parts - 1).for_each(|index| world.describe(index, BUFFERS, 0, NEXT, index + 1));
        world.describe(parts - 1, BUFFERS, 12 + 60, 0, 0);
        world.post(0);
    };
    for parts in [3, 1, 1, 4, 2, 1] {
        post(&mut world, parts);
        assert_eq!(world.poll().gone, 1);
    }
    assert_eq!(world.ring.base(), 0, "at the first descriptor, which was the last of the chain of four");
    world.ring = Arc::new(Ring::start(&world.view, Some(world.ring.base())).unwrap());
    assert_eq!((world.poll().gone, world.ring.base()), (0, 0), "that chain is not lent again");
    post(&mut world, 2);
    assert_eq!((world.poll().gone, world.ring.base()), (1, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Rings of noise in which most flags are likely ones.
    #[test]
    fn noise_never_loops_or_panics(
        size in 1u16..20,
        descriptors in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u16>(), any::<u16>(), 0u8..8), 20),
        base in any::<u16>(),
    ) {
        let world = World::new(size);
        let Ok(ring) = Ring::start(&world.view, Some(((base & !USED_BIT) % size) | (base & USED_BIT))) else { unreachable!() };
        *world.ring.lock() = ring.state.into_inner().unwrap();
        for (place, (addr, len, id, flags, shape)) in (0..size).zip(descriptors) {
            let near = BUFFERS + addr % 0x1000;
            let (addr, len) = if shape < 6 { (near, len % 2000) } else { (addr, len) };
            let owner = if base & USED_BIT != 0 { AVAILABLE } else { USED_BIT };
            let flags = if shape < 7 { owner | flags & (NEXT | WRITE | INDIRECT) } else { flags };
            world.describe_at(DESC + 16 * u64::from(place), addr, len, id, 0);
            world.put(DESC + 16 * u64::from(place) + 12, &id.to_le_bytes());
            world.set_flags(place, flags);
        }
        for _ in 0..3 {
            prop_assert!(world.poll_taking(Taken(u64::from(base))).gone <= usize::from(size));
            let (settled, tally) = world.send(&[frame(1, 60), frame(2, 1500)]);
            prop_assert!(settled <= 2 && tally.frames <= 2);
        }
        let place = world.ring.base() & !USED_BIT;
        prop_assert!(place < size);
    }
}

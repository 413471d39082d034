//! The driver's ends of a port against the device's ends of the same rings, in memory, honest and not.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::drops::DropReason;
use crate::frame::{BurstScratch, Taken};
use crate::offload::testing::{KINDS, Sample, Shape};
use crate::offload::{NET_HEADER_LEN, Offloads};
use crate::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch, Tally};
use crate::ring::{MemoryTable, Region, Ring, RingEnd, RingOptions, RingSignals, RingView, ingress};

const SIZE: u16 = 32;
const SEND_LEN: usize = 4096;
const OPTIONS: RingOptions = RingOptions {
    packed: false,
    in_order: false,
    event_idx: true,
    indirect: false,
    mergeable: true,
    version_1: true,
    send: Offloads::NONE,
    receive: Offloads::NONE,
};
/// Somewhere a device could reach, and not where built-in guests are.
const IOVA: u64 = 0x10_0000;

/// A receive and a transmit queue, with both their ends.
struct World {
    memory: Arc<DriverMemory>,
    receive: DriverIngress,
    send: DriverEgress,
    /// The device's ends.
    fills: Arc<dyn Egress>,
    drains: RingEnd,
    kick: Arc<OwnedFd>,
    call: Arc<OwnedFd>,
    trouble: Arc<OwnedFd>,
}

fn event() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap())
}

/// Whether the eventfd was signalled, which is forgotten.
fn is_told(eventfd: &OwnedFd) -> bool {
    rustix::io::read(eventfd, &mut [0; 8]).is_ok()
}

impl World {
    fn new(options: RingOptions, receive_len: usize) -> World {
        let of_receive = DeviceQueue::footprint(SIZE, receive_len);
        let len = of_receive + DeviceQueue::footprint(SIZE, SEND_LEN);
        let memory = Arc::new(DriverMemory::at("test", len, IOVA).unwrap());
        let (kick, call, trouble) = (event(), event(), event());
        let queue = |offset, buffer_len| DeviceQueue {
            memory: memory.clone(),
            offset,
            size: SIZE,
            buffer_len,
            options,
            kick: kick.clone(),
            call: call.clone(),
            trouble: trouble.clone(),
        };
        let receive = DriverIngress::new(3, &queue(0, receive_len)).unwrap();
        let send = DriverEgress::new(&queue(of_receive, SEND_LEN)).unwrap();
        let region = Region { user_addr: IOVA, ..memory.region() };
        let table = Arc::new(MemoryTable::new(vec![region]).unwrap());
        let end = |layout, call: Option<&Arc<OwnedFd>>| {
            let signals =
                RingSignals { call: call.map(|call| call.clone().into()), ..RingSignals::default() };
            let view = RingView::new(table.clone(), layout, options, signals).unwrap();
            (Arc::new(Ring::start(&view, None).unwrap()), Arc::new(view))
        };
        let (ring, view) = end(receive.layout(), Some(&call));
        let fills = crate::ring::egress(view, ring);
        let (ring, view) = end(send.layout(), None);
        let drains = ingress(view, ring, 0, None);
        World { memory, receive, send, fills, drains, kick, call, trouble }
    }

    /// The device sends frames to us; how many it had room for.
    fn fill(&self, frames: &[Vec<u8>]) -> usize {
        give(&*self.fills, frames).0
    }

    /// One poll of ours: the frames that were lent, how many are gone, and what was given up.
    fn poll(&self, taken: Taken) -> (Vec<Vec<u8>>, usize, Tally) {
        take(&self.receive, taken)
    }

    /// We send; how many were settled, and the tally.
    fn send(&self, frames: &[Vec<u8>]) -> (usize, Tally) {
        give(&self.send, frames)
    }

    /// The device reads.
    fn drain(&self) -> Vec<Vec<u8>> {
        take(&*self.drains.ingress, Taken::ALL).0
    }

    /// Writes a word of the device's used ring of the receive queue, as a device would: its index, or an entry.
    fn write_used(&self, offset: u64, bytes: &[u8]) {
        let used = self.receive.layout().used - IOVA;
        self.memory.write((used + offset) as usize, bytes);
    }

    /// Gives one receive buffer back, as a device that fills it by hand. What it writes there is up to the test.
    fn use_buffer(&self, position: u16, head: u32, written: u32) {
        let entry = u64::from(head) | u64::from(written) << 32;
        self.write_used(4 + 8 * u64::from(position % SIZE), &entry.to_le_bytes());
        let index = self.receive.layout().used - IOVA + 2;
        self.memory.word(index as usize).store((position + 1).to_le(), Ordering::Release);
    }

    /// Where the buffer of a head lies that was never used before.
    fn fresh_buffer(&self, head: u16) -> usize {
        let descriptor = (self.receive.layout().desc - IOVA) as usize + 16 * usize::from(head);
        (self.memory.read_u64(descriptor) - IOVA) as usize
    }
}

fn give(egress: &dyn Egress, frames: &[Vec<u8>]) -> (usize, Tally) {
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
    let picks: Vec<u8> = (0..frames.len() as u8).collect();
    let mut scratch = EgressScratch::default();
    (egress.send(&mut scratch, &builder.burst(), &picks), scratch.tally)
}

fn take(ingress: &dyn Ingress, taken: Taken) -> (Vec<Vec<u8>>, usize, Tally) {
    let mut scratch = IngressScratch::default();
    let mut frames = Vec::new();
    let gone = ingress.poll(&mut scratch, &mut |burst| {
        for frame in burst.frames() {
            let mut bytes = vec![0; frame.len()];
            frame.copy_to(&mut bytes).unwrap();
            frames.push(bytes);
        }
        taken
    });
    (frames, gone, scratch.tally)
}

fn frame(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

fn forms() -> [RingOptions; 4] {
    [(false, true), (false, false), (true, true), (true, false)].map(|(packed, event_idx)| RingOptions {
        packed,
        event_idx,
        ..OPTIONS
    })
}

#[test]
fn frames_of_every_length_pass_both_ways_whole() {
    let lens = [14, 15, 63, 64, 65, 1514, 2036, 2037, 4084, 4085, 9000, 32_780, 65_549, 65_557];
    for options in forms() {
        for (mergeable, receive_len) in [(true, 2048), (true, 4096), (false, 65_600)] {
            let world = World::new(RingOptions { mergeable, ..options }, receive_len);
            // Each a few times, so that the rings go round.
            for round in 0..8 {
                for (seed, &len) in lens.iter().enumerate() {
                    let sent = vec![frame(seed as u8 + round, len)];
                    // 32 buffers of 2 KiB take a frame of 65,524 bytes at most.
                    if usize::from(SIZE) * receive_len >= len + 12 {
                        assert_eq!(world.fill(&sent), 1, "{len} into {receive_len}, {options:?}");
                        let (lent, gone, _) = world.poll(Taken::ALL);
                        assert!(lent == sent && gone == 1, "{len} into {receive_len}, {options:?}");
                    }
                    assert_eq!(world.send(&sent).0, 1, "{len}, {options:?}");
                    assert!(world.drain() == sent, "{len}, {options:?}");
                }
            }
        }
    }
}

#[test]
fn held_frames_keep_their_buffers_and_are_lent_again_in_order() {
    for options in forms() {
        let world = World::new(options, 2048);
        let frames: Vec<Vec<u8>> = (0..12).map(|seed| frame(seed, 3000)).collect();
        assert_eq!(world.fill(&frames), 12);
        assert_eq!(world.poll(Taken(0b1001)), (frames.clone(), 2, Tally::default()));
        assert_eq!(world.receive.held(), 10);
        // The device fills all that it has; what is held stays as it was.
        let more: Vec<Vec<u8>> = (100..116).map(|seed| frame(seed, 3000)).collect();
        assert_eq!(world.fill(&more), 6, "2 of the 12 pairs of buffers and the 8 that were free");
        let held: Vec<Vec<u8>> =
            (0..12).filter(|seed| ![0, 3].contains(seed)).map(|seed| frame(seed, 3000)).collect();
        assert_eq!(world.poll(Taken(0)).0, held);
        assert_eq!(world.receive.arm(), Arming::Work, "what is held is work");
        assert_eq!(world.poll(Taken::ALL), (held, 10, Tally::default()));
        assert_eq!(world.poll(Taken::ALL).0, more[..6]);
        assert_eq!((world.receive.held(), world.fill(&more)), (0, 16), "every buffer is posted again");
    }
}

#[test]
fn full_transmit_queue_takes_what_it_has_room_for_and_the_rest_later() {
    for options in forms() {
        let world = World::new(options, 2048);
        let frames: Vec<Vec<u8>> = (0..40).map(|seed| frame(seed, 100)).collect();
        let (settled, tally) = world.send(&frames);
        assert_eq!((settled, tally.frames, tally.bytes, tally.dropped()), (32, 32, 3200, 0));
        assert_eq!(world.send(&frames[32..]).0, 0);
        assert_eq!(world.drain(), frames[..32]);
        assert_eq!(world.send(&frames[32..]).0, 8);
        // Two buffers a frame: all or nothing.
        let long: Vec<Vec<u8>> = (0..13).map(|seed| frame(seed, 8000)).collect();
        assert_eq!(world.send(&long).0, 12);
        assert_eq!(world.drain(), [&frames[32..], &long[..12]].concat());
    }
}

#[test]
fn nobody_is_told_what_nobody_asked_to_hear() {
    for options in forms() {
        let world = World::new(options, 2048);
        assert!(is_told(&world.kick), "the receive buffers");
        world.drains.doorbell.disarm();
        world.send(&[frame(0, 60)]);
        assert!(!is_told(&world.kick), "the device polls");
        world.drain();
        assert_eq!(world.drains.doorbell.arm(), Arming::Quiet);
        world.send(&[frame(1, 60)]);
        assert!(is_told(&world.kick));
        world.receive.disarm();
        world.fill(&[frame(2, 60)]);
        assert!(!is_told(&world.call), "we poll");
        assert_eq!(world.receive.arm(), Arming::Work);
        assert_eq!(world.poll(Taken::ALL).0.len(), 1);
        assert_eq!(world.receive.arm(), Arming::Quiet);
        world.fill(&[frame(3, 60)]);
        assert!(is_told(&world.call));
    }
}

/// A frame to be cut into five, sent to a device that negotiated `send`; what the device read, behind its net header.
fn offered(sample: &Sample, net: &[u8; NET_HEADER_LEN], send: Offloads) -> (Vec<Vec<u8>>, Tally) {
    let world = World::new(RingOptions { send, ..OPTIONS }, 2048);
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    builder.push_asking(net, &sample.bytes, Offloads::ALL).unwrap();
    let mut scratch = EgressScratch::default();
    assert_eq!(world.send.send(&mut scratch, &builder.burst(), &[0]), 1);
    let mut read = IngressScratch::default();
    let mut frames = Vec::new();
    world.drains.ingress.poll(&mut read, &mut |burst| {
        for frame in burst.frames() {
            let mut bytes = vec![0; frame.len()];
            frame.copy_to(&mut bytes).unwrap();
            assert_eq!(frame.offload().is_some(), send != Offloads::NONE);
            frames.push(bytes);
        }
        Taken::ALL
    });
    (frames, scratch.tally)
}

#[test]
fn device_that_segments_gets_frames_whole_and_others_get_the_segments() {
    for kind in KINDS {
        let sample = Sample::new(Shape::of(kind, 24_000));
        let net = sample.net_segments(5000, false);
        let (frames, tally) = offered(&sample, &net, Offloads::ALL);
        assert_eq!((frames, tally.segments), (vec![sample.bytes.clone()], 0));
        let (frames, tally) = offered(&sample, &net, Offloads::NONE);
        assert_eq!((frames.len(), tally.segments, tally.frames), (5, 5, 1), "{kind:?}");
        let lens: Vec<usize> = frames.iter().map(|frame| frame.len() - sample.header_len).collect();
        assert_eq!(lens, [5000, 5000, 5000, 5000, 4000], "{kind:?}");
        let payload: Vec<u8> = frames.iter().flat_map(|frame| frame[sample.header_len..].to_vec()).collect();
        assert!(payload == sample.bytes[sample.header_len..], "{kind:?}");
    }
}

#[test]
fn frame_whose_segments_the_ring_cannot_hold_is_dropped_and_nothing_of_it_is_sent() {
    let sample = Sample::new(Shape::of(KINDS[0], 60_000));
    let world = World::new(OPTIONS, 2048);
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    builder.push_asking(&sample.net_segments(1448, false), &sample.bytes, Offloads::ALL).unwrap();
    let mut scratch = EgressScratch::default();
    assert_eq!(world.send.send(&mut scratch, &builder.burst(), &[0]), 1);
    assert_eq!(scratch.tally.drops[DropReason::TooLong as usize], 1);
    assert_eq!(world.drain(), Vec::<Vec<u8>>::new());
}

/// Writes a net header and a frame into the buffer of `head`, and gives it back as `written` bytes.
fn hand_in(world: &World, position: u16, net: [u8; 12], bytes: &[u8], written: u32) {
    let buffer = world.fresh_buffer(position);
    world.memory.write(buffer, &net);
    world.memory.write(buffer + 12, bytes);
    world.use_buffer(position, position.into(), written);
}

#[test]
fn what_a_device_asks_is_believed_only_if_negotiated_and_true() {
    let sample = Sample::new(Shape::of(KINDS[0], 1000));
    let mut net = [0; 12];
    net[..NET_HEADER_LEN].copy_from_slice(&sample.net_checksum());
    net[10] = 1;
    let mut lies = net;
    lies[6] = 250;
    for (receive, net, lent) in
        [(Offloads::CHECKSUM, net, true), (Offloads::NONE, net, false), (Offloads::CHECKSUM, lies, false)]
    {
        let world = World::new(RingOptions { receive, ..OPTIONS }, 2048);
        hand_in(&world, 0, net, &sample.bytes, 12 + sample.bytes.len() as u32);
        let (frames, gone, tally) = world.poll(Taken::ALL);
        assert_eq!((frames.len(), gone), (usize::from(lent), 1), "{receive:?}");
        assert_eq!(tally.drops[DropReason::Malformed as usize], u64::from(!lent));
        assert_eq!(world.receive.fault(), None);
    }
}

#[test]
fn frames_that_are_none_are_dropped_and_their_buffers_used_again() {
    let plain = |buffers: u16| {
        let mut net = [0; 12];
        net[10..].copy_from_slice(&buffers.to_le_bytes());
        net
    };
    let cases = [
        (plain(1), 0, DropReason::Malformed),
        (plain(1), 11, DropReason::Malformed),
        (plain(1), 12, DropReason::Runt),
        (plain(1), 25, DropReason::Runt),
        (plain(0), 72, DropReason::Malformed),
        (plain(2), 72, DropReason::Malformed),
        (plain(65_535), 72, DropReason::Malformed),
    ];
    let world = World::new(OPTIONS, 2048);
    for (position, (net, written, reason)) in cases.into_iter().enumerate() {
        hand_in(&world, position as u16, net, &frame(1, 60), written);
        let (frames, gone, tally) = world.poll(Taken::ALL);
        assert_eq!((frames.len(), gone, tally.dropped()), (0, 1, 1), "{net:?} {written}");
        assert_eq!(tally.drops[reason as usize], 1, "{net:?} {written}");
    }
    hand_in(&world, cases.len() as u16, plain(1), &frame(1, 60), 72);
    assert_eq!(world.poll(Taken::ALL).0, [frame(1, 60)]);
    assert_eq!(world.receive.fault(), None);
}

#[test]
fn merged_frame_that_is_longer_than_any_is_dropped() {
    let world = World::new(OPTIONS, 4096);
    let mut net = [0; 12];
    net[10] = 20;
    for position in 0..20 {
        let buffer = world.fresh_buffer(position);
        world.memory.write(buffer, &net);
    }
    let used = (world.receive.layout().used - IOVA) as usize;
    for position in 0..20u64 {
        let entry = position | 4096 << 32;
        world.memory.write_u64(used + 4 + 8 * position as usize, entry);
    }
    world.memory.word(used + 2).store(20, Ordering::Release);
    let (frames, gone, tally) = world.poll(Taken::ALL);
    assert_eq!((frames.len(), gone), (0, 1));
    assert_eq!(tally.drops[DropReason::TooLong as usize], 1);
}

/// What a device does to its used ring.
type Misdeed<'a> = &'a dyn Fn(&World);

#[test]
fn device_that_breaks_a_rule_loses_its_queue_and_whoever_looks_after_it_is_told() {
    let index_jumps = |world: &World| world.write_used(2, &33u16.to_le_bytes());
    let overruns = |world: &World| world.use_buffer(0, 0, 2049);
    let unknown = |world: &World| world.use_buffer(0, 32, 72);
    let beyond = |world: &World| world.use_buffer(0, 0x1_0000, 72);
    let twice = |world: &World| {
        world.use_buffer(0, 5, 0);
        assert_eq!(world.poll(Taken::ALL).1, 1, "no frame, but no fault either");
        // Its buffer went to the head that was free longest: the same one, which is asked for again and again.
        world.use_buffer(1, 6, 0);
        world.use_buffer(2, 6, 0);
    };
    let cases: [(Misdeed<'_>, DeviceFault); 5] = [
        (&index_jumps, DeviceFault::IndexJump),
        (&overruns, DeviceFault::Overrun),
        (&unknown, DeviceFault::NotInFlight),
        (&beyond, DeviceFault::NotInFlight),
        (&twice, DeviceFault::NotInFlight),
    ];
    for (does, fault) in cases {
        let world = World::new(OPTIONS, 2048);
        assert!(!is_told(&world.trouble));
        does(&world);
        while world.poll(Taken::ALL).1 > 0 {}
        assert_eq!(world.receive.fault(), Some(fault));
        assert!(is_told(&world.trouble), "{fault:?}");
        assert_eq!((world.receive.arm(), world.poll(Taken::ALL).1), (Arming::Dead, 0));
        assert!(!is_told(&world.trouble), "once");
        assert_eq!(world.send(&[frame(0, 60)]).0, 1, "the other queue goes on");
        assert_eq!(world.drain(), [frame(0, 60)]);
    }
}

#[test]
fn transmit_queue_whose_device_lies_drops_what_it_is_given() {
    let world = World::new(OPTIONS, 2048);
    world.send(&[frame(0, 60)]);
    let used = (world.send.layout().used - IOVA) as usize;
    world.memory.word(used + 2).store(9, Ordering::Release);
    let (settled, tally) = world.send(&[frame(1, 60), frame(2, 60)]);
    assert_eq!((settled, tally.drops[DropReason::NotReady as usize]), (2, 2));
    assert_eq!(world.send.fault(), Some(DeviceFault::IndexJump));
    assert!(is_told(&world.trouble));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn order_and_bytes_stay_whatever_is_held(
        form in 0usize..4,
        rounds in prop::collection::vec((prop::collection::vec(14usize..9000, 0..8), any::<u64>()), 1..40),
    ) {
        let world = World::new(forms()[form], 2048);
        let mut sent: VecDeque<Vec<u8>> = VecDeque::new();
        let mut seed = 0u8;
        for (lens, taken) in rounds {
            let frames: Vec<Vec<u8>> = lens.iter().map(|&len| { seed = seed.wrapping_add(1); frame(seed, len) }).collect();
            let room = world.fill(&frames);
            sent.extend(frames[..room].iter().cloned());
            let (lent, gone, tally) = world.poll(Taken(taken));
            prop_assert_eq!(tally.dropped(), 0);
            prop_assert!(lent.iter().zip(&sent).all(|(lent, sent)| lent == sent) && lent.len() <= sent.len());
            let count = lent.len();
            let mut place = 0;
            let before = sent.len();
            sent.retain(|_| { place += 1; place > count || taken >> (place - 1) & 1 == 0 });
            prop_assert_eq!(before - sent.len(), gone);
            let all = world.send(&frames).0;
            prop_assert_eq!(world.drain(), &frames[..all]);
        }
        while !sent.is_empty() {
            let (lent, gone, _) = world.poll(Taken::ALL);
            prop_assert!(gone > 0);
            for frame in lent {
                prop_assert_eq!(Some(frame), sent.pop_front());
            }
        }
        prop_assert_eq!(world.receive.fault().or(world.send.fault()), None);
    }
}

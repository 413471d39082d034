//! Offloads from ring to ring: what a sender may ask for, and what each receiver gets of it; H numbers are those of the
//! hostile suite.

use super::*;
use crate::offload::testing::{KINDS, Sample, Shape, check, net};
use crate::offload::{NET_HEADER_LEN, SegmentKind};

const SIZE: u16 = 1000;
const PAYLOAD: usize = 4500;
const SEGMENTS: usize = 5;

/// What a frame asks, and what for.
struct Case {
    sample: Sample,
    net: [u8; 12],
    needs: Offloads,
    segments: usize,
}

fn wide(net: [u8; NET_HEADER_LEN]) -> [u8; 12] {
    std::array::from_fn(|at| net.get(at).copied().unwrap_or(0))
}

fn to_cut(kind: SegmentKind, ecn: bool) -> Case {
    let needs = match kind {
        SegmentKind::Tcp4 => Offloads::TSO4,
        SegmentKind::Tcp6 => Offloads::TSO6,
        SegmentKind::Udp4 => Offloads::USO4,
        SegmentKind::Udp6 => Offloads::USO6,
    };
    let sample = Sample::new(Shape::of(kind, PAYLOAD));
    let net = wide(sample.net_segments(SIZE, ecn));
    let needs = needs.with(Offloads::CHECKSUM).with_if(ecn, Offloads::ECN);
    Case { sample, net, needs, segments: SEGMENTS }
}

fn to_complete(kind: SegmentKind) -> Case {
    let sample = Sample::new(Shape::of(kind, 1400));
    let net = wide(sample.net_checksum());
    Case { sample, net, needs: Offloads::CHECKSUM, segments: 1 }
}

fn cases() -> Vec<Case> {
    let ecn = KINDS[..2].iter().map(|&kind| to_cut(kind, true));
    let cut = KINDS.iter().map(|&kind| to_cut(kind, false));
    KINDS.iter().map(|&kind| to_complete(kind)).chain(cut).chain(ecn).collect()
}

/// Every set that a driver may have negotiated.
fn sets() -> Vec<Offloads> {
    let each =
        [Offloads::CHECKSUM, Offloads::TSO4, Offloads::TSO6, Offloads::ECN, Offloads::USO4, Offloads::USO6];
    let set = |bits: usize| {
        let chosen = each.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
        chosen.fold(Offloads::NONE, |set, (_, &offload)| set.with(offload))
    };
    (0..1 << each.len()).map(set).filter(|set| set.consistent() == *set).collect()
}

fn sender(send: Offloads) -> World {
    World::with(16, RingOptions { send, ..OPTIONS })
}

/// A guest with `count` receive buffers of `len` bytes.
fn receiver(options: RingOptions, count: u16, len: u32) -> World {
    let mut world = World::with(16, options);
    post_buffers(&mut world, count, len);
    world
}

fn post_buffers(world: &mut World, count: u16, len: u32) {
    for _ in 0..count {
        let index = world.posted;
        world.describe(index, BUFFERS + u64::from(index) * u64::from(len), len, WRITE, 0);
        world.post(index);
    }
}

/// One poll of `from`, all of it offered to `to`. What was settled there, and the two tallies.
fn pass(from: &World, to: &World) -> (usize, Tally, Tally) {
    let (mut scratch, mut out) = (IngressScratch::default(), EgressScratch::default());
    let egress = crate::ring::egress(to.view.clone(), to.ring.clone());
    let mut settled = 0;
    from.ingress().ingress.poll(&mut scratch, &mut |burst| {
        let picks: Vec<u8> = (0..burst.len() as u8).collect();
        settled = egress.send(&mut out, burst, &picks);
        Taken(u64::MAX.checked_shr(64 - settled as u32).unwrap_or(0))
    });
    (settled, scratch.tally, out.tally)
}

/// The frames that lie in the guest's buffers, each with its net header.
fn received(world: &World, len: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let net_len = world.view.header_len();
    let mut frames = Vec::new();
    let mut used = world.used().into_iter();
    while let Some((head, written)) = used.next() {
        let mut bytes = world.get(BUFFERS + u64::from(head) * len, written as usize);
        let buffers = if net_len == 12 { u16::from_le_bytes([bytes[10], bytes[11]]) } else { 1 };
        for _ in 1..buffers {
            let (head, written) = used.next().unwrap();
            bytes.extend(world.get(BUFFERS + u64::from(head) * len, written as usize));
        }
        let frame = bytes.split_off(net_len);
        frames.push((bytes, frame));
    }
    frames
}

/// What a receiver without the offload gets: correct frames that ask for nothing and hold the whole payload.
fn assert_done_in_software(case: &Case, frames: &[(Vec<u8>, Vec<u8>)]) {
    let mut payload = Vec::new();
    for (net, frame) in frames {
        assert_eq!(net[..10], [0; 10]);
        payload.extend(check(frame).payload);
    }
    assert_eq!(frames.len(), case.segments);
    assert_eq!(payload, case.sample.bytes[case.sample.header_len..]);
}

#[test]
fn every_receiver_gets_what_it_negotiated_and_nothing_else() {
    for case in cases() {
        for receive in sets() {
            let mut from = sender(case.needs);
            from.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
            let to = receiver(RingOptions { receive, ..OPTIONS }, 16, 0x1000);
            let (settled, came, went) = pass(&from, &to);
            assert_eq!((settled, came.dropped(), went.frames), (1, 0, 1));
            assert_eq!(went.bytes, case.sample.bytes.len() as u64);
            let frames = received(&to, 0x1000);
            if receive.has(case.needs) {
                let (net, frame) = &frames[0];
                assert_eq!((frames.len(), went.segments), (1, 0));
                assert_eq!(frame, &case.sample.bytes);
                let [low, high] = (case.sample.header_len as u16).to_le_bytes();
                assert_eq!((&net[..2], &net[2..4]), (&case.net[..2], &[low, high][..]));
                assert_eq!(net[4..10], case.net[4..10]);
            } else {
                assert_done_in_software(&case, &frames);
                assert_eq!(went.segments, if case.segments > 1 { case.segments as u64 } else { 0 });
            }
        }
    }
}

#[test]
fn h07_what_a_sender_did_not_negotiate_is_malformed() {
    for case in cases() {
        for send in sets() {
            for chained in [false, true] {
                let mut from = sender(send);
                post(&mut from, &case, chained);
                let to = receiver(RingOptions { receive: Offloads::ALL, ..OPTIONS }, 4, 0x2000);
                let (settled, came, _) = pass(&from, &to);
                let malformed = came.drops[DropReason::Malformed as usize];
                let may = send.has(case.needs);
                assert_eq!((settled, malformed), if may { (1, 0) } else { (0, 1) });
                assert_eq!(to.used().is_empty(), !may);
            }
        }
    }
}

/// In one buffer, or in a chain that cuts the net header and the headers.
fn post(world: &mut World, case: &Case, chained: bool) {
    if !chained {
        return world.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
    }
    let bytes = [&case.net[..], &case.sample.bytes].concat();
    let ends = [0, 7, 9, 30, 47, 200, 1000, bytes.len()];
    for (index, pair) in ends.windows(2).enumerate() {
        let addr = BUFFERS + index as u64 * 0x2000;
        world.put(addr, &bytes[pair[0]..pair[1]]);
        let flags = if pair[1] < bytes.len() { NEXT } else { 0 };
        world.describe(index as u16, addr, (pair[1] - pair[0]) as u32, flags, index as u16 + 1);
    }
    world.post(0);
}

#[test]
fn frame_in_many_pieces_is_kept_completed_and_cut_as_well() {
    for case in cases() {
        for receive in [Offloads::ALL, Offloads::NONE] {
            let mut from = sender(Offloads::ALL);
            post(&mut from, &case, true);
            let to = receiver(RingOptions { receive, ..OPTIONS }, 16, 0x800);
            assert_eq!(pass(&from, &to).0, 1);
            let frames = received(&to, 0x800);
            match receive {
                Offloads::NONE => assert_done_in_software(&case, &frames),
                _ => assert_eq!(frames[0].1, case.sample.bytes),
            }
        }
    }
}

#[test]
fn segments_are_merged_over_small_buffers_and_fit_old_guests() {
    let case = to_cut(SegmentKind::Tcp4, false);
    let legacy = RingOptions { mergeable: false, version_1: false, ..OPTIONS };
    for (options, len) in [(OPTIONS, 400), (legacy, 1064)] {
        let mut from = sender(Offloads::ALL);
        from.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
        let to = receiver(options, 16, len);
        assert_eq!(pass(&from, &to).0, 1);
        assert_done_in_software(&case, &received(&to, u64::from(len)));
    }
}

#[test]
fn segments_are_all_or_nothing() {
    let case = to_cut(SegmentKind::Udp6, false);
    let mut from = sender(Offloads::ALL);
    from.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
    let mut to = receiver(OPTIONS, SEGMENTS as u16 - 1, 0x800);
    let (settled, _, went) = pass(&from, &to);
    assert_eq!((settled, went.frames, went.dropped()), (0, 0, 0));
    assert_eq!((to.used(), to.get(BUFFERS, 0x1000)), (vec![], vec![0; 0x1000]));
    post_buffers(&mut to, 1, 0x800);
    assert_eq!(pass(&from, &to).0, 1, "lent again");
    assert_done_in_software(&case, &received(&to, 0x800));
}

#[test]
fn segments_that_never_fit_are_too_long_and_others_go_on() {
    let too_long = |world: &World| {
        let case = to_cut(SegmentKind::Tcp4, false);
        let mut from = sender(Offloads::ALL);
        from.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
        from.post_frame(1, BUFFERS + 0x4000, &frame(1, 60));
        let (settled, _, went) = pass(&from, world);
        assert_eq!((settled, went.frames, went.segments), (2, 1, 0));
        assert_eq!(went.drops[DropReason::TooLong as usize], 1);
    };
    let mut small = World::with(4, OPTIONS);
    post_buffers(&mut small, 4, 0x800);
    too_long(&small);
    too_long(&receiver(RingOptions { mergeable: false, ..OPTIONS }, 16, 0x200));
}

#[test]
fn h01_to_h06_headers_that_lie_are_malformed() {
    let cut = to_cut(SegmentKind::Tcp4, false);
    let bytes = &cut.sample.bytes;
    let start = cut.sample.start as u16;
    let lies: [(&str, [u8; NET_HEADER_LEN]); 11] = [
        ("H01 start beyond the frame", net(1, 0, 0, 0, 5000, 16)),
        ("H01 field beyond the frame", net(1, 0, 0, 0, start, 5000)),
        ("H01 sum that wraps", net(1, 0, 0, 0, 0xffff, 0xffff)),
        ("H01 field in the addresses", net(1, 0, 0, 0, 0, 4)),
        ("H03 unknown type", net(1, 7, 0, SIZE, start, 16)),
        ("H03 UFO", net(1, 3, 0, SIZE, start, 16)),
        ("H03 ECN alone", net(1, 0x80, 0, SIZE, start, 16)),
        ("H03 type of another protocol", net(1, 5, 0, SIZE, start, 16)),
        ("H04 segments of no bytes", net(1, 1, 0, 0, start, 16)),
        ("H05 no NEEDS_CSUM", net(0, 1, 0, SIZE, start, 16)),
        ("checksum elsewhere", net(1, 1, 0, SIZE, start, 14)),
    ];
    for (lie, net) in lies {
        for chained in [false, true] {
            let mut from = sender(Offloads::ALL);
            post(&mut from, &Case { net: wide(net), ..to_cut(SegmentKind::Tcp4, false) }, chained);
            let to = receiver(RingOptions { receive: Offloads::ALL, ..OPTIONS }, 16, 0x1000);
            let (settled, came, _) = pass(&from, &to);
            assert_eq!((settled, came.drops[DropReason::Malformed as usize]), (0, 1), "{lie}");
            assert_eq!((from.used().len(), to.used()), (1, vec![]), "{lie}");
        }
    }
    for header_len in [0, 1, 0xffff] {
        let mut from = sender(Offloads::ALL);
        from.post_frame_behind(0, BUFFERS, &wide(net(1, 1, header_len, SIZE, start, 16)), bytes);
        let to = receiver(RingOptions { receive: Offloads::ALL, ..OPTIONS }, 16, 0x1000);
        assert_eq!(pass(&from, &to).0, 1, "H06 {header_len} is not believed");
        assert_eq!(received(&to, 0x1000)[0].0[2..4], [cut.sample.header_len as u8, 0]);
    }
}

#[test]
fn h02_sender_that_rewrites_its_headers_after_the_check_gains_nothing() {
    for receive in [Offloads::ALL, Offloads::NONE] {
        let case = to_cut(SegmentKind::Tcp4, false);
        let mut from = sender(Offloads::ALL);
        from.post_frame_behind(0, BUFFERS, &case.net, &case.sample.bytes);
        let to = receiver(RingOptions { receive, ..OPTIONS }, 16, 0x1000);
        let egress = crate::ring::egress(to.view.clone(), to.ring.clone());
        let mut out = EgressScratch::default();
        from.ingress().ingress.poll(&mut IngressScratch::default(), &mut |burst| {
            from.put(BUFFERS, &[0xff; 12 + 54]);
            egress.send(&mut out, burst, &[0]);
            Taken::ALL
        });
        let frames = received(&to, 0x1000);
        match receive {
            Offloads::NONE => assert_done_in_software(&case, &frames),
            _ => assert_eq!((&frames[0].1, frames[0].0[1]), (&case.sample.bytes, 1)),
        }
    }
}

/// 64 frames of 1,024 segments each would be 65,536 sends in one poll.
#[test]
fn frames_of_many_small_segments_end_a_burst_and_plain_ones_do_not() {
    let sample = Sample::new(Shape::of(SegmentKind::Udp4, 600));
    let tiny = Case {
        net: wide(sample.net_segments(1, false)),
        needs: Offloads::USO4.with(Offloads::CHECKSUM),
        segments: 600,
        sample,
    };
    for chained in [false, true] {
        let mut from = sender(Offloads::ALL);
        for index in 0..3 {
            let addr = BUFFERS + u64::from(index) * 0x1000;
            from.post_frame_behind(index, addr, &tiny.net, &tiny.sample.bytes);
        }
        from.post_frame(3, BUFFERS + 0x3000, &frame(1, 60));
        if chained {
            // The third one's net header is a buffer of its own.
            from.describe(2, BUFFERS + 0x2000, 12, NEXT, 4);
            from.describe(4, BUFFERS + 0x200c, tiny.sample.bytes.len() as u32, 0, 0);
        }
        assert_eq!(from.poll().frames.len(), 2, "1,200 segments");
        assert_eq!(from.poll().frames.len(), 2, "the rest, in order");
        assert_eq!(from.used().len(), 4);
    }
    let mut from = sender(Offloads::ALL);
    for index in 0..2 {
        let addr = BUFFERS + u64::from(index) * 0x1000;
        from.post_frame_behind(index, addr, &tiny.net, &tiny.sample.bytes);
    }
    (2..6).for_each(|index| from.post_frame(index, BUFFERS + u64::from(index) * 0x1000, &frame(1, 60)));
    assert_eq!(from.poll().frames.len(), 6);
}

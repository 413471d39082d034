//! Fuzz targets of the data plane, as plain tests. They also run under libFuzzer, from `dataplane/fuzz` (`tests/fuzz`).

mod harness;
mod headers;
mod rings;

use harness::{Random, fuzz};

#[test]
fn g29_no_split_ring_leads_its_walker_astray_even_while_it_is_rewritten() {
    fuzz("split", rings::split, rings);
}

#[test]
fn g29_no_packed_ring_leads_its_walker_astray_even_while_it_is_rewritten() {
    fuzz("packed", rings::packed, rings);
}

#[test]
fn no_net_header_is_believed_further_than_its_frame_bears_it_out() {
    fuzz("headers", headers::asked, headers);
}

#[test]
fn h13_h14_no_frame_is_read_past_its_end() {
    fuzz("frames", headers::plain, |random| headers(random).split_off(12));
}

#[test]
fn seed_makes_the_same_input_again_and_its_neighbour_another() {
    for seed in [0, 1, 2, u64::MAX - 1] {
        for make in [rings, headers] {
            let input = |seed| make(&mut Random::new(seed));
            assert_eq!(input(seed), input(seed));
            assert_ne!(input(seed), input(seed + 1));
        }
    }
}

/// An input of [`rings`]: how the ring is, then descriptors, four bytes each.
fn rings(random: &mut Random) -> Vec<u8> {
    let mut input: Vec<u8> = (0..8).map(|_| random.byte()).collect();
    for _ in 0..random.below(40) {
        let flags = random.of(&[0, 0, 1, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x82, 0x83, 0x84, 0x40, 0xc0]);
        input.extend([random.byte(), random.byte(), flags, random.byte() % 20]);
    }
    input
}

/// An input of [`headers`]: what both sides negotiated, a net header, and a frame that is nearly right.
fn headers(random: &mut Random) -> Vec<u8> {
    let (v4, tcp) = (random.below(2) == 0, random.below(2) == 0);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    (0..random.below(3)).for_each(|_| frame.extend([0x81, 0, 0, random.byte()]));
    frame.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
    let network = frame.len();
    let options = if random.below(4) == 0 { 4 * random.below(10) } else { 0 };
    if v4 {
        frame.extend([0x45 + options as u8 / 4, 0, 0, 0, 1, 2, 0, 0, 64, if tcp { 6 } else { 17 }, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; options]);
    } else {
        frame.extend([0x60, 0, 0, 0, 0, 0, if options > 0 { 0 } else { 6 }, 64]);
        frame.extend([0xfd; 32]);
        if options > 0 {
            let words = options / 8;
            frame.extend([if tcp { 6 } else { 17 }, words as u8]);
            frame.extend(vec![0; 6 + 8 * words]);
        } else if !tcp {
            frame[network + 6] = 17;
        }
    }
    let start = frame.len();
    frame.extend([0x12, 0x34, 0, 80]);
    if tcp {
        let words = random.of(&[5, 5, 8, 15]);
        frame.extend([0, 0, 0, 7, 0, 0, 0, 9, words << 4, random.byte(), 1, 0, 0, 0, 0, 0]);
        frame.extend(vec![1; 4 * (usize::from(words) - 5)]);
    } else {
        frame.extend([0; 4]);
    }
    let payload = random.of(&[0, 1, 2, 100, 1460, 3000, 20_000]);
    frame.extend((0..payload).map(|at| at as u8));
    let len = (frame.len() - network - if v4 { 0 } else { 40 }) as u16;
    frame[network + if v4 { 2 } else { 4 }..][..2].copy_from_slice(&len.to_be_bytes());
    let kind = match (v4, tcp) {
        (_, false) => 5,
        (true, true) => 1,
        (false, true) => 4,
    };
    let size = random.of(&[0u16, 1, 2, 536, 1448, 65_535]);
    let mut input = vec![random.byte() | (0x3f * (random.below(2) as u8)), random.byte()];
    input.extend([random.of(&[0, 1, 1, 1]), random.of(&[0, kind, kind, kind | 0x80, 2]), 0, 0]);
    input.extend(size.to_le_bytes());
    input.extend((start as u16).to_le_bytes());
    input.extend([if tcp { 16 } else { 6 }, 0]);
    for _ in 0..random.below(3) {
        let at = random.below(start + 20).min(frame.len() - 1);
        frame[at] = random.byte();
    }
    if random.below(8) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    input.extend(frame);
    input
}

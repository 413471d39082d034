//! Rings of any content, polled and filled while somebody else writes to them.
//!
//! Whatever is in there: nothing panics, no more frames come out than a poll may give, none is longer than a frame may be,
//! and not a byte is written outside the guest's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringyard_dataplane::frame::{BURST_FRAMES, BurstScratch, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{EgressScratch, IngressScratch};
use ringyard_dataplane::ring::{
    self, Mapping, MemoryTable, Region, Ring, RingLayout, RingOptions, RingSignals, RingView,
};

/// The guest's memory: two regions that touch in its addresses, and lie apart in the file, with space between and behind.
const GUEST: u64 = 0x10_0000;
const LOW_LEN: u64 = 0x8000;
const HIGH: u64 = GUEST + LOW_LEN;
const HIGH_LEN: u64 = 0x8000;
const HIGH_OFFSET: u64 = LOW_LEN + 0x1000;
const FILE_LEN: usize = (HIGH_OFFSET + HIGH_LEN) as usize + 0x1000;
/// Ring addresses are the front end's own.
const USER: u64 = 0x7f00_0000_0000;
/// Parts of the ring, and a table, by their place in the first region.
const DESC: usize = 0;
const AVAIL: usize = 0x1000;
const USED: usize = 0x2000;
const TABLE: usize = 0x3000;
const GAP: u64 = 0x6761_7067_6170_6761;

/// Runs the target on a split ring.
pub fn split(input: &[u8]) {
    run(input, false);
}

/// Runs the target on a packed ring.
pub fn packed(input: &[u8]) {
    run(input, true);
}

/// Eight bytes say how the ring is, four each what a descriptor is; the first half of these go to the ring, the others to
/// a table, and to the ring again while it is served.
fn run(input: &[u8], packed: bool) {
    let Some((&[size, options, base_low, base_high, ahead, taken, looks, race], rest)) =
        input.split_first_chunk()
    else {
        return;
    };
    let size = if packed { 1 + u16::from(size) % 40 } else { 1 << (size % 6) };
    let base = u16::from_le_bytes([base_low, base_high]);
    let guest = Guest::new(size, options, packed);
    let words: Vec<[u64; 2]> = rest.chunks_exact(4).map(|code| descriptor(code, packed)).collect();
    let (first, others) = words.split_at(words.len().div_ceil(2));
    for (place, words) in first.iter().take(size.into()).enumerate() {
        guest.write(DESC + 16 * place, *words);
    }
    for (place, words) in others.iter().take(64).enumerate() {
        guest.write(TABLE + 16 * place, *words);
    }
    let base = if packed { ((base & 0x7fff) % size) | (base & 0x8000) } else { base };
    guest.write_avail(base, u16::from(ahead), rest);
    let Ok(ring) = Ring::start(&guest.view, Some(base)) else { return };
    let ring = Arc::new(ring);
    if race & 1 == 0 {
        return guest.serve(&ring, taken, looks);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (turn, words) in others.iter().cycle().enumerate() {
                if stop.load(Ordering::Relaxed) || turn > 1 << 20 {
                    return;
                }
                guest.write(DESC + 16 * (turn * 7 % usize::from(size)), *words);
                guest.write_avail(base.wrapping_add(turn as u16), 1, &[turn as u8]);
            }
        });
        guest.serve(&ring, taken, looks);
        stop.store(true, Ordering::Relaxed);
    });
}

/// From the code of a descriptor: where it is, how long, its flags, and what follows or what it is called.
fn descriptor(code: &[u8], packed: bool) -> [u64; 2] {
    let near = GUEST + 0x4000 + 0x100 * u64::from(code[3]);
    let addr = match code[0] % 12 {
        0 => HIGH - u64::from(code[1]),
        1 => HIGH + HIGH_LEN - u64::from(code[1]),
        2 => GUEST + TABLE as u64 + u64::from(code[0] / 12),
        3 => u64::MAX - u64::from(code[1]),
        4 => GUEST + USED as u64,
        5 => 0,
        _ => near,
    };
    let lens = [0, 1, 2, 10, 12, 16, 26, 32, 64, 100, 160, 1500, 4096, 65_600, u32::MAX];
    let len = if code[1] < 128 { u32::from(code[1]) } else { lens[usize::from(code[1]) % lens.len()] };
    let low = u64::from(code[2] & 7);
    // Of a packed ring the upper bits say whose it is.
    let flags = if packed { low | u64::from(code[2] & 0x80) | u64::from(code[2] & 0x40) << 9 } else { low };
    let next = u64::from(code[3]);
    let rest = if packed { next << 32 | flags << 48 } else { flags << 32 | next << 48 };
    [addr, u64::from(len) | rest]
}

struct Guest {
    mapping: Arc<Mapping>,
    view: Arc<RingView>,
    packed: bool,
}

impl Guest {
    fn new(size: u16, options: u8, packed: bool) -> Guest {
        let mapping = Arc::new(Mapping::memfd("fuzzed", FILE_LEN).expect("memory").0);
        for gap in [LOW_LEN as usize, FILE_LEN - 0x1000] {
            mapping.words(gap, 0x200).iter().for_each(|word| word.store(GAP, Ordering::Relaxed));
        }
        let region = |guest_addr, len, offset| Region {
            guest_addr,
            user_addr: guest_addr + USER,
            len,
            offset,
            mapping: mapping.clone(),
        };
        let regions = vec![region(GUEST, LOW_LEN, 0), region(HIGH, HIGH_LEN, HIGH_OFFSET)];
        let has = |bit: u8| options >> bit & 1 == 1;
        let some = if has(6) { Offloads::ALL } else { Offloads::NONE };
        let options = RingOptions {
            packed,
            in_order: has(0),
            event_idx: has(1),
            indirect: !has(2),
            mergeable: has(3),
            version_1: !has(4),
            send: some,
            receive: if has(5) { some } else { Offloads::NONE },
        };
        let at = |part: usize| GUEST + USER + part as u64;
        let layout = RingLayout { size, desc: at(DESC), avail: at(AVAIL), used: at(USED) };
        let memory = Arc::new(MemoryTable::new(regions).expect("a good table"));
        let view = RingView::new(memory, layout, options, RingSignals::default()).expect("a good place");
        Guest { mapping, view: Arc::new(view), packed }
    }

    fn write(&self, at: usize, words: [u64; 2]) {
        for (place, word) in self.mapping.words(at, 2).iter().zip(words) {
            place.store(word, Ordering::Release);
        }
    }

    /// Of a split ring: makes heads available.
    fn write_avail(&self, base: u16, ahead: u16, heads: &[u8]) {
        if self.packed {
            return;
        }
        for (word, heads) in self.mapping.words(AVAIL + 8, 8).iter().zip(heads.chunks_exact(4)) {
            let entries = heads.iter().rev().fold(0, |word, &head| word << 16 | u64::from(head % 36));
            word.store(entries, Ordering::Relaxed);
        }
        let first = &self.mapping.words(AVAIL, 1)[0];
        let index = u64::from(base.wrapping_add(ahead)) << 16;
        first.store(first.load(Ordering::Relaxed) & !0xffff_0000 | index, Ordering::Release);
    }

    /// Polls and fills the ring a few times.
    fn serve(&self, ring: &Arc<Ring>, taken: u8, looks: u8) {
        let end = ring::ingress(self.view.clone(), ring.clone(), 0, None);
        let egress = ring::egress(self.view.clone(), ring.clone());
        let (mut ingress_scratch, mut egress_scratch) = Default::default();
        let mask = u64::from(taken) | u64::from(taken) << 9 | u64::from(taken) << 22;
        for look in 0..1 + looks % 4 {
            if looks & 8 == 0 {
                let gone = poll(&end, &mut ingress_scratch, if taken & 1 == 0 { u64::MAX } else { mask });
                assert!(gone <= BURST_FRAMES);
            }
            if looks & 16 == 0 {
                send(&*egress, &mut egress_scratch, 60 + usize::from(look) * 700);
            }
            if looks & 32 != 0 {
                end.doorbell.arm();
            }
        }
        ring.settle(&self.view);
        for gap in [LOW_LEN as usize, FILE_LEN - 0x1000] {
            let words = self.mapping.words(gap, 0x200);
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == GAP), "nothing is written there");
        }
    }
}

fn poll(end: &ring::RingEnd, scratch: &mut IngressScratch, taken: u64) -> usize {
    let mut bytes = vec![0; FRAME_LEN_MAX];
    end.ingress.poll(scratch, &mut |burst| {
        assert!(burst.len() <= BURST_FRAMES);
        for frame in burst.frames() {
            assert!((14..=FRAME_LEN_MAX).contains(&frame.len()));
            assert_eq!(frame.copy_to(&mut bytes), Some(frame.len()));
        }
        Taken(taken)
    })
}

fn send(egress: &dyn ringyard_dataplane::port::Egress, scratch: &mut EgressScratch, len: usize) {
    let frame = vec![0xa5; len];
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    builder.push_slice(&frame[..60]).expect("a frame");
    builder.push_slice(&frame).expect("a frame");
    let before = scratch.tally.frames + scratch.tally.dropped();
    let settled = egress.send(scratch, &builder.burst(), &[0, 1]);
    assert_eq!(scratch.tally.frames + scratch.tally.dropped() - before, settled as u64);
}

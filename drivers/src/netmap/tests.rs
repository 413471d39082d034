//! The rings against a kernel of our own: a memory file with the layout of `net/netmap.h` that it fills and empties when it
//! is called, as netmap(4) says, and that can be made to lie.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, BurstScratch, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{Arming, Doorbell as _, EgressScratch, Ingress as _, IngressScratch, Tally};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use super::memory::{IF_HOST_RX_RINGS, IF_HOST_TX_RINGS, IF_RING_OFS, IF_RX_RINGS, IF_TX_RINGS};
use super::memory::{RING_BUF_SIZE, RING_CUR, RING_HEAD, RING_NUM_SLOTS, RING_SLOTS, RING_TAIL, SLOT_LEN};
use super::queue::Kernel;
use super::*;

const MEMORY_LEN: u64 = 4 << 20;
const IF_AT: u64 = 128;
const OUT_AT: u64 = 8192;
const IN_AT: u64 = 65_536;
const BUFFERS_AT: u64 = 1 << 20;
const BUFFER_LEN: usize = 2048;
const SLOTS: u32 = 256;
const MOREFRAG: u16 = 0x20;

/// A port with a ring each way whose other end the test holds.
struct Fake {
    memory: OwnedFd,
    /// What came out of the transmit ring.
    sent: Mutex<VecDeque<Vec<u8>>>,
    /// What goes into the receive ring at the next call.
    waiting: Mutex<VecDeque<Vec<u8>>>,
    /// Indexes as the kernel keeps them: from where on slots of the transmit ring are ours to send, and from where on
    /// those of the receive ring are free.
    next_out: Mutex<u32>,
    next_in: Mutex<u32>,
    /// Nothing is taken from the transmit ring.
    stuck: AtomicBool,
    gone: AtomicBool,
}

impl Fake {
    fn new() -> Fake {
        let memory = memfd_create("netmap", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, MEMORY_LEN).unwrap();
        let fake = Fake {
            memory,
            sent: Mutex::default(),
            waiting: Mutex::default(),
            next_out: Mutex::new(0),
            next_in: Mutex::new(0),
            stuck: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        };
        for (field, count) in
            [(IF_TX_RINGS, 1), (IF_RX_RINGS, 1), (IF_HOST_TX_RINGS, 1), (IF_HOST_RX_RINGS, 1)]
        {
            fake.put_word(IF_AT + field as u64, count);
        }
        // Out, host out, in, host in; those of the host are not bound.
        fake.put_long(IF_AT + IF_RING_OFS as u64, (OUT_AT - IF_AT) as i64);
        fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, (IN_AT - IF_AT) as i64);
        fake.make_ring(OUT_AT, SLOTS - 1, 0);
        fake.make_ring(IN_AT, 0, SLOTS);
        fake
    }

    fn make_ring(&self, at: u64, tail: u32, first_buffer: u32) {
        self.put_long(at, (BUFFERS_AT - at) as i64);
        self.put_word(at + RING_NUM_SLOTS as u64, SLOTS);
        self.put_word(at + RING_BUF_SIZE as u64, BUFFER_LEN as u32);
        self.put_word(at + RING_TAIL as u64, tail);
        for slot in 0..SLOTS {
            self.put_word(slot_at(at, slot), first_buffer + slot);
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.memory, bytes, at).unwrap(), bytes.len());
    }

    fn put_word(&self, at: u64, word: u32) {
        self.put(at, &word.to_ne_bytes());
    }

    fn put_long(&self, at: u64, long: i64) {
        self.put(at, &long.to_ne_bytes());
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        assert_eq!(pread(&self.memory, &mut bytes, at).unwrap(), 4);
        u32::from_ne_bytes(bytes)
    }

    fn slot(&self, ring: u64, slot: u32) -> (u32, usize, u16) {
        let [a, b, c, d] = self.word(slot_at(ring, slot) + 4).to_ne_bytes();
        (self.word(slot_at(ring, slot)), u16::from_ne_bytes([a, b]).into(), u16::from_ne_bytes([c, d]))
    }

    fn set_slot(&self, ring: u64, slot: u32, len: u16, flags: u16) {
        self.put(slot_at(ring, slot) + 4, &[len.to_ne_bytes(), flags.to_ne_bytes()].concat());
    }

    fn region(&self) -> Arc<Region> {
        Arc::new(Region::map(self.memory.as_fd(), MEMORY_LEN).unwrap())
    }

    fn ring(&self, way: Way, index: u32) -> Result<Ring, String> {
        Ring::find(&self.region(), IF_AT, way, index)
    }
}

fn slot_at(ring: u64, slot: u32) -> u64 {
    ring + RING_SLOTS as u64 + u64::from(slot) * SLOT_LEN as u64
}

impl AsFd for Fake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl Kernel for Fake {
    fn sync_out(&self) -> Result<(), Errno> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Errno::NXIO);
        }
        let head = self.word(OUT_AT + RING_HEAD as u64);
        assert_eq!(head, self.word(OUT_AT + RING_CUR as u64));
        if self.stuck.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (mut next, mut frame) = (self.next_out.lock().unwrap(), Vec::new());
        while *next != head {
            let (buffer, len, flags) = self.slot(OUT_AT, *next);
            assert!(len <= BUFFER_LEN);
            let mut bytes = vec![0; len];
            pread(&self.memory, &mut bytes, BUFFERS_AT + u64::from(buffer) * BUFFER_LEN as u64).unwrap();
            frame.extend(bytes);
            if flags & MOREFRAG == 0 {
                self.sent.lock().unwrap().push_back(std::mem::take(&mut frame));
            }
            *next = (*next + 1) % SLOTS;
        }
        assert!(frame.is_empty(), "a frame has no end");
        self.put_word(OUT_AT + RING_TAIL as u64, (*next + SLOTS - 1) % SLOTS);
        Ok(())
    }

    fn sync_in(&self) -> Result<(), Errno> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Errno::NXIO);
        }
        let (head, cur) = (self.word(IN_AT + RING_HEAD as u64), self.word(IN_AT + RING_CUR as u64));
        let mut next = self.next_in.lock().unwrap();
        assert!((cur + SLOTS - head) % SLOTS <= (*next + SLOTS - head) % SLOTS, "cur is beyond the tail");
        let mut waiting = self.waiting.lock().unwrap();
        while let Some(frame) = waiting.front() {
            let needed = frame.len().div_ceil(BUFFER_LEN).max(1) as u32;
            let free = (head + SLOTS - 1 - *next) % SLOTS;
            if needed > free {
                break;
            }
            let parts: Vec<&[u8]> =
                if frame.is_empty() { vec![&[]] } else { frame.chunks(BUFFER_LEN).collect() };
            for (index, part) in parts.iter().enumerate() {
                let (buffer, ..) = self.slot(IN_AT, *next);
                self.put(BUFFERS_AT + u64::from(buffer) * BUFFER_LEN as u64, part);
                let more = if index + 1 < parts.len() { MOREFRAG } else { 0 };
                self.set_slot(IN_AT, *next, part.len() as u16, more);
                *next = (*next + 1) % SLOTS;
            }
            waiting.pop_front();
        }
        self.put_word(IN_AT + RING_TAIL as u64, *next);
        Ok(())
    }
}

/// Both ends of a port over `kernel`.
struct Ends {
    kernel: Arc<Fake>,
    inlet: Inlet<Fake>,
    outlet: Outlet<Fake>,
    health: Arc<Health>,
}

fn ends(net_header_len: usize) -> Ends {
    ends_of(Fake::new(), net_header_len)
}

fn ends_of(fake: Fake, net_header_len: usize) -> Ends {
    let (kernel, health) = (Arc::new(fake), Arc::new(Health::new().unwrap()));
    let (inward, out) = (kernel.ring(Way::In, 0).unwrap(), kernel.ring(Way::Out, 0).unwrap());
    let inlet = Inlet::new(kernel.clone(), inward, 0, net_header_len, health.clone());
    let outlet = Outlet::new(kernel.clone(), out, net_header_len, health.clone());
    Ends { kernel, inlet, outlet, health }
}

impl Ends {
    fn send(&self, frames: &[Vec<u8>]) -> (usize, Tally) {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        let mut egress = EgressScratch::default();
        let settled = self.outlet.send(&mut egress, &builder.burst(), &picks);
        (settled, egress.tally)
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.kernel.sent.lock().unwrap().drain(..).collect()
    }

    fn bring(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.kernel.waiting.lock().unwrap().extend(frames);
        self.inlet.disarm();
    }

    /// Polls once; what was lent, how many are gone, and what was dropped.
    fn poll(&self, taken: Taken) -> (Vec<Vec<u8>>, usize, Tally) {
        let mut scratch = IngressScratch::default();
        let mut lent = Vec::new();
        let gone = self.inlet.poll(&mut scratch, &mut |burst: &Burst<'_>| {
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes).unwrap();
                lent.push(bytes);
            }
            taken
        });
        (lent, gone, scratch.tally)
    }
}

fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at) as u8).collect()
}

#[test]
fn frames_of_all_lengths_pass_both_ways_over_the_rings_end() {
    let ends = ends(0);
    let lens = [14, 60, 1514, 2048, 2049, 4096, 9014, FRAME_LEN_MAX];
    for round in 0..200 {
        let frames = vec![frame(round, lens[round % lens.len()]), frame(round + 1, 60)];
        let (settled, tally) = ends.send(&frames);
        assert_eq!((settled, tally.frames, tally.dropped()), (2, 2, 0));
        let sent = ends.sent();
        assert_eq!(sent, frames, "round {round}");
        ends.bring(sent);
        let (lent, gone, tally) = ends.poll(Taken::ALL);
        assert_eq!((lent, gone, tally.dropped()), (frames, 2, 0), "round {round}");
    }
    assert!(!ends.health.has_failed());
}

#[test]
fn held_frames_keep_their_slots_and_are_lent_again_in_order() {
    let ends = ends(0);
    let frames: Vec<Vec<u8>> = (0..4).map(|number| frame(number, 3000)).collect();
    ends.bring(frames.clone());
    assert_eq!(ends.poll(Taken(0b0100)).0, frames);
    assert_eq!(ends.kernel.word(IN_AT + RING_HEAD as u64), 0, "the first is held");
    assert_eq!(ends.kernel.word(IN_AT + RING_CUR as u64), 8, "all were seen");
    // The kernel comes round, but not over what is held.
    ends.bring((0..SLOTS as usize).map(|number| frame(number, 60)));
    ends.kernel.sync_in().unwrap();
    let held = [&frames[0], &frames[1], &frames[3]].map(Vec::clone);
    assert_eq!(ends.poll(Taken(0b001)).0, held);
    assert_eq!(ends.kernel.word(IN_AT + RING_HEAD as u64), 2);
    assert_eq!(ends.inlet.arm(), Arming::Work);
    assert_eq!(ends.poll(Taken::ALL).0, held[1..]);
    let mut rest = 0;
    while rest < SLOTS as usize {
        let (lent, gone, _) = ends.poll(Taken::ALL);
        assert_eq!(lent, (rest..rest + gone).map(|number| frame(number, 60)).collect::<Vec<_>>());
        assert!(gone > 0);
        rest += gone;
    }
    assert_eq!((ends.poll(Taken::ALL).1, ends.inlet.arm()), (0, Arming::Quiet));
    let head = ends.kernel.word(IN_AT + RING_HEAD as u64);
    assert_eq!(head, *ends.kernel.next_in.lock().unwrap(), "all slots are given back");
}

#[test]
fn empty_ring_is_asked_once_and_then_left_alone_until_it_rings() {
    let ends = ends(0);
    assert_eq!(ends.poll(Taken::ALL).1, 0);
    ends.kernel.waiting.lock().unwrap().push_back(frame(0, 60));
    assert_eq!(ends.poll(Taken::ALL).1, 0, "no call for each look");
    ends.inlet.disarm();
    assert_eq!(ends.poll(Taken::ALL).1, 1);
}

#[test]
fn full_ring_has_no_room_and_the_thread_is_told_to_look_again() {
    let ends = ends(0);
    ends.kernel.stuck.store(true, Ordering::Relaxed);
    let burst: Vec<Vec<u8>> = (0..BURST_FRAMES).map(|number| frame(number, 60)).collect();
    let mut settled = 0;
    for _ in 0..5 {
        let (count, tally) = ends.send(&burst);
        assert_eq!((count as u64, tally.dropped()), (tally.frames, 0));
        settled += count;
    }
    assert_eq!(settled, SLOTS as usize - 1);
    assert!(ends.health.wants_flush() && ends.outlet.flush());
    ends.kernel.stuck.store(false, Ordering::Relaxed);
    assert!(!ends.outlet.flush());
    assert_eq!(ends.sent().len(), settled);
    assert_eq!(ends.send(&burst).0, BURST_FRAMES);
    assert!(!ends.health.wants_flush(), "the kernel took it all");
}

#[test]
fn frame_that_no_ring_or_packet_can_hold_is_too_long() {
    let ends = ends(0);
    ends.health.set_mtu(1500);
    let (settled, tally) = ends.send(&[frame(0, 1515), frame(1, 1514)]);
    assert_eq!((settled, tally.frames, tally.drops[DropReason::TooLong as usize]), (2, 1, 1));
    assert_eq!(ends.sent(), [frame(1, 1514)]);
}

/// A UDP frame over IPv4 with `payload` bytes, to be cut to datagrams of 100 bytes, and the net header that says so.
fn datagrams(payload: usize) -> ([u8; 10], Vec<u8>) {
    let mut frame = vec![7; 42 + payload];
    (frame[12], frame[13], frame[14], frame[20], frame[21], frame[23]) = (8, 0, 0x45, 0, 0, 17);
    ([1, 5, 0, 0, 100, 0, 34, 0, 6, 0], frame)
}

#[test]
fn net_header_goes_in_front_of_each_frame_and_is_believed_only_if_true() {
    for len in [10, 12] {
        let ends = ends(len);
        ends.send(&[frame(1, 3000)]);
        let sent = ends.sent().remove(0);
        assert_eq!((sent.len(), &sent[len..]), (3000 + len, &frame(1, 3000)[..]));
        ends.bring([sent]);
        assert_eq!(ends.poll(Taken::ALL).0, [frame(1, 3000)]);
        let (net, packet) = datagrams(250);
        let asking = |net: &[u8]| [net, &[0, 0][..len - 10], &packet].concat();
        ends.bring([
            asking(&net),
            asking(&[1, 9, 0, 0, 100, 0, 34, 0, 6, 0]),
            vec![0; len - 1],
            vec![0; len + 13],
        ]);
        let (lent, gone, tally) = ends.poll(Taken::ALL);
        assert_eq!((lent, gone), (vec![packet.clone()], 4));
        let drops = |reason: DropReason| tally.drops[reason as usize];
        assert_eq!((drops(DropReason::Malformed), drops(DropReason::Runt)), (2, 1));
    }
}

#[test]
fn offload_is_done_before_where_the_port_has_no_header() {
    let (net, packet) = datagrams(250);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_asking(&net, &packet, Offloads::ALL).unwrap();
    let ends = ends(0);
    let mut egress = EgressScratch::default();
    assert_eq!(ends.outlet.send(&mut egress, &builder.burst(), &[0]), 1);
    assert_eq!((egress.tally.frames, egress.tally.segments), (1, 3));
    let lens: Vec<usize> = ends.sent().iter().map(Vec::len).collect();
    assert_eq!(lens, [142, 142, 92]);
}

#[test]
fn s08_ring_that_does_not_lie_in_the_memory_is_refused() {
    type Lie = fn(&Fake);
    let lies: [(&str, Lie); 15] = [
        ("more rings than there can be", |fake| fake.put_word(IF_AT + IF_TX_RINGS as u64, u32::MAX)),
        ("no ring", |fake| {
            fake.put_word(IF_AT + IF_RX_RINGS as u64, 0);
            fake.put_word(IF_AT + IF_HOST_RX_RINGS as u64, 0);
        }),
        ("ring not bound", |fake| fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, 0)),
        ("ring behind the memory", |fake| fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, MEMORY_LEN as i64)),
        ("ring before the memory", |fake| fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, -1 - IF_AT as i64)),
        ("ring at the end of numbers", |fake| fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, i64::MAX)),
        ("ring at an odd place", |fake| {
            fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, (IN_AT - IF_AT) as i64 + 4)
        }),
        ("ring that ends behind the memory", |fake| {
            fake.put_long(IF_AT + IF_RING_OFS as u64 + 16, (MEMORY_LEN - IF_AT - 264) as i64);
        }),
        ("no slots", |fake| fake.put_word(IN_AT + RING_NUM_SLOTS as u64, 0)),
        ("one slot", |fake| fake.put_word(IN_AT + RING_NUM_SLOTS as u64, 1)),
        ("slots behind the memory", |fake| fake.put_word(IN_AT + RING_NUM_SLOTS as u64, 1 << 19)),
        ("slots without end", |fake| fake.put_word(IN_AT + RING_NUM_SLOTS as u64, u32::MAX)),
        ("buffers of nothing", |fake| fake.put_word(IN_AT + RING_BUF_SIZE as u64, 0)),
        ("buffers of everything", |fake| fake.put_word(IN_AT + RING_BUF_SIZE as u64, u32::MAX)),
        ("buffers behind the memory", |fake| fake.put_long(IN_AT, MEMORY_LEN as i64)),
    ];
    for (what, lie) in lies {
        let fake = Fake::new();
        assert!(fake.ring(Way::In, 0).is_ok());
        lie(&fake);
        let found = fake.ring(Way::In, 0);
        assert!(found.is_err(), "{what}: {found:?}");
    }
    let fake = Fake::new();
    for interface in [MEMORY_LEN, MEMORY_LEN - 8, u64::MAX, u64::MAX - 60, 1] {
        assert!(Ring::find(&fake.region(), interface, Way::In, 0).is_err(), "{interface}");
    }
    assert!(fake.ring(Way::In, 2).is_err() && fake.ring(Way::Out, 1).is_err());
}

#[test]
fn s08_words_that_change_after_that_change_nothing_else() {
    let ends = ends(0);
    for (field, word) in [(RING_NUM_SLOTS, u32::MAX), (RING_BUF_SIZE, 1 << 30)] {
        ends.kernel.put_word(IN_AT + field as u64, word);
        ends.kernel.put_word(OUT_AT + field as u64, word);
    }
    ends.kernel.put_long(IN_AT, i64::MAX);
    ends.kernel.put_long(OUT_AT, i64::MIN);
    ends.send(&[frame(1, 5000)]);
    ends.bring(ends.sent());
    assert_eq!(ends.poll(Taken::ALL).0, [frame(1, 5000)]);
}

#[test]
fn s08_slots_that_lie_are_malformed_and_the_port_goes_on() {
    let ends = ends(0);
    let cases: [fn(&Fake); 3] = [
        |fake| fake.put_word(slot_at(IN_AT, 1), u32::MAX),
        |fake| fake.put_word(slot_at(IN_AT, 1), (MEMORY_LEN / BUFFER_LEN as u64) as u32),
        |fake| fake.set_slot(IN_AT, 1, u16::MAX, 0),
    ];
    for lie in cases {
        let ends = self::ends(0);
        ends.bring((0..3).map(|number| frame(number, 60)));
        ends.kernel.sync_in().unwrap();
        lie(&ends.kernel);
        let (lent, gone, tally) = ends.poll(Taken::ALL);
        assert_eq!((lent, gone), (vec![frame(0, 60), frame(2, 60)], 3));
        assert_eq!(tally.drops[DropReason::Malformed as usize], 1);
        assert!(!ends.health.has_failed());
    }
    // A frame without an end fills the ring, and goes.
    ends.bring((0..SLOTS as usize).map(|number| frame(number, 60)));
    ends.kernel.sync_in().unwrap();
    (0..SLOTS).for_each(|slot| ends.kernel.set_slot(IN_AT, slot, 60, MOREFRAG));
    let (lent, gone, tally) = ends.poll(Taken::ALL);
    assert_eq!((lent.len(), gone, tally.dropped()), (0, 1, 1));
    assert_eq!(ends.poll(Taken::ALL).0, [frame(SLOTS as usize - 1, 60)]);
}

#[test]
fn s08_frame_without_an_end_is_waited_for_and_keeps_nobody_busy() {
    let ends = ends(0);
    ends.bring((0..2).map(|number| frame(number, 60)));
    ends.kernel.sync_in().unwrap();
    ends.kernel.set_slot(IN_AT, 1, 60, MOREFRAG);
    assert_eq!(ends.poll(Taken::ALL).0, [frame(0, 60)]);
    for _ in 0..2 {
        assert_eq!(ends.poll(Taken::ALL).1, 0);
        assert_eq!(ends.inlet.arm(), Arming::Quiet);
        assert_eq!(ends.kernel.word(IN_AT + RING_CUR as u64), 2, "the kernel rings when there is more");
        ends.inlet.disarm();
    }
    ends.bring((2..4).map(|number| frame(number, 60)));
    ends.kernel.sync_in().unwrap();
    assert_eq!(ends.inlet.arm(), Arming::Work);
    let joined = [frame(1, 60), frame(2, 60)].concat();
    assert_eq!(ends.poll(Taken::ALL).0, [joined, frame(3, 60)]);
    assert_eq!((ends.poll(Taken::ALL).1, ends.inlet.arm()), (0, Arming::Quiet));
    assert!(!ends.health.has_failed());
}

#[test]
fn s08_index_outside_of_its_ring_ends_the_port_and_harms_nothing() {
    for index in [SLOTS, u32::MAX] {
        let ends = ends(0);
        ends.kernel.put_word(IN_AT + RING_TAIL as u64, index);
        assert_eq!(ends.poll(Taken::ALL).1, 0);
        assert!(ends.health.has_failed());
        assert_eq!(ends.inlet.arm(), Arming::Dead);
        let (settled, tally) = ends.send(&[frame(0, 60)]);
        assert_eq!((settled, tally.drops[DropReason::IoError as usize]), (1, 1));
    }
    // Any index of the ring is possible: what is stale is lent, and it is not ours to say what it is.
    let ends = ends(0);
    ends.kernel.put_word(IN_AT + RING_TAIL as u64, SLOTS - 1);
    let gone: usize = (0..4).map(|_| ends.poll(Taken::ALL).1).sum();
    assert!(gone >= SLOTS as usize - 1, "runts, all of them");
    // A slot to be filled that has no buffer.
    let fake = Fake::new();
    fake.put_word(slot_at(OUT_AT, 1), u32::MAX);
    let ends = ends_of(fake, 0);
    let (settled, tally) = ends.send(&[frame(0, 60), frame(1, 60), frame(2, 60)]);
    assert_eq!((settled, tally.frames, tally.drops[DropReason::IoError as usize]), (1, 0, 1));
    assert!(ends.health.has_failed());
}

#[test]
fn port_whose_card_is_gone_costs_the_frames_and_wakes_the_thread() {
    let ends = ends(0);
    ends.kernel.gone.store(true, Ordering::Relaxed);
    let (settled, tally) = ends.send(&[frame(0, 60), frame(1, 60)]);
    assert_eq!((settled, tally.frames, tally.drops[DropReason::IoError as usize]), (2, 0, 2));
    assert!(ends.health.has_failed());
    ends.health.recover();
    assert_eq!((ends.poll(Taken::ALL).1, ends.health.has_failed()), (0, true));
}

/// What a kernel answers for a card with that many rings.
fn reply(out: u16, inward: u16, host: u16) -> Register {
    Register {
        nr_tx_rings: out,
        nr_rx_rings: inward,
        nr_host_tx_rings: host,
        nr_host_rx_rings: host,
        ..Register::default()
    }
}

#[test]
fn each_pair_of_rings_that_is_wanted_is_bound_once() {
    let pairs = |name: &str, reply| {
        let pairs = PortName::parse(name).unwrap().pairs(&reply);
        pairs.iter().map(|pair| (pair.mode, pair.ring, pair.out, pair.inward)).collect::<Vec<_>>()
    };
    let (nic, sw) = (abi::MODE_ONE_NIC, abi::MODE_ONE_SW);
    assert_eq!(pairs("em0", reply(2, 2, 1)), [(nic, 0, Some(0), Some(0)), (nic, 1, Some(1), Some(1))]);
    assert_eq!(pairs("em0", reply(1, 2, 1)), [(nic, 0, Some(0), Some(0)), (nic, 1, None, Some(1))]);
    assert_eq!(pairs("em0-1", reply(2, 2, 1)), [(nic, 1, Some(1), Some(1))]);
    assert_eq!(pairs("em0^", reply(4, 2, 0)), [(sw, 0, Some(4), Some(2))]);
    assert_eq!(pairs("em0^1", reply(4, 2, 2)), [(sw, 1, Some(5), Some(3))]);
    assert_eq!(pairs("em0*", reply(1, 1, 1)), [(nic, 0, Some(0), Some(0)), (sw, 0, Some(1), Some(1))]);
    assert_eq!(pairs("em0/R", reply(2, 1, 1)), [(nic, 0, None, Some(0))]);
    assert_eq!(pairs("em0/T", reply(2, 1, 1)), [(nic, 0, Some(0), None), (nic, 1, Some(1), None)]);
}

#[test]
fn requests_say_what_the_name_says() {
    let request = |name: &str| {
        let request = PortName::parse(name).unwrap().request();
        (request.nr_mode, request.nr_ringid, request.nr_flags, request.nr_mem_id)
    };
    let usual = abi::NO_TX_POLL | abi::ACCEPT_VNET_HDR;
    assert_eq!(request("em0"), (abi::MODE_ALL_NIC, 0, usual, 0));
    assert_eq!(request("em0^@3"), (abi::MODE_SW, 0, usual, 3));
    assert_eq!(request("em0*"), (abi::MODE_NIC_SW, 0, usual, 0));
    assert_eq!(request("em0-2"), (abi::MODE_ONE_NIC, 2, usual, 0));
    assert_eq!(request("em0^2/T"), (abi::MODE_ONE_SW, 2, usual | abi::TX_RINGS_ONLY, 0));
    assert_eq!(request("em0/xR"), (abi::MODE_ONE_NIC, 0, usual | abi::EXCLUSIVE | abi::RX_RINGS_ONLY, 0));
}

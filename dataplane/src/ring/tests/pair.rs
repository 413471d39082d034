//! Our driver's end against our device's end of the same ring, in both forms, with random chains and random takers.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::port::Egress;
use crate::ring::{DriverMemory, DriverOptions, DriverRing, Part, Used};

pub(super) const MEMORY_LEN: usize = 0x40_0000;
/// For indirect tables and buffers: one of each for a head.
const TABLES_AT: usize = 0x10_0000;
const TABLE_LEN: usize = 0x100;
const BUFFERS_AT: usize = 0x20_0000;
const BUFFER_LEN: usize = 0x2000;
const SIZE_MAX: u16 = 40;
const PARTS_MAX: usize = 6;

/// A ring with both its ends.
pub(super) struct Pair {
    pub memory: Arc<DriverMemory>,
    pub driver: DriverRing,
    pub view: Arc<RingView>,
    pub ring: Arc<Ring>,
    pub end: RingEnd,
    egress: Arc<dyn Egress>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub options: DriverOptions,
    pub size: u16,
}

pub(super) fn any_shape() -> impl Strategy<Value = Shape> {
    let options = (any::<bool>(), any::<bool>(), any::<bool>());
    (options, 1..=SIZE_MAX).prop_map(|((packed, event_idx, in_order), size)| Shape {
        options: DriverOptions { packed, event_idx, in_order },
        size: if packed { size } else { size.next_power_of_two() },
    })
}

/// How a buffer is described: bytes of each part, and whether by a table.
pub(super) fn any_parts() -> impl Strategy<Value = (Vec<usize>, bool)> {
    (prop::collection::vec(0usize..700, 1..=PARTS_MAX), any::<bool>())
}

impl Pair {
    fn new(shape: Shape) -> Pair {
        Pair::watched(shape, |view, _| view)
    }

    /// As [`Self::new`]; `watch` makes what it will of the device's view, and is told where the ring lies.
    pub(super) fn watched(
        Shape { options, size }: Shape,
        watch: impl FnOnce(RingView, RingLayout) -> RingView,
    ) -> Pair {
        let memory = Arc::new(DriverMemory::new("pair", MEMORY_LEN).unwrap());
        let driver = DriverRing::new(memory.clone(), 0, size, options).unwrap();
        let table = Arc::new(MemoryTable::new(vec![memory.region()]).unwrap());
        let DriverOptions { packed, event_idx, in_order } = options;
        let options = RingOptions { packed, event_idx, in_order, ..OPTIONS };
        let view = RingView::new(table, driver.layout(), options, RingSignals::default()).unwrap();
        let view = Arc::new(watch(view, driver.layout()));
        let ring = Arc::new(Ring::start(&view, None).unwrap());
        let end = crate::ring::ingress(view.clone(), ring.clone(), 0, None);
        let egress = crate::ring::egress(view.clone(), ring.clone());
        Pair { memory, driver, view, ring, end, egress }
    }

    /// Stops the ring and starts it where it stopped. Returns how many frames that cost.
    pub(super) fn restart(&mut self) -> u64 {
        let held = self.ring.settle(&self.view);
        self.ring = Arc::new(Ring::start(&self.view, Some(self.ring.base())).unwrap());
        self.end = crate::ring::ingress(self.view.clone(), self.ring.clone(), 0, None);
        held
    }

    /// Adds a buffer of `lens` bytes in parts; its head and its parts, if there was room.
    pub(super) fn add(&mut self, lens: &[usize], writable: bool, table: bool) -> Option<(u16, Vec<Part>)> {
        let head = self.driver.next_head()?;
        let mut offset = BUFFERS_AT + usize::from(head) * BUFFER_LEN;
        let mut parts = Vec::new();
        for &len in lens {
            parts.push(Part { offset, len: len as u32, writable });
            offset += len + 1;
        }
        // A table may have no more entries than the ring.
        let table = table && parts.len() <= usize::from(self.driver.size());
        let added = match (table, &parts[..]) {
            (true, parts) => self.driver.add_indirect(TABLES_AT + usize::from(head) * TABLE_LEN, parts),
            (false, [part]) => self.driver.add(*part),
            (false, parts) => self.driver.add_chain(parts),
        };
        assert!(added.is_none_or(|added| added == head));
        added.map(|_| (head, parts))
    }

    pub(super) fn write(&self, parts: &[Part], mut bytes: &[u8]) {
        for part in parts {
            let (here, rest) = bytes.split_at(part.len as usize);
            self.memory.write(part.offset, here);
            bytes = rest;
        }
    }

    fn read(&self, parts: &[Part], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            let mut here = vec![0; (part.len as usize).min(len - bytes.len())];
            self.memory.read(part.offset, &mut here);
            bytes.extend(here);
        }
        bytes
    }

    pub(super) fn poll(&self, taken: Taken) -> (Vec<Vec<u8>>, usize) {
        let mut frames = Vec::new();
        let gone = self.end.ingress.poll(&mut IngressScratch::default(), &mut |burst| {
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes).unwrap();
                frames.push(bytes);
            }
            taken
        });
        (frames, gone)
    }

    pub(super) fn send(&self, frames: &[Vec<u8>]) -> (usize, Tally) {
        let mut burst = BurstScratch::default();
        let mut builder = burst.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        let mut scratch = EgressScratch::default();
        (self.egress.send(&mut scratch, &builder.burst(), &picks), scratch.tally)
    }
}

/// A frame that the guest sent and the device has not given back.
struct Sent {
    head: u16,
    frame: Vec<u8>,
    settled: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Post(Vec<usize>, bool),
    Publish,
    Poll(u64),
    Collect,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_parts().prop_map(|(lens, table)| Step::Post(lens, table)),
        2 => Just(Step::Publish),
        2 => prop_oneof![Just(u64::MAX), any::<u64>(), Just(0)].prop_map(Step::Poll),
        2 => Just(Step::Collect),
        1 => Just(Step::Restart),
    ]
}

/// One step of both ends beside a list of what must be there.
fn step(
    pair: &mut Pair,
    step: Step,
    fresh: &mut Vec<Sent>,
    out: &mut VecDeque<Sent>,
    back: &mut VecDeque<u16>,
    seed: u8,
) {
    match step {
        Step::Post(mut lens, table) => {
            lens.push(12 + 14);
            let Some((head, parts)) = pair.add(&lens, false, table) else { return };
            let frame = frame(seed, lens.iter().sum::<usize>() - 12);
            pair.write(&parts, &[&NET_HEADER[..], &frame].concat());
            fresh.push(Sent { head, frame, settled: false });
        }
        Step::Publish => {
            pair.driver.publish();
            out.extend(fresh.drain(..));
        }
        Step::Poll(mask) => {
            let waiting: Vec<Vec<u8>> =
                out.iter().filter(|sent| !sent.settled).map(|sent| sent.frame.clone()).collect();
            let (frames, gone) = pair.poll(Taken(mask));
            assert_eq!(frames, waiting);
            let unsettled = out.iter_mut().filter(|sent| !sent.settled);
            let taken = unsettled.enumerate().filter(|(place, _)| mask >> place & 1 == 1);
            assert_eq!(taken.map(|(_, sent)| sent.settled = true).count(), gone);
            while out.front().is_some_and(|sent| sent.settled) {
                back.extend(out.pop_front().map(|sent| sent.head));
            }
        }
        Step::Restart => {
            let gone = out.iter().rposition(|sent| sent.settled).map_or(0, |last| last + 1);
            let held = out.range(..gone).filter(|sent| !sent.settled).count();
            assert_eq!(pair.restart(), held as u64, "what was held before settled frames is lost, and told");
            back.extend(out.drain(..gone).map(|sent| sent.head));
        }
        Step::Collect => {
            while let Some(Used { head, written }) = pair.driver.collect().unwrap() {
                assert_eq!(Some(head), back.pop_front(), "in the order in which they were sent");
                assert!(matches!(written, None | Some(0)));
            }
            assert!(back.is_empty(), "nothing is kept back");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_lent_and_buffers_come_back_as_a_list_says(
        shape in any_shape(),
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut pair = Pair::new(shape);
        let (mut fresh, mut out, mut back) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let end = [Step::Publish, Step::Poll(u64::MAX), Step::Collect];
        for (seed, each) in steps.into_iter().chain(end).enumerate() {
            step(&mut pair, each, &mut fresh, &mut out, &mut back, seed as u8);
            prop_assert_eq!(pair.ring.fault(), None);
        }
        prop_assert_eq!(pair.driver.room(), usize::from(shape.size));
        prop_assert!(pair.driver.next_head().is_some());
    }

    #[test]
    fn frames_are_received_as_they_were_sent(
        shape in any_shape(),
        rounds in prop::collection::vec(
            (prop::collection::vec(any_parts(), 0..12), prop::collection::vec(14usize..3000, 0..6)), 1..20),
    ) {
        let mut pair = Pair::new(shape);
        let mut posted: HashMap<u16, Vec<Part>> = HashMap::new();
        for (buffers, lens) in rounds {
            for (mut parts, table) in buffers {
                // A receive buffer begins with room for the net header.
                parts[0] += 12;
                posted.extend(pair.add(&parts, true, table));
            }
            pair.driver.publish();
            let frames: Vec<Vec<u8>> = (0..).zip(&lens).map(|(seed, &len)| frame(seed, len)).collect();
            let (settled, tally) = pair.send(&frames);
            prop_assert_eq!(settled as u64, tally.frames + tally.dropped());
            let mut received = Vec::new();
            while let Some(first) = pair.driver.collect().unwrap() {
                let mut bytes = pair.read(&posted[&first.head], first.written.unwrap() as usize);
                for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
                    let next = pair.driver.collect().unwrap().expect("a frame is whole");
                    bytes.extend(pair.read(&posted[&next.head], next.written.unwrap() as usize));
                }
                received.push(bytes.split_off(12));
            }
            // A frame for which the whole ring is too small is dropped.
            let mut sent = frames.into_iter().take(settled);
            prop_assert_eq!(received.len() as u64, tally.frames);
            prop_assert!(received.iter().all(|bytes| sent.any(|frame| frame == *bytes)));
            prop_assert_eq!(pair.ring.fault(), None);
        }
    }
}

#[test]
fn long_chains_in_a_large_packed_ring_share_the_worker() {
    let options = DriverOptions { packed: true, ..DriverOptions::default() };
    let mut pair = Pair::new(Shape { options, size: 30_000 });
    let part = |len| Part { offset: BUFFERS_AT, len, writable: false };
    let mut chain = vec![part(0); 600];
    chain.push(part(12 + 60));
    (0..49).for_each(|_| assert!(pair.driver.add_chain(&chain).is_some()));
    pair.driver.publish();
    let polls: Vec<usize> =
        std::iter::repeat_with(|| pair.poll(Taken::ALL).1).take_while(|&gone| gone > 0).collect();
    assert_eq!((polls[0], polls.iter().sum::<usize>()), (2, 49), "a poll ends after 1,024 descriptors");
    assert_eq!(std::iter::from_fn(|| pair.driver.collect().unwrap()).count(), 49);
    assert!(pair.driver.add_chain(&vec![part(0); 1025]).is_some());
    pair.driver.publish();
    assert_eq!((pair.poll(Taken::ALL).1, pair.ring.fault()), (0, Some(Fault::ChainLength)));
}

/// With buffers used in order, descriptor 0 is not written when it is in the midst of a run.
#[test]
fn packed_ring_in_order_goes_on_at_zero_though_its_first_descriptor_was_never_used_in_its_own_name() {
    let options = DriverOptions { packed: true, in_order: true, ..DriverOptions::default() };
    let mut pair = Pair::new(Shape { options, size: 2 });
    let exchange = |pair: &mut Pair, count: usize| {
        let part = Part { offset: BUFFERS_AT, len: 12 + 60, writable: false };
        (0..count).for_each(|_| assert!(pair.driver.add(part).is_some()));
        pair.driver.publish();
        assert_eq!(pair.poll(Taken::ALL).1, count);
        assert_eq!(std::iter::from_fn(|| pair.driver.collect().unwrap()).count(), count);
    };
    for count in [1, 1, 1, 2, 1] {
        exchange(&mut pair, count);
    }
    assert_eq!(pair.ring.base(), 0, "three rounds of two");
    assert_eq!(pair.restart(), 0);
    exchange(&mut pair, 1);
}

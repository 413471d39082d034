//! Rings whose process is killed at any instant, and who comes after it.

use proptest::prelude::*;

use super::*;
use crate::ring::format::Format;
use crate::ring::packed::{JournalledPacked, Packed, Place};
use crate::ring::{DriverMemory, DriverOptions, DriverRing, Part, RingJournal};

const MEMORY_LEN: usize = 0x10_0000;
const BUFFERS_AT: usize = 0x2_0000;
const SIZE_MAX: u16 = 12;

/// When the process is killed, in a run of used chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// Chains were given back, and nobody knows yet.
    BeforeTheIntention,
    /// It is known where the run ends.
    BeforeTheRunIsLetGo,
    /// The driver sees the run.
    BeforeThatIsKnown,
    /// All of the run is done.
    After,
}

#[derive(Clone, Debug)]
struct Step {
    /// Descriptors of each chain that the driver adds.
    adds: Vec<u8>,
    /// Chains of the run, at most.
    uses: usize,
    killed: Killed,
}

fn any_step() -> impl Strategy<Value = Step> {
    let killed = prop_oneof![
        Just(Killed::BeforeTheIntention),
        Just(Killed::BeforeTheRunIsLetGo),
        Just(Killed::BeforeThatIsKnown),
        Just(Killed::After),
    ];
    (prop::collection::vec(1..4u8, 0..8), 0..8usize, killed).prop_map(|(adds, uses, killed)| Step {
        adds,
        uses,
        killed,
    })
}

/// A packed ring with a journal, its driver, and what became of its chains.
struct Scene {
    memory: Arc<DriverMemory>,
    driver: DriverRing,
    view: RingView,
    writable: bool,
    /// Heads, oldest first: with the device, and seen by it in runs that were let go.
    with_device: Vec<u16>,
}

impl Scene {
    fn new(size: u16, in_order: bool, writable: bool) -> Scene {
        let memory = Arc::new(DriverMemory::new("killed", MEMORY_LEN).unwrap());
        let options = DriverOptions { packed: true, event_idx: false, in_order };
        let driver = DriverRing::new(memory.clone(), 0, size, options).unwrap();
        let table = Arc::new(MemoryTable::new(vec![memory.region()]).unwrap());
        let options = RingOptions { packed: true, in_order, ..OPTIONS };
        let (mapping, _) = Mapping::memfd("journal", RingJournal::len(size, true)).unwrap();
        let journal = RingJournal::new(Arc::new(mapping), 0, size, true).unwrap();
        let view = RingView::new(table, driver.layout(), options, RingSignals::default()).unwrap();
        Scene { memory, driver, view: view.journalled(journal), writable, with_device: Vec::new() }
    }

    fn add(&mut self, parts: u8) {
        let Some(head) = self.driver.next_head() else { return };
        if self.driver.room() < usize::from(parts) {
            return;
        }
        let offset = BUFFERS_AT + usize::from(head) * 0x100;
        self.memory.write(offset, &[head as u8; 4]);
        let part = |index: u8| Part {
            offset: offset + 0x20 * usize::from(index),
            len: 0x10 + u32::from(index),
            writable: self.writable,
        };
        let parts: Vec<Part> = (0..parts).map(part).collect();
        assert_eq!(self.driver.add_chain(&parts), Some(head));
        self.with_device.push(head);
    }

    /// The device sees the chains in the order in which they were added, each as the driver made it. Gives up to `uses` of
    /// them back, unless it is killed over it; how many it was.
    fn run(&self, ring: &Ring, uses: usize, killed: Killed) -> usize {
        let mut state = ring.lock();
        let (mut run, mut position) = (JournalledPacked::run(&state), state.next_avail);
        let (start, mut count) = (Place::from_bits(position), 0);
        for &head in self.with_device.iter().take(uses) {
            let chain = JournalledPacked::chain(&self.view, position).unwrap().expect("a chain");
            assert_eq!((chain.id, chain.first.len), (head, 0x10), "chain {count} of {:?}", self.with_device);
            assert_eq!(chain.first.addr, self.memory.guest_addr(BUFFERS_AT + usize::from(head) * 0x100));
            position = JournalledPacked::behind(&self.view, position, &chain);
            JournalledPacked::give_back(&self.view, &mut run, &chain, if self.writable { 7 } else { 0 });
            count += 1;
        }
        let journal = self.view.journal().unwrap();
        match killed {
            _ if count == 0 => {}
            Killed::BeforeTheIntention => return 0,
            Killed::BeforeTheRunIsLetGo => {
                journal.intend(start, Place::from_bits(position));
                return 0;
            }
            Killed::BeforeThatIsKnown => {
                journal.intend(start, Place::from_bits(position));
                Packed::publish(&self.view, run, &mut state);
            }
            Killed::After => {
                JournalledPacked::publish(&self.view, run, &mut state);
            }
        }
        count
    }

    /// The driver gets back what was let go, in order.
    fn collect(&mut self, count: usize) {
        for head in self.with_device.drain(..count) {
            assert_eq!(self.driver.collect().unwrap().map(|used| used.head), Some(head));
        }
        assert_eq!(self.driver.collect(), Ok(None), "and nothing else");
    }
}

proptest! {
    #[test]
    fn every_chain_of_a_packed_ring_comes_back_once_whenever_its_process_is_killed(
        (size, in_order, writable) in (1..=SIZE_MAX, any::<bool>(), any::<bool>()),
        steps in prop::collection::vec(any_step(), 1..40),
        early in any::<bool>(),
    ) {
        let mut scene = Scene::new(size, in_order, writable);
        let mut ring = Ring::start(&scene.view, None).unwrap();
        for Step { adds, uses, killed } in steps {
            adds.into_iter().for_each(|parts| scene.add(parts));
            scene.driver.publish();
            let count = scene.run(&ring, uses, killed);
            // The driver may be faster than the successor, and post into what it got back.
            if early {
                scene.collect(count);
                scene.add(1);
                scene.driver.publish();
            }
            ring = Ring::resume(&scene.view, 0).unwrap();
            if !early {
                scene.collect(count);
            }
        }
        let left = scene.with_device.len();
        prop_assert_eq!(scene.run(&ring, left, Killed::After), left);
        scene.collect(left);
    }
}

#[test]
fn split_ring_goes_on_at_its_used_index_in_guest_memory() {
    let mut world = World::<false>::new(16);
    (0..4).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
    assert_eq!(world.poll().gone, 4);
    world.post_frame(4, BUFFERS, &frame(2, 60));
    assert_eq!(world.ring.skew(), 0);
    world.ring = Arc::new(Ring::resume(&world.view, world.ring.skew()).unwrap());
    assert_eq!(world.ring.base(), 4);
    assert_eq!(world.poll().frames, [frame(2, 60)]);
    world.ring = Arc::new(Ring::resume(&world.view, 3).unwrap());
    assert_eq!(world.ring.base(), 8, "one that was behind in its used ring still is");
}

#[test]
fn p20_journal_that_lies_is_refused_or_harms_its_own_ring_only() {
    let scene = Scene::new(8, false, false);
    assert_eq!(Ring::resume(&scene.view, 0).err(), Some(RingError::Position), "never begun");
    Ring::start(&scene.view, None).unwrap();
    let journal = scene.view.journal().unwrap();
    journal.intend(Place::from_bits(7), Place::from_bits(0x8007));
    (0..8).for_each(|index| journal.keep(index, crate::ring::packed::Rest(u64::MAX)));
    assert!(Ring::resume(&scene.view, 0).is_ok());
    journal.intend(Place::from_bits(8), Place::START);
    assert_eq!(Ring::resume(&scene.view, 0).err(), Some(RingError::Position));
}

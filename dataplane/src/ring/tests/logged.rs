//! What is logged of what, and random traffic on logged rings, with all of memory compared.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::pair::{MEMORY_LEN, Pair, Shape, any_parts, any_shape};
use super::*;
use crate::ring::{DriverMemory, Part, RingError};

const PAGE: usize = LOG_PAGE as usize;
/// What stands in a buffer that nobody has written yet; no net header has it.
const UNTOUCHED: u8 = 0xee;

/// What is to be logged.
#[derive(Clone, Copy)]
struct What {
    buffers: bool,
    ring: bool,
}

const ALL: What = What { buffers: true, ring: true };

/// A ring with both its ends, and the log of the device's.
struct Watched {
    pair: Pair,
    log: Mapping,
    /// Pages of the parts of the ring that the device writes.
    ring_pages: BTreeSet<usize>,
}

/// The pages that the device wrote, and those that it logged, as offsets in memory counted in pages.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    written: BTreeSet<usize>,
    logged: BTreeSet<usize>,
}

impl Seen {
    fn missed(&self) -> Vec<usize> {
        self.written.difference(&self.logged).copied().collect()
    }
}

impl Watched {
    fn new(shape: Shape, What { buffers, ring }: What) -> Watched {
        const LEN: usize = ((DriverMemory::GUEST_ADDR as usize + MEMORY_LEN) / PAGE).div_ceil(8);
        let (log, file) = Mapping::memfd("log", LEN).unwrap();
        let mut ring_pages = BTreeSet::new();
        let pair = Pair::watched(shape, |view, layout| {
            let offset = |addr: u64| (addr - DriverMemory::USER_ADDR) as usize;
            let (desc, used, size) = (offset(layout.desc), offset(layout.used), usize::from(shape.size));
            if shape.options.packed {
                ring_pages.extend(pages(desc, 16 * size).chain(pages(used, 4)));
            } else {
                ring_pages.extend(pages(used, 6 + 8 * size));
            }
            let log = DirtyLog::new(Mapping::of_file(&file, LEN).unwrap(), 0, LEN as u64).unwrap();
            let used = ring.then_some(DriverMemory::GUEST_ADDR + used as u64);
            view.logged(RingLogging { log: Arc::new(log), buffers, used, bell: None }).unwrap()
        });
        Watched { pair, log, ring_pages }
    }

    /// Has the device act, and empties the log.
    fn watch<R>(&mut self, act: impl FnOnce(&mut Pair) -> R) -> (R, Seen) {
        let before = self.memory();
        let result = act(&mut self.pair);
        let after = self.memory();
        let both = before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
        let written = both.filter(|(_, (before, after))| before != after).map(|(page, _)| page).collect();
        (result, Seen { written, logged: self.take_log() })
    }

    fn memory(&self) -> Vec<u8> {
        let mut memory = vec![0; MEMORY_LEN];
        self.pair.memory.read(0, &mut memory);
        memory
    }

    fn take_log(&self) -> BTreeSet<usize> {
        let first = DriverMemory::GUEST_ADDR as usize / PAGE;
        let mut logged = BTreeSet::new();
        let words = self.log.words(0, self.log.len() / 8).iter();
        for (place, word) in words.enumerate().filter(|(_, word)| word.load(Ordering::Relaxed) != 0) {
            let bits = u64::from_le(word.swap(0, Ordering::AcqRel));
            logged.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| place * 64 + bit));
        }
        logged.into_iter().map(|page| page.checked_sub(first).expect("in memory")).collect()
    }

    /// Posts buffers to receive into, each part apart.
    fn post(&mut self, buffers: Vec<(Vec<usize>, bool)>) -> Vec<Part> {
        let mut posted = Vec::new();
        for (mut lens, table) in buffers {
            lens[0] += 12;
            let Some((_, parts)) = self.pair.add(&lens, true, table) else { continue };
            self.pair.write(&parts, &vec![UNTOUCHED; lens.iter().sum()]);
            posted.extend(parts);
        }
        self.pair.driver.publish();
        posted
    }
}

fn pages(offset: usize, len: usize) -> impl Iterator<Item = usize> {
    offset / PAGE..(offset + len).div_ceil(PAGE)
}

/// What happens to a ring that the device reads.
#[derive(Clone, Debug)]
enum Step {
    Post(Vec<usize>, bool),
    Poll(u64),
    Arm,
    Disarm,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_parts().prop_map(|(lens, table)| Step::Post(lens, table)),
        3 => prop_oneof![Just(u64::MAX), any::<u64>()].prop_map(Step::Poll),
        1 => Just(Step::Arm),
        1 => Just(Step::Disarm),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn every_page_that_a_receive_ring_changed_is_logged_and_no_page_that_it_could_not(
        shape in any_shape(),
        rounds in prop::collection::vec(
            (prop::collection::vec(any_parts(), 0..12), prop::collection::vec(14usize..9000, 0..6)), 1..8),
    ) {
        let mut watched = Watched::new(shape, ALL);
        let mut allowed = watched.ring_pages.clone();
        for (buffers, lens) in rounds {
            let posted = watched.post(buffers);
            allowed.extend(posted.iter().flat_map(|part| pages(part.offset, part.len as usize)));
            let frames: Vec<Vec<u8>> = (0..).zip(&lens).map(|(seed, &len)| frame(seed, len)).collect();
            let (_, seen) = watched.watch(|pair| pair.send(&frames));
            prop_assert_eq!(seen.missed(), NONE);
            prop_assert!(seen.logged.is_subset(&allowed), "{:?}", seen.logged);
            while watched.pair.driver.collect().unwrap().is_some() {}
            prop_assert_eq!(watched.pair.ring.fault(), None);
        }
    }

    #[test]
    fn every_page_that_a_transmit_ring_changed_is_logged_and_none_but_the_rings(
        shape in any_shape(),
        steps in prop::collection::vec(any_step(), 1..30),
    ) {
        let mut watched = Watched::new(shape, ALL);
        for step in steps {
            let ((), seen) = match step {
                Step::Post(mut lens, table) => {
                    lens.push(12 + 14);
                    if let Some((_, parts)) = watched.pair.add(&lens, false, table) {
                        watched.pair.write(&parts, &vec![0; lens.iter().sum()]);
                    }
                    watched.pair.driver.publish();
                    continue;
                }
                Step::Poll(mask) => watched.watch(|pair| _ = pair.poll(Taken(mask))),
                Step::Arm => watched.watch(|pair| _ = pair.end.doorbell.arm()),
                Step::Disarm => watched.watch(|pair| pair.end.doorbell.disarm()),
                Step::Restart => watched.watch(|pair| _ = pair.restart()),
            };
            prop_assert_eq!(seen.missed(), NONE);
            prop_assert!(seen.logged.is_subset(&watched.ring_pages), "{:?}", seen.logged);
            while watched.pair.driver.collect().unwrap().is_some() {}
        }
        prop_assert_eq!(watched.pair.ring.fault(), None);
    }
}

/// All forms, with a ring of so many entries that a part that is written has several pages.
fn large_shapes() -> impl Iterator<Item = Shape> {
    use crate::ring::DriverOptions;
    (0..8).map(|bits| Shape {
        options: DriverOptions { packed: bits & 1 != 0, event_idx: bits & 2 != 0, in_order: bits & 4 != 0 },
        size: 1024,
    })
}

#[test]
fn large_rings_are_logged_page_by_page_all_the_way_round() {
    for shape in large_shapes() {
        let mut watched = Watched::new(shape, ALL);
        assert!(watched.ring_pages.len() > 2);
        let mut logged = BTreeSet::new();
        for round in 0..60 {
            let part = |number: usize| Part { offset: 0x20_0000 + number * 0x100, len: 60, writable: false };
            (0..37).for_each(|number| assert!(watched.pair.driver.add(part(number)).is_some()));
            watched.pair.driver.publish();
            let (gone, seen) = watched.watch(|pair| pair.poll(Taken::ALL).1);
            assert_eq!((gone, &*seen.missed()), (37, &NONE[..]), "{shape:?}: {round}");
            logged.extend(seen.logged);
            while watched.pair.driver.collect().unwrap().is_some() {}
        }
        assert!(logged.is_subset(&watched.ring_pages) && logged.len() > 1, "{logged:?}");
    }
}

/// The test of the tests: without either half of the log the comparison finds what is missing.
#[test]
fn pages_are_missed_as_soon_as_something_is_not_logged() {
    for shape in large_shapes() {
        for what in [What { buffers: false, ring: true }, What { buffers: true, ring: false }] {
            let mut watched = Watched::new(shape, what);
            let posted = watched.post(vec![(vec![2000], false); 4]);
            let ((settled, _), seen) = watched.watch(|pair| pair.send(&[frame(1, 1500), frame(2, 60)]));
            assert_eq!(settled, 2);
            let buffers: BTreeSet<usize> =
                posted.iter().flat_map(|part| pages(part.offset, part.len as usize)).collect();
            let not_logged = if what.buffers { &watched.ring_pages } else { &buffers };
            assert!(!seen.missed().is_empty() && !seen.logged.is_empty());
            assert!(seen.missed().iter().all(|page| not_logged.contains(page)), "{shape:?}: {seen:?}");
        }
    }
}

#[test]
fn ring_that_is_taken_over_from_the_killed_is_logged_whole() {
    for shape in large_shapes() {
        let watched = Watched::new(shape, ALL);
        if shape.options.packed {
            // Its journal is another test's.
            watched.pair.view.log_ring();
        } else {
            assert!(Ring::resume(&watched.pair.view, 0).is_ok());
        }
        assert_eq!(watched.take_log(), watched.ring_pages, "{shape:?}");
    }
}

/// The view of a world's ring, logged to a log of `len` bytes.
fn view_with_log<const PACKED: bool>(
    world: &World<PACKED>,
    len: u64,
    used: u64,
    bell: Option<Arc<OwnedFd>>,
) -> Result<Arc<RingView>, RingError> {
    let options = RingOptions { packed: PACKED, ..OPTIONS };
    let view = RingView::new(world.memory.clone(), layout(16), options, RingSignals::default())?;
    let log = Arc::new(DirtyLog::new(Mapping::memfd("log", 0x1000).unwrap().0, 0, len).unwrap());
    view.logged(RingLogging { log, buffers: true, used: Some(used), bell }).map(Arc::new)
}

#[test]
fn p21_buffer_past_the_end_of_the_log_breaks_its_ring() {
    fn check<const PACKED: bool>() {
        let mut world = World::<PACKED>::new(16);
        world.view = view_with_log(&world, SHORT_LEN, USED, None).unwrap();
        for (index, addr) in [(0, BUFFERS), (1, BUFFERS + 0x1_0000), (2, BUFFERS)] {
            world.describe(index, addr, 200, WRITE, 0);
            world.post(index);
        }
        let (settled, tally) = world.send(&[frame(1, 60), frame(2, 60)]);
        assert_eq!((settled, tally.frames, world.fault()), (2, 2, Some(Fault::LogEnd)));
        assert_eq!(world.send(&[frame(3, 60)]).1.drops[DropReason::NotReady as usize], 1);
    }
    check::<false>();
    check::<true>();
}

#[test]
fn p21_ring_does_not_lie_past_the_end_of_the_log() {
    fn check<const PACKED: bool>(used_len: u64, short: Option<RingError>) {
        let world = World::<PACKED>::new(16);
        let error = |used, len| view_with_log(&world, len, used, None).err();
        let end = SHORT_LEN * 8 * LOG_PAGE;
        assert_eq!(error(end - used_len, SHORT_LEN), None, "it need not be guest memory");
        for used in [end - used_len + 1, end, u64::MAX - 1, u64::MAX] {
            assert_eq!(error(used, SHORT_LEN), Some(RingError::Log), "{used:#x}");
        }
        assert_eq!(error(0, 1), short);
    }
    check::<false>(6 + 8 * 16, None);
    // Of a packed ring the descriptors are written, too.
    check::<true>(4, Some(RingError::Log));
}

#[test]
fn bell_is_rung_once_for_each_logged_burst() {
    use rustix::event::{EventfdFlags, eventfd};
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let mut world = World::<false>::new(16);
    world.view = view_with_log(&world, LOG_LEN as u64, USED, Some(bell.clone())).unwrap();
    for burst in 1..=3 {
        (0..burst).for_each(|index| world.post_frame(index, BUFFERS, &frame(1, 60)));
        world.poll();
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&*bell, &mut count), Ok(8));
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}

const NONE: [usize; 0] = [];
/// Bytes of a log that ends behind the ring and the first buffer.
const SHORT_LEN: u64 = (BUFFERS + 0x8000) / LOG_PAGE / 8;

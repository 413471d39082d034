//! The memory of a small guest, and a ring in it that is tried again and again from any position.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::reference::Outcome;
use super::{END, Guest, PLACE_LEN, PLACES, SENT, START, TABLE_LEN, TABLE_PLACE, TABLES, Way};
use crate::frame::{BurstScratch, Taken};
use crate::offload::Offloads;
use crate::port::{Egress, EgressScratch, Ingress, IngressScratch};
use crate::ring::format::Format;
use crate::ring::tests::frame;
use crate::ring::walk::Walker;
use crate::ring::{
    Mapping, MemoryTable, Region, Ring, RingLayout, RingOptions, RingSignals, RingState, RingView,
};

/// Parts of the ring. A packed ring has its event suppression structures where a split one has its rings.
pub(super) const DESC: u64 = START;
pub(super) const AVAIL: u64 = START + 0x40;
pub(super) const USED: u64 = START + 0x50;
/// Ring addresses are the front end's own.
const USER: u64 = 0x7f00_0000_0000;
/// What is compared: the guest's memory and what is mapped behind it, which is not the guest's.
const IMAGE_LEN: usize = (END - START) as usize + PLACE_LEN as usize;

/// All bytes of the guest's memory.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Image(Vec<u8>);

impl Image {
    /// Memory in which no two places look alike, and net headers that ask for nothing.
    fn new() -> Image {
        let mut image = Image((0..IMAGE_LEN).map(|at| (at % 251) as u8).collect());
        (PLACES..END).step_by(PLACE_LEN as usize).for_each(|place| image.put(place, &[0; 12]));
        image.put(AVAIL, &[0; 0x40]);
        image
    }

    pub(super) fn put(&mut self, addr: u64, bytes: &[u8]) {
        let at = (addr - START) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, addr: u64, len: u32) -> &[u8] {
        let at = (addr - START) as usize;
        &self.0[at..at + len as usize]
    }
}

/// Tries one form of ring, of one size.
pub(super) struct Slate<F> {
    pub way: Way,
    pub image: Image,
    mapping: Arc<Mapping>,
    view: Arc<RingView>,
    ring: Arc<Ring>,
    ingress: Arc<dyn Ingress>,
    egress: Arc<dyn Egress>,
    ingress_scratch: IngressScratch,
    egress_scratch: EgressScratch,
    frames: [Vec<u8>; SENT.len()],
    burst: BurstScratch,
    form: PhantomData<F>,
    /// How many guests were tried.
    pub tried: u64,
}

impl<F: Format> Slate<F> {
    pub(super) fn new(way: Way, size: u16, packed: bool, in_order: bool) -> Slate<F> {
        let mapping = Arc::new(Mapping::memfd("slate", 0x1000).unwrap().0);
        let region = Region {
            guest_addr: START,
            user_addr: START + USER,
            len: END - START,
            offset: 0,
            mapping: mapping.clone(),
        };
        let options = RingOptions {
            packed,
            in_order,
            event_idx: false,
            indirect: true,
            mergeable: way == Way::Out { mergeable: true },
            version_1: true,
            send: Offloads::NONE,
            receive: Offloads::NONE,
        };
        let layout = RingLayout { size, desc: DESC + USER, avail: AVAIL + USER, used: USED + USER };
        let memory = Arc::new(MemoryTable::new(vec![region]).unwrap());
        let view = Arc::new(RingView::new(memory, layout, options, RingSignals::default()).unwrap());
        let ring = Arc::new(Ring::start(&view, None).unwrap());
        Slate {
            way,
            image: Image::new(),
            ingress: crate::ring::ingress(view.clone(), ring.clone(), 0, None).ingress,
            egress: crate::ring::egress(view.clone(), ring.clone()),
            mapping,
            view,
            ring,
            ingress_scratch: IngressScratch::default(),
            egress_scratch: EgressScratch::default(),
            frames: std::array::from_fn(|index| frame(0x40 + index as u8, SENT[index])),
            burst: BurstScratch::default(),
            form: PhantomData,
            tried: 0,
        }
    }

    pub(super) fn size(&self) -> u16 {
        self.view.size()
    }

    /// Writes a guest's descriptors to the image, each as `encode` puts it: address, length and flags, next, and its place.
    pub(super) fn write_ring(
        &mut self,
        guest: &Guest,
        encode: impl Fn((u64, u32, u16), u16, usize) -> [u64; 2],
    ) {
        for (place, &entry) in guest.entries.iter().enumerate() {
            let words = encode(guest.descriptor(entry, place), entry.next.unwrap_or(0), place);
            self.put_descriptor(DESC, place, words);
        }
    }

    /// Writes its tables to the image, each entry as `encode` puts it: address, length and flags, and next.
    pub(super) fn write_tables(&mut self, guest: &Guest, encode: impl Fn((u64, u32, u16), u16) -> [u64; 2]) {
        for (number, table) in guest.tables.iter().enumerate() {
            for (index, &entry) in table.entries.iter().enumerate() {
                let words = encode(guest.descriptor(entry, TABLE_PLACE + index), entry.next.unwrap_or(0));
                self.put_descriptor(TABLES + TABLE_LEN * number as u64, index, words);
            }
        }
    }

    fn put_descriptor(&mut self, table: u64, index: usize, [addr, rest]: [u64; 2]) {
        let place = table + 16 * index as u64;
        self.image.put(place, &addr.to_le_bytes());
        self.image.put(place + 8, &rest.to_le_bytes());
    }

    /// Copies the image to the guest's memory, sets the ring to a position, and serves it once. What became of it must be
    /// `expected`; `give_back` writes to the image what the ring says of it, and returns the position that it is left at.
    pub(super) fn check(
        &mut self,
        (avail, used): (u16, u16),
        expected: &Outcome,
        give_back: impl Fn(&mut Image, &[(u16, u16, u32)]) -> u16,
        guest: &dyn std::fmt::Debug,
    ) {
        self.tried += 1;
        let mut image = self.image.clone();
        self.fill(&image);
        self.start((avail, used));
        self.check_work(avail, guest);
        self.serve_once(&image, expected, guest);
        for (index, places) in &expected.written {
            let mut bytes =
                [[0; 10].as_slice(), &(expected_buffers(expected, *index)).to_le_bytes()].concat();
            bytes.extend(&self.frames[*index]);
            let mut bytes = bytes.as_slice();
            for &(addr, len) in places {
                let (here, behind) = bytes.split_at(len as usize);
                image.put(addr, here);
                bytes = behind;
            }
        }
        let position = give_back(&mut image, &expected.used);
        self.compare(&image, guest);
        assert_eq!(self.ring.base(), position, "{:?}: the position after {guest:?}", self.way);
    }

    /// As [`Self::check`], of a ring that is left as it is but for an index behind the first word of the part at `place`;
    /// what becomes of its memory is seen by the next call of [`Self::check`].
    pub(super) fn check_index(&mut self, place: u64, position: u16, index: u16, expected: &Outcome) {
        let at = (place - START) as usize;
        self.mapping.words(at, 1)[0].store((u64::from(index) << 16).to_le(), Ordering::Relaxed);
        self.start((position, position));
        self.serve_once(&Image(Vec::new()), expected, &(position, index));
        assert_eq!(self.ring.base(), position);
    }

    fn start(&self, (avail, used): (u16, u16)) {
        *self.ring.lock() =
            RingState { next_avail: avail, next_used: used, signalled: used, ..RingState::default() };
    }

    fn serve_once(&mut self, image: &Image, expected: &Outcome, guest: &dyn std::fmt::Debug) {
        let outcome = if self.way == Way::In { self.poll(image, expected) } else { self.send() };
        let (settled, drops, fault) = (expected.settled, expected.drops, expected.fault);
        assert_eq!(outcome, (settled, drops, fault), "{:?}: settled, drops, fault of {guest:?}", self.way);
    }

    fn fill(&self, image: &Image) {
        let words = self.mapping.words(0, IMAGE_LEN / 8);
        for (word, bytes) in words.iter().zip(image.0.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    fn compare(&self, image: &Image, guest: &dyn std::fmt::Debug) {
        let words = self.mapping.words(0, IMAGE_LEN / 8);
        for (at, (word, bytes)) in words.iter().zip(image.0.as_chunks().0).enumerate() {
            let have = word.load(Ordering::Relaxed).to_ne_bytes();
            let addr = START + 8 * at as u64;
            assert_eq!(have, *bytes, "{:?}: what stands at {addr:#x} after {guest:?}", self.way);
        }
    }

    /// A walk of the chain at `position` looks at no more descriptors than the ring has.
    fn check_work(&self, position: u16, guest: &dyn std::fmt::Debug) {
        if let Ok(Some(chain)) = F::chain(&self.view, position) {
            let mut walker = Walker::<F>::new(&self.view);
            // Whether it is a good chain is seen by whoever serves it.
            let _ = walker.walk(&chain, &mut |_, _| true);
            assert!(walker.walked() <= self.size().into(), "{} descriptors of {guest:?}", walker.walked());
        }
    }

    fn poll(&mut self, image: &Image, expected: &Outcome) -> Summary {
        let mut expected = expected.frames.iter();
        self.ingress_scratch.tally = Default::default();
        let gone = self.ingress.poll(&mut self.ingress_scratch, &mut |burst| {
            for frame in burst.frames() {
                let mut bytes = [0; 0x200];
                let len = frame.copy_to(&mut bytes).unwrap();
                let places = expected.next().expect("a frame more than there is");
                let wanted: Vec<u8> =
                    places.iter().flat_map(|&(addr, len)| image.get(addr, len)).copied().collect();
                assert_eq!(bytes[..len], wanted);
            }
            Taken::ALL
        });
        assert_eq!(expected.next(), None, "a frame less than there is");
        (gone, self.ingress_scratch.tally.drops, self.ring.fault())
    }

    fn send(&mut self) -> Summary {
        let mut builder = self.burst.begin(0);
        self.frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        self.egress_scratch.tally = Default::default();
        let settled = self.egress.send(&mut self.egress_scratch, &builder.burst(), &[0, 1]);
        (settled, self.egress_scratch.tally.drops, self.ring.fault())
    }
}

/// What a poll or a send said: frames settled, drops, and what the ring died of.
type Summary = (usize, [u64; crate::drops::DropReason::COUNT], Option<crate::ring::Fault>);

/// Over how many chains a written frame is spread: those before it are of the frames before it.
fn expected_buffers(expected: &Outcome, index: usize) -> u16 {
    let of = |place: usize| {
        let (_, places) = &expected.written[place];
        let bytes: u32 = places.iter().map(|place| place.1).sum();
        bytes
    };
    let mut used = expected.used.iter();
    for (place, (frame, _)) in expected.written.iter().enumerate() {
        let (mut left, mut chains) = (of(place), 0);
        while left > 0 {
            left -= used.next().map_or(left, |chain| chain.2);
            chains += 1;
        }
        if *frame == index {
            return chains;
        }
    }
    0
}

//! The compiled form of a hub: from a frame's header to the ports that take it.
//!
//! Links and filters are resolved when the table is built, so that the cost of a frame follows the ports that take it
//! and not the ports there are. `exact` holds, by address, the ports that list it; `wide` holds, by class, the ports
//! that take all of that class and therefore stand in no exact entry of it. What is left for each frame is three tests
//! a taker: not the sender, refused or not, and the VLAN where the port filters it.
//!
//! On a hub that learns, the wide ports take a unicast frame only if nobody takes it by its exact address; and if the FDB
//! knows where the address is, only the port there does, provided that it is one of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use crate::drops::DropReason;
use crate::fdb::Fdb;
use crate::filter::{RxFilter, RxState, VlanSet};
use crate::frame::{Frame, VLAN_CUT};
use crate::hold::FullReceiver;
use crate::mac::Mac;
use crate::snapshot::PortIndex;

/// A port on a hub, to be compiled.
pub struct Member {
    /// The port.
    pub port: PortIndex,
    /// Frames may reach it: its administrative link is up, and somebody is connected.
    pub up: bool,
    /// What its NIC wants; `None` takes everything.
    pub filter: Option<Arc<RxFilter>>,
}

/// What the table says of one frame and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The port takes the frame.
    Take(PortIndex),
    /// The frame was for this port by its exact address, and the port refuses it.
    Refuse(PortIndex, DropReason),
}

/// The tables of one hub. Immutable.
#[derive(Default)]
pub struct HubTable {
    exact: AddressMap,
    takers: Vec<Taker>,
    wide: [Range<u32>; CLASSES],
    vlans: Vec<VlanSet>,
    members: usize,
    options: HubOptions,
    learning: Option<Learning>,
}

/// What a hub that learns has besides.
struct Learning {
    fdb: Arc<Fdb>,
    /// By port: where in `takers` it stands among those that are wide for unicast, or [`NOT_WIDE`].
    places: Box<[u32]>,
}

const NOT_WIDE: u32 = u32::MAX;

/// Asks the table on behalf of the frames of one burst, and has the hub learn from them. It remembers the last addresses,
/// so that a burst of one flow costs one look-up of each.
pub struct Classifier<'t> {
    table: &'t HubTable,
    learning: Option<&'t Learning>,
    /// There are wide ports that could be spared a frame.
    narrows: bool,
    sender: PortIndex,
    now_s: u32,
    source: u64,
    destination: u64,
    /// Where `destination` is.
    found: Option<PortIndex>,
}

/// Who may take a frame besides those who list its address.
#[derive(Clone, Copy)]
enum Reach {
    /// All wide ports.
    Wide,
    /// All wide ports, if nobody else takes it.
    Unknown,
    /// The wide port at this place in `takers`.
    Known(u32),
    /// Nobody: it is where it came from.
    Sender,
}

/// How a hub behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// What becomes of frames for a receiver that is full.
    pub full: FullReceiver,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Taker {
    port: PortIndex,
    refusal: Option<DropReason>,
    vlans: VlanTest,
}

/// How a taker treats tagged frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum VlanTest {
    /// Takes all, even a cut tag: promiscuous, or no NIC.
    Any,
    /// Takes all that have a number.
    Whole,
    /// Takes what is in the set of this place in `HubTable::vlans`.
    Set(u32),
    /// Takes none.
    Untagged,
}

const CLASSES: usize = 3;
const UNICAST: usize = 0;

/// 0: unicast, 1: multicast, 2: broadcast.
#[inline]
fn class(destination: Mac) -> usize {
    if destination == Mac::BROADCAST { 2 } else { usize::from(destination.is_multicast()) }
}

impl HubTable {
    /// Compiles the table of a hub with these ports.
    pub fn new(members: &[Member]) -> HubTable {
        let mut table = HubTable { members: members.len(), ..HubTable::default() };
        let mut exact: HashMap<Mac, Vec<Taker>> = HashMap::new();
        let mut wide: [Vec<Taker>; CLASSES] = Default::default();
        for member in members {
            table.add(member, &mut exact, &mut wide);
        }
        for (class, takers) in wide.into_iter().enumerate() {
            table.wide[class] = table.append(&takers);
        }
        let ranges =
            exact.into_iter().map(|(mac, takers)| (mac.key(), table.append(&takers))).collect::<Vec<_>>();
        table.exact = AddressMap::new(&ranges);
        table
    }

    /// The same table for a hub that learns.
    pub fn learning(mut self, fdb: Arc<Fdb>) -> HubTable {
        let wide = self.wide[UNICAST].clone();
        let ports = self.slice(wide.clone()).iter().map(|taker| taker.port.at());
        let mut places = vec![NOT_WIDE; ports.clone().max().map_or(0, |last| last + 1)];
        wide.zip(ports).for_each(|(place, port)| places[port] = place);
        self.learning = Some(Learning { fdb, places: places.into() });
        self
    }

    /// The same with other options.
    pub fn with_options(self, options: HubOptions) -> HubTable {
        HubTable { options, ..self }
    }

    /// How the hub behaves.
    pub fn options(&self) -> HubOptions {
        self.options
    }

    /// Ports on the hub, whether up or down.
    pub fn members(&self) -> usize {
        self.members
    }

    fn append(&mut self, takers: &[Taker]) -> Range<u32> {
        let first = self.takers.len() as u32;
        self.takers.extend_from_slice(takers);
        first..self.takers.len() as u32
    }

    /// Enters one port wherever it may be found.
    fn add(
        &mut self,
        member: &Member,
        exact: &mut HashMap<Mac, Vec<Taker>>,
        wide: &mut [Vec<Taker>; CLASSES],
    ) {
        let port = member.port;
        let everything = Taker { port, refusal: None, vlans: VlanTest::Any };
        let Some(filter) = member.filter.as_deref().filter(|filter| !filter.promiscuous) else {
            if member.up {
                wide.iter_mut().for_each(|takers| takers.push(everything));
            }
            return;
        };
        let vlans = self.vlan_test(filter);
        let taker = Taker { vlans, ..everything };
        let takes_all = [
            filter.unicast == RxState::All || filter.unicast == RxState::Normal && filter.unicast_overflow,
            filter.multicast == RxState::All
                || filter.multicast == RxState::Normal && filter.multicast_overflow,
            filter.broadcast_allowed,
        ];
        for class in 0..CLASSES {
            if member.up && takes_all[class] {
                wide[class].push(taker);
            }
        }
        let listed = filter.unicast_table.iter().filter(|mac| !mac.is_multicast()).chain([&filter.main_mac]);
        let groups =
            filter.multicast_table.iter().filter(|mac| mac.is_multicast() && **mac != Mac::BROADCAST);
        for mac in listed.chain(groups).filter(|mac| !(member.up && takes_all[class(**mac)])) {
            let refusal =
                match (member.up, if mac.is_multicast() { filter.multicast } else { filter.unicast }) {
                    (false, _) => Some(DropReason::LinkDown),
                    (true, RxState::None) => Some(DropReason::Filtered),
                    (true, _) => None,
                };
            let takers = exact.entry(*mac).or_default();
            if takers.last().is_none_or(|last| last.port != port) {
                takers.push(Taker { refusal, ..taker });
            }
        }
    }

    fn vlan_test(&mut self, filter: &RxFilter) -> VlanTest {
        match filter.vlan {
            RxState::All => VlanTest::Whole,
            RxState::None => VlanTest::Untagged,
            RxState::Normal => {
                self.vlans.push(filter.vlan_table.clone());
                VlanTest::Set(self.vlans.len() as u32 - 1)
            }
        }
    }

    /// For the frames of one burst of `sender`, read in the second `now_s`.
    #[inline]
    pub fn classifier(&self, sender: PortIndex, now_s: u32) -> Classifier<'_> {
        // No frame has the source 0 and is learned, and 0 is nowhere.
        let (learning, narrows) = (self.learning.as_ref(), !self.wide[UNICAST].is_empty());
        Classifier { table: self, learning, narrows, sender, now_s, source: 0, destination: 0, found: None }
    }

    /// Calls `decide` for every port that takes the frame that `sender` sent, or refuses it by its exact address, on a hub
    /// that does not learn.
    #[inline]
    pub fn for_each_taker(&self, sender: PortIndex, frame: &Frame<'_>, decide: impl FnMut(Verdict)) {
        self.decide(sender, frame, Reach::Wide, decide);
    }

    #[inline]
    fn decide(&self, sender: PortIndex, frame: &Frame<'_>, reach: Reach, mut decide: impl FnMut(Verdict)) {
        let destination = frame.destination();
        let vlan = frame.vlan();
        let exact = self.slice(self.exact.find(destination.key()));
        let others = match reach {
            Reach::Unknown if self.is_taken(exact, sender, vlan) => &[],
            Reach::Wide | Reach::Unknown => self.slice(self.wide[class(destination)].clone()),
            Reach::Known(place) => self.slice(place..place + 1),
            Reach::Sender => &[],
        };
        // One body for both, so that `decide` is inlined once.
        for (takers, by_address) in [(exact, true), (others, false)] {
            for taker in takers {
                if taker.port == sender {
                    continue;
                }
                let passes = self.passes(taker.vlans, vlan);
                match taker.refusal {
                    None if passes => decide(Verdict::Take(taker.port)),
                    refusal if by_address => {
                        decide(Verdict::Refuse(taker.port, refusal.unwrap_or(DropReason::Filtered)))
                    }
                    _ => (),
                }
            }
        }
    }

    #[inline]
    fn slice(&self, range: Range<u32>) -> &[Taker] {
        &self.takers[range.start as usize..range.end as usize]
    }

    /// Whether one of these ports takes the frame.
    #[inline]
    fn is_taken(&self, takers: &[Taker], sender: PortIndex, vlan: Option<u16>) -> bool {
        let takes =
            |taker: &Taker| taker.port != sender && taker.refusal.is_none() && self.passes(taker.vlans, vlan);
        takers.iter().any(takes)
    }

    #[inline]
    fn takes_vlan(&self, place: u32, frame: &Frame<'_>) -> bool {
        self.passes(self.takers[place as usize].vlans, frame.vlan())
    }

    #[inline]
    fn passes(&self, test: VlanTest, vlan: Option<u16>) -> bool {
        let Some(vlan) = vlan else { return true };
        match test {
            VlanTest::Any => true,
            VlanTest::Whole => vlan != VLAN_CUT,
            VlanTest::Set(place) => self.vlans[place as usize].contains(vlan),
            VlanTest::Untagged => false,
        }
    }
}

impl Classifier<'_> {
    /// Calls `decide` for every port that takes the next frame, or refuses it by its exact address.
    #[inline]
    pub fn for_each_taker(&mut self, frame: &Frame<'_>, decide: impl FnMut(Verdict)) {
        let reach = match self.learning {
            None => Reach::Wide,
            Some(learning) => self.reach(learning, frame),
        };
        self.table.decide(self.sender, frame, reach, decide);
    }

    #[inline]
    fn reach(&mut self, learning: &Learning, frame: &Frame<'_>) -> Reach {
        let source = frame.source().key();
        if source != self.source {
            self.source = source;
            learning.fdb.learn(source, self.sender, self.now_s);
        }
        if !self.narrows {
            return Reach::Wide;
        }
        let destination = frame.destination();
        if destination.is_multicast() {
            return Reach::Wide;
        }
        if destination.key() != self.destination {
            self.destination = destination.key();
            self.found = learning.fdb.find(self.destination, self.now_s);
        }
        match self.found {
            None => Reach::Unknown,
            Some(port) if port == self.sender => Reach::Sender,
            // A port that would not take it narrows nothing: so a guest with a filter steals no frames by lying.
            Some(port) => match learning.places.get(port.at()) {
                Some(&place) if place != NOT_WIDE && self.table.takes_vlan(place, frame) => {
                    Reach::Known(place)
                }
                _ => Reach::Unknown,
            },
        }
    }
}

/// From an address to a range of takers: open addressing, at most half full, so that a look-up is one cache line or
/// two. The seed is random: guests list addresses, and must not be able to make them collide.
struct AddressMap {
    slots: Box<[(u64, Range<u32>)]>,
    seed: u64,
    shift: u32,
}

/// No address has this key: addresses are 48 bits.
const FREE: u64 = u64::MAX;

impl Default for AddressMap {
    fn default() -> AddressMap {
        AddressMap::new(&[])
    }
}

impl AddressMap {
    fn new(entries: &[(u64, Range<u32>)]) -> AddressMap {
        let size = (entries.len() * 2).next_power_of_two().max(2);
        let seed = RandomState::new().build_hasher().finish() | 1;
        let shift = 64 - size.trailing_zeros();
        let mut map = AddressMap { slots: vec![(FREE, 0..0); size].into(), seed, shift };
        for (key, range) in entries {
            let mut slot = map.home(*key);
            while map.slots[slot].0 != FREE {
                slot = (slot + 1) & (size - 1);
            }
            map.slots[slot] = (*key, range.clone());
        }
        map
    }

    /// Multiply-shift (Dietzfelbinger et al., 1997): for a random odd seed, two keys collide no more often than chance
    /// has it, twice over.
    #[inline]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(self.seed) >> self.shift) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn find(&self, key: u64) -> Range<u32> {
        let mut slot = self.home(key);
        loop {
            let (found, range) = &self.slots[slot];
            if *found == key {
                return range.clone();
            }
            if *found == FREE {
                return 0..0;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

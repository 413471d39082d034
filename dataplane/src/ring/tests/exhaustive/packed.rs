//! Packed rings of 1 to 4 descriptors.

use super::reference::{id_of, outcome, packed_chain};
use super::slate::{DESC, Image};
use super::*;
use crate::drops::DropReason;
use crate::ring::Fault;
use crate::ring::packed::Packed;

/// The flags that say whose a descriptor is.
const AVAILABLE_BIT: u16 = 1 << 7;
const USED_BIT: u16 = 1 << 15;
/// The wrap counter of a position.
const WRAP: u16 = 1 << 15;

fn encode((addr, len, flags): (u64, u32, u16), id: u16, owner: u16) -> [u64; 2] {
    [addr, u64::from(len) | u64::from(id) << 32 | u64::from(flags | owner) << 48]
}

impl Slate<Packed> {
    fn packed(way: Way, size: u16, in_order: bool) -> Slate<Packed> {
        Slate::new(way, size, true, in_order)
    }

    /// Serves a ring from a position on, whose descriptors are available or not as `owners` says, in the order of the ring:
    /// by what the two bits are to the round they are looked at in.
    fn serve(&mut self, position: u16, owners: &[Owner], guest: &Guest, in_order: bool) {
        let size = usize::from(self.size());
        let first = usize::from(position & !WRAP);
        let wrap_at = |slot: usize| (position & WRAP != 0) == (first + slot < size);
        let flags: Vec<u16> = (0..size).map(|slot| owners[slot].flags(wrap_at(slot))).collect();
        let flags_at = |place: usize| flags[(place + size - first) % size];
        self.write_ring(guest, |descriptor, _, place| encode(descriptor, id_of(place), flags_at(place)));
        let chains = chains(guest, first, owners);
        let expected = outcome(self.way, size as u16, &chains);
        let give_back = |image: &mut Image, chains: &[(u16, u16, u32)]| {
            let (mut slot, mut first_used) = (0, None);
            let mut wrote = false;
            for &(slots, id, written) in chains {
                wrote |= written > 0;
                // In order, the last id stands for all that were not written.
                let place = if in_order && !wrote { first_used.unwrap_or(slot) } else { slot };
                first_used.get_or_insert(slot);
                let used = if wrap_at(place) { AVAILABLE_BIT | USED_BIT } else { 0 };
                let flags = used | if written > 0 { WRITE } else { 0 };
                let [_, rest] = encode((0, written, flags), id, 0);
                let at = DESC + 16 * ((first + place) % size) as u64 + 8;
                image.put(at, &rest.to_le_bytes());
                slot += usize::from(slots);
            }
            let place = (first + slot) % size;
            place as u16 | if wrap_at(slot) { WRAP } else { 0 }
        };
        self.check((position, position), &expected, give_back, &(position, owners, guest));
    }
}

/// Whose a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Available,
    /// Used in this round, or used in the one before, or available in the one before.
    Used,
    UsedBefore,
    AvailableBefore,
}

impl Owner {
    /// The two flags, in a round of this wrap counter.
    fn flags(self, wrap: bool) -> u16 {
        let (available, used) = match self {
            Owner::Available => (wrap, !wrap),
            Owner::Used => (wrap, wrap),
            Owner::UsedBefore => (!wrap, !wrap),
            Owner::AvailableBefore => (!wrap, wrap),
        };
        let flag = |is: bool, bit| if is { bit } else { 0 };
        flag(available, AVAILABLE_BIT) | flag(used, USED_BIT)
    }
}

/// The chains of a round that begins at a place, as far as they are available and good in their extent.
fn chains(guest: &Guest, first: usize, owners: &[Owner]) -> Vec<reference::Chain> {
    let size = guest.entries.len();
    let mut available: Vec<bool> = owners.iter().map(|&owner| owner == Owner::Available).collect();
    // Behind the round it begins anew, where everything is of the round before.
    available.extend(vec![false; size]);
    let (mut slot, mut chains) = (0, Vec::new());
    while available[slot] {
        let chain = packed_chain(guest, (first + slot) % size, &available[slot..]);
        slot += usize::from(chain.slots);
        let ended = chain.slots == 0;
        chains.push(chain);
        if ended {
            break;
        }
    }
    chains
}

/// Every ring of up to three descriptors, whoever has them; in a ring of four the last one is good, and available or not.
#[test]
fn g33_every_small_packed_ring_comes_to_the_end_that_the_reference_says() {
    for way in WAYS {
        let tried: u64 = (1..=SIZE_MAX).map(|size| serve_rings(way, size, false)).sum();
        println!("{way:?}: {tried} rings");
    }
}

#[test]
fn g33_every_small_packed_ring_that_is_used_in_order_comes_to_the_end_that_the_reference_says() {
    for way in [Way::In, Way::Out { mergeable: true }] {
        serve_rings(way, 3, true);
    }
}

fn serve_rings(way: Way, size: u16, in_order: bool) -> u64 {
    let mut slate = Slate::packed(way, size, in_order);
    let tables = telling_tables(way);
    let alphabets = [&alphabet(&[1], tables.len())[..], &alphabet(&[1], 1), &[good(way)]];
    let mut guest = Guest { entries: vec![good(way); size.into()], tables };
    slate.write_tables(&guest, |descriptor, _| encode(descriptor, 0, 0));
    for position in positions(size) {
        let mut owners = vec![Owner::Available; size.into()];
        every_ring((&mut guest, &mut owners), position, 0, &alphabets, &mut |guest, owners| {
            slate.serve(position, owners, guest, in_order);
        });
    }
    slate.tried
}

/// All positions of a ring of one or two descriptors; of a larger one the first, and those from which the end is near.
fn positions(size: u16) -> Vec<u16> {
    match size {
        1 => vec![0, WRAP],
        2 => vec![0, 1, WRAP, 1 | WRAP],
        _ => vec![WRAP, (size - 2) | WRAP, size - 1],
    }
}

/// Gives the first three descriptors from a position on every value: of the first alphabet, then of the second; behind one
/// that breaks the ring, of the third. What is behind one that is not available is not reached.
fn every_ring(
    (guest, owners): (&mut Guest, &mut [Owner]),
    position: u16,
    slot: usize,
    alphabets: &[&[Entry]; 3],
    visit: &mut dyn FnMut(&Guest, &[Owner]),
) {
    let size = guest.entries.len();
    if slot == size.min(3) {
        visit(guest, owners);
        if size == 4 {
            owners[3] = Owner::Used;
            visit(guest, owners);
            owners[3] = Owner::Available;
        }
        return;
    }
    for owner in [Owner::Used, Owner::UsedBefore, Owner::AvailableBefore] {
        owners[slot] = owner;
        visit(guest, owners);
    }
    owners[slot] = Owner::Available;
    let place = (usize::from(position & !WRAP) + slot) % size;
    let before = guest.entries[place];
    let [here, later, broken] = *alphabets;
    for &entry in here {
        guest.entries[place] = entry;
        let breaks = !entry.is_inside() && entry.what != What::Table(0);
        let later = if breaks || here.len() == 1 { broken } else { later };
        every_ring((guest, owners), position, slot + 1, &[later, later, broken], visit);
    }
    guest.entries[place] = before;
}

/// Every table of up to three entries, as long as it says it is or not, at the head and behind a descriptor.
#[test]
fn g33_every_small_table_of_a_packed_ring_comes_to_the_end_that_the_reference_says() {
    for way in WAYS {
        let mut slate = Slate::packed(way, 4, false);
        let mut guest = guest_with_a_table(way, 4);
        let all = [Owner::Available; 4];
        let mut serve = |guest: &mut Guest| {
            slate.write_tables(guest, |descriptor, next| encode(descriptor, next, USED_BIT));
            slate.serve(WRAP, &all, guest, false);
            guest.entries.swap(0, 1);
            slate.serve(WRAP, &all, guest, false);
            guest.entries.swap(0, 1);
        };
        let alphabet = alphabet(&[3], 1);
        for count in 1..=3 {
            guest.tables[0].len = 16 * count as u32;
            every_row(&mut guest, 0, count, &alphabet, &mut serve);
        }
        for len in TABLE_LENS {
            guest.tables[0].len = len;
            serve(&mut guest);
        }
        println!("{way:?}: {} tables", slate.tried);
    }
}

/// Gives the entries of the table from `place` on every value, as long as those before are good.
fn every_row(
    guest: &mut Guest,
    place: usize,
    count: usize,
    alphabet: &[Entry],
    visit: &mut dyn FnMut(&mut Guest),
) {
    if place == count {
        return visit(guest);
    }
    let before = guest.tables[0].entries[place];
    for &entry in alphabet {
        guest.tables[0].entries[place] = entry;
        every_row(guest, if entry.is_inside() { place + 1 } else { count }, count, alphabet, visit);
    }
    guest.tables[0].entries[place] = before;
}

/// Positions that are in no ring of that size, as after a change of the size under it.
#[test]
fn g33_every_position_is_in_the_ring_or_breaks_it() {
    for way in WAYS {
        for size in 1..=SIZE_MAX {
            let mut slate = Slate::packed(way, size, false);
            let mut expected =
                reference::Outcome { fault: Some(Fault::DescriptorIndex), ..Default::default() };
            if way != Way::In {
                expected.settled = SENT.len();
                expected.drops[DropReason::NotReady as usize] = SENT.len() as u64;
            }
            for position in (0..=u16::MAX).filter(|position| position & !WRAP >= size) {
                slate.check_index(DESC, position, 0, &expected);
            }
        }
    }
}

//! Split rings of 1, 2 and 4 entries.

use super::reference::{Outcome, outcome, split_chain};
use super::slate::{AVAIL, Image, USED};
use super::*;
use crate::ring::Fault;
use crate::ring::split::Split;

const SIZES: [u16; 3] = [1, 2, 4];

fn encode((addr, len, flags): (u64, u32, u16), next: u16) -> [u64; 2] {
    [addr, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48]
}

/// A position in the available ring, and one in the used ring.
type Positions = (u16, u16);

impl Slate<Split> {
    fn split(way: Way, size: u16) -> Slate<Split> {
        Slate::new(way, size, false, false)
    }

    fn write_both(&mut self, guest: &Guest) {
        self.write_ring(guest, |descriptor, next, _| encode(descriptor, next));
        self.write_tables(guest, encode);
    }

    /// Makes `heads` available from a position on, and serves the ring.
    fn serve(&mut self, (avail, used): Positions, heads: &[u16], guest: &Guest) {
        let size = self.size();
        let index = avail.wrapping_add(heads.len() as u16);
        self.image.put(AVAIL + 2, &index.to_le_bytes());
        for (position, head) in (0..).zip(heads) {
            let slot = avail.wrapping_add(position) % size;
            self.image.put(AVAIL + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        }
        self.image.put(USED + 2, &used.to_le_bytes());
        let chains: Vec<_> = heads.iter().map(|&head| split_chain(guest, head)).collect();
        let expected = outcome(self.way, size, &chains);
        let give_back = |image: &mut Image, chains: &[(u16, u16, u32)]| {
            for (position, &(_, head, written)) in (0..).zip(chains) {
                let place = USED + 4 + 8 * u64::from(used.wrapping_add(position) % size);
                image.put(place, &u32::from(head).to_le_bytes());
                image.put(place + 4, &written.to_le_bytes());
            }
            image.put(USED + 2, &used.wrapping_add(chains.len() as u16).to_le_bytes());
            avail.wrapping_add(chains.len() as u16)
        };
        self.check((avail, used), &expected, give_back, &(heads, guest));
    }
}

/// Every head, and every graph that it reaches, of up to three descriptors; behind it the last descriptor is made available
/// in a ring of four, which is a good one.
#[test]
fn every_small_graph_of_a_split_ring_comes_to_the_end_that_the_reference_says() {
    for way in WAYS {
        let mut tried = 0;
        for size in SIZES {
            let mut slate = Slate::split(way, size);
            let free = usize::from(size).min(3);
            let nexts: Vec<_> = (0..=size).collect();
            let tables = telling_tables(way);
            let alphabet = alphabet(&nexts, tables.len());
            let mut guest = Guest { entries: vec![good(way); size.into()], tables };
            slate.write_tables(&guest, encode);
            for head in (0..free as u16).chain([size, 0xffff]) {
                let heads: &[u16] = if size == 4 { &[head, 3] } else { &[head] };
                every_graph(&mut guest.entries.clone(), head.into(), free, &alphabet, &mut |entries| {
                    guest.entries.copy_from_slice(entries);
                    slate.write_ring(&guest, |descriptor, next, _| encode(descriptor, next));
                    slate.serve((0xffff, 0), heads, &guest);
                });
            }
            tried += slate.tried;
        }
        println!("{way:?}: {tried} graphs");
    }
}

/// Every table of up to three entries, as long as it says it is or not, at the head and behind a descriptor.
#[test]
fn every_small_table_of_a_split_ring_comes_to_the_end_that_the_reference_says() {
    for way in WAYS {
        let mut slate = Slate::split(way, 4);
        let mut guest = guest_with_a_table(way, 4);
        let mut serve = |guest: &Guest| {
            slate.write_both(guest);
            slate.serve((0, 0), &[0, 3], guest);
            slate.serve((3, 3), &[1, 3], guest);
        };
        let alphabet = alphabet(&[0, 1, 2, 3], 1);
        for count in 1..=3 {
            guest.tables[0].len = 16 * count;
            let mut entries = guest.tables[0].entries.clone();
            every_graph(&mut entries, 0, count as usize, &alphabet, &mut |entries| {
                guest.tables[0].entries.copy_from_slice(entries);
                serve(&guest);
            });
        }
        for len in TABLE_LENS {
            guest.tables[0].len = len;
            serve(&guest);
        }
        println!("{way:?}: {} tables", slate.tried);
    }
}

/// Every distance of the available index from some positions, and the telling ones from every position; where the used index
/// stands does not matter.
#[test]
fn g24_g25_every_pair_of_indices_is_a_number_of_chains_or_a_jump() {
    for way in [Way::In, Way::Out { mergeable: true }] {
        for size in SIZES {
            let mut slate = Slate::split(way, size);
            let guest = Guest { entries: vec![good(way); size.into()], tables: Vec::new() };
            slate.write_both(&guest);
            for base in [0, 0x7fff, 0xfffe] {
                (0..=size).for_each(|distance| slate.serve_some(base, distance, base, &guest));
                (size + 1..=u16::MAX).for_each(|distance| slate.serve_jump(base, distance));
            }
            for base in 0..=u16::MAX {
                [size + 1, 0x8000, 0xffff].into_iter().for_each(|distance| slate.serve_jump(base, distance));
                if size == 2 {
                    slate.serve_some(base, size, base.wrapping_mul(3), &guest);
                }
            }
            slate.serve_some(0, 0, 0, &guest);
        }
    }
}

impl Slate<Split> {
    /// Serves a ring with so many good chains.
    fn serve_some(&mut self, avail: u16, count: u16, used: u16, guest: &Guest) {
        let size = self.size();
        let heads = [0, 1, 2, 3].map(|head: u16| head.wrapping_add(used) % size);
        self.serve((avail, used), &heads[..count.into()], guest);
    }

    /// Serves a ring whose available index is so far from our position that it can only be a lie.
    fn serve_jump(&mut self, avail: u16, distance: u16) {
        let mut expected = Outcome { fault: Some(Fault::IndexJump), ..Outcome::default() };
        if self.way != Way::In {
            expected.settled = SENT.len();
            expected.drops[crate::drops::DropReason::NotReady as usize] = SENT.len() as u64;
        }
        self.check_index(AVAIL, avail, avail.wrapping_add(distance), &expected);
    }
}

//! Random rings, walked by us and by `virtio-queue`, must hold the same frames.

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::*;

const SIZE: u16 = 16;

/// A descriptor of a random table: mostly good, sometimes not.
#[derive(Clone, Debug)]
struct Entry {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

fn any_entry(direction: u16) -> impl Strategy<Value = Entry> {
    let addr = prop_oneof![
        12 => BUFFERS..BUFFERS + 0x4000,
        2 => HIGH - 64..HIGH + 64,
        1 => prop_oneof![Just(0), Just(END - 8), Just(u64::MAX - 4)],
    ];
    let len = prop_oneof![6 => 0u32..200, 3 => 200u32..3000, 1 => Just(12)];
    let flags = prop_oneof![5 => Just(direction), 5 => Just(direction | NEXT), 1 => Just(direction ^ WRITE)];
    let next = prop_oneof![15 => 0..SIZE, 1 => Just(SIZE)];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| Entry { addr, len, flags, next })
}

/// The table, places that are indirect, and the heads that are posted.
type Guest = (Vec<Entry>, Vec<Entry>, Option<u16>, Vec<u16>);

fn any_guest(direction: u16) -> impl Strategy<Value = Guest> {
    let table = prop::collection::vec(any_entry(direction), SIZE as usize);
    let indirect = prop::collection::vec(any_entry(direction), 1..6);
    (table, indirect, prop::option::of(0..SIZE), prop::collection::vec(0..SIZE, 1..SIZE as usize))
}

fn world_of((table, indirect, place, heads): &Guest) -> World {
    let mut world = World::new(SIZE);
    (BUFFERS..HIGH + 0x4000).step_by(8).for_each(|addr| {
        // Zeros are net headers that ask for nothing; a varied rest tells frames apart.
        world.put(addr, &[0, 0, 0, (addr >> 3) as u8, (addr >> 8) as u8, 0, 0, 0]);
    });
    for (index, entry) in (0..).zip(table) {
        world.describe(index, entry.addr, entry.len, entry.flags, entry.next);
    }
    for (index, entry) in (0u64..).zip(indirect) {
        world.describe_at(TABLES + index * 16, entry.addr, entry.len, entry.flags, entry.next);
    }
    if let Some(place) = place {
        world.describe(*place, TABLES, indirect.len() as u32 * 16, INDIRECT, 0);
    }
    heads.iter().for_each(|&head| world.post(head));
    world
}

fn oracle_memory(world: &World) -> GuestMemoryMmap {
    let region = |guest: u64, len: u64, offset: u64| {
        let file = std::fs::File::from(world.file.try_clone().unwrap());
        let mapping = MmapRegionBuilder::new(len as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::new(file, offset))
            .build()
            .unwrap();
        GuestRegionMmap::new(mapping, GuestAddress(guest)).unwrap()
    };
    GuestMemoryMmap::from_regions(vec![region(LOW, LOW_LEN, 0), region(HIGH, HIGH_LEN, HIGH_OFFSET)]).unwrap()
}

/// What the oracle finds at each posted head: the descriptors, and whether the chain came to its end.
fn oracle_chains(memory: &GuestMemoryMmap) -> Vec<(Vec<Descriptor>, bool)> {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_size(SIZE);
    queue.set_desc_table_address(Some(DESC as u32), Some(0));
    queue.set_avail_ring_address(Some(AVAIL as u32), Some(0));
    queue.set_used_ring_address(Some(USED as u32), Some(0));
    queue.set_ready(true);
    let chains = queue.iter(memory).unwrap();
    chains
        .map(|chain| {
            let descriptors: Vec<Descriptor> = chain.collect();
            let ended = descriptors.last().is_some_and(|last| !last.has_next());
            (descriptors, ended)
        })
        .collect()
}

/// The bytes of a chain, if all of them are in memory.
fn bytes_of(memory: &GuestMemoryMmap, chain: &[Descriptor]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for descriptor in chain {
        descriptor.addr().0.checked_add(u64::from(descriptor.len()))?;
        let in_memory = (LOW..END).contains(&descriptor.addr().0);
        let mut buffer = vec![0; descriptor.len() as usize];
        memory.read_slice(&mut buffer, descriptor.addr()).ok().filter(|()| in_memory)?;
        bytes.extend(buffer);
    }
    Some(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn transmit_rings_hold_the_frames_that_the_oracle_finds(guest in any_guest(0)) {
        let world = world_of(&guest);
        let memory = oracle_memory(&world);
        let polled = world.poll();
        let mut frames = polled.frames.into_iter();
        let (mut dropped, mut used) = (0, 0);
        for ((chain, ended), &head) in oracle_chains(&memory).iter().zip(&guest.3) {
            let refused = chain.iter().position(|descriptor| descriptor.flags() & WRITE != 0);
            // A buffer is looked up before its direction is.
            let looked_at = &chain[..refused.map_or(chain.len(), |place| place + 1)];
            let bytes = bytes_of(&memory, looked_at);
            if bytes.is_none() || !ended && refused.is_none() {
                prop_assert!(world.fault().is_some(), "the oracle finds no end, or no memory, of {head}");
                break;
            }
            used += 1;
            let bytes = bytes.unwrap_or_default();
            let plain = bytes.len() >= 12 && bytes[0] & 1 == 0 && bytes[1] == 0;
            if refused.is_some() || !plain || bytes.len() < 26 {
                dropped += 1;
            } else {
                prop_assert_eq!(frames.next(), Some(bytes[12..].to_vec()));
            }
        }
        prop_assert_eq!(frames.next(), None);
        prop_assert_eq!(polled.drops.iter().sum::<u64>(), dropped);
        prop_assert_eq!(world.used().len(), used);
        prop_assert_eq!(world.fault().is_none(), used == guest.3.len());
    }

    #[test]
    fn receive_rings_are_filled_where_the_oracle_finds_buffers(
        guest in any_guest(WRITE),
        lens in prop::collection::vec(14usize..2000, 1..4),
    ) {
        let world = world_of(&guest);
        let memory = oracle_memory(&world);
        let chains = oracle_chains(&memory);
        let sent: Vec<Vec<u8>> = lens.iter().enumerate().map(|(seed, &len)| frame(seed as u8, len)).collect();
        let (_, tally) = world.send(&sent);
        let used = world.used();
        let mut place = 0;
        let overlaps = buffers_overlap(&chains);
        for bytes in sent.iter().take(tally.frames as usize) {
            let mut left = bytes.len() + 12;
            let mut landed: Vec<u8> = Vec::new();
            while left > 0 {
                let (head, written) = used[place];
                prop_assert_eq!(head, u32::from(guest.3[place]));
                let chain = bytes_of(&memory, &chains[place].0).unwrap_or_else(|| partly(&memory, &chains[place].0));
                landed.extend(&chain[..written as usize]);
                left -= written as usize;
                place += 1;
            }
            if !overlaps {
                prop_assert_eq!(&landed[12..], &bytes[..]);
            }
        }
        prop_assert_eq!(place, used.len(), "nothing else is given back");
    }
}

/// As much of a chain as is in memory, for chains whose end was not needed.
fn partly(memory: &GuestMemoryMmap, chain: &[Descriptor]) -> Vec<u8> {
    let good =
        (0..=chain.len()).rev().find(|&count| bytes_of(memory, &chain[..count]).is_some()).unwrap_or(0);
    bytes_of(memory, &chain[..good]).unwrap_or_default()
}

/// Whether some byte of memory was posted twice: then what was written there first is gone.
fn buffers_overlap(chains: &[(Vec<Descriptor>, bool)]) -> bool {
    let mut ranges: Vec<(u64, u64)> = chains
        .iter()
        .flat_map(|(chain, _)| chain)
        .filter(|descriptor| descriptor.len() > 0)
        .map(|descriptor| {
            (descriptor.addr().0, descriptor.addr().0.saturating_add(u64::from(descriptor.len())))
        })
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[0].1 > pair[1].0)
}

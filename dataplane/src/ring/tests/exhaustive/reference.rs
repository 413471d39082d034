//! What is to become of a guest's chains, said once more and in another way: over what the guest means, not over bytes, and
//! one chain after the other.

use super::{Buffer, END, Entry, Guest, SENT, START, TABLE_PLACE, Table, Way, What};
use crate::drops::DropReason;
use crate::ring::Fault;

/// Bytes of a net header.
const NET_LEN: usize = 12;
/// Bytes of the shortest frame.
const FRAME_LEN_MIN: usize = 14;

/// A chain that the guest made available, by what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// What gives it back.
    pub id: u16,
    /// Descriptors of a packed ring that it takes.
    pub slots: u16,
    /// Its buffers that are in memory, up to the first that is not: address, length, and whether the device may write it.
    pub buffers: Vec<(u64, u32, bool)>,
    /// How it ends behind these.
    pub fault: Option<Fault>,
}

impl Chain {
    fn broken(mut self, fault: Fault) -> Chain {
        self.fault = Some(fault);
        self
    }

    /// Adds a buffer, if it is in memory.
    fn add(&mut self, buffer: Buffer, place: usize, writable: bool) -> Result<(), Fault> {
        let (addr, len) = buffer.range(place);
        let inside = (START..END).contains(&addr) && u128::from(addr) + u128::from(len) <= u128::from(END);
        if !inside {
            return Err(Fault::Address);
        }
        self.buffers.push((addr, len, writable));
        Ok(())
    }

    /// Adds what a table holds, which may be `most` buffers; nothing may follow it.
    fn add_table(
        &mut self,
        table: &Table,
        follows: bool,
        most: usize,
        sequential: bool,
    ) -> Result<(), Fault> {
        let count = table.len as usize / 16;
        if !table.len.is_multiple_of(16) || count == 0 || count > most || follows {
            return Err(Fault::Indirect);
        }
        if table.outside {
            return Err(Fault::Address);
        }
        let mut place = 0;
        for _ in 0..count {
            let Entry { what, next, writable } = table.entries[place];
            let What::Buffer(buffer) = what else { return Err(Fault::Indirect) };
            self.add(buffer, TABLE_PLACE + place, writable)?;
            place = match next {
                _ if sequential => place + 1,
                None => return Ok(()),
                Some(next) if usize::from(next) < count => usize::from(next),
                Some(_) => return Err(Fault::DescriptorIndex),
            };
        }
        if sequential { Ok(()) } else { Err(Fault::ChainLength) }
    }
}

/// The chain of a split ring that begins with descriptor `head`.
pub(super) fn split_chain(guest: &Guest, head: u16) -> Chain {
    let mut chain = Chain { id: head, slots: 1, ..Chain::default() };
    let mut place = usize::from(head);
    let size = guest.entries.len();
    for left in (1..=size).rev() {
        let Some(entry) = guest.entries.get(place) else { return chain.broken(Fault::DescriptorIndex) };
        let added = match entry.what {
            What::Buffer(buffer) => chain.add(buffer, place, entry.writable),
            What::Table(table) => {
                let end = chain.add_table(&guest.tables[table], entry.next.is_some(), left, false);
                return match end {
                    Ok(()) => chain,
                    Err(fault) => chain.broken(fault),
                };
            }
        };
        if let Err(fault) = added {
            return chain.broken(fault);
        }
        match entry.next {
            None => return chain,
            Some(next) => place = usize::from(next),
        }
    }
    chain.broken(if place < size { Fault::ChainLength } else { Fault::DescriptorIndex })
}

/// The chain of a packed ring that begins with the descriptor at `first`, which is available; `available` says which are, in
/// the order of the ring from there on, a round of them.
pub(super) fn packed_chain(guest: &Guest, first: usize, available: &[bool]) -> Chain {
    let size = guest.entries.len();
    let at = |slot: usize| (first + slot) % size;
    let mut chain = Chain::default();
    // Its extent comes first. A table ends a chain that has nothing else; in any other its descriptor is one of many.
    let alone = matches!(guest.entries[first].what, What::Table(_));
    let mut slots = 1;
    while !alone && guest.entries[at(slots - 1)].next.is_some() {
        if slots == size {
            return chain.broken(Fault::ChainLength);
        }
        if !available[slots] {
            return chain.broken(Fault::NotAvailable);
        }
        slots += 1;
    }
    (chain.slots, chain.id) = (slots as u16, id_of(at(slots - 1)));
    for slot in 0..slots {
        let entry = guest.entries[at(slot)];
        let added = match entry.what {
            What::Buffer(buffer) => chain.add(buffer, at(slot), entry.writable),
            What::Table(table) => {
                chain.add_table(&guest.tables[table], entry.next.is_some(), size - slot, true)
            }
        };
        if let Err(fault) = added {
            return chain.broken(fault);
        }
    }
    chain
}

/// The id in descriptor `place` of a packed ring, as good as any other.
pub(super) fn id_of(place: usize) -> u16 {
    0x8ab0 + place as u16
}

/// What one poll or one send is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Where the bytes of each frame that came in lie, in order: address and length.
    pub frames: Vec<Vec<(u64, u32)>>,
    /// What was written of the frames that went out: the frame, and where its bytes and those of its net header lie.
    pub written: Vec<(usize, Vec<(u64, u32)>)>,
    /// Chains that are given back: how many descriptors each takes, its id, and how far it was written.
    pub used: Vec<(u16, u16, u32)>,
    /// Frames that the ring is done with.
    pub settled: usize,
    pub drops: [u64; DropReason::COUNT],
    pub fault: Option<Fault>,
}

impl Outcome {
    fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
        self.settled += 1;
    }
}

/// What is to become of the chains that are available in a ring of `size`, in order.
pub(super) fn outcome(way: Way, size: u16, chains: &[Chain]) -> Outcome {
    match way {
        Way::In => polled(chains),
        Way::Out { mergeable } => sent(size, if mergeable { usize::MAX } else { 1 }, chains),
    }
}

fn polled(chains: &[Chain]) -> Outcome {
    let mut outcome = Outcome::default();
    for chain in chains {
        let len: usize = chain.buffers.iter().map(|buffer| buffer.1 as usize).sum();
        let readable = chain.buffers.iter().all(|buffer| !buffer.2);
        match (readable, chain.fault) {
            // What follows a buffer of the wrong kind is looked at no more.
            (false, _) => outcome.drop(DropReason::Malformed),
            (true, Some(fault)) => {
                outcome.fault = Some(fault);
                break;
            }
            _ if len < NET_LEN => outcome.drop(DropReason::Malformed),
            _ if len < NET_LEN + FRAME_LEN_MIN => outcome.drop(DropReason::Runt),
            _ => {
                outcome.frames.push(without(NET_LEN as u32, &chain.buffers));
                outcome.settled += 1;
            }
        }
        outcome.used.push((chain.slots, chain.id, 0));
    }
    outcome
}

/// The buffers without the first bytes of them.
fn without(mut bytes: u32, buffers: &[(u64, u32, bool)]) -> Vec<(u64, u32)> {
    let mut rest = Vec::new();
    for &(addr, len, _) in buffers {
        let here = bytes.min(len);
        rest.push((addr + u64::from(here), len - here));
        bytes -= here;
    }
    rest
}

fn sent(size: u16, merged_max: usize, chains: &[Chain]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ahead = chains.iter().peekable();
    for (index, len) in SENT.into_iter().enumerate() {
        let mut rest = ahead.clone();
        let (mut need, mut places, mut used) = ((NET_LEN + len) as u32, Vec::new(), Vec::new());
        while need > 0 {
            if used.len() == merged_max.min(size.into()) {
                break;
            }
            let Some(chain) = rest.next() else { return outcome };
            let before = need;
            if let Err(fault) = fill(chain, &mut need, &mut places) {
                outcome.fault = Some(fault);
                // The ring is no more, and this frame and those behind it are dropped.
                (outcome.settled..SENT.len()).for_each(|_| outcome.drop(DropReason::NotReady));
                return outcome;
            }
            used.push((chain.slots, chain.id, before - need));
        }
        if need > 0 {
            outcome.drop(DropReason::TooLong);
            continue;
        }
        outcome.settled += 1;
        outcome.written.push((index, places));
        outcome.used.extend(used);
        ahead = rest;
    }
    outcome
}

/// Takes as many bytes of a chain as are needed, looking at no more of its buffers than that.
fn fill(chain: &Chain, need: &mut u32, places: &mut Vec<(u64, u32)>) -> Result<(), Fault> {
    for &(addr, len, writable) in &chain.buffers {
        if !writable {
            return Err(Fault::NotWritable);
        }
        let here = len.min(*need);
        places.push((addr, here));
        *need -= here;
        if *need == 0 {
            return Ok(());
        }
    }
    chain.fault.map_or(Ok(()), Err)
}

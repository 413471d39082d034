//! Descriptor chains that do not end, or lead where no memory is: G01, G02, G04 to G11.

use crate::error::Result;
use crate::hostile::attacker::{Attacker, NET_HEADER};
use crate::hostile::bout::Bout;
use crate::hostile::innocents::Kind;
use crate::hostile::memory::{END, GUEST, LARGE, LOW_LEN, SEND_BUFFERS, TABLES};
use crate::hostile::ring::{Desc, INDIRECT, NEXT, SIZE, WRITE, second_word};

/// A loop in a split ring; in a packed one, which has no links, a ring in which everything goes on.
fn endless(bout: &mut Bout<'_>, name: &str, period: u16, desc: Desc) -> Result<()> {
    bout.sends(name, |attacker| {
        let ring = attacker.tx();
        let desc = desc.with(desc.flags | NEXT);
        if ring.packed {
            return ring.post(&vec![desc; usize::from(SIZE)]);
        }
        let start = ring.place();
        for step in 0..period {
            let next = start + (step + 1) % period;
            ring.set_desc(start + step, Desc { next, ..desc });
        }
        ring.offer(start);
    })
}

pub(super) fn own_next(bout: &mut Bout<'_>) -> Result<()> {
    endless(bout, "of 100 bytes", 1, Desc::read(SEND_BUFFERS, 100))?;
    endless(bout, "of no bytes", 1, Desc::read(SEND_BUFFERS, 0))?;
    endless(bout, "of one byte", 1, Desc::read(SEND_BUFFERS, 1))?;
    endless(bout, "writable", 1, Desc::write(SEND_BUFFERS, 100))
}

pub(super) fn loops(bout: &mut Bout<'_>) -> Result<()> {
    for period in [2, 3, SIZE - 1, SIZE] {
        endless(bout, &format!("of {period}, 100 bytes each"), period, Desc::read(SEND_BUFFERS, 100))?;
        endless(bout, &format!("of {period}, no bytes"), period, Desc::read(SEND_BUFFERS, 0))?;
    }
    Ok(())
}

pub(super) fn nexts(bout: &mut Bout<'_>) -> Result<()> {
    for next in [SIZE, SIZE + 1, 0x7fff, 0x8000, 0xffff] {
        bout.sends(&format!("{next:#x}"), |attacker| {
            let frame = attacker.attack_frame(0);
            attacker.tx().post_raw(&[Desc { next, ..frame.with(NEXT) }]);
        })?;
        bout.sends(&format!("{next:#x} in a table"), |attacker| {
            let frame = attacker.attack_frame(0);
            indirect(attacker, &[Desc { next, ..frame.with(NEXT) }]);
        })?;
    }
    Ok(())
}

/// A descriptor in every place of a chain: alone, behind a header, before a frame, and in a table.
fn everywhere(bout: &mut Bout<'_>, name: &str, bad: Desc) -> Result<()> {
    bout.sends(&format!("{name}, alone"), |attacker| attacker.post(&[bad]))?;
    bout.sends(&format!("{name}, second"), |attacker| {
        let header = Desc::read(SEND_BUFFERS, NET_HEADER as u32);
        attacker.post(&[header.with(NEXT), bad]);
    })?;
    bout.sends(&format!("{name}, behind a frame"), |attacker| {
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame.with(NEXT), bad]);
    })?;
    bout.sends(&format!("{name}, in a table"), |attacker| {
        let frame = attacker.attack_frame(0);
        indirect(attacker, &[Desc { next: 1, ..frame.with(NEXT) }, bad]);
    })
}

/// Posts a table of those descriptors, as they stand.
pub(super) fn indirect(attacker: &mut Attacker, entries: &[Desc]) {
    indirect_at(attacker, TABLES, entries);
}

/// As [`indirect`], at that offset of the memory.
pub(super) fn indirect_at(attacker: &mut Attacker, offset: u64, entries: &[Desc]) {
    write_table(attacker, offset, entries);
    attacker.post(&[Desc::read(offset, 16 * entries.len() as u32).with(INDIRECT)]);
}

/// Writes a table without posting it.
pub(super) fn write_table(attacker: &Attacker, offset: u64, entries: &[Desc]) {
    let packed = attacker.setup.packed;
    for (entry, desc) in entries.iter().enumerate() {
        let words = [desc.addr, second_word(*desc, packed)].map(u64::to_le_bytes);
        attacker.memory.write(offset + 16 * entry as u64, words.as_flattened());
    }
}

pub(super) fn nowhere(bout: &mut Bout<'_>) -> Result<()> {
    for (name, addr) in [
        ("zero", 0),
        ("just before", GUEST - 100),
        ("just behind", END),
        ("far away", 1 << 62),
        ("a ring's own address", 0x7000_0000_0000),
    ] {
        everywhere(bout, name, Desc { addr, len: 100, flags: 0, next: 0 })?;
    }
    Ok(())
}

pub(super) fn over_the_end(bout: &mut Bout<'_>) -> Result<()> {
    everywhere(bout, "by one byte", Desc { addr: END - 99, len: 100, flags: 0, next: 0 })?;
    everywhere(bout, "by all but one byte", Desc { addr: END - 1, len: 100, flags: 0, next: 0 })?;
    everywhere(bout, "from before the beginning", Desc { addr: GUEST - 1, len: 100, flags: 0, next: 0 })?;
    for split in [1, NET_HEADER as u64, 30, 99] {
        bout.sends(&format!("into the next region after {split} bytes"), |attacker| {
            let frame = [vec![0; NET_HEADER], Kind::Attack.frame(100)].concat();
            attacker.memory.write(LOW_LEN - split, &frame[..split as usize]);
            attacker.memory.write(LOW_LEN, &frame[split as usize..]);
            attacker.post(&[Desc::read(LOW_LEN - split, frame.len() as u32)]);
        })?;
    }
    Ok(())
}

pub(super) fn wraps(bout: &mut Bout<'_>) -> Result<()> {
    for (name, addr, len) in [
        ("to 89", u64::MAX - 10, 100),
        ("to zero", u64::MAX - 99, 100),
        ("by its last byte", u64::MAX, 1),
        ("into the memory", u64::MAX - 0x7fff_ffff, u32::MAX),
    ] {
        everywhere(bout, name, Desc { addr, len, flags: 0, next: 0 })?;
    }
    Ok(())
}

pub(super) fn empty(bout: &mut Bout<'_>) -> Result<()> {
    let none = Desc::read(SEND_BUFFERS, 0);
    bout.sends("alone", |attacker| attacker.post(&[none]))?;
    bout.sends("many alone", |attacker| (0..64).for_each(|_| attacker.post(&[none])))?;
    bout.sends("a chain of 200", |attacker| {
        let mut chain = vec![none.with(NEXT); 199];
        chain.push(none);
        attacker.post(&chain);
    })?;
    bout.sends("before, between and behind", |attacker| {
        let frame = attacker.attack_frame(0);
        let header = Desc { len: NET_HEADER as u32, ..frame };
        let rest = Desc { addr: frame.addr + NET_HEADER as u64, len: frame.len - NET_HEADER as u32, ..frame };
        let next = |desc: Desc| desc.with(NEXT);
        attacker.post(&[next(none), next(header), next(none), next(none), next(rest), none]);
    })?;
    bout.sends("in a table", |attacker| {
        let frame = attacker.attack_frame(0);
        indirect(attacker, &[Desc { next: 1, ..none.with(NEXT) }, frame]);
    })
}

pub(super) fn empty_nowhere(bout: &mut Bout<'_>) -> Result<()> {
    for (name, addr) in [("zero", 0), ("behind the memory", END + 1), ("the last byte there is", u64::MAX)] {
        everywhere(bout, name, Desc { addr, len: 0, flags: 0, next: 0 })?;
    }
    Ok(())
}

pub(super) fn longest(bout: &mut Bout<'_>) -> Result<()> {
    for len in [u32::MAX, 1 << 31, (1 << 31) - 1, u32::MAX - 11] {
        everywhere(bout, &format!("{len:#x}"), Desc::read(SEND_BUFFERS, len))?;
    }
    Ok(())
}

pub(super) fn large(bout: &mut Bout<'_>) -> Result<()> {
    let part = Desc::read(LARGE, 60_000);
    let chain = |flags: u16| {
        let mut chain = vec![part.with(flags | NEXT); 255];
        chain.push(part.with(flags));
        chain
    };
    bout.sends("in the ring", |attacker| attacker.post(&chain(0)))?;
    bout.sends("in the ring, writable", |attacker| attacker.post(&chain(WRITE)))?;
    bout.sends("in a table", |attacker| {
        let linked = |(at, desc): (usize, Desc)| Desc { next: at as u16 + 1, ..desc };
        let entries: Vec<Desc> = chain(0).into_iter().enumerate().map(linked).collect();
        indirect(attacker, &entries);
    })?;
    bout.sends("two of 70,000", |attacker| {
        let part = Desc::read(LARGE, 70_000);
        attacker.post(&[part.with(NEXT), part]);
    })
}

//! Indirect tables: G16 to G23.

use super::chains::{indirect, indirect_at, write_table};
use crate::error::Result;
use crate::hostile::attacker::NET_HEADER;
use crate::hostile::bout::Bout;
use crate::hostile::memory::{END, GUEST, LOW_LEN, SEND_BUFFERS, TABLES};
use crate::hostile::ring::{Desc, INDIRECT, NEXT, SIZE};

/// A frame as two descriptors, its header and the rest, linked as in a table from `first` on.
fn halves_of(frame: Desc, first: u16) -> [Desc; 2] {
    let header = NET_HEADER as u32;
    let rest = Desc { addr: frame.addr + u64::from(header), len: frame.len - header, ..frame };
    [Desc { len: header, next: first + 1, ..frame.with(NEXT) }, rest]
}

pub(super) fn honest(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("one entry", |attacker| {
        let frame = attacker.attack_frame(0);
        indirect(attacker, &[frame]);
    })?;
    bout.sends("two entries", |attacker| {
        let frame = attacker.attack_frame(0);
        indirect(attacker, &halves_of(frame, 0));
    })?;
    bout.sends("two entries with links the other way round", |attacker| {
        let frame = attacker.attack_frame(0);
        let [header, rest] = halves_of(frame, 0);
        // Entry 0 leads to entry 2, and entry 1 is not used. In a packed ring there are no links.
        let entries = if attacker.setup.packed {
            vec![header, rest]
        } else {
            vec![Desc { next: 2, ..header }, Desc::read(SEND_BUFFERS, 7), rest]
        };
        indirect(attacker, &entries);
    })
}

pub(super) fn empty(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("in the memory", |attacker| attacker.post(&[Desc::read(TABLES, 0).with(INDIRECT)]))?;
    bout.sends("nowhere", |attacker| {
        attacker.post(&[Desc { addr: 0, len: 0, flags: INDIRECT, next: 0 }]);
    })
}

pub(super) fn halves(bout: &mut Bout<'_>) -> Result<()> {
    for len in [1, 8, 15, 17, 31, 16 * 256 + 1] {
        bout.sends(&format!("{len} bytes"), |attacker| {
            let frame = attacker.attack_frame(0);
            write_table(attacker, TABLES, &[frame]);
            attacker.post(&[Desc::read(TABLES, len).with(INDIRECT)]);
        })?;
    }
    Ok(())
}

pub(super) fn nested(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("itself", |attacker| {
        let table = Desc::read(TABLES, 16).with(INDIRECT);
        indirect(attacker, &[table]);
    })?;
    bout.sends("another one", |attacker| {
        let frame = attacker.attack_frame(0);
        write_table(attacker, TABLES + 0x1000, &[frame]);
        indirect(attacker, &[Desc::read(TABLES + 0x1000, 16).with(INDIRECT)]);
    })?;
    bout.sends("behind a header", |attacker| {
        let header = Desc { next: 1, ..Desc::read(SEND_BUFFERS, NET_HEADER as u32).with(NEXT) };
        indirect(attacker, &[header, Desc::read(TABLES, 32).with(INDIRECT)]);
    })
}

pub(super) fn with_next(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("before a frame", |attacker| {
        let frame = attacker.attack_frame(0);
        write_table(attacker, TABLES, &[frame]);
        attacker.post(&[Desc::read(TABLES, 16).with(INDIRECT | NEXT), frame]);
    })?;
    bout.sends("twice", |attacker| {
        let frame = attacker.attack_frame(0);
        write_table(attacker, TABLES, &[frame]);
        let table = Desc::read(TABLES, 16);
        attacker.post(&[table.with(INDIRECT | NEXT), table.with(INDIRECT)]);
    })
}

pub(super) fn places(bout: &mut Bout<'_>) -> Result<()> {
    for (name, addr) in [
        ("zero", 0),
        ("behind", END),
        ("over the end", END - 24),
        ("before", GUEST - 16),
        ("wraps", u64::MAX - 15),
    ] {
        bout.sends(name, |attacker| attacker.post(&[Desc { addr, len: 32, flags: INDIRECT, next: 0 }]))?;
    }
    for split in [16, 8, 1] {
        bout.sends(&format!("over the regions' border after {split} bytes"), |attacker| {
            let frame = attacker.attack_frame(0);
            indirect_at(attacker, LOW_LEN - split, &halves_of(frame, 0));
        })?;
    }
    Ok(())
}

pub(super) fn loops(bout: &mut Bout<'_>) -> Result<()> {
    for (name, len) in [("of 100 bytes", 100), ("of no bytes", 0)] {
        bout.sends(&format!("one entry {name}"), |attacker| {
            indirect(attacker, &[Desc { next: 0, ..Desc::read(SEND_BUFFERS, len).with(NEXT) }]);
        })?;
        bout.sends(&format!("all entries {name}"), |attacker| {
            let entry = |at: u16| Desc { next: (at + 1) % SIZE, ..Desc::read(SEND_BUFFERS, len).with(NEXT) };
            indirect(attacker, &(0..SIZE).map(entry).collect::<Vec<_>>());
        })?;
    }
    Ok(())
}

pub(super) fn long(bout: &mut Bout<'_>) -> Result<()> {
    for entries in [u32::from(SIZE) + 1, 65_536, 1 << 27] {
        bout.sends(&format!("{entries} entries"), |attacker| {
            attacker.post(&[Desc::read(TABLES, entries.wrapping_mul(16)).with(INDIRECT)]);
        })?;
    }
    Ok(())
}

//! The ring that an attacker receives by: G27, G28, H09, H21. An innocent calls, and the frame goes where the attacker says.

use super::indices::stopped;
use crate::error::Result;
use crate::hostile::attacker::{Attacker, NET_HEADER, RX, Setup};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::{CALL_LEN, Innocents};
use crate::hostile::memory::{BUFFER_LEN, RECEIVE_BUFFERS};
use crate::hostile::ring::{Desc, NEXT, WRITE};

/// An attack on a receive ring that begins empty.
fn receives(
    bout: &mut Bout<'_>,
    name: &str,
    attack: impl Fn(&mut Attacker, &Innocents) -> Result<Tell>,
) -> Result<()> {
    let hears = bout.arena.hears;
    for &packed in bout.forms() {
        bout.input(name, Setup { packed, buffers: 0, ..Setup::SPLIT }, |attacker, innocents| {
            if hears { attack(attacker, innocents) } else { Ok(Tell::Absent) }
        })?;
    }
    Ok(())
}

/// Marks a stretch of memory.
fn mark(attacker: &Attacker, offset: u64, len: u64) {
    attacker.memory.write(offset, &vec![MARK; len as usize]);
}

/// Whether all of it is still as it was marked.
fn is_marked(attacker: &Attacker, offset: u64, len: u64) -> bool {
    let whole = [MARK; 8];
    (offset..offset + len).step_by(8).all(|at| attacker.memory.bytes(at) == whole)
}

pub(super) fn not_writable(bout: &mut Bout<'_>) -> Result<()> {
    for (name, flags) in
        [("alone", [0, 0]), ("before one that is", [0, WRITE]), ("behind one that is", [WRITE, 0])]
    {
        receives(bout, name, |attacker, innocents| {
            mark(attacker, RECEIVE_BUFFERS, 2 * BUFFER_LEN);
            let first = Desc::read(RECEIVE_BUFFERS, 64).with(flags[0] | NEXT);
            let second = Desc::read(RECEIVE_BUFFERS + BUFFER_LEN, 0x400).with(flags[1]);
            if flags == [0, 0] {
                attacker.rings[RX].post(&[second]);
            } else {
                attacker.rings[RX].post(&[first, second]);
            }
            attacker.show(RX);
            innocents.call(4);
            let tell = stopped(attacker, RX);
            let readable = [(flags[0], 0), (flags[1], BUFFER_LEN)];
            let kept = readable
                .iter()
                .all(|(flags, at)| flags & WRITE != 0 || is_marked(attacker, RECEIVE_BUFFERS + at, 64));
            Ok(if kept { tell } else { Tell::Wrong("what is not writable was written") })
        })?;
    }
    Ok(())
}

pub(super) fn order(bout: &mut Bout<'_>) -> Result<()> {
    for (name, flags) in [("writable, then readable", [WRITE, 0]), ("readable, then writable", [0, WRITE])] {
        bout.sends(&format!("{name}, for sending"), |attacker| {
            let frame = attacker.attack_frame(0);
            let header = NET_HEADER as u32;
            let rest = Desc { addr: frame.addr + u64::from(header), len: frame.len - header, ..frame };
            attacker.post(&[Desc { len: header, ..frame }.with(flags[0] | NEXT), rest.with(flags[1])]);
        })?;
        receives(bout, &format!("{name}, for receiving"), |attacker, innocents| {
            let buffer = |at: u64, flags: u16| Desc::read(RECEIVE_BUFFERS + at, 0x200).with(flags);
            attacker.rings[RX].post(&[buffer(0, flags[0] | NEXT), buffer(BUFFER_LEN, flags[1])]);
            attacker.show(RX);
            innocents.call(4);
            Ok(stopped(attacker, RX))
        })?;
    }
    Ok(())
}

/// Buffers of `len` bytes, fewer than a frame needs, and what the device made of them; then buffers that are large enough.
pub(super) fn too_small(bout: &mut Bout<'_>) -> Result<()> {
    for len in [1, 11, 12, 13, 64] {
        let enough = (CALL_LEN + NET_HEADER).div_ceil(len);
        receives(bout, &format!("buffers of {len} bytes, one too few"), |attacker, innocents| {
            let count = (enough - 1).min(250);
            for slot in 0..count as u64 {
                attacker.rings[RX]
                    .post(&[Desc::write(RECEIVE_BUFFERS + BUFFER_LEN * (slot % 200), len as u32)]);
            }
            attacker.show(RX);
            innocents.call(4);
            innocents.turn();
            let begun = attacker.rings[RX].used_of_first(count as u16);
            if begun > 0 {
                // One that cannot hold a header may be given back at once.
                let tell = if len < NET_HEADER { Tell::Handled } else { Tell::Wrong("a frame was begun") };
                return Ok(if attacker.is_at_fault(RX) { Tell::Stopped } else { tell });
            }
            if attacker.is_at_fault(RX) {
                return Ok(Tell::Stopped);
            }
            attacker.reset()?;
            attacker.post_receive_buffers(32);
            attacker.show(RX);
            Ok(Tell::Handled)
        })?;
    }
    receives(bout, "no buffer at all", |attacker, innocents| {
        innocents.call(100);
        attacker.post_receive_buffers(32);
        attacker.show(RX);
        Ok(Tell::Handled)
    })
}

pub(super) fn behind(bout: &mut Bout<'_>) -> Result<()> {
    for (name, len) in [("one buffer", 0x400), ("merged buffers", 64)] {
        receives(bout, name, |attacker, innocents| {
            mark(attacker, RECEIVE_BUFFERS, 16 * BUFFER_LEN);
            for slot in 0..16 {
                attacker.rings[RX].post(&[Desc::write(RECEIVE_BUFFERS + BUFFER_LEN * slot, len)]);
            }
            attacker.show(RX);
            innocents.call(1);
            if !attacker.receives(16) {
                return Ok(Tell::Stopped);
            }
            let used = attacker.rings[RX].used_of_first(16);
            let written = (CALL_LEN + NET_HEADER) as u64;
            let last = u64::from(used - 1);
            let filled = written - last * u64::from(len).min(written);
            let clean = (0..16).all(|slot: u64| {
                let from = match slot.cmp(&last) {
                    std::cmp::Ordering::Less => u64::from(len),
                    std::cmp::Ordering::Equal => filled,
                    std::cmp::Ordering::Greater => 0,
                };
                let start = (RECEIVE_BUFFERS + BUFFER_LEN * slot + from).next_multiple_of(8);
                let end = RECEIVE_BUFFERS + BUFFER_LEN * (slot + 1);
                (start..end).step_by(8).all(|at| [[MARK; 8], [0; 8]].contains(&attacker.memory.bytes(at)))
            });
            attacker.post_receive_buffers(32);
            attacker.show(RX);
            Ok(if clean { Tell::Handled } else { Tell::Wrong("bytes behind a frame were written") })
        })?;
    }
    Ok(())
}

/// What memory is marked with.
const MARK: u8 = 0xa5;

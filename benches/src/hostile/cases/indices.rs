//! Indices, places and rounds of a ring, and where its parts lie: G03, G24, G25, G31, G33.

use crate::error::Result;
use crate::hostile::attacker::{Attacker, Came, PROBE_TIME_MAX, RX, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::memory::{GUEST, Memory, SEND_BUFFERS};
use crate::hostile::ring::{Desc, NEXT, SIZE};
use crate::hostile::wire::{Answer, addresses, of, request::*, state, table};

pub(super) fn heads(bout: &mut Bout<'_>) -> Result<()> {
    for head in [SIZE, SIZE + 1, 0x7fff, 0x8000, 0xffff] {
        bout.sends(&format!("{head:#x}"), |attacker| {
            let frame = attacker.attack_frame(0);
            let ring = attacker.tx();
            if ring.packed {
                // A buffer's id is the driver's own business; it comes back as it was.
                ring.post_raw(&[Desc { next: head, ..frame }]);
            } else {
                ring.set_desc(0, frame);
                ring.offer(head);
            }
        })?;
        bout.input(&format!("{head:#x} for receiving"), Setup::SPLIT, |attacker, innocents| {
            attacker.rings[RX].offer(head);
            attacker.show(RX);
            innocents.call(64);
            Ok(stopped(attacker, RX))
        })?;
    }
    Ok(())
}

/// What an attacker knows of a ring that may have stopped.
pub(super) fn stopped(attacker: &Attacker, ring: usize) -> Tell {
    match attacker.wait(ring, PROBE_TIME_MAX) {
        Came::Used => Tell::Handled,
        _ => Tell::Stopped,
    }
}

pub(super) fn jumps(bout: &mut Bout<'_>) -> Result<()> {
    for ahead in [SIZE + 1, SIZE + 2, 0x7fff, 0x8000, 40_000] {
        jump(bout, &format!("by {ahead}"), ahead)?;
    }
    jump(bout, "by the ring's size, with nothing in it", SIZE)
}

pub(super) fn back(bout: &mut Bout<'_>) -> Result<()> {
    for behind in [1, 2, SIZE, 300] {
        jump(bout, &format!("by {behind}"), behind.wrapping_neg())?;
    }
    Ok(())
}

/// A packed ring has no index that could jump.
fn jump(bout: &mut Bout<'_>, name: &str, by: u16) -> Result<()> {
    bout.input(name, Setup::SPLIT, |attacker, _| {
        let frame = attacker.attack_frame(0);
        (0..4).for_each(|_| attacker.post(&[frame]));
        attacker.show(TX);
        attacker.wait(TX, PROBE_TIME_MAX);
        attacker.rings[TX].avail = attacker.rings[TX].avail.wrapping_add(by);
        attacker.show(TX);
        Ok(stopped(attacker, TX))
    })?;
    bout.input(&format!("{name}, for receiving"), Setup::SPLIT, |attacker, innocents| {
        attacker.rings[RX].avail = attacker.rings[RX].avail.wrapping_add(by);
        attacker.show(RX);
        innocents.call(64);
        Ok(stopped(attacker, RX))
    })
}

pub(super) fn overlaps(bout: &mut Bout<'_>) -> Result<()> {
    for (name, parts) in [
        ("the used ring in the descriptors", [0, 1, 0]),
        ("the available ring in the descriptors", [0, 0, 2]),
        ("everything in one place", [0, 0, 0]),
        ("the used ring in the available ring", [0, 1, 1]),
    ] {
        bout.on_both(name, |attacker, _| {
            let ring = &attacker.rings[TX];
            let place = parts.map(|part: usize| ring.addresses()[part]);
            let answer =
                attacker.wire.ask(SET_VRING_ADDR, &addresses(TX as u32, place[0], place[2], place[1]), &[]);
            if answer != Answer::Accepted {
                return Ok(Tell::Took(answer));
            }
            let frame = attacker.attack_frame(0);
            (0..8).for_each(|_| attacker.post(&[frame]));
            Ok(Tell::Posted)
        })?;
    }
    bout.on_both("a frame that is the used ring", |attacker, _| {
        let [descriptors, _, used] = attacker.rings[TX].offsets();
        let place = if attacker.setup.packed { descriptors } else { used };
        attacker.post(&[Desc::read(place, 200)]);
        Ok(Tell::Posted)
    })?;
    bout.on_both("receive buffers that are the rings", |attacker, innocents| {
        let [descriptors, available, used] = attacker.rings[TX].offsets();
        for place in [descriptors, available, used, attacker.rings[RX].offsets()[2]] {
            attacker.rings[RX].post(&[Desc::write(place, 0x800)]);
        }
        attacker.show(RX);
        innocents.call(40);
        Ok(Tell::Posted)
    })?;
    twice_mapped(bout)
}

/// The same file twice, at two guest addresses: frames are copied from memory to itself.
fn twice_mapped(bout: &mut Bout<'_>) -> Result<()> {
    bout.on_both("one file at two addresses", |attacker, innocents| {
        let [first, second] = Memory::regions();
        let again = [first[0] + (1 << 30), first[1], first[2] + (1 << 30), first[3]];
        let memory = attacker.memory.clone();
        let files = [memory.file(), memory.file(), memory.file()];
        let answer = attacker.wire.ask(SET_MEM_TABLE, &table(&[first, second, again]), &files);
        if answer != Answer::Accepted {
            return Ok(Tell::Took(answer));
        }
        let frame = attacker.attack_frame(0);
        attacker.post(&[Desc { addr: frame.addr + (1 << 30), ..frame }]);
        attacker.rings[RX].post(&[Desc { addr: GUEST + SEND_BUFFERS + (1 << 30), ..Desc::write(0, 0x800) }]);
        attacker.show(RX);
        innocents.call(40);
        Ok(Tell::Posted)
    })
}

pub(super) fn rounds(bout: &mut Bout<'_>) -> Result<()> {
    if bout.forms().len() < 2 {
        return bout.input("packed rings", Setup::SPLIT, |_, _| Ok(Tell::Absent));
    }
    let packed = Setup { packed: true, ..Setup::SPLIT };
    for size in [255, 3] {
        // Three rounds with chains of two, over the end of the table.
        bout.input(&format!("chains over the end of {size}"), Setup { size, ..packed }, |attacker, _| {
            for _ in 0..3 * size / 2 {
                let frame = attacker.frame(0, &[0x5a; 60]);
                attacker.post(&[frame.with(NEXT), Desc { len: 0, ..frame }]);
                attacker.show(TX);
                attacker.wait(TX, PROBE_TIME_MAX);
            }
            Ok(Tell::Handled)
        })?;
    }
    for (name, flags) in [
        ("a descriptor used before it was available", 1 << 7 | 1 << 15),
        ("a descriptor of the other round", 1 << 15),
    ] {
        bout.input(name, packed, |attacker, _| {
            let frame = attacker.attack_frame(0);
            let place = attacker.rings[TX].place();
            attacker.rings[TX].set_desc(place, frame.with(flags));
            attacker.kick(TX);
            Ok(Tell::Handled)
        })?;
    }
    bout.input("a whole ring that stays available", packed, |attacker, _| {
        let frame = attacker.attack_frame(0);
        for _ in 0..20 {
            (0..SIZE).for_each(|index| attacker.rings[TX].set_desc(index, frame.with(1 << 7)));
            attacker.kick(TX);
        }
        Ok(Tell::Stopped)
    })?;
    bout.input("a chain that goes on over what is not available", packed, |attacker, _| {
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame.with(NEXT)]);
        Ok(Tell::Posted)
    })?;
    for base in [0, 0x8000 | SIZE, 0xffff, 0x7fff] {
        bout.input(&format!("a start at {base:#x}"), packed, |attacker, _| {
            attacker.wire.question(GET_VRING_BASE, &state(TX as u32, 0));
            let answer = attacker.wire.ask(SET_VRING_BASE, &state(TX as u32, base.into()), &[]);
            if answer != Answer::Accepted {
                return Ok(Tell::Took(answer));
            }
            let kick = of(&attacker.events[TX].kick);
            let answer = attacker.wire.ask(SET_VRING_KICK, &(TX as u64).to_ne_bytes(), &kick);
            Ok(if answer == Answer::Closed { Tell::Took(answer) } else { Tell::Stopped })
        })?;
    }
    Ok(())
}

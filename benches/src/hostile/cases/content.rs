//! What is in the buffers of a chain: G12 to G15, G26, G32.

use crate::error::Result;
use crate::hostile::attacker::{Attacker, NET_HEADER};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::Kind;
use crate::hostile::memory::SEND_BUFFERS;
use crate::hostile::ring::{Desc, NEXT, SIZE, WRITE};

pub(super) fn header_alone(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("in one buffer", |attacker| attacker.post(&[Desc::read(SEND_BUFFERS, NET_HEADER as u32)]))?;
    bout.sends("with an empty buffer behind it", |attacker| {
        let header = Desc::read(SEND_BUFFERS, NET_HEADER as u32);
        attacker.post(&[header.with(NEXT), Desc { len: 0, ..header }]);
    })?;
    bout.sends("in 200 chains", |attacker| {
        (0..200).for_each(|_| attacker.post(&[Desc::read(SEND_BUFFERS, NET_HEADER as u32)]));
    })
}

pub(super) fn half_a_header(bout: &mut Bout<'_>) -> Result<()> {
    for len in [0, 1, 10, 11] {
        bout.sends(&format!("{len} bytes"), |attacker| attacker.post(&[Desc::read(SEND_BUFFERS, len)]))?;
    }
    bout.sends("11 bytes in 11 buffers", |attacker| {
        let mut chain = vec![Desc::read(SEND_BUFFERS, 1).with(NEXT); 10];
        chain.push(Desc::read(SEND_BUFFERS, 1));
        attacker.post(&chain);
    })
}

pub(super) fn runts(bout: &mut Bout<'_>) -> Result<()> {
    for len in 1..14 {
        bout.sends(&format!("{len} bytes"), |attacker| {
            let frame = attacker.frame(0, &Kind::Attack.frame(14)[..len]);
            attacker.post(&[frame]);
        })?;
    }
    bout.sends("13 bytes in a buffer of their own", |attacker| {
        let frame = attacker.frame(0, &Kind::Attack.frame(14)[..13]);
        let (header, rest) = cut(frame, NET_HEADER as u32);
        attacker.post(&[header.with(NEXT), rest]);
    })
}

pub(super) fn header_in_bytes(bout: &mut Bout<'_>) -> Result<()> {
    for (name, parts) in
        [("12 of one byte", &[1; 12][..]), ("5 and 7", &[5, 7]), ("1 and 11 and 20", &[1, 11, 20])]
    {
        bout.sends(name, |attacker| {
            let mut rest = attacker.attack_frame(0);
            let mut chain = Vec::new();
            for &len in parts {
                let (first, behind) = cut(rest, len);
                chain.push(first.with(NEXT));
                rest = behind;
            }
            chain.push(rest);
            attacker.post(&chain);
        })?;
    }
    bout.sends("everything of one byte", |attacker| {
        let frame = attacker.frame(0, &Kind::Attack.frame(60));
        let byte = |at: u64| Desc { addr: frame.addr + at, len: 1, ..frame.with(NEXT) };
        let mut chain: Vec<Desc> = (0..u64::from(frame.len)).map(byte).collect();
        if let Some(last) = chain.last_mut() {
            last.flags = 0;
        }
        attacker.post(&chain);
    })
}

/// The first `len` bytes of a buffer, and those behind them.
fn cut(desc: Desc, len: u32) -> (Desc, Desc) {
    (Desc { len, ..desc }, Desc { addr: desc.addr + u64::from(len), len: desc.len - len, ..desc })
}

pub(super) fn writable(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("alone", |attacker| {
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame.with(WRITE)]);
    })?;
    bout.sends("the frame, not the header", |attacker| {
        let frame = attacker.attack_frame(0);
        let (header, rest) = cut(frame, NET_HEADER as u32);
        attacker.post(&[header.with(NEXT), rest.with(WRITE)]);
    })?;
    bout.sends("an empty one behind the frame", |attacker| {
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame.with(NEXT), Desc { len: 0, ..frame }.with(WRITE)]);
    })
}

pub(super) fn twice(bout: &mut Bout<'_>) -> Result<()> {
    bout.sends("one buffer in 200 chains", |attacker| {
        let frame = attacker.attack_frame(0);
        (0..200).for_each(|_| attacker.post(&[frame]));
    })?;
    bout.sends("one buffer 16 times in a chain", |attacker| {
        let frame = attacker.attack_frame(0);
        let mut chain = vec![frame.with(NEXT); 15];
        chain.push(frame);
        attacker.post(&chain);
    })?;
    for count in [2, 64, SIZE] {
        one_head(bout, &format!("one head {count} times in one batch"), count)?;
    }
    Ok(())
}

/// One head, offered again and again; in a packed ring, one id.
fn one_head(bout: &mut Bout<'_>, name: &str, count: u16) -> Result<()> {
    bout.on_both(name, |attacker: &mut Attacker, _| {
        let frame = attacker.attack_frame(0);
        let ring = attacker.tx();
        if ring.packed {
            (0..count).for_each(|_| ring.post_raw(&[Desc { next: 7, ..frame }]));
        } else {
            let head = ring.place();
            ring.set_desc(head, frame);
            (0..count).for_each(|_| ring.offer(head));
        }
        Ok(Tell::Posted)
    })
}

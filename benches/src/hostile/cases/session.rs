//! Connections that do not go as they should: P16, P17, P23.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::hostile::attacker::{Attacker, PROBE_TIME_MAX, RX, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::wire::{Answer, Wire, addresses, knock, of, request::*, state};

pub(super) fn running(bout: &mut Bout<'_>) -> Result<()> {
    for (name, request, body) in [
        ("another size", SET_VRING_NUM, state(TX as u32, 64)),
        ("another base", SET_VRING_BASE, state(TX as u32, 9)),
        ("the same base", SET_VRING_BASE, state(TX as u32, 0)),
        ("enabled with 2", SET_VRING_ENABLE, state(TX as u32, 2)),
    ] {
        bout.asks(name, request, &body, &[])?;
    }
    bout.on_both("the same addresses 200 times", |attacker, _| {
        let [desc, avail, used] = attacker.rings[TX].addresses();
        for _ in 0..200 {
            let frame = attacker.frame(0, &[0x5a; 60]);
            attacker.post(&[frame]);
            attacker.show(TX);
            let answer = attacker.wire.ask(SET_VRING_ADDR, &addresses(TX as u32, desc, used, avail), &[]);
            if answer != Answer::Accepted {
                return Ok(Tell::Took(answer));
            }
            attacker.wait(TX, PROBE_TIME_MAX);
        }
        Ok(Tell::Handled)
    })?;
    bout.on_both("disabled and enabled 200 times", |attacker, _| {
        for round in 0..400 {
            let frame = attacker.frame(0, &[0x5a; 60]);
            attacker.post(&[frame]);
            attacker.show(TX);
            attacker.wire.ask(
                SET_VRING_ENABLE,
                &state([RX, TX][round / 2 % 2] as u32, round as u32 % 2),
                &[],
            );
            attacker.wait(TX, Duration::from_millis(20));
        }
        for ring in [RX, TX] {
            attacker.wire.ask(SET_VRING_ENABLE, &state(ring as u32, 1), &[]);
        }
        attacker.kick(TX);
        Ok(Tell::Handled)
    })?;
    bout.on_both("stopped and started 100 times with frames on the way", |attacker, innocents| {
        for _ in 0..100 {
            for slot in 0..8 {
                let frame = attacker.frame(slot, &[0x5a; 60]);
                attacker.post(&[frame]);
            }
            attacker.show(TX);
            attacker.reset()?;
        }
        innocents.turn();
        Ok(Tell::Handled)
    })
}

pub(super) fn halves(bout: &mut Bout<'_>) -> Result<()> {
    let header = [GET_FEATURES, 1, 0].map(u32::to_ne_bytes).concat();
    for len in 1..12 {
        bout.input(&format!("{len} bytes, then the end"), Setup::SPLIT, |attacker, _| {
            attacker.wire.bytes(&header[..len], &[]);
            let _ = attacker.wire.socket.shutdown(Shutdown::Write);
            ended(attacker)
        })?;
    }
    bout.input("half a body, then the end", Setup::SPLIT, |attacker, _| {
        attacker.wire.bytes(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0xff], &[]);
        let _ = attacker.wire.socket.shutdown(Shutdown::Write);
        ended(attacker)
    })?;
    bout.input("half a header for ever", Setup::SPLIT, |attacker, _| {
        attacker.wire.bytes(&header[..6], &[]);
        ended(attacker)
    })?;
    bout.input("half a body for ever", Setup::SPLIT, |attacker, _| {
        attacker.wire.bytes(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0xff], &[]);
        ended(attacker)
    })?;
    bout.input("a byte every fifth of a second", Setup::SPLIT, |attacker, _| {
        for byte in header.chunks(1).chain([&[0][..]; 4]) {
            if attacker.wire.is_closed_within(Duration::from_millis(200)) || !attacker.wire.bytes(byte, &[]) {
                break;
            }
        }
        ended(attacker)
    })?;
    bout.input("replies that nobody reads", Setup::SPLIT, |attacker, _| {
        let until = Instant::now() + Duration::from_secs(8);
        while (&attacker.wire.socket).write_all(&header).is_ok() && Instant::now() < until {}
        Ok(Tell::Took(Answer::Closed))
    })
}

/// The connection is of no use any more, ended or not.
fn ended(attacker: &Attacker) -> Result<Tell> {
    attacker.wire.is_closed_within(Duration::from_secs(4));
    Ok(Tell::Took(Answer::Closed))
}

pub(super) fn leaving(bout: &mut Bout<'_>) -> Result<()> {
    let socket = bout.arena.attackers_socket().to_owned();
    bout.input("300 times, at every step", Setup::SPLIT, |attacker, innocents| {
        // Only one at a time is served.
        let _ = attacker.wire.socket.shutdown(Shutdown::Both);
        for round in 0..300 {
            match round % 6 {
                0 => drop(Wire::connect(&socket)?),
                1 => {
                    let mut wire = Wire::connect(&socket)?;
                    wire.send(SET_OWNER, 0, &[], &[]);
                    wire.state();
                }
                2 => drop(Attacker::plug(&socket, Setup { rings: 0, ..Setup::SPLIT })?),
                3 => drop(Attacker::plug(&socket, Setup { rings: 1, ..Setup::SPLIT })?),
                4 => drop(Attacker::plug(&socket, Setup::SPLIT)?),
                _ => {
                    let mut attacker = Attacker::plug(&socket, Setup::SPLIT)?;
                    let frame = attacker.attack_frame(0);
                    (0..32).for_each(|_| attacker.post(&[frame]));
                    attacker.show(TX);
                    // Gone with the frames on the way, and a message too.
                    attacker.wire.send(GET_VRING_BASE, 0, &state(TX as u32, 0), &[]);
                }
            }
            if round % 10 == 0 {
                innocents.turn();
            }
        }
        Ok(Tell::Took(Answer::Closed))
    })?;
    bout.input("a second one on a busy port", Setup::SPLIT, |attacker, _| {
        let other = knock(&socket);
        let went_on = attacker.sends();
        drop(other);
        Ok(if went_on { Tell::Handled } else { Tell::Stopped })
    })?;
    bout.input("500 that are dropped at once", Setup::SPLIT, |_, _| {
        for _ in 0..500 {
            if let Some(other) = knock(&socket) {
                drop(other);
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(Tell::Handled)
    })?;
    bout.input("the kick closed by its owner", Setup::SPLIT, |attacker, _| {
        let event = crate::hostile::attacker::event()?;
        let answer = attacker.wire.ask(SET_VRING_KICK, &(TX as u64).to_ne_bytes(), &of(&event));
        drop(event);
        Ok(if answer == Answer::Closed { Tell::Took(answer) } else { Tell::Stopped })
    })
}

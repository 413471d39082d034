//! More than anybody can take: F01 to F04, in short. What is measured here is what others noticed.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::hostile::attacker::{Attacker, RX, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::{Innocents, Kind};
use crate::hostile::ring::SIZE;
use crate::hostile::wire::knock;

/// Sends to nobody, as fast as the ring is emptied, for that time. Returns how many frames.
fn flood(attacker: &mut Attacker, time: Duration) -> u64 {
    let frame = attacker.frame(0, &Kind::Probe.frame(1500));
    let until = Instant::now() + time;
    let mut sent = 0;
    while Instant::now() < until {
        (0..SIZE).for_each(|_| attacker.post(&[frame]));
        attacker.show(TX);
        // Those that are left when the time is up are waited for below, and none is posted after them.
        while !attacker.rings[TX].is_empty_again() && Instant::now() < until {
            std::hint::spin_loop();
        }
        sent += u64::from(SIZE);
    }
    attacker.wait(TX, crate::hostile::attacker::PROBE_TIME_MAX);
    sent
}

/// Frames a second that innocents exchange while something happens.
fn rate(innocents: &Innocents, something: impl FnOnce()) -> f64 {
    let total = || innocents.frames().iter().sum::<u64>() as f64;
    let (began, before) = (Instant::now(), total());
    something();
    (total() - before) / began.elapsed().as_secs_f64()
}

pub(super) fn sender(bout: &mut Bout<'_>) -> Result<()> {
    let mut figures = Vec::new();
    for &packed in bout.forms() {
        bout.input("to nobody", Setup { packed, ..Setup::SPLIT }, |attacker, innocents| {
            let alone = rate(innocents, || std::thread::sleep(FLOOD_TIME));
            let mut sent = 0;
            let beside = rate(innocents, || sent = flood(attacker, FLOOD_TIME));
            let form = if packed { "packed" } else { "split" };
            figures.push((format!("flood, {form}"), sent as f64 / FLOOD_TIME.as_secs_f64()));
            figures.push(("innocents alone".into(), alone));
            figures.push(("innocents beside it".into(), beside));
            Ok(Tell::Handled)
        })?;
    }
    figures.iter().for_each(|(what, value)| bout.figure(what, *value, "frames/s"));
    Ok(())
}

pub(super) fn receiver(bout: &mut Bout<'_>) -> Result<()> {
    bout.on_both("2,000 frames for 32 buffers", |attacker, innocents| {
        for _ in 0..20 {
            innocents.call(100);
            innocents.turn();
        }
        attacker.post_receive_buffers(32);
        attacker.show(RX);
        Ok(Tell::Handled)
    })
}

pub(super) fn trickle(bout: &mut Bout<'_>) -> Result<()> {
    let socket = bout.arena.attackers_socket().to_owned();
    bout.input("a byte each, ten times", Setup::SPLIT, |_, innocents| {
        let others: Vec<_> = (0..200).filter_map(|_| knock(&socket)).collect();
        for _ in 0..10 {
            for mut other in &others {
                let _ = other.write(&[1]);
            }
            innocents.exchange(16)?;
        }
        Ok(Tell::Handled)
    })?;
    bout.on_both("a frame each, a hundred times", |attacker, innocents| {
        for _ in 0..100 {
            let frame = attacker.frame(0, &Kind::Probe.frame(60));
            attacker.post(&[frame]);
            attacker.show(TX);
            innocents.turn();
        }
        Ok(Tell::Handled)
    })
}

pub(super) fn recovery(bout: &mut Bout<'_>) -> Result<()> {
    let mut longest = Duration::ZERO;
    bout.input("until the next frames", Setup::SPLIT, |attacker, innocents| {
        for _ in 0..5 {
            flood(attacker, FLOOD_TIME / 5);
            let began = Instant::now();
            innocents.exchange(32)?;
            longest = longest.max(began.elapsed());
        }
        Ok(Tell::Handled)
    })?;
    bout.figure("the next 32 frames each way, at most", longest.as_secs_f64() * 1e3, "ms");
    Ok(())
}

/// How long the flood lasts.
const FLOOD_TIME: Duration = Duration::from_millis(500);

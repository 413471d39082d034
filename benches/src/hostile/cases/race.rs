//! Words that a second thread changes while the device reads them: G29, G30, G34, H02; and kicks without end: G35.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::chains::write_table;
use super::headers::{OFFLOADS, net_header, tcp};
use crate::error::{Doing, Result};
use crate::hostile::attacker::{Attacker, Came, PROBE_TIME_MAX, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::Innocents;
use crate::hostile::memory::{BUFFER_LEN, END, GUEST, Memory, SEND_BUFFERS, TABLES};
use crate::hostile::ring::{Desc, INDIRECT, NEXT, SIZE, WRITE};
use crate::hostile::wire::{Answer, request::*, state};

/// A word of the memory, and what it changes between.
struct Flicker {
    offset: u64,
    values: Vec<u64>,
}

/// xorshift64*: the same attacks at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

fn flicker(memory: &Memory, words: &[Flicker], stop: &AtomicBool) {
    let mut random = Random(7);
    while !stop.load(Ordering::Relaxed) {
        // A few at a time: the loop's own end is to be seen soon.
        for _ in 0..64 {
            let word = &words[random.below(words.len())];
            memory.set_u64(word.offset, word.values[random.below(word.values.len())]);
        }
    }
}

/// Sends what `post` posts, batch after batch, while the words flicker. A ring that stops is reset and goes on.
fn race(
    attacker: &mut Attacker,
    innocents: &Innocents,
    words: &[Flicker],
    post: impl Fn(&mut Attacker),
) -> Result<Tell> {
    let (memory, stop) = (attacker.memory.clone(), AtomicBool::new(false));
    let (mut stops, mut closed) = (0, false);
    thread::scope(|scope| {
        let second = thread::Builder::new().name("flicker".into());
        second.spawn_scoped(scope, || flicker(&memory, words, &stop)).doing("starting a second thread")?;
        let until = Instant::now() + RACE_TIME;
        while Instant::now() < until && !closed {
            (0..BATCH).for_each(|_| post(attacker));
            attacker.show(TX);
            match attacker.wait(TX, Duration::from_millis(100)) {
                Came::Used => {}
                Came::Fault | Came::Nothing => {
                    stops += 1;
                    closed = attacker.reset().is_err();
                }
                Came::Closed => closed = true,
            }
            innocents.turn();
        }
        stop.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(match (closed, stops) {
        (true, _) => Tell::Took(Answer::Closed),
        (false, 0) => Tell::Handled,
        (false, _) => Tell::Stopped,
    })
}

/// The words of all descriptors of the transmit ring: the first, the second, or both.
fn descriptors(attacker: &Attacker, first: &[u64], second: &[u64]) -> Vec<Flicker> {
    let start = attacker.rings[TX].offsets()[0];
    let word = |offset: u64, values: &[u64]| Flicker { offset, values: values.to_vec() };
    let both = |at: u64| [word(start + 16 * at, first), word(start + 16 * at + 8, second)];
    (0..u64::from(SIZE)).flat_map(both).filter(|word| !word.values.is_empty()).collect()
}

/// What is posted in a race: one frame, of every slot in turn.
fn next_frame(attacker: &mut Attacker) {
    let slot = u64::from(attacker.rings[TX].place() % 128);
    let frame = attacker.attack_frame(slot);
    attacker.post(&[frame]);
}

pub(super) fn everything(bout: &mut Bout<'_>) -> Result<()> {
    let buffer = |slot: u64| GUEST + SEND_BUFFERS + BUFFER_LEN * slot;
    let good = [buffer(0), buffer(1), buffer(77)];
    let bad = [buffer(0), 0, END - 1, u64::MAX - 4, GUEST];
    bout.on_both("addresses, all good", |attacker, innocents| {
        let words = descriptors(attacker, &good, &[]);
        race(attacker, innocents, &words, next_frame)
    })?;
    bout.on_both("addresses, some bad", |attacker, innocents| {
        let words = descriptors(attacker, &bad, &[]);
        race(attacker, innocents, &words, next_frame)
    })?;
    bout.on_both("lengths, flags and links", |attacker, innocents| {
        let desc = |len: u32, flags: u16, next: u16| {
            // In a packed ring, of the first round.
            let owner = if attacker.setup.packed { 1 << 7 } else { 0 };
            attacker.rings[TX].second_word(Desc { addr: 0, len, flags: flags | owner, next })
        };
        let values = [
            desc(112, 0, 0),
            desc(12, 0, 0),
            desc(1512, 0, 0),
            desc(u32::MAX, 0, 0),
            desc(112, NEXT, 0),
            desc(112, NEXT, 0xffff),
            desc(112, WRITE, 0),
            desc(32, INDIRECT, 0),
        ];
        let words = descriptors(attacker, &[], &values);
        race(attacker, innocents, &words, next_frame)
    })?;
    bout.on_both("lengths, all good", |attacker, innocents| {
        if attacker.setup.packed {
            // The length shares its word with what says whose the descriptor is.
            return Ok(Tell::Absent);
        }
        let values = [112u64, 72, 1512, 1012];
        let words = descriptors(attacker, &[], &values);
        race(attacker, innocents, &words, next_frame)
    })?;
    bout.on_both("an indirect table", |attacker, innocents| {
        let frame = attacker.attack_frame(0);
        write_table(attacker, TABLES, &[frame, frame, frame, frame]);
        let packed = attacker.setup.packed;
        let second =
            |flags: u16, next: u16| crate::hostile::ring::second_word(Desc { flags, next, ..frame }, packed);
        let seconds =
            [second(0, 0), second(NEXT, 1), second(NEXT, 3), second(NEXT, 0xffff), second(INDIRECT, 0)];
        let words: Vec<Flicker> = (0..4)
            .flat_map(|at| {
                let place = TABLES + 16 * at;
                [
                    Flicker { offset: place, values: bad.to_vec() },
                    Flicker { offset: place + 8, values: seconds.to_vec() },
                ]
            })
            .collect();
        race(attacker, innocents, &words, |attacker| {
            attacker.post(&[Desc::read(TABLES, 64).with(INDIRECT)]);
        })
    })?;
    bout.on_both("the frame", |attacker, innocents| {
        let words: Vec<Flicker> = (0..BUFFER_LEN / 8)
            .map(|word| Flicker {
                offset: SEND_BUFFERS + 8 * word,
                values: vec![0, u64::MAX, 0x0081_0000_0008_0045],
            })
            .collect();
        race(attacker, innocents, &words, |attacker| attacker.post(&[Desc::read(SEND_BUFFERS, 1512)]))
    })
}

pub(super) fn header(bout: &mut Bout<'_>) -> Result<()> {
    for &packed in bout.forms() {
        let setup = Setup { packed, features: OFFLOADS, ..Setup::SPLIT };
        bout.input("checksum and segmentation", setup, |attacker, innocents| {
            let frame = tcp(1400);
            let whole = attacker.frame_behind(0, &net_header(1, 1, 54, 1000, 34, 16), &frame);
            let word = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
            let first = [
                word([1, 1, 54, 0, 0xe8, 3, 34, 0]),
                word([1, 1, 0xff, 0xff, 0, 0, 0xff, 0xff]),
                word([0, 0, 0, 0, 0, 0, 0, 0]),
                word([1, 3, 0, 0, 1, 0, 34, 0]),
            ];
            // Behind it: the checksum's offset, the number of buffers, and the receiver's address.
            let [to, ..] = frame.chunks(4).collect::<Vec<_>>()[..] else { return Ok(Tell::Absent) };
            let second = |offset: u8| word([offset, 0, 0, 0, to[0], to[1], to[2], to[3]]);
            let words = [
                Flicker { offset: SEND_BUFFERS, values: first.to_vec() },
                Flicker { offset: SEND_BUFFERS + 8, values: vec![second(16), second(0xff), second(6)] },
            ];
            race(attacker, innocents, &words, |attacker| attacker.post(&[whole]))
        })?;
    }
    Ok(())
}

pub(super) fn torn_index(bout: &mut Bout<'_>) -> Result<()> {
    for (name, low_first) in [("its low byte first", true), ("its high byte first", false)] {
        bout.input(name, Setup::SPLIT, |attacker, innocents| {
            for round in 0..20 {
                let place = attacker.rings[TX].offsets()[1] + 2;
                let frame = attacker.attack_frame(0);
                (0..BATCH).for_each(|_| attacker.post(&[frame]));
                let [low, high] = attacker.rings[TX].avail.to_le_bytes();
                let bytes = [(place, low), (place + 1, high)];
                let order = if low_first { [0, 1] } else { [1, 0] };
                for at in order {
                    attacker.memory.write(bytes[at].0, &[bytes[at].1]);
                    attacker.kick(TX);
                    if round >= 10 {
                        // Long enough to be seen for certain.
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                if attacker.wait(TX, PROBE_TIME_MAX) != Came::Used {
                    return Ok(Tell::Stopped);
                }
                innocents.turn();
            }
            Ok(Tell::Handled)
        })?;
    }
    Ok(())
}

pub(super) fn flags(bout: &mut Bout<'_>) -> Result<()> {
    for &packed in bout.forms() {
        let setup = Setup { packed, features: 1 << 29, ..Setup::SPLIT };
        for event in [0, 1, SIZE, 0x7fff, 0x8000, 0xffff] {
            bout.input(&format!("an event at {event:#x}"), setup, |attacker, _| {
                // DESC in a packed ring: tell me at that place.
                attacker.rings[TX].set_flags(if packed { 2 } else { 0 });
                attacker.rings[TX].set_event(event);
                for _ in 0..8 {
                    next_frame(attacker);
                    attacker.show(TX);
                    if attacker.wait(TX, PROBE_TIME_MAX) != Came::Used {
                        return Ok(Tell::Stopped);
                    }
                }
                Ok(Tell::Handled)
            })?;
        }
        for features in [0, 1 << 29] {
            let name = if features == 0 { "flags that flip" } else { "flags that flip, with events" };
            bout.input(name, Setup { features, ..setup }, |attacker, innocents| {
                for round in 0..64 {
                    attacker.rings[TX].set_flags([0, 1, 2, 3, 0xffff][round % 5]);
                    next_frame(attacker);
                    attacker.show(TX);
                    if attacker.wait(TX, PROBE_TIME_MAX) != Came::Used {
                        return Ok(Tell::Stopped);
                    }
                }
                innocents.turn();
                Ok(Tell::Handled)
            })?;
        }
    }
    Ok(())
}

pub(super) fn kicks(bout: &mut Bout<'_>) -> Result<()> {
    bout.on_both("a storm", |attacker, innocents| {
        let until = Instant::now() + STORM_TIME;
        while Instant::now() < until {
            (0..200).for_each(|_| attacker.kick(TX));
        }
        innocents.exchange(100)?;
        Ok(Tell::Handled)
    })?;
    bout.on_both("while disabled", |attacker, _| {
        attacker.wire.ask(SET_VRING_ENABLE, &state(TX as u32, 0), &[]);
        for _ in 0..64 {
            next_frame(attacker);
            attacker.show(TX);
        }
        let answer = attacker.wire.ask(SET_VRING_ENABLE, &state(TX as u32, 1), &[]);
        Ok(if answer == Answer::Accepted { Tell::Posted } else { Tell::Took(answer) })
    })?;
    for &packed in bout.forms() {
        let setup = Setup { packed, rings: 0, ..Setup::SPLIT };
        bout.input("before there is a ring", setup, |attacker, _| {
            (0..1000).for_each(|_| attacker.kick(TX));
            let kick = crate::hostile::wire::of(&attacker.events[TX].kick);
            let answer = attacker.wire.ask(SET_VRING_KICK, &(TX as u64).to_ne_bytes(), &kick);
            Ok(Tell::Took(answer))
        })?;
    }
    bout.on_both("full and read empty by somebody else", |attacker, _| {
        crate::hostile::attacker::fill(&attacker.events[TX].kick);
        for _ in 0..64 {
            let _ = rustix::io::read(&attacker.events[TX].kick, &mut [0; 8]);
            next_frame(attacker);
            attacker.show(TX);
        }
        attacker.kick(TX);
        Ok(Tell::Posted)
    })
}

/// How long words flicker for one input.
const RACE_TIME: Duration = Duration::from_millis(150);
/// Chains that are shown at a time: fewer than an innocent has buffers for.
const BATCH: u16 = 32;
/// How long kicks storm.
const STORM_TIME: Duration = Duration::from_millis(150);

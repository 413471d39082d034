//! The control queue, where a front end hands it on: G36.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Result;
use crate::hostile::attacker::{Attacker, CONTROL, Came, Setup};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::memory::{END, LARGE};
use crate::hostile::ring::{Desc, NEXT, WRITE};
use crate::hostile::wire::Answer;

/// CTRL_RX, CTRL_VLAN, CTRL_RX_EXTRA, GUEST_ANNOUNCE and CTRL_MAC_ADDR.
const FEATURES: u64 = 0xf << 18 | 1 << 23;
/// Where commands are written, and answers.
const COMMAND: u64 = LARGE;
const ANSWER: u64 = LARGE + 0x8_0000;

/// A chain of the control queue.
#[derive(Clone, Copy)]
enum Form {
    /// As it should be: a command to read, a byte to write.
    Whole,
    /// The command in single bytes.
    Bytes,
    /// Nothing to write the answer to.
    NoAnswer,
    /// The answer before the command.
    Reversed,
    /// The answer where no memory is.
    Nowhere,
    /// The answer of no length.
    EmptyAnswer,
}

fn chain(attacker: &Attacker, command: &[u8], form: Form) -> Vec<Desc> {
    attacker.memory.write(COMMAND, command);
    attacker.memory.set_u64(ANSWER, 0xee);
    let (whole, answer) = (Desc::read(COMMAND, command.len() as u32), Desc::write(ANSWER, 1));
    match form {
        Form::Whole => vec![whole.with(NEXT), answer],
        Form::Bytes => {
            let byte = |at: usize| Desc::read(COMMAND + at as u64, 1).with(NEXT);
            (0..command.len().min(200)).map(byte).chain([answer]).collect()
        }
        Form::NoAnswer => vec![whole],
        Form::Reversed => vec![answer.with(WRITE | NEXT), whole],
        Form::Nowhere => vec![whole.with(NEXT), Desc { addr: END, ..answer }],
        Form::EmptyAnswer => vec![whole.with(NEXT), Desc { len: 0, ..answer }],
    }
}

/// Gives a command, and says what became of it.
fn command(attacker: &mut Attacker, command: &[u8], form: Form) -> Tell {
    let chain = chain(attacker, command, form);
    attacker.rings[CONTROL].post(&chain);
    attacker.show(CONTROL);
    match attacker.wait(CONTROL, COMMAND_TIME_MAX) {
        Came::Used => match attacker.memory.word(ANSWER).load(Ordering::SeqCst) as u8 {
            0 => Tell::Took(Answer::Accepted),
            _ => Tell::Took(Answer::Refused),
        },
        Came::Closed => Tell::Took(Answer::Closed),
        Came::Fault | Came::Nothing => Tell::Stopped,
    }
}

/// Tries a command behind one that is as it should be. A back end that does not answer that has no control queue.
fn try_command(bout: &mut Bout<'_>, name: &str, bytes: &[u8], form: Form) -> Result<()> {
    for &packed in bout.forms() {
        let setup = Setup { packed, rings: 3, features: FEATURES, ..Setup::SPLIT };
        bout.input(name, setup, |attacker, _| {
            if attacker.features & 1 << 17 == 0 {
                return Ok(Tell::Absent);
            }
            match command(attacker, &PROMISCUOUS_OFF, Form::Whole) {
                Tell::Took(Answer::Accepted) => Ok(command(attacker, bytes, form)),
                _ => Ok(Tell::Absent),
            }
        })?;
    }
    Ok(())
}

pub(super) fn commands(bout: &mut Bout<'_>) -> Result<()> {
    for (name, form) in [
        ("in single bytes", Form::Bytes),
        ("no room for the answer", Form::NoAnswer),
        ("the answer first", Form::Reversed),
        ("the answer nowhere", Form::Nowhere),
        ("the answer of no length", Form::EmptyAnswer),
    ] {
        try_command(bout, name, &PROMISCUOUS_OFF, form)?;
    }
    let table = |count: u32, there: usize| [count.to_le_bytes().to_vec(), vec![2; 6 * there]].concat();
    let tables = |unicast: Vec<u8>, multicast: Vec<u8>| [vec![1, 0], unicast, multicast].concat();
    for (name, bytes) in [
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("no mode", vec![0, 0]),
        ("an unknown class", vec![0x77, 0, 1]),
        ("an unknown command", vec![0, 0xff, 1]),
        ("0 queue pairs", vec![4, 0, 0, 0]),
        ("65,535 queue pairs", vec![4, 0, 0xff, 0xff]),
        ("two queue pairs of one", vec![4, 0, 2, 0]),
        ("VLAN 4,096", vec![2, 0, 0, 0x10]),
        ("an address of 5 bytes", vec![1, 1, 2, 0, 0, 0, 0]),
        ("a group's address", vec![1, 1, 3, 0, 0, 0, 0, 1]),
        ("an announcement that nobody asked for", vec![3, 0]),
        ("a table that is longer than the command", tables(table(2, 1), table(0, 0))),
        ("a table of 2^32 - 1", tables(table(u32::MAX, 1), table(0, 0))),
        ("a table whose length wraps", tables(table(0x2aaa_aaab, 1), table(0, 0))),
        ("no second table", tables(table(1, 1), vec![])),
        ("tables of 1,000", tables(table(1000, 1000), table(1000, 1000))),
        ("256 KiB", vec![0; 0x4_0000]),
    ] {
        try_command(bout, name, &bytes, Form::Whole)?;
    }
    Ok(())
}

/// A command as it should be.
const PROMISCUOUS_OFF: [u8; 3] = [0, 0, 0];
const COMMAND_TIME_MAX: Duration = Duration::from_millis(1000);

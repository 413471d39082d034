//! Descriptors that come beside the bytes: named ones, sets of them, and the netdevs that use them up.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use ringyard_tests::Result;
use ringyard_tests::error::Doing;

use crate::answer::View;
use crate::comparison::{Comparison, heard};
use crate::differences;
use crate::pair::Pair;

/// What comes along.
#[derive(Clone, Copy)]
enum Passed {
    Nothing,
    Datagram,
    Stream,
    Two,
    Null,
}

impl Passed {
    /// The descriptors; the other ends of sockets go to `kept`, so that nobody hears that they are closed.
    fn descriptors(self, kept: &mut Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        let (ours, theirs): (OwnedFd, OwnedFd) = match self {
            Passed::Nothing => return Ok(Vec::new()),
            Passed::Null => return Ok(vec![File::open("/dev/null").doing("opening /dev/null")?.into()]),
            Passed::Stream => UnixStream::pair().map(|(one, other)| (one.into(), other.into())),
            Passed::Datagram | Passed::Two => {
                UnixDatagram::pair().map(|(one, other)| (one.into(), other.into()))
            }
        }
        .doing("making sockets")?;
        match self {
            Passed::Two => Ok(vec![ours, theirs]),
            _ => {
                kept.push(theirs);
                Ok(vec![ours])
            }
        }
    }
}

/// In the order in which they are said.
const ROWS: &[(&str, Passed)] = &[
    (r#"{"execute": "getfd", "arguments": {"fdname": "a"}, "id": 1}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "1a"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "1a"}}"#, Passed::Null),
    (r#"{"execute": "getfd", "arguments": {"fdname": ""}}"#, Passed::Null),
    (r#"{"execute": "closefd", "arguments": {"fdname": ""}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "a"}, "id": 2}"#, Passed::Datagram),
    (r#"{"execute": "getfd", "arguments": {"fdname": "a"}, "id": 3}"#, Passed::Datagram),
    (r#"{"execute": "getfd", "arguments": {"fdname": "b"}}"#, Passed::Two),
    (r#"{"execute": "getfd", "arguments": {"fdname": "c"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "d"}}"#, Passed::Nothing),
    (r#"{"execute": "closefd", "arguments": {"fdname": "c"}}"#, Passed::Nothing),
    (r#"{"execute": "closefd", "arguments": {"fdname": "nosuch"}}"#, Passed::Nothing),
    (r#"{"execute": "closefd", "arguments": {"fdname": "b"}}"#, Passed::Nothing),
    (r#"{"execute": "closefd", "arguments": {"fdname": "b"}, "id": 2}"#, Passed::Nothing),
    (
        r#"{"execute": "netdev_add", "arguments": {"type": "dgram", "id": "d0", "local": {"type": "fd", "str": "a"}}}"#,
        Passed::Nothing,
    ),
    (
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}}"#,
        Passed::Nothing,
    ),
    (
        r#"{"execute": "netdev_add", "arguments": {"type": "dgram", "id": "d1", "local": {"type": "fd", "str": "a"}}}"#,
        Passed::Nothing,
    ),
    (r#"{"execute": "closefd", "arguments": {"fdname": "a"}}"#, Passed::Nothing),
    (r#"{"execute": "netdev_del", "arguments": {"id": "d0"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "s"}}"#, Passed::Stream),
    (
        r#"{"execute": "netdev_add", "arguments": {"type": "dgram", "id": "d0", "local": {"type": "fd", "str": "s"}}}"#,
        Passed::Nothing,
    ),
    (r#"{"execute": "netdev_del", "arguments": {"id": "d0"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "n"}}"#, Passed::Null),
    (
        r#"{"execute": "netdev_add", "arguments": {"type": "dgram", "id": "d2", "local": {"type": "fd", "str": "n"}}}"#,
        Passed::Nothing,
    ),
    (r#"{"execute": "closefd", "arguments": {"fdname": "n"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "n"}}"#, Passed::Null),
    (r#"{"execute": "netdev_add", "arguments": {"type": "socket", "id": "s0", "fd": "n"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "n"}}"#, Passed::Datagram),
    (r#"{"execute": "netdev_add", "arguments": {"type": "socket", "id": "s1", "fd": "n"}}"#, Passed::Nothing),
    (r#"{"execute": "netdev_del", "arguments": {"id": "s1"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "n"}}"#, Passed::Stream),
    (r#"{"execute": "netdev_add", "arguments": {"type": "socket", "id": "s2", "fd": "n"}}"#, Passed::Nothing),
    (
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 2}"#,
        Passed::Nothing,
    ),
    (r#"{"execute": "getfd", "arguments": {"fdname": "t"}}"#, Passed::Null),
    (r#"{"execute": "netdev_add", "arguments": {"type": "tap", "id": "t0", "fd": "t"}}"#, Passed::Nothing),
    (r#"{"execute": "getfd", "arguments": {"fdname": "v"}}"#, Passed::Null),
    (
        r#"{"execute": "netdev_add", "arguments": {"type": "vhost-vdpa", "id": "v0", "vhostfd": "v"}}"#,
        Passed::Nothing,
    ),
];

/// Sets, whose descriptors have numbers of each side's own.
const SETS: &[(&str, Passed)] = &[
    (r#"{"execute": "query-fdsets"}"#, Passed::Nothing),
    (r#"{"execute": "add-fd"}"#, Passed::Nothing),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": 1}}"#, Passed::Nothing),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": -1}}"#, Passed::Nothing),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": -1}}"#, Passed::Null),
    (r#"{"execute": "add-fd"}"#, Passed::Null),
    (r#"{"execute": "add-fd", "arguments": {"opaque": "x"}}"#, Passed::Null),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": 7, "opaque": "y"}}"#, Passed::Null),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": 7}}"#, Passed::Two),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": 9223372036854775807}}"#, Passed::Null),
    (r#"{"execute": "add-fd", "arguments": {"fdset-id": 9223372036854775808}}"#, Passed::Null),
    (r#"{"execute": "query-fdsets"}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 99}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": -1}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 7, "fd": 99999}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 7, "fd": -1}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 7}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 7}}"#, Passed::Nothing),
    (r#"{"execute": "remove-fd", "arguments": {"fdset-id": 0}}"#, Passed::Nothing),
    (r#"{"execute": "query-fdsets"}"#, Passed::Nothing),
    (r#"{"execute": "add-fd"}"#, Passed::Null),
    (r#"{"execute": "query-fdsets"}"#, Passed::Nothing),
];

#[test]
fn descriptors_are_taken_and_refused_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::DESCRIPTORS);
    let mut kept = Vec::new();
    for (number, (row, passed)) in ROWS.iter().enumerate() {
        comparison.ask(&mut pair, &format!("{number}: {row}"), |side| {
            heard(side, row.as_bytes(), &passed.descriptors(&mut kept)?, View::Values)
        })?;
    }
    comparison.finish()
}

#[test]
fn sets_of_descriptors_are_kept_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::SETS);
    let mut kept = Vec::new();
    for (number, (row, passed)) in SETS.iter().enumerate() {
        comparison.ask(&mut pair, &format!("{number}: {row}"), |side| {
            let answers = side.ask(row.as_bytes(), &passed.descriptors(&mut kept)?)?;
            Ok(answers.iter().map(|answer| without_numbers(&answer.text(View::Values))).collect())
        })?;
    }
    comparison.finish()
}

/// Text in which no member `fd` has a value.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("\"fd\": ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "\"fd\": N" + part.trim_start_matches(|digit: char| digit.is_ascii_digit())
    })
}

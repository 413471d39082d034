//! Memory tables and regions that lie: P05 to P07, P09, P10, P15, P25.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::error::{Doing, Result};
use crate::hostile::attacker::{PROBE_TIME_MAX, Setup, TX, event};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::memory::{END, GUEST, LEN, Memory, USER};
use crate::hostile::wire::{Answer, fds, of, region, request::*, table};

/// A memory file that can be sealed.
pub(super) fn file(len: u64) -> Result<OwnedFd> {
    let file = memfd_create("ringyard-region", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let file = file.doing("making a memory file")?;
    ftruncate(&file, len).doing("making a memory file")?;
    Ok(file)
}

pub(super) fn tables(bout: &mut Bout<'_>) -> Result<()> {
    let file = file(0x10_0000)?;
    let regions = |count: u64| -> Vec<[u64; 4]> {
        (0..count).map(|at| [GUEST + (at << 16), 0x1000, USER + (at << 16), at << 12]).collect()
    };
    let files = |count: usize| fds(vec![file.as_fd(); count]);
    for (name, body, files) in [
        ("no region", table(&[]), files(0)),
        ("no region with a file", table(&[]), files(1)),
        ("nine with eight files", table(&regions(9)), files(8)),
        ("eight with nine files", table(&regions(8)), files(9)),
        ("one with no file", table(&regions(1)), files(0)),
        ("33", table(&regions(33)), files(33)),
        ("less than it says", table(&regions(2))[..40].to_vec(), files(2)),
        ("a count of 2^32 - 1", [u32::MAX, 0].map(u32::to_ne_bytes).concat(), files(1)),
        ("three bytes", vec![1, 2, 3], files(1)),
    ] {
        bout.asks(name, SET_MEM_TABLE, &body, &files)?;
    }
    let mut more = table(&regions(1));
    more[0] = 9;
    bout.asks("nine in a table of one", SET_MEM_TABLE, &more, &files(9))
}

/// Tries a region of a file of 0x4000 bytes, in a table and added to what there is.
fn try_region(bout: &mut Bout<'_>, name: &str, bad: [u64; 4]) -> Result<()> {
    let file = file(0x4000)?;
    bout.asks(&format!("{name}, in a table"), SET_MEM_TABLE, &table(&[bad]), &of(&file))?;
    bout.asks(&format!("{name}, added"), ADD_MEM_REG, &region(bad), &of(&file))
}

pub(super) fn wraps(bout: &mut Bout<'_>) -> Result<()> {
    let max = u64::MAX;
    for (name, bad) in [
        ("no length", [END, 0, USER + LEN, 0]),
        ("2^63 bytes", [0, 1 << 63, 0, 0]),
        ("all bytes", [0, max, 0, 2]),
        ("guest addresses that wrap", [max - 0xfff, 0x2000, USER + LEN, 0]),
        ("user addresses that wrap", [END, 0x2000, max - 0xfff, 0]),
        ("an offset that wraps", [END, 0x2000, USER + LEN, max - 0xfff]),
        ("an offset at the file's end", [END, 0x1000, USER + LEN, 0x4000]),
    ] {
        try_region(bout, name, bad)?;
    }
    Ok(())
}

pub(super) fn larger(bout: &mut Bout<'_>) -> Result<()> {
    for (name, bad) in [
        ("by one byte", [END, 0x4001, USER + LEN, 0]),
        ("by a page", [END, 0x5000, USER + LEN, 0]),
        ("by its offset", [END, 0x1000, USER + LEN, 0x3001]),
        ("by a terabyte", [END, 1 << 40, USER + LEN, 0]),
    ] {
        try_region(bout, name, bad)?;
    }
    let empty = file(0)?;
    bout.asks("an empty file", ADD_MEM_REG, &region([END, 0x1000, USER + LEN, 0]), &of(&empty))
}

pub(super) fn overlaps(bout: &mut Bout<'_>) -> Result<()> {
    for (name, bad) in [
        ("the first region", [GUEST, 0x1000, USER + (1 << 33), 0]),
        ("its last byte", [END - 1, 0x1000, USER + (1 << 33), 0]),
        ("user addresses only", [END, 0x1000, USER, 0]),
    ] {
        let file = file(0x4000)?;
        bout.asks(&format!("{name}, added"), ADD_MEM_REG, &region(bad), &of(&file))?;
    }
    let file = file(0x4000)?;
    let twice = [[GUEST, 0x2000, USER, 0], [GUEST + 0x1fff, 0x1000, USER + 0x10000, 0x3000]];
    bout.asks("in one table", SET_MEM_TABLE, &table(&twice), &fds([file.as_fd(), file.as_fd()]))?;
    let same = [[GUEST, 0x2000, USER, 0], [GUEST, 0x2000, USER, 0]];
    bout.asks("the same twice", SET_MEM_TABLE, &table(&same), &fds([file.as_fd(), file.as_fd()]))
}

pub(super) fn kinds(bout: &mut Bout<'_>) -> Result<()> {
    let open = |path: &str| File::open(path).map(OwnedFd::from).doing(format!("opening {path}"));
    let mut files: Vec<(&str, OwnedFd)> = Vec::new();
    for path in ["/", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/maps", "/proc/self/exe"] {
        files.push((path, open(path)?));
    }
    let (reader, writer) = rustix::pipe::pipe().doing("making a pipe")?;
    files.extend([("a pipe", reader), ("a pipe's other end", writer), ("an eventfd", event()?)]);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().doing("making a socket")?;
    files.push(("a socket", socket.into()));
    let sealed = file(0x4000)?;
    fcntl_add_seals(&sealed, SealFlags::WRITE).doing("sealing a file")?;
    files.push(("a file sealed against writing", sealed));
    for (name, file) in &files {
        bout.asks(
            &format!("{name}, in a table"),
            SET_MEM_TABLE,
            &table(&[[GUEST, 0x1000, USER, 0]]),
            &of(file),
        )?;
        let added = region([END, 0x1000, USER + LEN, 0]);
        bout.asks(&format!("{name}, added"), ADD_MEM_REG, &added, &of(file))?;
    }
    Ok(())
}

pub(super) fn changes(bout: &mut Bout<'_>) -> Result<()> {
    bout.on_both("the same table 200 times", |attacker, _| {
        let memory = attacker.memory.clone();
        for _ in 0..200 {
            let frame = attacker.frame(0, &[0x5a; 60]);
            attacker.post(&[frame]);
            attacker.show(TX);
            match attacker.wire.ask(SET_MEM_TABLE, &table(&Memory::regions()), &memory.files()) {
                Answer::Accepted => {}
                answer => return Ok(Tell::Took(answer)),
            }
            attacker.wait(TX, PROBE_TIME_MAX);
        }
        Ok(Tell::Took(Answer::Accepted))
    })?;
    bout.on_both("a region added and removed 200 times", |attacker, _| {
        let (file, body) = (file(0x4000)?, region([END, 0x4000, USER + LEN, 0]));
        for _ in 0..200 {
            let frame = attacker.frame(0, &[0x5a; 60]);
            attacker.post(&[frame]);
            attacker.show(TX);
            let answers = [
                attacker.wire.ask(ADD_MEM_REG, &body, &of(&file)),
                attacker.wire.ask(REM_MEM_REG, &body, &[]),
            ];
            if let Some(answer) = answers.into_iter().find(|answer| *answer != Answer::Accepted) {
                return Ok(Tell::Took(answer));
            }
            attacker.wait(TX, PROBE_TIME_MAX);
        }
        Ok(Tell::Took(Answer::Accepted))
    })?;
    bout.input("the rings' own region removed", Setup::SPLIT, |attacker, _| {
        Ok(Tell::Took(attacker.wire.ask(REM_MEM_REG, &region(Memory::regions()[0]), &[])))
    })?;
    bout.input("another file under running rings", Setup::SPLIT, |attacker, _| {
        let other = Memory::new()?;
        attacker.wire.ask(SET_MEM_TABLE, &table(&Memory::regions()), &other.files());
        attacker.kick(TX);
        // What the rings are now, only the device sees.
        Ok(Tell::Stopped)
    })
}

pub(super) fn sparse(bout: &mut Bout<'_>) -> Result<()> {
    let large = file(1 << 42)?;
    for (name, len) in
        [("2^40 bytes", 1u64 << 40), ("2^40 bytes and a page", (1 << 40) + 0x1000), ("2^42 bytes", 1 << 42)]
    {
        bout.asks(name, ADD_MEM_REG, &region([END, len, USER + LEN, 0]), &of(&large))?;
    }
    bout.input("eight of 2^40 bytes", Setup::SPLIT, |attacker, _| {
        let files = (0..8).map(|_| file(1 << 40)).collect::<Result<Vec<_>>>()?;
        let regions: Vec<[u64; 4]> = (0..8).map(|at| [at << 40, 1 << 40, USER + (at << 40), 0]).collect();
        let files = fds(files.iter().map(AsFd::as_fd));
        Ok(Tell::Took(attacker.wire.ask(SET_MEM_TABLE, &table(&regions), &files)))
    })
}

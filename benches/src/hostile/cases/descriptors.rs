//! Descriptors that are missing, left over, or of the wrong kind: P11 to P14.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{OFlags, fcntl_setfl};

use super::memory::file;
use crate::error::{Doing, Result};
use crate::hostile::attacker::{Attacker, RX, Setup, TX, blocking_event, event, fill};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::Innocents;
use crate::hostile::memory::{GUEST, USER};
use crate::hostile::wire::{Answer, fds, of, request::*, table};

pub(super) fn counts(bout: &mut Bout<'_>) -> Result<()> {
    let event = event()?;
    let ring = (TX as u64).to_ne_bytes();
    let many = |count: usize| fds(vec![event.as_fd(); count]);
    for (name, request) in [("kick", SET_VRING_KICK), ("call", SET_VRING_CALL), ("error", SET_VRING_ERR)] {
        bout.asks(&format!("{name}: none"), request, &ring, &[])?;
        bout.asks(&format!("{name}: two"), request, &ring, &many(2))?;
        bout.asks(&format!("{name}: eight"), request, &ring, &many(8))?;
        let without = (TX as u64 | 1 << 8).to_ne_bytes();
        bout.asks(&format!("{name}: one that is not announced"), request, &without, &many(1))?;
    }
    bout.asks("eight with a request that takes none", SET_OWNER, &[], &many(8))?;
    bout.asks("one with an unknown request", 99, &[], &many(1))?;
    for count in [9, 33, 60] {
        bout.input(&format!("{count} with a question"), Setup::SPLIT, |attacker, _| {
            attacker.wire.send(GET_FEATURES, 0, &[], &many(count));
            Ok(Tell::Took(attacker.wire.state()))
        })?;
    }
    bout.input("some with half a header, some with the rest", Setup::SPLIT, |attacker, _| {
        let header = [SET_OWNER, 1, 0].map(u32::to_ne_bytes).concat();
        attacker.wire.bytes(&header[..5], &many(4));
        attacker.wire.bytes(&header[5..], &many(4));
        Ok(Tell::Took(attacker.wire.state()))
    })
}

pub(super) fn failures(bout: &mut Bout<'_>) -> Result<()> {
    let (event, memory) = (event()?, file(0x1000)?);
    let ask = |attacker: &mut Attacker, round: usize| match round % 4 {
        0 => attacker.wire.ask(SET_MEM_TABLE, &table(&[[GUEST, 0, USER, 0]]), &of(&memory)),
        1 => attacker.wire.ask(SET_VRING_CALL, &(TX as u64).to_ne_bytes(), &of(&memory)),
        2 => attacker.wire.ask(SET_VRING_KICK, &77u64.to_ne_bytes(), &of(&event)),
        _ => attacker.wire.ask(99, &[], &fds(vec![event.as_fd(); 8])),
    };
    bout.input("on one connection, while it lasts", Setup::SPLIT, |attacker, _| {
        let mut answer = Answer::Accepted;
        for round in 0..2000 {
            answer = ask(attacker, round);
            if answer == Answer::Closed {
                break;
            }
        }
        Ok(Tell::Took(answer))
    })?;
    let socket = bout.arena.attackers_socket().to_owned();
    bout.input("on 200 connections that end by it", Setup::SPLIT, |attacker, _| {
        // Only one at a time is served.
        let _ = attacker.wire.socket.shutdown(std::net::Shutdown::Both);
        for _ in 0..200 {
            let mut next = Attacker::plug(&socket, Setup { rings: 0, ..Setup::SPLIT })?;
            // Nobody asked to be told: what fails can only end the connection.
            next.wire.send(SET_MEM_TABLE, 0, &table(&[[GUEST, 0, USER, 0]]), &of(&memory));
            next.wire.state();
        }
        Ok(Tell::Took(Answer::Closed))
    })
}

/// A pipe that is full.
fn full_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe().doing("making a pipe")?;
    fcntl_setfl(&writer, OFlags::NONBLOCK).doing("setting a pipe's flags")?;
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).doing("setting a pipe's flags")?;
    Ok((reader, writer))
}

/// A socket that nobody reads, full.
fn full_socket() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, other) = UnixStream::pair().doing("making a socket")?;
    ours.set_nonblocking(true).doing("setting a socket's flags")?;
    while (&ours).write(&[0; 4096]).is_ok() {}
    ours.set_nonblocking(false).doing("setting a socket's flags")?;
    Ok((ours.into(), other.into()))
}

/// A terminal whose output is stopped.
fn terminal() -> Result<OwnedFd> {
    let file = std::fs::File::options().read(true).write(true).open("/dev/ptmx");
    file.map(OwnedFd::from).doing("opening a terminal")
}

/// Gives a descriptor to call by, has the device call, and sees whether anybody waits.
fn call_by(attacker: &mut Attacker, innocents: &Innocents, call: &OwnedFd, then: impl Fn()) -> Result<Tell> {
    for ring in [RX, TX] {
        let answer = attacker.wire.ask(SET_VRING_CALL, &(ring as u64).to_ne_bytes(), &of(call));
        if answer != Answer::Accepted {
            return Ok(Tell::Took(answer));
        }
    }
    then();
    for _ in 0..4 {
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame]);
        attacker.show(TX);
        innocents.call(1);
        innocents.exchange(16)?;
    }
    Ok(Tell::Posted)
}

pub(super) fn calls(bout: &mut Bout<'_>) -> Result<()> {
    let (pipe, socket) = (full_pipe()?, full_socket()?);
    let epoll =
        rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).doing("making an epoll")?;
    let kinds = [
        ("a full pipe", pipe.1),
        ("a pipe's reading end", pipe.0),
        ("a full socket that nobody reads", socket.0),
        ("a terminal", terminal()?),
        ("an epoll", epoll),
        ("a memory file", file(0x1000)?),
    ];
    for (name, call) in &kinds {
        bout.on_both(name, |attacker, innocents| call_by(attacker, innocents, call, || {}))?;
    }
    bout.on_both("a full eventfd", |attacker, innocents| {
        let call = blocking_event()?;
        fill(&call);
        call_by(attacker, innocents, &call, || {})
    })?;
    bout.on_both("an eventfd filled and made to block later", |attacker, innocents| {
        let call = event()?;
        call_by(attacker, innocents, &call, || {
            let _ = fcntl_setfl(&call, OFlags::empty());
            let _ = rustix::io::read(&call, &mut [0; 8]);
            fill(&call);
        })
    })?;
    bout.on_both("an eventfd that is made to block again and again", |attacker, innocents| {
        let call = event()?;
        for _ in 0..8 {
            let tell = call_by(attacker, innocents, &call, || {
                let _ = fcntl_setfl(&call, OFlags::NONBLOCK);
                let _ = rustix::io::read(&call, &mut [0; 8]);
                fill(&call);
                let _ = fcntl_setfl(&call, OFlags::empty());
            })?;
            if tell != Tell::Posted {
                return Ok(tell);
            }
        }
        Ok(Tell::Posted)
    })?;
    bout.on_both("one eventfd that only counts", |attacker, innocents| {
        let call =
            rustix::event::eventfd(0, rustix::event::EventfdFlags::SEMAPHORE).doing("making an eventfd")?;
        call_by(attacker, innocents, &call, || {})
    })
}

pub(super) fn kicks(bout: &mut Bout<'_>) -> Result<()> {
    let (pipe, socket) = (full_pipe()?, full_socket()?);
    let epoll =
        rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).doing("making an epoll")?;
    let kinds = [
        ("a full pipe", pipe.0),
        ("a socket", socket.0),
        ("an epoll", epoll),
        ("a memory file", file(0x1000)?),
        ("a blocking eventfd", blocking_event()?),
    ];
    for (name, fd) in &kinds {
        for (what, request) in [("kick", SET_VRING_KICK), ("error", SET_VRING_ERR)] {
            bout.input(&format!("{name} to {what} by"), Setup::SPLIT, |attacker, _| {
                let answer = attacker.wire.ask(request, &(TX as u64).to_ne_bytes(), &of(fd));
                if answer == Answer::Accepted && request == SET_VRING_KICK {
                    // From now on the device hears this one.
                    attacker.events[TX].kick = fd.try_clone().doing("duplicating a descriptor")?;
                }
                Ok(Tell::Took(answer))
            })?;
        }
    }
    bout.on_both("none: the device is to look", |attacker, _| {
        let without = (TX as u64 | 1 << 8).to_ne_bytes();
        match attacker.wire.ask(SET_VRING_KICK, &without, &[]) {
            Answer::Accepted => {}
            answer => return Ok(Tell::Took(answer)),
        }
        let frame = attacker.attack_frame(0);
        attacker.post(&[frame]);
        attacker.rings[TX].publish();
        let came = attacker.wait(TX, crate::hostile::attacker::PROBE_TIME_MAX);
        Ok(if came == crate::hostile::attacker::Came::Used { Tell::Handled } else { Tell::Stopped })
    })?;
    bout.on_both("one for all rings and all ends", |attacker, _| {
        let all = event()?;
        for ring in [RX as u64, TX as u64] {
            for request in [SET_VRING_CALL, SET_VRING_ERR, SET_VRING_KICK] {
                let answer = attacker.wire.ask(request, &ring.to_ne_bytes(), &of(&all));
                if answer != Answer::Accepted {
                    return Ok(Tell::Took(answer));
                }
            }
        }
        for _ in 0..8 {
            let frame = attacker.attack_frame(0);
            attacker.post(&[frame]);
            attacker.rings[TX].publish();
            let _ = rustix::io::write(&all, &1u64.to_ne_bytes());
        }
        // The device takes kicks for itself that were for somebody else; the next one comes by its own.
        attacker.events[TX].kick = all;
        Ok(Tell::Posted)
    })
}

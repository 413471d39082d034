//! The relay of streams: one `recv` of as much as there is, a walk over the lengths, one `send` of all frames that are
//! whole.

use std::os::fd::OwnedFd;

use ringyard_tests::error::{Doing, Error, Result};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Idler;

pub fn run(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut held = 0;
    let (mut empty, mut full) = (Idler::new(), Idler::new());
    loop {
        match recv(from, &mut buffer[held..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(()),
            Ok((count, _)) => held += count,
            Err(Errno::AGAIN | Errno::INTR) => {
                empty.idle(from, PollFlags::IN)?;
                continue;
            }
            Err(error) => return Err(error).doing("receiving"),
        }
        empty.worked();
        let whole = whole(&buffer[..held])?;
        let mut sent = 0;
        while sent < whole {
            match send(to, &buffer[sent..whole], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    full.worked();
                    sent += count;
                }
                Err(Errno::AGAIN | Errno::INTR) => full.idle(to, PollFlags::OUT)?,
                Err(error) => return Err(error).doing("sending"),
            }
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}

/// How many bytes the whole frames have.
fn whole(bytes: &[u8]) -> Result<usize> {
    let mut at = 0;
    while let Some(length) = bytes[at..].first_chunk::<4>() {
        let end = at + 4 + u32::from_be_bytes(*length) as usize;
        if end - at > BUFFER_LEN {
            return Err(Error::new("a frame is longer than the buffer"));
        }
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    Ok(at)
}

const BUFFER_LEN: usize = 256 << 10;

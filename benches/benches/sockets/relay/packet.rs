//! The relay of interfaces: frames lie in a receiving ring (TPACKET_V3), and `sendmmsg` takes them from there.

use std::os::fd::OwnedFd;

use ringyard_tests::error::{Doing, Result};
use rustix::event::PollFlags;

use super::Idler;
use crate::batch::{BATCH, header_of, send};
use crate::ring::Ring;

pub fn run(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut ring = Ring::of(from)?;
    let mut vectors: Vec<libc::iovec> = Vec::new();
    let (mut empty, mut full) = (Idler::new(), Idler::new());
    loop {
        let Some(block) = ring.block() else {
            empty.idle(from, PollFlags::IN)?;
            continue;
        };
        empty.worked();
        vectors.clear();
        ring.for_each(block, |frame| {
            vectors.push(libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() });
        });
        for vectors in vectors.chunks_mut(BATCH) {
            let mut headers: Vec<libc::mmsghdr> =
                vectors.iter_mut().map(|vector| header_of(std::slice::from_mut(vector), None)).collect();
            let mut sent = 0;
            while sent < headers.len() {
                match send(to, &mut headers[sent..]).doing("sending")? {
                    0 => full.idle(to, PollFlags::OUT)?,
                    count => {
                        full.worked();
                        sent += count;
                    }
                }
            }
        }
    }
}

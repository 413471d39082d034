//! The ways to read and write frames.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use crate::FRAMES;
use crate::tap::{NET_LEN, Tap};

/// Bytes of a frame that the switch writes from a copy of its own.
const HEADER_LEN: usize = 64;
/// Room for one frame.
const ROOM: usize = 66_000;

pub enum Method {
    /// A call a frame.
    Calls,
    /// A submission a frame, a call a batch.
    Uring(Box<Uring>),
}

pub struct Uring {
    ring: IoUring,
    batch: usize,
    polled: bool,
    rooms: Vec<u8>,
}

impl Uring {
    /// Submits `batch` frames with one enter; `polled`, with none as long as the kernel's thread is awake.
    pub fn new(tap: &Tap, batch: usize, polled: bool) -> io::Result<Uring> {
        let mut builder = IoUring::builder();
        match polled {
            true => builder.setup_sqpoll(1000),
            false => builder.setup_single_issuer().setup_defer_taskrun(),
        };
        let ring = builder.build(FRAMES as u32)?;
        ring.submitter().register_files(&[tap.file.as_raw_fd()])?;
        Ok(Uring { ring, batch, polled, rooms: vec![0; FRAMES * ROOM] })
    }

    /// Submits what `entry` says for each of `count` frames, and waits for all of them; each must come to `len` bytes.
    fn go(
        &mut self,
        count: usize,
        len: usize,
        entry: impl Fn(usize) -> io_uring::squeue::Entry,
    ) -> io::Result<()> {
        let mut submitted = 0;
        while submitted < count {
            let now = self.batch.min(count - submitted);
            for index in submitted..submitted + now {
                let entry = entry(index);
                // The kernel's thread gives places back some time after it has used them.
                // SAFETY: what the entry points to lives until its completion, which is waited for here.
                while unsafe { self.ring.submission().push(&entry) }.is_err() {
                    std::hint::spin_loop();
                }
            }
            match self.polled {
                true => drop(self.ring.submit()?),
                false => drop(self.ring.submit_and_wait(now)?),
            }
            let mut completed = 0;
            while completed < now {
                for completion in self.ring.completion() {
                    expect(completion.result() as isize, len)?;
                    completed += 1;
                }
            }
            submitted += now;
        }
        Ok(())
    }
}

impl Method {
    pub fn name(&self) -> String {
        match self {
            Method::Calls => "calls".into(),
            Method::Uring(uring) if uring.polled => "SQPOLL".into(),
            Method::Uring(uring) => format!("io_uring {}", uring.batch),
        }
    }

    /// Reads `count` frames, which wait there and have `len` bytes with their net headers.
    pub fn read(&mut self, tap: &Tap, count: usize, len: usize) -> io::Result<()> {
        match self {
            Method::Calls => {
                let mut room = [0u8; ROOM];
                (0..count).try_for_each(|_| expect(rustix::io::read(&tap.file, &mut room)? as isize, len))
            }
            Method::Uring(uring) => {
                let rooms = uring.rooms.as_mut_ptr();
                uring.go(count, len, |index| {
                    let room = rooms.wrapping_add(index * ROOM);
                    opcode::Read::new(types::Fixed(0), room, ROOM as u32).build()
                })
            }
        }
    }

    /// Writes `record` `count` times, as three pieces: net header, header, body.
    pub fn write(&mut self, tap: &Tap, count: usize, record: &[u8]) -> io::Result<()> {
        let (net, frame) = record.split_at(NET_LEN);
        let (header, body) = frame.split_at(HEADER_LEN);
        let vectors = [net, header, body]
            .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        match self {
            Method::Calls => (0..count).try_for_each(|_| {
                // SAFETY: the vectors describe slices that live here, and are not written to.
                let written = unsafe { libc::writev(tap.file.as_raw_fd(), vectors.as_ptr(), 3) };
                expect(written, record.len())
            }),
            Method::Uring(uring) => uring.go(count, record.len(), |_| {
                opcode::Writev::new(types::Fixed(0), vectors.as_ptr(), 3).build()
            }),
        }
    }
}

fn expect(result: isize, len: usize) -> io::Result<()> {
    match result {
        0.. if result as usize == len => Ok(()),
        0.. => Err(io::Error::other(format!("{result} bytes instead of {len}"))),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

//! The file that is written: a plain one, or one that may have no room for long, as a pipe has.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Bytes that a pipe takes at once when it takes any, though its descriptor blocks: a page (pipe(7), `PIPE_BUF`).
const PIPE_CHUNK: usize = 4096;

/// See the module.
pub(super) struct Sink {
    file: OwnedFd,
    kind: FileType,
}

impl Sink {
    /// An open file.
    pub(super) fn new(file: OwnedFd) -> Sink {
        let kind = fstat(&file).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode));
        Sink { file, kind }
    }

    /// Opens a file, which loses what it held. A pipe that nobody reads is an error: waiting for a reader may take for
    /// ever.
    pub(super) fn open(path: &Path) -> io::Result<Sink> {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE).custom_flags(flags);
        let file: File = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => io::Error::other("nobody has opened it to read, or it is no file"),
            _ => error,
        })?;
        Ok(Sink::new(file.into()))
    }

    /// What to wait for, before [`Self::write_some`], with [`PollFlags::OUT`].
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes some of `bytes`, and says how many. Does not wait for room once there was some; 0: there was none.
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.kind {
            FileType::RegularFile => rustix::io::write(&self.file, bytes),
            FileType::Socket => send(&self.file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            _ => rustix::io::write(&self.file, &bytes[..bytes.len().min(PIPE_CHUNK)]),
        };
        match written {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written?),
        }
    }

    /// Writes all of `bytes`. Waits as long as there is some room every second.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&ROOM_TIME_MAX)) {
                Ok(0) => return Err(io::Error::other("nobody reads it")),
                Ok(_) => rest = &rest[self.write_some(rest)?..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// How long a pipe may take nothing before nobody seems to read it.
const ROOM_TIME_MAX: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Before the umask.
const FILE_MODE: u32 = 0o644;

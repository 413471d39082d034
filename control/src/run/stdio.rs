//! A monitor on stdin and stdout, whatever they are: files, pipes, a terminal.
//!
//! Two threads copy between them and a socket, which then is a client's like any other. So nobody but these threads waits
//! for a pipe that is full, and descriptors that we share with whoever started us keep their flags. At the end of stdin
//! the monitor takes no more commands, but events are still written, as QEMU does; the run goes on.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use ringyard_drivers::minder::{Minder, Stop, Wait};
use rustix::event::PollFlags;

/// How long the end of a run waits until what was said last is written.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes copied at once.
const CHUNK: usize = 16 << 10;

/// See the module. To be dropped after its client: it waits, for a limited time, until all is written.
pub(super) struct Stdio {
    _reader: Minder,
    written: Receiver<()>,
}

impl Stdio {
    /// Begins to copy; the client's socket.
    pub(super) fn open() -> io::Result<(Stdio, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        let commands = theirs.try_clone()?;
        let (done, written) = bounded::<()>(0);
        let write = move || {
            copy(theirs, io::stdout());
            drop(done);
        };
        let reader = Minder::start("stdin", move |stop| read(commands, stop))?;
        thread::Builder::new().name("stdout".into()).spawn(write)?;
        Ok((Stdio { _reader: reader, written }, ours.into()))
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        // Nothing is ever sent: the writer's end is what is waited for.
        let _ = self.written.recv_timeout(FLUSH_TIME_MAX);
    }
}

/// Copies what comes at stdin, past its buffer: of that, nobody could say whether it is empty.
fn read(mut to: UnixStream, stop: &Stop) {
    let stdin = io::stdin();
    let mut chunk = [0; CHUNK];
    while stop.wait(&[(stdin.as_fd(), PollFlags::IN)], None) != Wait::Stopped {
        match rustix::io::read(&stdin, &mut chunk) {
            Ok(0) => return,
            Ok(count) if to.write_all(&chunk[..count]).is_err() => return,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return tracing::warn!("reading commands from stdin: {error}"),
        }
    }
}

/// Copies what the client is told; when nobody reads it, there is no client any more.
fn copy(mut from: UnixStream, mut to: impl Write) {
    let mut chunk = [0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

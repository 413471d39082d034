//! A capture of the frames of a port, in a file that every tool for packets reads: QEMU's `filter-dump`.
//!
//! A port is captured by wrapping its ends ([`Captured`]): the driver and the switch know nothing of it, and a port without
//! a capture runs the code that it always ran. A worker copies what it has forwarded into a [`Recorder`]'s memory, which is
//! there from the start and limited: it allocates nothing, waits for no file, and asks the system for nothing. A thread
//! writes it out every few milliseconds. What finds no room is lost to the file, counted, and forwarded all the same.

mod ends;
mod pcap;
mod recorder;
mod sink;
mod writer;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::errno;
use crate::minder::Minder;
use crate::store::Drawer;
pub use ends::{Captured, Direction};
pub use recorder::{Recorder, Totals};
use sink::Sink;
use writer::Writer;

/// What a dump is made of.
#[derive(Debug)]
pub struct DumpOptions {
    /// Its name in the log.
    pub id: String,
    /// What the user calls the file; opened, unless there is a descriptor.
    pub path: PathBuf,
    /// An open file.
    pub file: Option<OwnedFd>,
    /// Bytes of a frame that are kept, at least 1.
    pub snaplen: u32,
    /// Where the open file outlives this process. What one before left there is written on.
    pub drawer: Drawer,
}

/// An open file that frames are recorded in. Dropping it has the rest written, and does not wait for that.
pub struct Dump {
    recorder: Arc<Recorder>,
    minder: Minder,
    /// Ends when the file is closed.
    closed: Receiver<()>,
}

impl Dump {
    /// Opens the file, which loses what it held, and writes its header. May block.
    ///
    /// Errors: QEMU's text where it has one.
    pub fn open(options: DumpOptions) -> Result<Dump, String> {
        let DumpOptions { id, path, file, snaplen, drawer } = options;
        let sink = match drawer.take(FILE) {
            Some(file) => Sink::new(file),
            None => Dump::begin(&path, file, snaplen)?,
        };
        drawer.keep(FILE, sink.fd());
        let failed = |why| format!("net dump: starting to write {}: {why}", path.display());
        let recorder = Arc::new(Recorder::new(snaplen).map_err(failed)?);
        let (done, closed) = bounded(0);
        let writer = Writer::new(id, sink, recorder.clone());
        let minder = Minder::start("capture", move |stop| {
            writer.run(stop);
            drop(done);
        });
        Ok(Dump { recorder, minder: minder.map_err(failed)?, closed })
    }

    /// A file with nothing but a header in it.
    fn begin(path: &Path, file: Option<OwnedFd>, snaplen: u32) -> Result<Sink, String> {
        let sink = match file {
            Some(file) => Ok(Sink::new(file)),
            None => Sink::open(path),
        };
        let sink =
            sink.map_err(|why| format!("net dump: can't open {}: {}", path.display(), errno::text(why)))?;
        sink.write(&pcap::file_header(snaplen))
            .map_err(|why| format!("net dump write error: {}", errno::text(why)))?;
        Ok(sink)
    }

    /// What frames are to be given to.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Has the rest written, and waits until the file is closed. Nobody may record any more.
    ///
    /// Errors: it takes too long; then it is left to itself.
    pub fn close(self) -> Result<(), String> {
        drop(self.minder);
        match self.closed.recv_timeout(CLOSE_TIME_MAX) {
            Err(RecvTimeoutError::Timeout) => Err("its file is slow, and is closed later".into()),
            _ => Ok(()),
        }
    }
}

/// What is kept of a dump.
const FILE: &str = "file";
/// How long [`Dump::close`] waits.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests;

//! The thread of a dump: gathers what workers record for a few milliseconds, and writes it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Recorder;
use super::recorder::Page;
use super::sink::Sink;
use crate::errno;
use crate::minder::{Stop, Wait};

/// From the first frame that is recorded to its way to the file; a worker is asked to wake the thread once in that time.
const GATHER_TIME: Duration = Duration::from_millis(10);
/// From one warning of frames that are lost to the next.
const WARN_PAUSE: Duration = Duration::from_secs(10);
/// From one look at the losses to the next, while the file takes nothing.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Writer {
    id: String,
    sink: Sink,
    recorder: Arc<Recorder>,
    page: Page,
    /// Frames lost when it was last warned of, and when that was.
    warned: (u64, Option<Instant>),
}

impl Writer {
    /// Of the file `sink`, which has its header.
    pub(super) fn new(id: String, sink: Sink, recorder: Arc<Recorder>) -> Writer {
        Writer { id, sink, recorder, page: Page::new(), warned: (0, None) }
    }

    /// Writes until it is stopped, then what is left, then closes the file.
    pub(super) fn run(mut self, stop: &Stop) {
        loop {
            let is_last = !self.gather(stop);
            self.recorder.swap(&mut self.page);
            let written = if is_last { self.sink.write(self.page.records()) } else { self.write(stop) };
            self.page.clear();
            self.warn_of_losses();
            if let Err(error) = written {
                self.recorder.give_up();
                let (id, why) = (&self.id, errno::text(error));
                return tracing::warn!("filter-dump '{id}': network dump write error - stopping dump: {why}");
            }
            if is_last {
                return;
            }
        }
    }

    /// Waits until there is something to write, and a little longer for more. False: it is to end.
    fn gather(&self, stop: &Stop) -> bool {
        let Recorder { some, plenty, .. } = &*self.recorder;
        if stop.wait(&[(some.fd(), PollFlags::IN)], None) == Wait::Stopped {
            return false;
        }
        some.clear();
        let waited = stop.wait(&[(plenty.fd(), PollFlags::IN)], Some(GATHER_TIME));
        plenty.clear();
        waited != Wait::Stopped
    }

    /// Writes the page, for as long as that takes; told to stop, for as long as somebody reads.
    fn write(&mut self, stop: &Stop) -> io::Result<()> {
        let mut done = 0;
        while done < self.page.records().len() {
            match stop.wait(&[(self.sink.fd(), PollFlags::OUT)], Some(LOOK_PAUSE)) {
                Wait::Ready(_) => done += self.sink.write_some(&self.page.records()[done..])?,
                Wait::TimedOut => self.warn_of_losses(),
                Wait::Stopped => return self.sink.write(&self.page.records()[done..]),
            }
        }
        Ok(())
    }

    fn warn_of_losses(&mut self) {
        let lost = self.recorder.totals().lost;
        let (known, at) = self.warned;
        if lost > known && at.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            let (id, more) = (&self.id, lost - known);
            tracing::warn!(
                "filter-dump '{id}': {more} frames are not in its file, which is too slow for them"
            );
            self.warned = (lost, Some(Instant::now()));
        }
    }
}

//! The log: readable lines on stderr, written by a thread of their own.
//!
//! Whoever reads stderr may stop reading, and then a write blocks; no thread that logs may wait for that. Lines that find
//! no room are lost and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::cli::LogLevel;

/// Lines that wait to be written, at most.
const LINES_MAX: usize = 1024;
/// How long the end of the program waits for the last lines.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// The process's log. Dropping it waits, for a limited time, until what was logged is written.
pub struct Log(Lines);

#[derive(Clone)]
struct Lines {
    queue: Sender<Entry>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line(Vec<u8>),
    /// Answered when all before it is written.
    Flush(Sender<()>),
}

impl Log {
    /// Shows what is at least as severe as `level`; in colour where stderr is a terminal. To be called once.
    pub fn start(level: LogLevel) -> io::Result<Log> {
        let log = Log::to(io::stderr())?;
        let lines = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(log.0.clone());
        let (filter, handle) = reload::Layer::new(filter(level));
        tracing_subscriber::registry().with(filter).with(lines).init();
        let _ = FILTER.set(handle);
        Ok(log)
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (queue, entries) = bounded(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Lines { queue, lost: lost.clone() };
        thread::Builder::new().name("log".into()).spawn(move || write(&entries, &lost, out))?;
        Ok(Log(lines))
    }
}

/// Shows what is at least as severe as `level` from now on, if there is a log.
pub fn set_level(level: LogLevel) {
    // It fails only when the log is gone.
    let _ = FILTER.get().map(|handle| handle.reload(filter(level)));
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// What decides which messages are shown.
static FILTER: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

impl Drop for Log {
    fn drop(&mut self) {
        let (written, answer) = bounded(1);
        if self.0.queue.send_timeout(Entry::Flush(written), FLUSH_TIME_MAX).is_ok() {
            let _ = answer.recv_timeout(FLUSH_TIME_MAX);
        }
    }
}

impl Write for Lines {
    /// One line; tracing writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            // Relaxed: only the count matters.
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

/// Nobody can be told when stderr fails.
fn write(entries: &Receiver<Entry>, lost: &AtomicU64, mut out: impl Write) {
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                // Relaxed: see above.
                match lost.swap(0, Ordering::Relaxed) {
                    0 => {}
                    count => {
                        drop(writeln!(out, "({count} lines of the log are lost: nobody read them in time)"))
                    }
                }
                let _ = out.write_all(&line);
            }
            Entry::Flush(written) => drop(written.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_log_that_nobody_reads_blocks_nobody_and_says_what_is_lost() {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        let mut log = Log::to(ours).expect("a thread can be started");
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        while log.0.lost.load(Ordering::Relaxed) == 0 {
            log.0.write_all(&line).expect("it cannot fail");
        }
        let reader = thread::spawn(move || {
            let text = io::read_to_string(theirs).unwrap_or_default();
            text.lines().filter(|line| line.contains("lines of the log are lost")).count()
        });
        // Lines are waiting: the first that is written brings the count along.
        while log.0.lost.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        drop(log);
        assert!(reader.join().is_ok_and(|count| count > 0));
    }
}

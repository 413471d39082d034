//! The back end as a process: whether it lives, and what it holds.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: u64,
    /// Mappings.
    pub mappings: u64,
    /// Memory of its own that is in use, in KiB.
    pub memory_kib: u64,
}

/// A process that was seen alive.
#[derive(Clone, Debug)]
pub struct BackEndProcess {
    /// Its process id.
    pub id: u32,
    /// When it began, in clock ticks: another process may get its id.
    began: String,
}

impl BackEndProcess {
    /// Whoever listens at the other end of a connection, if the kernel says who that is.
    pub fn behind(socket: &Path) -> Option<BackEndProcess> {
        let socket = UnixStream::connect(socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        let id = peer.pid.as_raw_nonzero().get().unsigned_abs();
        Some(BackEndProcess { id, began: began(id)? })
    }

    /// Whether it is still there.
    pub fn is_alive(&self) -> bool {
        began(self.id).is_some_and(|began| began == self.began)
    }

    /// What it holds now; `None` if we may not know.
    pub fn holdings(&self) -> Option<Holdings> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(Holdings {
            descriptors: fs::read_dir(self.path("fd")).ok()?.count() as u64,
            mappings: fs::read_to_string(self.path("maps")).ok()?.lines().count() as u64,
            memory_kib: memory.trim().strip_suffix("kB")?.trim().parse().ok()?,
        })
    }

    /// What it holds more than `before`, once it has had time to let go; `None` if that is nothing worth a word.
    pub fn growth(&self, before: Holdings) -> Option<String> {
        let deadline = Instant::now() + SETTLE_TIME_MAX;
        loop {
            let now = self.holdings()?;
            let grown = [
                (now.descriptors, before.descriptors, "descriptors"),
                (now.mappings, before.mappings + MAPPINGS_SLACK, "mappings"),
                (now.memory_kib, before.memory_kib + MEMORY_SLACK_KIB, "KiB of memory"),
            ];
            let first = grown.iter().find(|(now, most, _)| now > most)?;
            if Instant::now() > deadline {
                return Some(format!("{} {}, of {} before", first.0, first.2, first.1));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.id)).join(file)
    }
}

/// When a process began, unless it has ended.
fn began(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?;
    if matches!(state, "Z" | "X") { None } else { words.nth(18).map(String::from) }
}

/// What an allocator may take for itself.
const MEMORY_SLACK_KIB: u64 = 4096;
const MAPPINGS_SLACK: u64 = 8;
/// From the end of the last connection to all being given back.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_holds_something() {
        let id = std::process::id();
        let this = BackEndProcess { id, began: began(id).expect("we run") };
        assert!(this.is_alive());
        let holdings = this.holdings().expect("we may know of ourselves");
        assert!(holdings.descriptors > 2 && holdings.mappings > 2 && holdings.memory_kib > 0, "{holdings:?}");
        assert_eq!(this.growth(holdings), None);
        let other = BackEndProcess { id, began: "0".into() };
        assert!(!other.is_alive(), "another process of that number");
    }
}

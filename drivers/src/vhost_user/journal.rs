//! The journal of one connection: what a successor of this process needs to go on with it as if nothing had been.
//!
//! The descriptors of the connection are in the [`Store`], and one of them is the journal's own memory file: a [`Record`] of
//! what is [`Known`], and behind it a region for each ring whose place the guest's memory does not tell. One thread writes
//! it, that of the connection, and in this order: descriptors are kept; the store has them; the record that speaks of them
//! is written; those of which no record speaks any more are forgotten.
//!
//! A request is recorded before it leaves the socket, and its outcome before its reply is sent; so a process that is killed
//! at any instant has its successor serve a request again that was not answered, and all of them can be served twice.
//! Without a store there is no journal, and it costs nothing.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ringyard_dataplane::ring::{RING_SIZE_MAX, RingJournal};
use rustix::net::{SocketType, sockopt};

use super::known::{Known, Number};
use crate::record::Record;
use crate::store::Store;
use crate::vring::Journals;

/// Where the connections of a port are kept.
#[derive(Clone, Default)]
pub struct Keeping {
    /// By whom.
    pub store: Store,
    /// Under which name: that of the chardev.
    pub chardev: String,
}

impl Keeping {
    fn name(&self) -> String {
        format!("vhost-user/{}", self.chardev)
    }

    /// Whether a process before this one was killed with a connection.
    pub fn has_connection(&self) -> bool {
        self.store.has(&format!("{}/{SOCKET}", self.name()))
    }
}

/// See the module.
pub(super) struct Journal {
    store: Store,
    name: String,
    record: Record,
    /// The record as it was written last.
    last: Vec<u8>,
    next: Number,
    kept: BTreeSet<Number>,
    rings: usize,
}

impl Journal {
    /// That of a new connection with `rings` rings; `None`: nobody keeps anything.
    pub(super) fn begin(keeping: &Keeping, socket: BorrowedFd<'_>, rings: usize) -> Option<Journal> {
        if !keeping.store.is_there() {
            return None;
        }
        let begin = || {
            let (record, file) = Record::new("vhost-user", KIND, RECORD_LEN_MAX, rings * RING_STRIDE)?;
            let (store, name) = (keeping.store.clone(), keeping.name());
            // What is left of a connection before is not to be mistaken for a part of this one.
            store.forget(&name);
            let mut journal =
                Journal { store, name, record, last: Vec::new(), next: 0, kept: BTreeSet::new(), rings };
            journal.write(&Known::default());
            journal.store.keep(&journal.path(JOURNAL), file)?;
            journal.store.keep(&journal.path(SOCKET), socket)?;
            journal.store.barrier()?;
            io::Result::Ok(journal)
        };
        begin().map_err(|error| tracing::warn!("vhost-user: a connection is not kept: {error}")).ok()
    }

    /// The connection that a process before this one was killed with, if there is one: its socket, and what is known of it.
    ///
    /// Errors: it cannot be gone on with; a sentence.
    pub(super) fn find(
        keeping: &Keeping,
        rings: usize,
    ) -> Option<Result<(UnixStream, Journal, Known), String>> {
        let (store, name) = (keeping.store.clone(), keeping.name());
        let socket = store.take(&format!("{name}/{SOCKET}"))?;
        let file = store.take(&format!("{name}/{JOURNAL}"));
        let find = || {
            // Of anything else there is no end that could be waited for.
            if sockopt::socket_type(&socket) != Ok(SocketType::STREAM) {
                return Err("its socket is none".into());
            }
            let file = file.ok_or("its journal is not there")?;
            let (record, last) =
                Record::adopt(file, KIND, rings * RING_STRIDE).map_err(|error| error.to_string())?;
            let known = Known::read(&last)?;
            let kept: BTreeSet<Number> =
                store.names_under(&name).iter().filter_map(|path| number(path)).collect();
            let next = kept.last().map_or(0, |last| last + 1);
            Ok((
                socket.into(),
                Journal { store: store.clone(), name: name.clone(), record, last, next, kept, rings },
                known,
            ))
        };
        Some(find())
    }

    /// Has descriptors kept, and returns their numbers when they are.
    ///
    /// Errors: the keeper is gone; the connection goes on without a journal.
    pub(super) fn keep(&mut self, fds: &[OwnedFd]) -> io::Result<Vec<Number>> {
        let numbers: Vec<Number> = (self.next..).take(fds.len()).collect();
        for (number, fd) in numbers.iter().zip(fds) {
            self.store.keep(&self.path(&number.to_string()), fd)?;
            self.kept.insert(*number);
        }
        self.next += fds.len() as u64;
        if !fds.is_empty() {
            self.store.barrier()?;
        }
        Ok(numbers)
    }

    /// A descriptor that a process before this one had kept, once.
    pub(super) fn take(&self, number: Number) -> Result<OwnedFd, String> {
        self.store
            .take(&self.path(&number.to_string()))
            .ok_or_else(|| format!("its descriptor {number} is not there"))
    }

    /// Records what is known, if that is something new, and has what it does not speak of kept no longer.
    pub(super) fn write(&mut self, known: &Known) {
        let bytes = known.bytes();
        if bytes == self.last {
            return;
        }
        if self.record.write(&bytes).is_err() {
            // Everything in a record is bounded, and a test adds it up.
            tracing::error!("vhost-user: the record of a connection is too long");
            return;
        }
        self.last = bytes;
        let spoken_of = known.numbers();
        let (kept, forgotten) = self.kept.iter().partition(|number| spoken_of.contains(number));
        self.kept = kept;
        let forgotten: BTreeSet<Number> = forgotten;
        forgotten.iter().for_each(|number| self.store.forget(&self.path(&number.to_string())));
    }

    /// How far the reply got that the last record has: bytes that were sent, and whether more were about to be.
    pub(super) fn reply_progress(&self) -> (usize, bool) {
        let progress = self.record.progress();
        ((progress >> 1) as usize, progress & 1 == 1)
    }

    pub(super) fn set_reply_progress(&self, sent: usize, is_sending: bool) {
        self.record.set_progress((sent as u32) << 1 | u32::from(is_sending));
    }

    /// Where the connection's rings are journalled.
    pub(super) fn rings(&self) -> Journals {
        let (mapping, at) = self.record.room();
        Journals { mapping: mapping.clone(), at, stride: RING_STRIDE, count: self.rings, resumes: false }
    }

    /// The connection has ended.
    pub(super) fn end(self) {
        self.store.forget(&self.name);
    }

    fn path(&self, leaf: &str) -> String {
        format!("{}/{leaf}", self.name)
    }
}

/// Has what is left of a connection kept no longer.
pub(super) fn forget(keeping: &Keeping) {
    keeping.store.forget(&keeping.name());
}

/// The number of a descriptor that is kept there.
fn number(path: &str) -> Option<Number> {
    // Not the last ones: there have to be next ones.
    path.rsplit_once('/')?.1.parse().ok().filter(|&number| number <= Number::MAX / 2)
}

const SOCKET: &str = "socket";
const JOURNAL: &str = "journal";
/// What the record is, and its version.
const KIND: u64 = u64::from_le_bytes(*b"vhostus\x01");
/// Bytes of a record: 509 regions and 257 rings take the most.
const RECORD_LEN_MAX: usize = 512 << 10;
/// Bytes for each ring, whatever its size; memory that is not written is not there.
const RING_STRIDE: usize = RingJournal::len(RING_SIZE_MAX, true).next_multiple_of(4096);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::QUEUES_MAX;
    use crate::vhost_user::known::{
        KnownLog, KnownRegion, KnownReply, KnownRequest, KnownRing, KnownStart, KnownTable, KnownWishes,
    };
    use crate::vhost_user::memory::SLOTS_MAX;

    #[test]
    fn there_is_a_number_after_every_one_that_is_kept() {
        assert_eq!(number("vhost-user/c/7"), Some(7));
        assert_eq!(
            (number("vhost-user/c/socket"), number(&format!("vhost-user/c/{}", u64::MAX))),
            (None, None)
        );
    }

    #[test]
    fn longest_record_has_room() {
        const FAR: u64 = u64::MAX;
        let (bit, table) = (true, KnownTable { macs: vec![[255; 6]; 64], overflow: true });
        let region = KnownRegion { guest_addr: FAR, user_addr: FAR, len: FAR, offset: FAR, file: FAR };
        let ring = KnownRing {
            size: u16::MAX,
            desc: FAR,
            avail: FAR,
            used: FAR,
            base: Some(u16::MAX),
            packed: false,
            enabled: false,
            kick: Some(FAR),
            call: Some(FAR),
            error: Some(FAR),
            used_log: Some(FAR),
            started: Some(KnownStart { skew: u16::MAX, broken: false }),
        };
        let rings = 2 * usize::from(QUEUES_MAX) + 1;
        let wishes = KnownWishes {
            all_unicast: bit,
            unicast: table.clone(),
            multicast: table,
            vlans: (0..4096).collect(),
            ..KnownWishes::default()
        };
        let known = Known {
            offered: FAR,
            features: FAR,
            protocol: FAR,
            status: FAR,
            regions: vec![region; SLOTS_MAX],
            rings: (0..rings).map(|index| (index, ring.clone())).collect(),
            wishes: Some(wishes),
            backchannel: Some(FAR),
            log: Some(KnownLog { file: FAR, len: FAR, offset: FAR }),
            request: Some(KnownRequest {
                request: u32::MAX,
                need_reply: false,
                body: vec![255; 4096],
                fds: vec![FAR; 32],
            }),
            reply: Some(KnownReply { bytes: vec![255; 4096 + 12], fd: Some(FAR) }),
            ..Known::default()
        };
        let len = known.bytes().len();
        assert!(len < RECORD_LEN_MAX / 2, "{len} bytes, with as much to spare");
        let (mut record, file) = Record::new("record", KIND, RECORD_LEN_MAX, 0).unwrap();
        record.write(&known.bytes()).unwrap();
        let (_, bytes) = Record::adopt(file, KIND, 0).unwrap();
        assert_eq!(Known::read(&bytes), Ok(known));
    }
}

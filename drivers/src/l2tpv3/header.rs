//! What stands before a frame in a datagram: L2TPv3's session header (RFC 3931, 4.1), in the form that QEMU gives it.
//!
//! ```text
//! [IP header, as the kernel leaves it before raw IPv4]   received only
//! [00 03 00 00]                                          UDP only
//! session, 4 bytes
//! [cookie, 4 or 8 bytes]
//! [counter, 4 bytes]
//! [offset: any bytes, zeros when we send]
//! frame
//! ```
//! All of it is big-endian. A datagram is taken when its cookie and its session are ours; nobody looks at its first word
//! and its counter. Without a cookie anybody can guess a session, so then the datagram must come from our peer's address.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringyard_dataplane::drops::DropReason;

use crate::datagram::{Encapsulation, Refusal, Source};
use crate::minder::Alarm;
use crate::sys::resolve;

/// Bytes of padding, at most.
pub const OFFSET_MAX: u16 = 256;
/// L2TPv3's protocol number in IP.
pub(super) const PROTOCOL: u8 = 115;
/// The first word over UDP: a data message of version 3.
const FLAGS_AND_VERSION: [u8; 4] = [0, 3, 0, 0];
/// Everything but the padding.
const FIELDS_LEN_MAX: usize = 4 + 4 + 8 + 4;
/// An IPv4 header without options, and with as many as there can be.
const IP_LEN_MIN: usize = 20;
const IP_LEN_MAX: usize = 60;

/// What the two ends agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The session that we send to.
    pub tx_session: u32,
    /// The session that is ours.
    pub rx_session: u32,
    /// What proves that a datagram is the peer's.
    pub cookies: Option<Cookies>,
    /// Whether datagrams are numbered.
    pub counter: Counter,
    /// Bytes between the header and the frame, at most [`OFFSET_MAX`].
    pub offset: u16,
}

/// What carries the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// UDP.
    Udp,
    /// IPv4 itself.
    Ipv4,
    /// IPv6 itself.
    Ipv6,
}

/// A pair of cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookies {
    /// What we send; of a short one the low half.
    pub tx: u64,
    /// What we expect. One that does not fit a short cookie never comes.
    pub rx: u64,
    /// Whether they have 8 bytes on the wire, not 4.
    pub long: bool,
}

/// Whether datagrams are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// They have no number.
    Off,
    /// From 1 on.
    Counts,
    /// They have one that is always 0.
    Pinned,
}

/// Puts frames into datagrams and finds them there.
pub(super) struct Header {
    format: Format,
    carrier: Carrier,
    /// All that we send but the counter and the padding.
    fields: [u8; FIELDS_LEN_MAX],
    /// Bytes of `fields` with the counter, and with the padding too.
    fields_len: usize,
    len: usize,
    /// The number sent last. Written by whoever sends, under the queue's lock; so relaxed.
    count: AtomicU32,
    /// Who alone may send to us; `None`: the cookie says who may.
    peer: Option<IpAddr>,
    refusals: Arc<Refusals>,
}

impl Header {
    /// For the peer at `peer`.
    pub(super) fn new(format: Format, carrier: Carrier, peer: IpAddr, refusals: Arc<Refusals>) -> Header {
        let mut fields = [0; FIELDS_LEN_MAX];
        let mut fields_len = 0;
        let mut push = |bytes: &[u8]| {
            fields[fields_len..fields_len + bytes.len()].copy_from_slice(bytes);
            fields_len += bytes.len();
        };
        if carrier == Carrier::Udp {
            push(&FLAGS_AND_VERSION);
        }
        push(&format.tx_session.to_be_bytes());
        match format.cookies {
            None => {}
            Some(Cookies { tx, long: true, .. }) => push(&tx.to_be_bytes()),
            Some(Cookies { tx, long: false, .. }) => push(&(tx as u32).to_be_bytes()),
        }
        if format.counter != Counter::Off {
            push(&[0; 4]);
        }
        let len = fields_len + usize::from(format.offset.min(OFFSET_MAX));
        let one = !peer.is_multicast() && !peer.is_unspecified() && peer != IpAddr::from([255; 4]);
        let peer = (one && format.cookies.is_none()).then_some(peer);
        Header { format, carrier, fields, fields_len, len, count: AtomicU32::new(0), peer, refusals }
    }

    /// Where the header begins: behind what the kernel leaves of IP.
    fn start(&self, datagram: &[u8]) -> Option<usize> {
        if self.carrier != Carrier::Ipv4 {
            return Some(0);
        }
        let first = *datagram.first()?;
        let len = usize::from(first & 0x0f) * 4;
        (first >> 4 == 4 && len >= IP_LEN_MIN).then_some(len)
    }

    /// Whether the cookie at the front of `bytes`, which has it, is ours; it takes the same time wherever it differs.
    fn admits_cookie(&self, bytes: &[u8]) -> bool {
        let found = match self.format.cookies {
            None => return true,
            Some(Cookies { long: true, .. }) => bytes.first_chunk().map(|cookie| u64::from_be_bytes(*cookie)),
            Some(_) => bytes.first_chunk().map(|cookie| u32::from_be_bytes(*cookie).into()),
        };
        let expected = self.format.cookies.map_or(0, |cookies| cookies.rx);
        black_box(found.unwrap_or(!expected) ^ expected) == 0
    }

    fn find(&self, datagram: &[u8], source: Source<'_>) -> Result<usize, Reason> {
        let start = self.start(datagram).ok_or(Reason::Short)?;
        let header = datagram.get(start..).unwrap_or_default();
        if header.len() <= self.len {
            return Err(Reason::Short);
        }
        let session_at = if self.carrier == Carrier::Udp { FLAGS_AND_VERSION.len() } else { 0 };
        if !self.admits_cookie(&header[session_at + 4..]) {
            return Err(Reason::Cookie);
        }
        let session = header[session_at..].first_chunk().map(|session| u32::from_be_bytes(*session));
        if session != Some(self.format.rx_session) {
            return Err(Reason::Session);
        }
        if self.peer.is_some() && resolve::host_in(source.0) != self.peer {
            return Err(Reason::Source);
        }
        Ok(start + self.len)
    }
}

impl Encapsulation for Arc<Header> {
    const PREFIX_MAX: usize = IP_LEN_MAX + FIELDS_LEN_MAX + OFFSET_MAX as usize;
    const WANTS_SOURCE: bool = true;

    fn wrap(&self, prefix: &mut [u8]) -> usize {
        let (fields, padding) = prefix[..self.len].split_at_mut(self.fields_len);
        fields.copy_from_slice(&self.fields[..self.fields_len]);
        padding.fill(0);
        if self.format.counter == Counter::Counts {
            let count = self.count.load(Ordering::Relaxed).wrapping_add(1);
            self.count.store(count, Ordering::Relaxed);
            if let Some(field) = fields.last_chunk_mut() {
                *field = count.to_be_bytes();
            }
        }
        self.len
    }

    fn take_back(&self, frames: usize) {
        let count = self.count.load(Ordering::Relaxed).wrapping_sub(frames as u32);
        self.count.store(count, Ordering::Relaxed);
    }

    fn unwrap(&self, datagram: &[u8], source: Source<'_>) -> Result<usize, Refusal> {
        self.find(datagram, source).map_err(|reason| {
            self.refusals.count(reason);
            Refusal::Drop(match reason {
                Reason::Short => DropReason::Malformed,
                Reason::Cookie | Reason::Session | Reason::Source => DropReason::Stranger,
            })
        })
    }
}

/// Why a datagram is not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It ends before there is a frame.
    Short,
    /// Another cookie.
    Cookie,
    /// Another session.
    Session,
    /// From another address.
    Source,
}

/// How many datagrams were refused, by reason. Written by the worker that reads, relaxed: numbers for people.
pub(super) struct Refusals {
    counts: [AtomicU64; REASONS.len()],
    /// Raised by a refusal, for the port's thread to say so.
    pub(super) alarm: Alarm,
}

/// In the order of their counters, with their names.
const REASONS: [(Reason, &str); 4] = [
    (Reason::Short, "cut short"),
    (Reason::Cookie, "with another cookie"),
    (Reason::Session, "for another session"),
    (Reason::Source, "from another address"),
];

impl Refusals {
    pub(super) fn new(alarm: Alarm) -> Refusals {
        Refusals { counts: Default::default(), alarm }
    }

    #[cold]
    fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        if !self.alarm.is_raised() {
            self.alarm.raise();
        }
    }

    /// What was refused since `before`, in words, and what has been refused in all; the words are empty when that is
    /// nothing.
    pub(super) fn since(&self, before: Counts) -> (String, Counts) {
        let now: Counts = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        let parts = REASONS.iter().zip(now.iter().zip(before)).filter(|(_, (now, before))| **now != *before);
        let words: Vec<String> =
            parts.map(|((_, name), (now, before))| format!("{} {name}", now.wrapping_sub(before))).collect();
        (words.join(", "), now)
    }
}

/// Refused datagrams by reason.
pub(super) type Counts = [u64; REASONS.len()];

#[cfg(any(test, fuzzing))]
#[path = "header_fuzzing.rs"]
pub mod fuzzing;
#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;

//! The rings against hand-made and random guests.
//!
//! Where a [`World`] is logged, all that its guest did not write must be in the log when it ends.
//!
//! A [`World`] is a guest's memory with one ring in it: two regions that touch in guest addresses and not here, written
//! word by word as a guest would. What holds for both forms of a ring is compiled for each: [`split`], [`packed`].

mod exhaustive;
mod killed;
mod logged;
mod logged_packed;
mod logged_split;
mod packed;
mod pair;
mod split;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{
    DirtyLog, Fault, LOG_PAGE, Mapping, MemoryTable, Region, Ring, RingEnd, RingError, RingLayout,
    RingLogging, RingOptions, RingSignals, RingView,
};
use crate::drops::DropReason;
use crate::frame::{BurstScratch, Taken};
use crate::offload::Offloads;
use crate::port::{EgressScratch, IngressScratch, Tally};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const LOW: u64 = 0x1_0000;
const LOW_LEN: u64 = 0x2_0000;
/// The second region follows the first in guest addresses, and lies elsewhere in the file.
const HIGH: u64 = LOW + LOW_LEN;
const HIGH_LEN: u64 = 0x2_0000;
const HIGH_OFFSET: u64 = LOW_LEN + 0x8000;
const END: u64 = HIGH + HIGH_LEN;
/// Ring addresses are the front end's own.
const USER: u64 = 0x7f00_0000_0000;

const DESC: u64 = LOW;
const AVAIL: u64 = LOW + 0x1000;
const USED: u64 = LOW + 0x2000;
/// For indirect tables.
const TABLES: u64 = LOW + 0x3000;
/// For buffers.
const BUFFERS: u64 = LOW + 0x8000;

const OPTIONS: RingOptions = RingOptions {
    packed: false,
    in_order: false,
    event_idx: false,
    indirect: true,
    mergeable: true,
    version_1: true,
    send: Offloads::NONE,
    receive: Offloads::NONE,
};
const NET_HEADER: [u8; 12] = [0; 12];
/// Bytes of a log that covers all guest memory.
const LOG_LEN: usize = (END / LOG_PAGE).div_ceil(8) as usize;

struct World<const PACKED: bool, const LOGGED: bool = false> {
    mapping: Arc<Mapping>,
    file: OwnedFd,
    memory: Arc<MemoryTable>,
    view: Arc<RingView>,
    ring: Arc<Ring>,
    size: u16,
    posted: u16,
    /// Of a packed ring: the table from which chains are posted, as that of a split ring would be.
    table: Mutex<Vec<(u64, u32, u16, u16)>>,
    /// Of a packed ring: descriptors posted before each chain, and its id.
    chains: Vec<(u64, u16)>,
    /// Of a packed ring: descriptors posted.
    at: u64,
    /// Of a logged ring: what the guest wrote, and the log.
    written: Mapping,
    log: Mapping,
}

impl<const PACKED: bool, const LOGGED: bool> World<PACKED, LOGGED> {
    const IS_PACKED: bool = PACKED;

    fn new(size: u16) -> World<PACKED, LOGGED> {
        World::with(size, OPTIONS)
    }

    fn with(size: u16, options: RingOptions) -> World<PACKED, LOGGED> {
        World::telling(size, options, RingSignals::default())
    }

    fn telling(size: u16, options: RingOptions, signals: RingSignals) -> World<PACKED, LOGGED> {
        let (mapping, file) = Mapping::memfd("world", (HIGH_OFFSET + HIGH_LEN) as usize).unwrap();
        let mapping = Arc::new(mapping);
        let region = |guest_addr, len, offset| Region {
            guest_addr,
            user_addr: guest_addr + USER,
            len,
            offset,
            mapping: mapping.clone(),
        };
        let memory =
            MemoryTable::new(vec![region(LOW, LOW_LEN, 0), region(HIGH, HIGH_LEN, HIGH_OFFSET)]).unwrap();
        let (memory, options) = (Arc::new(memory), RingOptions { packed: PACKED, ..options });
        let mut view = RingView::new(memory.clone(), layout(size), options, signals).unwrap();
        let (log, log_file) = Mapping::memfd("log", LOG_LEN).unwrap();
        if LOGGED {
            let log = DirtyLog::new(Mapping::of_file(&log_file, LOG_LEN).unwrap(), 0, LOG_LEN as u64);
            let log = Arc::new(log.unwrap());
            view = view.logged(RingLogging { log, buffers: true, used: Some(USED), bell: None }).unwrap();
        }
        let ring = Arc::new(Ring::start(&view, None).unwrap());
        let table = Mutex::new(vec![(0, 0, 0, 0); usize::from(size)]);
        let (view, chains) = (Arc::new(view), Vec::new());
        let (written, _) = Mapping::memfd("written", mapping.len()).unwrap();
        World { mapping, file, memory, view, ring, size, posted: 0, table, chains, at: 0, written, log }
    }

    fn put(&self, addr: u64, bytes: &[u8]) {
        for (place, &byte) in (addr..).zip(bytes) {
            self.written.byte(offset(place)).store(byte, Ordering::Relaxed);
            self.mapping.byte(offset(place)).store(byte, Ordering::Release);
        }
    }

    fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let byte = |place| self.mapping.byte(offset(place)).load(Ordering::Acquire);
        (addr..addr + len as u64).map(byte).collect()
    }

    fn get_u16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.get(addr, 2).try_into().unwrap())
    }

    fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        if PACKED {
            self.table.lock().unwrap()[usize::from(index)] = (addr, len, flags, next);
            return;
        }
        self.describe_at(DESC + u64::from(index) * 16, addr, len, flags, next);
    }

    fn describe_at(&self, place: u64, addr: u64, len: u32, flags: u16, next: u16) {
        self.put(place, &addr.to_le_bytes());
        self.put(place + 8, &len.to_le_bytes());
        let (flags_at, next_at) = if PACKED { (14, 12) } else { (12, 14) };
        self.put(place + flags_at, &flags.to_le_bytes());
        self.put(place + next_at, &next.to_le_bytes());
    }

    /// Makes a head available.
    fn post(&mut self, head: u16) {
        if PACKED {
            return self.post_packed(head);
        }
        self.put(AVAIL + 4 + u64::from(self.posted % self.size) * 2, &head.to_le_bytes());
        self.posted = self.posted.wrapping_add(1);
        self.publish(self.posted);
    }

    /// Writes the chain of `head` to the next places of a packed ring, its first flags last. A chain that loops fills the
    /// ring.
    fn post_packed(&mut self, head: u16) {
        self.chains.push((self.at, head));
        self.posted = self.posted.wrapping_add(1);
        let (first, mut index, mut first_flags) = (self.at, head, 0);
        while self.at < first + u64::from(self.size) {
            let (addr, len, flags, next) = self.table.lock().unwrap()[usize::from(index)];
            let wrap = (self.at / u64::from(self.size)).is_multiple_of(2);
            let owned = flags | if wrap { 1 << 7 } else { 1 << 15 };
            let place = DESC + self.at % u64::from(self.size) * 16;
            self.put(place, &addr.to_le_bytes());
            self.put(place + 8, &len.to_le_bytes());
            self.put(place + 12, &head.to_le_bytes());
            if self.at == first {
                first_flags = owned;
            } else {
                self.put(place + 14, &owned.to_le_bytes());
            }
            self.at += 1;
            if flags & NEXT == 0 || flags & INDIRECT != 0 {
                break;
            }
            index = next;
        }
        self.put(DESC + first % u64::from(self.size) * 16 + 14, &first_flags.to_le_bytes());
    }

    fn publish(&self, index: u16) {
        self.put(AVAIL + 2, &index.to_le_bytes());
    }

    /// A net header and `frame` at `addr`, described whole by descriptor `index`, and posted.
    fn post_frame(&mut self, index: u16, addr: u64, frame: &[u8]) {
        self.post_frame_behind(index, addr, &NET_HEADER, frame);
    }

    fn post_frame_behind(&mut self, index: u16, addr: u64, net: &[u8; 12], frame: &[u8]) {
        self.put(addr, net);
        self.put(addr + 12, frame);
        self.describe(index, addr, 12 + frame.len() as u32, 0, 0);
        self.post(index);
    }

    fn ingress(&self) -> RingEnd {
        super::ingress(self.view.clone(), self.ring.clone(), 0, None)
    }

    fn poll(&self) -> Polled {
        self.poll_taking(Taken::ALL)
    }

    fn poll_taking(&self, taken: Taken) -> Polled {
        let mut scratch = IngressScratch::default();
        let mut frames = Vec::new();
        let gone = self.ingress().ingress.poll(&mut scratch, &mut |burst| {
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes).unwrap();
                frames.push(bytes);
            }
            taken
        });
        Polled { frames, drops: scratch.tally.drops, gone }
    }

    /// Sends frames of our own to the ring; how many were settled, and the tally.
    fn send(&self, frames: &[Vec<u8>]) -> (usize, Tally) {
        let mut burst = BurstScratch::default();
        let mut builder = burst.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        let mut scratch = EgressScratch::default();
        let egress = super::egress(self.view.clone(), self.ring.clone());
        let settled = egress.send(&mut scratch, &builder.burst(), &picks);
        (settled, scratch.tally)
    }

    /// Used entries so far: head and length.
    fn used(&self) -> Vec<(u32, u32)> {
        if PACKED {
            return self.used_packed();
        }
        let entry = |position: u16| {
            let bytes = self.get(USED + 4 + u64::from(position % self.size) * 8, 8);
            let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            (half(0), half(4))
        };
        (0..self.get_u16(USED + 2)).map(entry).collect()
    }

    /// Of a packed ring that has not gone round, used one by one.
    fn used_packed(&self) -> Vec<(u32, u32)> {
        assert!(self.at <= u64::from(self.size));
        let used = |&(at, _): &(u64, u16)| {
            let bytes = self.get(DESC + at * 16 + 8, 8);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let flags = half(6);
            let len = u32::from(half(0)) | u32::from(half(2)) << 16;
            let used = flags & 0x8080 == 0x8080;
            assert!(!used || flags & WRITE != 0 || len == 0);
            used.then_some((u32::from(half(4)), len))
        };
        self.chains.iter().map_while(used).collect()
    }

    fn fault(&self) -> Option<Fault> {
        self.ring.fault()
    }

    /// Guest addresses of the pages that the device wrote, as far as it shows.
    fn written_pages(&self) -> Vec<u64> {
        let differs = |&page: &u64| {
            let words = |mapping: &Mapping| {
                let words = mapping.words(offset(page), LOG_PAGE as usize / 8);
                words.iter().map(|word| word.load(Ordering::Acquire)).collect::<Vec<u64>>()
            };
            words(&self.mapping) != words(&self.written)
        };
        (LOW..END).step_by(LOG_PAGE as usize).filter(differs).collect()
    }

    /// Guest addresses of the pages that are in the log.
    fn logged_pages(&self) -> Vec<u64> {
        let is_set =
            |&page: &u64| self.log.byte(page as usize / 8).load(Ordering::Acquire) >> (page % 8) & 1 == 1;
        (0..LOG_LEN as u64 * 8).filter(is_set).map(|page| page * LOG_PAGE).collect()
    }
}

impl<const PACKED: bool, const LOGGED: bool> Drop for World<PACKED, LOGGED> {
    fn drop(&mut self) {
        if LOGGED && !std::thread::panicking() {
            let logged = self.logged_pages();
            let missed: Vec<u64> =
                self.written_pages().into_iter().filter(|page| !logged.contains(page)).collect();
            assert!(missed.is_empty(), "written and not logged: {missed:x?}");
        }
    }
}

/// Where each ring lies.
fn layout(size: u16) -> RingLayout {
    RingLayout { size, desc: DESC + USER, avail: AVAIL + USER, used: USED + USER }
}

fn offset(addr: u64) -> usize {
    assert!((LOW..END).contains(&addr), "{addr:#x} is no guest memory");
    (if addr < HIGH { addr - LOW } else { addr - HIGH + HIGH_OFFSET }) as usize
}

/// What one poll did.
struct Polled {
    frames: Vec<Vec<u8>>,
    drops: [u64; DropReason::COUNT],
    gone: usize,
}

impl Polled {
    fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

/// A frame that is like no other of a different `seed`.
fn frame(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

//! A front end that knows what the back end must think of it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ringyard_dataplane::ring::{DriverMemory, DriverOptions, DriverRing, Part};
use rustix::event::{EventfdFlags, eventfd};

use super::Bytes;
use crate::raw::*;
use crate::yard::until;

pub const RX: usize = 0;
pub const TX: usize = 1;

const SET_OWNER: u32 = 3;
const SET_VRING_ADDR: u32 = 9;
const GET_PROTOCOL_FEATURES: u32 = 15;
const RESET_DEVICE: u32 = 34;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;
const GET_STATUS: u32 = 40;
const REPLY_ACK: u64 = 1 << 3;

/// VERSION_1 and PROTOCOL_FEATURES: always.
const FEATURES: u64 = 1 << 32 | 1 << 30;
const MERGEABLE: u64 = 1 << 15;
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;

const MEMORY_LEN: usize = 0x1_0000;
/// Where rings, indirect tables and buffers are.
const RING_LEN: usize = 0x1000;
const TABLES: usize = 0x4000;
const TABLE_LEN: usize = 0x40;
const BUFFERS: usize = 0x8000;
const BUFFER_LEN: usize = 0x400;
/// Another region, far away.
const EXTRA: u64 = 0x9_0000_0000;
const EXTRA_LEN: u64 = 0x4000;

/// One of the two rings.
struct Side {
    driver: Option<DriverRing>,
    kick: OwnedFd,
    started: bool,
    enabled: bool,
    /// It broke, or what is in it is not known: nothing is promised of it until it is started anew.
    unsound: bool,
    /// Where the back end is to go on: the place in the available ring, or of a packed ring the descriptor and the wrap
    /// counter.
    position: u16,
}

/// A connection, what was said over it, and the memory behind it.
pub struct Peer {
    pub raw: Raw,
    pub file: OwnedFd,
    memory: Arc<DriverMemory>,
    sides: [Side; 2],
    features: u64,
    /// What it acknowledges of the protocol, if it does.
    protocol: Option<u64>,
    has_memory: bool,
    has_extra: bool,
    extra: OwnedFd,
    error: OwnedFd,
    /// Some ring is out of control, and may send anything.
    wild: bool,
}

impl Peer {
    pub fn connect(path: &Path, bytes: &mut Bytes<'_>) -> Peer {
        let side = || Side {
            driver: None,
            kick: event(),
            started: false,
            enabled: false,
            unsound: false,
            position: 0,
        };
        let memory = Arc::new(DriverMemory::new("front end", MEMORY_LEN).unwrap());
        let mut peer = Peer {
            raw: Raw::connect(path),
            file: memory.file().try_clone().unwrap(),
            memory,
            sides: [side(), side()],
            features: 0,
            protocol: None,
            has_memory: false,
            has_extra: false,
            extra: memfd("extra", EXTRA_LEN),
            error: event(),
            wild: false,
        };
        // Now and then nothing is said that is always said.
        if bytes.below(8) > 0 {
            peer.say(SET_OWNER, &[], &[]);
            peer.negotiate(bytes);
            peer.set_memory();
        }
        peer
    }

    /// Whether refusals are told.
    pub fn acknowledges(&self) -> bool {
        self.protocol.is_some_and(|protocol| protocol & REPLY_ACK != 0)
    }

    /// Has acknowledged what comes with protocol features.
    pub fn has_negotiated(&self) -> bool {
        self.protocol.is_some()
    }

    pub fn has_started(&self) -> bool {
        self.sides.iter().any(|side| side.started)
    }

    /// The ring is started and does as it is told.
    pub fn is_sound(&self, ring: usize) -> bool {
        self.sides[ring].started && !self.sides[ring].unsound
    }

    /// And frames pass.
    pub fn is_live(&self, ring: usize) -> bool {
        self.is_sound(ring) && self.sides[ring].enabled
    }

    /// Whether frames may come from here that nobody meant to send.
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// Says something that cannot be refused.
    #[track_caller]
    fn say(&mut self, request: u32, body: &[u8], fds: &[&OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        if self.acknowledges() {
            assert_eq!(self.raw.ask(request, body, &fds), 0, "request {request} with {body:x?}");
        } else {
            self.raw.send(request, NEED_REPLY, body, &fds);
        }
    }

    /// The connection goes on, and whatever was said before has been served.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.raw.assert_alive();
    }

    #[track_caller]
    pub fn assert_closed(&mut self) {
        self.raw.assert_closed();
    }

    /// Acknowledges some features, and perhaps those of the protocol; the form of started rings stays.
    pub fn negotiate(&mut self, bytes: &mut Bytes<'_>) {
        self.raw.send(GET_FEATURES, 0, &[], &[]);
        let offered = self.raw.reply(GET_FEATURES);
        let choices = [MERGEABLE, INDIRECT, EVENT_IDX, PACKED, IN_ORDER];
        let chosen = choices.into_iter().filter(|_| bytes.chance()).fold(FEATURES, |all, bit| all | bit);
        assert_eq!(offered & chosen, chosen, "all of it is offered");
        if !self.has_started() && self.features != chosen {
            // What is in a ring means something else now.
            self.sides.iter_mut().for_each(|side| side.driver = None);
            self.features = chosen;
        }
        let features = self.features;
        self.say(SET_FEATURES, &features.to_ne_bytes(), &[]);
        self.raw.send(GET_PROTOCOL_FEATURES, 0, &[], &[]);
        let offered = self.raw.reply(GET_PROTOCOL_FEATURES);
        assert_eq!(offered & PROTOCOL, PROTOCOL);
        let protocol = if bytes.below(4) > 0 { PROTOCOL } else { PROTOCOL & !REPLY_ACK };
        // By the old ones it is said, by the new ones it is answered.
        self.raw.send(SET_PROTOCOL_FEATURES, 0, &protocol.to_ne_bytes(), &[]);
        self.protocol = Some(protocol);
    }

    /// The whole memory table; a second time it changes nothing.
    pub fn set_memory(&mut self) {
        let region = [DriverMemory::GUEST_ADDR, MEMORY_LEN as u64, DriverMemory::USER_ADDR, 0];
        let file = self.file.try_clone().unwrap();
        self.say(SET_MEM_TABLE, &regions(&[region]), &[&file]);
        (self.has_memory, self.has_extra) = (true, false);
    }

    /// Adds a region, or takes it away.
    pub fn toggle_extra_region(&mut self) {
        if !self.has_memory || !self.has_negotiated() {
            return;
        }
        let region = [0, EXTRA, EXTRA_LEN, EXTRA, 0].map(u64::to_ne_bytes).concat();
        let file = self.extra.try_clone().unwrap();
        if self.has_extra {
            self.say(REM_MEM_REG, &region, &[]);
        } else {
            self.say(ADD_MEM_REG, &region, &[&file]);
        }
        self.has_extra = !self.has_extra;
    }

    /// Starts a ring: from its beginning, or where it stopped if what is in it is known.
    pub fn start_ring(&mut self, ring: usize, bytes: &mut Bytes<'_>) {
        let packed = self.features & PACKED != 0;
        if self.features == 0 || !self.has_memory || self.sides[ring].started {
            return;
        }
        let goes_on = self.sides[ring].driver.is_some() && !self.sides[ring].unsound && bytes.chance();
        if !goes_on {
            self.make_ring(ring, packed, bytes);
        }
        let side = &self.sides[ring];
        let layout = side.driver.as_ref().unwrap().layout();
        let (position, index) = (u32::from(side.position), ring as u32);
        let base = if packed { position | position << 16 } else { position };
        let mut address = state(index, 0);
        let parts = [layout.desc, layout.used, layout.avail, 0];
        address.extend(parts.iter().flat_map(|part| part.to_ne_bytes()));
        let (call, error) = (event(), self.error.try_clone().unwrap());
        let descriptor = u64::from(index).to_ne_bytes();
        // In any order, and some of it twice.
        let first = bytes.below(5);
        for number in 0..5 + bytes.below(2) {
            match (first + number) % 5 {
                0 => self.say(SET_VRING_NUM, &state(index, layout.size.into()), &[]),
                1 => self.say(SET_VRING_BASE, &state(index, base), &[]),
                2 => self.say(SET_VRING_ADDR, &address, &[]),
                3 => self.say(SET_VRING_CALL, &descriptor, &[&call]),
                _ => self.say(SET_VRING_ERR, &descriptor, &[&error]),
            }
        }
        let kick = self.sides[ring].kick.try_clone().unwrap();
        self.say(SET_VRING_KICK, &descriptor, &[&kick]);
        self.sides[ring].started = true;
        self.post();
    }

    fn make_ring(&mut self, ring: usize, packed: bool, bytes: &mut Bytes<'_>) {
        let size = if packed { 3 + bytes.below(3) as u16 } else { 4 };
        let has = |bit: u64| self.features & bit != 0;
        let options = DriverOptions { packed, event_idx: has(EVENT_IDX), in_order: has(IN_ORDER) };
        self.memory.write(ring * RING_LEN, &[0; RING_LEN]);
        let driver = DriverRing::new(self.memory.clone(), ring * RING_LEN, size, options).unwrap();
        let side = &mut self.sides[ring];
        (side.driver, side.unsound) = (Some(driver), false);
        side.position = if packed { 1 << 15 } else { 0 };
        self.wild = self.sides.iter().any(|side| side.started && side.unsound) && self.wild;
    }

    /// Stops a ring, which says where it got to.
    pub fn stop_ring(&mut self, ring: usize) {
        if !self.sides[ring].started {
            return;
        }
        self.raw.send(GET_VRING_BASE, 0, &state(ring as u32, 0), &[]);
        let reply = self.raw.reply(GET_VRING_BASE);
        let (index, base) = (reply as u32, (reply >> 32) as u32);
        assert_eq!(index, ring as u32);
        let side = &mut self.sides[ring];
        side.started = false;
        if !side.unsound {
            let position = u32::from(side.position);
            let packed = self.features & PACKED != 0;
            assert_eq!(base, if packed { position | position << 16 } else { position }, "where it stopped");
        }
    }

    pub fn enable(&mut self, ring: usize, enable: bool) {
        self.say(SET_VRING_ENABLE, &state(ring as u32, enable.into()), &[]);
        self.sides[ring].enabled = enable;
    }

    /// A status is what it was set to.
    pub fn echo_status(&mut self, bytes: &mut Bytes<'_>) {
        if self.has_negotiated() {
            let status = 1 + bytes.below(255) as u64;
            self.say(SET_STATUS, &status.to_ne_bytes(), &[]);
            self.raw.send(GET_STATUS, 0, &[], &[]);
            assert_eq!(self.raw.reply(GET_STATUS), status);
        }
    }

    /// Resets the device in one way or another; its rings stop.
    pub fn reset(&mut self, bytes: &mut Bytes<'_>) {
        if !self.has_negotiated() {
            return;
        }
        if bytes.chance() {
            self.say(RESET_DEVICE, &[], &[]);
        } else {
            self.say(SET_STATUS, &0u64.to_ne_bytes(), &[]);
        }
        self.assert_alive();
        self.features = 0;
        for side in &mut self.sides {
            (side.started, side.enabled, side.driver) = (false, false, None);
        }
    }

    /// Posts all receive buffers that are free.
    fn post(&mut self) {
        if !self.is_sound(RX) {
            return;
        }
        let Some(driver) = &mut self.sides[RX].driver else { return };
        while let Some(head) = driver.next_head() {
            driver.add(Part { offset: buffer(RX, head), len: BUFFER_LEN as u32, writable: true });
        }
        driver.publish();
    }

    /// The frame that an innocent sent comes, and no other; if the ring is not there for it, none.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.is_live(RX) {
            return;
        }
        let driver = self.sides[RX].driver.as_mut().unwrap();
        let mut used = None;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while used.is_none() {
            used = driver.collect().unwrap();
            assert!(used.is_some() || std::time::Instant::now() < deadline, "no frame for the peer");
            std::thread::yield_now();
        }
        let used = used.unwrap();
        let mut received = vec![0; used.written.unwrap() as usize];
        self.memory.read(buffer(RX, used.head), &mut received);
        assert!(self.wild || received[12..] == *bytes, "the peer's frame is {received:?}");
        self.advance(RX, 1);
        self.post();
    }

    /// Sends a frame in one buffer, in two, or by a table, and waits until it is used.
    pub fn send(&mut self, frame: &[u8], bytes: &mut Bytes<'_>) {
        let shape = bytes.below(3);
        let indirect = self.features & INDIRECT != 0;
        let driver = self.sides[TX].driver.as_mut().unwrap();
        let head = driver.next_head().unwrap();
        let offset = buffer(TX, head);
        self.memory.write(offset, &[&[0; 12][..], frame].concat());
        let cut = 12 + bytes.below(frame.len());
        let part =
            |from: usize, to: usize| Part { offset: offset + from, len: (to - from) as u32, writable: false };
        let parts = [part(0, cut), part(cut, 12 + frame.len())];
        let slots = match shape {
            0 => driver.add_chain(&parts).map(|_| 2),
            1 if indirect => driver.add_indirect(TABLES + usize::from(head) * TABLE_LEN, &parts).map(|_| 1),
            _ => driver.add(part(0, 12 + frame.len())).map(|_| 1),
        };
        self.kick_and_collect();
        self.advance(TX, slots.unwrap());
    }

    fn kick_and_collect(&mut self) {
        let side = &mut self.sides[TX];
        let driver = side.driver.as_mut().unwrap();
        driver.publish();
        rustix::io::write(&side.kick, &1u64.to_ne_bytes()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while driver.collect().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "what was sent is not used");
            std::thread::yield_now();
        }
    }

    /// One more chain, of so many descriptors, was used.
    fn advance(&mut self, ring: usize, slots: u16) {
        let packed = self.features & PACKED != 0;
        let side = &mut self.sides[ring];
        let size = side.driver.as_ref().unwrap().size();
        if !packed {
            side.position = side.position.wrapping_add(1);
            return;
        }
        let (index, wrap) = ((side.position & 0x7fff) + slots, side.position & 0x8000);
        side.position = if index >= size { (index - size) | (wrap ^ 0x8000) } else { index | wrap };
    }

    /// Breaks a rule, if there is a simple way to; whether it did.
    pub fn breaks(&mut self, ring: usize, bytes: &mut Bytes<'_>) -> bool {
        let packed = self.features & PACKED != 0;
        let _ = rustix::io::read(&self.error, &mut [0; 8]);
        let side = &mut self.sides[ring];
        let driver = side.driver.as_mut().unwrap();
        let layout = driver.layout();
        let offset = |addr: u64| (addr - DriverMemory::USER_ADDR) as usize;
        let memory = &self.memory;
        match (packed, ring) {
            (false, _) if ring == RX || bytes.chance() => {
                let jump = side.position.wrapping_add(layout.size + 1 + bytes.below(200) as u16);
                memory.write(offset(layout.avail) + 2, &jump.to_le_bytes());
            }
            (_, TX) => {
                let head = driver.next_head().unwrap();
                driver.add(Part { offset: buffer(TX, head), len: 100, writable: false });
                let at = if packed { side.position & 0x7fff } else { head };
                memory.write_u64(offset(layout.desc) + 16 * usize::from(at), EXTRA - 8);
                driver.publish();
            }
            _ => return false,
        }
        side.unsound = true;
        rustix::io::write(&side.kick, &1u64.to_ne_bytes()).unwrap();
        true
    }

    /// The back end said over the error descriptor that a ring broke.
    #[track_caller]
    pub fn assert_told_of_fault(&self) {
        until("word of a broken ring", || rustix::io::read(&self.error, &mut [0; 8]).is_ok());
    }

    /// Writes anything into the rings while they are served.
    pub fn scribble(&mut self, bytes: &mut Bytes<'_>) {
        self.wild = true;
        self.sides.iter_mut().for_each(|side| side.unsound = true);
        for _ in 0..=bytes.below(8) {
            let ring = bytes.below(2);
            let layout = self.sides[ring].driver.as_ref().map(DriverRing::layout).unwrap_or_default();
            let parts = [layout.desc, layout.avail, layout.used, layout.desc + 16];
            let part = parts[bytes.below(4)].saturating_sub(DriverMemory::USER_ADDR) as usize;
            let at = part + 8 * bytes.below(10);
            if at + 8 <= 2 * RING_LEN {
                self.memory.write_u64(at, scribbled(bytes));
            }
            let _ = rustix::io::write(&self.sides[ring].kick, &1u64.to_ne_bytes());
        }
    }

    /// Adds a region whose file can be truncated, does that, and has the switch read from it.
    pub fn send_from_a_truncated_file(&mut self) {
        const ADDR: u64 = 0xa_0000_0000;
        let file = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, EXTRA_LEN).unwrap();
        let main = [DriverMemory::GUEST_ADDR, MEMORY_LEN as u64, DriverMemory::USER_ADDR, 0];
        let table = regions(&[main, [ADDR, EXTRA_LEN, ADDR, 0]]);
        let own = self.file.try_clone().unwrap();
        self.say(SET_MEM_TABLE, &table, &[&own, &file]);
        self.assert_alive();
        rustix::fs::ftruncate(&file, 0).unwrap();
        let side = &mut self.sides[TX];
        let driver = side.driver.as_mut().unwrap();
        let head = driver.next_head().unwrap();
        driver.add(Part { offset: buffer(TX, head), len: 100, writable: false });
        let at = if self.features & PACKED != 0 { side.position & 0x7fff } else { head };
        let desc = (driver.layout().desc - DriverMemory::USER_ADDR) as usize;
        self.memory.write_u64(desc + 16 * usize::from(at), ADDR);
        driver.publish();
        rustix::io::write(&side.kick, &1u64.to_ne_bytes()).unwrap();
    }
}

/// Eight bytes that may mean something to a ring: an address near the buffers, a length, flags.
fn scribbled(bytes: &mut Bytes<'_>) -> u64 {
    match bytes.below(4) {
        0 => DriverMemory::GUEST_ADDR + BUFFERS as u64 + (bytes.word() & 0x7fff),
        1 => bytes.word(),
        2 => (bytes.word() & 0x3ff) | (bytes.word() & 0x8087_0007) << 32,
        _ => bytes.word() & 0x7_0007_0007_0007,
    }
}

fn buffer(ring: usize, head: u16) -> usize {
    BUFFERS + (ring * 16 + usize::from(head)) * BUFFER_LEN
}

pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

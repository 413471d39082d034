//! Guests with packed rings: dataplane's own driver ends, behind the `vhost` crate's front end.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ringyard_dataplane::ring::{DriverMemory, DriverOptions, DriverRing, Part};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::{self, FEATURES, Guest, RX, TX, frame};
use crate::raw::{
    GET_VRING_BASE, Raw, SET_FEATURES, SET_STATUS, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_NUM, state,
};
use crate::yard::{Yard, until};

const RING_PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;
const MEMORY_LEN: usize = 0x10_0000;
const RING_LEN: usize = 0x1000;
const BUFFERS: usize = 0x1_0000;
const BUFFER_LEN: usize = 0x1000;

pub struct PackedGuest {
    pub frontend: Frontend,
    socket: UnixStream,
    memory: Arc<DriverMemory>,
    rings: [DriverRing; 2],
    pub kicks: [EventFd; 2],
    options: DriverOptions,
    size: u16,
}

impl PackedGuest {
    fn start(yard: &Yard, port: usize, size: u16, in_order: bool) -> PackedGuest {
        PackedGuest::start_over(UnixStream::connect(yard.path(port)).unwrap(), size, in_order)
    }

    pub fn start_over(socket: UnixStream, size: u16, in_order: bool) -> PackedGuest {
        let mut guest = PackedGuest::over(socket, size, in_order);
        guest.start_rings();
        guest
    }

    /// Without rings yet.
    pub fn over(socket: UnixStream, size: u16, in_order: bool) -> PackedGuest {
        let frontend = negotiate(&socket, in_order);
        let memory = Arc::new(DriverMemory::new("guest", MEMORY_LEN).unwrap());
        let options = DriverOptions { packed: true, event_idx: false, in_order };
        let rings = rings(&memory, size, options);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let kicks = [event(), event()];
        let guest = PackedGuest { frontend, socket, memory, rings, kicks, options, size };
        guest.frontend.set_mem_table(&[guest.region()]).unwrap();
        guest
    }

    /// The guest and its rings as they are, over a new connection, on which nothing is started yet.
    pub fn reconnect(&mut self, socket: UnixStream) {
        self.frontend = negotiate(&socket, self.options.in_order);
        self.socket = socket;
        self.frontend.set_mem_table(&[self.region()]).unwrap();
    }

    /// Both rings from their beginnings.
    pub fn start_rings(&mut self) {
        self.memory.write(0, &[0; 2 * RING_LEN]);
        self.rings = rings(&self.memory, self.size, self.options);
        self.post();
        self.kick_rings();
    }

    /// Has both rings started, at their beginnings as far as the front end knows.
    pub fn kick_rings(&mut self) {
        for ring in [RX, TX] {
            self.set_up(ring, 1 << 15);
            self.frontend.set_vring_kick(ring, &self.kicks[ring]).unwrap();
            self.frontend.set_vring_enable(ring, true).unwrap();
        }
    }

    pub fn set_up(&self, ring: usize, base: u16) {
        guest::set_up(&self.frontend, ring, self.rings[ring].layout(), base);
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: DriverMemory::GUEST_ADDR,
            memory_size: MEMORY_LEN as u64,
            userspace_addr: DriverMemory::USER_ADDR,
            mmap_offset: 0,
            mmap_handle: self.memory.file().as_raw_fd(),
        }
    }

    /// Posts all receive buffers that are free.
    fn post(&mut self) {
        while let Some(head) = self.rings[RX].next_head() {
            self.rings[RX].add(Part { offset: buffer(RX, head), len: BUFFER_LEN as u32, writable: true });
        }
        self.rings[RX].publish();
    }

    /// Whether a frame can be sent in two descriptors.
    pub fn has_room(&mut self) -> bool {
        while self.rings[TX].collect().unwrap().is_some() {}
        self.rings[TX].room() > 1
    }

    /// Whether all that was sent is given back.
    pub fn is_idle(&mut self) -> bool {
        self.has_room() && self.rings[TX].room() == usize::from(self.size)
    }

    /// Sends a frame in two descriptors, if the ring has them, and kicks.
    pub fn send(&mut self, frame: &[u8]) {
        while self.rings[TX].collect().unwrap().is_some() {}
        let offset = buffer(TX, self.rings[TX].next_head().expect("room"));
        self.memory.write(offset, &[&[0; 12][..], frame].concat());
        let parts = [(offset, 20), (offset + 20, frame.len() as u32 - 8)];
        let parts = parts.map(|(offset, len)| Part { offset, len, writable: false });
        if self.rings[TX].room() > 1 {
            self.rings[TX].add_chain(&parts);
        } else {
            self.rings[TX].add(Part { len: 12 + frame.len() as u32, ..parts[0] });
        }
        self.rings[TX].publish();
        self.kicks[TX].write(1).unwrap();
    }

    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let used = self.rings[RX].collect().unwrap()?;
        let mut bytes = vec![0; used.written.unwrap() as usize];
        self.memory.read(buffer(RX, used.head), &mut bytes);
        self.post();
        Some(bytes.split_off(12))
    }

    #[track_caller]
    pub fn expect(&mut self, frame: &[u8]) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            if let Some(received) = self.receive() {
                return assert_eq!(received, frame);
            }
            assert!(std::time::Instant::now() < deadline, "no frame");
            std::thread::yield_now();
        }
    }

    fn raw(&self) -> Raw {
        Raw::over(self.socket.try_clone().unwrap())
    }

    /// Stops a ring; where it got to, all 32 bits of it.
    fn base(&self, ring: usize) -> u32 {
        let mut raw = self.raw();
        raw.send(GET_VRING_BASE, 0, &state(ring as u32, 0), &[]);
        (raw.reply(GET_VRING_BASE) >> 32) as u32
    }
}

fn negotiate(socket: &UnixStream, in_order: bool) -> Frontend {
    let mut frontend = Frontend::from_stream(socket.try_clone().unwrap(), 2);
    frontend.set_owner().unwrap();
    let features = FEATURES | RING_PACKED | if in_order { IN_ORDER } else { 0 };
    assert_eq!(frontend.get_features().unwrap() & features, features);
    frontend.set_features(features).unwrap();
    frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::STATUS
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    frontend.set_protocol_features(wanted).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend
}

fn rings(memory: &Arc<DriverMemory>, size: u16, options: DriverOptions) -> [DriverRing; 2] {
    [RX, TX].map(|ring| DriverRing::new(memory.clone(), ring * RING_LEN, size, options).unwrap())
}

fn buffer(ring: usize, head: u16) -> usize {
    BUFFERS + (ring * 64 + usize::from(head)) * BUFFER_LEN
}

#[test]
fn frames_cross_between_packed_and_split_rings() {
    for (size, in_order) in [(16, false), (5, false), (7, true), (1, true)] {
        let yard = Yard::new(2, 1);
        let mut a = PackedGuest::start(&yard, 0, size, in_order);
        let mut b = Guest::start(&yard.path(1));
        for round in 0..100 {
            let len = 60 + 14 * usize::from(round);
            a.send(&frame(1, round, len));
            b.expect(&frame(1, round, len));
            b.send(&frame(2, round, len));
            a.expect(&frame(2, round, len));
            // The worker writes the used descriptor after the frame is out.
            until("the buffer is back", || yard.counters(0).ingress.frames == u64::from(round) + 1);
        }
        let counters = yard.counters(0);
        assert_eq!((counters.ingress.frames, counters.egress.frames), (100, 100), "{size}");
    }
}

#[test]
fn stopped_packed_ring_says_where_it_got_to_in_both_halves_and_goes_on_from_there() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::start(&yard, 0, 8, false);
    let mut b = Guest::start(&yard.path(1));
    for fill in 0..3 {
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
    }
    assert_eq!(a.base(TX), 0x8006_8006, "three frames in two descriptors each");
    assert_eq!(a.base(TX), 0x8006_8006, "twice");
    let mut raw = a.raw();
    // The upper half as QEMU sends it, and as DPDK does.
    for (fill, upper, base) in [(3, 0x8006_0000, 0x8006), (4, 0, 0x0000)] {
        a.set_up(TX, 0);
        assert_eq!(raw.ask(SET_VRING_BASE, &state(TX as u32, upper | base), &[]), 0);
        a.frontend.set_vring_kick(TX, &a.kicks[TX]).unwrap();
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
        let next = if base == 0x8006 { 0 } else { 0x0002_0002 };
        assert_eq!(a.base(TX), next, "over the end, the wrap counter turned");
    }
}

#[test]
fn packed_rings_may_have_any_size_and_split_ones_may_not() {
    let yard = Yard::new(1, 1);
    let guest = PackedGuest::start(&yard, 0, 4, false);
    let mut raw = guest.raw();
    assert_eq!(guest.base(RX), 0x8000_8000);
    for (size, refused) in [(5, 0), (32_768, 0), (0, 1), (32_769, 1), (65_536 + 5, 1)] {
        assert_eq!(raw.ask(SET_VRING_NUM, &state(RX as u32, size), &[]), refused, "{size}");
    }
    assert_eq!(raw.ask(SET_VRING_NUM, &state(RX as u32, 4), &[]), 0);
    assert_eq!(raw.ask(SET_VRING_BASE, &state(RX as u32, 4 | 1 << 15), &[]), 0);
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let kick = RX as u64;
    let refused = raw.ask(SET_VRING_KICK, &kick.to_ne_bytes(), &[event.as_fd()]);
    assert_eq!(refused, 1, "a ring of 4 cannot go on at its fifth descriptor");
    assert!(guest.base(TX) != 0);
    assert_eq!(raw.ask(SET_FEATURES, &FEATURES.to_ne_bytes(), &[]), 0);
    assert_eq!(raw.ask(SET_VRING_NUM, &state(RX as u32, 5), &[]), 1, "no packed rings any more");
    assert_eq!(raw.ask(SET_VRING_BASE, &state(RX as u32, 0x8000_8000), &[]), 1);
}

#[test]
fn p22_started_rings_do_not_change_their_form() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::start(&yard, 0, 8, false);
    let mut b = Guest::start(&yard.path(1));
    let mut raw = a.raw();
    assert_eq!(raw.ask(SET_FEATURES, &FEATURES.to_ne_bytes(), &[]), 1, "split");
    assert_eq!(raw.ask(SET_FEATURES, &(FEATURES | RING_PACKED).to_ne_bytes(), &[]), 0, "as they are");
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
}

#[test]
fn broken_packed_ring_stops_alone_until_it_is_started_again() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::start(&yard, 0, 8, false);
    let mut b = Guest::start(&yard.path(1));
    a.rings[TX].add(Part { offset: MEMORY_LEN, len: 100, writable: false });
    a.rings[TX].publish();
    a.kicks[TX].write(1).unwrap();
    until("the ring is out of service", || yard.attachment(0).ingress.is_empty());
    b.send(&frame(2, 1, 60));
    a.expect(&frame(2, 1, 60));
    assert_eq!([RX, TX].map(|ring| a.base(ring))[RX], 0x8001_8001);
    a.start_rings();
    a.send(&frame(1, 2, 60));
    b.expect(&frame(1, 2, 60));
}

#[test]
fn base_of_a_packed_ring_can_be_asked_for_after_a_status_of_zero() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::start(&yard, 0, 8, true);
    let mut b = Guest::start(&yard.path(1));
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
    let mut raw = a.raw();
    assert_eq!(raw.ask(SET_STATUS, &0u64.to_ne_bytes(), &[]), 0);
    assert_eq!(a.base(TX), 0x8002_8002, "the features are gone, the form of the ring is not");
}

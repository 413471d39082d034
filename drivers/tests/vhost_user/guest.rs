//! A guest with one queue pair: hand-made rings in a memory file, behind the `vhost` crate's front end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringyard_dataplane::ring::{Mapping, RingLayout};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::yard::until;

pub const RX: usize = 0;
pub const TX: usize = 1;
/// Entries of each ring.
pub const SIZE: u16 = 16;
/// VERSION_1, MRG_RXBUF and PROTOCOL_FEATURES.
pub const FEATURES: u64 = 1 << 32 | 1 << 15 | 1 << 30;
pub const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;
const LEN: usize = 0x2_0000;
const AVAIL: usize = 0x400;
const USED: usize = 0x800;
const BUFFERS: usize = 0x4000;
const BUFFER_LEN: usize = 0x800;

/// Says where a ring lies and where it goes on.
pub fn set_up(frontend: &Frontend, ring: usize, layout: RingLayout, base: u16) {
    let config = VringConfigData {
        queue_max_size: layout.size,
        queue_size: layout.size,
        flags: 0,
        desc_table_addr: layout.desc,
        avail_ring_addr: layout.avail,
        used_ring_addr: layout.used,
        log_addr: None,
    };
    frontend.set_vring_num(ring, layout.size).unwrap();
    frontend.set_vring_base(ring, base).unwrap();
    frontend.set_vring_addr(ring, &config).unwrap();
}

pub struct Guest {
    pub frontend: Frontend,
    /// The front end's socket, for what it cannot say.
    pub socket: UnixStream,
    memory: Mapping,
    file: OwnedFd,
    pub kicks: [EventFd; 2],
    pub calls: [EventFd; 2],
    pub error: EventFd,
    avail: [u16; 2],
    seen: u16,
}

impl Guest {
    /// Connects and starts both rings, the receive ring full of buffers, both enabled.
    pub fn start(path: &Path) -> Guest {
        Guest::start_over(UnixStream::connect(path).unwrap())
    }

    /// The same over an open connection.
    pub fn start_over(socket: UnixStream) -> Guest {
        let mut guest = Guest::over(socket);
        guest.start_rings();
        guest.enable(true);
        guest
    }

    /// Connects and negotiates.
    pub fn connect(path: &Path) -> Guest {
        Guest::over(UnixStream::connect(path).unwrap())
    }

    pub fn over(socket: UnixStream) -> Guest {
        let mut frontend = Frontend::from_stream(socket.try_clone().unwrap(), 2);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap() & FEATURES, FEATURES);
        frontend.set_features(FEATURES).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::RARP
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::STATUS;
        assert!(protocol.contains(wanted));
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let (memory, file) = Mapping::memfd("guest", LEN).unwrap();
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let guest = Guest {
            frontend,
            socket,
            memory,
            file,
            kicks: [event(), event()],
            calls: [event(), event()],
            error: event(),
            avail: [0; 2],
            seen: 0,
        };
        guest.frontend.set_mem_table(&[guest.region()]).unwrap();
        guest
    }

    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: LEN as u64,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Both rings from their beginnings.
    pub fn start_rings(&mut self) {
        self.memory.words(0, 0x2000 / 8).iter().for_each(|word| word.store(0, Ordering::SeqCst));
        (self.avail, self.seen) = ([0; 2], 0);
        for slot in 0..SIZE {
            self.post(RX, slot, BUFFER_LEN as u32, 2);
        }
        for ring in [RX, TX] {
            self.set_up(ring, 0);
            self.frontend.set_vring_kick(ring, &self.kicks[ring]).unwrap();
            self.frontend.set_vring_call(ring, &self.calls[ring]).unwrap();
            self.frontend.set_vring_err(ring, &self.error).unwrap();
        }
    }

    /// Says where a ring lies and where it goes on.
    pub fn set_up(&self, ring: usize, base: u16) {
        set_up(&self.frontend, ring, self.layout(ring), base);
    }

    /// Where a ring lies.
    pub fn layout(&self, ring: usize) -> RingLayout {
        let at = USER + (ring * 0x1000) as u64;
        RingLayout { size: SIZE, desc: at, avail: at + AVAIL as u64, used: at + USED as u64 }
    }

    /// Where a ring's used part lies in guest memory.
    pub fn used_at(&self, ring: usize) -> usize {
        ring * 0x1000 + USED
    }

    pub fn enable(&mut self, enable: bool) {
        for ring in [RX, TX] {
            self.frontend.set_vring_enable(ring, enable).unwrap();
        }
    }

    /// Whether a frame can be sent.
    pub fn has_room(&self) -> bool {
        self.avail[TX].wrapping_sub(self.used(TX)) < SIZE
    }

    /// Sends a frame and kicks.
    pub fn send(&mut self, frame: &[u8]) {
        let slot = self.avail[TX] % SIZE;
        let mut bytes = vec![0; 12];
        bytes.extend(frame);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let words = self.memory.words(buffer(TX, slot), bytes.len() / 8);
        for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
        }
        self.post(TX, slot, 12 + frame.len() as u32, 0);
        self.kicks[TX].write(1).unwrap();
    }

    /// Whether a frame waits.
    pub fn has_frame(&self) -> bool {
        self.used(RX) != self.seen
    }

    /// The next frame, if it is there; its buffer is posted again.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        if !self.has_frame() {
            return None;
        }
        let entry = usize::from(self.seen % SIZE);
        let used = self.memory.words(USED, usize::from(SIZE) + 1);
        let slot = (used[entry].load(Ordering::Acquire) >> 32) as u16;
        let len = used[entry + 1].load(Ordering::Acquire) as u32 as usize;
        let words = self.memory.words(buffer(RX, slot), len.div_ceil(8));
        let bytes: Vec<u8> =
            words.iter().flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()).collect();
        self.seen = self.seen.wrapping_add(1);
        self.post(RX, slot, BUFFER_LEN as u32, 2);
        Some(bytes[12..len].to_vec())
    }

    /// The next frame, which must come soon.
    #[track_caller]
    pub fn expect(&mut self, frame: &[u8]) {
        until("a frame", || self.has_frame());
        assert_eq!(self.receive().as_deref(), Some(frame));
    }

    /// A ring's used index.
    pub fn used(&self, ring: usize) -> u16 {
        (self.memory.words(ring * 0x1000 + USED, 1)[0].load(Ordering::Acquire) >> 16) as u16
    }

    /// Moves the available index of a ring by `count` without posting anything.
    pub fn jump(&mut self, ring: usize, count: u16) {
        self.avail[ring] = self.avail[ring].wrapping_add(count);
        self.publish(ring);
        self.kicks[ring].write(1).unwrap();
    }

    /// Whether a call came within a second.
    pub fn called(&self, ring: usize) -> bool {
        (0..1000).any(|_| {
            let called = self.calls[ring].read().is_ok();
            if !called {
                std::thread::sleep(Duration::from_millis(1));
            }
            called
        })
    }

    /// Sends `len` bytes that lie at `addr`, net header first, and kicks.
    pub fn send_at(&mut self, addr: u64, len: u32) {
        let slot = self.avail[TX] % SIZE;
        self.post_at(TX, slot, addr, len, 0);
        self.kicks[TX].write(1).unwrap();
    }

    fn post(&mut self, ring: usize, slot: u16, len: u32, flags: u16) {
        self.post_at(ring, slot, GUEST + buffer(ring, slot) as u64, len, flags);
    }

    fn post_at(&mut self, ring: usize, slot: u16, addr: u64, len: u32, flags: u16) {
        let descriptor = self.memory.words(ring * 0x1000 + 16 * usize::from(slot), 2);
        descriptor[0].store(addr, Ordering::Relaxed);
        descriptor[1].store(u64::from(len) | u64::from(flags) << 32, Ordering::Relaxed);
        // Entry n is the 16-bit word n + 2 of the available ring.
        let place = usize::from(self.avail[ring] % SIZE) + 2;
        let word = &self.memory.words(ring * 0x1000 + AVAIL, place / 4 + 1)[place / 4];
        let shift = 16 * (place % 4);
        let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
        word.store(others | u64::from(slot) << shift, Ordering::Release);
        self.avail[ring] = self.avail[ring].wrapping_add(1);
        self.publish(ring);
    }

    fn publish(&self, ring: usize) {
        let word = &self.memory.words(ring * 0x1000 + AVAIL, 1)[0];
        let others = word.load(Ordering::Relaxed) & !0xffff_0000;
        word.store(others | u64::from(self.avail[ring]) << 16, Ordering::SeqCst);
    }
}

/// Where a buffer lies in guest memory.
pub fn buffer(ring: usize, slot: u16) -> usize {
    BUFFERS + (ring * usize::from(SIZE) + usize::from(slot)) * BUFFER_LEN
}

/// A broadcast frame from `sender` of `len` bytes, filled with `fill`.
pub fn frame(sender: u8, fill: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, sender]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

//! Front ends that migrate their guest: the dirty log, on and off, and logs that are not what they should be.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringyard_dataplane::ring::{Mapping, RingLayout};
use vhost::vhost_user::message::VhostUserVringAddrFlags;
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VringConfigData};

use crate::guest::{FEATURES, GUEST, Guest, RX, SIZE, TX, buffer, frame};
use crate::raw::*;
use crate::yard::{Yard, until};

const LOG_ALL: u64 = 1 << 26;
const SET_LOG_BASE: u32 = 6;
const SET_LOG_FD: u32 = 7;
const SET_VRING_ADDR: u32 = 9;
/// Bytes of a log that covers a guest's memory.
const LOG_LEN: u64 = 0x24;
/// Bytes of one that ends behind the first eight receive buffers.
const SHORT_LEN: u64 = 0x21;
/// Where a log begins in its file.
const OFFSET: u64 = 0x1008;

/// A log as the front end has it.
struct Log {
    mapping: Mapping,
    file: OwnedFd,
}

impl Log {
    fn new() -> Log {
        let (mapping, file) = Mapping::memfd("log", 0x2000).unwrap();
        Log { mapping, file }
    }

    fn region(&self, len: u64) -> VhostUserDirtyLogRegion {
        VhostUserDirtyLogRegion { mmap_size: len, mmap_offset: OFFSET, mmap_handle: self.file.as_raw_fd() }
    }

    /// Takes the pages that are in the log, counted from the guest's first.
    fn take(&self) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        for (place, word) in self.mapping.words(0, self.mapping.len() / 8).iter().enumerate() {
            let bits = u64::from_le(word.swap(0, Ordering::AcqRel));
            pages.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| place as u64 * 64 + bit));
        }
        let first = OFFSET * 8 + GUEST / 0x1000;
        pages.into_iter().map(|page| page.checked_sub(first).expect("the guest's")).collect()
    }
}

/// Has a ring's own writes logged, under its guest address, or not.
fn log_ring(guest: &Guest, ring: usize, log_addr: Option<u64>) {
    let RingLayout { size, desc, avail, used } = guest.layout(ring);
    let flags = if log_addr.is_some() { VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits() } else { 0 };
    let config = VringConfigData {
        queue_max_size: size,
        queue_size: size,
        flags,
        desc_table_addr: desc,
        avail_ring_addr: avail,
        used_ring_addr: used,
        log_addr,
    };
    guest.frontend.set_vring_addr(ring, &config).unwrap();
}

/// Where QEMU has a ring's used part logged.
fn used_addr(guest: &Guest, ring: usize) -> u64 {
    guest.layout(ring).used - guest.region().userspace_addr + GUEST
}

/// As QEMU begins a migration.
fn log_all(guest: &Guest, log: &Log, len: u64) {
    guest.frontend.set_log_base(0, Some(log.region(len))).unwrap();
    guest.frontend.set_features(FEATURES | LOG_ALL).unwrap();
    [RX, TX].iter().for_each(|&ring| log_ring(guest, ring, Some(used_addr(guest, ring))));
}

fn page_of(offset: usize) -> u64 {
    offset as u64 / 0x1000
}

#[test]
fn everything_that_is_written_for_a_guest_is_logged_while_it_wants_that_and_no_longer() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let log = Log::new();
    for round in 0..20 {
        // In each round the next buffers of both rings, as often as there are buffers.
        log_all(&b, &log, LOG_LEN);
        log.take();
        a.send(&frame(1, round, 100));
        b.expect(&frame(1, round, 100));
        let slot = usize::from(round) * 3 % usize::from(SIZE);
        let expected: BTreeSet<u64> = [page_of(b.used_at(RX)), page_of(buffer(RX, slot as u16))].into();
        let (mut taken, idle) = (log.take(), page_of(b.used_at(TX)));
        // A worker may ask for kicks of the other ring, or for none, at any time.
        taken.remove(&idle);
        assert_eq!(taken, expected, "{round}: a receive ring's used part and buffer");
        b.send(&frame(2, round, 100));
        a.expect(&frame(2, round, 100));
        until("the frame is given back", || b.used(TX) == u16::from(round) + 1);
        assert!(log.take().is_subset(&[page_of(b.used_at(TX))].into()), "only the ring was written");

        b.frontend.set_features(FEATURES).unwrap();
        log.take();
        a.send(&frame(1, round, 101));
        b.expect(&frame(1, round, 101));
        assert!(log.take().is_subset(&[page_of(b.used_at(RX)), page_of(b.used_at(TX))].into()));
        [RX, TX].iter().for_each(|&ring| log_ring(&b, ring, None));
        log.take();
        a.send(&frame(1, round, 102));
        b.expect(&frame(1, round, 102));
        assert_eq!(log.take(), BTreeSet::new(), "nothing is logged any more");
    }
}

#[test]
fn a_log_takes_the_place_of_the_one_before_and_ends_with_a_reset() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let (old, new) = (Log::new(), Log::new());
    log_all(&b, &old, LOG_LEN);
    b.frontend.set_log_base(0, Some(new.region(LOG_LEN))).unwrap();
    old.take();
    a.send(&frame(1, 1, 100));
    b.expect(&frame(1, 1, 100));
    assert!(old.take().is_empty() && !new.take().is_empty());
    Raw::over(b.socket.try_clone().unwrap()).ask(SET_STATUS, &0u64.to_ne_bytes(), &[]);
    b.frontend.set_features(FEATURES | LOG_ALL).unwrap();
    b.start_rings();
    b.enable(true);
    new.take();
    a.send(&frame(1, 2, 100));
    b.expect(&frame(1, 2, 100));
    assert!(new.take().is_empty(), "QEMU sends the log again when it starts a device");
}

#[test]
fn a_log_comes_and_goes_under_traffic_and_no_frame_is_lost() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let log = Log::new();
    for round in 0..200u16 {
        a.send(&frame(1, round as u8, 100));
        if round % 2 == 0 {
            log_all(&b, &log, LOG_LEN);
            log_all(&a, &log, LOG_LEN);
        } else {
            [&a, &b].iter().for_each(|guest| guest.frontend.set_features(FEATURES).unwrap());
        }
        b.expect(&frame(1, round as u8, 100));
    }
}

#[test]
fn bursts_that_are_logged_are_told() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let (log, bell) = (Log::new(), event());
    let mut raw = Raw::over(b.socket.try_clone().unwrap());
    assert_eq!(raw.ask(SET_LOG_FD, &[], &[log.file.as_fd()]), 1, "no eventfd");
    assert_eq!(raw.ask(SET_LOG_FD, &[], &[bell.as_fd(), bell.as_fd()]), 1);
    assert_eq!(raw.ask(SET_LOG_FD, &[], &[bell.as_fd()]), 0);
    let told = |bell: &OwnedFd| rustix::io::read(bell, &mut [0; 8]).is_ok();
    a.send(&frame(1, 0, 100));
    b.expect(&frame(1, 0, 100));
    assert!(!told(&bell), "nothing is logged");
    log_all(&b, &log, LOG_LEN);
    a.send(&frame(1, 1, 100));
    b.expect(&frame(1, 1, 100));
    until("it is told", || told(&bell));
    assert_eq!(raw.ask(SET_LOG_FD, &[], &[]), 0);
    told(&bell);
    a.send(&frame(1, 2, 100));
    b.expect(&frame(1, 2, 100));
    assert!(!told(&bell), "nobody wants to hear it any more");
}

#[test]
fn p21_log_must_be_a_memory_file_that_holds_it() {
    let yard = Yard::new(1, 1);
    let (file, socket) = (memfd("log", 0x2000), std::os::unix::net::UnixStream::pair().unwrap().0);
    let (file, other) = (file.as_fd(), std::fs::File::open("/proc/self/exe").unwrap());
    let (pipe, directory) = (std::io::pipe().unwrap().0, std::fs::File::open("/dev/shm").unwrap());
    let words = |size: u64, offset: u64| [size, offset].map(u64::to_ne_bytes).concat();
    let one: [BorrowedFd<'_>; 1] = [file];
    let bad: [(&[u8], &[BorrowedFd<'_>]); 15] = [
        (&words(0, 0), &one),
        (&words(0x2001, 0), &one),
        (&words(1, 0x2000), &one),
        (&words(0x1000, 0x1001), &one),
        (&words(1, u64::MAX), &one),
        (&words(u64::MAX, 1), &one),
        (&words(u64::MAX, u64::MAX), &one),
        (&words(0x1000, 0), &[]),
        (&words(0x1000, 0), &[file, file]),
        (&words(0x1000, 0)[..8], &one),
        (&[words(0x1000, 0), words(0, 0)].concat(), &one),
        (&words(0x1000, 0), &[socket.as_fd()]),
        (&words(0x1000, 0), &[other.as_fd()]),
        (&words(0x1000, 0), &[pipe.as_fd()]),
        (&words(0x1000, 0), &[directory.as_fd()]),
    ];
    for (body, fds) in bad {
        let mut raw = Raw::negotiated(&yard.path(0));
        raw.send(SET_LOG_BASE, NEED_REPLY, body, fds);
        raw.assert_closed();
    }
    let mut raw = Raw::negotiated(&yard.path(0));
    raw.send(SET_LOG_BASE, 0, &words(0x1000, 0x1000), &one);
    assert_eq!(raw.reply_of(SET_LOG_BASE), words(0x1000, 0x1000), "what came");
    // A file of 16 GiB and a page.
    let large = memfd("log", (1 << 34) + 0x1000);
    raw.send(SET_LOG_BASE, 0, &words(1, 1 << 34), &[large.as_fd()]);
    raw.assert_closed();
}

#[test]
fn p21_ring_that_is_logged_past_the_end_of_its_log_is_refused() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let log = Log::new();
    log_all(&b, &log, LOG_LEN);
    let mut raw = Raw::over(b.socket.try_clone().unwrap());
    let RingLayout { desc, avail, used, .. } = b.layout(RX);
    let used_len = 6 + 8 * u64::from(SIZE);
    for (addr, refused) in
        [(LOG_LEN * 0x8000 - used_len + 1, 1), (u64::MAX, 1), (LOG_LEN * 0x8000 - used_len, 0)]
    {
        let mut body = state(RX as u32, 1);
        body.extend([desc, used, avail, addr].iter().flat_map(|word| word.to_ne_bytes()));
        assert_eq!(raw.ask(SET_VRING_ADDR, &body, &[]), refused, "{addr:#x}");
    }
    a.send(&frame(1, 1, 100));
    b.expect(&frame(1, 1, 100));
    // A log that a ring of its own lies past the end of.
    raw.send(SET_LOG_BASE, 0, &[1u64, OFFSET].map(u64::to_ne_bytes).concat(), &[log.file.as_fd()]);
    raw.assert_closed();
}

#[test]
fn p21_buffer_past_the_end_of_the_log_stops_only_its_own_ring() {
    let yard = Yard::new(3, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let mut attacker = Guest::start(&yard.path(2));
    let log = Log::new();
    log_all(&attacker, &log, SHORT_LEN);
    for round in 0..8 {
        a.send(&frame(1, round, 100));
        b.expect(&frame(1, round, 100));
        attacker.expect(&frame(1, round, 100));
    }
    assert!(!yard.attachment(2).egress.is_empty(), "eight buffers are covered");
    for round in 8..50 {
        a.send(&frame(1, round, 100));
        b.expect(&frame(1, round, 100));
    }
    until("the ring is out of service", || yard.attachment(2).egress.is_empty());
    assert!(attacker.error.read().is_ok(), "the front end is told");
    attacker.send(&frame(3, 1, 100));
    a.expect(&frame(3, 1, 100));
    b.expect(&frame(3, 1, 100));
    // With a log that is long enough it is started again.
    attacker.frontend.set_log_base(0, Some(log.region(LOG_LEN))).unwrap();
    attacker.frontend.get_vring_base(TX).unwrap();
    attacker.frontend.get_vring_base(RX).unwrap();
    attacker.start_rings();
    a.send(&frame(1, 99, 100));
    attacker.expect(&frame(1, 99, 100));
}

#[test]
fn p21_log_that_is_truncated_ends_only_its_own_connection() {
    let yard = Yard::new(3, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    for round in 0..50 {
        let attacker = Guest::start(&yard.path(2));
        // Not to be sealed by anyone.
        let file = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 0x1000).unwrap();
        let region =
            VhostUserDirtyLogRegion { mmap_size: 0x1000, mmap_offset: 0, mmap_handle: file.as_raw_fd() };
        attacker.frontend.set_log_base(0, Some(region)).unwrap();
        attacker.frontend.set_features(FEATURES | LOG_ALL).unwrap();
        rustix::fs::ftruncate(&file, 0).unwrap();
        a.send(&frame(1, round, 100));
        let attacked = Instant::now();
        b.expect(&frame(1, round, 100));
        until("the attacker's end", || !yard.chardevs[2].is_connected());
        assert!(attacked.elapsed() < Duration::from_secs(1), "it took {:?}", attacked.elapsed());
        drop(attacker);
    }
}

fn event() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

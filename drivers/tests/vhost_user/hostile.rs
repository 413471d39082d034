//! Front ends that do not behave. Names begin with the case of the hostile catalogue.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;

use crate::guest::{Guest, RX, TX, frame};
use crate::raw::*;
use crate::yard::{Yard, until};

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::empty()).unwrap()
}

/// A memory table of one region is refused, and the connection goes on.
#[track_caller]
fn refuse_region(raw: &mut Raw, region: [u64; 4], file: &OwnedFd) {
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&[region]), &[file.as_fd()]), 1, "{region:x?}");
    raw.assert_alive();
}

#[test]
fn p01_ring_sizes_are_checked() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    for size in [0, 3, 65535, 65536, u32::MAX] {
        assert_eq!(raw.ask(SET_VRING_NUM, &state(0, size), &[]), 1, "{size}");
    }
    assert_eq!(raw.ask(SET_VRING_NUM, &state(0, 32768), &[]), 0);
    assert_eq!(raw.ask(SET_VRING_BASE, &state(0, 65536), &[]), 1);
}

#[test]
fn p02_ring_indexes_are_checked_before_they_are_cut() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let event = event();
    for index in [3u64, 255, 0x200, 300, 0xffff, 0x1_0000, 1 << 32, 1 << 40] {
        for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
            assert_eq!(raw.ask(request, &index.to_ne_bytes(), &[event.as_fd()]), 1, "{index:#x}");
        }
        for request in [SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE] {
            let body = state(index.try_into().unwrap_or(u32::MAX), 1);
            assert_eq!(raw.ask(request, &body, &[]), 1, "{index:#x}");
        }
    }
    raw.assert_alive();
}

#[test]
fn p04_ring_outside_memory_does_not_start() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let (file, event) = (memfd("memory", 0x1000), event());
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&[[0, 0x1000, 0x1000, 0]]), &[file.as_fd()]), 0);
    assert_eq!(raw.ask(SET_VRING_KICK, &0u64.to_ne_bytes(), &[event.as_fd()]), 1, "nothing is set");
    assert_eq!(raw.ask(SET_VRING_NUM, &state(0, 16), &[]), 0);
    for (desc, used, avail) in [
        (0, 0x1400, 0x1800),
        (0x1008, 0x1400, 0x1800),
        (0x1000, 0x1ffc, 0x1800),
        (0x1000, 0x1400, u64::MAX - 1),
    ] {
        let mut body = state(0, 0);
        body.extend([desc, used, avail, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()));
        assert_eq!(raw.ask(9, &body, &[]), 0, "set, not used yet");
        assert_eq!(
            raw.ask(SET_VRING_KICK, &0u64.to_ne_bytes(), &[event.as_fd()]),
            1,
            "{desc:#x} {used:#x} {avail:#x}"
        );
    }
}

#[test]
fn p05_memory_tables_must_be_whole() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = memfd("memory", 0x10_0000);
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&[]), &[]), 1, "no region");
    let nine: Vec<[u64; 4]> = (0..9).map(|index| [index << 16, 0x1000, index << 16, 0]).collect();
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&nine), &[file.as_fd(); 8]), 1);
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&nine), &[file.as_fd(); 10]), 1);
    assert_eq!(raw.ask(SET_MEM_TABLE, &[u32::MAX, 0].map(u32::to_ne_bytes).concat(), &[file.as_fd()]), 1);
    assert_eq!(raw.ask(SET_MEM_TABLE, &[1, 2, 3], &[]), 1);
    let mut lying = regions(&nine);
    lying[0] = 10;
    assert_eq!(raw.ask(SET_MEM_TABLE, &lying, &[file.as_fd(); 10]), 1);
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&nine)[..200], &[file.as_fd(); 9]), 1);
    assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&nine), &[file.as_fd(); 9]), 0);
    // A table with room for more than it has.
    lying[0] = 2;
    assert_eq!(raw.ask(SET_MEM_TABLE, &lying, &[file.as_fd(); 2]), 0);
}

#[test]
fn p08_file_that_is_truncated_ends_only_its_own_connection() {
    const ADDR: u64 = 0x1_0000_0000;
    let yard = Yard::new(3, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    for round in 0..50 {
        let mut attacker = Guest::start(&yard.path(2));
        // Not to be sealed by anyone.
        let file = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 0x4000).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: ADDR,
            memory_size: 0x4000,
            userspace_addr: 0x1000,
            mmap_offset: 0,
            mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&file),
        };
        attacker.frontend.add_mem_region(&region).unwrap();
        attacker.send_at(ADDR, 100);
        until("a frame of the attacker", || attacker.used(TX) == 1);
        rustix::fs::ftruncate(&file, 0).unwrap();
        a.send(&frame(1, round, 60));
        attacker.send_at(ADDR + 0x2000, 1000);
        a.send(&frame(1, round, 1000));
        let attacked = Instant::now();
        until("the attacker's end", || !yard.chardevs[2].is_connected());
        assert!(attacked.elapsed() < Duration::from_secs(1), "it took {:?}", attacked.elapsed());
        for len in [60, 1000] {
            let innocent = std::iter::from_fn(|| {
                until("a frame", || b.has_frame());
                b.receive()
            })
            .find(|bytes| bytes[6..12] == frame(1, 0, 60)[6..12]);
            assert_eq!(innocent, Some(frame(1, round, len)));
        }
    }
}

#[test]
fn p06_p07_p09_regions_must_lie_in_their_files_and_apart() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = memfd("memory", 0x4000);
    let max = u64::MAX;
    for region in [
        [0, 0, 0, 0],
        [0, 1 << 63, 0, 0],
        [0, max, 0, 2],
        [max - 0xfff, 0x2000, 0, 0],
        [0, 0x2000, max - 0xfff, 0],
        [0, 0x1000, 0, 0x4000],
        [0, 0x1000, 0, max - 0xfff],
        [0, 0x4001, 0, 0],
        [0, 0x1000, 0, 0x3001],
    ] {
        refuse_region(&mut raw, region, &file);
    }
    let twice = regions(&[[0, 0x2000, 0, 0], [0x1fff, 0x1000, 0x10000, 0]]);
    assert_eq!(raw.ask(SET_MEM_TABLE, &twice, &[file.as_fd(); 2]), 1, "they overlap");
    let at_the_end = regions(&[[0, 0x1000, 0, 0x3000]]);
    assert_eq!(raw.ask(SET_MEM_TABLE, &at_the_end, &[file.as_fd()]), 0);
    assert!(rustix::fs::ftruncate(&file, 0).is_err(), "kept from shrinking");
}

#[test]
fn p10_only_memory_files_are_memory() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let sealed = memfd("sealed", 0x1000);
    rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE).unwrap();
    let socket = OwnedFd::from(raw.0.try_clone().unwrap());
    let exe = OwnedFd::from(std::fs::File::open(std::env::current_exe().unwrap()).unwrap());
    let others = ["/", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/maps", "/dev/shm"].map(open);
    for file in others.iter().chain([&pipe, &sealed, &socket, &exe, &event()]) {
        refuse_region(&mut raw, [0, 0x1000, 0, 0], file);
    }
}

#[test]
fn p11_descriptors_must_be_as_many_as_the_message_says() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let event = event();
    assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[]), 1, "missing");
    assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[event.as_fd(); 2]), 1, "one too many");
    assert_eq!(raw.ask(SET_VRING_CALL, &0x100u64.to_ne_bytes(), &[event.as_fd()]), 1, "not announced");
    assert_eq!(raw.ask(3, &[], &[event.as_fd(); 8]), 0, "useless ones are closed");
    raw.send(GET_FEATURES, 0, &[], &[event.as_fd(); 33]);
    raw.assert_closed();
}

#[test]
fn p12_failed_messages_leave_no_descriptors() {
    let yard = Yard::new(1, 1);
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let name = |fd: std::fs::DirEntry| std::fs::read_link(fd.path()).ok();
        links.filter_map(name).filter(|name| name.to_string_lossy().contains("p12-leak")).count()
    };
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = memfd("p12-leak", 0x1000);
    for _ in 0..1000 {
        assert_eq!(raw.ask(SET_MEM_TABLE, &regions(&[[0, 0, 0, 0]]), &[file.as_fd()]), 1);
        assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[file.as_fd()]), 1);
        assert_eq!(raw.ask(99, &[], &[file.as_fd(); 8]), 1);
    }
    assert_eq!(open(), 1, "ours alone");
    raw.send(GET_FEATURES, 0, &[], &[file.as_fd(); 40]);
    raw.assert_closed();
    assert_eq!(open(), 1, "ours alone");
}

#[test]
fn p13_p14_only_eventfds_and_sockets_are_called_and_they_cannot_block() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let socket = OwnedFd::from(raw.0.try_clone().unwrap());
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::empty()).unwrap();
    let file = memfd("memory", 0x1000);
    for fd in [&reader, &writer, &socket, &epoll, &file] {
        for request in [SET_VRING_KICK, SET_VRING_ERR] {
            assert_eq!(raw.ask(request, &0u64.to_ne_bytes(), &[fd.as_fd()]), 1);
        }
    }
    for fd in [&reader, &writer, &epoll, &file] {
        assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[fd.as_fd()]), 1);
    }
    assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[socket.as_fd()]), 0);
    let event = event();
    assert_eq!(raw.ask(SET_VRING_CALL, &0u64.to_ne_bytes(), &[event.as_fd()]), 0);
    let flags = rustix::fs::fcntl_getfl(&event).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn p13_call_socket_that_nobody_reads_holds_nobody_up() {
    let yard = Yard::new(3, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let mut attacker = Guest::start(&yard.path(2));
    let mut raw = Raw::over(attacker.socket.try_clone().unwrap());
    let (socket, other) = UnixStream::pair().unwrap();
    assert_eq!(raw.ask(SET_VRING_CALL, &(RX as u64).to_ne_bytes(), &[socket.as_fd()]), 0);
    socket.set_nonblocking(true).unwrap();
    while (&socket).write(&[0; 4096]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    let began = Instant::now();
    for fill in 0..50 {
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
        attacker.expect(&frame(1, fill, 60));
        raw.assert_alive();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "all were held up for {:?}", began.elapsed());
    drop(other);
    raw.assert_alive();
}

#[test]
fn p13_full_eventfd_blocks_nobody() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    b.calls[0].write(u64::MAX - 1 - b.calls[0].read().unwrap_or(0)).unwrap();
    for fill in 0..50 {
        a.send(&crate::guest::frame(1, fill, 60));
        b.expect(&crate::guest::frame(1, fill, 60));
    }
}

#[test]
fn p13_call_descriptor_that_is_made_to_block_stops_only_its_own_ring() {
    let yard = Yard::new(3, 1);
    let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    let attacker = Guest::start(&yard.path(2));
    let mut raw = Raw::over(attacker.socket.try_clone().unwrap());
    let call = event();
    assert_eq!(raw.ask(SET_VRING_CALL, &(RX as u64).to_ne_bytes(), &[call.as_fd()]), 0);
    let _ = rustix::io::read(&call, &mut [0; 8]);
    rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    rustix::fs::fcntl_setfl(&call, rustix::fs::OFlags::empty()).unwrap();
    let began = Instant::now();
    for fill in 0..50 {
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "all were held up for {:?}", began.elapsed());
    until("the attacker's ring to be taken out of service", || yard.attachment(2).egress.is_empty());
}

#[test]
fn p16_size_and_base_of_a_started_ring_are_its_own() {
    let yard = Yard::new(1, 1);
    let a = Guest::start(&yard.path(0));
    let mut raw = Raw::over(a.socket.try_clone().unwrap());
    assert_eq!(raw.ask(SET_VRING_NUM, &state(TX as u32, 8), &[]), 1);
    assert_eq!(raw.ask(SET_VRING_BASE, &state(TX as u32, 8), &[]), 1);
}

#[test]
fn p17_half_messages_end_in_time() {
    let yard = Yard::new(1, 1);
    let path = yard.path(0);
    let half = |bytes: &[u8]| {
        let mut raw = Raw::connect(&path);
        raw.bytes(bytes, &[]);
        let start = Instant::now();
        raw.assert_closed();
        assert!(start.elapsed() < Duration::from_secs(5));
    };
    half(&[1]);
    half(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0xff]);
    for count in 1..12 {
        Raw::connect(&path).bytes(&[1; 12][..count], &[]);
    }
    Raw::connect(&path).assert_alive();
}

#[test]
fn p17_front_end_that_never_reads_is_let_go() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::connect(&yard.path(0));
    raw.0.set_write_timeout(Some(Duration::from_secs(4))).unwrap();
    let request = [GET_FEATURES, 1, 0].map(u32::to_ne_bytes).concat();
    let start = Instant::now();
    while std::io::Write::write_all(&mut raw.0, &request).is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(10));
    Raw::connect(&yard.path(0)).assert_alive();
}

#[test]
fn p18_sizes_are_checked_before_anything_is_read() {
    let yard = Yard::new(1, 1);
    for size in [4097, 1 << 31, u32::MAX] {
        let mut raw = Raw::connect(&yard.path(0));
        raw.bytes(&[SET_FEATURES, 1, size].map(u32::to_ne_bytes).concat(), &[]);
        raw.assert_closed();
    }
    let mut raw = Raw::negotiated(&yard.path(0));
    for request in [SET_FEATURES, SET_VRING_NUM, 9, SET_VRING_ENABLE, SET_VRING_KICK, 20, 37, 38, 39] {
        for size in [0, 7, 9, 64] {
            assert_eq!(raw.ask(request, &vec![0; size], &[]), 1, "{request} with {size}");
        }
    }
    raw.send(GET_FEATURES, 0, &[0; 8], &[]);
    raw.assert_closed();
}

#[test]
fn p19_flags_are_checked() {
    let yard = Yard::new(1, 1);
    for flags in [0, 2, 3, 1 | 4, 1 | 16, u32::MAX] {
        let mut raw = Raw::connect(&yard.path(0));
        raw.bytes(&[GET_FEATURES, flags, 0].map(u32::to_ne_bytes).concat(), &[]);
        raw.assert_closed();
    }
}

#[test]
fn p22_features_that_were_not_offered_are_refused() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    assert_eq!(raw.ask(SET_FEATURES, &u64::MAX.to_ne_bytes(), &[]), 1);
    assert_eq!(raw.ask(SET_FEATURES, &(1u64 << 22).to_ne_bytes(), &[]), 1, "MQ with one queue pair");
    assert_eq!(raw.ask(SET_FEATURES, &(1u64 << 32).to_ne_bytes(), &[]), 0);
    assert_eq!(raw.ask(SET_FEATURES, &(1u64 << 32 | 1 << 15).to_ne_bytes(), &[]), 0, "twice");
    assert_eq!(raw.ask(SET_PROTOCOL_FEATURES, &(1u64 << 20 | 8).to_ne_bytes(), &[]), 1);
}

#[test]
fn p23_front_ends_may_leave_at_any_step() {
    let yard = Yard::new(1, 1);
    let steps: [fn(&Path); 5] = [
        |path| drop(Raw::connect(path)),
        |path| drop(Raw::negotiated(path)),
        |path| drop(Guest::connect(path)),
        |path| Guest::connect(path).start_rings(),
        |path| drop(Guest::start(path)),
    ];
    for round in 0..100 {
        steps[round % steps.len()](&yard.path(0));
    }
    until("nothing is attached", || yard.attachment(0).rings.is_empty());
    Raw::connect(&yard.path(0)).assert_alive();
}

#[test]
fn p25_address_space_of_a_port_is_bounded() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let (file, other) = (memfd("sparse", 1 << 42), memfd("other", 0x1000));
    refuse_region(&mut raw, [0, (1 << 40) + 1, 0, 0], &file);
    refuse_region(&mut raw, [0, 0x1000, 0, 1 << 40], &file);
    let both = regions(&[[0, 1 << 40, 0, 0], [1 << 40, 0x1000, 1 << 40, 0]]);
    assert_eq!(raw.ask(SET_MEM_TABLE, &both, &[file.as_fd(), other.as_fd()]), 1, "together too much");
    assert_eq!(raw.ask(SET_MEM_TABLE, &both, &[file.as_fd(); 2]), 0, "one file is mapped once");
}

//! Front ends that keep a buffer for their back end, as hostile as anything else of theirs.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use ringyard_dataplane::ring::{Mapping, RingJournal};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::guest::{Guest, RX, TX, frame};
use crate::keeper::Keeper;
use crate::packed::PackedGuest;
use crate::raw::{NEED_REPLY, Raw};
use crate::yard::{Yard, until};

const SIZE: u16 = 16;
const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;

/// Has a buffer made for both rings, and gives it back.
fn keep_buffer(guest: &mut PackedGuest) -> (VhostUserInflight, File) {
    let asked = VhostUserInflight { num_queues: 2, queue_size: SIZE, ..VhostUserInflight::default() };
    let (body, file) = guest.frontend.get_inflight_fd(&asked).unwrap();
    guest.frontend.set_inflight_fd(&body, file.as_raw_fd()).unwrap();
    (body, file)
}

fn body(len: u64, offset: u64, queues: u16, size: u16) -> Vec<u8> {
    [&len.to_ne_bytes()[..], &offset.to_ne_bytes(), &queues.to_ne_bytes(), &size.to_ne_bytes()].concat()
}

#[test]
fn packed_rings_go_on_after_all_of_us_were_gone() {
    for in_order in [false, true] {
        let keeper = Keeper::start();
        let mut receiver = PackedGuest::over(keeper.connect(1), SIZE, in_order);
        let mut sender = PackedGuest::over(keeper.connect(0), SIZE, in_order);
        let buffers = [&mut sender, &mut receiver].map(keep_buffer);
        [&mut receiver, &mut sender].into_iter().for_each(PackedGuest::start_rings);
        let mut number = 0;
        let mut exchange = |sender: &mut PackedGuest, receiver: &mut PackedGuest| {
            for _ in 0..21 {
                until("room", || sender.has_room());
                sender.send(&frame(1, number, 60));
                receiver.expect(&frame(1, number, 60));
                number += 1;
            }
        };
        exchange(&mut sender, &mut receiver);
        for _ in 0..3 {
            until("all is given back", || sender.is_idle());
            keeper.kill_all();
            for (port, guest) in [(1, &mut receiver), (0, &mut sender)] {
                guest.reconnect(keeper.connect(port));
                let (body, file) = &buffers[port];
                guest.frontend.set_inflight_fd(body, file.as_raw_fd()).unwrap();
                // The front end says that they begin at their beginning. The buffer knows better.
                guest.kick_rings();
            }
            exchange(&mut sender, &mut receiver);
        }
    }
}

#[test]
fn ring_that_was_stopped_goes_on_where_its_front_end_says() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::over(UnixStream::connect(yard.path(0)).unwrap(), SIZE, false);
    let mut b = Guest::start(&yard.path(1));
    keep_buffer(&mut a);
    for round in 0..3 {
        a.start_rings();
        a.send(&frame(1, round, 60));
        b.expect(&frame(1, round, 60));
        [RX, TX].into_iter().for_each(|ring| drop(a.frontend.get_vring_base(ring)));
    }
}

#[test]
fn p20_places_that_no_ring_has_are_refused_and_the_rest_harms_nobody() {
    let yard = Yard::new(2, 1);
    let mut a = PackedGuest::over(UnixStream::connect(yard.path(0)).unwrap(), SIZE, false);
    let mut b = Guest::start(&yard.path(1));
    let (body, file) = keep_buffer(&mut a);
    let mapping = Mapping::of_file(&file, body.mmap_size as usize).unwrap();
    let region = mapping.words(RingJournal::len(SIZE, true), 4);
    // Version and size, the places: beyond the ring, and wrap counters that are none; lists that are cycles.
    for places in [u64::from(SIZE), 0xffff_ffff, 2 << 32, 2 << 40, u64::MAX] {
        region[1].store(1 | u64::from(SIZE) << 16 | 7 << 32 | 7 << 48, Ordering::SeqCst);
        region[2].store(places, Ordering::SeqCst);
        a.set_up(TX, 1 << 15);
        assert!(a.frontend.set_vring_kick(TX, &a.kicks[TX]).is_err(), "{places:#x}");
    }
    for word in mapping.words(0, body.mmap_size as usize / 8) {
        word.store(0x0202_0202_0202_0202, Ordering::SeqCst);
    }
    a.start_rings();
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
    // And while the rings run: it is read when they start.
    for word in mapping.words(0, body.mmap_size as usize / 8) {
        word.store(u64::MAX, Ordering::SeqCst);
    }
    a.send(&frame(1, 2, 60));
    b.expect(&frame(1, 2, 60));
}

#[test]
fn p20_buffers_that_cannot_be_are_refused() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = crate::raw::memfd("buffer", 4096);
    for (len, offset, queues, size) in [
        (4096, 0, 65_535, 65_535),
        (4096, 0, 0, 0),
        (4096, 0, 4, 16),
        (4097, 0, 1, 16),
        (u64::MAX, 1, 1, 16),
        (0, 0, 1, 16),
        (64, 4096, 1, 16),
    ] {
        let body = body(len, offset, queues, size);
        assert_eq!(raw.ask(SET_INFLIGHT_FD, &body, &[file.as_fd()]), 1, "{len} {offset} {queues} {size}");
    }
    let whole = body(4096, 0, 2, 16);
    assert_eq!(raw.ask(SET_INFLIGHT_FD, &whole, &[]), 1, "no file");
    assert_eq!(raw.ask(SET_INFLIGHT_FD, &whole, &[file.as_fd(), file.as_fd()]), 1, "two of them");
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(raw.ask(SET_INFLIGHT_FD, &whole, &[reader.as_fd()]), 1, "a pipe");
    for _ in 0..1000 {
        assert_eq!(raw.ask(SET_INFLIGHT_FD, &whole, &[file.as_fd()]), 0);
    }
    raw.assert_alive();
    drop(raw);
    for (queues, size) in [(65_535, 65_535), (0, 0), (1, 0), (1, 32_769)] {
        let mut raw = Raw::negotiated(&yard.path(0));
        raw.send(GET_INFLIGHT_FD, NEED_REPLY, &body(0, 0, queues, size), &[]);
        // The reply has no way to say no.
        raw.assert_closed();
    }
}

#[test]
fn p20_buffer_that_is_truncated_costs_its_owner_the_connection() {
    let yard = Yard::new(2, 1);
    let mut a = Guest::start(&yard.path(1));
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = crate::raw::memfd("buffer", 1 << 20);
    // Sealed against sealing: it stays one that can shrink.
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SEAL).unwrap();
    assert_eq!(raw.ask(SET_INFLIGHT_FD, &body(1 << 20, 0, 2, 16), &[file.as_fd()]), 0);
    rustix::fs::ftruncate(&file, 0).unwrap();
    raw.assert_alive();
    a.send(&frame(1, 1, 60));
    until("the frame is consumed", || a.used(TX) == 1);
}

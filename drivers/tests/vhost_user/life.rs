//! Front ends that behave: they come, move frames, change their rings, go and come back.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use ringyard_dataplane::drops::DropReason;
use ringyard_drivers::chardev::{SocketAccess, SocketChardev, SocketRole};
use ringyard_drivers::vhost_user::{Keeping, VhostUserPort};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use crate::guest::{Guest, RX, SIZE, TX, frame};
use crate::raw::{Raw, SET_STATUS, SET_VRING_CALL, SET_VRING_KICK};
use crate::yard::{Yard, until};

fn pair() -> (Yard, Guest, Guest) {
    let yard = Yard::new(2, 1);
    let (a, b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
    (yard, a, b)
}

#[test]
fn frames_cross_between_two_guests() {
    let (yard, mut a, mut b) = pair();
    assert!(yard.carrier(0) && yard.chardevs[0].is_connected());
    for round in 0..100u8 {
        let len = 60 + 14 * usize::from(round);
        a.send(&frame(1, round, len));
        b.expect(&frame(1, round, len));
        b.send(&frame(2, round, 60));
        a.expect(&frame(2, round, 60));
    }
    assert!(a.called(RX) && b.called(RX), "used buffers are signalled");
    let counters = yard.counters(0);
    assert_eq!((counters.ingress.frames, counters.egress.frames), (100, 100));
}

#[test]
fn disabled_transmit_ring_is_consumed_and_counted() {
    let yard = Yard::new(2, 1);
    let (mut a, mut b) = (Guest::connect(&yard.path(0)), Guest::start(&yard.path(1)));
    a.start_rings();
    assert!(!yard.carrier(0));
    a.send(&frame(1, 1, 60));
    until("the frame is consumed", || a.used(TX) == 1);
    until("the drop is counted", || yard.counters(0).ingress.drops[DropReason::NotReady as usize] == 1);
    b.send(&frame(2, 2, 60));
    until("the frame is consumed", || b.used(TX) == 1);
    assert_eq!((a.used(RX), b.used(RX)), (0, 0), "nobody receives anything");
    a.enable(true);
    a.send(&frame(1, 3, 60));
    b.expect(&frame(1, 3, 60));
}

#[test]
fn stopped_ring_says_where_it_got_to_and_goes_on_from_there() {
    let (yard, mut a, mut b) = pair();
    for fill in 0..5 {
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
    }
    assert_eq!(a.frontend.get_vring_base(TX).unwrap(), 5);
    assert_eq!(yard.attachment(0).ingress.len(), 0);
    a.send(&frame(1, 5, 60));
    b.send(&frame(2, 0, 60));
    a.expect(&frame(2, 0, 60));
    assert_eq!((a.used(TX), b.receive()), (5, None), "a stopped ring is left alone");
    a.set_up(TX, 5);
    a.frontend.set_vring_kick(TX, &a.kicks[TX]).unwrap();
    b.expect(&frame(1, 5, 60));
    assert_eq!(a.frontend.get_vring_base(RX).unwrap(), 1);
    assert_eq!(a.frontend.get_vring_base(RX).unwrap(), 1, "twice");
}

#[test]
fn guest_that_goes_and_comes_back_loses_only_its_own_frames() {
    let (yard, a, mut b) = pair();
    drop(a);
    until("the carrier is gone", || !yard.carrier(0));
    b.send(&frame(2, 1, 60));
    until("the frame is consumed", || b.used(TX) == 1);
    let mut a = Guest::start(&yard.path(0));
    b.send(&frame(2, 2, 60));
    a.expect(&frame(2, 2, 60));
    a.send(&frame(1, 3, 60));
    b.expect(&frame(1, 3, 60));
}

#[test]
fn second_front_end_waits_until_the_first_is_gone() {
    let (yard, mut a, mut b) = pair();
    let mut second = Raw::connect(&yard.path(0));
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
    drop(a);
    second.assert_alive();
}

#[test]
fn client_finds_its_front_end_again() {
    let mut yard = Yard::new(1, 1);
    let path = yard.path(1);
    let role = SocketRole::Client { reconnect: Some(Duration::from_millis(20)) };
    yard.add(SocketChardev::open(&path, role, &SocketAccess::default()).unwrap(), 1);
    let mut a = Guest::start(&yard.path(0));
    let listener = UnixListener::bind(&path).unwrap();
    for round in 0..3 {
        let mut b = Guest::over(listener.accept().unwrap().0);
        b.start_rings();
        b.enable(true);
        a.send(&frame(1, round, 60));
        b.expect(&frame(1, round, 60));
    }
}

#[test]
fn unplugged_port_frees_its_chardev() {
    let (mut yard, _a, _b) = pair();
    yard.ports[0] = None;
    until("the guest is disconnected", || !yard.chardevs[0].is_connected());
    let line = yard.line(0);
    yard.ports[0] =
        Some(VhostUserPort::start(yard.chardevs[0].clone(), 1, line, Keeping::default()).unwrap());
    Raw::connect(&yard.path(0)).assert_alive();
}

#[test]
fn broken_ring_stops_alone_until_it_is_started_again() {
    let (yard, mut a, mut b) = pair();
    a.jump(TX, SIZE + 1);
    until("the ring is out of service", || yard.attachment(0).ingress.is_empty());
    assert!(a.error.read().is_ok(), "the front end is told");
    assert!(yard.attachment(0).rings[0].ingress.as_ref().unwrap().fault().is_some());
    b.send(&frame(2, 1, 60));
    a.expect(&frame(2, 1, 60));
    a.frontend.get_vring_base(TX).unwrap();
    a.frontend.get_vring_base(RX).unwrap();
    a.start_rings();
    a.send(&frame(1, 2, 60));
    b.expect(&frame(1, 2, 60));
}

#[test]
fn memory_comes_and_goes_under_traffic() {
    let (_yard, mut a, mut b) = pair();
    let more = crate::raw::memfd("more", 0x4000);
    for round in 0..100 {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0x1_0000_0000,
            memory_size: 0x1000,
            userspace_addr: 0x1000,
            mmap_offset: 0x2000,
            mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&more),
        };
        a.send(&frame(1, round, 60));
        a.frontend.add_mem_region(&region).unwrap();
        a.frontend.add_mem_region(&region).expect("QEMU 7.2 adds it again for each queue pair");
        a.send(&frame(1, round, 60));
        a.frontend.remove_mem_region(&region).unwrap();
        a.frontend.remove_mem_region(&region).expect("and removes it again");
        a.frontend.set_mem_table(&[a.region()]).unwrap();
        b.expect(&frame(1, round, 60));
        b.expect(&frame(1, round, 60));
    }
}

#[test]
fn memory_under_a_started_ring_stays() {
    let (_yard, mut a, mut b) = pair();
    let region = a.region();
    assert!(a.frontend.remove_mem_region(&region).is_err());
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
}

#[test]
fn hundred_resets_in_a_row_are_served() {
    let (yard, mut a, mut b) = pair();
    for _ in 0..100 {
        a.frontend.get_vring_base(RX).unwrap();
        a.frontend.get_vring_base(TX).unwrap();
        a.start_rings();
        a.enable(true);
    }
    a.frontend.reset_device().unwrap();
    assert!(!yard.carrier(0));
    a.frontend.set_features(crate::guest::FEATURES).unwrap();
    a.start_rings();
    a.enable(true);
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
}

#[test]
fn ring_without_kick_and_call_is_polled() {
    let (yard, mut a, mut b) = pair();
    let mut raw = Raw::over(a.socket.try_clone().unwrap());
    let ring = TX as u64 | 1 << 8;
    assert_eq!(raw.ask(SET_VRING_KICK, &ring.to_ne_bytes(), &[]), 0);
    assert_eq!(raw.ask(SET_VRING_CALL, &ring.to_ne_bytes(), &[]), 0);
    assert!(yard.attachment(0).ingress[0].doorbell.fd().is_none());
    a.kicks[TX] = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    a.send(&frame(1, 1, 60));
    b.expect(&frame(1, 1, 60));
}

#[test]
fn base_can_be_asked_for_after_a_status_of_zero() {
    let (yard, mut a, mut b) = pair();
    for fill in 0..3 {
        a.send(&frame(1, fill, 60));
        b.expect(&frame(1, fill, 60));
    }
    let mut raw = Raw::over(a.socket.try_clone().unwrap());
    assert_eq!(raw.ask(SET_STATUS, &0u64.to_ne_bytes(), &[]), 0);
    assert!(!yard.carrier(0) && yard.attachment(0).ingress.is_empty());
    assert_eq!(a.frontend.get_vring_base(TX).unwrap(), 3);
    a.frontend.reset_device().unwrap();
    assert_eq!(a.frontend.get_vring_base(TX).unwrap(), 0);
}

//! Messages that a front end may send at odd times, and what it is told.

use std::os::fd::AsFd;

use ringyard_dataplane::mac::Mac;

use crate::guest::Guest;
use crate::raw::*;
use crate::yard::{Yard, until};

#[test]
fn ring_may_be_enabled_before_features_are_set() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::connect(&yard.path(0));
    raw.send(SET_VRING_ENABLE, 0, &state(0, 1), &[]);
    raw.send(SET_VRING_ENABLE, NEED_REPLY, &state(1, 1), &[]);
    raw.assert_alive();
}

#[test]
fn status_is_echoed() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    for status in [0, 1, 3, 11, 15] {
        raw.send(39, 0, &u64::to_ne_bytes(status), &[]);
        raw.send(40, 0, &[], &[]);
        assert_eq!(raw.reply(40), status);
    }
    assert_eq!(raw.ask(39, &256u64.to_ne_bytes(), &[]), 1);
}

#[test]
fn mtu_is_checked() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    for (mtu, refused) in [(67, 1), (68, 0), (1500, 0), (65535, 0), (65536, 1), (u64::MAX, 1)] {
        assert_eq!(raw.ask(20, &u64::to_ne_bytes(mtu), &[]), refused, "{mtu}");
    }
}

#[test]
fn a_guest_is_announced_by_an_address_of_its_own() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let announce = |raw: &mut Raw, mac: [u8; 8]| raw.ask(19, &mac, &[]);
    assert_eq!(announce(&mut raw, [0x52, 0x54, 0, 1, 2, 3, 0, 0]), 0);
    assert_eq!(announce(&mut raw, [0xff; 8]), 1);
    assert_eq!(raw.ask(19, &[0x52; 6], &[]), 1);
    assert_eq!(announce(&mut raw, [2, 0, 0, 0, 0, 1, 9, 9]), 0);
    let announced = [Mac([0x52, 0x54, 0, 1, 2, 3]), Mac([2, 0, 0, 0, 0, 1])];
    until("both are announced", || yard.announced() == announced);
}

/// QEMU announces a guest when it has arrived, also one that is kept paused.
#[test]
fn a_guest_that_is_announced_before_its_rings_run_is_announced_again_when_they_do() {
    let yard = Yard::new(1, 1);
    let mut guest = Guest::connect(&yard.path(0));
    let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    let mut raw = Raw::over(guest.socket.try_clone().unwrap());
    for count in 1..=3 {
        assert_eq!(raw.ask(19, &[0x52, 0x54, 0, 0, 0, 1, 0, 0], &[]), 0);
        until("it is passed on", || yard.announced() == vec![mac; count]);
    }
    guest.start_rings();
    assert_eq!(yard.announced().len(), 3, "not enabled yet");
    guest.enable(true);
    until("it is announced with a carrier", || yard.carrier(0) && yard.announced() == [mac; 4]);
    guest.enable(false);
    guest.enable(true);
    assert_eq!(raw.ask(19, &[0x52, 0x54, 0, 0, 0, 1, 0, 0], &[]), 0);
    until("it is passed on", || yard.announced() == [mac; 5]);
}

#[test]
fn requests_without_their_protocol_feature_are_refused() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::connect(&yard.path(0));
    raw.send(SET_PROTOCOL_FEATURES, 0, &u64::to_ne_bytes(1 << 3), &[]);
    for request in [6, 17, 19, 20, 21, 24, 25, 31, 32, 34, 36, 37, 38, 39, 40] {
        assert_eq!(raw.ask(request, &[], &[]), 1, "{request}");
    }
    raw.assert_alive();
}

#[test]
fn p19_unknown_requests_are_skipped_whole() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    let file = memfd("extra", 0);
    for request in [0, 22, 23, 28, 33, 35, 41, 45, 99, u32::MAX] {
        raw.send(request, 0, &[0xaa; 100], &[file.as_fd()]);
        assert_eq!(raw.ask(request, &[0xbb; 4096], &[file.as_fd(), file.as_fd()]), 1, "{request}");
    }
    raw.assert_alive();
}

#[test]
fn what_was_offered_is_what_is_taken() {
    let yard = Yard::new(1, 2);
    let mut raw = Raw::connect(&yard.path(0));
    raw.send(GET_FEATURES, 0, &[], &[]);
    let features = raw.reply(GET_FEATURES);
    assert_ne!(features & 1 << 22, 0, "MQ with two queue pairs");
    raw.send(15, 0, &[], &[]);
    assert_eq!(raw.reply(15), PROTOCOL);
    raw.send(SET_PROTOCOL_FEATURES, 0, &PROTOCOL.to_ne_bytes(), &[]);
    raw.send(17, 0, &[], &[]);
    assert_eq!(raw.reply(17), 2, "queue pairs");
    raw.send(36, 0, &[], &[]);
    assert_eq!(raw.reply(36), 509);
    assert_eq!(raw.ask(SET_FEATURES, &features.to_ne_bytes(), &[]), 0);
}

#[test]
fn refused_request_that_wants_no_reply_ends_the_connection() {
    let yard = Yard::new(1, 1);
    let mut raw = Raw::negotiated(&yard.path(0));
    raw.send(SET_VRING_NUM, 0, &state(0, 3), &[]);
    raw.assert_closed();
    let mut raw = Raw::negotiated(&yard.path(0));
    raw.send(GET_VRING_BASE, NEED_REPLY, &state(3, 0), &[]);
    raw.assert_closed();
    Raw::connect(&yard.path(0)).assert_alive();
}

//! Rings that stop while they hold frames for a guest that is slow.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::mac::Mac;
use vhost::VhostBackend;

use crate::guest::{Guest, RX, SIZE, TX};
use crate::yard::{Yard, until};

/// A guest that sends numbered frames in turn to one that is slow and to one that is not.
struct Scene {
    yard: Yard,
    from: Guest,
    slow: Guest,
    fast: Guest,
    sent: u64,
    /// The numbers that arrived, at the slow one and at the other.
    received: [Vec<u64>; 2],
}

const MACS: [Mac; 2] = [Mac([0x52, 0x54, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, 2])];

impl Scene {
    fn new() -> Scene {
        let yard = Yard::new(3, 1);
        yard.set_mac(1, MACS[0]);
        yard.set_mac(2, MACS[1]);
        let [from, slow, fast] = [0, 1, 2].map(|port| Guest::start(&yard.path(port)));
        Scene { yard, from, slow, fast, sent: 0, received: Default::default() }
    }

    /// Fills the transmit ring.
    fn send(&mut self) {
        while (self.sent as u16).wrapping_sub(self.from.used(TX)) < SIZE {
            let mut frame = vec![0; 60];
            frame[..6].copy_from_slice(&MACS[self.sent as usize % 2].0);
            frame[6..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 9, 0x88, 0xb5]);
            frame[14..22].copy_from_slice(&self.sent.to_be_bytes());
            self.from.send(&frame);
            self.sent += 1;
        }
    }

    /// The slow guest takes up to `slow_max` frames, the other all.
    fn receive(&mut self, slow_max: usize) {
        let number = |frame: Vec<u8>| u64::from_be_bytes(frame[14..22].try_into().unwrap());
        for _ in 0..slow_max {
            self.received[0].extend(self.slow.receive().map(number));
        }
        while let Some(frame) = self.fast.receive() {
            self.received[1].push(number(frame));
        }
    }

    /// Frames that were given back with a ring that stopped.
    fn given_back(&self) -> u64 {
        self.yard.counters(0).ingress.drops[DropReason::NoRoom as usize]
    }

    /// Frames that arrived have been read from the ring; what is to be read has not arrived.
    fn assert_none_is_read_again(&mut self) {
        self.receive(usize::from(SIZE));
        let unread = u64::from((self.sent as u16).wrapping_sub(self.from.used(TX)));
        let read = self.sent - unread;
        assert!(self.received.iter().flatten().all(|&number| number < read), "{read}: {:?}", self.received);
    }

    fn assert_whole(&self) {
        for received in &self.received {
            assert!(received.is_sorted_by(|a, b| a < b), "in order, and none twice: {received:?}");
        }
        let arrived: u64 = self.received.iter().map(|received| received.len() as u64).sum();
        let ports = [0, 1, 2].map(|port| self.yard.counters(port));
        let drops = ports.iter().flat_map(|port| port.ingress.drops.iter().chain(&port.egress.drops));
        let dropped: u64 = drops.sum();
        assert_eq!(arrived + dropped, self.sent, "each arrived or was counted: {ports:?}");
        assert_eq!(ports[0].ingress.frames, self.sent);
    }
}

#[test]
fn stopped_ring_loses_nothing_unseen_and_doubles_nothing() {
    let mut scene = Scene::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.given_back() < 3 {
        assert!(Instant::now() < deadline, "nothing was ever held");
        scene.send();
        scene.receive(1);
        let base = scene.from.frontend.get_vring_base(TX).unwrap() as u16;
        assert_eq!(base, scene.from.used(TX), "the ring goes on from what was used");
        scene.from.set_up(TX, base);
        scene.from.frontend.set_vring_kick(TX, &scene.from.kicks[TX]).unwrap();
    }
    while scene.from.used(TX) != scene.sent as u16 {
        assert!(Instant::now() < deadline, "the ring does not go on");
        scene.receive(1);
    }
    until("the counts", || scene.yard.counters(0).ingress.frames == scene.sent);
    scene.receive(usize::from(SIZE));
    scene.assert_whole();
}

#[test]
fn front_end_that_goes_leaves_used_indexes_that_double_nothing() {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut given_back = 0;
    while given_back == 0 {
        assert!(Instant::now() < deadline, "nothing was ever held");
        let mut scene = Scene::new();
        while scene.slow.used(RX) < SIZE {
            assert!(Instant::now() < deadline, "the slow guest's ring is never full");
            scene.send();
            scene.receive(0);
        }
        for _ in 0..3 {
            scene.receive(1);
            scene.send();
        }
        scene.from.socket.shutdown(Shutdown::Both).unwrap();
        until("the carrier is gone", || !scene.yard.carrier(0));
        until("its rings are settled", || !scene.yard.chardevs[0].is_connected());
        given_back = scene.given_back();
        scene.assert_none_is_read_again();
    }
}

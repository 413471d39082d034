//! Front ends whose switch is killed at any instant and comes back.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use crate::guest::{Guest, RX, SIZE, TX};
use crate::keeper::Keeper;
use crate::packed::PackedGuest;
use crate::raw::{GET_VRING_BASE, NEED_REPLY, Raw, SET_STATUS, state};

/// Frames under way, at most. All of them fit into a ring twice: no receiver is ever full, so none is dropped for that.
const WINDOW: u64 = SIZE as u64 / 2;

/// Either kind of guest.
enum Either {
    Split(Guest),
    Packed(Box<PackedGuest>),
}

impl Either {
    /// Whether there is a place in the ring, which a switch that is killed may give back late.
    fn has_room(&mut self) -> bool {
        match self {
            Either::Split(guest) => guest.has_room(),
            Either::Packed(guest) => guest.has_room(),
        }
    }

    fn send(&mut self, frame: &[u8]) {
        match self {
            Either::Split(guest) => guest.send(frame),
            Either::Packed(guest) => guest.send(frame),
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        match self {
            Either::Split(guest) => guest.receive(),
            Either::Packed(guest) => guest.receive(),
        }
    }
}

/// One direction of traffic.
#[derive(Default)]
struct Flow {
    sent: u64,
    /// The next number that was never seen.
    next: u64,
    /// How often numbers began to come again, and how many there were of those.
    returns: u64,
    again: u64,
    last: u64,
}

impl Flow {
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0xff; 60];
        frame[6..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 9, 0x88, 0xb5]);
        frame[14..22].copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        frame
    }

    /// A frame arrived: the next one, or one of the last burst again, in order.
    fn take(&mut self, frame: &[u8]) {
        let number = u64::from_be_bytes(frame[14..22].try_into().unwrap());
        if number == self.next {
            self.next += 1;
        } else {
            assert!(number < self.next, "{number} came, and {} did not", self.next);
            assert!(self.next - number <= WINDOW, "{number} again, after {}", self.next - 1);
            self.again += 1;
            let goes_on = number == self.last + 1;
            self.returns += u64::from(!goes_on);
        }
        self.last = number;
    }
}

/// Sends both ways, kills the switch `kills` times, and looks at what arrived.
fn kill_under_traffic(packed: [bool; 2], kills: u64) {
    let keeper = Keeper::start();
    let mut guests = [0, 1].map(|port| match packed[port] {
        false => Either::Split(Guest::start_over(keeper.connect(port))),
        true => Either::Packed(Box::new(PackedGuest::start_over(keeper.connect(port), 16, port == 0))),
    });
    let mut flows = [Flow::default(), Flow::default()];
    let mut exchange = |flows: &mut [Flow; 2], sends: bool| {
        let mut moved = false;
        for port in [0, 1] {
            while sends && flows[port].sent - flows[port].next < WINDOW && guests[port].has_room() {
                guests[port].send(&flows[port].frame());
            }
            while let Some(frame) = guests[1 - port].receive() {
                flows[port].take(&frame);
                moved = true;
            }
        }
        moved
    };
    let mut gaps = Vec::new();
    let mut chance = 1u64;
    for kill in 0..kills {
        // The traffic runs, and then some time more, which differs.
        let (deadline, before) = (Instant::now() + Duration::from_secs(20), flows[0].next);
        while flows[0].next < before + 20 {
            exchange(&mut flows, true);
            assert!(Instant::now() < deadline, "frames move again after kill {kill}");
        }
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = Instant::now() + Duration::from_micros(chance >> 51);
        while Instant::now() < until {
            exchange(&mut flows, true);
        }
        let killed = keeper.kill();
        // What had arrived before is none of the successor's doing.
        exchange(&mut flows, true);
        while !exchange(&mut flows, true) {
            assert!(Instant::now() < deadline, "frames move again after kill {kill}");
        }
        gaps.push(killed.elapsed());
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while flows.iter().any(|flow| flow.next < flow.sent) {
        exchange(&mut flows, false);
        assert!(Instant::now() < deadline, "every frame arrives");
    }
    gaps.sort();
    println!("gaps: median {:?}, longest {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    for Flow { sent, returns, again, .. } in flows {
        println!("{sent} frames, {again} of them again, {returns} times");
        assert!(returns <= kills, "one burst a kill");
    }
}

#[test]
fn killed_switch_loses_no_frame_of_split_rings() {
    kill_under_traffic([false, false], 20);
}

#[test]
fn killed_switch_loses_no_frame_of_packed_rings() {
    kill_under_traffic([true, true], 20);
}

#[test]
fn killed_switch_loses_no_frame_between_split_and_packed_rings() {
    kill_under_traffic([false, true], 10);
}

/// Each of these has an answer, which must be right whoever gives it.
#[test]
fn every_request_is_answered_once_whenever_the_switch_is_killed() {
    let keeper = Arc::new(Keeper::start());
    let (mut a, mut b) = (Guest::start_over(keeper.connect(0)), Guest::start_over(keeper.connect(1)));
    let done = Arc::new(AtomicBool::new(false));
    let killer = {
        let (keeper, done) = (keeper.clone(), done.clone());
        thread::spawn(move || {
            let mut chance = 1u64;
            for _ in 0..30 {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Some are killed while they start.
                thread::sleep(Duration::from_micros(20_000 + (chance >> 47)));
                keeper.kill();
            }
            done.store(true, Ordering::Relaxed);
        })
    };
    let more = crate::raw::memfd("more", 0x4000);
    let mut rounds = 0u32;
    while !done.load(Ordering::Relaxed) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0x1_0000_0000,
            memory_size: 0x1000,
            userspace_addr: 0x1000,
            mmap_offset: 0x2000,
            mmap_handle: more.as_raw_fd(),
        };
        a.frontend.add_mem_region(&region).unwrap();
        assert_ne!(a.frontend.get_features().unwrap(), 0);
        a.frontend.remove_mem_region(&region).unwrap();
        let base = a.frontend.get_vring_base(TX).unwrap() as u16;
        assert_eq!(base, a.used(TX));
        a.set_up(TX, base);
        a.frontend.set_vring_kick(TX, &a.kicks[TX]).unwrap();
        a.frontend.set_vring_call(TX, &a.calls[TX]).unwrap();
        rounds += 1;
    }
    killer.join().unwrap();
    println!("{rounds} rounds");
    let frame = crate::guest::frame(1, 1, 60);
    a.send(&frame);
    b.expect(&frame);
    assert!(a.called(RX) || b.called(RX), "calls are heard");
}

#[test]
fn half_a_message_is_the_successors_to_read() {
    let keeper = Keeper::start();
    let mut raw = Raw::over(keeper.connect(0));
    raw.assert_alive();
    let message =
        [&[GET_VRING_BASE, 1 | NEED_REPLY, 8].map(u32::to_ne_bytes).concat()[..], &state(1, 0)].concat();
    for cut in [1, 11, 12, 13, 19] {
        raw.bytes(&message[..cut], &[]);
        thread::sleep(Duration::from_millis(20));
        keeper.kill();
        raw.bytes(&message[cut..], &[]);
        assert_eq!(raw.reply(GET_VRING_BASE), 1, "cut at {cut}");
    }
    raw.send(SET_STATUS, 0, &15u64.to_ne_bytes(), &[]);
    raw.assert_alive();
}

#[test]
fn front_end_that_is_gone_is_not_waited_for() {
    let keeper = Keeper::start();
    let guest = Guest::start_over(keeper.connect(0));
    keeper.kill();
    drop(guest);
    let mut b = Guest::start_over(keeper.connect(1));
    let mut a = Guest::start_over(keeper.connect(0));
    keeper.kill();
    let frame = crate::guest::frame(1, 1, 60);
    a.send(&frame);
    b.expect(&frame);
}

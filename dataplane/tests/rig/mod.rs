//! Ports made of plain memory for tests of full receivers: a sender that keeps what is not settled, as a ring does, and
//! a receiver with so much room.

#![allow(dead_code)] // each test target uses its own part of it

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringyard_dataplane::counters::PortCounters;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, Taken};
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::hub::HubOptions;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::{
    Arming, Doorbell, Egress, EgressScratch, Ingress, IngressEnd, IngressScratch,
};
use rustix::event::{EventfdFlags, eventfd};

/// Sends what it was told to, and looks no further than a burst beyond its first unsettled frame.
pub struct Window {
    queue: u16,
    /// `None`: settled, behind one that is not.
    frames: Mutex<VecDeque<Option<[u8; 60]>>>,
    bell: OwnedFd,
    pub polls: AtomicU64,
}

impl Window {
    pub fn new(queue: u16) -> Window {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        Window { queue, frames: Mutex::default(), bell, polls: AtomicU64::new(0) }
    }

    /// Frames of one flow to `to`, with these numbers.
    pub fn send(&self, to: Mac, numbers: Range<u64>) {
        self.push(numbers.map(|number| frame(to, number)));
    }

    /// Frames of a flow each.
    pub fn send_flows(&self, to: Mac, numbers: Range<u64>) {
        self.push(numbers.map(|number| {
            let mut frame = frame(to, number);
            frame[11] = number as u8;
            frame
        }));
    }

    fn push(&self, frames: impl Iterator<Item = [u8; 60]>) {
        self.frames.lock().unwrap().extend(frames.map(Some));
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }

    /// Frames that are not settled.
    pub fn waiting(&self) -> usize {
        self.frames.lock().unwrap().iter().flatten().count()
    }
}

impl Ingress for Window {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut frames = self.frames.lock().unwrap();
        let window: Vec<_> = frames.iter().take(BURST_FRAMES).copied().collect();
        let places: Vec<usize> = (0..window.len()).filter(|&place| window[place].is_some()).collect();
        let mut builder = scratch.burst.begin(self.queue);
        window.iter().flatten().for_each(|frame| builder.push_slice(frame).unwrap());
        if builder.is_empty() {
            return 0;
        }
        let taken = forward(&builder.burst());
        let settled: Vec<usize> =
            (0..places.len()).filter(|&index| taken.settled(index)).map(|index| places[index]).collect();
        settled.iter().for_each(|&place| frames[place] = None);
        while frames.front().is_some_and(Option::is_none) {
            frames.pop_front();
        }
        settled.len()
    }
}

impl Doorbell for Window {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn arm(&self) -> Arming {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        if self.frames.lock().unwrap().is_empty() { Arming::Quiet } else { Arming::Work }
    }

    fn disarm(&self) {}
}

/// Queue 0's duty of a port.
pub fn end_of(source: &Arc<Window>) -> IngressEnd {
    IngressEnd { queue: 0, ingress: source.clone(), doorbell: source.clone(), linger_us: 10, discard: None }
}

/// Remembers the numbers it was sent, while it has room.
pub struct Room {
    left: AtomicUsize,
    numbers: Mutex<Vec<u64>>,
    sends: AtomicUsize,
}

impl Room {
    pub fn new(frames: usize) -> Room {
        Room { left: AtomicUsize::new(frames), numbers: Mutex::default(), sends: AtomicUsize::new(0) }
    }

    /// Room for so many frames from now on.
    pub fn make(&self, frames: usize) {
        self.left.store(frames, Ordering::SeqCst);
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.numbers.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.numbers.lock().unwrap().len()
    }

    /// How often it was sent to.
    pub fn sends(&self) -> usize {
        self.sends.load(Ordering::SeqCst)
    }
}

impl Egress for Room {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        self.sends.fetch_add(1, Ordering::SeqCst);
        let mut numbers = self.numbers.lock().unwrap();
        for (settled, &pick) in picks.iter().enumerate() {
            let took = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if took.is_err() {
                return settled;
            }
            let frame = burst.frame(usize::from(pick));
            numbers.push(u64::from_be_bytes(frame.header()[14..22].try_into().unwrap()));
            scratch.tally.frames += 1;
            scratch.tally.bytes += frame.len() as u64;
        }
        picks.len()
    }
}

/// A hub that treats full receivers so.
pub fn options(full: FullReceiver) -> HubOptions {
    HubOptions { full }
}

pub fn own(port: u16) -> Mac {
    Mac([0x52, 0x54, 0, 1, (port >> 8) as u8, port as u8])
}

fn frame(to: Mac, number: u64) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0xff, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

pub fn assert_balanced(counters: &[PortCounters]) {
    let (mut takers, mut offered) = (0, 0);
    for port in counters {
        let (ingress, egress) = (port.ingress, port.egress);
        assert_eq!(ingress.frames, ingress.forwarded + ingress.drops.iter().sum::<u64>());
        assert_eq!(egress.offered, egress.frames + egress.drops.iter().sum::<u64>());
        takers += ingress.takers;
        offered += egress.offered;
    }
    assert_eq!(takers, offered);
}

//! One front end after the other at one port, as some bytes say, while two innocent guests exchange frames at two others.
//!
//! Each step is done by the [`Peer`], which keeps a small model of what the back end knows of it, and so knows how each
//! message must be answered and which frames must arrive. After each step the connection lives, or has ended, as the model
//! says; the innocents lose nothing. In the end all descriptors are gone and the books balance.

mod lies;
mod peer;
pub mod successor;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringyard_drivers::vhost_user::{Keeping, VhostUserPort};

use crate::guest::{Guest, frame};
use crate::yard::{Yard, until};
use peer::{Peer, RX, TX};

/// The innocents' ports, and the peer's.
const INNOCENTS: [usize; 2] = [0, 1];
const PEER: usize = 2;
/// Steps of one input, at most.
const STEPS_MAX: usize = 120;

thread_local! {
    /// One switch for all inputs of a thread: what one leaves behind would show at the next.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Steps that this thread has done.
#[allow(dead_code)] // the fuzz target does not ask
pub fn steps() -> u64 {
    STEPS.get()
}

/// Does what `input` says.
pub fn run(input: &[u8]) {
    with_world(|world| {
        let mut bytes = Bytes(input);
        let mut peer = world.connect(&mut bytes);
        for _ in 0..STEPS_MAX {
            let Some(step) = bytes.next() else { break };
            STEPS.set(STEPS.get() + 1);
            if step_of(step, world, &mut peer, &mut bytes) == Connection::Over {
                drop(peer);
                peer = world.connect(&mut bytes);
            }
            world.settle(&mut peer);
        }
        drop(peer);
        world.check_what_is_left();
    });
}

fn with_world(act: impl FnOnce(&mut World)) {
    WORLD.with_borrow_mut(|world| act(world.get_or_insert_with(World::new)));
}

/// The bytes that decide.
pub struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number below `end`; 0 when there are no bytes left.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % end
    }

    pub fn chance(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Any eight bytes.
    pub fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.next().unwrap_or(0)))
    }
}

/// What a step did to the connection.
#[derive(PartialEq, Eq)]
enum Connection {
    Goes,
    /// Closed by one side or the other.
    Over,
}

/// Does one step. Steps that make no sense as things stand are others.
fn step_of(step: u8, world: &mut World, peer: &mut Peer, bytes: &mut Bytes<'_>) -> Connection {
    let ring = bytes.below(2);
    match step % 24 {
        0 => peer.negotiate(bytes),
        1 => peer.set_memory(),
        2..=4 => peer.start_ring(ring, bytes),
        5 => peer.stop_ring(ring),
        6..=8 => peer.enable(ring, bytes.below(4) > 0),
        9..=12 => world.peer_sends(peer, bytes),
        13 => peer.echo_status(bytes),
        14 => peer.reset(bytes),
        15 => peer.toggle_extra_region(),
        16 | 17 => return lies::refused(peer, bytes),
        18 => return lies::fatal(peer, bytes),
        19 => return lies::torn(peer, bytes),
        20 => world.break_ring(peer, ring, bytes),
        21 => world.scribble(peer, bytes),
        22 => return world.truncate(peer),
        _ => {
            // A second front end at a busy port, and the first one's sudden end.
            if bytes.chance() {
                drop(crate::raw::Raw::connect(&world.yard.path(PEER)));
            }
            return if bytes.chance() { Connection::Over } else { Connection::Goes };
        }
    }
    Connection::Goes
}

/// A switch with three ports, two of them taken.
struct World {
    yard: Yard,
    innocents: [Guest; 2],
    /// Of the next frame: no two are alike.
    number: u64,
    /// Descriptors of this process while no front end is at the third port.
    descriptors: usize,
}

impl World {
    fn new() -> World {
        let yard = Yard::new(3, 1);
        let innocents = INNOCENTS.map(|port| Guest::start(&yard.path(port)));
        let mut world = World { yard, innocents, number: 0, descriptors: 0 };
        world.exchange(None);
        // What is made once, is made by the first front end.
        drop(world.connect(&mut Bytes(&[])));
        world.count_descriptors();
        world
    }

    /// Those that there are now, without a front end, are no leak.
    fn count_descriptors(&mut self) {
        self.wait_for_the_end();
        std::thread::sleep(Duration::from_millis(50));
        self.descriptors = descriptors();
    }

    fn connect(&mut self, bytes: &mut Bytes<'_>) -> Peer {
        Peer::connect(&self.yard.path(PEER), bytes)
    }

    /// After a step: the peer is served, and the innocents hear each other and, if it has a ring for that, the peer hears
    /// them.
    fn settle(&mut self, peer: &mut Peer) {
        peer.assert_alive();
        self.exchange(Some(peer));
        let [a, b] = &self.innocents;
        assert!(peer.is_wild() || !a.has_frame() && !b.has_frame(), "a frame more than was sent");
    }

    fn next_frame(&mut self, sender: u8) -> Vec<u8> {
        self.number += 1;
        let mut bytes = frame(sender, self.number as u8, 60 + self.number as usize % 200);
        bytes[14..22].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// A frame of one innocent to the other, and to the peer, if it is ready for it.
    fn exchange(&mut self, peer: Option<&mut Peer>) {
        let bytes = self.pass(peer.as_ref().is_some_and(|peer| peer.is_wild()));
        if let Some(peer) = peer {
            peer.receive(&bytes);
        }
    }

    /// A frame of one innocent to the other, and to whom it may concern; which one it is.
    fn pass(&mut self, wild: bool) -> Vec<u8> {
        let (from, to) = if self.number.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        let bytes = self.next_frame(from as u8);
        self.drain(wild);
        self.innocents[from].send(&bytes);
        self.expect(to, &bytes, wild);
        bytes
    }

    /// Starts the peer's port anew.
    fn start_port(&mut self, keeping: Keeping) {
        self.yard.ports[PEER] = None;
        let (chardev, line) = (self.yard.chardevs[PEER].clone(), self.yard.line(PEER));
        let port = VhostUserPort::start(chardev, 1, line, keeping).expect("a thread and descriptors");
        self.yard.ports[PEER] = Some(port);
    }

    /// The innocent at `port` receives that frame; before it, no other, unless a peer's ring is out of its own control.
    fn expect(&mut self, port: usize, bytes: &[u8], wild: bool) {
        loop {
            until("a frame for an innocent", || self.innocents[port].has_frame());
            let received = self.innocents[port].receive();
            if received.as_deref() == Some(bytes) {
                return;
            }
            assert!(wild, "{received:?} instead of {bytes:?}");
        }
    }

    /// Lets the innocents forget what a ring out of control sent them.
    fn drain(&mut self, wild: bool) {
        for innocent in &mut self.innocents {
            while let Some(bytes) = innocent.receive() {
                assert!(wild, "nobody sent {bytes:?}");
            }
        }
    }

    /// The peer sends some frames; both innocents get them in order, if its ring is enabled.
    fn peer_sends(&mut self, peer: &mut Peer, bytes: &mut Bytes<'_>) {
        if !peer.is_sound(TX) {
            return;
        }
        for _ in 0..=bytes.below(4) {
            let frame = self.next_frame(9);
            peer.send(&frame, bytes);
            if peer.is_live(TX) {
                (0..2).for_each(|port| self.expect(port, &frame, peer.is_wild()));
            }
        }
    }

    /// The peer breaks a rule of rings; that ring is told so, and is served no more.
    fn break_ring(&mut self, peer: &mut Peer, ring: usize, bytes: &mut Bytes<'_>) {
        if !peer.is_live(ring) || !peer.breaks(ring, bytes) {
            return;
        }
        if ring == RX {
            // It shows when the ring is used.
            self.exchange(Some(peer));
        }
        peer.assert_told_of_fault();
    }

    /// Anything at all is written into the peer's rings.
    fn scribble(&mut self, peer: &mut Peer, bytes: &mut Bytes<'_>) {
        if peer.has_started() {
            self.drain(peer.is_wild());
            peer.scribble(bytes);
        }
    }

    /// A file of the peer's memory is truncated, and used: its connection ends.
    fn truncate(&mut self, peer: &mut Peer) -> Connection {
        if !peer.is_live(TX) || peer.is_wild() {
            return Connection::Goes;
        }
        peer.send_from_a_truncated_file();
        peer.assert_closed();
        self.drain(true);
        Connection::Over
    }

    fn wait_for_the_end(&self) {
        until("the end of the connection", || !self.yard.chardevs[PEER].is_connected());
    }

    /// The front end is gone, and so is all that it brought; every frame is accounted for.
    fn check_what_is_left(&mut self) {
        self.wait_for_the_end();
        self.drain(true);
        self.exchange(None);
        let most = self.descriptors;
        until("descriptors to be closed", || descriptors() <= most);
        until("the books to balance", || self.is_balanced());
    }

    fn is_balanced(&self) -> bool {
        let ports = [0, 1, 2].map(|port| self.yard.counters(port));
        let takers: u64 = ports.iter().map(|port| port.ingress.takers).sum();
        let offered: u64 = ports.iter().map(|port| port.egress.offered).sum();
        takers == offered
            && ports.iter().all(|port| {
                let dropped = |drops: &[u64]| drops.iter().sum::<u64>();
                port.ingress.frames == port.ingress.forwarded + dropped(&port.ingress.drops)
                    && port.egress.offered == port.egress.frames + dropped(&port.egress.drops)
            })
    }
}

/// Open descriptors of this process, but for one that libFuzzer opens when it likes.
fn descriptors() -> usize {
    let is_ours = |link: PathBuf| link != Path::new("/dev/null");
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| {
        entries.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(is_ours)).count()
    })
}

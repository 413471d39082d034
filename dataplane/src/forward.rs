//! One forwarding step: from a burst to the egresses that take its frames.
//!
//! Classify first: each frame's header becomes picks in the [`Outbox`], a list a destination. Then one send a
//! destination, so that a receiver's ring is opened once a burst. Frames that found no room are held or dropped
//! ([`crate::hold`]). Everything is counted here, and only here; what is held is not counted until it is settled.

use std::time::Instant;

use std::ops::Range;

use crate::counters::Journal;
use crate::drops::DropReason;
use crate::frame::{BURST_FRAMES, Burst, Frame, Taken};
use crate::hold::{Destination, FullReceivers, Holding, Keeper};
use crate::hub::Verdict;
use crate::port::{EgressScratch, IngressEnd, IngressScratch, Tally};
use crate::snapshot::{Duty, PortIndex, PortView, Snapshot};

/// One worker's means to forward: its scratch memory and its place in the journal.
pub struct Forwarder<'j> {
    journal: &'j Journal,
    worker: usize,
    now_s: u32,
    outbox: Outbox,
    ingress: IngressScratch,
    egress: EgressScratch,
    full: FullReceivers,
    /// Microseconds since whenever; asked only when something is held.
    clock: Box<dyn Fn() -> u64 + 'j>,
}

/// What was decided of the frames of one burst, by destination.
#[derive(Default)]
struct Outbox {
    lists: Vec<Picks>,
    touched: Vec<PortIndex>,
    /// The frames that more than one port takes or refuses, a bit each.
    shared: u64,
}

/// The frames that one port is offered.
#[derive(Clone)]
struct Picks {
    count: u8,
    /// A queue of it may have been full when it was last sent to.
    full: bool,
    picks: [u8; BURST_FRAMES],
    /// Offered and refused at once.
    refused: Tally,
}

impl Default for Picks {
    fn default() -> Picks {
        Picks { count: 0, full: false, picks: [0; BURST_FRAMES], refused: Tally::default() }
    }
}

impl Outbox {
    /// Makes room for `ports` ports; outside of polls.
    fn resize(&mut self, ports: usize) {
        if self.lists.len() < ports {
            self.lists.resize(ports, Picks::default());
            self.touched.reserve(ports);
        }
    }

    #[inline]
    fn list(&mut self, port: PortIndex) -> &mut Picks {
        let list = &mut self.lists[port.at()];
        if list.count == 0 && list.refused.drops == [0; DropReason::COUNT] {
            self.touched.push(port);
        }
        list
    }

    #[inline]
    fn take(&mut self, port: PortIndex, frame: u8) {
        let list = self.list(port);
        list.picks[usize::from(list.count) & (BURST_FRAMES - 1)] = frame;
        list.count += 1;
    }

    /// As [`Self::take`], of frames in a row, after one of which it was called.
    #[inline]
    fn take_more(&mut self, port: PortIndex, frames: Range<usize>) {
        let list = &mut self.lists[port.at()];
        let mut count = usize::from(list.count);
        for frame in frames {
            list.picks[count & (BURST_FRAMES - 1)] = frame as u8;
            count += 1;
        }
        list.count = count as u8;
    }

    fn refuse(&mut self, port: PortIndex, reason: DropReason) {
        self.list(port).refused.drop(reason);
    }
}

/// What became of one burst at its ingress.
#[derive(Default)]
struct Outcome {
    frames: u64,
    bytes: u64,
    forwarded: u64,
    takers: u64,
    drops: [u64; DropReason::COUNT],
}

impl Outcome {
    /// Takes back what was counted of the frames that are held, each of which had one taker.
    #[cold]
    fn take_back(&mut self, burst: &Burst<'_>, held: u64) {
        let count = u64::from(held.count_ones());
        self.frames -= count;
        self.forwarded -= count;
        self.takers -= count;
        let bytes = |index: usize| burst.frame(index).len() as u64;
        self.bytes -= (0..burst.len()).filter(|index| held >> index & 1 == 1).map(bytes).sum::<u64>();
    }
}

impl<'j> Forwarder<'j> {
    /// For worker `worker` of the journal.
    pub fn new(journal: &'j Journal, worker: usize) -> Forwarder<'j> {
        let epoch = Instant::now();
        Forwarder::with_clock(journal, worker, move || epoch.elapsed().as_micros() as u64)
    }

    /// The same with a clock of the caller's, which counts microseconds.
    pub fn with_clock(journal: &'j Journal, worker: usize, clock: impl Fn() -> u64 + 'j) -> Forwarder<'j> {
        Forwarder {
            journal,
            worker,
            now_s: 0,
            outbox: Outbox::default(),
            ingress: IngressScratch::default(),
            egress: EgressScratch::default(),
            full: FullReceivers::new(),
            clock: Box::new(clock),
        }
    }

    /// Makes room for what a new snapshot holds.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        self.outbox.resize(snapshot.ports.len());
        self.full.retain(|port| snapshot.ports.get(port.at()).is_some_and(Option::is_some));
    }

    /// Says what time it is, in seconds by the switch's clock; hubs learn and forget by it.
    pub fn set_time(&mut self, now_s: u32) {
        self.now_s = now_s;
    }

    /// Polls one duty once and forwards what it lends. Returns how many frames left the sender.
    pub fn serve(&mut self, snapshot: &Snapshot, duty: &Duty, holding: &mut Holding) -> usize {
        let Some(port) = snapshot.ports[duty.port.at()].as_deref() else { return 0 };
        let Forwarder { journal, worker, now_s, outbox, ingress, egress, full, clock } = self;
        let mut outcome = Outcome::default();
        let hub = port.hub.map(|hub| &*snapshot.hubs[hub as usize]);
        let mut keeper = Keeper { journal, worker: *worker, hub, full, holding, clock, shared: 0, held: 0 };
        let block = journal.block(duty.port.at(), *worker);
        let mut lent = false;
        let polled = duty.end.ingress.poll(ingress, &mut |burst| {
            block.begin_burst(burst.len());
            lent = true;
            outcome.frames += burst.len() as u64;
            outcome.bytes += burst.bytes() as u64;
            match silence(port, &duty.end) {
                Some(reason) => outcome.drops[reason as usize] += burst.len() as u64,
                None => {
                    classify(snapshot, duty.port, *now_s, burst, outbox, &mut outcome);
                    dispatch(snapshot, burst, outbox, egress, &mut keeper);
                }
            }
            if keeper.held != 0 {
                outcome.take_back(burst, keeper.held);
            }
            Taken(!keeper.held)
        });
        if keeper.held != 0 || keeper.holding.is_on() {
            keeper.finish(polled);
        }
        if polled > 0 {
            let given_up = std::mem::take(&mut ingress.tally);
            outcome.frames += given_up.dropped();
            outcome.drops.iter_mut().zip(given_up.drops).for_each(|(sum, count)| *sum += count);
            block.count_ingress(
                outcome.frames,
                outcome.bytes,
                outcome.forwarded,
                outcome.takers,
                &outcome.drops,
            );
        }
        if lent {
            block.end_burst();
        }
        polled
    }

    /// Forgets the burst in which a panic ended [`Self::serve`].
    #[cold]
    pub(crate) fn recover(&mut self) {
        self.outbox.touched.clear();
        let lists = self.outbox.lists.iter_mut();
        lists.for_each(|list| (list.count, list.refused) = (0, Tally::default()));
        self.ingress.tally = Tally::default();
    }
}

/// Why all frames of this ingress are consumed and dropped, if they are.
#[inline]
fn silence(port: &PortView, end: &IngressEnd) -> Option<DropReason> {
    end.discard.or(port.silenced).or(if port.hub.is_none() { Some(DropReason::NoReceiver) } else { None })
}

/// Turns each frame into picks.
#[inline]
fn classify(
    snapshot: &Snapshot,
    sender: PortIndex,
    now_s: u32,
    burst: &Burst<'_>,
    outbox: &mut Outbox,
    outcome: &mut Outcome,
) {
    let Some(hub) = snapshot.ports[sender.at()].as_ref().and_then(|port| port.hub) else { return };
    let mut classifier = snapshot.hubs[hub as usize].classifier(sender, now_s);
    // In locals: what a closure reaches by reference is written to memory for every frame.
    let (mut forwarded, mut all_takers, mut shared) = (0, 0, 0);
    let mut index = 0;
    while index < burst.len() {
        let (mut takers, mut taker) = (0, None);
        classifier.for_each_taker(&burst.frame(index), |verdict| {
            takers += 1;
            match verdict {
                Verdict::Take(port) => {
                    taker = Some(port);
                    outbox.take(port, index as u8);
                }
                Verdict::Refuse(port, reason) => outbox.refuse(port, reason),
            }
        });
        let mut frames = 1;
        // What begins alike goes the same way. Frames for several, and those that are refused, are decided one by one.
        if let (1, Some(port)) = (takers, taker) {
            frames += burst.alike_after(index);
            outbox.take_more(port, index + 1..index + frames);
        }
        if takers > 0 {
            forwarded += frames as u64;
            all_takers += takers * frames as u64;
        }
        shared |= u64::from(takers > 1) << index;
        index += frames;
    }
    outbox.shared = shared;
    outcome.forwarded += forwarded;
    outcome.takers += all_takers;
    outcome.drops[DropReason::NoReceiver as usize] += burst.len() as u64 - forwarded;
}

/// Hands every destination its share and empties the outbox. Counts what each port was offered and what became of
/// that, but for what `keeper` holds.
#[inline]
fn dispatch(
    snapshot: &Snapshot,
    burst: &Burst<'_>,
    outbox: &mut Outbox,
    scratch: &mut EgressScratch,
    keeper: &mut Keeper<'_>,
) {
    let Outbox { lists, touched, shared } = outbox;
    keeper.shared = *shared;
    for port in touched.drain(..) {
        let Picks { count, full, picks, refused } = &mut lists[port.at()];
        let picks = &picks[..usize::from(std::mem::take(count))];
        scratch.tally = std::mem::take(refused);
        let mut offered = picks.len() as u64 + scratch.tally.dropped();
        let queues = snapshot.ports[port.at()].as_ref().map_or(&[][..], |view| &view.egress);
        let mut offer = |queue: usize, picks: &[u8]| {
            let settled = queues[queue].send(scratch, burst, picks);
            if settled < picks.len() || *full {
                let to = Destination { port, queue: queue as u16, queues: queues.len() };
                let found = keeper.keep(&to, settled, &picks[settled..], &mut scratch.tally);
                *full = found.full;
                offered -= found.held;
            }
        };
        match queues.len() {
            0 => scratch.tally.drops[DropReason::NotReady as usize] += picks.len() as u64,
            1 => offer(0, picks),
            count => offer_to_queues(count, burst, picks, offer),
        }
        keeper.journal.block(port.at(), keeper.worker).count_egress(offered, &scratch.tally);
    }
}

/// The sender's queue decides where the receiver has as many; else each flow keeps to one queue (virtio 1.2,
/// 5.1.6.5.6). Never the worker, so that moving a duty reorders nothing.
fn offer_to_queues(queues: usize, burst: &Burst<'_>, picks: &[u8], mut offer: impl FnMut(usize, &[u8])) {
    let queue = usize::from(burst.queue());
    if queue < queues {
        return offer(queue, picks);
    }
    for queue in 0..queues {
        let mut share = [0; BURST_FRAMES];
        let mut count = 0;
        for &pick in picks {
            if flow(&burst.frame(usize::from(pick))) as usize % queues == queue {
                share[count] = pick;
                count += 1;
            }
        }
        if count > 0 {
            offer(queue, &share[..count]);
        }
    }
}

/// A number that is the same for all frames of a flow: from the addresses, and for unfragmented TCP and UDP from the
/// ports (which stand at the same place in both, and hold a part of any other payload that is constant or harmless).
fn flow(frame: &Frame<'_>) -> u32 {
    let header = frame.header();
    let mut hash = 0x811c_9dc5u32;
    let mut mix =
        |bytes: &[u8]| bytes.iter().for_each(|&b| hash = (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    mix(&header[..12]);
    match flow_fields(header) {
        Some((addresses, ports)) => {
            mix(addresses);
            mix(ports);
        }
        None => mix(&header[12..14]),
    }
    hash >> 8
}

/// The addresses of an IP packet, and the ports of an unfragmented TCP or UDP one.
fn flow_fields(header: &[u8]) -> Option<(&[u8], &[u8])> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let tag = if header[12..14] == [0x81, 0x00] { 4 } else { 0 };
    let packet = header.get(14 + tag..)?;
    match *header.get(12 + tag..14 + tag)? {
        [0x08, 0x00] if packet.len() >= 20 => {
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            let start = usize::from(packet[0] & 0x0f) * 4;
            let has_ports = !fragment && matches!(packet[9], TCP | UDP);
            let ports = if has_ports { packet.get(start..start + 4).unwrap_or_default() } else { &[] };
            Some((&packet[12..20], ports))
        }
        [0x86, 0xdd] if packet.len() >= 40 => {
            let ports =
                if matches!(packet[6], TCP | UDP) { packet.get(40..44).unwrap_or_default() } else { &[][..] };
            Some((&packet[8..40], ports))
        }
        _ => None,
    }
}

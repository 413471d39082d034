//! Numbered frames from one packet socket to another, sent at a steady rate beside the test, so that it can change the
//! switch under traffic and then count what was lost, doubled or overtaken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::packet::PacketSocket;

/// The EtherType of numbered frames: IEEE 802, local experimental 1.
pub const ETHERTYPE: u16 = 0x88b5;

/// What a flow sends.
#[derive(Clone, Copy, Debug)]
pub struct FlowConfig {
    /// The frames' destination address.
    pub destination: [u8; 6],
    /// The frames' source address.
    pub source: [u8; 6],
    /// The frames' length in bytes, without the FCS; at least [`LENGTH_MIN`].
    pub length: usize,
    /// Frames a second.
    pub rate: u32,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowReport {
    /// Frames sent, numbered from 0.
    pub sent: u64,
    /// Different frames received.
    pub received: u64,
    /// Frames received once more.
    pub doubled: u64,
    /// Frames received after one with a higher number.
    pub overtaken: u64,
}

impl FlowReport {
    /// Frames that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// A running flow.
pub struct Flow {
    stop_sending: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Tally>>,
}

impl Flow {
    /// Starts sending at `from` and counting at `to`.
    pub fn start(from: PacketSocket, to: PacketSocket, config: FlowConfig) -> Flow {
        Flow::exchange(from, to, config, config.source)
    }

    /// As [`Flow::start`], but what is counted is the other side's flow, from the address `source`.
    pub fn exchange(from: PacketSocket, to: PacketSocket, config: FlowConfig, source: [u8; 6]) -> Flow {
        let flag = || Arc::new(AtomicBool::new(false));
        let (stop_sending, stop) = (flag(), flag());
        let (sender_stop, receiver_stop) = (stop_sending.clone(), stop.clone());
        Flow {
            stop_sending,
            stop,
            receiver: thread::spawn(move || count(&to, source, &receiver_stop)),
            sender: thread::spawn(move || send(&from, config, &sender_stop)),
        }
    }

    /// Sends no more, and goes on counting.
    pub fn stop_sending(&self) {
        // Relaxed: the flag carries no data with it.
        self.stop_sending.store(true, Ordering::Relaxed);
    }

    /// Stops sending, counts until nothing has come for [`SILENCE`], and reports.
    pub fn finish(self) -> Result<FlowReport> {
        self.end().map(|tally| tally.report)
    }

    /// The same, with when each frame came.
    pub fn finish_with_arrivals(self) -> Result<(FlowReport, Vec<Instant>)> {
        self.end().map(|tally| (tally.report, tally.arrivals))
    }

    /// As [`Flow::finish`], with the runs of numbers that did not come before the last that did: where each begins, and
    /// how long it is.
    pub fn finish_with_gaps(self) -> Result<(FlowReport, Vec<(u64, u64)>)> {
        self.end().map(|tally| (tally.report, gaps(&tally.seen)))
    }

    fn end(self) -> Result<Tally> {
        self.stop_sending();
        let panicked = |_| Error::new("a thread of the flow panicked");
        let sent = self.sender.join().map_err(panicked)??;
        // Relaxed: the flag carries no data with it.
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = self.receiver.join().map_err(panicked)??;
        tally.report.sent = sent;
        Ok(tally)
    }
}

/// The frame with that number.
pub fn numbered_frame(config: FlowConfig, number: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(config.length.max(LENGTH_MIN));
    frame.extend_from_slice(&config.destination);
    frame.extend_from_slice(&config.source);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(config.length.max(LENGTH_MIN), 0);
    frame
}

/// The number of a numbered frame from `source`; `None` for any other frame.
pub fn number_of(frame: &[u8], source: [u8; 6]) -> Option<u64> {
    let header = frame.get(..LENGTH_MIN)?;
    if header[6..12] != source || header[12..14] != ETHERTYPE.to_be_bytes() {
        return None;
    }
    header[14..22].try_into().ok().map(u64::from_be_bytes)
}

fn gaps(seen: &[bool]) -> Vec<(u64, u64)> {
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for (number, _) in (0..).zip(seen).filter(|(_, seen)| !**seen) {
        match gaps.last_mut() {
            Some((first, len)) if *first + *len == number => *len += 1,
            _ => gaps.push((number, 1)),
        }
    }
    gaps
}

/// Counts numbers as they come.
#[derive(Default)]
struct Tally {
    seen: Vec<bool>,
    report: FlowReport,
    arrivals: Vec<Instant>,
}

impl Tally {
    fn add(&mut self, number: u64) {
        self.arrivals.push(Instant::now());
        let at = number as usize;
        if at + 1 < self.seen.len() {
            self.report.overtaken += 1;
        }
        if at >= self.seen.len() {
            self.seen.resize(at + 1, false);
        }
        match std::mem::replace(&mut self.seen[at], true) {
            true => self.report.doubled += 1,
            false => self.report.received += 1,
        }
    }
}

fn count(socket: &PacketSocket, source: [u8; 6], stop: &AtomicBool) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        // Read before the wait: a frame sent just before the stop must still find us waiting.
        let stopped = stop.load(Ordering::Relaxed);
        match socket.receive(SILENCE)? {
            Some(frame) => number_of(&frame, source).into_iter().for_each(|number| tally.add(number)),
            None if stopped => return Ok(tally),
            None => {}
        }
    }
}

fn send(socket: &PacketSocket, config: FlowConfig, stop: &AtomicBool) -> Result<u64> {
    let interval = Duration::from_secs(1) / config.rate;
    let start = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.send(&numbered_frame(config, number))?;
        number += 1;
        let due = start + interval.mul_f64(number as f64);
        // Pacing, not waiting for anything.
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
    }
    Ok(number)
}

/// Reads the numbers `0..count` at `socket`, in any order and with anything between them; the report when all have come
/// or `within` has passed. For frames that the caller sent itself.
pub fn collect(socket: &PacketSocket, source: [u8; 6], count: u64, within: Duration) -> Result<FlowReport> {
    let mut tally = Tally { report: FlowReport { sent: count, ..FlowReport::default() }, ..Tally::default() };
    let deadline = Deadline::after(within);
    while tally.report.received < count {
        let Some(left) = deadline.remaining() else { break };
        if let Some(frame) = socket.receive(left)? {
            number_of(&frame, source).into_iter().for_each(|number| tally.add(number));
        }
    }
    Ok(tally.report)
}

/// The longest time without a frame from each of these moments to the next.
pub fn silences(arrivals: &[Instant], moments: &[Instant]) -> Vec<Duration> {
    let longest = |index: usize| {
        let next = moments.get(index + 1).copied();
        let first = arrivals.partition_point(|&at| at < moments[index]);
        let mut last = moments[index];
        let within = arrivals[first..].iter().take_while(|&&at| next.is_none_or(|next| at < next));
        let gaps = within.map(|&at| at.saturating_duration_since(std::mem::replace(&mut last, at)));
        gaps.max().unwrap_or(Duration::MAX)
    };
    (0..moments.len()).map(longest).collect()
}

/// Addresses, EtherType and number.
pub const LENGTH_MIN: usize = 22;
/// A flow has ended when nothing has come for so long after its last frame was sent.
pub const SILENCE: Duration = Duration::from_millis(300);

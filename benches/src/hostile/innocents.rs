//! Two guests that do nothing wrong: numbered frames both ways, all the time, in a closed loop on a thread of their own.
//! Nothing has to be lost, so whatever is lost is what an attacker has done to them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result};
use crate::front_end::FrontEnd;
use crate::guest::{Features, GuestConfig};
use crate::traffic::{Faults, Template, Verifier, guest_mac};

/// What frames other than the innocents' own are, by their EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An attacker's, to nobody: does its ring still work?
    Probe,
    /// An attacker's, to the first innocent.
    Attack,
    /// An innocent's, to everybody: does the attacker's receive ring still work?
    Call,
}

/// Bytes of a frame to everybody.
pub const CALL_LEN: usize = 200;

/// Where the attacker is plugged in, counted as guests are.
pub const ATTACKER: usize = 2;

impl Kind {
    /// A frame of `len` bytes, at least 14.
    pub fn frame(self, len: usize) -> Vec<u8> {
        let mut frame = vec![0x5a; len];
        let (to, from) = match self {
            Kind::Probe => ([0x52, 0x59, 0xff, 0xff, 0xff, 0xfe], ATTACKER),
            Kind::Attack => (guest_mac(0).0, ATTACKER),
            Kind::Call => ([0xff; 6], 0),
        };
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&guest_mac(from).0);
        frame[12..14].copy_from_slice(&self.ether_type());
        frame
    }

    fn ether_type(self) -> [u8; 2] {
        match self {
            Kind::Probe => [0x88, 0xb5],
            Kind::Attack => [0x88, 0xb6],
            Kind::Call => [0x88, 0xb7],
        }
    }
}

/// What the thread tells, and is told.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Turns of the loop. Written by the thread.
    turns: AtomicU64,
    /// Good frames, each way. Written by the thread.
    frames: [AtomicU64; 2],
    /// Frames of an attacker that arrived and were no probes. Written by the thread.
    strangers: AtomicU64,
    /// Calls to the attacker that are still to be made.
    calls: AtomicU64,
    /// What went wrong so far, and what ended the loop. Written by the thread.
    trouble: Mutex<(Faults, Option<String>)>,
}

/// The innocents. Dropping them unplugs them.
pub struct Innocents {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Innocents {
    /// Plugs both in, the first with split rings and the second with packed ones if they are offered, and waits until
    /// frames pass.
    pub fn plug(sockets: [&Path; 2]) -> Result<Innocents> {
        let config = |features| GuestConfig { ring_size: 1024, features, ..GuestConfig::default() };
        let split = config(Features { in_order: false, ..Features::SPLIT });
        let ends =
            [FrontEnd::connect(sockets[0], &split)?, FrontEnd::connect(sockets[1], &config(Features::ALL))?];
        let flows = [Flow::new(0, 1)?, Flow::new(1, 0)?];
        let shared = Arc::new(Shared::default());
        let mut running =
            Loop { lively: Instant::now(), ends, flows, shared: shared.clone(), scratch: vec![0; 4096] };
        running.open()?;
        let thread = thread::Builder::new().name("innocents".into()).spawn(move || running.run());
        Ok(Innocents { shared, thread: Some(thread.doing("starting the innocents' thread")?) })
    }

    /// Waits until both have received `count` more frames.
    ///
    /// Errors: they did not, or were disconnected.
    pub fn exchange(&self, count: u64) -> Result<()> {
        let before = self.frames();
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        loop {
            if let Some(why) = &self.trouble().1 {
                return Err(Error::new(why));
            }
            if self.frames().iter().zip(before).all(|(now, before)| *now >= before + count) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = EXCHANGE_TIME_MAX.as_secs();
                return Err(Error::new(format!("no {count} frames each way within {seconds} s")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Good frames so far, each way.
    pub fn frames(&self) -> [u64; 2] {
        [0, 1].map(|way| self.shared.frames[way].load(Ordering::Relaxed))
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        self.trouble().0
    }

    /// An attacker's frames that have arrived, apart from probes.
    pub fn strangers(&self) -> u64 {
        self.shared.strangers.load(Ordering::Relaxed)
    }

    /// Waits for two whole turns: what had arrived before has been looked at, and there is room in the receive rings.
    pub fn turn(&self) {
        let before = self.shared.turns.load(Ordering::Relaxed);
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        while self.shared.turns.load(Ordering::Relaxed) < before + 2 && Instant::now() < deadline {
            thread::sleep(PAUSE / 2);
        }
    }

    /// Has the first one send `count` frames to everybody, and waits until it has.
    pub fn call(&self, count: u64) {
        self.shared.calls.fetch_add(count, Ordering::Relaxed);
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        while self.shared.calls.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(PAUSE / 2);
        }
    }

    fn trouble(&self) -> MutexGuard<'_, (Faults, Option<String>)> {
        lock(&self.shared.trouble)
    }
}

impl Drop for Innocents {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed; what it left is nothing to us.
            let _ = thread.join();
        }
    }
}

struct Flow {
    template: Template,
    verifier: Verifier,
    sent: u64,
}

impl Flow {
    fn new(from: usize, to: usize) -> Result<Flow> {
        let template = Template::new(from, to, FRAME_LEN)?;
        Ok(Flow { verifier: Verifier::new(&template), template, sent: 0 })
    }
}

struct Loop {
    /// When frames came last, or were sent again.
    lively: Instant,
    ends: [FrontEnd; 2],
    flows: [Flow; 2],
    shared: Arc<Shared>,
    scratch: Vec<u8>,
}

impl Loop {
    /// Sends probes until one arrives each way: a switch may still be busy plugging in.
    fn open(&mut self) -> Result<()> {
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        for way in [0, 1] {
            let mut probe = Template::probe(way, 1 - way)?;
            let mut came = 0;
            while came == 0 {
                let queue = &mut self.ends[way].guest.pair().send;
                queue.reclaim().doing("taking back sent buffers")?;
                queue.send(probe.stamp(0));
                queue.flush();
                thread::sleep(Duration::from_millis(5));
                came = self.ends[1 - way].guest.pair().receive.receive(64, |_| ())?;
                if Instant::now() > deadline {
                    return Err(Error::new(format!("no frame came from innocent {way} to the other")));
                }
            }
        }
        // What is left on the way are probes, which no verifier counts.
        Ok(())
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.turn() {
                Ok(received) => {
                    let mut faults = Faults::default();
                    for (flow, frames) in self.flows.iter().zip(&self.shared.frames) {
                        faults.add(flow.verifier.faults_so_far());
                        frames.store(flow.verifier.frames(), Ordering::Relaxed);
                    }
                    lock(&self.shared.trouble).0 = faults;
                    self.shared.turns.fetch_add(1, Ordering::Relaxed);
                    // Not as fast as can be: the attacker needs a core too.
                    thread::sleep(if received == 0 { PAUSE } else { PAUSE / 4 });
                }
                Err(error) => {
                    lock(&self.shared.trouble).1 = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// Sends what the windows allow, receives what came. Returns how many frames came.
    fn turn(&mut self) -> Result<usize> {
        let calls = self.shared.calls.load(Ordering::Relaxed).min(CALLS_A_TURN);
        // Where a whole window was lost, only a later frame tells.
        let more = if self.lively.elapsed() > SILENCE_MAX { 1 } else { 0 };
        if more > 0 {
            self.lively = Instant::now();
        }
        let mut received = 0;
        for (way, flow) in self.flows.iter_mut().enumerate() {
            let queue = &mut self.ends[way].guest.pair().send;
            queue.reclaim().doing("taking back sent buffers")?;
            let under_way = flow.sent.saturating_sub(flow.verifier.next());
            for _ in 0..WINDOW.saturating_sub(under_way).max(more) {
                if !queue.send(flow.template.stamp(flow.sent)) {
                    break;
                }
                flow.sent += 1;
            }
            if way == 0 {
                let frame = Kind::Call.frame(CALL_LEN);
                let made = (0..calls).take_while(|_| queue.send(&frame)).count();
                self.shared.calls.fetch_sub(made as u64, Ordering::Relaxed);
            }
            queue.flush();
        }
        for (way, flow) in self.flows.iter_mut().enumerate() {
            let (verifier, scratch, shared) = (&mut flow.verifier, &mut self.scratch, &self.shared);
            // An attacker may lie about who it is; what it sends is no IP.
            let mine = [&guest_mac(1 - way).0[..], &guest_mac(way).0, &[8, 0]].concat();
            let queue = &mut self.ends[1 - way].guest.pair().receive;
            received += queue.receive(TURN, |frame| {
                let frame = frame.copy_to(scratch);
                if frame.get(..14) == Some(&mine[..]) {
                    verifier.check(frame);
                } else if ![Kind::Probe, Kind::Call]
                    .iter()
                    .any(|kind| frame.get(12..14) == Some(&kind.ether_type()[..]))
                {
                    shared.strangers.fetch_add(1, Ordering::Relaxed);
                }
            })?;
        }
        if received > 0 {
            self.lively = Instant::now();
        }
        Ok(received)
    }
}

/// A thread that panicked left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the innocents' frames, without FCS.
const FRAME_LEN: usize = 200;
/// Frames of each way that may be under way.
const WINDOW: u64 = 16;
/// Frames that are received in one turn.
const TURN: usize = 1024;
const CALLS_A_TURN: u64 = 64;
/// After so long without a frame, one more is sent whatever the window.
const SILENCE_MAX: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_micros(200);
/// How long frames may take when others use the machine.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(5);

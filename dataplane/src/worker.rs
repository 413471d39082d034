//! A worker: one thread, pinned to a core, that polls the ingresses its snapshot gives it.
//!
//! A duty that stays idle is parked: its doorbell is armed, and it leaves the poll set until epoll says that there is
//! work. With every duty parked the worker sleeps in epoll, or in [`Mode::Poll`] spins over it. A duty that holds frames
//! is not parked. The generation is compared before every duty, so a publisher waits for one burst at most.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::bells::{Bells, Patience};
use crate::counters::Journal;
use crate::forward::Forwarder;
use crate::grace::Reader;
use crate::hold::Holding;
use crate::port::Arming;
use crate::snapshot::{Duty, Snapshot};

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Sleeps until a doorbell rings.
    #[default]
    Adaptive,
    /// Never sleeps: no wake-up is in any frame's way, and the core is always busy.
    Poll,
}

/// The system calls that a worker makes, whatever its ports; drivers say which they add.
pub const CALLS: &[std::ffi::c_long] = &[
    // Doorbells: waited for, armed; the wake-up call and kicks are read, and guests called.
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_read,
    libc::SYS_preadv2,
    libc::SYS_writev,
    // Where the kernel's clock can be read without a call, it is no call.
    libc::SYS_clock_gettime,
    // An egress that another worker has; memory, when there is another snapshot.
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    // The way back from the handler of a front end's truncated file.
    libc::SYS_rt_sigreturn,
];

/// What every worker of the process does first, once it has its name and its core.
static PROLOGUE: OnceLock<fn()> = OnceLock::new();

/// Has every worker that this process starts from now on begin with `prologue`; once. How a process confines itself is
/// its own affair, and no switch's.
pub fn begin_with(prologue: fn()) {
    let _ = PROLOGUE.set(prologue);
}

/// How often doorbells are looked at while there is other work, in microseconds.
const LOOK_US: u64 = 20;
/// Empty rounds between two looks at the clock, which costs as much as a frame, and more than an empty round.
const ROUNDS_PER_CLOCK: u32 = 32;
/// What a round counts in which frames moved: it may take microseconds.
const BUSY_ROUND: u32 = 8;

/// What a worker thread is made of.
pub(crate) struct Setup {
    pub index: usize,
    pub mode: Mode,
    /// When the switch's clock began.
    pub epoch: Instant,
    pub reader: Reader<Snapshot>,
    pub journal: Arc<Journal>,
    pub bells: Bells,
    pub stop: Arc<AtomicBool>,
    /// Duties lost to a panic. Written by the worker.
    pub panics: Arc<AtomicU64>,
}

/// Runs until told to stop.
pub(crate) fn run(setup: Setup) {
    PROLOGUE.get().iter().for_each(|prologue| prologue());
    let Setup { index, mode, epoch, mut reader, journal, bells, stop, panics } = setup;
    let forwarder = Forwarder::new(&journal, index);
    let (duties, watched, polled) = (Arc::from([]), Vec::new(), Vec::new());
    let mut worker = Worker { index, forwarder, bells, duties, watched, polled, epoch, now_us: 0, panics };
    reader.catch_up(|snapshot| worker.adopt(snapshot));
    let mut rounds = 0;
    let mut looked_us = 0;
    // Relaxed: the flag is all there is to see, and whoever sets it rings and joins.
    while !stop.load(Ordering::Relaxed) {
        let Round { busy, moved } = worker.round(&mut reader);
        rounds += if moved { BUSY_ROUND } else { 1 };
        if !busy && mode == Mode::Adaptive {
            reader.sleep(|| worker.bells.wait(Patience::Forever));
            worker.unpark();
        } else if rounds >= ROUNDS_PER_CLOCK {
            rounds = 0;
            worker.read_clock();
            if worker.now_us - looked_us >= LOOK_US {
                looked_us = worker.now_us;
                worker.bells.wait(Patience::None);
                worker.unpark();
            }
        }
    }
}

/// What a round was like.
struct Round {
    /// There is a duty that is not parked.
    busy: bool,
    /// Frames left their sender.
    moved: bool,
}

struct Worker<'j> {
    index: usize,
    forwarder: Forwarder<'j>,
    bells: Bells,
    /// What `watched` was made from.
    duties: Arc<[Duty]>,
    /// By bell.
    watched: Vec<Watched>,
    /// Where those that are polled stand in `watched`, each once: a round costs nothing for the others, however many.
    polled: Vec<usize>,
    epoch: Instant,
    now_us: u64,
    panics: Arc<AtomicU64>,
}

/// A duty, and how it fares with this worker.
struct Watched {
    duty: Duty,
    /// The key of its doorbell; none: the duty is never parked.
    bell: Option<u64>,
    parked: bool,
    /// A panic ended a poll of it: it is never polled again.
    dead: bool,
    holding: Holding,
    /// When it last had a frame or was unparked, by the worker's clock.
    busy_us: u64,
}

impl Watched {
    fn is_polled(&self) -> bool {
        !(self.parked || self.dead)
    }
}

impl Worker<'_> {
    /// Serves every duty that is not parked once.
    fn round(&mut self, reader: &mut Reader<Snapshot>) -> Round {
        if reader.is_stale() {
            reader.catch_up(|snapshot| self.adopt(snapshot));
        }
        let (mut moved, mut turn) = (false, 0);
        while let Some(&place) = self.polled.get(turn) {
            turn += 1;
            if self.watched[place].holding.sits_out() {
                continue;
            }
            if reader.is_stale() {
                return Round { busy: true, moved };
            }
            let settled = self.serve(reader.current(), place);
            moved |= settled > 0;
            let watched = &mut self.watched[place];
            if settled > 0 || watched.holding.is_on() {
                watched.busy_us = self.now_us;
            } else if self.now_us - watched.busy_us >= u64::from(watched.duty.end.linger_us) {
                self.park(place);
            }
            if !self.watched[place].is_polled() {
                // The last takes its turn.
                turn -= 1;
                self.polled.swap_remove(turn);
            }
        }
        Round { busy: !self.polled.is_empty(), moved }
    }

    /// Serves a duty once. A panic, which is our own mistake, costs that duty and no other.
    fn serve(&mut self, snapshot: &Snapshot, place: usize) -> usize {
        let Worker { forwarder, watched, .. } = self;
        let Watched { duty, holding, .. } = &mut watched[place];
        // Unwind safe: the forwarder recovers, and every lock is taken whether poisoned or not.
        let served = catch_unwind(AssertUnwindSafe(|| forwarder.serve(snapshot, duty, holding)));
        served.unwrap_or_else(|_| {
            self.bury(place);
            0
        })
    }

    #[cold]
    fn bury(&mut self, place: usize) {
        self.forwarder.recover();
        let watched = &mut self.watched[place];
        watched.dead = true;
        watched.duty.end.doorbell.fail();
        // Relaxed: a count for the statistics, written here only.
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets an idle duty be, unless its doorbell finds work at the last look, or it has none.
    fn park(&mut self, place: usize) {
        let Watched { duty, bell: Some(key), parked, .. } = &mut self.watched[place] else { return };
        let doorbell = &duty.end.doorbell;
        let Some(fd) = doorbell.fd() else { return };
        match doorbell.arm() {
            Arming::Work => {}
            Arming::Quiet => {
                *parked = true;
                self.bells.arm(fd, *key);
            }
            Arming::Dead => *parked = true,
        }
    }

    /// Takes up the duties whose doorbells rang.
    fn unpark(&mut self) {
        self.read_clock();
        for &key in self.bells.rung() {
            let Ok(place) = self.watched.binary_search_by_key(&Some(key), |watched| watched.bell) else {
                continue;
            };
            let watched = &mut self.watched[place];
            if watched.dead {
                continue;
            }
            watched.duty.end.doorbell.disarm();
            watched.busy_us = self.now_us;
            if std::mem::take(&mut watched.parked) {
                self.polled.push(place);
            }
        }
    }

    fn read_clock(&mut self) {
        let elapsed = self.epoch.elapsed();
        self.now_us = elapsed.as_micros() as u64;
        self.forwarder.set_time(elapsed.as_secs() as u32);
    }

    /// Makes the duties those of `snapshot`: takes leave of the ones that are gone, keeps the others as they are, and
    /// begins new ones busy.
    fn adopt(&mut self, snapshot: &Snapshot) {
        self.forwarder.adopt(snapshot);
        let duties = &snapshot.duties[self.index];
        if Arc::ptr_eq(duties, &self.duties) {
            return;
        }
        self.read_clock();
        self.duties = duties.clone();
        let identity = |duty: &Duty| Arc::as_ptr(&duty.end).addr();
        let mut old: HashMap<usize, Watched> =
            self.watched.drain(..).map(|watched| (identity(&watched.duty), watched)).collect();
        let kept: Vec<Option<Watched>> = duties.iter().map(|duty| old.remove(&identity(duty))).collect();
        // First, because a new duty may have the descriptor of one that is gone, and epoll takes it once only.
        for gone in old.into_values() {
            if let (Some(_), Some(fd)) = (gone.bell, gone.duty.end.doorbell.fd()) {
                self.bells.remove(fd);
            }
        }
        for (duty, kept) in duties.iter().zip(kept) {
            let watched = kept.unwrap_or_else(|| self.begin(duty));
            self.watched.push(watched);
        }
        self.watched.sort_by_key(|watched| watched.bell);
        self.polled.clear();
        self.polled.reserve(self.watched.len());
        self.polled.extend((0..self.watched.len()).filter(|&place| self.watched[place].is_polled()));
    }

    fn begin(&mut self, duty: &Duty) -> Watched {
        duty.end.doorbell.disarm();
        let bell = duty.end.doorbell.fd().and_then(|fd| self.bells.add(fd).ok());
        Watched {
            duty: duty.clone(),
            bell,
            parked: false,
            dead: false,
            holding: Holding::default(),
            busy_us: self.now_us,
        }
    }
}

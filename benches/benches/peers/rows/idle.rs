//! What eight connected guests cost that say nothing, and how long the first frame takes that wakes the switch. The
//! measure of that is a bare wake-up: a thread on the same core that sleeps in epoll until an eventfd is written.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Guest, GuestConfig};
use ringyard_benches::load;
use ringyard_benches::traffic::Template;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::switch::Switch;
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::latency::{percentile, wait_for_frame};
use crate::{DRIVER_CORE, SWITCH_CORE, yard};
use ringyard_benches::comparison::{Figure, Part, Series, spread};
use ringyard_benches::interrupt;
use ringyard_benches::pin::Pinned;

pub fn run(rounds: usize) -> Result<Vec<Part>> {
    let (mut switch, sockets) = yard::adaptive(GUESTS)?;
    let mut front_ends = sockets
        .iter()
        .map(|socket| FrontEnd::connect(socket, &GuestConfig::default()))
        .collect::<Result<Vec<_>>>()?;
    let share = idle_share(&mut switch, rounds)?;
    let [from, to, ..] = front_ends.as_mut_slice() else {
        return Err(Error::new("there are two guests or more"));
    };
    load::open_way(&mut from.guest, &mut to.guest)?;
    load::open_way_between((1, &mut to.guest), (0, &mut from.guest))?;
    let (figures, all) = wake_ups(&mut from.guest, &mut to.guest, rounds)?;
    drop(front_ends);
    switch.finish()?;

    let mut parts = vec![Part::Facts(vec![format!(
        "{GUESTS} connected guests without traffic, adaptive mode: {} % of one core.",
        spread(&share, 3)
    )])];
    parts.extend(figures.map(Part::Figure));
    let [frames, bare] = all.map(|mut samples| {
        samples.sort_unstable();
        percentile(&samples, 99) / 1e3
    });
    parts.push(Part::Facts(vec![format!(
        "First frame after idling, p99 over all rounds: {frames:.1} µs, {:.2} times the bare wake-up's {bare:.1} µs. \
         Both end when a thread that polls on core {DRIVER_CORE} sees the result; idle for {} ms before.",
        frames / bare,
        IDLE_TIME.as_millis(),
    )]));
    Ok(parts)
}

/// Percent of one core that the process uses, by round.
fn idle_share(switch: &mut Switch, rounds: usize) -> Result<Vec<f64>> {
    switch.wait_stats("all workers to sleep", SLEEP_TIME_MAX, |stats| {
        stats.ports.iter().all(|port| port.carrier) && stats.workers.iter().all(|worker| worker.asleep)
    })?;
    let share = |_| {
        interrupt::check()?;
        let (start, before) = (Instant::now(), switch.process().cpu_time("")?);
        thread::sleep(WATCHED / rounds as u32);
        let busy = switch.process().cpu_time("")? - before;
        Ok(100.0 * busy.as_secs_f64() / start.elapsed().as_secs_f64())
    };
    (0..rounds).map(share).collect()
}

/// First frames and bare wake-ups in turn: p50 and p99 by round, and all samples of both in nanoseconds.
fn wake_ups(from: &mut Guest, to: &mut Guest, rounds: usize) -> Result<([Figure; 2], [Vec<u64>; 2])> {
    let names = ["ringyard", "a bare wake-up"];
    let mut figures = PERCENTILES.map(|percent| Figure {
        name: format!("first frame after idling, p{percent}, µs"),
        digits: 1,
        subject: Some(0),
        series: names.map(Series::new).into(),
    });
    let mut all = [Vec::new(), Vec::new()];
    let mut template = Template::new(0, 1, FRAME_LEN)?;
    let sleeper = Sleeper::start()?;
    let _pinned = Pinned::to(DRIVER_CORE)?;
    let mut sequence = 0;
    for _ in 0..rounds {
        interrupt::check()?;
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..SAMPLES {
            thread::sleep(IDLE_TIME);
            samples[0].push(first_frame(from, to, &mut template, sequence)?);
            thread::sleep(IDLE_TIME);
            samples[1].push(sleeper.wake()?);
            sequence += 1;
        }
        for (place, samples) in samples.iter_mut().enumerate() {
            samples.sort_unstable();
            for (figure, percent) in figures.iter_mut().zip(PERCENTILES) {
                figure.series[place].values.push(percentile(samples, percent) / 1e3);
            }
            all[place].extend_from_slice(samples);
        }
    }
    Ok((figures, all))
}

/// Nanoseconds from before a frame is handed over, kick included, until the receiver has it.
fn first_frame(from: &mut Guest, to: &mut Guest, template: &mut Template, sequence: u64) -> Result<u64> {
    from.pair().send.reclaim().doing("taking back sent buffers")?;
    let frame = template.stamp(sequence);
    let sent = Instant::now();
    if !from.pair().send.send(frame) {
        return Err(Error::new("a frame at a time does not fit the ring"));
    }
    from.pair().send.flush();
    wait_for_frame(to, sequence, sent)?;
    Ok(sent.elapsed().as_nanos() as u64)
}

/// A thread on the switch's core that sleeps until it is woken, and says that it is awake.
struct Sleeper {
    event: Arc<OwnedFd>,
    /// How often it has been awake; written by the thread.
    awake: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sleeper {
    fn start() -> Result<Sleeper> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).doing("making an eventfd")?);
        let awake = Arc::new(AtomicU64::new(0));
        let (own_event, own_awake) = (event.clone(), awake.clone());
        let thread = thread::spawn(move || sleep(&own_event, &own_awake));
        Ok(Sleeper { event, awake, thread: Some(thread) })
    }

    /// Nanoseconds from before the eventfd is written until the thread has said so.
    fn wake(&self) -> Result<u64> {
        // Acquire here and Release there: a count that is seen was stored after its wake-up.
        let before = self.awake.load(Ordering::Acquire);
        let start = Instant::now();
        rustix::io::write(&*self.event, &1u64.to_ne_bytes()).doing("writing an eventfd")?;
        while self.awake.load(Ordering::Acquire) == before {
            if start.elapsed() > SLEEP_TIME_MAX {
                return Err(Error::new("a thread on the switch's core did not wake up"));
            }
            std::hint::spin_loop();
        }
        Ok(start.elapsed().as_nanos() as u64)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It has gone already when it could not start; and it ends with this process at the latest.
        let _ = rustix::io::write(&*self.event, &END.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sleep(event: &OwnedFd, awake: &AtomicU64) -> Result<()> {
    let _pinned = Pinned::to(SWITCH_CORE)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).doing("making an epoll")?;
    epoll::add(&epoll, event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
        .doing("watching an eventfd")?;
    let mut count = [0; 8];
    loop {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        match epoll::wait(&epoll, &mut events, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            result => result.doing("sleeping in epoll")?,
        };
        rustix::io::read(event, &mut count).doing("reading an eventfd")?;
        if u64::from_ne_bytes(count) >= END {
            return Ok(());
        }
        awake.fetch_add(1, Ordering::Release);
    }
}

const GUESTS: usize = 8;
const FRAME_LEN: usize = 64;
const PERCENTILES: [usize; 2] = [50, 99];
/// How long the process's time is watched, over all rounds.
const WATCHED: Duration = Duration::from_secs(5);
/// Wake-ups of each kind in a round.
const SAMPLES: usize = 200;
/// Long enough for a worker to fall asleep.
const IDLE_TIME: Duration = Duration::from_millis(2);
const SLEEP_TIME_MAX: Duration = Duration::from_secs(5);
/// What tells the sleeper to end.
const END: u64 = 1 << 32;

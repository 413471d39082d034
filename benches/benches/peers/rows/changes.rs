//! Other ports come and go while two guests exchange frames: a vhost-user netdev and its hubport are added to the hub
//! and deleted again, a thousand times over all rounds. A closed loop shows sequence gaps and the longest time in which
//! nothing arrived, against rounds in which nobody commands anything; an open loop shows what is lost.
//!
//! Commands cost time on one of the two cores whatever they do, so a third kind of round sends as many that change
//! nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::Guest;
use ringyard_benches::load;
use ringyard_benches::traffic::Template;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::switch::Switch;
use rustix::thread::sched_setaffinity;
use serde_json::{Value, json};

use super::rate::RING_SIZE;
use crate::DRIVER_CORE;
use crate::pair::polling_guest;
use crate::yard;
use ringyard_benches::comparison::{Figure, Part, Series};
use ringyard_benches::interrupt;
use ringyard_benches::pin::Pinned;
use ringyard_benches::stream::{self, Outcome, Pace};

pub fn run(rounds: usize) -> Result<Vec<Part>> {
    let (mut switch, sockets) = yard::polling(2)?;
    prepare(&mut switch)?;
    let mut monitor = Qmp::connect(&switch.monitor(), ANSWER_TIME_MAX)?;
    let connect = |socket| FrontEnd::connect(socket, &polling_guest(RING_SIZE));
    let (mut from, mut to) = (connect(&sockets[0])?, connect(&sockets[1])?);
    load::open_way(&mut from.guest, &mut to.guest)?;
    load::open_way_between((1, &mut to.guest), (0, &mut from.guest))?;

    let times = TIMES.div_ceil(rounds);
    let mut closed = Tally::new();
    let mut open = Tally::new();
    for _ in 0..rounds {
        for (pace, tally) in [(Pace::ClosedLoop, &mut closed), (Pace::Open(OPEN_RATE), &mut open)] {
            interrupt::check()?;
            tally.round(&mut monitor, &mut from.guest, &mut to.guest, pace, times)?;
        }
    }
    drop((from, to));
    switch.finish()?;
    let (mut parts, facts) = (
        Vec::new(),
        vec![closed.fact("Closed loop"), open.fact(&format!("Open loop at {} Mpps", OPEN_RATE / 1e6))],
    );
    parts.push(Part::Facts(facts));
    parts.push(Part::Figure(closed.gaps("closed loop")));
    parts.push(Part::Figure(open.gaps("open loop")));
    Ok(parts)
}

/// Makes the chardev of the netdev that comes and goes.
fn prepare(switch: &mut Switch) -> Result<()> {
    let path = switch.path("visitor.sock");
    let address = json!({"type": "unix", "data": {"path": path}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": true, "wait": false}});
    switch.order("chardev-add", json!({"id": "visitor-chardev", "backend": backend})).map(drop)
}

/// What is commanded during a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commands {
    /// Ports come and go.
    Changes,
    /// As many commands that change nothing.
    Questions,
    /// Nothing.
    None,
}

/// Rounds of one pace.
struct Tally {
    gaps: [Series; 3],
    offered: u64,
    /// Lost in the rounds with changes, and in the others.
    lost: [u64; 2],
    disordered: u64,
    commands: usize,
}

impl Tally {
    fn new() -> Tally {
        let gaps =
            ["while ports come and go", "while questions are asked", "without commands"].map(Series::new);
        Tally { gaps, offered: 0, lost: [0; 2], disordered: 0, commands: 0 }
    }

    /// One round of each kind; those without commands take as long as those with changes.
    fn round(
        &mut self,
        monitor: &mut Qmp,
        from: &mut Guest,
        to: &mut Guest,
        pace: Pace,
        times: usize,
    ) -> Result<()> {
        let mut time = Duration::ZERO;
        let kinds = [Commands::Changes, Commands::Questions, Commands::None];
        for (place, commands) in kinds.into_iter().enumerate() {
            let (outcome, took) = watch(monitor, from, to, pace, commands, times, time)?;
            if commands == Commands::Changes {
                time = took;
                self.offered += outcome.offered;
                self.commands += times;
            }
            self.lost[usize::from(commands != Commands::Changes)] += outcome.lost;
            self.disordered += outcome.disordered;
            self.gaps[place].push(outcome.gap_max.as_secs_f64() * 1e6, outcome.lost, outcome.waiting());
        }
        Ok(())
    }

    fn fact(&self, what: &str) -> String {
        let [lost, lost_else] = self.lost;
        format!(
            "{what}, {} times netdev_add and netdev_del of a vhost-user port and its hubport on the same hub: {lost} of \
             {} frames lost, {} late, double or cut; {lost_else} lost in the rounds without changes.",
            self.commands, self.offered, self.disordered,
        )
    }

    fn gaps(self, what: &str) -> Figure {
        let name = format!("{what}, longest time in which nothing arrived, µs");
        Figure { name, digits: 0, subject: Some(0), series: self.gaps.into() }
    }
}

/// Streams while `times` commands of a kind are given, or for `time` when there are none; how long that took, too.
fn watch(
    monitor: &mut Qmp,
    from: &mut Guest,
    to: &mut Guest,
    pace: Pace,
    commands: Commands,
    times: usize,
    time: Duration,
) -> Result<(Outcome, Duration)> {
    let frame = Template::new(0, 1, FRAME_LEN)?.stamp(0).to_vec();
    let pinned = Pinned::to(DRIVER_CORE)?;
    let done = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let commanding = scope.spawn(|| {
            // The thread that commands is at home on all cores, as a manager's is.
            let result = sched_setaffinity(None, &pinned.before()).doing("freeing the commanding thread");
            let result = result.and_then(|()| match commands {
                Commands::Changes => (0..times).try_for_each(|_| come_and_go(monitor)),
                Commands::Questions => (0..times).try_for_each(|_| ask(monitor)),
                Commands::None => {
                    thread::sleep(time);
                    Ok(())
                }
            });
            done.store(true, Ordering::Release);
            (result, start.elapsed())
        });
        let outcome = stream::run(from, &mut [to], &frame, pace, || done.load(Ordering::Acquire));
        let (result, took) = commanding.join().map_err(|_| Error::new("the commanding thread panicked"))?;
        result?;
        Ok((outcome?, took))
    })
}

fn come_and_go(monitor: &mut Qmp) -> Result<()> {
    let netdev = json!({"type": "vhost-user", "id": "visitor", "chardev": "visitor-chardev"});
    let hubport = json!({"type": "hubport", "id": "visitor-hubport", "hubid": 0, "netdev": "visitor"});
    order(monitor, "netdev_add", netdev)?;
    order(monitor, "netdev_add", hubport)?;
    order(monitor, "netdev_del", json!({"id": "visitor-hubport"}))?;
    order(monitor, "netdev_del", json!({"id": "visitor"}))
}

/// As many commands as [`come_and_go`] gives.
fn ask(monitor: &mut Qmp) -> Result<()> {
    (0..4).try_for_each(|_| order(monitor, "query-status", json!({})))
}

fn order(monitor: &mut Qmp, command: &str, arguments: Value) -> Result<()> {
    monitor.execute(command, arguments).doing(command).map(drop)
}

/// Times that the port comes and goes, over all rounds.
const TIMES: usize = 1000;
/// Frames a second of the open loop.
const OPEN_RATE: f64 = 300_000.0;
const FRAME_LEN: usize = 64;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

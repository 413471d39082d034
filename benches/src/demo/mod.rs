//! `ringyard demo`: the first thing a newcomer runs.
//!
//! Built-in guests plug into the vhost-user sockets of a running switch and exchange frames: small ones, large ones, and
//! one at a time for the latency. Every byte and sequence number is verified, and the outcome tells the truth: a frame
//! lost, spoilt or out of order, or a switch that stands still, fails it. One thread has all guests, so that two cores
//! are enough, and it yields when there is nothing to do, so that one is.

mod outcome;
mod ping;
mod screen;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use outcome::{DemoOutcome, FlowOutcome, Latency};
use screen::Screen;

use crate::error::{Error, Result};
use crate::exchange::{Exchange, WINDOW};
use crate::front_end::FrontEnd;
use crate::guest::{Guest, GuestConfig};
use crate::traffic::Template;
pub use crate::traffic::guest_mac;

/// What the demo does.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// How long it moves frames, in seconds: two fifths small ones, two fifths large ones, one fifth one at a time.
    pub seconds: u32,
    /// vhost-user sockets on one hub of a running switch, two or more. The NIC behind socket `i` has the address
    /// [`guest_mac`]`(i)`, or takes everything.
    pub sockets: Vec<PathBuf>,
    /// Whether `out` is a terminal whose lines may be drawn again.
    pub interactive: bool,
}

impl Default for DemoConfig {
    fn default() -> DemoConfig {
        DemoConfig { seconds: 5, sockets: Vec::new(), interactive: false }
    }
}

/// Runs the demo and prints what it sees to `out`, the table of results included.
///
/// Errors: what kept it from running. What the switch did wrong is in the outcome.
pub fn run(config: &DemoConfig, out: &mut dyn Write) -> Result<DemoOutcome> {
    let plug = |socket: &PathBuf| FrontEnd::connect(socket, &GuestConfig::default());
    let mut front_ends = config.sockets.iter().map(plug).collect::<Result<Vec<_>>>()?;
    let mut guests: Vec<&mut Guest> = front_ends.iter_mut().map(|front_end| &mut front_end.guest).collect();
    let outcome = run_with(&mut guests, config, out)?;
    for front_end in front_ends {
        front_end.stop()?;
    }
    Ok(outcome)
}

/// Runs the demo with guests that are plugged in already; `config.sockets` is not looked at.
pub fn run_with(guests: &mut [&mut Guest], config: &DemoConfig, out: &mut dyn Write) -> Result<DemoOutcome> {
    if guests.len() < 2 {
        return Err(Error::new("the demo needs two guests or more"));
    }
    let mut screen = Screen::new(out, config.interactive);
    let mut outcome = DemoOutcome::default();
    open_ways(guests)?;
    let time = Duration::from_secs(u64::from(config.seconds));
    for len in [SMALL, LARGE] {
        let exchange = exchange_frames(guests, len, time * 2 / 5, &mut screen, &mut outcome)?;
        outcome.add_flows(len, &exchange);
        if outcome.stalled.is_some() {
            break;
        }
    }
    if outcome.stalled.is_none() {
        ping::run(guests, SMALL, time / 5, &mut outcome)?;
    }
    screen.finish(&outcome)?;
    Ok(outcome)
}

/// Time of one phase, and the exchange as it ended.
struct Exchanged {
    exchange: Exchange,
    elapsed: Duration,
}

/// Moves frames of `len` bytes in a closed loop for `time`, then waits for those that are under way.
fn exchange_frames(
    guests: &mut [&mut Guest],
    len: usize,
    time: Duration,
    screen: &mut Screen<'_>,
    outcome: &mut DemoOutcome,
) -> Result<Exchanged> {
    let mut exchange = Exchange::new(guests.len(), len, WINDOW)?;
    let start = Instant::now();
    let mut progress = start;
    loop {
        let now = Instant::now();
        let sending = now - start < time;
        let mut moved = exchange.receive(guests)?;
        if sending {
            moved += exchange.send(guests)?;
        }
        screen.look(len, now, &exchange)?;
        if moved > 0 {
            progress = now;
        } else if !sending && exchange.under_way() == 0 {
            break;
        } else if now - progress > STALL_TIME {
            outcome.stalled = Some(format!("no {len}-byte frame moved for {} s", STALL_TIME.as_secs()));
            break;
        } else {
            thread::yield_now();
        }
    }
    Ok(Exchanged { exchange, elapsed: start.elapsed() })
}

/// Sends probes until one has come through from each guest to the next: a switch may still be busy plugging in.
fn open_ways(guests: &mut [&mut Guest]) -> Result<()> {
    let count = guests.len();
    let mut probes =
        (0..count).map(|from| Template::probe(from, (from + 1) % count)).collect::<Result<Vec<_>>>()?;
    let mut open = vec![false; count];
    let start = Instant::now();
    let mut last_sent: Option<Instant> = None;
    while open.contains(&false) {
        if let Some(from) = open.iter().position(|open| !open).filter(|_| start.elapsed() > OPEN_TIME_MAX) {
            let (from, to) = (outcome::name(from), outcome::name((from + 1) % count));
            let seconds = OPEN_TIME_MAX.as_secs();
            return Err(Error::new(format!(
                "no frame came from guest {from} to guest {to} within {seconds} s"
            )));
        }
        let send = last_sent.is_none_or(|last| last.elapsed() > PROBE_PAUSE);
        if send {
            last_sent = Some(Instant::now());
        }
        for from in 0..count {
            let sender = &mut guests[from].pair().send;
            let _ = sender.reclaim().map_err(Error::new)?;
            if send && !open[from] {
                sender.send(probes[from].stamp(0));
                sender.flush();
            }
            let probe = &mut probes[from];
            let mut scratch = [0; 128];
            guests[(from + 1) % count].pair().receive.receive(RECEIVE_MAX, |frame| {
                open[from] |= frame.copy_to(&mut scratch) == probe.stamp(0);
            })?;
        }
        thread::yield_now();
    }
    Ok(())
}

/// The command line that plugs a real virtual machine into `socket`. Its memory is a shared memory file, which is what
/// vhost-user needs; the disk is the reader's.
pub fn qemu_command(socket: &Path, mac: &str) -> String {
    format!(
        "qemu-system-x86_64 -machine q35,accel=kvm:tcg,memory-backend=mem -m 1G -nographic \\\n  \
         -object memory-backend-memfd,id=mem,size=1G,share=on \\\n  \
         -chardev socket,id=net0,path={} \\\n  \
         -netdev vhost-user,id=net0,chardev=net0 \\\n  \
         -device virtio-net-pci,netdev=net0,mac={mac} \\\n  \
         -drive file=DISK.qcow2,if=virtio",
        socket.display()
    )
}

/// Bytes of a small frame, without FCS.
const SMALL: usize = 64;
/// Bytes of a large frame, without FCS.
const LARGE: usize = 1500;
/// How long nothing may move.
const STALL_TIME: Duration = Duration::from_secs(2);
/// How long the first frame may take.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
const PROBE_PAUSE: Duration = Duration::from_millis(10);
const RECEIVE_MAX: usize = 64;

#[cfg(test)]
mod tests;

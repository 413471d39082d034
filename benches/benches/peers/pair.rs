//! A switch with two built-in guests, at rest until it is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringyard_benches::floor::Floor;
use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Features, Guest, GuestConfig};
use ringyard_benches::load;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::process::Process;

use crate::contender::Contender;
use crate::{SWITCH_CORE, ovs, testpmd, yard};
use ringyard_tests::running::Running;

/// A switch and two guests.
pub struct Pair {
    pub name: String,
    guests: Guests,
    others: Vec<FrontEnd>,
    running: Running,
}

/// Two guests, plugged into a socket each or not.
pub enum Guests {
    Plugged(Box<[FrontEnd; 2]>),
    Bare(Box<[Guest; 2]>),
}

impl Guests {
    fn both(&mut self) -> [&mut Guest; 2] {
        match self {
            Guests::Plugged(front_ends) => front_ends.each_mut().map(|front_end| &mut front_end.guest),
            Guests::Bare(guests) => guests.each_mut(),
        }
    }
}

/// The guests poll, as DPDK's do: no EVENT_IDX. Their frames lie in one buffer each.
pub fn polling_guest(ring_size: u16) -> GuestConfig {
    let features = Features { event_idx: false, indirect: false, ..Features::SPLIT };
    GuestConfig { ring_size, features, ..GuestConfig::default() }
}

impl Pair {
    /// Starts `contender` with guests whose rings have `ring_size` entries, and waits until frames pass both ways.
    pub fn start(contender: Contender, ring_size: u16) -> Result<Pair> {
        let config = polling_guest(ring_size);
        let (guests, running) = match contender {
            Contender::Ringyard => {
                let (switch, sockets) = yard::polling(2)?;
                (plug(&sockets, &config)?, Running::Ringyard(Box::new(switch)))
            }
            Contender::Testpmd => plug_programs(testpmd::start()?, &config)?,
            Contender::Ovs => plug_programs(ovs::start()?, &config)?,
            Contender::Floor => floor(config)?,
            other => return Err(Error::new(format!("{} has no guests", other.title()))),
        };
        Pair::of(contender.title().into(), guests, running)
    }

    /// Two guests on a switch that runs: the way is opened both ways, so that a switch that learns knows both.
    pub fn of(name: String, guests: Guests, running: Running) -> Result<Pair> {
        let mut pair = Pair { name, guests, others: Vec::new(), running };
        // A peer may lay out its memory only now.
        let deadline = Instant::now() + START_TIME_MAX;
        let opened = pair.awake(|[a, b]| {
            while let Err(error) = load::open_way(a, b) {
                if Instant::now() > deadline {
                    return Err(error);
                }
            }
            load::open_way_between((1, b), (0, a))
        });
        opened.map_err(|error| Error::new(format!("{error}{}", pair.running.last_words())))?;
        Ok(pair)
    }

    /// Does `work` with the guests while the switch runs; it rests before and after.
    pub fn awake<T>(&mut self, work: impl FnOnce([&mut Guest; 2]) -> Result<T>) -> Result<T> {
        let guests = self.guests.both();
        self.running.awake(|| work(guests)).doing(&self.name)
    }

    /// Guests that are only there, on the same switch; they go when it goes.
    pub fn keep(&mut self, others: Vec<FrontEnd>) {
        self.others = others;
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The guests say good-bye before the switch goes, and it must be able to hear them.
        let _ = self.running.set_paused(false);
    }
}

/// Plugs a guest into each of two sockets.
pub fn plug(sockets: &[PathBuf], config: &GuestConfig) -> Result<Guests> {
    let [first, second] = sockets else { return Err(Error::new("a pair has two sockets")) };
    let front_ends = [FrontEnd::connect(first, config)?, FrontEnd::connect(second, config)?];
    Ok(Guests::Plugged(Box::new(front_ends)))
}

fn plug_programs(started: Started, config: &GuestConfig) -> Result<(Guests, Running)> {
    let guests = plug(&started.sockets, config)?;
    Ok((guests, Running::Programs { processes: started.processes, directory: started.directory }))
}

/// Programs that listen for two guests.
pub struct Started {
    pub processes: Vec<Process>,
    pub directory: tempfile::TempDir,
    pub sockets: [PathBuf; 2],
}

fn floor(mut config: GuestConfig) -> Result<(Guests, Running)> {
    (config.features.in_order, config.features.mergeable) = (false, false);
    let guests = [Guest::new(&config, config.features)?, Guest::new(&config, config.features)?];
    let floor = Floor::start([&guests[0], &guests[1]], SWITCH_CORE)?;
    Ok((Guests::Bare(Box::new(guests)), Running::Floor(floor)))
}

/// From start to listening sockets; DPDK maps its memory first.
pub const START_TIME_MAX: Duration = Duration::from_secs(30);

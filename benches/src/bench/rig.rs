//! What all methods share: the ports that are plugged in, the streams over them, and someone to tell how far it is.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use super::config::BenchConfig;
use super::frame::Size;
use super::pacer::Load;
use super::port::Port;
use super::report::Checks;
use super::target::{self, OwnConfig, OwnSwitch, Target};
use super::trial::{Generator, Stream, Trial, TrialPlan};
use crate::error::{Error, Result};

/// Whoever runs the bench.
pub struct Host<'a> {
    /// Is told how far it is, a line at a time.
    pub say: &'a mut dyn FnMut(&str),
    /// Whether the run is to end.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// See the module.
pub struct Rig<'a> {
    /// What was asked for.
    pub config: &'a BenchConfig,
    /// Cores that a switch of ours may use.
    pub allowed: CpuSet,
    /// How long a trial waits for what is late.
    pub quiet_time: Duration,
    /// The ports.
    pub generator: Generator,
    /// The switch, if it is ours.
    pub own: Option<OwnSwitch>,
    /// What was verified since this was last taken.
    pub checks: Checks,
    /// What must be known to read the figures.
    pub notes: Vec<String>,
    listeners: Vec<Option<UnixListener>>,
    plugged: Option<(usize, Size)>,
    host: Host<'a>,
}

/// Ports of a switch of our own: two for the load, one more for broadcasts.
const OWN_PORTS: usize = 3;

impl<'a> Rig<'a> {
    /// Starts the switch if it is ours, on cores of `allowed`. Nothing is plugged in yet.
    pub fn new(
        config: &'a BenchConfig,
        allowed: CpuSet,
        quiet_time: Duration,
        host: Host<'a>,
    ) -> Result<Rig<'a>> {
        let core = config.switch_core;
        let own_config =
            OwnConfig { ports: OWN_PORTS, pairs: config.pairs, nics: true, core, mode: "poll", allowed };
        let (own, listeners) = match &config.target {
            Target::Own { program } => (Some(OwnSwitch::start(program, own_config)?), Vec::new()),
            Target::Sockets(sockets) => (None, target::listen(sockets)?),
            Target::Interfaces(_) => (None, Vec::new()),
        };
        let generator = Generator::new(Vec::new(), quiet_time);
        Ok(Rig {
            config,
            allowed,
            quiet_time,
            generator,
            own,
            checks: Checks::default(),
            notes: Vec::new(),
            listeners,
            plugged: None,
            host,
        })
    }

    /// Says how far it is.
    pub fn say(&mut self, text: &str) {
        (self.host.say)(text);
    }

    /// How many ports there can be.
    pub fn ports_max(&self) -> usize {
        match &self.config.target {
            Target::Own { .. } => OWN_PORTS,
            Target::Sockets(sockets) => sockets.len(),
            Target::Interfaces(interfaces) => interfaces.len(),
        }
    }

    /// Ports that are plugged in for load between two: all of a foreign switch, which may wait for them.
    pub fn ports_for_load(&self) -> usize {
        if self.own.is_some() { 2 } else { self.ports_max() }
    }

    /// Plugs in the first `count` ports, with buffers for frames of that size, and waits until frames pass.
    pub fn plug(&mut self, count: usize, size: Size) -> Result<()> {
        let config = self.config.guest(size);
        let same = |plugged: (usize, Size)| {
            plugged.0 == count && self.config.guest(plugged.1).buffer_len == config.buffer_len
        };
        if self.plugged.is_some_and(same) {
            return Ok(());
        }
        self.unplug();
        let sockets = match (&self.config.target, &self.own) {
            (Target::Sockets(sockets), _) => sockets.clone(),
            (Target::Own { .. }, Some(own)) => (0..own.ports()).map(|port| own.socket(port)).collect(),
            _ => Vec::new(),
        };
        let mut ports: Vec<Port> = Vec::new();
        for (place, socket) in sockets.iter().take(count).enumerate() {
            let listener = self.listeners.get(place).and_then(Option::as_ref);
            ports.push(target::plug(socket, listener, &config)?);
        }
        if let Target::Interfaces(interfaces) = &self.config.target {
            ports = interfaces.iter().take(count).map(target::open).collect::<Result<_>>()?;
        }
        self.generator = Generator::new(ports, self.quiet_time);
        self.plugged = Some((count, size));
        for (from, to) in [(0, 1), (1, 0)] {
            self.open_way(from, to)?;
        }
        Ok(())
    }

    /// Unplugs all ports.
    pub fn unplug(&mut self) {
        self.plugged = None;
        self.generator.ports.clear();
    }

    /// The streams of the load: from port 0 to port 1 on every queue pair, and back if asked.
    pub fn streams(&self, size: Size) -> Result<Vec<Stream>> {
        let ways: &[(usize, usize)] = if self.config.bidirectional { &[(0, 1), (1, 0)] } else { &[(0, 1)] };
        let mut streams = Vec::new();
        for &(from, to) in ways {
            for queue in 0..self.generator.ports[from].queues() {
                streams.push(Stream::unicast(from, queue, to, size)?);
            }
        }
        Ok(streams)
    }

    /// Runs a trial and remembers what it verified.
    pub fn trial(&mut self, streams: &mut [Stream], load: Load, time: Duration) -> Result<Trial> {
        self.trial_with(streams, TrialPlan { load, time, probe_every: None }, |_| Ok(()))
    }

    /// As [`Self::trial`], with probes, and with something beside it.
    pub fn trial_with(
        &mut self,
        streams: &mut [Stream],
        plan: TrialPlan,
        beside: impl FnMut(Instant) -> Result<()>,
    ) -> Result<Trial> {
        self.stop_if_asked()?;
        let trial = self.generator.run_beside(streams, plan, beside)?;
        self.checks.add(&trial);
        Ok(trial)
    }

    /// An error once the run is to end.
    pub fn stop_if_asked(&self) -> Result<()> {
        if (self.host.interrupted)() { Err(Error::new("interrupted")) } else { Ok(()) }
    }

    /// Sends single frames until one arrives: a switch may still be busy plugging in.
    fn open_way(&mut self, from: usize, to: usize) -> Result<()> {
        let mut streams = [Stream::unicast(from, 0, to, Size::Fixed(super::frame::SIZE_MIN))?];
        let plan = TrialPlan {
            load: Load::Burst { frames: 1, rate: 1e6 },
            time: Duration::from_millis(10),
            probe_every: None,
        };
        let deadline = Instant::now() + OPEN_TIME_MAX;
        loop {
            self.stop_if_asked()?;
            if self.generator.run(&mut streams, plan)?.received > 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = OPEN_TIME_MAX.as_secs();
                return Err(Error::new(format!(
                    "no frame came from port {from} to port {to} within {seconds} s"
                )));
            }
        }
    }
}

/// How long the first frame may take.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

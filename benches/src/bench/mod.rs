//! `ringyard bench`: how fast a switch is, measured by methods with real names, and only what can be stood behind.
//!
//! [`run`] starts or connects to the target, proves the generator ([`self_test`]) and the machine ([`machine`]), and goes
//! through the methods: [`throughput`] (MRR, NDR and PDR by [`search`], back-to-back), [`latency`], [`broadcast`],
//! [`learning`], [`blocked`]. All of them are [`trial`]s of numbered [`frame`]s over [`port`]s. What comes out is a
//! [`report`], shown as a [`table`] or a [`page`].

pub mod blocked;
pub mod broadcast;
pub mod config;
pub mod frame;
pub mod latency;
pub mod learning;
pub mod ledger;
pub mod machine;
pub mod pacer;
pub mod packet;
pub mod page;
pub mod port;
pub mod qmp;
pub mod report;
pub mod rig;
pub mod search;
pub mod self_test;
mod svg;
pub mod table;
pub mod target;
pub mod throughput;
pub mod trial;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use config::{BenchConfig, Effort};
pub use report::Report;
pub use rig::Host;
pub use target::Target;

use crate::error::{Doing, Error, Result};
use crate::guest::BUFFER_LEN;
use machine::{Gap, Machine};
use report::{Checks, Figure, SCHEMA, SelfTest, Setup, SizeReport};
use rig::Rig;

/// Measures everything.
///
/// Errors: what kept it from measuring. What the switch did wrong is in the report.
pub fn run<'a>(config: &'a BenchConfig, host: Host<'a>) -> Result<Report> {
    let began = Instant::now();
    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(&first) = config.sizes.first() else { return Err(Error::new("no frame size is given")) };
    if config.switch_core == config.generator_core {
        return Err(Error::new("switch and generator need a core each"));
    }
    let mut notes = Vec::new();
    let machine = Machine::here();
    let gaps = watch_gaps(config, &mut notes, host.say)?;
    let allowed = target::allowed_cores()?;
    machine::pin(config.generator_core)?;
    (host.say)("self-test of the generator");
    let self_test = match config.target {
        Target::Interfaces(_) => Figure::Absent("a packet socket is no front end of this process".into()),
        _ => Figure::Value(self_test::run(config).doing("testing the generator")?),
    };
    let mut rig = Rig::new(config, allowed, quiet_time(&gaps), host)?;
    rig.plug(rig.ports_for_load(), first)?;
    let setup = setup(&rig, gaps.clone());
    let mut sizes: Vec<SizeReport> = Vec::new();
    for &size in &config.sizes {
        let ceiling = burst_rate(&self_test, sizes.first());
        sizes.push(throughput::measure(&mut rig, size, ceiling, &gaps)?);
    }
    let pdr = sizes[0].pdr.value().map(|found| found.throughput);
    let latency = latency::measure(&mut rig, first, pdr)?;
    let blocked = blocked::measure(&mut rig, first, pdr)?;
    let broadcast = broadcast::measure(&mut rig)?;
    let others = std::mem::take(&mut rig.checks);
    let learning = learning::measure(&mut rig)?;
    notes.append(&mut rig.notes);
    sizes.iter().for_each(|size| note_checks(&size.label(), &size.checks, &mut notes));
    note_checks("latency, blocked time and broadcast", &others, &mut notes);
    Ok(Report {
        schema: SCHEMA,
        target: config.name.clone().unwrap_or_else(|| config.target.name()),
        version: env!("CARGO_PKG_VERSION").into(),
        unix_time,
        seconds: began.elapsed().as_secs_f64(),
        quick: config.effort.quick,
        machine,
        setup,
        self_test,
        sizes,
        latency,
        broadcast,
        learning,
        blocked,
        notes,
    })
}

/// Before anything else runs: a switch that polls would be what takes the time away.
fn watch_gaps(config: &BenchConfig, notes: &mut Vec<String>, say: &mut dyn FnMut(&str)) -> Result<Vec<Gap>> {
    say("looking for gaps of the machine");
    let gaps = machine::gaps(&[config.switch_core, config.generator_core], config.effort.gap_time)?;
    for gap in gaps.iter().filter(|gap| gap.stolen > STOLEN_MAX) {
        notes.push(format!(
            "core {} was taken away for {:.1} % of the time before the run: others use this machine",
            gap.core,
            gap.stolen * 100.0
        ));
    }
    Ok(gaps)
}

/// What is late only because the machine is busy with others is not lost.
fn quiet_time(gaps: &[Gap]) -> Duration {
    let longest = gaps.iter().map(|gap| gap.longest_us).fold(0.0, f64::max);
    Duration::from_secs_f64(longest * 4e-6).clamp(trial::QUIET_TIME, QUIET_TIME_MAX)
}

/// The rate of bursts: what the generator can send, or, where it was not tested, twice what passed.
fn burst_rate(self_test: &Figure<SelfTest>, first: Option<&SizeReport>) -> f64 {
    match (self_test.value(), first) {
        (Some(test), _) => test.ceiling,
        (None, Some(size)) => size.mrr.median * 2.0,
        (None, None) => BURST_RATE,
    }
}

fn setup(rig: &Rig<'_>, gaps: Vec<Gap>) -> Setup {
    let config = rig.config;
    let guest = rig.generator.ports.first().and_then(port::Port::guest);
    let ports = if guest.is_some() { "vhost-user" } else { "packet socket" };
    Setup {
        switch_core: config.switch_core,
        generator_core: config.generator_core,
        gaps,
        ports: ports.into(),
        port_count: rig.ports_max(),
        pairs: config.pairs,
        ring_size: config.ring_size,
        buffer_bytes: BUFFER_LEN,
        features: guest.map(|guest| config::feature_names(guest.features())).unwrap_or_default(),
        bidirectional: config.bidirectional,
        goal: config.effort.goal,
        compared_every: trial::WHOLE_EVERY,
    }
}

fn note_checks(what: &str, checks: &Checks, notes: &mut Vec<String>) {
    let wrongs = checks.wrongs;
    let all =
        [(wrongs.corrupted, "corrupted"), (wrongs.duplicated, "duplicated"), (wrongs.reordered, "reordered")];
    let named: Vec<String> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if !named.is_empty() {
        notes.push(format!("FAULT at {what}: {} of {} frames", named.join(", "), checks.frames));
    }
    if checks.stray > 0 {
        notes.push(format!("{what}: {} frames were flooded to ports that they were not for", checks.stray));
    }
}

/// The part of the time that others may take before it is worth a note.
const STOLEN_MAX: f64 = 0.01;
/// How long a trial waits for what is late, however busy the machine is.
const QUIET_TIME_MAX: Duration = Duration::from_millis(250);
/// The rate of bursts where nothing better is known, in frames a second.
const BURST_RATE: f64 = 1e6;

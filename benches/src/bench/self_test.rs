//! What the generator itself can do: the same trials between guests of this process, with nothing between them but a loop
//! that copies ([`crate::floor`]). A generator that hardly waits there, or in a trial, may be all that was measured.

use super::config::BenchConfig;
use super::frame::{SIZE_MIN, Size};
use super::pacer::Load;
use super::port::Port;
use super::report::SelfTest;
use super::trial::{Generator, QUIET_TIME, Stream, TrialPlan};
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::guest::{Features, Guest, GuestConfig};

/// Runs it with the smallest frames. The switch's core must be free.
pub fn run(config: &BenchConfig) -> Result<SelfTest> {
    let size = Size::Fixed(SIZE_MIN);
    // What the floor understands: split rings, one buffer a frame.
    let features =
        Features { packed: false, mergeable: false, in_order: false, event_idx: false, ..config.features };
    let guest_config = GuestConfig { pairs: 1, features, ..config.guest(size) };
    let guest = || Guest::new(&guest_config, features);
    let (from, to) = (guest()?, guest()?);
    let floor = Floor::start([&from, &to], config.switch_core)?;
    floor.set_paused(false)?;
    let ports = [from, to].map(|guest| Port::Bare(Box::new(guest)));
    let mut streams = [Stream::unicast(0, 0, 1, size)?];
    let plan = TrialPlan { load: Load::Max, time: config.effort.mrr_time, probe_every: None };
    let mut generator = Generator::new(ports.into(), QUIET_TIME);
    // The first one warms up.
    generator.run(&mut streams, plan)?;
    let trial = generator.run(&mut streams, plan)?;
    if !trial.wrongs.is_none() || trial.received == 0 {
        return Err(Error::new("the generator's own frames did not come back as they were sent"));
    }
    let (rate, wait_share) = (trial.receive_rate(), trial.wait_share());
    let busy = (1.0 - wait_share).max(f64::MIN_POSITIVE);
    Ok(SelfTest { rate, wait_share, ceiling: rate / busy })
}

//! What the generator itself can do: the same trials between guests of this process, without vhost-user. A generator
//! that hardly waits there, or in a trial, may be all that was measured.

use ringyard_dataplane::switch::{Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;

use super::config::BenchConfig;
use super::frame::{SIZE_MIN, Size};
use super::pacer::Load;
use super::port::Port;
use super::report::SelfTest;
use super::trial::{Generator, Stream, TrialPlan};
use crate::bare;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::traffic::guest_mac;

/// Runs it with the smallest frames. The switch's core must be free.
pub fn run(config: &BenchConfig) -> Result<SelfTest> {
    let cores = vec![Some(config.switch_core)];
    let mut switch = Switch::start(&SwitchConfig { cores, mode: Mode::Poll }).map_err(Error::new)?;
    let size = Size::Fixed(SIZE_MIN);
    let mut guest_config = config.guest(size);
    guest_config.pairs = 1;
    guest_config.features.in_order = false;
    let mut ports = Vec::new();
    for place in 0..2 {
        let guest = Guest::new(&guest_config, guest_config.features)?;
        bare::plug(&mut switch, &guest, guest_mac(place))?;
        ports.push(Port::Bare(Box::new(guest)));
    }
    switch.publish();
    let mut streams = [Stream::unicast(0, 0, 1, size)?];
    let plan = TrialPlan { load: Load::Max, time: config.effort.mrr_time, probe_every: None };
    let mut generator = Generator::new(ports);
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

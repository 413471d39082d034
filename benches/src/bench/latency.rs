//! One-way times under load: probes of the same frames, sent at a low rate of their own beside the load, timed from
//! before they are handed over until the polling receiver sees them.

use std::time::Duration;

use super::frame::Size;
use super::pacer::Load;
use super::report::{Figure, Latency, percentiles};
use super::rig::Rig;
use super::trial::TrialPlan;
use crate::error::Result;

/// Loads, in parts of a hundred of the PDR.
pub const PERCENTS: [u32; 4] = [0, 10, 50, 90];
/// From one probe to the next.
const PROBE_EVERY: Duration = Duration::from_micros(100);

/// Measures beside parts of `pdr`, which is in frames a second.
pub fn measure(rig: &mut Rig<'_>, size: Size, pdr: Option<f64>) -> Result<Figure<Vec<Latency>>> {
    let Some(pdr) = pdr else {
        return Ok(Figure::Absent("no PDR was found to take parts of".into()));
    };
    rig.plug(rig.ports_for_load(), size)?;
    let mut streams = rig.streams(size)?;
    let mut rows = Vec::new();
    for percent in PERCENTS {
        rig.say(&format!("{}: latency at {percent} % of PDR", size.label()));
        let load = pdr * f64::from(percent) / 100.0;
        let plan = TrialPlan {
            load: Load::Rate(load),
            time: rig.config.effort.latency_time,
            probe_every: Some(PROBE_EVERY),
        };
        let trial = rig.trial_with(&mut streams, plan, |_| Ok(()))?;
        rows.push(Latency {
            percent,
            load,
            samples: trial.latency.len(),
            lost: trial.probes.saturating_sub(trial.latency.len()),
            mean_ns: trial.latency.mean(),
            percentiles: percentiles(&trial.latency),
        });
    }
    Ok(Figure::Value(rows))
}

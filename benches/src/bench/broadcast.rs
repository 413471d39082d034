//! Broadcast forwarding (RFC 2889, 5.10): frames from one port to all others.

use super::frame::{SIZE_MIN, Size};
use super::pacer::Load;
use super::report::{Broadcast, Figure};
use super::rig::Rig;
use super::trial::Stream;
use crate::error::Result;

/// Sends as much as there is room for.
pub fn measure(rig: &mut Rig<'_>) -> Result<Figure<Broadcast>> {
    let ports = rig.ports_max();
    if ports < 3 {
        return Ok(Figure::Absent("it takes three ports".into()));
    }
    rig.say("broadcast forwarding");
    let size = Size::Fixed(SIZE_MIN);
    rig.plug(ports, size)?;
    let mut streams = [Stream::broadcast(0, (1..ports).collect(), size)?];
    let trial = rig.trial(&mut streams, Load::Max, rig.config.effort.mrr_time)?;
    if trial.received == 0 {
        return Ok(Figure::Absent("no broadcast arrived".into()));
    }
    Ok(Figure::Value(Broadcast {
        receivers: ports - 1,
        send_rate: trial.sent as f64 / trial.elapsed.as_secs_f64(),
        receive_rate: trial.receive_rate(),
        loss_ratio: trial.loss_ratio(),
    }))
}

//! What the demo found out, and whether it is good.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::Exchanged;
use crate::traffic::Faults;

/// What the demo found out.
#[derive(Clone, Debug, Default)]
pub struct DemoOutcome {
    /// By phase and flow.
    pub flows: Vec<FlowOutcome>,
    /// From the phase with one frame at a time; `None` when it did not come to that.
    pub latency: Option<Latency>,
    /// Set when nothing moved any more: what.
    pub stalled: Option<String>,
}

/// Frames of one length from one guest to another.
#[derive(Clone, Debug)]
pub struct FlowOutcome {
    /// The sending guest, from 0.
    pub from: usize,
    /// The receiving guest, from 0.
    pub to: usize,
    /// Bytes of each frame, without FCS.
    pub frame_len: usize,
    /// Frames that arrived as they were sent.
    pub frames: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What went wrong.
    pub faults: Faults,
}

impl FlowOutcome {
    /// Million frames a second.
    pub fn mpps(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// Gigabits of frames a second; FCS, preamble and gap not counted.
    pub fn gbits(&self) -> f64 {
        self.mpps() * self.frame_len as f64 * 8.0 / 1e3
    }
}

/// From handing a frame over in one guest to seeing it in another that polls, one frame at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Frames measured.
    pub frames: usize,
    /// Half of them took no longer, in nanoseconds.
    pub p50_ns: u64,
    /// 99 of 100 of them took no longer, in nanoseconds.
    pub p99_ns: u64,
    /// What went wrong meanwhile.
    pub faults: Faults,
}

impl DemoOutcome {
    /// Whether every frame arrived, once, whole and in order.
    pub fn passed(&self) -> bool {
        self.failure().is_none()
    }

    /// What is wrong, if anything is.
    pub fn failure(&self) -> Option<String> {
        let faults = self.faults();
        let spoilt =
            (!faults.is_none()).then(|| format!("frames did not arrive as they were sent: {faults}"));
        let wrong: Vec<String> = self.stalled.clone().into_iter().chain(spoilt).collect();
        if !wrong.is_empty() {
            return Some(wrong.join("; "));
        }
        let idle = self.flows.iter().find(|flow| flow.frames == 0);
        if let Some(FlowOutcome { from, to, frame_len, .. }) = idle {
            let (from, to) = (name(*from), name(*to));
            return Some(format!("no {frame_len}-byte frame went from guest {from} to guest {to}"));
        }
        if self.latency.is_none() { Some("the latency was not measured".into()) } else { None }
    }

    /// What went wrong, all in all.
    pub fn faults(&self) -> Faults {
        let mut sum = Faults::default();
        let measured = self.latency.iter().map(|latency| latency.faults);
        self.flows.iter().map(|flow| flow.faults).chain(measured).for_each(|faults| sum.add(faults));
        sum
    }

    pub(super) fn add_flows(&mut self, frame_len: usize, exchanged: &Exchanged) {
        let Exchanged { exchange, elapsed } = exchanged;
        self.flows.extend(exchange.flows().iter().map(|flow| FlowOutcome {
            from: flow.from,
            to: flow.to,
            frame_len,
            frames: flow.frames(),
            elapsed: *elapsed,
            faults: flow.faults(),
        }));
    }
}

impl Display for DemoOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "  frame     way          frames      Mpps    Gbit/s    lost")?;
        for flow in &self.flows {
            let way = format!("{} -> {}", name(flow.from), name(flow.to));
            let (mpps, gbits) = (flow.mpps(), flow.gbits());
            let (len, frames, lost) = (flow.frame_len, flow.frames, flow.faults.lost);
            writeln!(f, "  {len:>4} B    {way:<6} {frames:>12} {mpps:>9.3} {gbits:>9.2} {lost:>7}")?;
        }
        if let Some(Latency { frames, p50_ns, p99_ns, .. }) = &self.latency {
            let micros = |ns: &u64| *ns as f64 / 1e3;
            let (p50, p99) = (micros(p50_ns), micros(p99_ns));
            writeln!(
                f,
                "  one way, one frame at a time: p50 {p50:.1} us, p99 {p99:.1} us ({frames} frames)"
            )?;
        }
        match self.failure() {
            None => write!(f, "  passed: every byte of every frame arrived, once and in order"),
            Some(failure) => write!(f, "  FAILED: {failure}"),
        }
    }
}

/// How guest `index` is called on the screen: A, B, …, then by number.
pub(super) fn name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index) if index < 26 => char::from(b'A' + index).to_string(),
        _ => (index + 1).to_string(),
    }
}

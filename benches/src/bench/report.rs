//! What a run found out, as it is kept: the JSON file is this, and the table and the page are made of it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::frame::Size;
use super::ledger::Wrongs;
use super::machine::{Gap, Machine};
use super::search::{Found, Goal};
use super::trial::Trial;

/// The version of the format. A reader refuses others.
pub const SCHEMA: u32 = 1;
/// A generator that waited for less than this part of the time may have been what was measured.
pub const WAIT_SHARE_MIN: f64 = 0.02;

/// A figure, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure<T> {
    /// It stands.
    Value(T),
    /// It could not be stood behind, or there was nothing to measure.
    Absent(String),
}

impl<T> Figure<T> {
    /// The figure, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Figure::Value(value) => Some(value),
            Figure::Absent(_) => None,
        }
    }

    /// Why there is none.
    pub fn why(&self) -> Option<&str> {
        match self {
            Figure::Value(_) => None,
            Figure::Absent(why) => Some(why),
        }
    }
}

/// See the module. Rates are frames a second, times as their names say; sizes count the FCS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was measured.
    pub target: String,
    /// Of the bench.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub unix_time: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether the figures are a first look.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// How.
    pub setup: Setup,
    /// What the generator can do.
    pub self_test: Figure<SelfTest>,
    /// By size.
    pub sizes: Vec<SizeReport>,
    /// At parts of the PDR of the first size.
    pub latency: Figure<Vec<Latency>>,
    /// From one port to all others.
    pub broadcast: Figure<Broadcast>,
    /// Addresses.
    pub learning: Figure<Learning>,
    /// By verb of the monitor.
    pub blocked: Figure<Vec<Blocked>>,
    /// What went wrong, or must be known to read the figures.
    pub notes: Vec<String>,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Where the switch forwards.
    pub switch_core: usize,
    /// Where the generator runs.
    pub generator_core: usize,
    /// How long each of them was taken away, before anything ran.
    pub gaps: Vec<Gap>,
    /// `vhost-user` or `packet socket`.
    pub ports: String,
    /// Ports.
    pub port_count: usize,
    /// Queue pairs of each.
    pub pairs: u16,
    /// Entries of each ring.
    pub ring_size: u16,
    /// Bytes of each ring slot's own buffer, for frames that fit the usual ones.
    pub buffer_bytes: usize,
    /// What was negotiated.
    pub features: Vec<String>,
    /// Whether load ran in both directions at once.
    pub bidirectional: bool,
    /// What the searches looked for; the loss ratios are 0 and 0.005.
    pub goal: Goal,
    /// One frame in so many was compared byte for byte; number and length of all were checked.
    pub compared_every: u64,
}

/// The generator against guests of its own process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// What passed.
    pub rate: f64,
    /// The part of the time in which it waited.
    pub wait_share: f64,
    /// What it could do if it never waited.
    pub ceiling: f64,
}

/// What all trials of a size saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// Trials.
    pub trials: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Of them, compared byte for byte.
    pub compared: u64,
    /// What was wrong.
    pub wrongs: Wrongs,
    /// Frames at ports that they were not for.
    pub stray: u64,
    /// Frames that no bench sent.
    pub foreign: u64,
    /// The longest time for which the generator itself was away, in microseconds.
    pub turn_max_us: f64,
}

impl Checks {
    /// Adds a trial.
    pub fn add(&mut self, trial: &Trial) {
        self.trials += 1;
        self.frames += trial.received;
        self.compared += trial.compared;
        self.wrongs.add(trial.wrongs);
        self.stray += trial.stray;
        self.foreign += trial.foreign;
        self.turn_max_us = self.turn_max_us.max(trial.turn_max.as_secs_f64() * 1e6);
    }
}

/// The maximum receive rate (CSIT: MRR).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mrr {
    /// By trial.
    pub rates: Vec<f64>,
    /// The middle one.
    pub median: f64,
    /// Frames that did not arrive, of all trials.
    pub lost: u64,
    /// The part of the time in which the generator had nothing to do.
    pub wait_share: f64,
    /// Whether that was too little to say that the switch was measured.
    pub generator_bound: bool,
    /// Frames that the generator sent in a turn.
    pub send_batch: f64,
    /// Frames that it received in a turn.
    pub receive_batch: f64,
}

/// The longest burst that loses nothing (RFC 2544, 26.4; RFC 9004).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackToBack {
    /// Frames; the mean of the repetitions.
    pub frames: f64,
    /// At that rate.
    pub rate: f64,
    /// Repetitions in which no burst was long enough to lose any.
    pub unlimited: usize,
    /// Repetitions.
    pub repetitions: usize,
}

/// Frames of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeReport {
    /// `64`, …, or `imix`.
    pub size: String,
    /// Bytes of the mean frame.
    pub mean_bytes: f64,
    /// Maximum receive rate.
    pub mrr: Mrr,
    /// No-drop rate.
    pub ndr: Figure<Found>,
    /// Partial-drop rate, at 0.5 % loss.
    pub pdr: Figure<Found>,
    /// Longest burst.
    pub back_to_back: Figure<BackToBack>,
    /// What was verified.
    pub checks: Checks,
}

impl SizeReport {
    /// As people call the size: `64 B`, or `IMIX`.
    pub fn label(&self) -> String {
        self.size.parse().map_or_else(|_| self.size.clone(), Size::label)
    }
}

/// One-way times at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Of the PDR.
    pub percent: u32,
    /// Frames a second beside the probes.
    pub load: f64,
    /// Probes that arrived.
    pub samples: u64,
    /// Probes that did not.
    pub lost: u64,
    /// The mean.
    pub mean_ns: f64,
    /// The part of the frames, and what they took at most; no further than the samples reach, nor than 99.9999 %.
    pub percentiles: Vec<Percentile>,
}

/// One point of a latency distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// From 0 to 100.
    pub percent: f64,
    /// Nanoseconds.
    pub ns: u64,
}

/// Which points a latency distribution has.
pub const PERCENTS: [f64; 14] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 99.995, 99.999, 99.9999];

/// The points of a histogram that its count can tell apart.
pub fn percentiles(histogram: &Histogram<u64>) -> Vec<Percentile> {
    let count = histogram.len() as f64;
    let told = |percent: &f64| count > 0.0 && count * (100.0 - percent) / 100.0 >= 1.0 - 1e-9;
    let point = |percent: f64| Percentile { percent, ns: histogram.value_at_percentile(percent) };
    PERCENTS.into_iter().filter(told).map(point).collect()
}

/// Broadcast frame forwarding (RFC 2889, 5.10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Ports that each frame went to.
    pub receivers: usize,
    /// Frames sent, a second.
    pub send_rate: f64,
    /// Frames received by all, a second.
    pub receive_rate: f64,
    /// The part that did not arrive.
    pub loss_ratio: f64,
}

/// Address learning rate and caching capacity (RFC 2889, 5.8 and 5.7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learning {
    /// Whether frames to a learned address go to its port only.
    pub learns: bool,
    /// The most addresses a second that were all learned; absent where nothing is learned.
    pub rate: Option<f64>,
    /// Whether that was the fastest that the bench tries.
    pub rate_unlimited: bool,
    /// Addresses that were known at once.
    pub capacity: Option<u64>,
    /// Whether that was the most that the bench tries.
    pub capacity_unlimited: bool,
}

/// A verb's effective blocked time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// The verb, and of which kind if there are several.
    pub verb: String,
    /// Commands that were answered meanwhile.
    pub commands: usize,
    /// Frames a second meanwhile.
    pub load: f64,
    /// Frames that did not arrive.
    pub lost: u64,
    /// Lost, divided by the load and the number of commands.
    pub blocked_us: f64,
    /// From sending a command to its answer, on average.
    pub answer_us: f64,
}

impl Report {
    /// The file's text.
    pub fn to_json(&self) -> String {
        // Maps with odd keys are all that can fail, and there are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads a file's text.
    ///
    /// Errors: text that no bench of this format wrote.
    pub fn from_json(text: &str) -> Result<Report, String> {
        let schema = serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
        match schema["schema"].as_u64() {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => return Err(format!("the report has format {schema}, not {SCHEMA}")),
            None => return Err("this is no report of a bench".into()),
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether frames arrived as they must not, whatever the rate.
    pub fn wrongs(&self) -> Wrongs {
        let mut sum = Wrongs::default();
        self.sizes.iter().for_each(|size| sum.add(size.checks.wrongs));
        sum
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;

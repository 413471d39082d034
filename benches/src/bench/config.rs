//! What a run of the bench is to do, and how much effort each method makes.

use std::time::Duration;

use super::frame::{FCS, JUMBO, RFC_2544, Size};
use super::search::Goal;
use super::target::Target;
use crate::guest::{BUFFER_LEN, Features, GuestConfig};

/// What `ringyard bench` was told.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchConfig {
    /// What is measured.
    pub target: Target,
    /// What reports call it, if not as it is found.
    pub name: Option<String>,
    /// With frames of which sizes.
    pub sizes: Vec<Size>,
    /// Entries of every ring.
    pub ring_size: u16,
    /// Queue pairs of every port.
    pub pairs: u16,
    /// Features to accept.
    pub features: Features,
    /// Load in both directions at once.
    pub bidirectional: bool,
    /// Where the switch forwards; of a foreign one, where its gaps are looked for.
    pub switch_core: usize,
    /// Where the generator runs.
    pub generator_core: usize,
    /// Trials of the maximum receive rate.
    pub rounds: usize,
    /// How much effort to make.
    pub effort: Effort,
}

impl BenchConfig {
    /// The guests whose ports carry frames of up to that size.
    pub fn guest(&self, size: Size) -> GuestConfig {
        let longest = size.max() - FCS + HEADER_LEN_MAX;
        GuestConfig {
            pairs: self.pairs,
            ring_size: self.ring_size,
            buffer_len: longest.next_multiple_of(BUFFER_STEP).max(BUFFER_LEN),
            features: self.features,
        }
    }

    /// Without a wish of the user: all sizes of RFC 2544, jumbo frames and the IMIX; a few in a quick run.
    pub fn default_sizes(quick: bool) -> Vec<Size> {
        if quick {
            return vec![Size::Fixed(64), Size::Fixed(1518), Size::Imix];
        }
        let fixed = RFC_2544.into_iter().chain([JUMBO]).map(Size::Fixed);
        fixed.chain([Size::Imix]).collect()
    }
}

/// How long each method takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Whether figures are a first look only.
    pub quick: bool,
    /// A trial of the maximum receive rate.
    pub mrr_time: Duration,
    /// What MLRsearch looks for, apart from the loss ratio.
    pub goal: Goal,
    /// Trials of one MLRsearch goal.
    pub search_trials_max: usize,
    /// Time of one MLRsearch goal.
    pub search_time_max: Duration,
    /// Each latency.
    pub latency_time: Duration,
    /// How long the clock is watched for gaps.
    pub gap_time: Duration,
    /// The trial beside the commands of one verb.
    pub blocked_time: Duration,
    /// Commands of each verb.
    pub commands: usize,
    /// Repetitions of the back-to-back search.
    pub bursts: usize,
    /// Addresses of the caching test.
    pub addresses_max: usize,
}

impl Effort {
    /// As CSIT measures.
    pub fn full() -> Effort {
        Effort {
            quick: false,
            mrr_time: Duration::from_secs(1),
            goal: Goal::full(0.0),
            search_trials_max: 600,
            search_time_max: Duration::from_secs(900),
            latency_time: Duration::from_secs(5),
            gap_time: Duration::from_secs(5),
            blocked_time: Duration::from_secs(2),
            commands: 50,
            bursts: 5,
            addresses_max: 1 << 18,
        }
    }

    /// Within a minute.
    pub fn quick() -> Effort {
        Effort {
            quick: true,
            mrr_time: Duration::from_millis(500),
            goal: Goal::quick(0.0),
            search_trials_max: 30,
            search_time_max: Duration::from_secs(4),
            latency_time: Duration::from_millis(500),
            gap_time: Duration::from_secs(1),
            blocked_time: Duration::from_millis(300),
            commands: 10,
            bursts: 1,
            addresses_max: 1 << 15,
        }
    }

    /// Every trial this long: for tests of the bench itself.
    pub fn with_trials_of(self, time: Duration) -> Effort {
        let seconds = time.as_secs_f64();
        Effort {
            mrr_time: time,
            goal: Goal { trial_seconds: seconds, duration_sum_seconds: 2.0 * seconds, ..self.goal },
            search_trials_max: 12,
            latency_time: time,
            gap_time: time,
            blocked_time: time,
            commands: 2,
            bursts: 1,
            addresses_max: 2048,
            ..self
        }
    }
}

/// Trials of the maximum receive rate without a wish of the user.
pub fn default_rounds(quick: bool) -> usize {
    if quick { 3 } else { 10 }
}

/// Names of the features that `--features` knows, and how to switch each on or off.
pub const FEATURES: [(&str, FeatureField); 5] = [
    ("packed", |features| &mut features.packed),
    ("mergeable", |features| &mut features.mergeable),
    ("event-idx", |features| &mut features.event_idx),
    ("indirect", |features| &mut features.indirect),
    ("in-order", |features| &mut features.in_order),
];

/// Where a feature stands among all.
pub type FeatureField = fn(&mut Features) -> &mut bool;

/// Reads a list of feature names, or `none`. What is not named is not accepted.
pub fn parse_features(text: &str) -> Result<Features, String> {
    let mut features = Features::ALL;
    FEATURES.iter().for_each(|(_, field)| *field(&mut features) = false);
    for name in text.split(',').filter(|name| !name.is_empty() && *name != "none") {
        let Some((_, field)) = FEATURES.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = FEATURES.iter().map(|(known, _)| *known).collect();
            return Err(format!("there is no feature '{name}': {} or none", known.join(", ")));
        };
        *field(&mut features) = true;
    }
    Ok(features)
}

/// The names of those that are on.
pub fn feature_names(mut features: Features) -> Vec<String> {
    let on = FEATURES.iter().filter(|(_, field)| *field(&mut features));
    on.map(|(name, _)| (*name).to_owned()).collect()
}

/// What a polling guest accepts: split rings, no notifications to suppress, and no indirect tables that it would not make.
pub fn default_features() -> Features {
    Features { event_idx: false, indirect: false, ..Features::SPLIT }
}

/// The longest virtio-net header.
const HEADER_LEN_MAX: usize = 12;
const BUFFER_STEP: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_as_they_are_written() {
        for (name, _) in FEATURES {
            let features = parse_features(name).unwrap();
            assert_eq!(feature_names(features), [name]);
        }
        assert!(feature_names(parse_features("none").unwrap()).is_empty());
        let all: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        assert_eq!(feature_names(parse_features(&all.join(",")).unwrap()), all);
        assert!(parse_features("mergeable,fast").unwrap_err().contains("'fast'"));
    }

    #[test]
    fn every_default_size_has_buffers_for_it() {
        let config = BenchConfig {
            target: Target::Sockets(Vec::new()),
            name: None,
            sizes: Vec::new(),
            ring_size: 256,
            pairs: 1,
            features: default_features(),
            bidirectional: false,
            switch_core: 0,
            generator_core: 1,
            rounds: 1,
            effort: Effort::quick(),
        };
        for size in BenchConfig::default_sizes(false) {
            let room = config.guest(size).buffer_len;
            assert!(room >= size.max() - 4 + 12 && room <= 10_240, "{size}: {room}");
        }
        assert_eq!(config.guest(Size::Fixed(64)).buffer_len, BUFFER_LEN);
    }
}

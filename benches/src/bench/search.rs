//! MLRsearch (draft-ietf-bmwg-mlrsearch): the rates at which loss stays within goals, found with short trials that may
//! contradict each other.
//!
//! A load is a lower bound of a goal when, whatever the trials that are still missing would show, at most the exceed
//! ratio of its trial time loses more than the goal's loss ratio; it is an upper bound when more does, whatever they
//! would show. Until then it is undecided and measured again. The search narrows the gap between the highest relevant lower bound and the
//! lowest upper bound to the goal's width, first with cheaper goals, then with the real one; all goals share all trials.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A search goal, in the draft's words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The part of the frames that a good trial may lose.
    pub loss_ratio: f64,
    /// The part of the trial time that may lose more.
    pub exceed_ratio: f64,
    /// Relative distance of the bounds, at the end.
    pub width: f64,
    /// Length of a trial, in seconds.
    pub trial_seconds: f64,
    /// Trial time that decides about a load, in seconds.
    pub duration_sum_seconds: f64,
}

impl Goal {
    /// CSIT's goal, for that loss ratio.
    pub fn full(loss_ratio: f64) -> Goal {
        Goal { loss_ratio, exceed_ratio: 0.5, width: 0.005, trial_seconds: 1.0, duration_sum_seconds: 21.0 }
    }

    /// A cheaper one, for a first look.
    pub fn quick(loss_ratio: f64) -> Goal {
        Goal { width: 0.03, trial_seconds: 0.1, duration_sum_seconds: 0.3, ..Goal::full(loss_ratio) }
    }
}

/// A trial, as far as the search is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Offered, in frames a second.
    pub load: f64,
    /// Length, in seconds.
    pub seconds: f64,
    /// The part of the frames that was lost.
    pub loss_ratio: f64,
}

/// What a load is to a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The goal is met.
    Lower,
    /// It is not.
    Upper,
    /// Nobody knows yet.
    Undecided,
}

/// What a search found for a goal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The relevant lower bound, in frames a second.
    pub lower: f64,
    /// The relevant upper bound; `None` when the highest load was still good.
    pub upper: Option<f64>,
    /// The rate that arrives at the lower bound (the draft's conditional throughput), in frames a second.
    pub throughput: f64,
    /// Whether the bounds are as close as the goal asks.
    pub converged: bool,
    /// Trials of the whole search until then.
    pub trials: usize,
}

/// Where and how long to search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The lowest load, in frames a second.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// Trials of one goal; a search that needs more ends with what it has.
    pub trials_max: usize,
    /// Time of one goal, likewise.
    pub time_max: Duration,
}

/// The trials so far, by load.
#[derive(Clone, Debug, Default)]
pub struct Search {
    trials: Vec<Measured>,
}

impl Search {
    /// Finds the goal's throughput with trials that `measure` runs at a load and a length. `None` when even the lowest
    /// load does not meet the goal.
    pub fn find(
        &mut self,
        goal: &Goal,
        start: f64,
        limits: Limits,
        measure: &mut dyn FnMut(f64, Duration) -> Result<Measured>,
    ) -> Result<Option<Found>> {
        let mut left = limits.trials_max;
        let start_time = Instant::now();
        for phase in phases(goal) {
            while left > 0
                && start_time.elapsed() < limits.time_max
                && let Some(load) = self.next_load(&phase, start, limits)
            {
                self.trials.push(measure(load, Duration::from_secs_f64(phase.trial_seconds))?);
                left -= 1;
            }
        }
        Ok(self.found(goal, limits))
    }

    /// What a load is to a goal.
    pub fn classify(&self, goal: &Goal, load: f64) -> Bound {
        classify(goal, self.at(load))
    }

    /// The lowest load that was tried, in frames a second.
    pub fn lowest(&self) -> f64 {
        self.trials.iter().map(|trial| trial.load).fold(f64::INFINITY, f64::min)
    }

    fn at(&self, load: f64) -> impl Iterator<Item = &Measured> {
        self.trials.iter().filter(move |trial| trial.load == load)
    }

    fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = self.trials.iter().map(|trial| trial.load).collect();
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        loads
    }

    /// The relevant bounds: the lowest upper one, and the highest lower one beneath it.
    fn bounds(&self, goal: &Goal) -> (Option<f64>, Option<f64>) {
        let loads = self.loads();
        let upper = loads.iter().copied().find(|load| self.classify(goal, *load) == Bound::Upper);
        let below = |load: &f64| upper.is_none_or(|upper| *load < upper);
        let lower = loads.iter().copied().rev().filter(below);
        let lower = lower.into_iter().find(|load| self.classify(goal, *load) == Bound::Lower);
        (lower, upper)
    }

    /// The load to be measured next, or `None` when the goal is reached.
    fn next_load(&self, goal: &Goal, start: f64, limits: Limits) -> Option<f64> {
        let (lower, upper) = self.bounds(goal);
        let floor = lower.unwrap_or(0.0);
        let ceiling = upper.unwrap_or(f64::INFINITY);
        // What was begun is decided first.
        let begun =
            self.loads().into_iter().rev().find(|load| {
                *load > floor && *load < ceiling && self.classify(goal, *load) == Bound::Undecided
            });
        match (lower, upper) {
            (Some(lower), Some(upper)) if (upper - lower) / upper <= goal.width => None,
            (Some(lower), None) if lower >= limits.max => None,
            (None, Some(upper)) if upper <= limits.min => None,
            _ if begun.is_some() => begun,
            (Some(lower), Some(upper)) => Some((lower * upper).sqrt()),
            (Some(lower), None) => Some((lower * (1.0 + self.stride(goal))).min(limits.max)),
            (None, Some(upper)) => Some((upper * (1.0 - self.stride(goal))).max(limits.min)),
            (None, None) => Some(start.clamp(limits.min, limits.max)),
        }
    }

    /// How far to look for the missing bound: further with every load that did not show it.
    fn stride(&self, goal: &Goal) -> f64 {
        let doublings = self.loads().len().saturating_sub(1).min(8) as i32;
        (goal.width * 2f64.powi(doublings)).min(0.5)
    }

    fn found(&self, goal: &Goal, limits: Limits) -> Option<Found> {
        let (lower, upper) = self.bounds(goal);
        let lower = lower?;
        let close = match upper {
            Some(upper) => (upper - lower) / upper <= goal.width,
            None => lower >= limits.max,
        };
        let throughput = lower * (1.0 - quantile_loss(goal, self.at(lower)));
        Some(Found { lower, upper, throughput, converged: close, trials: self.trials.len() })
    }
}

/// The goal, after cheaper ones that bring its bounds near.
fn phases(goal: &Goal) -> [Goal; 3] {
    let between = (goal.trial_seconds * goal.duration_sum_seconds).sqrt();
    let first = Goal { width: goal.width * 4.0, duration_sum_seconds: goal.trial_seconds, ..*goal };
    let second = Goal { width: goal.width * 2.0, duration_sum_seconds: between, ..*goal };
    [first, second, *goal]
}

/// The draft's load classification, which weighs short trials by what they contradict.
fn classify<'a>(goal: &Goal, trials: impl Iterator<Item = &'a Measured>) -> Bound {
    let (mut long_good, mut long_bad, mut short_good, mut short_bad) = (0.0, 0.0, 0.0, 0.0);
    for trial in trials {
        let long = trial.seconds >= goal.trial_seconds * (1.0 - 1e-9);
        *match (long, trial.loss_ratio <= goal.loss_ratio) {
            (true, true) => &mut long_good,
            (true, false) => &mut long_bad,
            (false, true) => &mut short_good,
            (false, false) => &mut short_bad,
        } += trial.seconds;
    }
    // Short good trials prove nothing, but they make up for short bad ones.
    let made_up = short_good * goal.exceed_ratio / (1.0 - goal.exceed_ratio);
    let bad = long_bad + f64::max(short_bad - made_up, 0.0);
    let whole = f64::max(long_good + bad, goal.duration_sum_seconds);
    let allowed = whole * goal.exceed_ratio;
    let good_at_best = bad <= allowed;
    let good_at_worst = whole - long_good <= allowed;
    match (good_at_best, good_at_worst) {
        (true, true) => Bound::Lower,
        (false, false) => Bound::Upper,
        _ => Bound::Undecided,
    }
}

/// The loss ratio that all but the exceed ratio of the trial time stays within.
fn quantile_loss<'a>(goal: &Goal, trials: impl Iterator<Item = &'a Measured>) -> f64 {
    let mut trials: Vec<&Measured> = trials.collect();
    trials.sort_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
    let total: f64 = trials.iter().map(|trial| trial.seconds).sum();
    let mut left = total.max(goal.duration_sum_seconds) * (1.0 - goal.exceed_ratio);
    for trial in &trials {
        left -= trial.seconds;
        if left <= 0.0 {
            return trial.loss_ratio;
        }
    }
    // All that is missing counts as the worst that was seen.
    trials.last().map_or(1.0, |trial| trial.loss_ratio)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;

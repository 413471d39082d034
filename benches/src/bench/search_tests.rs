//! Searches against a device that is known.

use super::*;

/// Loses nothing up to `clean`, then a little, and everything above `capacity`. `noise` of all trials lose a tenth.
struct Device {
    clean: f64,
    capacity: f64,
    noise: f64,
    random: u64,
    trials: usize,
}

impl Device {
    fn new(clean: f64, capacity: f64) -> Device {
        Device { clean, capacity, noise: 0.0, random: 42, trials: 0 }
    }

    fn random(&mut self) -> f64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn measure(&mut self, load: f64, time: Duration) -> Result<Measured> {
        self.trials += 1;
        let steady = f64::max(1.0 - self.capacity / load, if load > self.clean { 1e-4 } else { 0.0 });
        let loss_ratio = if self.random() < self.noise { steady.max(0.1) } else { steady };
        Ok(Measured { load, seconds: time.as_secs_f64(), loss_ratio })
    }

    fn find(&mut self, search: &mut Search, goal: &Goal, start: f64) -> Option<Found> {
        search.find(goal, start, LIMITS, &mut |load, time| self.measure(load, time)).unwrap()
    }
}

const LIMITS: Limits = Limits { min: 1e4, max: 2e7, trials_max: 2000, time_max: Duration::MAX };

fn trials(load: f64, losses: &[f64]) -> Search {
    let trial = |loss_ratio: &f64| Measured { load, seconds: 1.0, loss_ratio: *loss_ratio };
    Search { trials: losses.iter().map(trial).collect() }
}

#[test]
fn load_is_decided_only_when_the_missing_trials_cannot_change_it() {
    let goal = Goal { duration_sum_seconds: 5.0, ..Goal::full(0.0) };
    let bound = |losses: &[f64]| trials(1.0, losses).classify(&goal, 1.0);
    assert_eq!(bound(&[]), Bound::Undecided);
    assert_eq!(bound(&[0.0, 0.0]), Bound::Undecided, "the other three may lose");
    assert_eq!(bound(&[0.0, 0.0, 0.0]), Bound::Lower);
    assert_eq!(bound(&[0.1, 0.1]), Bound::Undecided);
    assert_eq!(bound(&[0.1, 0.1, 0.1]), Bound::Upper);
    assert_eq!(bound(&[0.1, 0.0, 0.1, 0.0]), Bound::Undecided);
    assert_eq!(bound(&[0.1, 0.0, 0.1, 0.0, 0.0]), Bound::Lower, "half of the time may exceed");
    assert_eq!(bound(&[0.1, 0.0, 0.1, 0.0, 0.1]), Bound::Upper);
}

#[test]
fn short_trials_condemn_but_do_not_acquit() {
    let goal = Goal { duration_sum_seconds: 2.0, ..Goal::full(0.0) };
    let short = |loss_ratio: f64| Measured { load: 1.0, seconds: 0.1, loss_ratio };
    let of = |trials: Vec<Measured>| Search { trials }.classify(&goal, 1.0);
    assert_eq!(of(vec![short(0.0); 100]), Bound::Undecided);
    assert_eq!(of(vec![short(0.5); 11]), Bound::Upper);
    assert_eq!(of([vec![short(0.5); 11], vec![short(0.0); 11]].concat()), Bound::Undecided);
}

#[test]
fn steady_device_is_found_within_the_width() {
    for (clean, capacity) in [(3.3e6, 5e6), (1.2e4, 1.9e4), (1.5e7, 1.6e7)] {
        let mut device = Device::new(clean, capacity);
        let mut search = Search::default();
        for (goal, rate) in [(Goal::full(0.0), clean), (Goal::full(0.005), capacity / 0.995)] {
            let found = device.find(&mut search, &goal, capacity).unwrap();
            let upper = found.upper.unwrap();
            assert!(found.converged && found.lower <= rate && rate <= upper, "{rate}: {found:?}");
            assert!((upper - found.lower) / upper <= 0.005, "{found:?}");
        }
        assert!(device.trials < 300, "{} trials", device.trials);
    }
}

#[test]
fn noise_of_a_fifth_of_the_trials_is_seen_through() {
    let mut device = Device { noise: 0.2, ..Device::new(3e6, 4e6) };
    let found = device.find(&mut Search::default(), &Goal::full(0.0), 4e6).unwrap();
    assert!((found.throughput / 3e6 - 1.0).abs() < 0.01, "{found:?}");
}

#[test]
fn noise_of_most_trials_is_what_the_device_does() {
    let mut device = Device { noise: 0.9, ..Device::new(3e6, 4e6) };
    assert_eq!(device.find(&mut Search::default(), &Goal::full(0.0), 4e6), None);
}

#[test]
fn conditional_throughput_is_what_arrives() {
    let mut device = Device::new(1e6, 4e6);
    let found = device.find(&mut Search::default(), &Goal::full(0.005), 4e6).unwrap();
    assert!(found.throughput <= 4e6 && found.throughput > 3.97e6, "{found:?}");
    assert!(found.throughput < found.lower, "the loss that the goal allows does not arrive");
}

#[test]
fn device_that_is_faster_than_the_highest_load_has_no_upper_bound() {
    let mut device = Device::new(1e9, 1e9);
    let found = device.find(&mut Search::default(), &Goal::full(0.0), 1e6).unwrap();
    assert_eq!((found.lower, found.upper, found.converged), (LIMITS.max, None, true));
}

#[test]
fn search_that_may_try_too_little_says_so() {
    let mut device = Device::new(3e6, 4e6);
    let limits = Limits { trials_max: 60, ..LIMITS };
    let found = Search::default()
        .find(&Goal::full(0.0), 1.9e7, limits, &mut |load, time| device.measure(load, time))
        .unwrap();
    assert!(found.is_none_or(|found| !found.converged));
    assert_eq!(device.trials, 60);
}

#[test]
fn search_that_has_no_time_ends_at_once() {
    let mut device = Device::new(3e6, 4e6);
    let limits = Limits { time_max: Duration::ZERO, ..LIMITS };
    let found =
        Search::default().find(&Goal::full(0.0), 4e6, limits, &mut |load, time| device.measure(load, time));
    assert_eq!((found.unwrap(), device.trials), (None, 0));
}

#[test]
fn quick_goal_needs_few_trials() {
    let mut device = Device::new(3e6, 4e6);
    let mut search = Search::default();
    let pdr = device.find(&mut search, &Goal::quick(0.005), 4e6).unwrap();
    let ndr = device.find(&mut search, &Goal::quick(0.0), pdr.lower).unwrap();
    assert!(pdr.converged && ndr.converged && device.trials <= 60, "{} trials", device.trials);
    assert!((ndr.lower / 3e6 - 1.0).abs() < 0.03 && (pdr.lower / 4e6 - 1.0).abs() < 0.04);
}

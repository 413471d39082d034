//! Reports as they are kept and shown.

use std::time::Duration;

use super::*;
use crate::bench::page::page;
use crate::bench::table::Table;

fn found(lower: f64) -> Figure<Found> {
    Figure::Value(Found { lower, upper: None, throughput: lower, converged: true, trials: 9 })
}

fn size(size: &str, rate: f64) -> SizeReport {
    let mrr = Mrr {
        rates: vec![rate, rate + 1e5],
        median: rate,
        lost: 3,
        wait_share: 0.01,
        generator_bound: true,
        send_batch: 12.5,
        receive_batch: 30.0,
    };
    let burst = BackToBack { frames: 4096.0, rate: 2e7, unlimited: 0, repetitions: 1 };
    SizeReport {
        size: size.into(),
        mean_bytes: 64.0,
        mrr,
        ndr: Figure::Absent("core 1 was taken away".into()),
        pdr: found(rate - 1e5),
        back_to_back: Figure::Value(burst),
        checks: Checks { trials: 5, frames: 1000, ..Checks::default() },
    }
}

/// A report with something of everything.
pub(crate) fn sample(target: &str, rate: f64) -> Report {
    let mut histogram = Histogram::new(3).unwrap();
    (1..=1000).for_each(|value| histogram.record(value * 10).unwrap());
    let percentiles = percentiles(&histogram);
    let row = |percent| Latency {
        percent,
        load: 1e6,
        samples: 1000,
        lost: 0,
        mean_ns: 5000.0,
        percentiles: percentiles.clone(),
    };
    let blocked = Blocked {
        verb: "netdev_add <hubport>".into(),
        commands: 10,
        load: 5e5,
        lost: 7,
        blocked_us: 1.4,
        answer_us: 80.0,
    };
    Report {
        schema: SCHEMA,
        target: target.into(),
        version: "0.1.0".into(),
        unix_time: 1,
        seconds: 30.0,
        quick: true,
        machine: Machine::here(),
        setup: Setup {
            switch_core: 0,
            generator_core: 1,
            gaps: vec![Gap { core: 0, longest_us: 12.5, stolen: 0.0 }],
            ports: "vhost-user".into(),
            port_count: 3,
            pairs: 1,
            ring_size: 1024,
            buffer_bytes: 2048,
            features: vec!["mergeable".into()],
            bidirectional: false,
            goal: Goal::quick(0.0),
            compared_every: 32,
        },
        self_test: Figure::Value(SelfTest { rate: 2e7, wait_share: 0.3, ceiling: 3e7 }),
        sizes: vec![size("64", rate), size("imix", rate / 4.0)],
        latency: Figure::Value(vec![row(0), row(50)]),
        broadcast: Figure::Absent("it takes three ports".into()),
        learning: Figure::Value(Learning {
            learns: false,
            rate: None,
            rate_unlimited: false,
            capacity: None,
            capacity_unlimited: false,
        }),
        blocked: Figure::Value(vec![blocked]),
        notes: vec!["a note".into()],
    }
}

#[test]
fn report_comes_back_from_json_as_it_was() {
    let report = sample("ringyard", 3.3e6);
    assert_eq!(Report::from_json(&report.to_json()), Ok(report));
}

#[test]
fn other_formats_are_refused() {
    let text = sample("ringyard", 1e6).to_json().replace("\"schema\": 1", "\"schema\": 2");
    assert!(Report::from_json(&text).unwrap_err().contains("format 2"));
    assert!(Report::from_json("{}").unwrap_err().contains("no report"));
    assert!(Report::from_json("nonsense").is_err());
}

#[test]
fn percentiles_end_where_the_samples_do() {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    assert!(percentiles(&histogram).is_empty());
    (1..=1000).for_each(|value| histogram.record(value).unwrap());
    let points = percentiles(&histogram);
    let at = |percent: f64| points.iter().find(|point| point.percent == percent).map(|point| point.ns);
    assert_eq!((at(50.0), at(90.0), at(99.0)), (Some(500), Some(900), Some(990)));
    assert!(at(99.9).is_some_and(|ns| ns >= 999));
    assert_eq!(at(99.99), None, "a thousand samples say nothing of one in ten thousand");
}

#[test]
fn percentiles_are_cut_at_one_in_a_million() {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    histogram.record_n(100, 10_000_000).unwrap();
    histogram.record_n(1_000_000, 5).unwrap();
    let last = percentiles(&histogram).pop().unwrap();
    assert_eq!((last.percent, last.ns), (99.9999, 100));
}

#[test]
fn table_says_what_is_refused_and_why() {
    let text = Table(&sample("ringyard", 3.3e6)).to_string();
    for part in [
        "no NDR at 64: core 1 was taken away",
        "generator-bound",
        "3.200",
        "does not learn",
        "no broadcast forwarding: it takes three ports",
        "netdev_add <hubport>",
        "note: a note",
        "sizes count the FCS",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn page_needs_nothing_else_and_has_a_plot_for_each_figure() {
    let html = page(&[sample("ringyard", 3.3e6)]);
    assert_eq!(html.matches("<svg").count(), 4, "two of rates, one of latency, one of blocked times");
    for part in ["prefers-color-scheme", "No NDR at 64", "netdev_add &lt;hubport&gt;", "Mpps", "percentile"] {
        assert!(html.contains(part), "{part}");
    }
    for part in ["http:", "https:", "<script", "<link", "NaN", "<hubport>"] {
        assert!(!html.contains(part), "{part}");
    }
}

#[test]
fn page_of_several_reports_is_a_ladder() {
    let html = page(&[sample("ringyard", 3e6), sample("other", 1.5e6)]);
    assert!(html.contains("Ladder") && html.contains("0.50x") && html.contains("1.00x"), "{html}");
}

#[test]
fn wrong_frames_of_any_size_are_the_report_s() {
    let mut report = sample("ringyard", 1e6);
    assert!(report.wrongs().is_none());
    report.sizes[1].checks.wrongs.corrupted = 2;
    assert_eq!(report.wrongs().corrupted, 2);
}

#[test]
fn checks_add_up() {
    let trial = Trial {
        offered: 10,
        sent: 10,
        expected: 10,
        received: 8,
        wrongs: Wrongs { duplicated: 1, ..Wrongs::default() },
        stray: 2,
        foreign: 3,
        compared: 1,
        elapsed: Duration::from_secs(2),
        waited: Duration::from_millis(500),
        sending: Duration::from_secs(1),
        turn_max: Duration::from_micros(7),
        send_batch: 1.0,
        receive_batch: 1.0,
        latency: Histogram::new(3).unwrap(),
        probes: 0,
    };
    let mut checks = Checks::default();
    checks.add(&trial);
    checks.add(&trial);
    assert_eq!((checks.trials, checks.frames, checks.stray, checks.foreign), (2, 16, 4, 6));
    assert_eq!((checks.wrongs.duplicated, checks.turn_max_us), (2, 7.0));
    assert_eq!((trial.lost(), trial.loss_ratio(), trial.receive_rate()), (2, 0.2, 4.0));
    assert_eq!(trial.wait_share(), 0.5);
}

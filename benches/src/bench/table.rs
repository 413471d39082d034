//! A report as text for a terminal.

use std::fmt::{self, Display, Formatter};

use super::report::{Figure, Report, SizeReport};
use super::search::Found;

/// Shows a report.
pub struct Table<'a>(pub &'a Report);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        show_setup(f, report)?;
        show_sizes(f, report)?;
        show_latency(f, report)?;
        show_others(f, report)?;
        show_blocked(f, report)?;
        for note in &report.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

fn show_setup(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let (machine, setup) = (&report.machine, &report.setup);
    let effort = if report.quick { ", a quick first look" } else { "" };
    writeln!(f, "{} ({:.0} s{effort})", report.target, report.seconds)?;
    writeln!(f, "  machine   {}", machine_line(report))?;
    writeln!(f, "  kernel    {}", machine.kernel)?;
    writeln!(
        f,
        "  cores     switch on {}, generator on {}; longest gap {}",
        setup.switch_core,
        setup.generator_core,
        setup.gaps.iter().map(|gap| format!("{:.0} us", gap.longest_us)).collect::<Vec<_>>().join(" and ")
    )?;
    writeln!(f, "  ports     {}", ports_line(report))?;
    match &report.self_test {
        Figure::Value(test) => writeln!(
            f,
            "  self-test {:.2} Mpps, waiting {:.0} % of the time: the generator can do {:.2} Mpps",
            test.rate / 1e6,
            test.wait_share * 100.0,
            test.ceiling / 1e6
        ),
        Figure::Absent(why) => writeln!(f, "  self-test none: {why}"),
    }
}

/// CPU, cores, SMT and governor.
pub(super) fn machine_line(report: &Report) -> String {
    let machine = &report.machine;
    let smt = match machine.smt {
        Some(true) => "SMT on",
        Some(false) => "SMT off",
        None => "SMT unknown",
    };
    let mut parts = vec![machine.cpu.clone(), format!("{} cores", machine.cores), smt.to_owned()];
    parts.extend(machine.governor.iter().map(|governor| format!("governor {governor}")));
    parts.extend(machine.isolated.iter().map(|cores| format!("isolated {cores}")));
    if machine.virtualised {
        parts.push("a virtual machine".into());
    }
    parts.join(", ")
}

/// Kind, rings, buffers and features of the ports.
pub(super) fn ports_line(report: &Report) -> String {
    let setup = &report.setup;
    let ways = if setup.bidirectional { "both directions at once" } else { "one direction" };
    if setup.features.is_empty() && setup.ports != "vhost-user" {
        return format!("{} {}s, {ways}", setup.port_count, setup.ports);
    }
    let features = if setup.features.is_empty() { "no features".into() } else { setup.features.join(", ") };
    format!(
        "{} {}, {} queue pair(s), rings of {}, a buffer of {} B a slot, {features}, {ways}",
        setup.port_count, setup.ports, setup.pairs, setup.ring_size, setup.buffer_bytes
    )
}

fn show_sizes(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(
        f,
        "\n  {:>6} {:>10} {:>8} {:>10} {:>10} {:>10} {:>7} {:>12}",
        "size", "MRR Mpps", "Gbit/s", "PDR Mpps", "NDR Mpps", "burst", "waited", "batch tx/rx"
    )?;
    for size in &report.sizes {
        let mrr = &size.mrr;
        let bound = if mrr.generator_bound { " generator-bound" } else { "" };
        writeln!(
            f,
            "  {:>6} {:>10.3} {:>8.2} {:>10} {:>10} {:>10} {:>6.0}% {:>12}{bound}",
            size.size,
            mrr.median / 1e6,
            gbits(size, mrr.median),
            rate_cell(&size.pdr),
            rate_cell(&size.ndr),
            burst_cell(size),
            mrr.wait_share * 100.0,
            format!("{:.1}/{:.1}", mrr.send_batch, mrr.receive_batch),
        )?;
    }
    let goal = &report.setup.goal;
    writeln!(
        f,
        "  sizes count the FCS, Gbit/s the frames without preamble and gap; PDR loses up to 0.5 %\n  \
         MLRsearch: trials of {} s, duration sum {} s, exceed ratio {} %, width {} %; ~ not converged",
        goal.trial_seconds,
        goal.duration_sum_seconds,
        goal.exceed_ratio * 100.0,
        goal.width * 100.0
    )?;
    for size in &report.sizes {
        for (name, why) in [("PDR", size.pdr.why()), ("NDR", size.ndr.why())] {
            if let Some(why) = why {
                writeln!(f, "  no {name} at {}: {why}", size.size)?;
            }
        }
    }
    Ok(())
}

fn show_latency(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let rows = match &report.latency {
        Figure::Value(rows) => rows,
        Figure::Absent(why) => return writeln!(f, "\n  no latency: {why}"),
    };
    let size = report.sizes.first().map(SizeReport::label).unwrap_or_default();
    writeln!(f, "\n  one-way latency in us at {size}, by load in % of PDR")?;
    writeln!(
        f,
        "  {:>6} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6}",
        "load", "Mpps", "p50", "p90", "p99", "p99.9", "p99.99", "samples", "lost"
    )?;
    for row in rows {
        write!(f, "  {:>4} % {:>10.3}", row.percent, row.load / 1e6)?;
        for (percent, width) in [(50.0, 8), (90.0, 8), (99.0, 8), (99.9, 8), (99.99, 9)] {
            let point = row.percentiles.iter().find(|point| point.percent == percent);
            let cell = point.map_or("-".into(), |point| format!("{:.1}", point.ns as f64 / 1e3));
            write!(f, " {cell:>width$}")?;
        }
        writeln!(f, " {:>8} {:>6}", row.samples, row.lost)?;
    }
    Ok(())
}

fn show_others(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    match &report.broadcast {
        Figure::Value(one) => writeln!(
            f,
            "\n  broadcast to {} ports: {:.3} Mpps in, {:.3} Mpps out, {:.3} % lost",
            one.receivers,
            one.send_rate / 1e6,
            one.receive_rate / 1e6,
            one.loss_ratio * 100.0
        )?,
        Figure::Absent(why) => writeln!(f, "\n  no broadcast forwarding: {why}")?,
    }
    let learning = match &report.learning {
        Figure::Value(learning) if !learning.learns => {
            return writeln!(f, "  address learning: does not learn");
        }
        Figure::Value(learning) => learning,
        Figure::Absent(why) => return writeln!(f, "  no address learning: {why}"),
    };
    let at_least = |unlimited: bool| if unlimited { "at least " } else { "" };
    let rate = match learning.rate {
        Some(rate) => format!("{}{rate:.0} addresses/s", at_least(learning.rate_unlimited)),
        None => "no rate at which all are learned".into(),
    };
    let capacity = learning.capacity.unwrap_or(0);
    let more = at_least(learning.capacity_unlimited);
    writeln!(f, "  address learning: {rate}; caching capacity {more}{capacity} addresses")
}

fn show_blocked(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let rows = match &report.blocked {
        Figure::Value(rows) => rows,
        Figure::Absent(why) => return writeln!(f, "  no blocked times: {why}"),
    };
    let load = rows.first().map_or(0.0, |row| row.load);
    writeln!(f, "\n  effective blocked time of a command, at {:.3} Mpps", load / 1e6)?;
    writeln!(
        f,
        "  {:<24} {:>8} {:>10} {:>12} {:>12}",
        "verb", "commands", "lost", "blocked us", "answer us"
    )?;
    for row in rows {
        writeln!(
            f,
            "  {:<24} {:>8} {:>10} {:>12.2} {:>12.1}",
            row.verb, row.commands, row.lost, row.blocked_us, row.answer_us
        )?;
    }
    Ok(())
}

/// Gigabits of frames a second at that many frames a second.
pub(super) fn gbits(size: &SizeReport, rate: f64) -> f64 {
    rate * size.mean_bytes * 8.0 / 1e9
}

pub(super) fn rate_cell(figure: &Figure<Found>) -> String {
    match figure {
        Figure::Value(found) => {
            let mark = if found.converged { "" } else { "~" };
            format!("{mark}{:.3}", found.throughput / 1e6)
        }
        Figure::Absent(_) => "-".into(),
    }
}

pub(super) fn burst_cell(size: &SizeReport) -> String {
    match &size.back_to_back {
        Figure::Value(burst) if burst.unlimited == burst.repetitions => format!(">={:.0}", burst.frames),
        Figure::Value(burst) => format!("{:.0}", burst.frames),
        Figure::Absent(_) => "-".into(),
    }
}

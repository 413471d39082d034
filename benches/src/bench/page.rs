//! A report as one HTML file that needs nothing else: plots to look at first, figures below. Of several reports, the
//! first is the one that the others are compared with.

use std::fmt::Write;

use super::frame::Size;
use super::report::{Figure, PERCENTS, Report, SizeReport};
use super::search::Found;
use super::svg::{Bar, Line, LinePlot, bars, escape, number};
use super::table::{burst_cell, gbits, machine_line, ports_line, rate_cell};

/// The page of one report or of several, at least one.
pub fn page(reports: &[Report]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let title = match reports {
        [only] => format!("ringyard bench: {}", only.target),
        _ => format!("ringyard bench: {} switches", reports.len()),
    };
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    add_summary(&mut html, first);
    if reports.len() > 1 {
        add_ladder(&mut html, reports);
    }
    add_rates(&mut html, reports);
    for report in reports {
        add_latency(&mut html, report);
    }
    for report in reports {
        add_blocked(&mut html, report);
        add_figures(&mut html, report);
    }
    html + "</main>\n</body>\n</html>\n"
}

fn add_summary(html: &mut String, report: &Report) {
    let mut cards = Vec::new();
    if let Some(size) = report.sizes.first() {
        cards.push((format!("MRR at {}", size.label()), format!("{:.2} Mpps", size.mrr.median / 1e6)));
        let pdr = size.pdr.value().map(|found| format!("{:.2} Mpps", found.throughput / 1e6));
        cards.push((format!("PDR at {}", size.label()), pdr.unwrap_or("-".into())));
    }
    let fastest = report.sizes.iter().map(|size| gbits(size, size.mrr.median)).fold(0.0, f64::max);
    cards.push(("most throughput".into(), format!("{fastest:.1} Gbit/s")));
    let half = report.latency.value().and_then(|rows| rows.iter().find(|row| row.percent == 50));
    let median = half.and_then(|row| row.percentiles.iter().find(|point| point.percent == 50.0));
    if let Some(point) = median {
        cards.push(("median latency at half of PDR".into(), format!("{:.1} us", point.ns as f64 / 1e3)));
    }
    html.push_str("<div class=\"cards\">\n");
    for (name, value) in cards {
        push(html, format_args!("<div><b>{}</b><span>{}</span></div>\n", escape(&value), escape(&name)));
    }
    html.push_str("</div>\n");
    if report.quick {
        html.push_str(
            "<p class=\"note\">A quick run: a first look, with short trials and few of them.</p>\n",
        );
    }
}

/// Who is how fast, at each size that the first report has.
fn add_ladder(html: &mut String, reports: &[Report]) {
    html.push_str("<h2>Ladder</h2>\n");
    for size in &reports[0].sizes {
        let reference = size.mrr.median;
        let mut rungs: Vec<Bar> = reports
            .iter()
            .enumerate()
            .filter_map(|(colour, report)| {
                let rate = report.sizes.iter().find(|other| other.size == size.size)?.mrr.median;
                let text = format!("{:.2} Mpps, {:.2}x", rate / 1e6, rate / reference);
                Some(Bar { name: report.target.clone(), value: rate, text, colour })
            })
            .collect();
        rungs.sort_by(|a, b| b.value.total_cmp(&a.value));
        push(
            html,
            format_args!(
                "<h3>MRR at {} B, and the ratio to {}</h3>\n",
                size.size,
                escape(&reports[0].target)
            ),
        );
        html.push_str(&bars("ladder of rates", &rungs));
    }
}

fn add_rates(html: &mut String, reports: &[Report]) {
    let sizes = &reports[0].sizes;
    let lines = |value: fn(&SizeReport, f64) -> f64| match reports {
        [only] => rate_lines(only, value),
        _ => reports.iter().map(|report| mrr_line(report, sizes, value)).collect(),
    };
    let plot = |title, y_label, lines| LinePlot {
        title,
        places: sizes.iter().map(|size| size.size.clone()).collect(),
        alone_from: sizes.iter().position(|size| size.size == Size::Imix.to_string()).unwrap_or(sizes.len()),
        x_label: "frame size in bytes, FCS counted",
        y_label,
        lines,
    };
    let what = if reports.len() == 1 { "" } else { " (MRR)" };
    push(html, format_args!("<h2>Rate against frame size{what}</h2>\n<div class=\"pair\">\n<figure>\n"));
    html.push_str(&plot("frames a second", "Mpps", lines(|_, rate| rate / 1e6)).render());
    html.push_str("</figure>\n<figure>\n");
    html.push_str(&plot("bits a second", "Gbit/s", lines(gbits)).render());
    html.push_str("</figure>\n</div>\n");
}

fn rate_lines(report: &Report, value: fn(&SizeReport, f64) -> f64) -> Vec<Line> {
    let line = |name: &str, rate: fn(&SizeReport) -> Option<f64>| Line {
        name: name.into(),
        values: report.sizes.iter().map(|size| rate(size).map(|rate| value(size, rate))).collect(),
    };
    let throughput = |figure: &Figure<Found>| figure.value().map(|found| found.throughput);
    let mut lines = vec![
        line("MRR, the most that arrives", |size| Some(size.mrr.median)),
        line("PDR, up to 0.5 % lost", |size| size.pdr.value().map(|found| found.throughput)),
    ];
    if report.sizes.iter().any(|size| throughput(&size.ndr).is_some()) {
        lines.push(line("NDR, none lost", |size| size.ndr.value().map(|found| found.throughput)));
    }
    lines
}

fn mrr_line(report: &Report, sizes: &[SizeReport], value: fn(&SizeReport, f64) -> f64) -> Line {
    let at = |wanted: &SizeReport| {
        let size = report.sizes.iter().find(|size| size.size == wanted.size)?;
        Some(value(size, size.mrr.median))
    };
    Line { name: report.target.clone(), values: sizes.iter().map(at).collect() }
}

fn add_latency(html: &mut String, report: &Report) {
    let Some(rows) = report.latency.value() else { return };
    let told =
        |percent: f64| rows.iter().any(|row| row.percentiles.iter().any(|point| point.percent == percent));
    let percents: Vec<f64> =
        PERCENTS.into_iter().filter(|percent| *percent > 0.0 && told(*percent)).collect();
    let lines = rows.iter().map(|row| Line {
        name: format!("{} % of PDR", row.percent),
        values: percents
            .iter()
            .map(|percent| {
                let point = row.percentiles.iter().find(|point| point.percent == *percent)?;
                Some(point.ns as f64 / 1e3)
            })
            .collect(),
    });
    let plot = LinePlot {
        title: "latency distribution",
        places: percents.iter().map(|percent| percent.to_string()).collect(),
        alone_from: percents.len(),
        x_label: "percentile",
        y_label: "one-way latency in us",
        lines: lines.collect(),
    };
    let size = report.sizes.first().map(SizeReport::label).unwrap_or_default();
    push(html, format_args!("<h2>Latency at {size}: {}</h2>\n<figure>\n", escape(&report.target)));
    html.push_str(&plot.render());
    html.push_str("</figure>\n");
}

fn add_blocked(html: &mut String, report: &Report) {
    let Some(rows) = report.blocked.value() else { return };
    let verbs: Vec<Bar> = rows
        .iter()
        .map(|row| Bar {
            name: row.verb.clone(),
            value: row.blocked_us,
            text: format!("{} us, {} lost", number(row.blocked_us), row.lost),
            colour: 0,
        })
        .collect();
    push(
        html,
        format_args!("<h2>Effective blocked time of a command: {}</h2>\n<figure>\n", escape(&report.target)),
    );
    html.push_str(&bars("blocked time by verb", &verbs));
    html.push_str("</figure>\n");
}

fn add_figures(html: &mut String, report: &Report) {
    push(html, format_args!("<h2>Figures: {}</h2>\n", escape(&report.target)));
    html.push_str("<div class=\"scroll\"><table>\n<tr>");
    for head in ["size", "MRR Mpps", "Gbit/s", "PDR Mpps", "NDR Mpps", "burst", "waited", "trials", "frames"]
    {
        push(html, format_args!("<th>{head}</th>"));
    }
    html.push_str("</tr>\n");
    for size in &report.sizes {
        let bound = if size.mrr.generator_bound { " generator-bound" } else { "" };
        let cells = [
            size.size.clone(),
            format!("{:.3}", size.mrr.median / 1e6),
            format!("{:.2}", gbits(size, size.mrr.median)),
            rate_cell(&size.pdr),
            rate_cell(&size.ndr),
            burst_cell(size),
            format!("{:.0} %{bound}", size.mrr.wait_share * 100.0),
            size.checks.trials.to_string(),
            size.checks.frames.to_string(),
        ];
        let row: Vec<String> = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        push(html, format_args!("<tr>{}</tr>\n", row.concat()));
    }
    html.push_str("</table></div>\n<dl>\n");
    let setup = &report.setup;
    let gaps: Vec<String> =
        setup.gaps.iter().map(|gap| format!("core {}: {:.0} us", gap.core, gap.longest_us)).collect();
    let facts = [
        ("Machine", machine_line(report)),
        ("Kernel", report.machine.kernel.clone()),
        (
            "Pinning",
            format!("switch on core {}, generator on core {}", setup.switch_core, setup.generator_core),
        ),
        ("Longest gaps", gaps.join(", ")),
        ("Ports", ports_line(report)),
        (
            "Verified",
            format!("number and length of every frame, all bytes of one in {}", setup.compared_every),
        ),
    ];
    for (name, value) in facts {
        push(html, format_args!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value)));
    }
    html.push_str("</dl>\n");
    let refused =
        report.sizes.iter().filter_map(|size| Some(format!("No NDR at {}: {}", size.size, size.ndr.why()?)));
    for note in refused.chain(report.notes.iter().cloned()) {
        push(html, format_args!("<p class=\"note\">{}</p>\n", escape(&note)));
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = html.write_fmt(text);
}

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fcfcfd;--text:#1b1f27;--soft:#667085;--line:#e3e6ec;--card:#f2f4f8;
--c0:#2563eb;--c1:#0f9d75;--c2:#d97706;--c3:#b83280;--c4:#6d5bd0;--c5:#475569}
@media (prefers-color-scheme:dark){:root{--back:#12151b;--text:#e6e9ef;--soft:#98a2b3;--line:#2a2f3a;--card:#1b2029;
--c0:#6ea8ff;--c1:#3ecf9f;--c2:#f5b04c;--c3:#f07ab8;--c4:#a99bff;--c5:#9fb0c6}}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0 0 1.25rem}h2{font-size:1.15rem;margin:2.5rem 0 .75rem}
h3{font-size:.95rem;font-weight:500;color:var(--soft);margin:1rem 0 .25rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem}
.cards div{background:var(--card);border-radius:.6rem;padding:.9rem 1.1rem}
.cards b{display:block;font-size:1.45rem;font-variant-numeric:tabular-nums}.cards span{color:var(--soft);font-size:.85rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1.5rem}
figure{margin:0}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
.label{fill:var(--text);font-size:13px}.middle{text-anchor:middle}.end{text-anchor:end}
.line{fill:none;stroke:currentColor;stroke-width:2.25;stroke-linejoin:round}.dot,.bar{fill:currentColor}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.legend{margin:.25rem 0 0;font-size:.85rem;color:var(--soft)}.legend span{margin-right:1.1rem;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:50%;background:currentColor;margin-right:.4em}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.4rem .7rem;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:500}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.25rem;font-size:.9rem;margin-top:1.25rem}
dt{color:var(--soft)}dd{margin:0}.note{color:var(--soft);font-size:.9rem;border-left:3px solid var(--c2);padding-left:.75rem}
";

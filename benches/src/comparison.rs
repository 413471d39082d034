//! A report of a comparison: figures of interleaved rounds with ratios and spread, as Markdown.

use std::fmt::Write;

use crate::load::{Round, median};

/// What a row comes to.
pub enum Part {
    /// The same figure of several contenders, round by round.
    Figure(Figure),
    /// What is no comparison: sentences.
    Facts(Vec<String>),
}

/// One figure of several contenders.
pub struct Figure {
    /// What is measured, with its unit.
    pub name: String,
    /// Digits after the point.
    pub digits: usize,
    /// Whose ratio to every other one is reported, by place in `series`; `None` when it was left out.
    pub subject: Option<usize>,
    /// The contenders.
    pub series: Vec<Series>,
}

/// A contender's rounds.
pub struct Series {
    /// As the report names it.
    pub name: String,
    /// The figure, by round.
    pub values: Vec<f64>,
    /// Frames lost over all rounds.
    pub lost: Option<u64>,
    /// The share of the time that the driver waited, by round.
    pub waiting: Vec<f64>,
    /// Frames in a turn of the driver that moved any, by round: how large the switch's batches are.
    pub batches: Vec<f64>,
}

impl Series {
    /// Rounds of somebody, with nothing else known of them.
    pub fn new(name: impl Into<String>) -> Series {
        Series { name: name.into(), values: Vec::new(), lost: None, waiting: Vec::new(), batches: Vec::new() }
    }

    /// Adds a round with what it lost and how long the driver waited.
    pub fn push(&mut self, value: f64, lost: u64, waiting: f64) {
        self.values.push(value);
        self.lost = Some(self.lost.unwrap_or(0) + lost);
        self.waiting.push(waiting.min(1.0));
    }

    /// Adds a round of load, in Mpps.
    pub fn push_load(&mut self, round: &Round) {
        self.push(round.mpps(), round.faults.lost, round.waiting());
        self.batches.push(round.frames as f64 / round.busy_turns as f64);
    }
}

/// The whole.
pub struct Report {
    opening: String,
    parts: Vec<Part>,
}

impl Report {
    /// A report that opens with this paragraph.
    pub fn new(opening: String) -> Report {
        Report { opening, parts: Vec::new() }
    }

    /// Adds what a row comes to.
    pub fn add(&mut self, parts: Vec<Part>) {
        self.parts.extend(parts);
    }

    /// What was added.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The report, ratios first: figures with the same contenders share a table.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.opening);
        let mut columns: Vec<&str> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Figure(figure) => {
                    let others = figure.others();
                    if others != columns {
                        columns = others;
                        text += &figure.ratio_head();
                    }
                    text += &figure.ratio_line();
                }
                Part::Facts(lines) => {
                    columns = Vec::new();
                    text += "\n";
                    lines.iter().for_each(|line| text += &format!("- {line}\n"));
                }
            }
        }
        text += "\n<details><summary>Every contender's figures</summary>\n\n";
        text += "| figure | contender | median (least to most) | lost | driver waited | frames a turn |\n|---|---|---|---|---|---|\n";
        for part in &self.parts {
            if let Part::Figure(figure) = part {
                text += &figure.detail_lines();
            }
        }
        text + "\n</details>\n"
    }
}

impl Part {
    /// Its lines, for a terminal while the rest is measured.
    pub fn lines(&self) -> String {
        match self {
            Part::Figure(figure) => figure.detail_lines(),
            Part::Facts(lines) => lines.iter().map(|line| format!("- {line}\n")).collect(),
        }
    }
}

impl Figure {
    fn others(&self) -> Vec<&str> {
        let others = self.series.iter().enumerate().filter(|(place, _)| Some(*place) != self.subject);
        others.map(|(_, series)| series.name.as_str()).collect()
    }

    fn ratio_head(&self) -> String {
        let others = self.others();
        let subject = self.subject.map_or("–", |place| &self.series[place].name);
        let mut text = format!("\n| | {subject} |");
        others.iter().for_each(|name| text += &format!(" ratio to {name} |"));
        text += "\n|---|---|";
        others.iter().for_each(|_| text += "---|");
        text + "\n"
    }

    fn ratio_line(&self) -> String {
        let subject = self.subject.map(|place| &self.series[place]);
        let value = subject.map_or("left out".into(), |series| spread(&series.values, self.digits));
        let mut text = format!("| {} | {value}{} |", self.name, subject.map_or("", |series| series.remark()));
        for (place, series) in self.series.iter().enumerate() {
            if Some(place) != self.subject {
                let ratio = subject.map_or("–".into(), |subject| ratio(&subject.values, &series.values));
                let _ = write!(text, " {ratio}{} |", series.remark());
            }
        }
        text + "\n"
    }

    fn detail_lines(&self) -> String {
        let line = |series: &Series| {
            let lost = series.lost.map_or("–".into(), |lost| lost.to_string());
            let waiting = match series.waiting.as_slice() {
                [] => "–".into(),
                waiting => format!("{:.0} %{}", 100.0 * median(waiting), series.remark()),
            };
            let figures = spread(&series.values, self.digits);
            let batches = if series.batches.is_empty() {
                "–".into()
            } else {
                format!("{:.0}", median(&series.batches))
            };
            format!("| {} | {} | {figures} | {lost} | {waiting} | {batches} |\n", self.name, series.name)
        };
        self.series.iter().map(line).collect()
    }
}

impl Series {
    /// A driver that hardly ever waits was itself the bottleneck, and its figure a lower bound.
    fn remark(&self) -> &'static str {
        let generator_bound = !self.waiting.is_empty() && median(&self.waiting) < WAITING_MIN;
        if generator_bound { " (generator-bound)" } else { "" }
    }
}

/// The median, and the least and the most.
pub fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
    match values {
        [] => "–".into(),
        [value] => format!("{value:.digits$}"),
        _ => format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values)),
    }
}

/// Round by round, the ratio of what was measured one after the other.
fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    spread(&ratios, 2)
}

/// The share of waiting from which on a driver is believed not to have been the bottleneck.
const WAITING_MIN: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, values: &[f64], waiting: &[f64]) -> Series {
        let mut series = Series::new(name);
        values.iter().zip(waiting).for_each(|(value, waiting)| series.push(*value, 1, *waiting));
        series
    }

    fn figure(name: &str, subject: Option<usize>) -> Part {
        let ours = series("ours", &[2.0, 3.0, 4.0], &[0.5, 0.5, 0.5]);
        let theirs = series("theirs", &[2.0, 1.0, 1.0], &[0.0, 0.01, 0.5]);
        Part::Figure(Figure { name: name.into(), digits: 1, subject, series: vec![ours, theirs] })
    }

    fn report(parts: Vec<Part>) -> String {
        let mut report = Report::new("Opening.".into());
        report.add(parts);
        report.markdown()
    }

    #[test]
    fn ratios_are_of_rounds_and_a_driver_that_never_waited_is_named() {
        let text = report(vec![figure("speed", Some(0))]);
        assert!(text.contains("\n| | ours | ratio to theirs |\n|---|---|---|\n"), "{text}");
        // The ratio of the medians would be 3 of 1, too, but its spread would be another one.
        let line = "| speed | 3.0 (2.0 to 4.0) | 3.00 (1.00 to 4.00) (generator-bound) |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| speed | ours | 3.0 (2.0 to 4.0) | 3 | 50 % | – |"), "{text}");
        assert!(
            text.contains("| speed | theirs | 1.0 (1.0 to 2.0) | 3 | 1 % (generator-bound) | – |"),
            "{text}"
        );
    }

    #[test]
    fn figures_with_the_same_contenders_share_a_table_until_a_fact_comes_between() {
        let heads = |parts| report(parts).matches("| ratio to theirs |").count();
        assert_eq!(heads(vec![figure("a", Some(0)), figure("b", Some(0))]), 1);
        let fact = || Part::Facts(vec!["something".into()]);
        assert_eq!(heads(vec![figure("a", Some(0)), fact(), figure("b", Some(0))]), 2);
    }

    #[test]
    fn nothing_is_compared_with_a_subject_that_was_left_out() {
        let text = report(vec![figure("speed", None)]);
        assert!(text.contains("| speed | left out | – | – (generator-bound) |"), "{text}");
    }

    #[test]
    fn single_round_has_no_spread() {
        assert_eq!(spread(&[1.25], 1), "1.2");
        assert_eq!(spread(&[], 1), "–");
        assert_eq!(spread(&[3.0, 1.0, 2.0], 0), "2 (1 to 3)");
    }
}

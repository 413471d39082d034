//! What came of it: a verdict for every case, as a table to read and as JSON to keep.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// How a back end took an input, from the best to the worst. A case has its worst input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The back end offers nothing that the input could be tried on.
    Skipped,
    /// Handled.
    Pass,
    /// Ignored; the port goes on.
    Reject,
    /// That ring or connection stopped, and works again after a reset or a reconnection.
    Quarantine,
    /// The port is dead, and neither brings it back.
    Wedged,
    /// Another port lost a frame, or had to wait.
    Collateral,
    /// The process holds more than before.
    Leak,
    /// The process has ended.
    Crash,
}

impl Verdict {
    /// Whether nothing that calls itself a switch may end so.
    pub fn is_forbidden(self) -> bool {
        self >= Verdict::Wedged
    }

    fn name(self) -> &'static str {
        match self {
            Verdict::Skipped => "SKIPPED",
            Verdict::Pass => "PASS",
            Verdict::Reject => "REJECT",
            Verdict::Quarantine => "QUARANTINE",
            Verdict::Wedged => "WEDGED",
            Verdict::Collateral => "COLLATERAL",
            Verdict::Leak => "LEAK",
            Verdict::Crash => "CRASH",
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What came of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputReport {
    /// What was tried.
    pub name: String,
    /// On packed rings, else on split ones or on none.
    pub packed: bool,
    /// How it was taken.
    pub verdict: Verdict,
    /// Why that, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was measured while a case was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of.
    pub what: String,
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: String,
}

impl Display for Figure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Figure { what, value, unit } = self;
        let digits = if value.fract() == 0.0 || *value >= 1000.0 { 0 } else { 2 };
        write!(f, "{what}: {value:.digits$} {unit}")
    }
}

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its number in the catalogue: G01.
    pub id: String,
    /// What it is about, in a line.
    pub what: String,
    /// The worst verdict of its inputs.
    pub verdict: Verdict,
    /// What was measured meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// Its inputs.
    pub inputs: Vec<InputReport>,
    /// How long it took.
    pub seconds: f64,
}

impl CaseReport {
    /// A case of which nothing has been tried yet.
    pub fn new(id: &str, what: &str) -> CaseReport {
        let (id, what) = (id.into(), what.into());
        CaseReport {
            id,
            what,
            verdict: Verdict::Skipped,
            figures: Vec::new(),
            inputs: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Adds an input, whose verdict may be the worst so far.
    pub fn add(&mut self, input: InputReport) {
        self.verdict = self.verdict.max(input.verdict);
        self.inputs.push(input);
    }

    /// How many inputs had each verdict.
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        self.inputs.iter().for_each(|input| *counts.entry(input.verdict).or_default() += 1);
        counts
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the format: [`SCHEMA`].
    pub schema: u32,
    /// What was attacked.
    pub target: String,
    /// Of the suite.
    pub version: String,
    /// Whether packed rings were offered.
    pub packed: bool,
    /// Whether it was known who the back end's process is; else nothing is known of leaks.
    pub process_known: bool,
    /// How long it took.
    pub seconds: f64,
    /// Frames that the innocents exchanged meanwhile, both ways.
    pub innocent_frames: u64,
    /// In the catalogue's order.
    pub cases: Vec<CaseReport>,
    /// Why cases are missing, and the like.
    pub notes: Vec<String>,
}

/// The version of the report's format.
pub const SCHEMA: u32 = 1;

impl Report {
    /// The report as JSON.
    pub fn to_json(&self) -> String {
        // Everything in it can be written: no maps with other keys than strings, no numbers that are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Report, String> {
        let report: Report = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if report.schema == SCHEMA { Ok(report) } else { Err(format!("its schema is {}", report.schema)) }
    }

    /// The worst verdict.
    pub fn verdict(&self) -> Verdict {
        self.cases.iter().map(|case| case.verdict).max().unwrap_or(Verdict::Skipped)
    }
}

/// A line for each case, and one more for each input that is forbidden, or has something to say.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<4} {:<10} {:>6} {:>6}  what", "case", "verdict", "inputs", "s")?;
        for case in &self.cases {
            let CaseReport { id, what, verdict, seconds, .. } = case;
            writeln!(f, "{id:<4} {verdict:<10} {:>6} {seconds:>6.2}  {what}", case.inputs.len())?;
            for figure in &case.figures {
                writeln!(f, "{:28}   {figure}", "")?;
            }
            for input in case.inputs.iter().filter(|input| input.verdict.is_forbidden()) {
                let form = if input.packed { "packed" } else { "split" };
                let note = input.note.as_deref().unwrap_or_default();
                writeln!(f, "{:28}   {}: {}, {form}: {note}", "", input.verdict, input.name)?;
            }
        }
        let mut counts: BTreeMap<Verdict, (usize, usize)> = BTreeMap::new();
        for case in &self.cases {
            counts.entry(case.verdict).or_default().0 += 1;
            case.inputs.iter().for_each(|input| counts.entry(input.verdict).or_default().1 += 1);
        }
        writeln!(f)?;
        for (verdict, (cases, inputs)) in counts {
            writeln!(f, "{verdict:<10} {cases:>4} cases {inputs:>5} inputs")?;
        }
        let (target, frames, seconds) = (&self.target, self.innocent_frames, self.seconds);
        writeln!(f, "{target}: {seconds:.0} s, in which innocents exchanged {frames} frames")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, verdict: Verdict) -> InputReport {
        InputReport { name: name.into(), packed: false, verdict, note: Some("why".into()) }
    }

    fn report() -> Report {
        let mut case = CaseReport::new("G01", "a loop");
        case.add(input("good", Verdict::Pass));
        case.add(input("bad", Verdict::Wedged));
        case.add(input("odd", Verdict::Reject));
        Report {
            schema: SCHEMA,
            target: "it".into(),
            version: "1".into(),
            packed: true,
            process_known: true,
            seconds: 1.0,
            innocent_frames: 7,
            cases: vec![case],
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn case_has_the_verdict_of_its_worst_input() {
        assert_eq!(report().verdict(), Verdict::Wedged);
        assert!(Verdict::Wedged.is_forbidden() && Verdict::Crash.is_forbidden());
        assert!(!Verdict::Quarantine.is_forbidden() && !Verdict::Skipped.is_forbidden());
    }

    #[test]
    fn report_survives_its_json() {
        let report = report();
        assert_eq!(Report::from_json(&report.to_json()), Ok(report.clone()));
        let other = Report { schema: 99, ..report };
        assert!(Report::from_json(&other.to_json()).is_err());
    }

    #[test]
    fn table_names_what_is_forbidden() {
        let text = report().to_string();
        for part in ["G01  WEDGED", "WEDGED: bad, split: why", "7 frames", "note: a note"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("good"), "{text}");
        let figure = |value| Figure { what: "it".into(), value, unit: "ms".into() }.to_string();
        assert_eq!(
            [figure(2.0), figure(0.125), figure(12345.678)],
            ["it: 2 ms", "it: 0.12 ms", "it: 12346 ms"]
        );
    }
}

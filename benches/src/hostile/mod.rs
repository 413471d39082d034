//! `ringyard bench --hostile`: what a vhost-user back end does when a front end, or the guest behind it, means harm.
//!
//! A back end needs three ports that it forwards between: an attacker's and two [`innocents`]'. Each [`cases`] entry is a
//! case of the hostile catalogue, tried with several inputs, on split and on packed rings; an [`attacker`] is a front end
//! that writes its [`ring`]s and says over its [`wire`] whatever it likes. After every input a [`bout`] looks whether the
//! attacker's port still works, or can be brought back; whether the innocents lost a frame; and whether the [`process`]
//! lives, and holds no more than before. The [`report`] has a verdict for each.

pub mod arena;
pub mod attacker;
pub mod bout;
pub mod cases;
pub mod innocents;
pub mod memory;
pub mod process;
pub mod report;
pub mod ring;
pub mod wire;

use std::time::Instant;

pub use arena::Target;
pub use report::{Report, Verdict};

use crate::bench::Host;
use crate::error::{Error, Result};
use arena::Arena;
use bout::Bout;
use cases::{CASES, Case};
use report::{CaseReport, InputReport, SCHEMA};

/// What is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostileConfig {
    /// What is attacked.
    pub target: Target,
    /// The cases; all if it is empty.
    pub only: Vec<String>,
    /// Cases that are left out.
    pub skip: Vec<String>,
}

impl HostileConfig {
    /// The cases to try. An error names one that is not known.
    pub fn cases(&self) -> std::result::Result<Vec<&'static Case>, String> {
        let known = |id: &String| CASES.iter().any(|case| case.id == id);
        if let Some(id) = self.only.iter().chain(&self.skip).find(|id| !known(id)) {
            return Err(format!("there is no case {id}"));
        }
        let wanted = |case: &&Case| {
            let named = |ids: &[String]| ids.iter().any(|id| id == case.id);
            (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
        };
        Ok(CASES.iter().filter(wanted).collect())
    }
}

/// Tries everything.
///
/// Errors: what kept it from trying. What the back end did is in the report.
pub fn run(config: &HostileConfig, host: Host<'_>) -> Result<Report> {
    let began = Instant::now();
    let cases = config.cases().map_err(Error::new)?;
    let mut arena = Arena::open(&config.target)?;
    let mut report = Report {
        schema: SCHEMA,
        target: arena.name(),
        version: env!("CARGO_PKG_VERSION").into(),
        packed: arena.features & 1 << 34 != 0,
        process_known: arena.process.is_some(),
        seconds: 0.0,
        innocent_frames: 0,
        cases: Vec::new(),
        notes: notes(&arena),
    };
    for (place, case) in cases.iter().enumerate() {
        if (host.interrupted)() {
            return Err(Error::new("interrupted"));
        }
        (host.say)(&format!("{} {} ({} of {})", case.id, case.what, place + 1, cases.len()));
        let (outcome, over) = try_case(&mut arena, case)?;
        report.cases.push(outcome);
        if over {
            let left = cases.len() - place - 1;
            report.notes.push(format!("the back end is gone; {left} cases were not tried"));
            break;
        }
    }
    report.innocent_frames = arena.exchanged();
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Tries one case. Whether the back end is gone for good.
fn try_case(arena: &mut Arena, case: &Case) -> Result<(CaseReport, bool)> {
    let began = Instant::now();
    let process = arena.process.clone();
    let before = process.as_ref().and_then(process::BackEndProcess::holdings);
    let mut bout = Bout { arena, case: CaseReport::new(case.id, case.what), over: false };
    (case.attack)(&mut bout)?;
    let (mut outcome, over) = (bout.case, bout.over);
    // What it grew by while innocents were replaced, or it was started anew, says nothing.
    let disturbed = outcome.verdict >= Verdict::Collateral;
    if let (Some(process), Some(before), false) = (process, before, disturbed)
        && let Some(growth) = process.growth(before)
    {
        let name = "all of it".into();
        outcome.add(InputReport { name, packed: false, verdict: Verdict::Leak, note: Some(growth) });
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    Ok((outcome, over))
}

/// What the report has to say of the back end.
fn notes(arena: &Arena) -> Vec<String> {
    let mut notes = Vec::new();
    if arena.process.as_ref().and_then(process::BackEndProcess::holdings).is_none() {
        notes.push("the back end's process cannot be looked at: leaks would not be seen".into());
    }
    if !arena.hears {
        notes.push("the attacker does not hear the innocents: receiving was not tried".into());
    }
    notes
}

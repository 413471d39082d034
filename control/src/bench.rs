//! `ringyard bench`: runs it, and puts what comes of it where the user wants it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ringyard_benches::bench::page::page;
use ringyard_benches::bench::table::Table;
use ringyard_benches::bench::{self, BenchConfig, Host, Report};
use ringyard_benches::hostile::{self, HostileConfig};

use crate::cli::{BenchInvocation, JsonOutput};
use crate::run::{Hangup, Stopper};

/// Measures, or makes a page of what was measured. SIGTERM and SIGINT end a run after the current trial, and the switch
/// that it started with it.
///
/// Errors: what kept it from measuring; or, once all is written, that frames arrived which must not have, or that an attack
/// did what none may do.
pub fn run(invocation: &BenchInvocation) -> Result<(), String> {
    match invocation {
        BenchInvocation::Report { reports, html } => {
            let read = |path: &std::path::PathBuf| read(path);
            let reports = reports.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            write(html, &page(&reports))
        }
        BenchInvocation::Attack { config, json } => attack(config, json.as_ref()),
        BenchInvocation::Measure { config, json, html } => {
            let report = measure(config)?;
            // Files first: a closed stdout must not cost the figures.
            if let Some(JsonOutput::File(path)) = json {
                write(path, &report.to_json())?;
            }
            if let Some(path) = html {
                write(path, &page(std::slice::from_ref(&report)))?;
            }
            match json {
                Some(JsonOutput::Stdout) => print(&format!("{}\n", report.to_json())),
                _ => print(&Table(&report).to_string()),
            }?;
            let wrongs = report.wrongs();
            if wrongs.is_none() { Ok(()) } else { Err("frames did not arrive as they were sent".into()) }
        }
    }
}

fn measure(config: &BenchConfig) -> Result<Report, String> {
    let stopper = Stopper::of_signals(Hangup::Stop)?;
    let host = Host { say: &mut say, interrupted: &|| stopper.is_used() };
    bench::run(config, host).map_err(|error| error.to_string())
}

/// Attacks, and says what came of it.
fn attack(config: &HostileConfig, json: Option<&JsonOutput>) -> Result<(), String> {
    let stopper = Stopper::of_signals(Hangup::Stop)?;
    let host = Host { say: &mut say, interrupted: &|| stopper.is_used() };
    let report = hostile::run(config, host).map_err(|error| error.to_string())?;
    if let Some(JsonOutput::File(path)) = json {
        write(path, &report.to_json())?;
    }
    match json {
        Some(JsonOutput::Stdout) => print(&format!("{}\n", report.to_json())),
        _ => print(&report.to_string()),
    }?;
    match report.verdict() {
        verdict if verdict.is_forbidden() => Err(format!("a case ended with {verdict}")),
        _ => Ok(()),
    }
}

/// Says how far it is. A stderr that cannot be written to leaves nobody to tell.
fn say(text: &str) {
    drop(writeln!(io::stderr(), "bench: {text}"));
}

fn read(path: &Path) -> Result<Report, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    Report::from_json(&text).map_err(|error| format!("reading {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(|error| format!("writing to stdout: {error}"))
}

//! The binary `ringyard`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use ringyard_control::cli::{self, ConfigSource, Invocation, LogLevel, RunConfig};
use ringyard_control::log::Log;
use ringyard_control::run::{Control, FORMAT, Hangup, Legacy, Stopper};
use ringyard_control::{bench, client, demo, doctor, keeper, sandbox};
use ringyard_drivers::store::Store;

fn main() -> ExitCode {
    if let Some(code) = ringyard_control::run_as_helper() {
        return code;
    }
    let result = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Run { source, .. }) if source.keeps() && !keeper::is_kept() => {
            return keeper::run().unwrap_or_else(|why| fail(&why));
        }
        Ok(Invocation::Run { config, source }) => {
            sandbox::enter(&config, &source).map_err(|why| format!("sandbox: {why}")).and_then(|sandbox| {
                logged(config.log_level, || {
                    tracing::info!("sandbox: {sandbox}");
                    run(&config, source)
                })
            })
        }
        Ok(Invocation::Checked(config)) => say(&config.summary()),
        Ok(Invocation::Doctor) => doctor::examine().iter().try_for_each(|finding| say(&finding.to_string())),
        Ok(Invocation::Demo(config)) => logged(LogLevel::Warn, || demo::run(&config)),
        Ok(Invocation::Client(invocation)) => client::run(&invocation).map_err(|error| error.to_string()),
        Ok(Invocation::Completions(shell)) => print(shell.script()),
        Ok(Invocation::CompleteWords(words)) => print(&cli::complete_words(&words)),
        Ok(Invocation::Man(directory)) => write_manual(directory.as_deref()),
        Ok(Invocation::Bench(invocation)) => logged(LogLevel::Warn, || bench::run(&invocation)),
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    // A stderr that cannot be written to leaves nobody to tell.
    drop(writeln!(io::stderr(), "ringyard: {why}"));
    ExitCode::FAILURE
}

fn say(line: &str) -> Result<(), String> {
    print(&format!("{line}\n"))
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("writing to stdout: {error}"))
}

fn write_manual(directory: Option<&Path>) -> Result<(), String> {
    let Some(directory) = directory else {
        return print(&cli::main_page().map_err(|error| format!("making a page: {error}"))?);
    };
    let written = cli::write_pages(directory);
    let count = written.map_err(|error| format!("writing pages to {}: {error}", directory.display()))?;
    say(&format!("{count} pages are in {}", directory.display()))
}

fn run(config: &RunConfig, source: ConfigSource) -> Result<(), String> {
    // Before anything is made: what is made is taken down in good order.
    let hangup = if source.file().is_some() { Hangup::Reload } else { Hangup::Stop };
    let stopper = Stopper::of_signals(hangup)?;
    let store = Store::of_environment(&keeper::hello(FORMAT))
        .map_err(|error| format!("asking for what was kept: {error}"))?;
    let watchdog = Legacy::watchdog_of_environment();
    Control::start_with(config, stopper, Legacy { store, grace: source.grace(), watchdog })?
        .reloading(source)
        .run()
        .map_err(|error| format!("waiting for events: {error}"))
}

/// Does `work` with a log, all of which is written when this returns.
fn logged(level: LogLevel, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let _log = Log::start(level).map_err(|error| format!("starting the log's thread: {error}"))?;
    work()
}

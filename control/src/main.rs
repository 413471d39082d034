//! The binary `ringyard`.

use std::io::{self, Write};
use std::process::ExitCode;

use ringyard_control::cli::{self, Invocation, LogLevel, RunConfig};
use ringyard_control::log::Log;
use ringyard_control::run::{Control, Stopper};
use ringyard_control::{bench, client, demo, doctor};
use ringyard_drivers::user::helper;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == helper::SUBCOMMAND) {
        return helper::main();
    }
    let result = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Run(config)) => logged(config.log_level, || run(&config)),
        Ok(Invocation::Checked(config)) => say(&config.summary()),
        Ok(Invocation::Doctor) => doctor::examine().iter().try_for_each(|finding| say(&finding.to_string())),
        Ok(Invocation::Demo(config)) => logged(LogLevel::Warn, || demo::run(&config)),
        Ok(Invocation::Client(invocation)) => client::run(&invocation).map_err(|error| error.to_string()),
        Ok(Invocation::Bench(invocation)) => logged(LogLevel::Warn, || bench::run(&invocation)),
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // A stderr that cannot be written to leaves nobody to tell.
            drop(writeln!(io::stderr(), "ringyard: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| format!("writing to stdout: {error}"))
}

fn run(config: &RunConfig) -> Result<(), String> {
    // Before anything is made: what is made is taken down in good order.
    let stopper = Stopper::of_signals()?;
    Control::start(config, stopper)?.run().map_err(|error| format!("waiting for events: {error}"))
}

/// Does `work` with a log, all of which is written when this returns.
fn logged(level: LogLevel, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let _log = Log::start(level).map_err(|error| format!("starting the log's thread: {error}"))?;
    work()
}

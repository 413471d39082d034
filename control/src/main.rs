//! The binary `ringyard`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use ringyard_control::cli::{self, Invocation, LogLevel, RunConfig};
use ringyard_control::demo;
use ringyard_control::run::Control;
use tracing::Level;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Run(config)) => {
            start_log(config.log_level);
            run(&config)
        }
        Ok(Invocation::Demo(config)) => {
            start_log(LogLevel::Warn);
            demo::run(&config)
        }
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ringyard: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &RunConfig) -> Result<(), String> {
    let control = Control::start(config)?;
    let stopping = control.stopper().stop_on_signals();
    stopping.map_err(|error| format!("asking to be told of SIGTERM and SIGINT: {error}"))?;
    control.run().map_err(|error| format!("waiting for events: {error}"))
}

/// Logs to stderr from `level` on, in colour where somebody looks.
fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

//! The command line and the configuration file: both become one [`RunConfig`], or a sentence on what is wrong.
//!
//! Options are written as QEMU's, so that people paste what they know. Objects go through the same wire structs as over
//! QMP. Their order does not matter: chardevs come out first, then the netdevs that stand alone, then those that name
//! others.

mod args;
mod bench;
mod client;
mod completion;
mod config;
mod document;
mod draft;
mod fault;
mod file;
mod man;
mod monitor;
mod references;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Map, Value};

use crate::client::ClientInvocation;

pub use args::ConfigSource;
pub use bench::{BenchInvocation, JsonOutput};
pub(crate) use completion::complete_verb;
pub use completion::{Shell, complete_words};
pub use config::{DemoConfig, LogLevel, Placement, RunConfig, SocketAccess, WORKERS_MAX};
pub use document::Finding;
pub use man::{main_page, write_pages};
pub use monitor::{MonitorConfig, MonitorSource};

/// What the user wants done.
#[derive(Debug)]
pub enum Invocation {
    /// Run a switch.
    Run {
        /// As it shall be.
        config: Box<RunConfig>,
        /// Where that was read.
        source: ConfigSource,
    },
    /// Nothing: the configuration was read, and nothing is wrong with it.
    Checked(Box<RunConfig>),
    /// Say what this host lets the switch do.
    Doctor,
    /// Show what the switch can do.
    Demo(DemoConfig),
    /// Measure a switch.
    Bench(Box<BenchInvocation>),
    /// Ask a switch that is running.
    Client(ClientInvocation),
    /// Print a shell's script for completion.
    Completions(Shell),
    /// Say what the last of these words can become, while somebody types.
    CompleteWords(Vec<String>),
    /// Write manual pages into a directory, or print the main one.
    Man(Option<PathBuf>),
}

/// Why there is nothing to do: a mistake, or a wish for help.
#[derive(Debug)]
pub enum CliError {
    /// What clap has to say, the help and version texts included.
    Clap(Box<clap::Error>),
    /// What we have to say: where it is wrong, and how.
    Usage(String),
    /// What is wrong with the configuration file, at every place; at least one.
    File(Vec<Finding>),
}

/// Reads the arguments, the program's name first, and the file that they name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|command| command == completion::SUBCOMMAND) {
        let words = arguments.iter().skip(2).map(|word| word.to_string_lossy().into_owned());
        return Ok(Invocation::CompleteWords(words.collect()));
    }
    let arguments = args::with_two_dashes(arguments);
    let parsed = args::Args::try_parse_from(arguments).map_err(|error| CliError::Clap(Box::new(error)))?;
    match parsed.command {
        args::Subcommand::Run(run) => {
            let source = ConfigSource::new(*run);
            Ok(Invocation::Run { config: Box::new(source.read()?), source })
        }
        args::Subcommand::Check(check) => Ok(Invocation::Checked(Box::new(check.into_config()?))),
        args::Subcommand::Doctor => Ok(Invocation::Doctor),
        args::Subcommand::Demo(demo) => Ok(Invocation::Demo(DemoConfig { seconds: demo.seconds })),
        args::Subcommand::Show(show) => Ok(Invocation::Client(show.into_invocation())),
        args::Subcommand::Reload(reload) => Ok(Invocation::Client(reload.into_invocation())),
        args::Subcommand::Upgrade(upgrade) => Ok(Invocation::Client(upgrade.into_invocation())),
        args::Subcommand::Add(add) => Ok(Invocation::Client(add.into_invocation()?)),
        args::Subcommand::Del(del) => Ok(Invocation::Client(del.into_invocation())),
        args::Subcommand::Link(link) => Ok(Invocation::Client(link.into_invocation())),
        args::Subcommand::Capture(capture) => Ok(Invocation::Client(capture.into_invocation())),
        args::Subcommand::Qmp(qmp) => Ok(Invocation::Client(qmp.into_invocation()?)),
        args::Subcommand::Shell(shell) => Ok(Invocation::Client(shell.into_invocation())),
        args::Subcommand::QemuArgs(qemu) => Ok(Invocation::Client(qemu.into_invocation())),
        args::Subcommand::Completions(completions) => Ok(Invocation::Completions(completions.shell)),
        args::Subcommand::Man(man) => Ok(Invocation::Man(man.directory)),
        args::Subcommand::Bench(bench) => Ok(Invocation::Bench(Box::new(bench.into_invocation()?))),
    }
}

/// What a configuration file with these members says.
pub(crate) fn read_members(members: Map<String, Value>) -> Result<RunConfig, CliError> {
    let mut draft = draft::Draft::default();
    file::read(&mut draft, members);
    draft.finish()
}

/// What may follow `ringyard run`; `read_any` it.
pub(crate) fn run_options(options: impl IntoIterator<Item = OsString>) -> Result<ConfigSource, CliError> {
    let words = ["ringyard", "run"].map(OsString::from).into_iter().chain(options);
    let parsed = args::Args::try_parse_from(args::with_two_dashes(words));
    match parsed.map_err(|error| CliError::Clap(Box::new(error)))?.command {
        args::Subcommand::Run(run) => Ok(ConfigSource::new(*run)),
        _ => Err(CliError::Usage("only options of run are possible here".into())),
    }
}

impl CliError {
    /// 2 for a mistake, 0 for help and version.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Clap(error) if error.exit_code() == 0 => 0,
            _ => 2,
        }
    }

    /// What is wrong, without the lines of the file.
    pub fn in_one_line(&self) -> String {
        match self {
            CliError::Clap(error) => error.to_string(),
            CliError::Usage(text) => text.replace('\n', "; "),
            CliError::File(findings) => {
                let lines: Vec<&str> = findings.iter().map(|finding| finding.line.as_str()).collect();
                lines.join("; ")
            }
        }
    }

    /// Prints it where it belongs: help to stdout, mistakes to stderr.
    pub fn print(&self) {
        match self {
            // A closed stdout or stderr leaves nobody to tell.
            CliError::Clap(error) => drop(error.print()),
            CliError::Usage(_) | CliError::File(_) => drop(writeln!(std::io::stderr(), "{self}")),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Clap(error) => error.fmt(out),
            CliError::Usage(text) => write!(out, "ringyard: {text}\nFor examples: ringyard run --help"),
            CliError::File(findings) => out.write_str(&document::lines(findings)),
        }
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod tests;

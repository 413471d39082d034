//! The command line.

use std::path::PathBuf;

use ringyard_tests::error::{Error, Result};

use crate::contender::Contender;
use crate::rows::Row;

pub const HELP: &str = "\
peers [--rounds N] [--only ROW,...] [--without PEER,...] [--markdown FILE]

  --rounds N        interleaved rounds of every row (9)
  --only ROW,...    one-way, pools, both-ways, latency, ports, multicast, idle, tcp, udp, changes (all)
  --without PEER,...  ringyard, testpmd, ovs, floor, qemu, bridge, vde (none)
  --markdown FILE   write the report there, too

RINGYARD names another binary than the release build.";

/// What is to be measured.
pub struct Options {
    /// Rounds of every row.
    pub rounds: usize,
    /// Rows, in their order.
    pub rows: Vec<Row>,
    /// Who is left out.
    pub without: Vec<Contender>,
    /// Where the report goes beside standard output.
    pub markdown: Option<PathBuf>,
    /// Whether `cargo test` runs this.
    pub smoke: bool,
}

/// What this program was called for.
pub enum Purpose {
    Run(Options),
    Help,
    /// `cargo test` looks for a test that is none of ours.
    Nothing,
}

impl Options {
    /// Reads the arguments without the program's name.
    pub fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Purpose> {
        let mut arguments: Vec<String> = arguments.collect();
        let Some(bench) = arguments.iter().position(|argument| argument == "--bench") else {
            return Ok(Options::smoke(&arguments));
        };
        arguments.remove(bench);
        let mut options = Options {
            rounds: ROUNDS,
            rows: Row::ALL.into(),
            without: Vec::new(),
            markdown: None,
            smoke: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| Error::new(format!("{argument} needs a value")));
            match argument.as_str() {
                "--help" | "-h" => return Ok(Purpose::Help),
                "--rounds" => options.rounds = rounds(&value()?)?,
                "--only" => options.rows = list(&value()?, &Row::ALL, Row::flag)?,
                "--without" => options.without = list(&value()?, &Contender::ALL, Contender::flag)?,
                "--markdown" => options.markdown = Some(value()?.into()),
                _ => return Err(Error::new(format!("{argument} is no option; see --help"))),
            }
        }
        Ok(Purpose::Run(options))
    }

    /// Those of `all` that are not left out.
    pub fn present(&self, all: &[Contender]) -> Vec<Contender> {
        all.iter().copied().filter(|contender| !self.without.contains(contender)).collect()
    }

    /// The test that `cargo test` sees here: one row, ringyard alone.
    fn smoke(arguments: &[String]) -> Purpose {
        let listing = arguments.iter().any(|argument| argument == "--list");
        let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        if listing
            || !filters.is_empty() && !filters.iter().any(|filter| SMOKE_NAME.contains(filter.as_str()))
        {
            return Purpose::Nothing;
        }
        let without =
            Contender::ALL.into_iter().filter(|contender| *contender != Contender::Ringyard).collect();
        Purpose::Run(Options { rounds: 1, rows: vec![Row::OneWay], without, markdown: None, smoke: true })
    }
}

fn rounds(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(rounds @ 1..=ROUNDS_MAX) => Ok(rounds),
        _ => Err(Error::new(format!("--rounds wants 1 to {ROUNDS_MAX}, not {text}"))),
    }
}

fn list<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let known = |word: &str| all.iter().copied().find(|one| name(*one) == word);
    let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    text.split(',')
        .map(|word| known(word).ok_or_else(|| Error::new(format!("{word} is none of: {}", names()))))
        .collect()
}

const ROUNDS: usize = 9;
const ROUNDS_MAX: usize = 1000;
/// The name of the test.
pub const SMOKE_NAME: &str = "one_row_of_the_comparison_runs_with_ringyard_alone";

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use ringyard_tests::error::{Error, Result};

use crate::contender::Contender;
use crate::medium::Medium;

pub const HELP: &str = "\
sockets [--rounds N] [--round-ms N] [--only MEDIUM,...] [--without CONTENDER,...] [--markdown FILE]

  --rounds N        interleaved rounds of every row (7)
  --round-ms N      length of a round in milliseconds (500)
  --only MEDIUM,... dgram-unix, dgram-udp, dgram-udp-gso, stream-unix, stream-tcp, l2tpv3-udp, l2tpv3-udp-gso, vde,
                    af-packet (all)
  --without CONTENDER,...  ringyard, relay, gso-relay, qemu, vde, ovs, straight (none)
  --markdown FILE   write the report there, too

RINGYARD names another binary than the release build.";

/// What is to be measured.
pub struct Options {
    /// Rounds of every row.
    pub rounds: usize,
    pub round_time: Duration,
    /// Rows, in their order.
    pub media: Vec<Medium>,
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
    pub fn from_arguments(mut arguments: Vec<String>) -> Result<Purpose> {
        let Some(bench) = arguments.iter().position(|argument| argument == "--bench") else {
            return Ok(Options::smoke(&arguments));
        };
        arguments.remove(bench);
        let mut options = Options {
            rounds: ROUNDS,
            round_time: ROUND_TIME,
            media: Medium::ALL.into(),
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
                "--rounds" => options.rounds = number(&argument, &value()?, 1000)?,
                "--round-ms" => {
                    options.round_time = Duration::from_millis(number(&argument, &value()?, 60_000)? as u64);
                }
                "--only" => options.media = list(&value()?, &Medium::ALL, Medium::flag)?,
                "--without" => options.without = list(&value()?, &Contender::ALL, Contender::flag)?,
                "--markdown" => options.markdown = Some(value()?.into()),
                _ => return Err(Error::new(format!("{argument} is no option; see --help"))),
            }
        }
        Ok(Purpose::Run(options))
    }

    /// Who is compared on `medium`.
    pub fn contenders_on(&self, medium: Medium) -> Vec<Contender> {
        let mut contenders = Contender::on(medium);
        contenders.retain(|contender| !self.without.contains(contender));
        contenders
    }

    /// Everybody who takes part.
    pub fn contenders(&self) -> Vec<Contender> {
        let mut all = Contender::ALL.to_vec();
        all.retain(|one| self.media.iter().any(|medium| self.contenders_on(*medium).contains(one)));
        all
    }

    /// The test that `cargo test` sees here: every row, with the relay and ringyard, for a moment.
    fn smoke(arguments: &[String]) -> Purpose {
        let listing = arguments.iter().any(|argument| argument == "--list");
        let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        if listing
            || !filters.is_empty() && !filters.iter().any(|filter| SMOKE_NAME.contains(filter.as_str()))
        {
            return Purpose::Nothing;
        }
        Purpose::Run(Options {
            rounds: 1,
            round_time: SMOKE_TIME,
            media: Medium::ALL.into(),
            without: vec![Contender::Qemu, Contender::Vde, Contender::Ovs, Contender::Straight],
            markdown: None,
            smoke: true,
        })
    }
}

fn number(name: &str, text: &str, most: usize) -> Result<usize> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(Error::new(format!("{name} wants 1 to {most}, not {text}"))),
    }
}

fn list<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let known = |word: &str| all.iter().copied().find(|one| name(*one) == word);
    let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    text.split(',')
        .map(|word| known(word).ok_or_else(|| Error::new(format!("{word} is none of: {}", names()))))
        .collect()
}

const ROUNDS: usize = 7;
const ROUND_TIME: Duration = Duration::from_millis(500);
const SMOKE_TIME: Duration = Duration::from_millis(20);
/// The name of the test.
pub const SMOKE_NAME: &str = "every_row_of_sockets_runs_with_ringyard_and_the_bare_relay";

//! The arguments of `ringyard bench`, and what they come to.

use std::path::PathBuf;
use std::time::Duration;

use ringyard_benches::bench::config::{
    BenchConfig, Effort, default_features, default_rounds, parse_features,
};
use ringyard_benches::bench::frame::Size;
use ringyard_benches::bench::target::{InterfaceSpec, SocketSpec, Target};
use ringyard_benches::guest::Features;
use ringyard_benches::hostile::{self, HostileConfig};

use super::CliError;

/// What `ringyard bench` was told.
#[derive(Clone, Debug, PartialEq)]
pub enum BenchInvocation {
    /// Measure.
    Measure {
        /// What and how.
        config: Box<BenchConfig>,
        /// Where the report goes as JSON, if anywhere.
        json: Option<JsonOutput>,
        /// Where the page goes, if anywhere.
        html: Option<PathBuf>,
    },
    /// Attack.
    Attack {
        /// Whom and how.
        config: HostileConfig,
        /// Where the report goes as JSON, if anywhere.
        json: Option<JsonOutput>,
    },
    /// Make one page of reports that were written before.
    Report {
        /// Files with a report each, the first to compare the others with.
        reports: Vec<PathBuf>,
        /// Where the page goes.
        html: PathBuf,
    },
}

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonOutput {
    /// To stdout, in place of the table.
    Stdout,
    /// To a file.
    File(PathBuf),
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// Attack instead of measuring; the first --port is the attacker's, two more are innocents'
    #[arg(long, conflicts_with_all = ["tap", "sizes", "quick", "html", "features", "bidirectional", "rounds"])]
    hostile: bool,
    /// Of the attacks, try these only
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "hostile")]
    only: Vec<String>,
    /// Of the attacks, leave these out
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "hostile")]
    skip: Vec<String>,
    /// Measure the vhost-user back ends at these sockets; with `,server` we listen and the back end connects
    #[arg(long, visible_alias = "socket", value_name = "PATH[,server]", conflicts_with = "tap")]
    port: Vec<SocketSpec>,
    /// Measure what is between these taps or other interfaces, by packet sockets (needs CAP_NET_RAW)
    #[arg(long, value_name = "[NETNS/]NAME")]
    tap: Vec<InterfaceSpec>,
    /// What reports call the switch
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Frame sizes in bytes, FCS counted, and `imix`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    sizes: Vec<Size>,
    /// Entries of every ring
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = ring_size)]
    ring_size: u16,
    /// Queue pairs of every port
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    queues: u16,
    /// virtio features to accept, or `none`
    #[arg(long, value_name = "LIST", value_parser = parse_features)]
    features: Option<Features>,
    /// Load in both directions at once
    #[arg(long)]
    bidirectional: bool,
    /// The switch's core and the generator's
    #[arg(long, value_name = "SWITCH,GENERATOR", default_value = "0,1", value_parser = core_pair)]
    cores: (usize, usize),
    /// Trials of the maximum receive rate: 10, quick 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// A first look within a minute: fewer sizes, shorter trials, a cheaper search
    #[arg(long)]
    quick: bool,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(short, long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Every trial so long: for tests of the bench
    #[arg(long, value_name = "MS", hide = true, value_parser = clap::value_parser!(u16).range(1..))]
    trial_ms: Option<u16>,
}

#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    /// Make one page of several reports
    Report {
        /// Files that --json wrote; the others are compared with the first
        #[arg(required = true, value_name = "FILE.json")]
        reports: Vec<PathBuf>,
        /// Where the page goes
        #[arg(long, value_name = "FILE")]
        html: PathBuf,
    },
}

impl BenchArgs {
    pub(super) fn into_invocation(self) -> Result<BenchInvocation, CliError> {
        if let Some(BenchCommand::Report { reports, html }) = self.command {
            return Ok(BenchInvocation::Report { reports, html });
        }
        let json = self.json.map(|path| match path.to_str() {
            Some("-") => JsonOutput::Stdout,
            _ => JsonOutput::File(path),
        });
        if self.hostile {
            let target = victim(self.port)?;
            let config = HostileConfig { target, only: self.only, skip: self.skip };
            config.cases().map_err(CliError::Usage)?;
            return Ok(BenchInvocation::Attack { config, json });
        }
        let target = target(self.port, self.tap)?;
        let (switch_core, generator_core) = self.cores;
        let effort = if self.quick { Effort::quick() } else { Effort::full() };
        let trial = self.trial_ms.map(|ms| Duration::from_millis(ms.into()));
        let sizes = if self.sizes.is_empty() { BenchConfig::default_sizes(self.quick) } else { self.sizes };
        let config = BenchConfig {
            target,
            name: self.name,
            sizes,
            ring_size: self.ring_size,
            pairs: self.queues,
            features: self.features.unwrap_or_else(default_features),
            bidirectional: self.bidirectional,
            switch_core,
            generator_core,
            rounds: self.rounds.map_or_else(|| default_rounds(self.quick), usize::from),
            effort: trial.map_or(effort, |time| effort.with_trials_of(time)),
        };
        Ok(BenchInvocation::Measure { config: Box::new(config), json, html: self.html })
    }
}

fn target(sockets: Vec<SocketSpec>, interfaces: Vec<InterfaceSpec>) -> Result<Target, CliError> {
    match (sockets.len(), interfaces.len()) {
        // The program that runs is the switch that is measured.
        (0, 0) => Ok(Target::Own { program: OWN_PROGRAM.into() }),
        (1, _) => Err(CliError::Usage("--port is needed twice or more".into())),
        (_, 1) => Err(CliError::Usage("--tap is needed twice or more".into())),
        (0, _) => Ok(Target::Interfaces(interfaces)),
        _ => Ok(Target::Sockets(sockets)),
    }
}

/// Who is attacked: the sockets of an attacker and of two innocents, at all of which the back end listens.
fn victim(sockets: Vec<SocketSpec>) -> Result<hostile::Target, CliError> {
    if sockets.iter().any(|socket| socket.server) {
        return Err(CliError::Usage("a back end that is attacked listens itself".into()));
    }
    let paths: Vec<PathBuf> = sockets.into_iter().map(|socket| socket.path).collect();
    match <[PathBuf; 3]>::try_from(paths) {
        Ok(paths) => Ok(hostile::Target::Sockets(paths)),
        Err(none) if none.is_empty() => Ok(hostile::Target::Own { program: OWN_PROGRAM.into() }),
        Err(_) => {
            Err(CliError::Usage("--hostile needs three --port: an attacker's and two innocents'".into()))
        }
    }
}

fn ring_size(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(size @ RING_SIZE_MIN..=RING_SIZE_MAX) if u16::is_power_of_two(size) => Ok(size),
        _ => Err(format!("'{text}' is no power of two from {RING_SIZE_MIN} to {RING_SIZE_MAX}")),
    }
}

fn core_pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("'{text}' are not two cores such as 0,1");
    let (switch, generator) = text.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    let pair: (usize, usize) = (number(switch)?, number(generator)?);
    if pair.0 == pair.1 {
        return Err(format!("switch and generator need a core each, not both core {}", pair.0));
    }
    Ok(pair)
}

pub(super) const USAGE: &str = "\
ringyard bench [OPTIONS]
       ringyard bench --port PATH --port PATH [OPTIONS]
       ringyard bench --hostile [--port PATH --port PATH --port PATH] [--only LIST]
       ringyard bench report FILE.json... --html FILE";

pub(super) const EXAMPLES: &str = "\
Methods: MRR; NDR and PDR by MLRsearch; RFC 2544 back-to-back; latency at 0, 10, 50 and 90 % of PDR; RFC 2889
broadcast forwarding and address learning; effective blocked time of every monitor command.

Examples:
  This switch, within a minute, with a page to look at:
    ringyard bench --quick --html bench.html

  DPDK's testpmd between two vhost-user ports:
    ringyard bench --port /tmp/v0 --port /tmp/v1 --name testpmd --json testpmd.json

  Whatever is between two taps in namespaces of their own:
    ringyard bench --tap red/tap0 --tap blue/tap1

  What this switch does with front ends that mean harm:
    ringyard bench --hostile

  The same of any back end that forwards between three sockets; the first one is attacked:
    ringyard bench --hostile --port /tmp/v0 --port /tmp/v1 --port /tmp/v2 --only G01,P08

  Both beside each other:
    ringyard bench report ringyard.json testpmd.json --html ladder.html

Features for --features: packed, mergeable, event-idx, indirect, in-order.";

/// This very program.
const OWN_PROGRAM: &str = "/proc/self/exe";
const RING_SIZE_MIN: u16 = 64;
const RING_SIZE_MAX: u16 = 32768;

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use ringyard_benches::bench::config::FEATURES;

    use super::super::{Invocation, parse};
    use super::*;

    fn parsed(line: &str) -> Result<BenchInvocation, CliError> {
        let line = format!("ringyard bench {line}");
        match parse(line.split_whitespace().map(OsString::from))? {
            Invocation::Bench(invocation) => Ok(*invocation),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn measure(line: &str) -> BenchConfig {
        match parsed(line).expect(line) {
            BenchInvocation::Measure { config, .. } => *config,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        let error = parsed(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn without_options_our_own_switch_is_measured_in_full() {
        let config = measure("");
        assert_eq!(config.target, Target::Own { program: OWN_PROGRAM.into() });
        assert_eq!((config.rounds, config.ring_size, config.pairs), (10, 1024, 1));
        assert_eq!((config.switch_core, config.generator_core), (0, 1));
        assert_eq!(config.effort, Effort::full());
        assert_eq!(config.sizes.len(), 9);
    }

    #[test]
    fn options_come_through() {
        let config = measure(
            "--quick --name mine --sizes 64,imix --ring-size 256 --queues 2 --features mergeable,in-order \
             --bidirectional --cores 3,2 --rounds 5",
        );
        assert_eq!(config.sizes, [Size::Fixed(64), Size::Imix]);
        assert_eq!((config.ring_size, config.pairs, config.rounds), (256, 2, 5));
        assert_eq!((config.switch_core, config.generator_core), (3, 2));
        assert!(config.features.mergeable && config.features.in_order && !config.features.event_idx);
        assert_eq!(config.name.as_deref(), Some("mine"));
        assert!(config.bidirectional && config.effort.quick);
    }

    #[test]
    fn every_feature_is_named_in_the_help() {
        for (name, _) in FEATURES {
            assert!(EXAMPLES.contains(name), "{name}");
        }
    }

    #[test]
    fn targets_are_sockets_or_interfaces_and_two_at_least() {
        let Target::Sockets(sockets) = measure("--port /a --port /b,server").target else { panic!() };
        assert_eq!((sockets[0].server, sockets[1].server), (false, true));
        let Target::Interfaces(taps) = measure("--tap red/t0 --tap t1").target else { panic!() };
        assert_eq!(taps[0].netns.as_deref(), Some("red"));
        assert!(refused("--port /a").contains("twice"));
        assert!(refused("--tap t0").contains("twice"));
        assert!(refused("--port /a --port /b --tap t0").contains("cannot be used with"));
    }

    #[test]
    fn outputs_are_files_or_stdout() {
        let outputs = |line| match parsed(line).expect(line) {
            BenchInvocation::Measure { json, html, .. } => (json, html),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(outputs("--json -"), (Some(JsonOutput::Stdout), None));
        let (json, html) = outputs("--json a.json --html a.html");
        assert_eq!((json, html), (Some(JsonOutput::File("a.json".into())), Some("a.html".into())));
    }

    #[test]
    fn attacks_are_on_three_sockets_or_on_ourselves() {
        let attack = |line: &str| match parsed(line).expect(line) {
            BenchInvocation::Attack { config, json } => (config, json),
            other => panic!("{line}: {other:?}"),
        };
        let (config, json) = attack("--hostile --only G01,P08 --skip P08 -j -");
        assert_eq!(config.target, hostile::Target::Own { program: OWN_PROGRAM.into() });
        assert_eq!(json, Some(JsonOutput::Stdout));
        assert_eq!(config.cases().unwrap().iter().map(|case| case.id).collect::<Vec<_>>(), ["G01"]);
        let (config, _) = attack("--hostile --socket /a --port /b --port /c");
        assert_eq!(config.target, hostile::Target::Sockets(["/a", "/b", "/c"].map(PathBuf::from)));
        assert!(refused("--hostile --port /a --port /b").contains("three"));
        assert!(refused("--hostile --port /a,server --port /b --port /c").contains("listens"));
        assert!(refused("--hostile --only X99").contains("X99"));
        assert!(refused("--only G01").contains("--hostile"));
    }

    #[test]
    fn reports_are_made_one_page() {
        let report = parsed("report a.json b.json --html out.html").expect("two files");
        let reports = vec!["a.json".into(), "b.json".into()];
        assert_eq!(report, BenchInvocation::Report { reports, html: "out.html".into() });
        assert!(refused("report --html out.html").contains("required"));
        assert!(refused("report a.json").contains("--html"));
    }

    #[test]
    fn nonsense_is_refused() {
        for (line, part) in [
            ("--sizes 63", "63"),
            ("--ring-size 100", "power of two"),
            ("--features fast", "no feature"),
            ("--cores 1", "two cores"),
            ("--cores 1,1", "core each"),
            ("--rounds 0", "0"),
            ("--queues 0", "0"),
        ] {
            let error = refused(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}

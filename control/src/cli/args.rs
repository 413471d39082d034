//! The arguments as clap reads them. Options that take QEMU's syntax stay text here and are read by the draft.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::worker::Mode;

use super::CliError;
use super::config::{LogLevel, Placement, RunConfig, cores, socket_mode, word, workers};
use super::draft::{Added, Draft};
use super::fault::Origin;

/// A virtual network switch in user space.
#[derive(Debug, clap::Parser)]
#[command(name = "ringyard", version, after_help = START_HERE, override_usage = USAGE)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run a switch in the foreground until SIGTERM, SIGINT or the monitor's `quit`; SIGHUP reads the file again.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// Read a configuration file and say what is wrong with it, without making anything
    Check(CheckArgs),
    /// Say which netdev types this host lets you use, and what is missing for the others
    Doctor,
    /// Show a running switch: its ports, hubs, nics, filters, drops, workers or addresses
    Show(super::client::ShowArgs),
    /// Have a running switch read its configuration file again and follow what has changed, as SIGHUP does
    Reload(super::client::ReloadArgs),
    /// Have another program, such as a newer version, go on with everything a running switch does; it must be kept (run --keep)
    Upgrade(super::client::UpgradeArgs),
    /// Add a netdev to a running switch
    Add(super::client::AddArgs),
    /// Remove a netdev from a running switch
    Del(super::client::DelArgs),
    /// Set a link of a running switch up or down
    Link(super::client::LinkArgs),
    /// Capture the frames of a netdev of a running switch: ringyard capture vm1 | tcpdump -r -
    #[command(after_help = super::client::CAPTURE_EXAMPLES)]
    Capture(super::client::CaptureArgs),
    /// Have a running switch execute one QMP command, and print what it returns
    Qmp(super::client::QmpArgs),
    /// Speak with a running switch, or with QEMU: one command after another, with completion and a history
    #[command(after_help = super::client::SHELL_EXAMPLES)]
    Shell(super::client::ShellArgs),
    /// Print the QEMU options, or the libvirt XML, that plug a virtual machine into a port of a running switch
    #[command(after_help = super::client::QEMU_EXAMPLES)]
    QemuArgs(super::client::QemuArgs),
    /// Print a script that completes ringyard's words in a shell: source <(ringyard completions bash)
    Completions(CompletionsArgs),
    /// Write the manual pages: ringyard man DIR, or ringyard man | man -l - for this one
    Man(ManArgs),
    /// Show the switch at work between built-in guests: no root, no other packages.
    Demo(DemoArgs),
    /// Measure a switch: this one, any vhost-user back end, or what is between some interfaces.
    #[command(after_help = super::bench::EXAMPLES, override_usage = super::bench::USAGE)]
    Bench(Box<super::bench::BenchArgs>),
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct RunArgs {
    /// Read objects and settings from a TOML file; options add to it and override it
    #[arg(short = 'c', long = "config", value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Serve QMP: at unix:PATH or tcp:HOST:PORT with server=on, or to whoever listens there; on fd:NUMBER or stdio; may
    /// be repeated
    #[arg(long, value_name = "unix:PATH,server=on,wait=off")]
    qmp: Vec<String>,
    /// The same, with replies that people can read
    #[arg(long, value_name = "unix:PATH,server=on,wait=off")]
    qmp_pretty: Vec<String>,
    /// Make a socket for a guest's vhost-user connection
    #[arg(long, value_name = "socket,id=ID,path=PATH[,server=on][,reconnect=S]")]
    chardev: Vec<String>,
    /// Make a netdev: vhost-user, tap, stream, user, … (a table is in the README)
    #[arg(long, value_name = "TYPE,id=ID[,MEMBER=VALUE...]")]
    netdev: Vec<String>,
    /// Make a netdev and the nic of the guest behind it
    #[arg(long, value_name = "TYPE[,id=ID][,mac=MAC][,MEMBER=VALUE...]")]
    nic: Vec<String>,
    /// Make the nic of the guest behind a netdev
    #[arg(long, value_name = "nic,netdev=ID[,macaddr=MAC]")]
    net: Vec<String>,
    /// Make an object: filter-dump captures the frames of a netdev in a file
    #[arg(long, value_name = "filter-dump,id=ID,netdev=ID,file=FILE[,MEMBER=VALUE...]")]
    object: Vec<String>,
    /// Say how a hub learns addresses: not at all with learning=off, as QEMU's hub; 300 s long without ageing
    #[arg(long, value_name = "HUBID[,learning=on|off][,ageing=S]", allow_hyphen_values = true)]
    hub: Vec<String>,
    /// Name the switch, for query-name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Forward with so many threads, one without this option
    #[arg(long, value_name = "N", value_parser = parse_workers, conflicts_with = "cores")]
    workers: Option<Placement>,
    /// Forward with one thread on each of these cores
    #[arg(long, value_name = "LIST", value_parser = cores)]
    cores: Option<Placement>,
    /// Let idle threads sleep, or poll for ever
    #[arg(long, value_name = "adaptive|poll", value_parser = word::<Mode>())]
    mode: Option<Mode>,
    /// Let a frame wait for a receiver that is full, or drop it
    #[arg(long, value_name = "hold|drop", value_parser = word::<FullReceiver>())]
    full_receiver: Option<FullReceiver>,
    /// Give the sockets that are created to this group
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Permission bits of the sockets that are created, 0600 without this option
    #[arg(long, value_name = "OCTAL", value_parser = socket_mode)]
    socket_mode: Option<u32>,
    /// How much to log
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Start a keeper that runs the switch: one that dies is started again and goes on with what it had open
    #[arg(long)]
    keep: bool,
    /// How long frames wait, after a restart, for ports that are not back yet
    #[arg(long, value_name = "MS", default_value_t = 200)]
    grace_ms: u32,
    /// Let a script, a helper or a command be this program, though nothing at the start names it: a monitor may later; may be
    /// repeated
    #[arg(long, value_name = "PROGRAM")]
    may_run: Vec<PathBuf>,
    /// Let the switch do whatever its user may, for debugging
    #[arg(long)]
    no_sandbox: bool,
}

/// Where a run's configuration comes from: its command line and the file that this names. Can be read again and again.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource(Box<RunArgs>);

impl ConfigSource {
    pub(super) fn new(arguments: RunArgs) -> ConfigSource {
        ConfigSource(Box::new(arguments))
    }

    /// Whether a keeper is wanted.
    pub fn keeps(&self) -> bool {
        self.0.keep
    }

    /// How long frames wait, after a restart, for ports that are not back.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.0.grace_ms.into())
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.0.config.as_deref()
    }

    /// Whether the process is to be confined.
    pub fn wants_sandbox(&self) -> bool {
        !self.0.no_sandbox
    }

    /// Programs that may be started for it, though nothing that is read here names them.
    pub fn may_run(&self) -> &[PathBuf] {
        &self.0.may_run
    }

    /// The same command line with this file.
    pub fn with_file(&self, file: PathBuf) -> ConfigSource {
        ConfigSource(Box::new(RunArgs { config: Some(file), ..(*self.0).clone() }))
    }

    /// Reads all of it. Blocks as long as the file takes.
    pub fn read(&self) -> Result<RunConfig, CliError> {
        busy(self.read_any()?)
    }

    /// The same, and it may be nothing: whoever embeds the switch needs no monitor to change it.
    pub(crate) fn read_any(&self) -> Result<RunConfig, CliError> {
        self.0.config()
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// As for run -c
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
}

impl CheckArgs {
    pub(super) fn into_config(self) -> Result<RunConfig, CliError> {
        busy(Draft::from_file(&self.file)?.finish()?)
    }
}

/// Of a program of its own: one that could never do anything is a mistake.
fn busy(config: RunConfig) -> Result<RunConfig, CliError> {
    if config.monitors.is_empty() && config.netdevs.is_empty() {
        let text = "nothing to switch, and no monitor to say what: give -qmp, -netdev or -c FILE.toml";
        return Err(CliError::Usage(text.into()));
    }
    Ok(config)
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// How long to move frames
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(super) seconds: u32,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(super) shell: super::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Where to write ringyard.1, ringyard-run.1, …; made if need be
    #[arg(value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
}

impl RunArgs {
    fn config(&self) -> Result<RunConfig, CliError> {
        let mut draft = match &self.config {
            Some(path) => Draft::from_file(path)?,
            None => Draft::default(),
        };
        draft.name = self.name.clone().or(draft.name);
        draft.placement = self.workers.clone().or(self.cores.clone()).or(draft.placement);
        draft.mode = self.mode.or(draft.mode);
        draft.full_receiver = self.full_receiver.or(draft.full_receiver);
        draft.socket_group = self.socket_group.clone().or(draft.socket_group);
        draft.socket_mode = self.socket_mode.or(draft.socket_mode);
        draft.log_level = self.log_level.or(draft.log_level);
        let sources: [(&str, &[String], AddOption); 8] = [
            ("-qmp", &self.qmp, Draft::add_qmp),
            ("-qmp-pretty", &self.qmp_pretty, Draft::add_qmp_pretty),
            ("-chardev", &self.chardev, Draft::add_chardev_option),
            ("-netdev", &self.netdev, Draft::add_netdev_option),
            ("-nic", &self.nic, Draft::add_nic_option),
            ("-net", &self.net, Draft::add_net_option),
            ("-object", &self.object, Draft::add_object_option),
            ("-hub", &self.hub, Draft::add_hub_option),
        ];
        for (option, texts, add) in sources {
            for text in texts {
                let added = add(&mut draft, text, &Origin::Option(format!("{option} {text}")));
                draft.note(added);
            }
        }
        draft.finish()
    }
}

type AddOption = fn(&mut Draft, &str, &Origin) -> Added;

/// Gives a second dash to the options that are written with one, as QEMU's are.
pub(super) fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut command = Args::command();
    command.build();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    let names = commands.flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long);
    let names: BTreeSet<&str> = names.collect();
    let doubled = |argument: OsString| {
        let option = argument.to_str().and_then(|text| text.strip_prefix('-')?.split('=').next());
        if !option.is_some_and(|option| names.contains(option)) {
            return argument;
        }
        let mut doubled = OsString::from("-");
        doubled.push(argument);
        doubled
    };
    arguments.into_iter().map(doubled).collect()
}

fn parse_workers(text: &str) -> Result<Placement, String> {
    text.parse().map_err(|_| format!("'{text}' is no number")).and_then(workers)
}

/// What whoever forgets the command is shown.
const USAGE: &str = "ringyard run [OPTIONS]\n       ringyard show|reload|add|del|link|capture|qmp|qemu-args|shell [OPTIONS]\n       ringyard check FILE.toml\n       ringyard doctor|completions|man\n       ringyard demo [OPTIONS]\n       ringyard bench [OPTIONS]";

const START_HERE: &str = "\
Start here:
  ringyard demo          see it move frames, in a few seconds
  ringyard bench --quick see how fast it is, within a minute
  ringyard run --help    examples for virtual machines, taps and hubs";

const EXAMPLES: &str = "\
One dash or two: -netdev and --netdev are the same. Values are QEMU's KEY=VALUE lists (a comma within
a value is written twice) or JSON objects.

Examples:
  An empty switch, to be filled over QMP:
    ringyard run -qmp unix:/run/ringyard.qmp,server=on,wait=off

  Two virtual machines on one hub:
    ringyard run \\
      -chardev socket,id=c0,path=/run/vm0.sock,server=on,wait=off -netdev vhost-user,id=n0,chardev=c0 \\
      -chardev socket,id=c1,path=/run/vm1.sock,server=on,wait=off -netdev vhost-user,id=n1,chardev=c1 \\
      -netdev hubport,id=h0,hubid=0,netdev=n0 -netdev hubport,id=h1,hubid=0,netdev=n1

  The host joins them on a tap (needs CAP_NET_ADMIN):
      -netdev tap,id=t0,ifname=yard0,script=no,downscript=no -netdev hubport,id=h2,hubid=0,netdev=t0

  A virtual machine finds its port with what the running switch says (it needs -qmp for that):
    qemu-system-x86_64 -accel kvm $(ringyard qemu-args n0 --memory 1G) ...";

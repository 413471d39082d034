//! What a run needs to know before it starts, typed and checked.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::worker::Mode;

use super::monitor::MonitorConfig;
use crate::qapi::QapiEnum;
use crate::wire::{ChardevSpec, NetdevSpec, ObjectSpec, XSetHub};

/// Workers that one switch can have.
pub const WORKERS_MAX: usize = 64;

/// Everything that `ringyard run` was told.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// What the user calls the switch.
    pub name: Option<String>,
    /// Where to serve QMP, one with stdio at most.
    pub monitors: Vec<MonitorConfig>,
    /// To be made first; ids are distinct.
    pub chardevs: Vec<ChardevSpec>,
    /// To be made in this order, which satisfies references: backends, nics, hubports; ids are distinct.
    pub netdevs: Vec<NetdevSpec>,
    /// To be made last, in this order; ids are distinct.
    pub objects: Vec<ObjectSpec>,
    /// What is said of hubs, in this order: the later holds.
    pub hubs: Vec<XSetHub>,
    /// Workers and their cores.
    pub placement: Placement,
    /// Whether workers sleep.
    pub mode: Mode,
    /// What hubs do with a full receiver.
    pub full_receiver: FullReceiver,
    /// Who may use the sockets that we create.
    pub sockets: SocketAccess,
    /// What the log shows.
    pub log_level: LogLevel,
}

impl RunConfig {
    /// What it amounts to, in one line.
    pub fn summary(&self) -> String {
        let count =
            |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let parts = [
            count(self.netdevs.len(), "netdev"),
            count(self.chardevs.len(), "chardev"),
            count(self.monitors.len(), "monitor"),
        ];
        format!("nothing wrong: {}", parts.join(", "))
    }
}

/// How many workers there are, and on which cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// So many, 1 to [`WORKERS_MAX`], on whichever cores the kernel finds free.
    Workers(usize),
    /// One on each of these, at least one, no core twice.
    Cores(Vec<usize>),
}

impl QapiEnum for Mode {
    const TYPE: &'static str = "WorkerMode";
    const NAMES: &'static [(&'static str, Self)] = &[("adaptive", Mode::Adaptive), ("poll", Mode::Poll)];
}

impl QapiEnum for FullReceiver {
    const TYPE: &'static str = "FullReceiver";
    const NAMES: &'static [(&'static str, Self)] =
        &[("hold", FullReceiver::Hold), ("drop", FullReceiver::Drop)];
}

/// Owner and mode of the sockets that we create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The group's name or number; ours without one.
    pub group: Option<String>,
    /// The permission bits, 0600 unless told otherwise.
    pub mode: u32,
}

/// The least severe messages that the log shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// What looks wrong.
    Warn,
    /// What comes and goes.
    #[default]
    Info,
    /// Every message of every guest's connection.
    Debug,
    /// All there is.
    Trace,
}

impl QapiEnum for LogLevel {
    const TYPE: &'static str = "LogLevel";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

/// What `ringyard demo` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// How long frames are moved, 1 to 3600 s.
    pub seconds: u32,
}

/// Reads a list of cores: `0,2-3`.
pub(super) fn cores(text: &str) -> Result<Placement, String> {
    let wrong = || format!("'{text}' is no list of cores such as 0,2-3");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last - first >= WORKERS_MAX {
            return Err(wrong());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("core {core} is listed twice"));
            }
            cores.push(core);
        }
    }
    match cores.len() {
        1..=WORKERS_MAX => Ok(Placement::Cores(cores)),
        _ => Err(format!("more than {WORKERS_MAX} cores are listed")),
    }
}

/// Reads a number of workers.
pub(super) fn workers(count: u64) -> Result<Placement, String> {
    match usize::try_from(count) {
        Ok(count @ 1..=WORKERS_MAX) => Ok(Placement::Workers(count)),
        _ => Err(format!("the number of workers must be in range [1, {WORKERS_MAX}]")),
    }
}

/// Reads one of the words that an enum of the schema has.
pub(super) fn word<T: QapiEnum + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let read = |text: String| {
        let found = T::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or("it is none of them")
    };
    PossibleValuesParser::new(T::NAMES.iter().map(|(name, _)| *name)).try_map(read)
}

/// Reads permission bits: `0660`.
pub(super) fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("'{text}' are no permission bits in octal such as 0660"))
}

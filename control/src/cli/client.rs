//! The arguments of the commands that speak with a running switch.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ringyard_drivers::capture::Direction;
use serde_json::{Map, Value, json};

use super::CliError;
use super::draft::option_members;
use crate::client::{
    Action, CaptureWish, ClientInvocation, MachineForm, MemorySize, MonitorAddress, QemuWish, ShellOptions,
    View,
};
use crate::json;
use crate::qapi::{Flags, QapiError, Visitor};
use crate::wire::NetdevAdd;

#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The monitor's socket: the PATH of the switch's -qmp, or tcp:HOST:PORT
    #[arg(
        long,
        short,
        value_name = "PATH",
        value_hint = clap::ValueHint::AnyPath,
        env = "RINGYARD_MONITOR",
        default_value = "/run/ringyard/qmp.sock"
    )]
    monitor: MonitorAddress,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// What to show
    #[arg(value_name = "WHAT")]
    view: View,
    /// As JSON
    #[arg(long, short)]
    json: bool,
    /// Again every second, with rates
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// The program; without, what is there now under the running one's name
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Another file than that in use, from now on
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// As JSON
    #[arg(long, short)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// As with -netdev: TYPE,id=ID and the type's members, or a JSON object
    #[arg(value_name = "TYPE,id=ID[,MEMBER=VALUE...]")]
    netdev: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct DelArgs {
    /// A netdev, a nic or a hubport
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct LinkArgs {
    /// A netdev, a nic or a hubport
    #[arg(value_name = "NAME")]
    name: String,
    /// What its link shall be
    #[arg(value_name = "up|down", value_parser = link_state(), action = clap::ArgAction::Set)]
    up: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct CaptureArgs {
    /// A netdev that has a guest or a host behind it
    #[arg(value_name = "NETDEV")]
    netdev: String,
    /// Write to this file; "-" is stdout
    #[arg(long, short, value_name = "FILE", default_value = "-", value_hint = clap::ValueHint::FilePath)]
    write: PathBuf,
    /// Keep so many bytes of a frame
    #[arg(long, short, value_name = "N", default_value_t = crate::wire::MAXLEN, value_parser = clap::value_parser!(u32).range(1..))]
    snaplen: u32,
    /// What the netdev sends (in), what it is sent (out), or both
    #[arg(long, short, value_name = "in|out|both", default_value = "both", value_parser = direction())]
    direction: Direction,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct QmpArgs {
    /// A command's name, or a whole request: {"execute": …, "arguments": …}
    #[arg(value_name = "COMMAND|JSON")]
    command: String,
    /// The command's arguments, as a JSON object
    #[arg(value_name = "JSON")]
    arguments: Option<String>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct QemuArgs {
    /// Netdevs that one virtual machine is plugged into: vhost-user, or stream, dgram and socket
    #[arg(value_name = "PORT", required = true)]
    ports: Vec<String>,
    /// The machine's memory, in MiB or with a suffix; "none" where another option says it, and shares it
    #[arg(long, value_name = "SIZE|none", default_value = "1G", value_parser = memory, action = clap::ArgAction::Set)]
    memory: std::option::Option<MemorySize>,
    /// For a machine without KVM: QEMU's emulator crashes on interrupts of several vectors
    #[arg(long)]
    tcg: bool,
    /// A part of libvirt's domain instead
    #[arg(long, conflicts_with = "tcg")]
    libvirt: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShellArgs {
    /// Stop at the first line that fails
    #[arg(short = 'e', long)]
    stop_at_error: bool,
    /// Print each line before it is done
    #[arg(short = 'x', long)]
    echo: bool,
    #[command(flatten)]
    place: Where,
}

impl ShellArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        let ShellArgs { stop_at_error, echo, place } = self;
        place.has(Action::Shell(ShellOptions { stops_at_error: stop_at_error, echoes: echo }))
    }
}

impl ShowArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        let ShowArgs { view, json, watch, place } = self;
        place.has(Action::Show { view, json, watch })
    }
}

impl ReloadArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        let ReloadArgs { file, dry_run, json, place } = self;
        place.has(Action::Reload { file, dry_run, json })
    }
}

impl UpgradeArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        self.place.has(Action::Upgrade { binary: self.binary })
    }
}

impl AddArgs {
    /// Types and names are checked here, so that values need not be written as JSON; the switch checks the rest.
    pub(super) fn into_invocation(self) -> Result<ClientInvocation, CliError> {
        let arguments = netdev_members(&self.netdev);
        let wrong = |error| CliError::Usage(format!("add {}: {error}", self.netdev));
        let (command, arguments) = ("netdev_add".into(), arguments.map_err(wrong)?.into());
        Ok(self.place.has(Action::Execute { command, arguments, prints: false }))
    }
}

impl DelArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        self.place.has(Action::del(&self.id))
    }
}

impl LinkArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        self.place.has(Action::link(&self.name, self.up))
    }
}

impl CaptureArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        let CaptureArgs { netdev, write, snaplen, direction, place } = self;
        let file = (write.as_os_str() != "-").then_some(write);
        place.has(Action::Capture(CaptureWish { netdev, direction, file, snaplen }))
    }
}

impl QemuArgs {
    pub(super) fn into_invocation(self) -> ClientInvocation {
        let QemuArgs { ports, memory, tcg, libvirt, place } = self;
        let form = match (libvirt, tcg) {
            (true, _) => MachineForm::Libvirt,
            (false, true) => MachineForm::EmulatorOptions,
            (false, false) => MachineForm::Options,
        };
        place.has(Action::Qemu(QemuWish { ports, memory, form }))
    }
}

impl QmpArgs {
    pub(super) fn into_invocation(self) -> Result<ClientInvocation, CliError> {
        let object = |text: &str| match json::parse(text) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Err(CliError::Usage(format!("qmp: {text} is not a JSON object"))),
            Err(error) => Err(CliError::Usage(format!("qmp: {error}"))),
        };
        let (command, arguments) = match (&self.arguments, self.command.trim_start().starts_with('{')) {
            (None, true) => {
                let mut request = object(&self.command)?;
                let name = request.shift_remove("execute");
                let Some(Value::String(name)) = name else {
                    return Err(CliError::Usage("qmp: the request has no \"execute\"".into()));
                };
                (name, request.shift_remove("arguments").unwrap_or_else(|| json!({})))
            }
            (arguments, _) => {
                let arguments = arguments.as_deref().map(object).transpose()?;
                (self.command, Value::Object(arguments.unwrap_or_default()))
            }
        };
        Ok(self.place.has(Action::Execute { command, arguments, prints: true }))
    }
}

impl Where {
    fn has(self, action: Action) -> ClientInvocation {
        ClientInvocation { monitor: self.monitor, action }
    }
}

fn netdev_members(text: &str) -> Result<Map<String, Value>, QapiError> {
    let (members, form) = option_members(text, "type", Flags::Refused)?;
    Ok(NetdevAdd::visit(Visitor::new(members, form))?.members())
}

fn direction() -> impl TypedValueParser<Value = Direction> {
    PossibleValuesParser::new(["in", "out", "both"]).map(|word| match word.as_str() {
        "in" => Direction::Ingress,
        "out" => Direction::Egress,
        _ => Direction::Both,
    })
}

fn link_state() -> impl TypedValueParser<Value = bool> {
    let hidden = |word| PossibleValue::new(word).hide(true);
    let words = [PossibleValue::new("up"), PossibleValue::new("down"), hidden("on"), hidden("off")];
    PossibleValuesParser::new(words).map(|word| matches!(word.as_str(), "up" | "on"))
}

fn memory(text: &str) -> Result<Option<MemorySize>, String> {
    match text {
        "none" => Ok(None),
        size => MemorySize::parse(size).map(Some),
    }
}

/// The words of `ringyard qemu-args --help`.
pub(super) const QEMU_EXAMPLES: &str = "\
The switch says what the port is, and what is printed fits: who listens, where, with how many queues and which address.

  qemu-system-x86_64 -accel kvm -smp 2 $(ringyard qemu-args vm1 --memory 2G) -drive file=disk.qcow2

Where the chardev has server=on, the switch listens: start it first; a machine does not come back to a switch that was
started again. Without (and with reconnect=1), QEMU listens: it waits for the switch, and the switch comes back.";

/// The words of `ringyard shell --help`.
pub(super) const SHELL_EXAMPLES: &str = "\
Lines are the commands show, add, del, link and qemu-args as here, QMP commands with KEY=VALUE or as JSON, and lines of the
human monitor. The status is 1 if a line from a pipe failed.

  ringyard shell                       at a terminal, with the tab key
  ringyard shell -e < commands         from a file
  echo 'set_link name=vm1 up=off' | ringyard shell";

/// The words of `ringyard capture --help`.
pub(super) const CAPTURE_EXAMPLES: &str = "\
It ends by CTRL-C, or when nobody reads it any more. What the file is too slow for is counted and delays nobody.

  ringyard capture vm1 | tcpdump -n -r -
  ringyard capture vm1 | wireshark -k -i -
  ringyard capture vm1 -w vm1.pcap --snaplen 128 --direction in";

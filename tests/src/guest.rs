//! Real guests: Debian's kernel under QEMU's emulator, with memory that a vhost-user back end can map. The guest's
//! `/init` (`tests/guest/init`) obeys commands on its second serial port, so a test runs any shell command in it and
//! gets output and exit status. The kernel's console goes to a file, which errors quote.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::{Deadline, wait_for};
use crate::error::{Doing, Error, Result};
use crate::initramfs;
use crate::process::{Process, command};
use crate::qmp::Qmp;
use crate::slot::Slot;
use crate::tools;

/// How a guest's NIC is attached.
#[derive(Clone, Debug)]
pub enum NetAttach {
    /// To a vhost-user back end.
    VhostUser {
        /// The unix socket.
        socket: PathBuf,
        /// Whether QEMU listens (then the back end connects, and QEMU waits for it before the guest starts).
        server: bool,
        /// Queue pairs.
        queues: u32,
        /// Seconds between QEMU's attempts to connect; only when it does not listen.
        reconnect: Option<u32>,
    },
    /// To whatever these arguments make; the netdev's id must be `n0`.
    Raw(Vec<String>),
    /// By these arguments, which make the device and the memory, too: nothing of the configuration is added.
    Whole(Vec<String>),
    /// Nowhere: there is no NIC.
    None,
}

impl NetAttach {
    /// The usual: QEMU connects to a listening back end, one queue pair, no reconnecting.
    pub fn connect(socket: impl Into<PathBuf>) -> NetAttach {
        NetAttach::VhostUser { socket: socket.into(), server: false, queues: 1, reconnect: None }
    }
}

/// What a guest is.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// Names its log and its errors.
    pub name: String,
    /// `eth0`'s IPv4 address with its prefix length.
    pub ip4: String,
    /// `eth0`'s IPv6 address with its prefix length.
    pub ip6: String,
    /// `eth0`'s MAC address.
    pub mac: String,
    /// Where `eth0` is plugged in.
    pub net: NetAttach,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors. A guest uses a queue pair for each, if it has as many.
    pub cpus: u32,
    /// Further options of the virtio-net-pci device, such as `mrg_rxbuf=off`.
    pub device_options: Vec<String>,
    /// Which of the guests that `tests/install` prepares: the usual one, or that of a directory beside it.
    pub image: Option<&'static str>,
    /// Programs of the host that the guest finds in `/bin`, with their libraries.
    pub programs: Vec<PathBuf>,
    /// It does not boot, but comes from another QEMU.
    pub incoming: Option<Incoming>,
}

impl GuestConfig {
    /// Guest `number` (1 to 99) of a test: 10.0.0.NUMBER/24, fd00::NUMBER/64, MAC ending in the number.
    pub fn new(number: u8, net: NetAttach) -> GuestConfig {
        GuestConfig {
            name: format!("guest{number}"),
            ip4: format!("10.0.0.{number}/24"),
            ip6: format!("fd00::{number}/64"),
            mac: format!("52:54:00:00:00:{number:02}"),
            net,
            memory_mib: 256,
            cpus: 1,
            device_options: Vec::new(),
            image: None,
            programs: Vec::new(),
            incoming: None,
        }
    }
}

/// How a guest arrives.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The unix socket that its memory and state come over.
    pub socket: PathBuf,
    /// Whether it stays paused when it has come.
    pub paused: bool,
}

/// What a command in the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit status; 137 when it was killed for taking too long.
    pub status: i32,
    /// What it wrote to both its outputs.
    pub stdout: String,
}

/// A command that [`Guest::spawn`] started.
#[derive(Debug)]
pub struct Background(u32);

/// A running guest. Dropping it pulls the plug.
pub struct Guest {
    name: String,
    process: Process,
    agent: UnixStream,
    received: Vec<u8>,
    commands: u32,
    directory: TempDir,
}

impl Guest {
    /// Starts a guest and waits until it obeys.
    pub fn boot(slot: &Slot, config: GuestConfig) -> Result<Guest> {
        let mut guest = Guest::start(slot, config)?;
        guest.wait_booted(BOOT_TIME_MAX)?;
        Ok(guest)
    }

    /// Starts a guest and does not wait: for several to boot at once. Before anything else, call
    /// [`Guest::wait_booted`].
    pub fn start(_slot: &Slot, config: GuestConfig) -> Result<Guest> {
        let directory = tempfile::tempdir().doing("making a guest's directory")?;
        let qemu = qemu_command(&config, directory.path())?;
        let mut process = Process::start(&config.name, qemu, directory.path())?;
        let socket = directory.path().join(AGENT);
        let agent = wait_for(&format!("the serial port of {}", config.name), BOOT_TIME_MAX, || {
            process.expect_running()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        Ok(Guest { name: config.name, process, agent, received: Vec::new(), commands: 0, directory })
    }

    /// Waits until the guest obeys.
    pub fn wait_booted(&mut self, within: Duration) -> Result<()> {
        self.answer("boot", within).map(drop)
    }

    /// Runs a shell command of one line, for at most [`COMMAND_TIME_MAX`].
    pub fn run(&mut self, shell_command: &str) -> Result<CommandOutput> {
        self.run_within(shell_command, COMMAND_TIME_MAX)
    }

    /// Runs a shell command of one line; the guest kills it after `within` (whole seconds).
    pub fn run_within(&mut self, shell_command: &str, within: Duration) -> Result<CommandOutput> {
        let id = self.tell("run", &format!("{} {shell_command}", within.as_secs().max(1)))?;
        self.answer(&id, within + ANSWER_TIME_MAX)
    }

    /// As [`Guest::run`], but a status other than 0 is an error that shows what the command wrote.
    pub fn expect(&mut self, shell_command: &str) -> Result<String> {
        let output = self.run(shell_command)?;
        if output.status != 0 {
            let CommandOutput { status, stdout } = output;
            return Err(Error::new(format!(
                "{}: `{shell_command}` ended with {status}:\n{stdout}",
                self.name
            )));
        }
        Ok(output.stdout)
    }

    /// Starts a shell command of one line in the background.
    pub fn spawn(&mut self, shell_command: &str) -> Result<Background> {
        let id = self.tell("spawn", shell_command)?;
        self.answer(&id, ANSWER_TIME_MAX)?;
        Ok(Background(self.commands))
    }

    /// Waits for a background command to end.
    pub fn wait(&mut self, background: &Background, within: Duration) -> Result<CommandOutput> {
        self.commands += 1;
        let id = self.commands.to_string();
        self.send(&format!("wait {id} {}\n", background.0))?;
        self.answer(&id, within)
    }

    /// One of the kernel's counters of an interface, such as `rx_packets`.
    pub fn counter(&mut self, interface: &str, counter: &str) -> Result<u64> {
        let text = self.expect(&format!("cat /sys/class/net/{interface}/statistics/{counter}"))?;
        text.trim().parse().doing(format!("reading {counter} of {interface}: {text:?}"))
    }

    /// A client of the guest's own QEMU monitor.
    pub fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.monitor_path(), ANSWER_TIME_MAX)
    }

    /// The socket of that monitor; it serves one client at a time.
    pub fn monitor_path(&self) -> PathBuf {
        self.directory.path().join(MONITOR)
    }

    /// The process id of QEMU.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Goes on as `other`, which has moved here: obeys what it obeyed, and knows the commands that it started.
    pub(crate) fn take_over_from(&mut self, other: &Guest) {
        self.commands = other.commands;
    }

    /// Kills QEMU, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// What QEMU has said, and the guest's kernel.
    pub fn log(&self) -> String {
        let console = std::fs::read(self.directory.path().join(CONSOLE)).unwrap_or_default();
        format!("QEMU:\n{}\nconsole:\n{}", self.process.log(), String::from_utf8_lossy(&console))
    }

    /// Sends `VERB ID REST` under a new id, which it returns.
    fn tell(&mut self, verb: &str, rest: &str) -> Result<String> {
        self.commands += 1;
        let id = self.commands.to_string();
        let line = format!("{verb} {id} {rest}");
        // The guest's terminal cuts longer lines.
        if line.contains('\n') || line.len() > LINE_MAX {
            return Err(Error::new(format!("no single line of at most {LINE_MAX} bytes: {line:?}")));
        }
        self.send(&format!("{line}\n"))?;
        Ok(id)
    }

    fn send(&mut self, line: &str) -> Result<()> {
        self.agent.write_all(line.as_bytes()).doing(format!("writing to {}: {}", self.name, self.log()))
    }

    /// Reads until the line that ends the answer to `id`.
    fn answer(&mut self, id: &str, within: Duration) -> Result<CommandOutput> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(output) = take_answer(&mut self.received, id) {
                return Ok(output);
            }
            let left = deadline.remaining().ok_or_else(|| {
                let received = String::from_utf8_lossy(&self.received);
                let (name, log) = (&self.name, self.log());
                Error::new(format!("{name} did not answer {id} within {within:?}; so far: {received}\n{log}"))
            })?;
            self.agent.set_read_timeout(Some(left)).doing("setting a guest's time limit")?;
            let mut chunk = [0; 4096];
            match self.agent.read(&mut chunk) {
                Ok(0) => return Err(Error::new(format!("{} is gone; {}", self.name, self.log()))),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).doing(format!("reading from {}; {}", self.name, self.log())),
            }
        }
    }
}

/// Takes the answer to `id` out of `received`, once its last line is complete.
pub(crate) fn take_answer(received: &mut Vec<u8>, id: &str) -> Option<CommandOutput> {
    let text = String::from_utf8_lossy(received);
    let mark = format!("ry-end {id} ");
    let at = text.find(&mark)?;
    let (status, _) = text[at + mark.len()..].split_once('\n')?;
    let output = text[..at].strip_suffix('\n').unwrap_or(&text[..at]);
    let answer = CommandOutput { status: status.trim().parse().ok()?, stdout: output.into() };
    received.clear();
    Some(answer)
}

fn qemu_command(config: &GuestConfig, directory: &Path) -> Result<Command> {
    let GuestConfig { cpus, ip4, ip6, .. } = config;
    let path = |name: &str| directory.join(name).display().to_string();
    let mut qemu = command("qemu-system-x86_64")?;
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-machine", "pc,accel=tcg"]);
    qemu.args(["-smp", &cpus.to_string()]);
    let image = |name: &str| tools::guest_file(&Path::new(config.image.unwrap_or(".")).join(name));
    qemu.arg("-kernel").arg(image("vmlinuz")?);
    qemu.arg("-initrd").arg(initramfs::with_programs(&image("initramfs")?, &config.programs, directory)?);
    // no_timer_check: on a busy machine the emulated timer comes too late for the kernel's check, which then panics.
    let kernel = "console=ttyS0 quiet panic=-1 no_timer_check";
    qemu.args(["-append", &format!("{kernel} ry.ip4={ip4} ry.ip6={ip6}")]);
    qemu.args(["-serial", &format!("file:{}", path(CONSOLE))]);
    qemu.args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", path(AGENT))]);
    qemu.args(["-serial", "chardev:agent"]);
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path(MONITOR))]);
    if let Some(Incoming { socket, paused }) = &config.incoming {
        qemu.args(["-incoming", &format!("unix:{}", socket.display())]);
        qemu.args(paused.then_some("-S"));
    }
    match &config.net {
        NetAttach::Whole(arguments) => qemu.args(arguments),
        _ => qemu.args(memory_arguments(config.memory_mib)).args(net_arguments(config)),
    };
    Ok(qemu)
}

/// Memory that is shared, for a back end in another process to map.
fn memory_arguments(mib: u32) -> [String; 6] {
    let object = format!("memory-backend-memfd,id=m,size={mib}M,share=on");
    ["-m", &format!("{mib}M"), "-object", &object, "-numa", "node,memdev=m"].map(String::from)
}

fn net_arguments(config: &GuestConfig) -> Vec<String> {
    // vectors=0: with MSI-X, QEMU 7.2's emulator crashes on vhost-user. No boot ROM: nothing boots from the network.
    let mut device = format!("virtio-net-pci,netdev=n0,mac={},vectors=0,romfile=", config.mac);
    let mut arguments = match &config.net {
        NetAttach::None | NetAttach::Whole(_) => return Vec::new(),
        NetAttach::Raw(arguments) => arguments.clone(),
        NetAttach::VhostUser { socket, server, queues, reconnect } => {
            if *queues > 1 {
                device.push_str(",mq=on");
            }
            let mut chardev = format!("socket,id=c0,path={}", socket.display());
            if *server {
                chardev.push_str(",server=on");
            }
            if let Some(seconds) = reconnect {
                chardev.push_str(&format!(",reconnect={seconds}"));
            }
            let netdev = format!("vhost-user,id=n0,chardev=c0,queues={queues}");
            ["-chardev", &chardev, "-netdev", &netdev].map(String::from).to_vec()
        }
    };
    for option in &config.device_options {
        device.push_str(&format!(",{option}"));
    }
    arguments.extend(["-device".into(), device]);
    arguments
}

/// A guest boots in 2.1 s on an idle machine, in 7 s beside another one and a testpmd that polls.
pub const BOOT_TIME_MAX: Duration = Duration::from_secs(60);
/// How long [`Guest::run`] lets a command run.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);
/// What the agent may need beside the command itself.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// A terminal line holds 4,095 bytes.
const LINE_MAX: usize = 4000;

const AGENT: &str = "agent.sock";
const MONITOR: &str = "qmp.sock";
const CONSOLE: &str = "console.log";

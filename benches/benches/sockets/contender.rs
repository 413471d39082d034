//! Who is compared, and how each is put between the two peers.

use std::path::Path;
use std::process::Command;

use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::Netns;
use ringyard_tests::ovs::Ovs;
use ringyard_tests::process::Process;
use ringyard_tests::running::Running;
use ringyard_tests::switch::Switch;
use ringyard_tests::{ovs, tools};
use serde_json::json;
use tempfile::TempDir;

use crate::medium::{End, Medium, Side, interface};
use crate::options::Options;
use crate::{SWITCH_CORE, relay};

/// A switch, or what stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The subject.
    Ringyard,
    /// The same system calls, and nothing else.
    Relay,
    /// The relay with UDP_SEGMENT and UDP_GRO.
    GsoRelay,
    /// QEMU as a hub.
    Qemu,
    /// vde_switch, whose plugs the peers are.
    Vde,
    /// Open vSwitch's userspace data path.
    Ovs,
    /// Nobody: the source sends to the sink. What the peers can do.
    Straight,
}

impl Contender {
    pub const ALL: [Contender; 7] = [
        Contender::Ringyard,
        Contender::Relay,
        Contender::GsoRelay,
        Contender::Qemu,
        Contender::Vde,
        Contender::Ovs,
        Contender::Straight,
    ];

    /// As the command line names it.
    pub fn flag(self) -> &'static str {
        match self {
            Contender::Ringyard => "ringyard",
            Contender::Relay => "relay",
            Contender::GsoRelay => "gso-relay",
            Contender::Qemu => "qemu",
            Contender::Vde => "vde",
            Contender::Ovs => "ovs",
            Contender::Straight => "straight",
        }
    }

    /// As the report names it.
    pub fn title(self) -> &'static str {
        match self {
            Contender::Ringyard => "ringyard",
            Contender::Relay => "bare relay",
            Contender::GsoRelay => "bare relay, GSO",
            Contender::Qemu => "QEMU hub",
            Contender::Vde => "vde_switch",
            Contender::Ovs => "OVS userspace",
            Contender::Straight => "no switch",
        }
    }

    /// Who is compared on `medium`.
    pub fn on(medium: Medium) -> Vec<Contender> {
        let mut contenders = vec![Contender::Ringyard, Contender::Relay];
        if medium.is_udp() {
            contenders.push(Contender::GsoRelay);
        }
        contenders.push(if medium == Medium::AfPacket { Contender::Ovs } else { Contender::Qemu });
        if medium == Medium::Vde {
            contenders.push(Contender::Vde);
        }
        contenders.push(Contender::Straight);
        contenders
    }

    /// Whether it plugs into the peers, which are VDE switches then.
    pub fn is_plug(self) -> bool {
        matches!(self, Contender::Ringyard | Contender::Qemu)
    }

    /// Programs, and the Debian packages that bring them; the first package's version is reported.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Contender::Qemu => &[("qemu-system-x86_64", "qemu-system-x86")],
            Contender::Vde => &[("vde_switch", "vde2")],
            Contender::Ovs => &ovs::PROGRAMS,
            _ => &[],
        }
    }

    /// The version of its package, if Debian's package manager knows it.
    pub fn version(self) -> Option<String> {
        let (_, package) = self.programs().first()?;
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it in `netns`, with its sockets in `directory`. Streams and plugs connect while or after it starts.
    pub fn start(self, medium: Medium, netns: &Netns, directory: &Path) -> Result<Running> {
        let own = tempfile::tempdir().doing("making a contender's directory")?;
        match self {
            Contender::Ringyard => ringyard(medium, netns, directory),
            Contender::Relay => relay(medium, netns, directory, own, false),
            Contender::GsoRelay => relay(medium, netns, directory, own, true),
            Contender::Qemu => qemu(medium, netns, directory, own),
            Contender::Vde => vde_switch(netns, directory, own),
            Contender::Ovs => open_vswitch(netns),
            Contender::Straight => Ok(Running::Kernel),
        }
    }
}

/// Looks for every program that the chosen media and contenders need. What is missing is an error: a comparison that
/// leaves somebody out must have been told to.
pub fn find_programs(options: &Options) -> Result<()> {
    let mut wanted: Vec<(&str, &str)> = BASE_PROGRAMS.into();
    for contender in options.contenders() {
        if contender == Contender::Ringyard {
            tools::switch_binary()?;
        }
        wanted.extend(contender.programs());
    }
    wanted.retain(|(program, _)| tools::program(program).is_err());
    if wanted.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> =
        wanted.iter().map(|(program, package)| format!("{program} (package {package})")).collect();
    let advice = "benches/sockets installs them; --without PEER leaves a peer out";
    Err(Error::new(format!("missing here: {}. {advice}", missing.join(", "))))
}

fn ringyard(medium: Medium, netns: &Netns, directory: &Path) -> Result<Running> {
    let core = SWITCH_CORE.to_string();
    let mut switch = Switch::start_in(netns, &["--cores", &core, "--log-level", "warn"])?;
    for side in Side::BOTH {
        switch.order("netdev_add", medium.netdev(directory, side))?;
        switch.order("netdev_add", hubport(side))?;
    }
    Ok(Running::Ringyard(Box::new(switch)))
}

/// A machine of no parts: QEMU runs only for its hub.
fn qemu(medium: Medium, netns: &Netns, directory: &Path, own: TempDir) -> Result<Running> {
    let mut qemu = on_switch_core(netns, "qemu-system-x86_64")?;
    qemu.args(["-machine", "none", "-nodefaults", "-display", "none"]);
    for side in Side::BOTH {
        qemu.args(["-netdev", &medium.netdev(directory, side).to_string()]);
        qemu.args(["-netdev", &hubport(side).to_string()]);
    }
    programs("qemu", qemu, own)
}

fn relay(medium: Medium, netns: &Netns, directory: &Path, own: TempDir, gso: bool) -> Result<Running> {
    let program = std::env::current_exe().doing("finding this program")?;
    let mut relay = on_switch_core(netns, &program.display().to_string())?;
    relay.args(relay::arguments(medium, directory, gso));
    programs("relay", relay, own)
}

fn vde_switch(netns: &Netns, directory: &Path, own: TempDir) -> Result<Running> {
    let mut switch = on_switch_core(netns, &tools::program("vde_switch")?.display().to_string())?;
    switch.arg("-s").arg(directory.join(VDE_SWITCH));
    programs("vde_switch", switch, own)
}

/// Its main thread forwards: interfaces of the kernel's have no polling thread of their own.
fn open_vswitch(netns: &Netns) -> Result<Running> {
    let ovs = Ovs::start(&[], |program| on_switch_core(netns, program))?;
    for side in Side::BOTH {
        ovs.vsctl(&format!("add-port br0 {}", interface(side, End::Switch)))?;
    }
    Ok(Running::Programs { processes: ovs.processes, directory: ovs.directory })
}

fn programs(name: &str, command: Command, directory: TempDir) -> Result<Running> {
    let process = Process::start(name, command, directory.path())?;
    Ok(Running::Programs { processes: vec![process], directory })
}

fn on_switch_core(netns: &Netns, program: &str) -> Result<Command> {
    let mut command = netns.command("taskset")?;
    command.args(["-c", &SWITCH_CORE.to_string(), program]);
    Ok(command)
}

fn hubport(side: Side) -> serde_json::Value {
    let name = side.name();
    json!({"type": "hubport", "id": format!("{name}-hubport"), "hubid": 0, "netdev": name})
}

/// vde_switch's directory in a contender's.
pub const VDE_SWITCH: &str = "switch";
/// What the rig itself uses.
const BASE_PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("timeout", "coreutils"),
];

//! Two namespaces that reach each other through a switch: over taps, or with the kernel's bridge over veth pairs.

use std::path::Path;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::{self, Netns};
use ringyard_tests::plug::unique_interface;
use ringyard_tests::process::{Process, command};
use ringyard_tests::switch::Switch;
use tempfile::TempDir;

use crate::contender::Contender;
use ringyard_tests::running::Running;

/// Two hosts with a switch between them.
pub struct Wire {
    pub name: &'static str,
    /// Has the address [`LEFT`].
    pub left: Netns,
    /// Has the address [`RIGHT`].
    pub right: Netns,
    running: Running,
    _bridge: Option<Netns>,
}

impl Wire {
    /// Puts `contender` between two new namespaces, and waits until they reach each other.
    pub fn start(contender: Contender) -> Result<Wire> {
        let (left, right) = (Netns::new()?, Netns::new()?);
        let mut bridge = None;
        let running = match contender {
            Contender::Ringyard => ringyard(&left, &right)?,
            Contender::Qemu => qemu(&left, &right)?,
            Contender::Vde => vde(&left, &right)?,
            Contender::Bridge => {
                bridge = Some(kernel_bridge(&left, &right)?);
                Running::Kernel
            }
            other => return Err(Error::new(format!("{} has no taps", other.title()))),
        };
        let mut wire = Wire { name: contender.title(), left, right, running, _bridge: bridge };
        wire.awake(|left, _| left.run(&format!("ping -c 1 -w 10 {RIGHT}")).map(drop))?;
        Ok(wire)
    }

    /// Does `work` while the switch runs; it rests before and after.
    pub fn awake<T>(&mut self, work: impl FnOnce(&Netns, &Netns) -> Result<T>) -> Result<T> {
        let (left, right) = (&self.left, &self.right);
        self.running.awake(|| work(left, right)).doing(self.name)
    }
}

fn ringyard(left: &Netns, right: &Netns) -> Result<Running> {
    let mut switch = Switch::start(&["--log-level", "warn"])?;
    switch.plug_tap(INTERFACE, 0, left, &[&format!("{LEFT}/24")])?;
    switch.plug_tap(&format!("{INTERFACE}1"), 0, right, &[&format!("{RIGHT}/24")])?;
    Ok(Running::Ringyard(Box::new(switch)))
}

/// A machine of no parts: QEMU runs only for its hub.
fn qemu(left: &Netns, right: &Netns) -> Result<Running> {
    let directory = tempfile::tempdir().doing("making QEMU's directory")?;
    let mut qemu = command("qemu-system-x86_64")?;
    qemu.args(["-machine", "none", "-nodefaults", "-display", "none"]);
    let taps = [unique_interface(), unique_interface()];
    for (index, tap) in taps.iter().enumerate() {
        qemu.args(["-netdev", &format!("tap,id=t{index},ifname={tap},script=no,downscript=no")]);
        qemu.args(["-netdev", &format!("hubport,id=h{index},hubid=0,netdev=t{index}")]);
    }
    let mut process = Process::start("qemu", qemu, directory.path())?;
    move_taps(&mut process, &taps, left, right)?;
    Ok(Running::Programs { processes: vec![process], directory })
}

fn vde(left: &Netns, right: &Netns) -> Result<Running> {
    let directory = tempfile::tempdir().doing("making vde_switch's directory")?;
    let path = directory.path().join("switch");
    let mut switch = command("vde_switch")?;
    switch.arg("-s").arg(&path);
    let mut switch = Process::start("vde_switch", switch, directory.path())?;
    wait_for("vde_switch's socket", START_TIME_MAX, || {
        switch.expect_running()?;
        Ok(path.join("ctl").exists().then_some(()))
    })?;
    let taps = [unique_interface(), unique_interface()];
    let mut plugs = taps.iter().map(|tap| vde_plug(&path, tap, &directory)).collect::<Result<Vec<_>>>()?;
    move_taps(&mut plugs[0], &taps, left, right)?;
    plugs.insert(0, switch);
    Ok(Running::Programs { processes: plugs, directory })
}

fn vde_plug(switch: &Path, tap: &str, directory: &TempDir) -> Result<Process> {
    let mut plug = command("vde_plug2tap")?;
    plug.arg("-s").arg(switch).arg(tap);
    Process::start(tap, plug, directory.path())
}

/// A third namespace, with a bridge that both others are plugged into.
fn kernel_bridge(left: &Netns, right: &Netns) -> Result<Netns> {
    let bridge = Netns::new()?;
    bridge.ip("link add br0 type bridge")?;
    bridge.ip("link set br0 up")?;
    for (host, address, port) in [(left, LEFT, "left"), (right, RIGHT, "right")] {
        netns::join((host, INTERFACE), (&bridge, port))?;
        bridge.ip(&format!("link set {port} master br0 up"))?;
        host.bring_up(INTERFACE, &[&format!("{address}/24")])?;
    }
    Ok(bridge)
}

/// Waits until a program has made its taps, and gives one to each namespace.
fn move_taps(process: &mut Process, taps: &[String; 2], left: &Netns, right: &Netns) -> Result<()> {
    wait_for("taps", START_TIME_MAX, || {
        process.expect_running()?;
        Ok(taps.iter().all(|tap| Path::new("/sys/class/net").join(tap).exists()).then_some(()))
    })?;
    for (tap, (host, address)) in taps.iter().zip([(left, LEFT), (right, RIGHT)]) {
        host.adopt(tap)?;
        host.bring_up(tap, &[&format!("{address}/24")])?;
    }
    Ok(())
}

/// The left host's address.
pub const LEFT: &str = "10.9.0.1";
/// The right host's address.
pub const RIGHT: &str = "10.9.0.2";
const INTERFACE: &str = "wire";
const START_TIME_MAX: Duration = Duration::from_secs(10);

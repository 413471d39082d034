//! A QEMU without a machine: a netdev of QEMU's own on a hub of its own, and on the same hub a unix datagram netdev by
//! which a test sends frames through it and gets those that came to it, byte by byte.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deadline::wait_for;
use crate::error::{Doing, Result};
use crate::netns::Netns;
use crate::process::{Process, command};
use crate::qmp::Qmp;

/// A running QEMU with one hub.
pub struct Probe {
    process: Process,
    qmp: Qmp,
    socket: UnixDatagram,
    directory: TempDir,
}

impl Probe {
    /// Starts it in `netns`, with nothing on its hub but the test.
    pub fn start(netns: &Netns) -> Result<Probe> {
        let directory = tempfile::tempdir().doing("making a probe's directory")?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let socket = UnixDatagram::bind(path(OURS)).doing("binding the probe's socket")?;
        let mut qemu = match command("qemu-system-x86_64") {
            Ok(_) => netns.command("qemu-system-x86_64")?,
            missing => missing?,
        };
        qemu.args(["-nodefaults", "-display", "none", "-machine", "none"]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path(MONITOR))]);
        let frames = format!(
            "dgram,id=probe,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path(THEIRS),
            path(OURS)
        );
        qemu.args(["-netdev", &frames, "-netdev", "hubport,id=probe-port,hubid=0,netdev=probe"]);
        let mut process = Process::start("probe", qemu, directory.path())?;
        let monitor = directory.path().join(MONITOR);
        // An early client may hear that QEMU runs before it is greeted; the next one is greeted.
        let qmp = wait_for("the probe's monitor", START_TIME_MAX, || {
            process.expect_running()?;
            Ok(Qmp::connect(&monitor, ANSWER_TIME_MAX).ok())
        })?;
        let probe = Probe { process, qmp, socket, directory };
        probe.socket.connect(probe.directory.path().join(THEIRS)).doing("connecting to the probe")?;
        Ok(probe)
    }

    /// Puts the netdev that `members` (without an id) describe on the hub.
    pub fn plug(&mut self, members: &Value) -> Result<()> {
        let mut netdev = members.clone();
        netdev["id"] = NETDEV.into();
        self.order("netdev_add", netdev)?;
        let port = json!({"type": "hubport", "id": PORT, "hubid": 0, "netdev": NETDEV});
        self.order("netdev_add", port).map(drop)
    }

    /// Takes it away.
    pub fn unplug(&mut self) -> Result<()> {
        self.order("netdev_del", json!({"id": PORT}))?;
        self.order("netdev_del", json!({"id": NETDEV})).map(drop)
    }

    /// What QEMU shows of its netdevs.
    pub fn info(&mut self) -> Result<String> {
        let text = self.order("human-monitor-command", json!({"command-line": "info network"}))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Sends a frame to the hub.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).doing(format!("sending {} bytes to the probe", frame.len())).map(drop)
    }

    /// The next frame that came to the hub; `None` when none comes within the time.
    pub fn receive(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(within)).doing("setting the probe's time limit")?;
        let mut frame = vec![0; FRAME_MAX];
        match self.socket.recv(&mut frame) {
            Ok(len) => {
                frame.truncate(len);
                Ok(Some(frame))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).doing("receiving from the probe"),
        }
    }

    /// The process, to be killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn order(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = arguments.to_string();
        self.qmp.execute(command, arguments).doing(format!("the probe's {command} {text}"))
    }
}

const MONITOR: &str = "qmp.sock";
const OURS: &str = "test";
const THEIRS: &str = "qemu";
const NETDEV: &str = "n0";
const PORT: &str = "p0";
const START_TIME_MAX: Duration = Duration::from_secs(20);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// As long as frames are in QEMU.
const FRAME_MAX: usize = 69_632;

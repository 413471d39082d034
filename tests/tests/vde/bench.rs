//! What these tests stand on: `vde_switch`, our end of it on hub 0 with a tap beside it, and innocents on hub 1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringyard_tests::deadline::{Deadline, wait_for};
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::process::{Process, command};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The EtherType of the frames of these tests.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// More than a frame needs on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// Our end.
pub const PORT: &str = "v0";

/// A running `vde_switch` with 8 ports.
pub struct VdeSwitch {
    process: Process,
    pub path: PathBuf,
    directory: TempDir,
}

impl VdeSwitch {
    /// Starts one.
    pub fn start() -> Result<VdeSwitch> {
        VdeSwitch::start_by(|path| Ok((command("vde_switch")?, path)))
    }

    /// Starts one by the command that `by` makes of its directory's path.
    pub fn start_by(
        by: impl FnOnce(PathBuf) -> Result<(std::process::Command, PathBuf)>,
    ) -> Result<VdeSwitch> {
        let directory = tempfile::tempdir().doing("making a directory")?;
        let (vde_switch, path) = by(directory.path().join("sw"))?;
        let process = run(vde_switch, &path, directory.path())?;
        Ok(VdeSwitch { process, path, directory })
    }

    /// Kills it, which leaves its files behind.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Starts it again at the same place.
    pub fn restart(&mut self) -> Result<()> {
        self.process = run(command("vde_switch")?, &self.path, self.directory.path())?;
        Ok(())
    }

    /// What it answers on its console: up to the line that has a status of four digits, 1000 if it was done.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let from = self.process.log().len();
        self.process.write_line(line)?;
        self.process.wait_for_log(&format!("the answer to {line}"), from, SOON, |log| {
            log.lines()
                .any(|line| line.starts_with("1") && line.get(4..5) == Some(" "))
                .then(|| log.to_owned())
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.process.id() as i32);
        rustix::process::kill_process(pid.expect("a process has a number"), signal).doing("sending a signal")
    }
}

fn run(mut vde_switch: std::process::Command, path: &Path, directory: &Path) -> Result<Process> {
    // What a killed one left is not the new one's.
    let _ = std::fs::remove_file(path.join("ctl"));
    vde_switch.arg("-s").arg(path).args(["-n", "8"]);
    let mut process = Process::start("vde_switch", vde_switch, directory)?;
    wait_for("the VDE switch's socket", SOON, || {
        process.expect_running()?;
        Ok(path.join("ctl").exists().then_some(()))
    })?;
    Ok(process)
}

/// Our switch: on hub 0 a tap with a socket of the test's, on hub 1 two taps that exchange frames.
pub struct Bench {
    pub switch: Switch,
    pub netns: Netns,
    pub tap: PacketSocket,
    innocents: [Netns; 2],
}

impl Bench {
    /// Without any end at a VDE switch.
    pub fn start() -> Result<Bench> {
        let netns = Netns::new()?;
        let innocents = [Netns::new()?, Netns::new()?];
        for netns in innocents.iter().chain([&netns]) {
            // Nothing but the tests' frames.
            netns.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        let mut switch = Switch::start(&[])?;
        switch.plug_tap("t0", 0, &netns, &[])?;
        netns.ip("link set t0 mtu 65521")?;
        switch.plug_tap("i0", 1, &innocents[0], &[])?;
        switch.plug_tap("i1", 1, &innocents[1], &[])?;
        let tap = PacketSocket::open(&netns, "t0")?;
        Ok(Bench { switch, netns, tap, innocents })
    }

    /// Starts the innocents' exchange. At its end nothing may be lost.
    pub fn innocents(&self) -> Result<Flow> {
        let [from, to] = &self.innocents;
        // A busy machine may keep the switch from its core for a while: that is no harm.
        from.ip("link set i0 txqueuelen 10000")?;
        let config =
            FlowConfig { destination: to.mac("i1")?, source: from.mac("i0")?, length: 200, rate: 500 };
        Ok(Flow::start(PacketSocket::open(from, "i0")?, PacketSocket::open(to, "i1")?, config))
    }

    /// The innocents' frames, of which there are some, must all have arrived.
    pub fn expect_whole(&mut self, flow: Flow) -> Result<()> {
        self.switch.wait_stats("frames of innocents", SOON, |stats| {
            stats.port("i1").is_some_and(|port| port.egress.frames > 100)
        })?;
        let report = flow.finish()?;
        match (report.lost(), report.doubled, report.overtaken) {
            (0, 0, 0) => Ok(()),
            _ => Err(Error::new(format!("innocents were harmed: {report:?}"))),
        }
    }

    /// Puts our end on hub 0, with further `members`.
    pub fn plug(&mut self, sock: &Path, members: Value) -> Result<()> {
        let mut netdev = members;
        (netdev["type"], netdev["id"], netdev["sock"]) = ("vde".into(), PORT.into(), json!(sock));
        self.switch.order("netdev_add", netdev)?;
        let port = json!({"type": "hubport", "id": format!("{PORT}-hubport"), "hubid": 0, "netdev": PORT});
        self.switch.order("netdev_add", port).map(drop)
    }

    /// What `info network` shows of our end.
    pub fn info(&mut self) -> Result<String> {
        let text = self.switch.order("human-monitor-command", json!({"command-line": "info network"}))?;
        let line = text.as_str().unwrap_or_default().lines().find_map(|line| line.split_once("type=vde,"));
        line.map(|(_, info)| info.trim().to_owned()).ok_or_else(|| Error::new(format!("no vde in {text}")))
    }

    /// Waits until our end has its carrier, or has none, and its text contains `what`.
    pub fn wait(&mut self, carrier: bool, what: &str) -> Result<()> {
        wait_for(&format!("carrier {carrier} and {what:?}"), SOON, || {
            let is = self.switch.stats()?.port(PORT).is_some_and(|port| port.carrier == carrier);
            Ok((is && self.info()?.contains(what)).then_some(()))
        })
    }

    /// The next frame of the test's that came to the tap.
    pub fn at_tap(&self) -> Result<Vec<u8>> {
        let deadline = Deadline::after(SOON);
        while let Some(left) = deadline.remaining() {
            if let Some(frame) = self.tap.receive(left)?.filter(|frame| is_ours(frame)) {
                return Ok(frame);
            }
        }
        Err(Error::new("no frame came to the tap"))
    }
}

/// A frame of `len` bytes, told apart by `number`, for everybody.
pub fn frame(len: usize, number: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &[0x02, 0, 0, 0, 1, number], &ETHERTYPE].concat();
    frame.extend((frame.len()..len).map(|at| (at * 7 + usize::from(number)) as u8));
    frame
}

/// Whether a frame is of these tests.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE)
}

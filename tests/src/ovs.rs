//! Open vSwitch on its userspace data path: one bridge that learns, with whatever ports are added to it. It has a
//! database and a directory of its own and meets no other Open vSwitch; its bridge's own interface appears in the
//! network namespace that it runs in, and goes with that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::error::{Doing, Error, Result};
use crate::process::{Process, command, run};

/// A running Open vSwitch with the bridge `br0`.
pub struct Ovs {
    /// Its files, and vhost-user sockets under their ports' names.
    pub directory: TempDir,
    /// The switch itself, and its database.
    pub processes: Vec<Process>,
}

impl Ovs {
    /// Starts the database with these `other_config` settings, then the switch by the command that `command` makes of
    /// its program.
    pub fn start(settings: &[String], command: impl FnOnce(&str) -> Result<Command>) -> Result<Ovs> {
        let directory = tempfile::tempdir().doing("making Open vSwitch's directory")?;
        let path = directory.path();
        let database = path.join("conf.db");
        run(tool("ovsdb-tool", path)?.arg("create").arg(&database).arg(SCHEMA)).doing("making a database")?;
        let mut server = tool("ovsdb-server", path)?;
        server.arg(&database).arg(format!("--remote=punix:{}", path.join(SOCKET).display()));
        server.arg(format!("--unixctl={}", path.join("ovsdb.ctl").display()));
        let mut server = Process::start("ovsdb-server", server, path)?;
        server.wait_for_sockets(&[path.join(SOCKET)], START_TIME_MAX)?;
        let mut ovs = Ovs { directory, processes: vec![server] };
        ovs.configure(settings)?;

        let mut switch = command(VSWITCHD)?;
        environment(&mut switch, ovs.directory.path());
        switch.arg(format!("unix:{}", ovs.path(SOCKET).display()));
        switch.arg(format!("--unixctl={}", ovs.path(CONTROL).display()));
        ovs.processes.insert(0, Process::start("ovs-vswitchd", switch, ovs.directory.path())?);
        ovs.vsctl("add-br br0 -- set Bridge br0 datapath_type=netdev other_config:mac-aging-time=3600")
            .map_err(|error| Error::new(format!("{error}; its log:\n{}", ovs.processes[0].log())))?;
        Ok(ovs)
    }

    /// Runs `ovs-vsctl ARGUMENTS`.
    pub fn vsctl(&self, arguments: &str) -> Result<()> {
        let mut vsctl = self.database_client()?;
        vsctl.arg(format!("--timeout={}", START_TIME_MAX.as_secs()));
        run(vsctl.args(arguments.split_whitespace())).map(drop)
    }

    /// Runs `ovs-appctl COMMAND` at the switch; what it answers.
    pub fn appctl(&self, command: &str) -> Result<String> {
        let mut appctl = tool("ovs-appctl", self.directory.path())?;
        run(appctl.arg("-t").arg(self.path(CONTROL)).arg(command))
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Flows and addresses stay while it is stopped.
    fn configure(&self, settings: &[String]) -> Result<()> {
        run(self.database_client()?.args(["--no-wait", "init"]))?;
        let mut vsctl = self.database_client()?;
        vsctl.args(["--no-wait", "set", "Open_vSwitch", ".", "other_config:max-idle=3600000"]);
        vsctl.args(settings.iter().map(|setting| format!("other_config:{setting}")));
        run(&mut vsctl).map(drop)
    }

    fn database_client(&self) -> Result<Command> {
        let mut vsctl = tool("ovs-vsctl", self.directory.path())?;
        vsctl.arg(format!("--db=unix:{}", self.path(SOCKET).display()));
        Ok(vsctl)
    }
}

fn tool(program: &str, path: &Path) -> Result<Command> {
    let mut command = command(program)?;
    environment(&mut command, path);
    Ok(command)
}

fn environment(command: &mut Command, path: &Path) {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "RUNTIME_DIRECTORY"] {
        command.env(name, path);
    }
}

/// The programs that it takes, and their package in Debian, which keeps the build with DPDK beside the one without.
pub const PROGRAMS: [(&str, &str); 4] =
    [(VSWITCHD, PACKAGE), ("ovsdb-server", PACKAGE), ("ovsdb-tool", PACKAGE), ("ovs-vsctl", PACKAGE)];
/// From start to listening sockets; DPDK maps its memory first.
pub const START_TIME_MAX: Duration = Duration::from_secs(30);
const PACKAGE: &str = "openvswitch-switch-dpdk";
const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const SOCKET: &str = "db.sock";
const CONTROL: &str = "vswitchd.ctl";

//! Open vSwitch on its DPDK data path: one bridge that learns, two vhost-user ports, one forwarding thread on the
//! switches' core. It has a database, a directory and a network namespace of its own and meets no other Open vSwitch.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Result};
use ringyard_tests::process::{Process, command, run};

use crate::pair::{Started, wait_for_sockets};
use crate::{DRIVER_CORE, SWITCH_CORE};

/// Starts the database, the switch, and its two ports.
pub fn start() -> Result<Started> {
    let directory = tempfile::tempdir().doing("making Open vSwitch's directory")?;
    let path = directory.path();
    let database = path.join("conf.db");
    run(ovs("ovsdb-tool", path)?.arg("create").arg(&database).arg(SCHEMA)).doing("making a database")?;
    let mut server = ovs("ovsdb-server", path)?;
    server.arg(&database).arg(format!("--remote=punix:{}", path.join(SOCKET).display()));
    server.arg(format!("--unixctl={}", path.join("ovsdb.ctl").display()));
    let mut server = Process::start("ovsdb-server", server, path)?;
    wait_for_sockets(&mut server, &[path.join(SOCKET)])?;
    configure(path)?;

    // The bridge's own interface appears in the namespace of the switch's process, not in the host's; it goes with it.
    let mut switch = command("unshare")?;
    switch.arg("--net").arg(ringyard_tests::tools::program(VSWITCHD)?);
    environment(&mut switch, path);
    switch.arg(format!("unix:{}", path.join(SOCKET).display()));
    switch.arg(format!("--unixctl={}", path.join("vswitchd.ctl").display()));
    let mut switch = Process::start("ovs-vswitchd", switch, path)?;
    vsctl(path, "add-br br0 -- set Bridge br0 datapath_type=netdev other_config:mac-aging-time=3600")
        .map_err(|error| ringyard_tests::Error::new(format!("{error}; its log:\n{}", switch.log())))?;
    let sockets = ["v0", "v1"].map(|name| path.join(name));
    for name in ["v0", "v1"] {
        vsctl(path, &format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"))?;
    }
    wait_for_sockets(&mut switch, &sockets)?;
    wait_for("both ports to be polled", START_TIME_MAX, || {
        let queues = ovs("ovs-appctl", path).and_then(|mut appctl| {
            run(appctl.arg("-t").arg(path.join("vswitchd.ctl")).arg("dpif-netdev/pmd-rxq-show"))
        })?;
        Ok(["v0", "v1"].iter().all(|name| queues.contains(name)).then_some(()))
    })?;
    Ok(Started { processes: vec![switch, server], directory, sockets })
}

/// Ordinary memory, as everybody here has, and a pool of buffers for each port instead of 262,144 for all, which do not
/// fit a cache and take seconds to lay out. Flows and addresses stay while it is stopped.
fn configure(path: &Path) -> Result<()> {
    vsctl(path, "--no-wait init")?;
    // --legacy-mem is what --no-huge means; named, it keeps Open vSwitch from adding --in-memory, which contradicts it.
    let extra = "--no-huge --legacy-mem -m 1024 --no-pci --no-telemetry";
    let settings = [
        "dpdk-init=true".into(),
        "per-port-memory=true".into(),
        format!("pmd-cpu-mask={:#x}", 1 << SWITCH_CORE),
        format!("dpdk-lcore-mask={:#x}", 1 << DRIVER_CORE),
        "max-idle=3600000".into(),
        format!("dpdk-extra=\"{extra}\""),
    ];
    let mut vsctl = ovs("ovs-vsctl", path)?;
    vsctl.arg(database_of(path)).args(["--no-wait", "set", "Open_vSwitch", "."]);
    vsctl.args(settings.map(|setting| format!("other_config:{setting}")));
    run(&mut vsctl).map(drop)
}

fn vsctl(path: &Path, arguments: &str) -> Result<()> {
    let mut vsctl = ovs("ovs-vsctl", path)?;
    vsctl.arg(database_of(path)).arg(format!("--timeout={}", START_TIME_MAX.as_secs()));
    run(vsctl.args(arguments.split_whitespace())).map(drop)
}

fn database_of(path: &Path) -> String {
    format!("--db=unix:{}", path.join(SOCKET).display())
}

fn ovs(program: &str, path: &Path) -> Result<Command> {
    let mut command = command(program)?;
    environment(&mut command, path);
    Ok(command)
}

fn environment(command: &mut Command, path: &Path) {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "RUNTIME_DIRECTORY"] {
        command.env(name, path);
    }
}

/// Debian keeps the build with DPDK beside the one without.
pub const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const SOCKET: &str = "db.sock";
const START_TIME_MAX: Duration = Duration::from_secs(30);

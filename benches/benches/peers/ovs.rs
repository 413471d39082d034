//! Open vSwitch on its DPDK data path: two vhost-user ports, one forwarding thread on the switches' core.

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::Result;
use ringyard_tests::ovs::{Ovs, START_TIME_MAX};
use ringyard_tests::process::command;

use crate::pair::Started;
use crate::{DRIVER_CORE, SWITCH_CORE};

/// Starts the database, the switch, and its two ports.
pub fn start() -> Result<Started> {
    let mut ovs = Ovs::start(&settings(), |program| {
        // The bridge's own interface appears in the namespace of the switch's process, not in the host's.
        let mut switch = command("unshare")?;
        switch.args(["--net", program]);
        Ok(switch)
    })?;
    let sockets = ["v0", "v1"].map(|name| ovs.path(name));
    for name in ["v0", "v1"] {
        ovs.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"))?;
    }
    ovs.processes[0].wait_for_sockets(&sockets, START_TIME_MAX)?;
    wait_for("both ports to be polled", START_TIME_MAX, || {
        let queues = ovs.appctl("dpif-netdev/pmd-rxq-show")?;
        Ok(["v0", "v1"].iter().all(|name| queues.contains(name)).then_some(()))
    })?;
    Ok(Started { processes: ovs.processes, directory: ovs.directory, sockets })
}

/// Ordinary memory, as everybody here has, and a pool of buffers for each port instead of 262,144 for all, which do not
/// fit a cache and take seconds to lay out.
fn settings() -> [String; 5] {
    // --legacy-mem is what --no-huge means; named, it keeps Open vSwitch from adding --in-memory, which contradicts it.
    let extra = "--no-huge --legacy-mem -m 1024 --no-pci --no-telemetry";
    [
        "dpdk-init=true".into(),
        "per-port-memory=true".into(),
        format!("pmd-cpu-mask={:#x}", 1 << SWITCH_CORE),
        format!("dpdk-lcore-mask={:#x}", 1 << DRIVER_CORE),
        format!("dpdk-extra=\"{extra}\""),
    ]
}

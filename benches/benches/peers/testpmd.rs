//! testpmd between two `net_vhost` ports, forwarding `io`: what comes in at one goes out at the other, unseen.

use ringyard_tests::error::{Doing, Result};
use ringyard_tests::process::{Process, command};

use crate::pair::{START_TIME_MAX, Started};
use crate::{DRIVER_CORE, SWITCH_CORE};

/// Starts it; it forwards until its input ends.
pub fn start() -> Result<Started> {
    let directory = tempfile::tempdir().doing("making testpmd's directory")?;
    let sockets = ["v0", "v1"].map(|name| directory.path().join(name));
    let mut testpmd = command("dpdk-testpmd")?;
    // Its own files go where its sockets are.
    testpmd.env("RUNTIME_DIRECTORY", directory.path());
    // Its main thread only waits for the end of its input.
    testpmd.args([format!("--lcores=0@{DRIVER_CORE},1@{SWITCH_CORE}"), "--main-lcore=0".into()]);
    testpmd.args(["--no-pci", "--no-telemetry", "--no-huge", "-m", "512"]);
    for (index, socket) in sockets.iter().enumerate() {
        testpmd.arg(format!("--vdev=net_vhost{index},iface={},queues=1", socket.display()));
    }
    testpmd.args(["--", "--total-num-mbufs=16384", "--forward-mode=io", "--disable-link-check"]);
    let mut process = Process::start("testpmd", testpmd, directory.path())?;
    process.wait_for_sockets(&sockets, START_TIME_MAX)?;
    Ok(Started { processes: vec![process], directory, sockets })
}

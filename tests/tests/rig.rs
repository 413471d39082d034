//! The rig shown to work against peers that are not ours: guests on QEMU's own netdevs, testpmd against testpmd, raw
//! frames over a veth pair. When a test of the switch fails and these pass, it is the switch.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringyard_tests::dpdk::{Testpmd, TestpmdConfig, TestpmdPort, VirtioUser};
use ringyard_tests::flow::{self, Flow, FlowConfig, numbered_frame};
use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::{self, Netns};
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::process::{Process, command};
use ringyard_tests::slot::Slot;
use ringyard_tests::{Doing, Result, deadline};
use serde_json::json;
use tempfile::TempDir;

/// Two guests, joined by two datagram sockets in a directory.
fn joined_guests(slot: &Slot) -> Result<(Guest, Guest, TempDir)> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let dgram = |local: &str, remote: &str| {
        let (local, remote) = (path(local), path(remote));
        let options = format!("local.type=unix,local.path={local},remote.type=unix,remote.path={remote}");
        NetAttach::Raw(vec!["-netdev".into(), format!("dgram,id=n0,{options}")])
    };
    let mut first = Guest::start(slot, GuestConfig::new(1, dgram("a", "b")))?;
    let mut second = Guest::start(slot, GuestConfig::new(2, dgram("b", "a")))?;
    first.wait_booted(BOOT_TIME_MAX)?;
    second.wait_booted(BOOT_TIME_MAX)?;
    Ok((first, second, directory))
}

#[test]
fn guests_on_qemus_own_netdev_ping_and_run_iperf3() -> Result<()> {
    let slot = Slot::take()?;
    let (mut first, mut second, _directory) = joined_guests(&slot)?;
    first.expect("ping -c 3 -i 0.2 10.0.0.2")?;
    second.expect("ping -6 -c 3 -i 0.2 fd00::1")?;

    let server = second.spawn("iperf3 -s -1")?;
    second.expect("until netstat -lnt | grep -q :5201; do sleep 0.1; done")?;
    let report = first.expect("iperf3 -c 10.0.0.2 -t 2")?;
    assert!(report.contains("receiver"), "{report}");
    let server = second.wait(&server, Duration::from_secs(10))?;
    assert_eq!(server.status, 0, "{}", server.stdout);

    let status = first.monitor()?.execute("query-status", json!({})).doing("asking QEMU")?;
    assert_eq!(status["status"], "running");
    Ok(())
}

#[test]
fn command_in_a_guest_gives_its_output_and_status() -> Result<()> {
    let slot = Slot::take()?;
    let mut guest = Guest::boot(&slot, GuestConfig::new(1, NetAttach::Raw(unplugged())))?;
    let output = guest.run("echo one; echo two >&2; exit 3")?;
    assert_eq!((output.status, output.stdout.as_str()), (3, "one\ntwo\n"));
    let killed = guest.run_within("sleep 60", Duration::from_secs(1))?;
    assert_eq!(killed.status, 137);
    let missing = guest.expect("nonesuch").expect_err("there is no such command");
    assert!(missing.to_string().contains("ended with 127"), "{missing}");
    guest.expect("ip link add link eth0 name eth0.4 type vlan id 4")?;
    assert_eq!(guest.counter("eth0.4", "rx_packets")?, 0);
    guest.kill()
}

#[test]
fn monitor_client_gets_replies_errors_and_events_and_passes_descriptors() -> Result<()> {
    let slot = Slot::take()?;
    let guest = Guest::start(&slot, GuestConfig::new(1, NetAttach::Raw(unplugged())))?;
    let mut monitor = guest.monitor()?;
    assert!(monitor.greeting()["QMP"]["version"]["qemu"]["major"].is_u64());

    monitor.execute("stop", json!({})).doing("stopping the guest")?;
    let stopped = monitor.execute("query-status", json!({})).doing("asking QEMU")?;
    assert_eq!(stopped["status"], "paused");
    monitor.wait_event("STOP", Duration::from_secs(5))?;

    let error = monitor.execute("nope", json!({})).expect_err("there is no such command");
    assert_eq!(error.class, "CommandNotFound");
    assert_eq!(error.desc, "The command nope has not been found");
    monitor.send_raw(b"{\"execute\": 1}")?;
    let reply = monitor.wait_reply(Duration::from_secs(5))?;
    assert_eq!(reply["error"]["desc"], "QMP input member 'execute' must be a string");

    let null = File::open("/dev/null").doing("opening /dev/null")?;
    let name = json!({"fdname": "null"});
    monitor.execute_with_fds("getfd", name.clone(), &[null.as_fd()]).doing("passing a descriptor")?;
    monitor.execute("closefd", name).doing("closing the descriptor passed")?;
    Ok(())
}

/// A netdev that leads nowhere.
fn unplugged() -> Vec<String> {
    ["-netdev", "hubport,id=n0,hubid=0"].map(String::from).to_vec()
}

#[test]
fn testpmd_front_end_passes_frames_through_testpmd_back_end() -> Result<()> {
    let slot = Slot::take()?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let sockets = ["v0", "v1"].map(|name| directory.path().join(name));
    let vhost = |socket: &PathBuf| TestpmdPort::Vhost { socket: socket.clone(), client: false, queues: 1 };
    let mut back = Testpmd::launch(&slot, &TestpmdConfig::new("back", sockets.iter().map(vhost).collect()))?;
    back.start()?;

    let fronts = (1..).zip(&sockets);
    let fronts = fronts.map(|(number, socket)| TestpmdPort::VirtioUser(VirtioUser::connect(socket, number)));
    let config = TestpmdConfig { forward_core: 0, ..TestpmdConfig::new("front", fronts.collect()) };
    let mut front = Testpmd::launch(&slot, &config)?;
    front.start_tx_first(4)?;
    deadline::wait_for("10,000 frames at each port", Duration::from_secs(20), || {
        let stats = front.stats()?;
        Ok(stats.iter().all(|port| port.rx_packets > 10_000).then_some(()))
    })?;
    let stopped = front.stop()?;
    assert!(stopped.contains("RX-packets"), "{stopped}");
    assert!(front.stats()?.iter().all(|port| port.rx_errors == 0 && port.tx_errors == 0));
    front.quit()?;
    back.quit()
}

/// The front ends that the switch must serve, on a back end that is not ours: one connects, the other one listens.
#[test]
fn vhost_user_guests_ping_through_testpmd_back_end() -> Result<()> {
    let slot = Slot::take()?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let [listening, connecting] = ["v0", "v1"].map(|name| directory.path().join(name));
    let ports = vec![
        TestpmdPort::Vhost { socket: listening.clone(), client: false, queues: 1 },
        TestpmdPort::Vhost { socket: connecting.clone(), client: true, queues: 1 },
    ];
    let mut back = Testpmd::launch(&slot, &TestpmdConfig::new("back", ports))?;
    back.start()?;

    let served = NetAttach::VhostUser { socket: connecting, server: true, queues: 1, reconnect: None };
    let mut first = Guest::start(&slot, GuestConfig::new(1, NetAttach::connect(listening)))?;
    let mut second = Guest::start(&slot, GuestConfig::new(2, served))?;
    first.wait_booted(BOOT_TIME_MAX)?;
    second.wait_booted(BOOT_TIME_MAX)?;
    first.expect("ping -c 3 -i 0.2 10.0.0.2")?;
    second.expect("ping -6 -c 3 -i 0.2 fd00::1")?;
    Ok(())
}

/// Two namespaces joined by a veth pair, a socket at each end, and what flows between them.
fn joined_sockets() -> Result<(Netns, Netns, PacketSocket, PacketSocket, FlowConfig)> {
    let (left, right) = (Netns::new()?, Netns::new()?);
    netns::join((&left, "v0"), (&right, "v0"))?;
    left.bring_up("v0", &["10.0.0.1/24", "fd00::1/64"])?;
    right.bring_up("v0", &["10.0.0.2/24", "fd00::2/64"])?;
    let sockets = (PacketSocket::open(&left, "v0")?, PacketSocket::open(&right, "v0")?);
    let config =
        FlowConfig { destination: right.mac("v0")?, source: left.mac("v0")?, length: 60, rate: 2000 };
    Ok((left, right, sockets.0, sockets.1, config))
}

#[test]
fn flow_between_namespaces_arrives_whole() -> Result<()> {
    let (left, right, from, to, config) = joined_sockets()?;
    left.run("ping -c 1 -W 5 10.0.0.2 && ping -c 1 -W 5 fd00::2")?;
    let flow = Flow::start(from, to, config);
    right.run("ping -c 5 -i 0.1 10.0.0.1")?;
    let report = flow.finish()?;
    assert!(report.sent > 100, "{report:?}");
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    Ok(())
}

#[test]
fn lost_doubled_and_overtaken_frames_are_counted() -> Result<()> {
    let (_left, _right, from, to, config) = joined_sockets()?;
    for number in [0, 2, 1, 1, 4] {
        from.send(&numbered_frame(config, number))?;
    }
    let report = flow::collect(&to, config.source, 5, Duration::from_millis(500))?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (1, 1, 2), "{report:?}");
    Ok(())
}

#[test]
fn tagged_frame_is_received_without_its_tag() -> Result<()> {
    let (_left, _right, from, to, config) = joined_sockets()?;
    from.send(&tagged(&numbered_frame(config, 0), 5))?;
    let report = flow::collect(&to, config.source, 1, Duration::from_secs(5))?;
    assert_eq!(report.received, 1);
    Ok(())
}

#[test]
fn process_is_timed_and_ends_when_asked() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut shell = command("sh")?;
    shell.args(["-c", "echo ready; while :; do :; done"]);
    let mut process = Process::start("busy", shell, directory.path())?;
    process
        .wait_for_log("readiness", 0, Duration::from_secs(5), |log| log.contains("ready").then_some(()))?;
    deadline::wait_for("50 ms of work", Duration::from_secs(5), || {
        Ok((process.cpu_time("sh")? >= Duration::from_millis(50)).then_some(()))
    })?;
    assert_eq!(process.cpu_time("other")?, Duration::ZERO);
    assert!(!process.terminate(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn namespace_is_gone_after_drop() -> Result<()> {
    let netns = Netns::new()?;
    let path = Path::new("/run/netns").join(netns.name());
    assert!(path.exists());
    drop(netns);
    assert!(!path.exists());
    Ok(())
}

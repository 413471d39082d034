//! What the machine does to the switch: sockets that answer nothing, system calls that fail, signals, and ports that come
//! and go without end. Names begin with the case of the hostile catalogue.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::hostile::wire::knock;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::faults::{ERRORS, SYSTEM_CALLS};
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::process::{Process, command};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result, tools};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Two taps on hub 0 and a numbered flow from the first to the second.
fn flowing(switch: &mut Switch, hosts: &[Netns; 2]) -> Result<Flow> {
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 2000 };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config))
}

fn unharmed(flow: Flow) -> Result<()> {
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    Ok(())
}

/// A socket that listens, accepts nobody, and whose queue is full: whoever connects to it and waits, waits for ever.
fn deaf(path: &Path) -> Result<Vec<OwnedFd>> {
    let new = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing("making a socket")
    };
    let address = SocketAddrUnix::new(path).doing("naming a socket")?;
    let mut sockets = vec![new()?];
    bind(&sockets[0], &address).doing("binding a socket")?;
    listen(&sockets[0], 0).doing("listening")?;
    loop {
        let socket = new()?;
        if connect(&socket, &address).is_err() {
            return Ok(sockets);
        }
        sockets.push(socket);
    }
}

#[test]
fn q06_sockets_that_answer_nothing_do_not_delay_the_start() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = directory.path().join("deaf");
    let _deaf = deaf(&path)?;
    let path = path.display();
    let began = Instant::now();
    let mut switch = Switch::start(&[
        "-chardev",
        &format!("socket,id=c,path={path},reconnect=1"),
        "-netdev",
        "vhost-user,id=v,chardev=c",
        "-netdev",
        &format!("stream,id=s,server=off,addr.type=unix,addr.path={path},reconnect=1"),
    ])?;
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    for name in ["v", "s"] {
        assert!(switch.stats()?.port(name).is_some_and(|port| !port.carrier), "{name} is there, and waits");
    }
    // Nor a port that is added, nor the end.
    let addr = json!({"type": "unix", "path": path.to_string()});
    switch.order("netdev_add", json!({"type": "stream", "id": "t", "addr": addr, "reconnect": 1}))?;
    switch.finish()
}

#[test]
fn q06_client_that_is_not_to_wait_says_at_once_that_nobody_answers() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = directory.path().join("deaf");
    let _deaf = deaf(&path)?;
    let mut switch = Switch::start(&[])?;
    let addr = json!({"type": "unix", "data": {"path": path}});
    let backend = json!({"type": "socket", "data": {"addr": addr, "server": false}});
    let began = Instant::now();
    let answer = switch.qmp().execute("chardev-add", json!({"id": "c", "backend": backend}));
    assert!(answer.is_err(), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    switch.finish()
}

/// Starts the switch while a system call always fails, with something of each kind to open. It must end in order with a
/// sentence that says what failed, or run, serve its monitor, and end in order when it is told to.
fn start_without(call: &str, error: &str) -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut faulty = command(env!("CARGO_BIN_EXE_with_faults"))?;
    faulty.arg(format!("{call}={error}")).arg(tools::switch_binary()?).arg("run");
    faulty.args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))]);
    faulty.args(["-chardev", &format!("socket,id=c,path={},server=on,wait=off", path("guest"))]);
    faulty.args(["-netdev", "vhost-user,id=v,chardev=c", "-netdev", "hubport,id=h,hubid=0,netdev=v"]);
    faulty.args(["-netdev", &format!("stream,id=s,server=on,addr.type=unix,addr.path={}", path("stream"))]);
    faulty.args(["-netdev", "dgram,id=d,local.type=inet,local.host=127.0.0.1,local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=9"]);
    let mut switch = Process::start("ringyard", faulty, directory.path())?;
    let mut monitor = None;
    let waited = wait_for("a start or an end", Duration::from_secs(10), || {
        if switch.expect_running().is_err() {
            return Ok(Some(()));
        }
        if monitor.is_none() {
            // Whether it can be connected to is another thing.
            monitor = UnixStream::connect(path("monitor")).ok();
        }
        Ok(monitor.as_ref().map(drop))
    });
    waited.map_err(|error| Error::new(format!("{call}: {error}; it said:\n{}", switch.log())))?;
    // It may be about to end still.
    let status = match switch.wait_for_exit(Duration::from_millis(300)) {
        Ok(status) => status,
        Err(_) => switch.terminate(Duration::from_secs(10)).doing(format!("{call}={error}"))?,
    };
    let log = switch.log();
    assert!(matches!(status.code(), Some(0 | 1)), "{call}={error}: {status}; it said:\n{log}");
    assert!(!log.contains("panicked"), "{call}={error}: {log}");
    assert!(status.success() || log.contains("ringyard: "), "{call}={error}: no word of why:\n{log}");
    Ok(())
}

#[test]
fn q07_system_calls_that_fail_are_said_or_survived() -> Result<()> {
    for (round, (call, _)) in SYSTEM_CALLS.iter().enumerate() {
        // Which error is of little account; each has its turn.
        start_without(call, ERRORS[round % ERRORS.len()].0)?;
    }
    Ok(())
}

#[test]
fn q07_want_of_descriptors_costs_others_nothing_and_ends_with_it() -> Result<()> {
    let mut limit = command("prlimit")?;
    limit.arg("--nofile=96:96");
    let mut switch = Switch::start_by(limit, &["--workers", "1"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = flowing(&mut switch, &hosts)?;
    let mut made = 0;
    let refused = loop {
        match switch.plug_listening(&format!("v{made}"), 0) {
            Ok(_) => made += 1,
            Err(error) => break error.to_string(),
        }
        assert!(made < 100, "there is a limit");
    };
    assert!(made > 0 && refused.contains("open files"), "{made} ports, then: {refused}");
    // Clients that cannot be accepted wait, and keep nobody busy.
    let clients: Vec<UnixStream> = (0..20).filter_map(|_| knock(&switch.monitor())).collect();
    let busy_before = switch.process().cpu_time("control")?;
    thread::sleep(Duration::from_secs(1));
    let busy = switch.process().cpu_time("control")? - busy_before;
    assert!(busy < Duration::from_millis(500), "control was busy for {busy:?} of a second");
    drop(clients);
    switch.order("netdev_del", json!({"id": "v0"}))?;
    switch.order("chardev-remove", json!({"id": "v0-chardev"}))?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "after", "hubid": 7}))?;
    unharmed(flow)?;
    switch.finish()
}

#[test]
fn q07_full_disk_ends_a_capture_and_nothing_else() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "1"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = flowing(&mut switch, &hosts)?;
    let object = json!({"qom-type": "filter-dump", "id": "f", "netdev": "t0", "file": "/dev/full"});
    // Refused, or ended by its first frames: both are well.
    let _ = switch.qmp().execute("object-add", object);
    thread::sleep(Duration::from_millis(500));
    unharmed(flow)?;
    switch.finish()
}

fn signal(switch: &Switch, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(switch.process().id().cast_signed()).ok_or_else(|| Error::new("no process"))?;
    kill_process(id, signal).doing("sending a signal")
}

#[test]
fn q08_signals_that_interrupt_every_call_cost_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "1"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = flowing(&mut switch, &hosts)?;
    for round in 0..300 {
        // Stopped for less time than a tap's queue lasts.
        signal(&switch, Signal::STOP)?;
        signal(&switch, Signal::CONT)?;
        for harmless in [Signal::PIPE, Signal::URG, Signal::WINCH] {
            signal(&switch, harmless)?;
        }
        if round % 10 == 0 {
            switch.stats()?;
        }
    }
    unharmed(flow)?;
    switch.finish()
}

#[test]
fn q08_switch_that_was_stopped_for_seconds_goes_on_without_a_storm() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "1"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    flowing(&mut switch, &hosts)?.finish()?;
    signal(&switch, Signal::STOP)?;
    thread::sleep(Duration::from_secs(3));
    signal(&switch, Signal::CONT)?;
    // The monitor answers, and in the next second nothing is made up for.
    switch.stats()?;
    let before = switch.process().cpu_time("")?;
    thread::sleep(Duration::from_secs(1));
    let busy = switch.process().cpu_time("")? - before;
    assert!(busy < Duration::from_millis(300), "busy for {busy:?} of an idle second");
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 2000 };
    let flow =
        Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config);
    thread::sleep(Duration::from_millis(300));
    unharmed(flow)?;
    switch.finish()
}

/// Descriptors and KiB of memory of its own.
fn holdings(switch: &Switch) -> Result<(usize, u64)> {
    let process = format!("/proc/{}", switch.process().id());
    let fds = std::fs::read_dir(format!("{process}/fd")).doing("listing descriptors")?.count();
    let status = std::fs::read_to_string(format!("{process}/status")).doing("reading a status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let memory = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    Ok((fds, memory.ok_or_else(|| Error::new("no RssAnon"))?))
}

fn come_and_go(switch: &mut Switch, rounds: usize) -> Result<()> {
    let long = "i".repeat(10_000);
    let qmp: &mut Qmp = switch.qmp();
    for round in 0..rounds {
        // Long ids may be refused, or taken; either way nothing is left of them.
        let id = if round % 10 == 0 { format!("{long}{round}") } else { format!("port{round}") };
        let added = qmp.execute("netdev_add", json!({"type": "hubport", "id": id, "hubid": round % 7}));
        let deleted = qmp.execute("netdev_del", json!({"id": id}));
        assert_eq!(added.is_ok(), deleted.is_ok(), "{added:?} {deleted:?}");
    }
    Ok(())
}

#[test]
fn q09_ports_that_come_and_go_leave_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "1"])?;
    come_and_go(&mut switch, 2000)?;
    let (fds, memory) = holdings(&switch)?;
    come_and_go(&mut switch, 6000)?;
    let (fds_after, memory_after) = holdings(&switch)?;
    println!("{memory} KiB after 2,000 ports, {memory_after} KiB after 8,000");
    assert!(fds_after <= fds, "{fds} descriptors, then {fds_after}");
    assert!(memory_after < memory + 4096, "{memory} KiB, then {memory_after} KiB");
    switch.finish()
}

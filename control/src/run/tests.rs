//! A whole run in this process, driven over its monitors' sockets.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::GuestConfig;
use ringyard_dataplane::worker::Mode;
use ringyard_drivers::chardev::SocketRole;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::cli::{LogLevel, MonitorConfig, Placement, RunConfig, SocketAccess};
use crate::wire::ChardevSpec;

mod fdb;
mod reload;

/// A run on a thread of its own. Dropping it ends it and looks for what it left behind.
struct Running {
    directory: TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start() -> Running {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let stopper = stopper();
        let control = Control::start(&config(directory.path()), stopper.clone());
        let control = control.expect("an empty switch can be started");
        Running { directory, stopper, thread: Some(thread::spawn(|| control.run())) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new client that has negotiated.
    fn client(&self) -> TestClient {
        let mut client = self.raw_client();
        assert_eq!(client.execute("qmp_capabilities", json!({})), Ok(json!({})));
        client
    }

    /// The same at another monitor.
    fn client_at(&self, monitor: &str) -> TestClient {
        let mut client = self.raw_client_at(monitor);
        assert_eq!(client.execute("qmp_capabilities", json!({})), Ok(json!({})));
        client
    }

    /// A new client that has seen the greeting.
    fn raw_client(&self) -> TestClient {
        self.raw_client_at("qmp")
    }

    fn raw_client_at(&self, monitor: &str) -> TestClient {
        let stream = UnixStream::connect(self.path(monitor)).expect("the monitor listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("20 s is a valid limit");
        let mut client = TestClient { lines: BufReader::new(stream), events: Vec::new() };
        assert_eq!(client.read()["QMP"]["capabilities"], json!(["oob"]));
        client
    }

    fn join(&mut self) {
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("control does not panic").expect("epoll works");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if self.thread.is_some() && !thread::panicking() {
            self.join();
            assert!(!self.path("qmp").exists(), "the monitor's socket is removed");
        }
    }
}

fn stopper() -> Stopper {
    Stopper::new().expect("an eventfd can be made")
}

struct TestClient {
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl TestClient {
    fn send(&mut self, bytes: &[u8]) {
        self.lines.get_mut().write_all(bytes).expect("the monitor reads");
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the monitor answers in time");
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// The next reply; events on the way are kept.
    fn reply(&mut self) -> Result<Value, String> {
        loop {
            let mut message = self.read();
            if message.get("event").is_some() {
                self.events.push(message);
                continue;
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            let error = &message["error"];
            return Err(format!(
                "{}: {}",
                error["class"].as_str().unwrap_or("?"),
                error["desc"].as_str().unwrap_or("?")
            ));
        }
    }

    fn execute(&mut self, name: &str, arguments: Value) -> Result<Value, String> {
        self.send(json!({"execute": name, "arguments": arguments}).to_string().as_bytes());
        self.reply()
    }

    fn done(&mut self, name: &str, arguments: Value) {
        assert_eq!(self.execute(name, arguments.clone()), Ok(json!({})), "{name} {arguments}");
    }

    fn add_chardev(&mut self, id: &str, path: &Path) {
        let addr = json!({"type": "unix", "data": {"path": path}});
        let backend = json!({"type": "socket", "data": {"addr": addr, "server": true}});
        self.done("chardev-add", json!({"id": id, "backend": backend}));
    }

    fn pass(&mut self, bytes: &[u8], fd: &impl AsFd) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let slices = [IoSlice::new(bytes)];
        let sent = sendmsg(self.lines.get_ref(), &slices, &mut ancillary, SendFlags::empty());
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// The next event of that name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at);
            }
            let message = self.read();
            self.events.push(message);
        }
    }

    fn is_closed(&mut self) -> bool {
        let mut line = String::new();
        loop {
            line.clear();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return true,
                Ok(_) if line.contains("\"event\"") => {
                    self.events.push(serde_json::from_str(&line).unwrap_or_default())
                }
                Ok(_) => return false,
            }
        }
    }
}

fn monitor(path: &Path) -> MonitorConfig {
    MonitorConfig::parse(&format!("unix:{},server=on,wait=off", path.display())).expect("it is well-formed")
}

fn config(directory: &Path) -> RunConfig {
    RunConfig {
        name: None,
        monitors: vec![monitor(&directory.join("qmp"))],
        chardevs: Vec::new(),
        netdevs: Vec::new(),
        objects: Vec::new(),
        hubs: Vec::new(),
        placement: Placement::Workers(1),
        mode: Mode::Adaptive,
        sockets: SocketAccess { group: None, mode: 0o600 },
        full_receiver: Default::default(),
        log_level: LogLevel::Info,
    }
}

#[test]
fn a_hub_is_built_shown_changed_and_taken_down_over_qmp() {
    let running = Running::start();
    let mut client = running.client();
    for number in 0..2 {
        let chardev = format!("c{number}");
        client.add_chardev(&chardev, &running.path(&chardev));
        let (netdev, nic, port) = (format!("n{number}"), format!("g{number}"), format!("h{number}"));
        client.done("netdev_add", json!({"type": "vhost-user", "id": netdev, "chardev": chardev}));
        client.done("netdev_add", json!({"type": "nic", "id": nic, "netdev": netdev}));
        client.done("netdev_add", json!({"type": "hubport", "id": port, "hubid": 0, "netdev": netdev}));
    }
    let netdevs = client.execute("query-netdev", json!({})).expect("it has no arguments");
    let n1 = json!({"id": "n1", "type": "vhost-user", "chardev": "c1", "queues": 1, "peer-id": "g1"});
    assert_eq!(netdevs[0], n1);
    let filters = client.execute("query-rx-filter", json!({})).expect("both nics have one");
    assert_eq!(filters[1]["main-mac"], "52:54:00:12:34:57");
    client.done("x-set-rx-filter", json!({"name": "g0", "vlan-table": [4]}));
    client.done("set_link", json!({"name": "n0", "up": false}));
    let stats = client.execute("x-query-stats", json!({})).expect("it needs no arguments");
    assert_eq!((&stats["ports"][0]["link"], &stats["ports"][0]["hub"]), (&json!(false), &json!(0)));
    assert_eq!((&stats["ports"][1]["link"], &stats["workers"][0]["cpu"]), (&json!(true), &Value::Null));
    let info = client.execute("human-monitor-command", json!({"command-line": "info network"}));
    let hub = "hub 0\r\n \\ h1: n1: index=0,type=vhost-user,vhost-user0 to c1\r\n";
    assert!(info.is_ok_and(|text| text.as_str().is_some_and(|text| text.starts_with(hub))));
    let chardevs = client.execute("query-chardev", json!({})).expect("it has no arguments");
    assert_eq!(chardevs[0]["frontend-open"], true);
    let busy = client.execute("chardev-remove", json!({"id": "c0"}));
    assert_eq!(busy, Err("GenericError: Chardev 'c0' is busy".into()));
    for id in ["h0", "g0", "n0"] {
        client.done("netdev_del", json!({"id": id}));
    }
    client.done("chardev-remove", json!({"id": "c0"}));
    let gone = client.execute("netdev_del", json!({"id": "n0"}));
    assert_eq!(gone, Err("DeviceNotFound: Device 'n0' not found".into()));
}

#[test]
fn commands_come_in_pieces_or_many_at_once() {
    let running = Running::start();
    let mut client = running.client();
    for byte in br#"{"execute":"query-status"}"# {
        client.send(&[*byte]);
    }
    assert_eq!(client.reply().map(|status| status["running"].clone()), Ok(json!(true)));
    client.send(&br#"{"execute":"query-version"}"#.repeat(50));
    for _ in 0..50 {
        assert!(client.reply().is_ok());
    }
}

#[test]
fn clients_negotiate_and_are_answered_each_for_itself() {
    let running = Running::start();
    let (mut one, mut two) = (running.client(), running.raw_client());
    let early = two.execute("query-status", json!({}));
    assert_eq!(
        early,
        Err("CommandNotFound: Expecting capabilities negotiation with 'qmp_capabilities'".into())
    );
    one.done("netdev_add", json!({"type": "hubport", "id": "h0", "hubid": 1}));
    two.done("qmp_capabilities", json!({}));
    let taken = two.execute("netdev_add", json!({"type": "hubport", "id": "h0", "hubid": 1}));
    assert_eq!(taken, Err("GenericError: Duplicate ID 'h0'".into()));
}

#[test]
fn the_human_monitor_prints_what_went_wrong() {
    let running = Running::start();
    let mut client = running.client();
    let mut hmp = |line: &str| client.execute("human-monitor-command", json!({"command-line": line}));
    assert_eq!(hmp("netdev_add hubport,id=h0,hubid=0"), Ok(json!("")));
    assert_eq!(hmp("netdev_add hubport,id=h0,hubid=0"), Ok(json!("Error: Duplicate ID 'h0'\r\n")));
    assert_eq!(hmp("set_link h0 off"), Ok(json!("")));
    assert_eq!(hmp("set_link h1 off"), Ok(json!("Error: Device 'h1' not found\r\n")));
    assert_eq!(hmp("netdev_del h0"), Ok(json!("")));
    assert_eq!(hmp("bogus"), Ok(json!("unknown command: 'bogus'\r\n")));
}

#[test]
fn a_passed_descriptor_gets_a_name_that_use_consumes() {
    let running = Running::start();
    let mut client = running.client();
    let nothing = client.execute("getfd", json!({"fdname": "a"}));
    assert_eq!(nothing, Err("GenericError: No file descriptor supplied via SCM_RIGHTS".into()));
    let file = tempfile::tempfile().expect("the temporary directory is writable");
    client.pass(br#"{"execute":"getfd","arguments":{"fdname":"a"}}"#, &file);
    assert_eq!(client.reply(), Ok(json!({})));
    drop(client);
    let mut next = running.client();
    let tap = json!({"type": "tap", "id": "t0", "fd": "a"});
    let no_tap = next.execute("netdev_add", tap.clone()).expect_err("a file is no tap");
    assert!(no_tap.starts_with("GenericError: Unable to query TUNGETIFF on FD "), "{no_tap}");
    let gone = "GenericError: File descriptor named 'a' has not been found";
    assert_eq!(next.execute("netdev_add", tap), Err(gone.into()));
    assert!(next.execute("closefd", json!({"fdname": "a"})).is_err());
}

#[test]
fn sets_of_descriptors_outlive_their_client_but_not_the_last_one() {
    let running = Running::start();
    let (mut client, mut other) = (running.client(), running.client());
    let file = tempfile::tempfile().expect("the temporary directory is writable");
    client.pass(br#"{"execute":"add-fd","arguments":{"fdset-id":7,"opaque":"hi"}}"#, &file);
    let added = client.reply().expect("a descriptor came along");
    assert_eq!(added["fdset-id"], 7);
    drop(client);
    let sets = json!([{"fdset-id": 7, "fds": [{"fd": added["fd"], "opaque": "hi"}]}]);
    assert_eq!(other.execute("query-fdsets", json!({})), Ok(sets));
    // The number is one of this process, so any option that takes a descriptor takes it.
    let tap = json!({"type": "tap", "id": "t0", "fd": added["fd"].to_string()});
    let no_tap = other.execute("netdev_add", tap).expect_err("a file is no tap");
    assert!(no_tap.starts_with("GenericError: Unable to query TUNGETIFF on FD "), "{no_tap}");
    drop(other);
    let mut next = running.client();
    while next.execute("query-fdsets", json!({})) != Ok(json!([])) {
        // The switch saw the new client before the old one's end.
        drop(next);
        next = running.client();
    }
}

#[test]
fn quit_says_goodbye_to_everybody() {
    let mut running = Running::start();
    let (mut one, mut two) = (running.client(), running.client());
    one.add_chardev("c0", &running.path("c0"));
    one.done("netdev_add", json!({"type": "vhost-user", "id": "n0", "chardev": "c0"}));
    one.done("quit", json!({}));
    assert!(one.is_closed() && two.is_closed());
    for client in [&one, &two] {
        assert_eq!(client.events[0]["event"], "SHUTDOWN");
        assert_eq!(client.events[0]["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    }
    running.join();
    assert!(!running.path("c0").exists() && !running.path("qmp").exists());
}

#[test]
fn q03_a_client_that_does_not_read_delays_nobody() {
    let running = Running::start();
    let (mut deaf, mut other) = (running.client(), running.client());
    deaf.lines.get_mut().set_nonblocking(true).expect("it is a socket");
    let flood = br#"{"execute":"query-commands"}"#.repeat(1000);
    let mut written = 0;
    while let Ok(count) = deaf.lines.get_mut().write(&flood) {
        written += count;
        assert!(written < 64 << 20, "control stops reading");
    }
    assert!(other.execute("query-status", json!({})).is_ok());
}

#[test]
fn clients_are_limited() {
    let running = Running::start();
    let clients: Vec<TestClient> = (0..CLIENTS_MAX).map(|_| running.client()).collect();
    let stream = UnixStream::connect(running.path("qmp")).expect("the monitor listens");
    let mut turned_away = TestClient { lines: BufReader::new(stream), events: Vec::new() };
    assert!(turned_away.is_closed());
    drop(clients);
}

#[test]
fn a_guest_that_comes_and_goes_is_seen_and_does_not_touch_its_link() {
    let running = Running::start();
    let mut client = running.client();
    client.add_chardev("c0", &running.path("c0"));
    client.done("netdev_add", json!({"type": "vhost-user", "id": "n0", "chardev": "c0"}));
    client.done("set_link", json!({"name": "n0", "up": false}));
    for _ in 0..3 {
        let guest =
            FrontEnd::connect(&running.path("c0"), &GuestConfig::default()).expect("the port answers");
        let event = client.event("NETDEV_VHOST_USER_CONNECTED");
        assert_eq!(event["data"], json!({"netdev-id": "n0", "chardev-id": "c0"}));
        let stats = client.execute("x-query-stats", json!({"name": "n0"})).expect("n0 is a port");
        let port = &stats["ports"][0];
        assert_eq!((&port["link"], &port["carrier"]), (&json!(false), &json!(true)));
        let running = json!({"index": 0, "worker": 0, "ingress-ring": "running", "egress-ring": "running"});
        assert_eq!(port["queues"], json!([running]));
        drop(guest);
        assert_eq!(client.event("NETDEV_VHOST_USER_DISCONNECTED")["data"], json!({"netdev-id": "n0"}));
    }
    client.done("netdev_del", json!({"id": "n0"}));
    client.done("chardev-remove", json!({"id": "c0"}));
    client.add_chardev("c0", &running.path("c0"));
}

/// A tap whose script waits until it is released; `None`, with a word on why, where there can be no taps.
struct SlowTap {
    ifname: String,
    script: PathBuf,
    release: PathBuf,
}

impl SlowTap {
    fn new(running: &Running, ifname: &str) -> Option<SlowTap> {
        let tun = std::fs::File::options().write(true).open("/dev/net/tun");
        if tun.is_err() || !rustix::process::geteuid().is_root() {
            eprintln!("not run: this needs root and /dev/net/tun");
            return None;
        }
        let (script, release) = (running.path("ifup"), running.path("release"));
        write_script(&script, &format!("while [ ! -e {} ]; do sleep 0.05; done", release.display()));
        Some(SlowTap { ifname: format!("{ifname}{}", std::process::id()), script, release })
    }

    fn begin(&self, client: &mut TestClient) {
        let tap = self.options("t0", &self.script);
        client.send(json!({"execute": "netdev_add", "arguments": tap}).to_string().as_bytes());
    }

    fn options(&self, id: &str, script: &Path) -> Value {
        json!({"type": "tap", "id": id, "ifname": self.ifname, "script": script, "downscript": "no"})
    }

    fn release(&self) {
        std::fs::write(&self.release, "").expect("the directory is ours");
    }
}

fn write_script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("the directory is ours");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
}

/// Returns once the id `t0` is taken, which it is as soon as its command has begun.
fn await_taken(client: &mut TestClient) {
    let hubport = json!({"type": "hubport", "id": "t0", "hubid": 0});
    while client.execute("netdev_add", hubport.clone()).is_ok() {
        client.done("netdev_del", json!({"id": "t0"}));
    }
}

#[test]
fn a_script_that_sleeps_delays_only_its_own_client() {
    let running = Running::start();
    let Some(tap) = SlowTap::new(&running, "rya") else { return };
    let (mut slow, mut other) = (running.client(), running.client());
    tap.begin(&mut slow);
    await_taken(&mut other);
    for _ in 0..100 {
        assert_eq!(other.execute("query-netdev", json!({})), Ok(json!([])));
    }
    tap.release();
    assert_eq!(slow.reply(), Ok(json!({})));
    slow.done("netdev_del", json!({"id": "t0"}));
    slow.done("netdev_add", tap.options("t1", Path::new("no")));
}

#[test]
fn a_command_completes_though_its_client_leaves() {
    let running = Running::start();
    let Some(tap) = SlowTap::new(&running, "ryb") else { return };
    let (mut slow, mut other) = (running.client(), running.client());
    tap.begin(&mut slow);
    await_taken(&mut other);
    drop(slow);
    tap.release();
    while other.execute("query-netdev", json!({})) == Ok(json!([])) {}
    other.done("netdev_del", json!({"id": "t0"}));
}

#[test]
fn taps_are_closed_with_their_downscripts_at_the_end() {
    let mut running = Running::start();
    let Some(tap) = SlowTap::new(&running, "ryc") else { return };
    let (downscript, trace) = (running.path("ifdown"), running.path("trace"));
    write_script(&downscript, &format!("echo $1 >> {}", trace.display()));
    let mut client = running.client();
    let mut options = tap.options("t0", Path::new("no"));
    options["downscript"] = json!(downscript);
    client.done("netdev_add", options.clone());
    client.done("netdev_del", json!({"id": "t0"}));
    let ran = || std::fs::read_to_string(&trace).unwrap_or_default();
    assert_eq!(ran(), format!("{}\n", tap.ifname), "it ran before the reply");
    client.done("netdev_add", options);
    // One that is still being opened is closed as well.
    let mut second = tap.options("t1", &tap.script);
    (second["ifname"], second["downscript"]) = (json!(format!("{}x", tap.ifname)), json!(downscript));
    client.send(json!({"execute": "netdev_add", "arguments": second}).to_string().as_bytes());
    running.client().done("quit", json!({}));
    tap.release();
    running.join();
    assert!(ran().lines().count() >= 2, "{}", ran());
    assert!(!Path::new("/sys/class/net").join(&tap.ifname).exists());
}

#[test]
fn a_start_that_fails_names_the_option_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let mut config = config(directory.path());
    config.monitors.push(monitor(&directory.path().join("no/such/place")));
    let why = Control::start(&config, stopper()).err().expect("there is no such directory");
    assert!(why.starts_with("-qmp unix:") && why.contains("no/such/place"), "{why}");
    assert!(!directory.path().join("qmp").exists());
    config.placement = Placement::Cores(vec![1023]);
    let why = Control::start(&config, stopper()).err().expect("there are not so many cores");
    assert!(why.starts_with("--cores: core 1023 is not ours to use"), "{why}");
}

#[test]
fn a_start_that_is_stopped_while_something_opens_leaves_nothing() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let mut config = config(directory.path());
    let path = directory.path().join("c0");
    config.chardevs.push(ChardevSpec { id: "c0".into(), path: path.clone(), role: SocketRole::Server });
    let stopper = stopper();
    stopper.stop();
    let why = Control::start(&config, stopper).err();
    // What is quicker than the look at the stopper is made, and taken down like everything else.
    let expected = "told to stop while this was being opened";
    assert!(why.as_ref().is_none_or(|why| why.ends_with(expected)), "{why:?}");
    assert!(!path.exists() && !directory.path().join("qmp").exists());
}

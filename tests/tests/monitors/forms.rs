//! Each form of `-qmp`, with clients as other programs are.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Stdio;

use ringyard_tests::Result;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::Process;
use ringyard_tests::switch::Switch;
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use super::{Client, Killed, PATIENCE, good, make_nic, over_tcp, over_unix, refused, ringyard, tcp_place};

#[test]
fn a_monitor_on_tcp_is_one_like_any_other() -> Result<()> {
    let switch = Switch::start(&[
        "-qmp",
        "tcp:127.0.0.1:0,server=on,wait=off",
        "-qmp",
        "tcp:[::1]:0,server=on,wait=off",
        "-qmp",
        "tcp:localhost:0,server,nowait",
    ])?;
    for number in 0..3 {
        let place = tcp_place(&switch, number)?;
        let mut client = over_tcp(TcpStream::connect(&place).expect(&place));
        client.is_served();
        for asked in [json!({"execute": "getfd", "arguments": {"fdname": "a"}}), json!({"execute": "add-fd"})]
        {
            client.send(&asked.to_string());
            let desc = "No file descriptor supplied via SCM_RIGHTS";
            assert_eq!(client.next()["error"]["desc"], desc, "nothing passes descriptors here");
        }
    }
    assert!(!switch.process().log().contains("WARN"), "nobody else can come");
    switch.finish()
}

#[test]
fn whoever_lets_others_in_is_warned() -> Result<()> {
    let switch = Switch::start(&["-qmp", "tcp::0,server=on,wait=off"])?;
    let place = tcp_place(&switch, 0)?;
    let (_, port) = place.rsplit_once(':').expect("it has a port");
    for host in ["127.0.0.1", "[::1]"] {
        over_tcp(good(TcpStream::connect(format!("{host}:{port}")))).is_served();
    }
    let log = switch.process().log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("no authentication"), "{log}");
    switch.finish()
}

#[test]
fn a_monitor_has_an_abstract_name_too() -> Result<()> {
    let name = format!("ringyard-test-{}", std::process::id());
    let switch = Switch::start(&["-qmp", &format!("unix:{name},abstract=on,server=on,wait=off")])?;
    let stream = wait_for("the monitor", PATIENCE, || {
        Ok(UnixStream::connect_addr(&good(SocketAddr::from_abstract_name(&name))).ok())
    })?;
    over_unix(stream).is_served();
    switch.finish()
}

#[test]
fn a_monitor_on_stdio_tells_events_after_its_last_command() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let other = directory.path().join("other");
    let other = format!("unix:{},server=on,wait=off", other.display());
    let mut ringyard = ringyard(&["-qmp", "stdio", "-qmp", &other, "-log-level", "error"])?;
    let mut child = Killed(good(ringyard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()));
    let writer = child.0.stdin.take().expect("it is a pipe");
    let lines = BufReader::new(child.0.stdout.take().expect("it is a pipe"));
    let mut client = Client { lines, writer }.greeted();
    client.is_served();
    // The end of its commands is neither the end of the run nor that of what it is told.
    let Client { mut lines, writer } = client;
    drop(writer);
    let mut other = over_unix(wait_for("the other monitor", PATIENCE, || {
        Ok(UnixStream::connect(directory.path().join("other")).ok())
    })?);
    other.is_served();
    assert_eq!(other.ask("quit", json!({})), json!({"return": {}}));
    let mut rest = String::new();
    good(lines.read_to_string(&mut rest));
    let event: Value = serde_json::from_str(&rest).expect("it is one event");
    assert_eq!((&event["event"], &event["data"]["reason"]), (&json!("SHUTDOWN"), &json!("host-qmp-quit")));
    assert!(good(child.0.wait()).success());
    Ok(())
}

#[test]
fn commands_may_come_from_a_file_and_replies_go_to_one() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let (commands, replies) = (directory.path().join("commands"), directory.path().join("replies"));
    let hubport = json!({"execute": "netdev_add", "arguments": {"type": "hubport", "id": "h", "hubid": 0}});
    let text =
        format!("{}\n{hubport}\n{}\n", json!({"execute": "qmp_capabilities"}), json!({"execute": "quit"}));
    good(std::fs::write(&commands, text));
    let mut child = ringyard(&["-qmp", "stdio", "-log-level", "error"])?;
    let (from, to) = (good(File::open(&commands)), good(File::create(&replies)));
    assert!(good(child.stdin(from).stdout(to).status()).success());
    let replies = good(std::fs::read_to_string(&replies));
    let kinds: Vec<&str> = replies.lines().filter_map(|line| line.get(2..6)).collect();
    assert_eq!(kinds, ["QMP\"", "retu", "retu", "retu", "time"], "{replies}");
    Ok(())
}

#[test]
fn stdio_is_for_one_monitor() -> Result<()> {
    let said = refused(&["-qmp", "stdio", "-qmp", "stdio"])?;
    assert!(said.contains("there is a monitor already"), "{said}");
    Ok(())
}

/// Lets children inherit a descriptor of ours; its number.
fn inheritable(fd: impl AsFd) -> String {
    let fd = fd.as_fd();
    good(fcntl_setfd(fd, FdFlags::empty()));
    format!("fd:{}", fd.as_raw_fd())
}

#[test]
fn an_inherited_socket_listens_or_is_connected() -> Result<()> {
    let listener = good(TcpListener::bind("127.0.0.1:0"));
    let (ours, theirs) = good(UnixStream::pair());
    let places = [inheritable(&listener), inheritable(&theirs)];
    let mut ringyard = ringyard(&["-qmp", &places[0], "-qmp", &places[1]])?;
    let child = Killed(good(ringyard.stderr(Stdio::null()).spawn()));
    drop(theirs);
    let mut connected = over_unix(ours);
    connected.is_served();
    for _ in 0..2 {
        over_tcp(good(TcpStream::connect(good(listener.local_addr())))).is_served();
    }
    // What we hang up on is hung up on there, though the number that they inherited stays open.
    good(connected.writer.shutdown(std::net::Shutdown::Write));
    assert_eq!(connected.next(), Value::Null);
    over_tcp(good(TcpStream::connect(good(listener.local_addr())))).is_served();
    child.end();
    Ok(())
}

#[test]
fn what_is_inherited_must_be_of_use() -> Result<()> {
    let file = good(tempfile::tempfile());
    let place = inheritable(&file);
    assert!(refused(&["-qmp", &place])?.contains("the file descriptor is not a socket"));
    assert!(refused(&["-qmp", "fd:977"])?.contains("Can't use file descriptor 977: Bad file descriptor"));
    Ok(())
}

#[test]
fn a_monitor_that_connects_does_so_again_after_a_pause() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let path = directory.path().join("manager");
    let switch = Switch::start(&["-qmp", &format!("unix:{},reconnect-ms=50", path.display())])?;
    // Nobody was there at first.
    let listener = good(UnixListener::bind(&path));
    for _ in 0..3 {
        over_unix(good(listener.accept()).0).is_served();
    }
    // Nor is there for a while; a name that nobody knows is waited for as well.
    drop(listener);
    good(std::fs::remove_file(&path));
    let listener = good(UnixListener::bind(&path));
    over_unix(good(listener.accept()).0).is_served();
    let warnings = switch.process().log().matches("a monitor has no client").count();
    assert!((1..=3).contains(&warnings), "{}", switch.process().log());
    switch.finish()
}

#[test]
fn a_monitor_that_connects_without_a_pause_does_so_once() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let listener = good(TcpListener::bind("127.0.0.1:0"));
    let place = format!("tcp:{}", good(listener.local_addr()));
    let mut switch = Switch::start(&["-qmp", &place])?;
    over_tcp(good(listener.accept()).0).is_served();
    good(listener.set_nonblocking(true));
    for _ in 0..20 {
        good(switch.qmp().execute("query-status", json!({})));
        assert!(listener.accept().is_err(), "the monitor is idle");
    }
    switch.finish()?;
    let nowhere = format!("unix:{}", directory.path().join("nobody").display());
    let said = refused(&["-qmp", &nowhere])?;
    assert!(said.contains("Failed to connect to") && said.contains("server=on,wait=off"), "{said}");
    Ok(())
}

#[test]
fn a_start_can_wait_for_a_client() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let path = directory.path().join("monitor");
    let place = format!("unix:{},server=on,wait=on", path.display());
    let mut process = Process::start("ringyard", ringyard(&["-qmp", &place])?, directory.path())?;
    process.wait_for_sockets(std::slice::from_ref(&path), PATIENCE)?;
    process.wait_for_log("a word of waiting", 0, PATIENCE, |log| {
        log.contains("waiting for a client").then_some(())
    })?;
    assert!(!process.log().contains("ready"));
    let mut client = over_unix(good(UnixStream::connect(&path)));
    client.is_served();
    process.wait_for_log("the start", 0, PATIENCE, |log| log.contains("ready").then_some(()))?;
    assert!(process.terminate(PATIENCE)?.success());
    assert_eq!(client.next()["event"], "SHUTDOWN");

    let mut process = Process::start("ringyard", ringyard(&["-qmp", &place])?, directory.path())?;
    process.wait_for_log("a word of waiting", 0, PATIENCE, |log| {
        log.contains("waiting for a client").then_some(())
    })?;
    process.terminate(PATIENCE)?;
    assert!(!path.exists(), "whoever is told to stop while it waits leaves nothing");
    Ok(())
}

#[test]
fn people_can_read_what_a_pretty_monitor_says() -> Result<()> {
    let directory = good(tempfile::tempdir());
    let path = directory.path().join("pretty");
    let switch = Switch::start(&["-qmp-pretty", &format!("unix:{},server=on,wait=off", path.display())])?;
    let mut stream = wait_for("the monitor", PATIENCE, || Ok(UnixStream::connect(&path).ok()))?;
    good(stream.write_all(b"{'execute':'qmp_capabilities'}{'execute':'nope'}"));
    good(stream.shutdown(std::net::Shutdown::Write));
    let mut said = String::new();
    good(stream.read_to_string(&mut said));
    let messages: Vec<Value> =
        serde_json::Deserializer::from_str(&said).into_iter().map(|it| it.expect("JSON")).collect();
    assert_eq!(messages.len(), 3);
    assert!(said.contains("\r\n    \"error\": {\r\n        \"class\": \"CommandNotFound\",\r\n"), "{said}");
    switch.finish()
}

#[test]
fn clients_of_every_monitor_hear_of_events_once_they_have_negotiated() -> Result<()> {
    let listener = good(TcpListener::bind("127.0.0.1:0"));
    let caller = format!("tcp:{},reconnect=1", good(listener.local_addr()));
    let mut switch = Switch::start(&["-qmp", "tcp:127.0.0.1:0,server=on,wait=off", "-qmp", &caller])?;
    let mut called = over_tcp(good(listener.accept()).0);
    let mut tcp = over_tcp(good(TcpStream::connect(tcp_place(&switch, 0)?)));
    let mut unix = over_unix(good(UnixStream::connect(switch.monitor())));
    let mut silent = over_unix(good(UnixStream::connect(switch.monitor())));
    called.negotiate();
    tcp.negotiate();
    unix.negotiate();
    make_nic(&mut switch);
    good(switch.qmp().execute("x-set-rx-filter", json!({"name": "g", "promiscuous": true})));
    for event in [called.next(), tcp.next(), unix.next()] {
        assert_eq!((&event["event"], &event["data"]["name"]), (&json!("NIC_RX_FILTER_CHANGED"), &json!("g")));
    }
    assert_eq!(
        silent.ask("qmp_capabilities", json!({})),
        json!({"return": {}}),
        "it was told nothing before"
    );
    switch.finish()
}

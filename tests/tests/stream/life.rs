//! Peers that come, go, and come again; sockets that are passed; what stays of a port that is deleted.

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::Doing;
use ringyard_tests::netns::Netns;
use ringyard_tests::probe::Probe;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Error, Result};
use serde_json::{Value, json};

use crate::bench::{PATIENCE, SILENCE, Station, frame, info, plug, unix, wait_info};

const CONNECTED: &str = "NETDEV_STREAM_CONNECTED";
const DISCONNECTED: &str = "NETDEV_STREAM_DISCONNECTED";

fn wait_no_carrier(switch: &mut Switch, name: &str) -> Result<()> {
    let gone = |stats: &ringyard_tests::stats::Stats| stats.port(name).is_some_and(|port| !port.carrier);
    switch.wait_stats(&format!("the carrier of {name} to go"), PATIENCE, gone).map(drop)
}

fn accept(listener: &UnixListener) -> Result<Station<UnixStream>> {
    listener.set_nonblocking(true).doing("setting up a listener")?;
    let stream = wait_for("the port to connect", PATIENCE, || Ok(listener.accept().ok()))?.0;
    stream.set_nonblocking(false).doing("setting up a stream")?;
    Ok(Station::new(stream))
}

#[test]
fn server_serves_one_peer_and_then_the_one_that_waited() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let path = switch.path("port.sock");
    plug(&mut switch, "port", 0, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
    let mut first = Station::connect(&path)?;
    switch.wait_carrier("port", PATIENCE)?;
    let mut second = Station::connect(&path)?;
    second.send(&frame(2, 0, 100))?;
    first.send(&frame(1, 0, 100))?;
    station.expect(&frame(1, 0, 100))?;
    assert_eq!(station.receive(SILENCE)?, None, "the second is not served yet");
    station.send(&frame(3, 0, 60))?;
    first.expect(&frame(3, 0, 60))?;
    drop(first);
    // What it sent while it waited was kept.
    station.expect(&frame(2, 0, 100))?;
    station.send(&frame(3, 1, 60))?;
    second.expect(&frame(3, 1, 60))?;
    drop(second);
    wait_info(&mut switch, "port", "listening")?;
    for event in [CONNECTED, CONNECTED, DISCONNECTED, CONNECTED, DISCONNECTED] {
        let event = switch.qmp().wait_event(event, PATIENCE)?;
        let name = event["data"]["netdev-id"].as_str().unwrap_or_default();
        assert!(name == "port" || name == "station", "{event}");
    }
    Ok(())
}

#[test]
fn client_connects_again_if_it_is_told_to() -> Result<()> {
    for (number, reconnect) in [json!({"reconnect-ms": 20}), json!({"reconnect": 1})].into_iter().enumerate()
    {
        let mut switch = Switch::start(&[])?;
        let mut station = Station::plug(&mut switch, "station", 0)?;
        let path = switch.path("peer.sock");
        let mut netdev = json!({"type": "stream", "addr": unix(&path)});
        netdev.as_object_mut().expect("it is one").extend(reconnect.as_object().expect("it is one").clone());
        plug(&mut switch, "port", 0, netdev)?;
        assert_eq!(info(&mut switch, "port")?, "connecting");
        for round in 0..3 - number as u64 {
            let listener = UnixListener::bind(&path).doing("listening")?;
            let mut peer = accept(&listener)?;
            drop(listener);
            std::fs::remove_file(&path).doing("removing a socket")?;
            switch.wait_carrier("port", PATIENCE)?;
            wait_info(&mut switch, "port", &format!("unix:{}", path.display()))?;
            station.send(&frame(1, round, 60))?;
            peer.expect(&frame(1, round, 60))?;
            peer.send(&frame(2, round, 1514))?;
            station.expect(&frame(2, round, 1514))?;
            drop(peer);
            wait_info(&mut switch, "port", "connecting")?;
            wait_no_carrier(&mut switch, "port")?;
        }
    }
    Ok(())
}

#[test]
fn client_that_is_not_told_to_connects_once() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let path = switch.path("peer.sock");
    let listener = UnixListener::bind(&path).doing("listening")?;
    plug(&mut switch, "port", 0, json!({"type": "stream", "addr": unix(&path)}))?;
    drop(accept(&listener)?);
    switch.qmp().wait_event(DISCONNECTED, PATIENCE)?;
    wait_no_carrier(&mut switch, "port")?;
    assert_eq!(info(&mut switch, "port")?, format!("unix:{}", path.display()), "as QEMU has it");
    std::thread::sleep(SILENCE);
    assert!(listener.accept().is_err(), "it came again");
    Ok(())
}

#[test]
fn kill_of_a_qemu_takes_the_carrier_down_and_the_next_one_brings_it_back() -> Result<()> {
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let path = switch.path("port.sock");
    plug(&mut switch, "port", 0, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
    wait_info(&mut switch, "port", "listening")?;
    for round in 0..2 {
        let mut probe = Probe::start(&netns)?;
        probe.plug(&json!({"type": "stream", "addr": unix(&path)}))?;
        switch.wait_carrier("port", PATIENCE)?;
        station.send(&frame(1, round, 60))?;
        assert_eq!(probe.receive(PATIENCE)?, Some(frame(1, round, 60)));
        probe.process().kill()?;
        wait_no_carrier(&mut switch, "port")?;
        wait_info(&mut switch, "port", "listening")?;
        station.send(&frame(1, 9, 60))?;
        switch.wait_stats("a frame that nobody takes", PATIENCE, |stats| {
            let drops = stats.port("station").map(|port| &port.ingress.drops);
            drops.is_some_and(|drops| drops.get("no_receiver") == Some(&(round + 1)))
        })?;
    }
    Ok(())
}

#[test]
fn link_that_is_down_stays_down_whoever_connects() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let path = switch.path("port.sock");
    plug(&mut switch, "port", 0, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
    switch.order("set_link", json!({"name": "port", "up": false}))?;
    let mut peer = Station::connect(&path)?;
    let stats = switch.wait_carrier("port", PATIENCE)?;
    assert_eq!(stats.port("port").map(|port| port.link), Some(false));
    station.send(&frame(1, 0, 60))?;
    peer.send(&frame(2, 0, 60))?;
    assert_eq!((peer.receive(SILENCE)?, station.receive(SILENCE)?), (None, None));
    switch.order("set_link", json!({"name": "port", "up": true}))?;
    station.send(&frame(1, 1, 60))?;
    peer.expect(&frame(1, 1, 60))
}

#[test]
fn port_that_is_deleted_leaves_nothing_and_says_nothing() -> Result<()> {
    let mut switch = Switch::start(&["--socket-mode", "0620"])?;
    let (path, port) = (switch.path("port.sock"), json!({"type": "inet", "host": "127.0.0.1", "port": "0"}));
    for round in 0..20 {
        let netdev = json!({"type": "stream", "server": true, "addr": unix(&path)});
        plug(&mut switch, "port", 0, netdev)?;
        wait_info(&mut switch, "port", "listening")?;
        let file = std::fs::metadata(&path).doing("looking at the socket")?;
        assert!(file.file_type().is_socket());
        assert_eq!(file.mode() & 0o777, 0o620);
        let mut peer = Station::connect(&path)?;
        switch.qmp().wait_event(CONNECTED, PATIENCE)?;
        switch.unplug("port")?;
        assert!(!path.exists(), "round {round}");
        peer.expect_end()?;
    }
    plug(&mut switch, "port", 0, json!({"type": "stream", "server": true, "addr": port}))?;
    wait_info(&mut switch, "port", "listening")?;
    assert!(switch.qmp().take_events().iter().all(|event| event["event"] != DISCONNECTED));
    Ok(())
}

#[test]
fn socket_that_nobody_listens_at_is_replaced_and_another_is_waited_for() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let path = switch.path("port.sock");
    drop(UnixListener::bind(&path).doing("leaving a socket behind")?);
    let netdev = json!({"type": "stream", "server": true, "addr": unix(&path)});
    plug(&mut switch, "port", 0, netdev.clone())?;
    wait_info(&mut switch, "port", "listening")?;
    switch.unplug("port")?;
    let other = UnixListener::bind(&path).doing("listening")?;
    plug(&mut switch, "port", 0, netdev)?;
    let text = format!("error: Failed to bind socket to {}: Address already in use", path.display());
    wait_info(&mut switch, "port", &text)?;
    drop(other);
    std::fs::remove_file(&path).doing("removing a socket")?;
    wait_info(&mut switch, "port", "listening")
}

fn pass(switch: &mut Switch, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    switch.qmp().execute_with_fds("getfd", json!({"fdname": name}), &[fd]).doing("passing a socket").map(drop)
}

#[test]
fn sockets_that_are_passed_are_ports() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let given = json!({"type": "stream", "addr": {"type": "fd", "str": "s"}});
    for netdev in [given.clone(), json!({"type": "socket", "fd": "s"})] {
        let (ours, theirs) = UnixStream::pair().doing("making a pair")?;
        pass(&mut switch, "s", ours.as_fd())?;
        drop(ours);
        plug(&mut switch, "given", 0, netdev.clone())?;
        switch.wait_carrier("given", PATIENCE)?;
        match netdev["type"].as_str() {
            Some("stream") => {
                wait_info(&mut switch, "given", "unix:")?;
                let addr = json!({"type": "unix", "path": ""});
                let expected = json!({"netdev-id": "given", "addr": addr});
                wait_event_of(&mut switch, "given", &expected)?;
            }
            _ => assert!(info(&mut switch, "given")?.starts_with("socket: fd=")),
        }
        let mut peer = Station::new(theirs);
        station.send(&frame(1, 0, 65_000))?;
        peer.expect(&frame(1, 0, 65_000))?;
        peer.send(&frame(2, 0, 65_000))?;
        station.expect(&frame(2, 0, 65_000))?;
        drop(peer);
        wait_no_carrier(&mut switch, "given")?;
        switch.unplug("given")?;
    }
    let path = switch.path("theirs.sock");
    let listener = UnixListener::bind(&path).doing("listening")?;
    pass(&mut switch, "s", listener.as_fd())?;
    drop(listener);
    let mut netdev = given;
    netdev["server"] = true.into();
    plug(&mut switch, "given", 0, netdev)?;
    wait_info(&mut switch, "given", "listening")?;
    for number in 0..2 {
        let mut peer = Station::connect(&path)?;
        peer.send(&frame(3, number, 60))?;
        station.expect(&frame(3, number, 60))?;
        let addr = unix(&path);
        wait_event_of(&mut switch, "given", &json!({"netdev-id": "given", "addr": addr}))?;
    }
    Ok(())
}

fn wait_event_of(switch: &mut Switch, name: &str, data: &Value) -> Result<()> {
    loop {
        let event = switch.qmp().wait_event(CONNECTED, PATIENCE)?;
        if event["data"]["netdev-id"] == name {
            assert!(event["data"] == *data, "{event} {data}");
            return Ok(());
        }
    }
}

#[test]
fn what_cannot_be_a_stream_says_so() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let given = json!({"type": "stream", "addr": {"type": "fd", "str": "s"}});
    let file = std::fs::File::open("/dev/null").doing("opening a file")?;
    let datagrams = std::os::unix::net::UnixDatagram::unbound().doing("making a socket")?;
    let alone = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)
        .doing("making a socket")?;
    for (fd, text) in [
        (file.as_fd(), "error: the file descriptor is not a socket"),
        (datagrams.as_fd(), "error: the file descriptor is not a stream socket"),
        (alone.as_fd(), "error: the file descriptor is not connected: Transport endpoint is not connected"),
    ] {
        pass(&mut switch, "s", fd)?;
        plug(&mut switch, "given", 0, given.clone())?;
        wait_info(&mut switch, "given", text)?;
        switch.unplug("given")?;
    }
    Ok(())
}

#[test]
fn streams_of_the_command_line_and_of_a_file_are_there_from_the_start() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let file = directory.path().join("ringyard.toml");
    let text = "[[netdev]]\ntype = \"stream\"\nid = \"a\"\nserver = true\naddr = { type = \"unix\", path = \"a.sock\" }\n\
                [[netdev]]\ntype = \"hubport\"\nid = \"pa\"\nhubid = 0\nnetdev = \"a\"\n";
    std::fs::write(&file, text).doing("writing the configuration")?;
    let file = file.display().to_string();
    let mut switch = Switch::start(&[
        "-c",
        &file,
        "-netdev",
        "stream,id=b,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=17290,addr.to=17299",
        "-netdev",
        "hubport,id=pb,hubid=0,netdev=b",
    ])?;
    let mut a = Station::connect(&switch.path("a.sock"))?;
    let stream = wait_for("the port to listen", PATIENCE, || {
        Ok((17290..=17299).find_map(|port| TcpStream::connect(("127.0.0.1", port)).ok()))
    })?;
    let mut b = Station::new(stream);
    for name in ["a", "b"] {
        switch.wait_carrier(name, PATIENCE)?;
    }
    a.send(&frame(1, 0, 600))?;
    b.expect(&frame(1, 0, 600))?;
    b.send(&frame(2, 0, 600))?;
    a.expect(&frame(2, 0, 600))?;
    switch.finish()
}

#[test]
fn range_of_ports_is_searched_for_a_free_one() -> Result<()> {
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let addr = json!({"type": "inet", "host": "127.0.0.1", "port": "7000", "to": 7001});
    for name in ["a", "b", "c"] {
        plug(&mut switch, name, 0, json!({"type": "stream", "server": true, "addr": addr}))?;
        let full = "error: Failed to find an available port: Address already in use";
        wait_info(&mut switch, name, if name == "c" { full } else { "listening" })?;
    }
    let connect = |port| netns.enter(move || TcpStream::connect(("127.0.0.1", port)).doing("connecting"));
    let (mut a, mut b) = (Station::new(connect(7000)?), Station::new(connect(7001)?));
    for name in ["a", "b"] {
        switch.wait_carrier(name, PATIENCE)?;
    }
    a.send(&frame(1, 0, 60))?;
    b.expect(&frame(1, 0, 60))?;
    // The first goes, and the one that found no place has its.
    switch.unplug("a")?;
    a.expect_end()?;
    wait_info(&mut switch, "c", "listening")?;
    let mut c = Station::new(connect(7000)?);
    switch.wait_carrier("c", PATIENCE)?;
    b.send(&frame(2, 0, 60))?;
    c.expect(&frame(2, 0, 60))?;
    match c.receive(Duration::from_millis(1))? {
        None => Ok(()),
        Some(_) => Err(Error::new("a frame came twice")),
    }
}

//! QEMU's own netdevs at the other end, and its words.

use ringyard_tests::Result;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::Netns;
use ringyard_tests::probe::Probe;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

use crate::bench::{PATIENCE, Station, frame, info, plug, state, wait_info};

fn inet(host: &str, port: &str) -> Value {
    json!({"type": "inet", "host": host, "port": port})
}

fn listening(addr: &Value) -> Value {
    json!({"type": "stream", "server": true, "addr": addr})
}

fn connecting(addr: &Value) -> Value {
    json!({"type": "stream", "addr": addr})
}

/// Plugs in QEMU, which is to listen, and waits until it does: it looks names up on a thread of its own first.
fn plug_listening(probe: &mut Probe, netns: &Netns, server: &Value) -> Result<()> {
    probe.plug(server)?;
    let addr = &server["addr"];
    let pair = server["listen"].as_str().and_then(|pair| pair.rsplit(':').next());
    let port = addr["port"].as_str().or(pair).map(|port| format!(":{port} "));
    let place = port.or(addr["path"].as_str().map(String::from)).unwrap_or_default();
    wait_for(&format!("QEMU to listen at {place}"), PATIENCE, || {
        Ok(netns.run("ss -Hlnxt")?.contains(&place).then_some(()))
    })
}

fn socket(form: &str, pair: &str) -> Value {
    json!({"type": "socket", form: pair})
}

/// From the shortest that carries a number to the longest that an IP packet can be in, and a VLAN tag.
const LENGTHS: [usize; 9] = [22, 60, 63, 64, 65, 1514, 9014, 65_535, 65_553];

/// Sends frames of all lengths both ways.
fn exchange(station: &mut Station<std::os::unix::net::UnixStream>, probe: &Probe) -> Result<()> {
    for (number, len) in (0..).zip(LENGTHS) {
        let (to, from) = (frame(1, number, len), frame(2, number, len));
        station.send(&to)?;
        assert!(probe.receive(PATIENCE)?.as_ref() == Some(&to), "{len} bytes to QEMU");
        probe.send(&from)?;
        station.expect(&from)?;
    }
    Ok(())
}

#[test]
fn frames_of_all_lengths_pass_to_and_from_qemu_whoever_listens() -> Result<()> {
    let netns = Netns::new()?;
    // QEMU looks a family up only where the host has more of it than loopback addresses.
    netns.bring_up("lo", &["10.0.0.1/24", "fd00::1/64"])?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let path = switch.path("s").display().to_string();
    let abstract_name =
        |tight: bool| json!({"type": "unix", "path": "ringyard", "abstract": true, "tight": tight});
    let addresses = [
        json!({"type": "unix", "path": path}),
        inet("127.0.0.1", "7001"),
        inet("::1", "7002"),
        json!({"type": "inet", "host": "127.0.0.1", "port": "7003", "ipv4": true, "ipv6": false}),
        abstract_name(true),
        abstract_name(false),
    ];
    let streams = addresses.iter().map(|address| (listening(address), connecting(address)));
    let sockets = [
        (socket("listen", ":7004"), socket("connect", "127.0.0.1:7004")),
        (socket("listen", "127.0.0.1:7005"), connecting(&inet("127.0.0.1", "7005"))),
        (listening(&inet("", "7006")), socket("connect", "127.0.0.1:7006")),
    ];
    for (server, client) in streams.chain(sockets) {
        plug(&mut switch, "port", 0, server.clone())?;
        // QEMU does not try again.
        let text = if server["type"] == "stream" { "listening" } else { "" };
        wait_info(&mut switch, "port", text)?;
        probe.plug(&client)?;
        switch.wait_carrier("port", PATIENCE)?;
        exchange(&mut station, &probe)?;
        probe.unplug()?;
        wait_info(&mut switch, "port", text)?;
        switch.unplug("port")?;

        plug_listening(&mut probe, &netns, &server)?;
        let mut client = client;
        if client["type"] == "stream" {
            client["reconnect-ms"] = 20.into();
        }
        plug(&mut switch, "port", 0, client.clone())?;
        switch.wait_carrier("port", PATIENCE)?;
        exchange(&mut station, &probe)?;
        if client["type"] == "stream" {
            assert_eq!(client, without_id(&switch.order("query-netdev", json!({}))?[0]));
        }
        switch.unplug("port")?;
        probe.unplug()?;
    }
    switch.finish()
}

fn without_id(netdev: &Value) -> Value {
    let mut netdev = netdev.clone();
    netdev.as_object_mut().expect("it is one").retain(|name, _| name != "id" && name != "peer-id");
    netdev
}

#[test]
fn connections_are_called_as_qemu_calls_them() -> Result<()> {
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    let path = switch.path("s").display().to_string();
    let unix = json!({"type": "unix", "path": path});
    for addr in [unix, json!({"type": "unix", "path": "name", "abstract": true, "tight": true})] {
        // The same on both sides, whichever is ours.
        for ours_listens in [true, false] {
            let sides = [listening(&addr), connecting(&addr)];
            let (ours, theirs) = if ours_listens { (&sides[0], &sides[1]) } else { (&sides[1], &sides[0]) };
            if ours_listens {
                plug(&mut switch, "port", 0, ours.clone())?;
                wait_info(&mut switch, "port", "listening")?;
                probe.plug(theirs)?;
            } else {
                plug_listening(&mut probe, &netns, theirs)?;
                plug(&mut switch, "port", 0, ours.clone())?;
            }
            let event = switch.qmp().wait_event("NETDEV_STREAM_CONNECTED", PATIENCE)?;
            assert_eq!(event["data"], json!({"netdev-id": "port", "addr": addr}));
            assert_eq!(info(&mut switch, "port")?, state(&probe.info()?, "n0")?);
            probe.unplug()?;
            let event = switch.qmp().wait_event("NETDEV_STREAM_DISCONNECTED", PATIENCE)?;
            assert_eq!(event["data"], json!({"netdev-id": "port"}));
            switch.unplug("port")?;
        }
    }
    for host in ["127.0.0.1", "::1"] {
        let addr = inet(host, "7001");
        let family = if host == "::1" { "ipv6" } else { "ipv4" };
        plug(&mut switch, "port", 0, listening(&addr))?;
        wait_info(&mut switch, "port", "listening")?;
        probe.plug(&connecting(&addr))?;
        let event = switch.qmp().wait_event("NETDEV_STREAM_CONNECTED", PATIENCE)?;
        let port = event["data"]["addr"]["port"].as_str().unwrap_or_default().to_owned();
        assert_eq!(event["data"]["addr"], json!({"type": "inet", "host": host, "port": port, family: true}));
        assert_eq!(info(&mut switch, "port")?, format!("tcp:{host}:{port}"));
        probe.unplug()?;
        switch.unplug("port")?;

        plug_listening(&mut probe, &netns, &listening(&addr))?;
        plug(&mut switch, "port", 0, connecting(&addr))?;
        let event = switch.qmp().wait_event("NETDEV_STREAM_CONNECTED", PATIENCE)?;
        assert_eq!(
            event["data"]["addr"],
            json!({"type": "inet", "host": host, "port": "7001", family: true})
        );
        assert_eq!(info(&mut switch, "port")?, format!("tcp:{host}:7001"));
        switch.unplug("port")?;
        probe.unplug()?;
    }
    // Those of our own end are told by nobody.
    while let Ok(event) = switch.qmp().receive(std::time::Duration::from_millis(1)) {
        assert_ne!(event["event"], "NETDEV_STREAM_CONNECTED");
    }
    Ok(())
}

#[test]
fn socket_speaks_of_itself_as_qemu_does() -> Result<()> {
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    plug(&mut switch, "port", 0, socket("listen", "127.0.0.1:7001"))?;
    assert_eq!(info(&mut switch, "port")?, "");
    probe.plug(&socket("connect", "127.0.0.1:7001"))?;
    wait_for("the peer to be named", PATIENCE, || {
        let text = info(&mut switch, "port")?;
        Ok(text.starts_with("socket: connection from 127.0.0.1:").then_some(()))
    })?;
    probe.unplug()?;
    wait_info(&mut switch, "port", "")?;
    switch.unplug("port")?;

    plug_listening(&mut probe, &netns, &socket("listen", "127.0.0.1:7001"))?;
    plug(&mut switch, "port", 0, socket("connect", "127.0.0.1:7001"))?;
    assert_eq!(info(&mut switch, "port")?, "socket: connect to 127.0.0.1:7001");
    switch.wait_carrier("port", PATIENCE)?;
    probe.unplug()?;
    wait_info(&mut switch, "port", "")?;
    assert!(switch.qmp().take_events().is_empty(), "a socket has no events");
    // The same words for the same mistakes.
    for members in [
        json!({"listen": "7001"}),
        json!({"listen": ":x"}),
        json!({"listen": "10.9.9.9:1"}),
        json!({"listen": "1x:1"}),
        json!({"connect": "::1:1"}),
        json!({"connect": "127.0.0.1:1", "localaddr": "127.0.0.1"}),
        json!({"connect": "255.255.255.255:1"}),
        json!({"fd": "7x"}),
        json!({"fd": "nobody"}),
        json!({}),
    ] {
        let mut netdev = members.clone();
        netdev["type"] = "socket".into();
        let theirs = probe.plug(&netdev).expect_err("QEMU refuses it").to_string();
        netdev["id"] = "n0".into();
        let ours = switch.qmp().execute("netdev_add", netdev).expect_err("we do").desc;
        assert!(theirs.contains(&ours), "{members}: {ours:?} is not in {theirs:?}");
    }
    Ok(())
}

#[test]
fn whatever_is_wrong_with_an_address_is_shown_and_answered_by_nothing() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let long = "/x".repeat(60);
    for (members, text) in [
        (
            connecting(&inet("127.0.0.1", "1")),
            "error: Failed to connect to '127.0.0.1:1': Connection refused".to_owned(),
        ),
        (
            connecting(&json!({"type": "inet", "host": "no name", "port": "1", "numeric": true})),
            "error: address resolution failed for no name:1: Name or service not known".into(),
        ),
        (
            connecting(&json!({"type": "inet", "host": "", "port": "1", "ipv4": false, "ipv6": false})),
            "error: Cannot disable IPv4 and IPv6 at same time".into(),
        ),
        (
            connecting(&json!({"type": "unix", "path": "/no/such"})),
            "error: Failed to connect to '/no/such': No such file or directory".into(),
        ),
        (
            listening(&json!({"type": "unix", "path": long})),
            format!("error: UNIX socket path '{long}' is too long"),
        ),
        (listening(&json!({"type": "unix", "path": ""})), "error: UNIX socket path is empty".into()),
        (
            listening(&inet("10.9.9.9", "1")),
            "error: Failed to bind socket: Cannot assign requested address".into(),
        ),
        (
            connecting(&json!({"type": "fd", "str": "nobody"})),
            "error: File descriptor named 'nobody' has not been found".into(),
        ),
        (
            connecting(&json!({"type": "fd", "str": "7x"})),
            "error: Invalid file descriptor number '7x'".into(),
        ),
        (
            connecting(&json!({"type": "vsock", "cid": "x", "port": "1"})),
            "error: Failed to parse cid 'x'".into(),
        ),
    ] {
        plug(&mut switch, "port", 0, members)?;
        wait_info(&mut switch, "port", &text)?;
        switch.unplug("port")?;
    }
    Ok(())
}

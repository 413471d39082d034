//! QEMU's own netdevs at the other end, and its words for what is wrong.

use ringyard_tests::Result;
use ringyard_tests::error::Doing;
use ringyard_tests::netns::Netns;
use ringyard_tests::probe::Probe;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

use crate::bench::{ARRIVAL_TIME_MAX, SILENCE, Station, frame, info, line_of, network, plug};

fn inet(host: &str, port: &str) -> Value {
    json!({"type": "inet", "host": host, "port": port})
}

fn unix(path: &str) -> Value {
    json!({"type": "unix", "path": path})
}

fn fd(number: &str) -> Value {
    json!({"type": "fd", "str": number})
}

/// Lengths from the shortest frame to the longest datagram of UDP.
const LENGTHS: [usize; 7] = [22, 60, 64, 1514, 9014, 65_000, 65_507];

#[test]
fn frames_of_all_lengths_pass_to_and_from_qemu() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    let station = Station::plug(&mut switch, "station", 0)?;
    let path = |name: &str| switch.path(name).display().to_string();
    let (ours, theirs) = (path("ours"), path("theirs"));
    let socket = |udp: &str, localaddr: &str| json!({"type": "socket", "udp": udp, "localaddr": localaddr});
    let dgram = |local: Value, remote: Value| json!({"type": "dgram", "local": local, "remote": remote});
    let group = json!({"type": "dgram", "remote": inet("230.0.0.1", "1234")});
    let by_interface = dgram(inet("10.0.0.1", "0"), inet("230.0.0.1", "1234"));
    let old_group = json!({"type": "socket", "mcast": "230.0.0.1:1234"});
    for (ours, theirs) in [
        (
            dgram(inet("127.0.0.1", "1001"), inet("localhost", "1002")),
            dgram(inet("localhost", "1002"), inet("127.0.0.1", "1001")),
        ),
        (dgram(inet("", "1003"), inet("10.0.0.1", "1004")), socket("10.0.0.1:1003", "10.0.0.1:1004")),
        (socket("127.0.0.1:1005", ":1006"), socket("127.0.0.1:1006", "127.0.0.1:1005")),
        (dgram(unix(&ours), unix(&theirs)), dgram(unix(&theirs), unix(&ours))),
        (group.clone(), group.clone()),
        (by_interface, old_group.clone()),
        (old_group, group),
    ] {
        plug(&mut switch, "port", 0, ours.clone())?;
        probe.plug(&theirs)?;
        for (number, len) in (0..).zip(LENGTHS) {
            let (to, from) = (frame(1, number, len), frame(2, number, len));
            station.send(&to)?;
            assert_eq!(probe.receive(ARRIVAL_TIME_MAX)?.as_ref(), Some(&to), "{len} bytes from {ours}");
            probe.send(&from)?;
            station.expect(&from)?;
            // QEMU hears what it sends to a group itself.
            let is_group = theirs.to_string().contains("230.0.0.1");
            assert_eq!(
                probe.receive(if is_group { ARRIVAL_TIME_MAX } else { SILENCE / 10 })?,
                is_group.then_some(from)
            );
        }
        assert_eq!(station.receive(SILENCE)?, None, "and nobody hears more than that");
        switch.unplug("port")?;
        probe.unplug()?;
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_said_in_qemus_words() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    let here = switch.path("").display().to_string();
    let group = || inet("230.0.0.1", "1234");
    let both = |local: Value, remote: Value| json!({"type": "dgram", "local": local, "remote": remote});
    let local = |local: Value| json!({"type": "dgram", "local": local});
    let remote = |remote: Value| json!({"type": "dgram", "remote": remote});
    let vsock = || json!({"type": "vsock", "cid": "1", "port": "1"});
    for members in [
        json!({"type": "dgram"}),
        json!({"type": "dgram", "remote": {"type": "unix"}}),
        json!({"type": "dgram", "local": 1}),
        json!({"type": "dgram", "udp": "x"}),
        remote(inet("127.0.0.1", "1")),
        remote(inet("230.0.0.1", "abc")),
        remote(inet("::1", "12")),
        remote(unix("/x")),
        local(inet("127.0.0.1", "1")),
        local(unix("a")),
        local(vsock()),
        local(fd("nosuch")),
        local(fd("9x")),
        local(fd("99")),
        both(fd("99"), unix("x")),
        both(vsock(), vsock()),
        both(inet("", "1"), vsock()),
        both(unix("a"), inet("", "9")),
        both(inet("127.0.0.1", ""), inet("127.0.0.1", "13")),
        both(inet("1.2.3.4.5", "1"), inet("127.0.0.1", "13")),
        both(inet("10.9.9.9", "1"), inet("127.0.0.1", "13")),
        both(inet("abc", "1"), group()),
        both(inet("", "1"), group()),
        both(inet("10.9.9.9", "1"), group()),
        both(unix("x"), group()),
        both(vsock(), group()),
        both(unix(&here), unix("b")),
        both(unix("/no/such/directory"), unix("b")),
        json!({"type": "socket", "udp": "127.0.0.1:5"}),
        json!({"type": "socket", "udp": "5", "localaddr": "127.0.0.1:6"}),
        json!({"type": "socket", "udp": "127.0.0.1:x", "localaddr": "y"}),
        json!({"type": "socket", "udp": "127.0.0.1:5", "localaddr": "10.9.9.9:5"}),
        json!({"type": "socket", "mcast": "230.0.0.1"}),
        json!({"type": "socket", "mcast": "127.0.0.1:1234"}),
        json!({"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "x"}),
        json!({"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "10.9.9.9"}),
        json!({"type": "socket", "fd": "99"}),
    ] {
        let mut netdev = members.clone();
        netdev["id"] = "n0".into();
        let error = switch.qmp().execute("netdev_add", netdev).expect_err(&members.to_string());
        let theirs = probe.plug(&members).expect_err(&members.to_string()).to_string();
        assert!(theirs.ends_with(&error.to_string()), "{members}: {error} for {theirs}");
        assert!(info(&mut switch, "n0").is_err(), "{members} leaves nothing behind");
    }
    Ok(())
}

#[test]
fn what_is_shown_is_what_qemu_shows() -> Result<()> {
    let netns = network()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    let mut probe = Probe::start(&netns)?;
    let path = switch.path("socket").display().to_string();
    let dgram = |local: Value, remote: Value| json!({"type": "dgram", "local": local, "remote": remote});
    for members in [
        dgram(inet("127.0.0.1", "18100"), inet("localhost", "18101")),
        dgram(inet("127.1", "013"), inet("127.0.0.1", "0x50")),
        dgram(inet("", "70000"), inet("", "-1")),
        dgram(unix(&path), unix("b")),
        dgram(unix(&path), unix("")),
        dgram(inet("127.1", "1"), inet("230.0.0.1", "1234")),
        json!({"type": "dgram", "remote": inet("230.0.0.1", "1234")}),
        json!({"type": "socket", "udp": "127.0.0.1:5", "localaddr": "127.0.0.1:6"}),
        json!({"type": "socket", "mcast": "230.0.0.1:1234"}),
    ] {
        plug(&mut switch, "n0", 0, members.clone())?;
        probe.plug(&members)?;
        assert_eq!(info(&mut switch, "n0")?, line_of(&probe.info()?, "n0")?, "{members}");
        let mut shown = members;
        shown["id"] = "n0".into();
        assert!(known(&mut switch)?.contains(&shown), "{shown} can be fed back");
        switch.unplug("n0")?;
        probe.unplug()?;
    }
    // Where QEMU shows one address twice, ours are the real ones.
    plug(&mut switch, "n0", 0, dgram(inet("127.0.0.1", "18100"), inet("127.0.0.2", "18101")))?;
    assert_eq!(info(&mut switch, "n0")?, "type=dgram,udp=127.0.0.1:18100/127.0.0.2:18101");
    Ok(())
}

/// The backends as `query-netdev` has them.
fn known(switch: &mut Switch) -> Result<Vec<Value>> {
    let mut known = switch.order("query-netdev", json!({}))?;
    let netdevs = known.as_array_mut().map(std::mem::take).unwrap_or_default();
    let bare = |mut netdev: Value| {
        if let Some(members) = netdev.as_object_mut() {
            members.remove("peer-id");
        }
        netdev
    };
    Ok(netdevs.into_iter().map(bare).collect())
}

#[test]
fn configuration_file_plugs_datagram_netdevs_too() -> Result<()> {
    let netns = network()?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let file = directory.path().join("switch.toml");
    let text = r#"
        [[netdev]]
        type = "dgram"
        id = "a"
        local = { type = "inet", host = "10.0.0.1", port = "0" }
        remote = { type = "inet", host = "230.0.0.1", port = "1234" }

        [[netdev]]
        type = "socket"
        id = "b"
        mcast = "230.0.0.1:1235"
        localaddr = "10.0.0.1"
    "#;
    std::fs::write(&file, text).doing("writing a configuration")?;
    let mut switch = Switch::start_in(&netns, &["--config", &file.display().to_string()])?;
    assert_eq!(info(&mut switch, "a")?, "type=dgram,mcast=230.0.0.1:1234");
    assert_eq!(info(&mut switch, "b")?, "type=socket,socket: mcast=230.0.0.1:1235");
    Ok(())
}

#[test]
fn command_line_plugs_datagram_netdevs_too() -> Result<()> {
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(
        &netns,
        &[
            "-netdev",
            "dgram,id=a,local.type=inet,local.host=127.0.0.1,local.port=1,remote.type=inet,remote.host=127.0.0.1,remote.port=2",
            "-netdev",
            "hubport,id=ha,hubid=0,netdev=a",
            "-netdev",
            "socket,id=b,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
        ],
    )?;
    assert_eq!(info(&mut switch, "a")?, "type=dgram,udp=127.0.0.1:1/127.0.0.1:2");
    assert_eq!(info(&mut switch, "b")?, "type=socket,socket: udp=127.0.0.1:1");
    Ok(())
}

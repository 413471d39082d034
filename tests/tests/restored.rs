//! A switch that is killed, and comes back as it was: `ringyard run --keep`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_tests::flow::{Flow, FlowConfig, FlowReport, silences};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::{Value, json};

/// Frames a second.
const RATE: u32 = 2000;
const KILLS: usize = 100;
/// Frames that the switch has read and not yet written when it is killed: a burst, at most.
const BURST: u64 = 64;
/// Of the time from a kill to the next frame that passes, half of them.
const GAP_MEDIAN_MAX: Duration = Duration::from_millis(100);
/// One that has lived for so long did not die at once, for its keeper.
const LIFE: Duration = Duration::from_millis(120);

/// A flow from the first tap to the second. What is sent while nobody reads waits in the first one's queue, for 5 s.
fn flow(hosts: &[Netns; 2]) -> Result<Flow> {
    hosts[0].ip("link set t0 txqueuelen 10000")?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: RATE };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config))
}

/// Kills it so often under a flow, and checks that nothing but what was on its way is lost; the median of the gaps.
fn kill_again_and_again(
    switch: &mut Switch,
    hosts: &[Netns; 2],
    kills: usize,
) -> Result<(FlowReport, Duration)> {
    let flow = flow(hosts)?;
    let mut moments = Vec::new();
    for _ in 0..kills {
        switch.kill_under_keeper()?;
        moments.push(Instant::now());
        switch.reconnect()?;
        thread::sleep(LIFE);
    }
    let (report, arrivals) = flow.finish_with_arrivals()?;
    let mut gaps = silences(&arrivals, &moments);
    gaps.sort_unstable();
    let (median, longest) = (gaps[kills / 2], gaps[kills - 1]);
    println!(
        "{kills} kills: {report:?}; gap: median {median:?}, shortest {:?}, longest {longest:?}",
        gaps[0]
    );
    println!("all gaps: {gaps:?}");
    assert!(report.lost() <= kills as u64 * BURST, "{report:?}");
    assert!(report.doubled <= kills as u64 * BURST && report.overtaken <= report.doubled, "{report:?}");
    Ok((report, median))
}

#[test]
fn killed_a_hundred_times_it_goes_on_between_two_taps() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    // What else the machine does may take more time than we do: then once more.
    let mut medians = Vec::new();
    for kills in [KILLS, KILLS / 4, KILLS / 4] {
        let (report, median) = kill_again_and_again(&mut switch, &hosts, kills)?;
        let stats = switch.stats()?;
        let port = stats.port("t0").expect("it was added, and is there");
        assert!(port.ingress.frames + port.uncertain >= report.sent - report.lost(), "{port:?}");
        medians.push(median);
        if median <= GAP_MEDIAN_MAX {
            return switch.finish();
        }
    }
    panic!("half of the gaps are longer than {GAP_MEDIAN_MAX:?}: {medians:?}");
}

/// What of a switch a restart must not change.
fn state(switch: &mut Switch) -> Result<Value> {
    let mut netdevs = switch.order("query-netdev", json!({}))?;
    // A listener for guests has no guest yet, and says so once it is asked to.
    for netdev in netdevs.as_array_mut().into_iter().flatten() {
        netdev.as_object_mut().into_iter().for_each(|netdev| drop(netdev.remove("info")));
    }
    let addresses = switch.order("x-query-fdb", json!({"hubid": 3}))?;
    let of_good = |entry: &&Value| entry["static"] == true;
    let addresses = addresses["entries"].as_array().into_iter().flatten().filter(of_good);
    let addresses: Vec<[&Value; 2]> = addresses.map(|entry| [&entry["mac"], &entry["netdev"]]).collect();
    Ok(json!({
        "addresses": addresses,
        "config": switch.order("x-query-config", json!({}))?,
        "filters": switch.order("query-rx-filter", json!({}))?,
        "chardevs": switch.order("query-chardev", json!({}))?,
        "netdevs": netdevs,
        "network": switch.order("human-monitor-command", json!({"command-line": "info network"}))?,
    }))
}

fn links(switch: &mut Switch) -> Result<Vec<(String, bool, u64)>> {
    let stats = switch.stats()?;
    Ok(stats.ports.iter().map(|port| (port.name.clone(), port.link, port.ingress.frames)).collect())
}

#[test]
fn what_was_made_and_set_over_qmp_is_as_it_was() -> Result<()> {
    let file = std::env::temp_dir().join(format!("ry-restart-{}.toml", std::process::id()));
    fs::write(&file, "[[netdev]]\ntype = 'hubport'\nid = 'configured'\nhubid = 7\n").doing("writing it")?;
    let path = file.display().to_string();
    let directory = tempfile::tempdir().doing("making a directory")?;
    let (script, witness) = (directory.path().join("ifup"), directory.path().join("ran"));
    let may_run = script.display().to_string();
    let options = ["--keep", "--workers", "2", "-c", &path, "--may-run", &may_run];
    let mut switch = Switch::start(&[&options[..], &["-netdev", "hubport,id=given,hubid=8"]].concat())?;
    let host = Netns::new()?;
    fs::write(&script, format!("#!/bin/sh\necho $1 >> {}\n", witness.display())).doing("writing a script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).doing("making it executable")?;
    let name = format!("ry-up-{}", std::process::id() % 100_000);
    for (command, arguments) in [
        (
            "netdev_add",
            json!({"type": "tap", "id": "up", "ifname": name, "script": script, "downscript": "no"}),
        ),
        ("netdev_add", json!({"type": "hubport", "id": "p-up", "hubid": 3, "netdev": "up"})),
        ("netdev_add", json!({"type": "nic", "id": "n-up", "netdev": "up"})),
        ("x-set-hub", json!({"hubid": 3, "ageing": 77})),
        ("x-set-hub", json!({"hubid": 4, "learning": false})),
        ("x-set-worker", json!({"netdev": "up", "worker": 1})),
        ("x-fdb-add", json!({"hubid": 3, "mac": "52:54:00:00:00:77", "netdev": "up"})),
        (
            "x-set-rx-filter",
            json!({"name": "n-up", "unicast": "all", "main-mac": "52:54:00:00:00:42",
            "vlan-table": [4, 8], "multicast-table": ["01:00:5e:00:00:01"]}),
        ),
        ("set_link", json!({"name": "p-up", "up": false})),
        ("netdev_add", json!({"type": "tap", "id": "gone", "script": "no", "downscript": "no"})),
        ("netdev_add", json!({"type": "nic", "id": "n-gone", "netdev": "gone"})),
        ("netdev_del", json!({"id": "gone"})),
        ("netdev_del", json!({"id": "given"})),
    ] {
        switch.order(command, arguments)?;
    }
    switch.plug_tap("t0", 3, &host, &[])?;
    let socket = switch.plug_listening("guest", 3)?;
    switch.plug_nic("guest", "52:54:00:00:00:07")?;
    let dump = switch.path("t0.pcap");
    switch
        .order("object-add", json!({"qom-type": "filter-dump", "id": "f0", "netdev": "t0", "file": dump}))?;
    switch.order("qom-set", json!({"path": "/objects/f0", "property": "status", "value": "off"}))?;
    let (before, counted) = (state(&mut switch)?, links(&mut switch)?);
    let (interface, dumped) =
        (fs::read_to_string(format!("/sys/class/net/{name}/ifindex")), fs::metadata(&dump));
    for _ in 0..3 {
        switch.kill_under_keeper()?;
        switch.reconnect()?;
        thread::sleep(LIFE);
        let after = state(&mut switch)?;
        for (what, was) in before.as_object().into_iter().flatten() {
            assert_eq!(&after[what], was, "{what}");
        }
        for ((name, link, frames), (_, was_up, were)) in links(&mut switch)?.into_iter().zip(&counted) {
            assert!(link == *was_up && frames >= *were, "{name}: {link} {frames}, it was {was_up} {were}");
        }
    }
    let stats = switch.stats()?;
    let queues = &stats.port("up").expect("it was added, and is there").queues;
    assert_eq!(queues[0].worker, Some(1), "{queues:?}");
    assert!(socket.exists());
    assert_eq!(
        fs::read_to_string(&witness).doing("reading what the script wrote")?.trim(),
        name,
        "it ran once"
    );
    assert_eq!(
        fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).doing("looking for the tap")?,
        interface.doing("looking for the tap")?
    );
    assert!(
        fs::metadata(&dump).doing("looking for the dump")?.len() >= dumped.doing("looking for it")?.len()
    );
    // What came of the file belongs to it still.
    fs::write(&file, "").doing("writing it")?;
    let report = switch.order("x-reload", json!({}))?;
    fs::remove_file(&file).doing("removing it")?;
    assert_eq!(report["deleted"], json!(["netdev.configured"]), "{report}");
    switch.finish()
}

#[test]
fn what_could_not_be_kept_is_opened_again_and_keeps_nobody_waiting() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let path = switch.path("stream").display().to_string();
    let address = json!({"type": "unix", "path": path});
    switch.order("netdev_add", json!({"type": "stream", "id": "stream", "server": true, "addr": address}))?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "p", "hubid": 0, "netdev": "stream"}))?;
    let (_, median) = kill_again_and_again(&mut switch, &hosts, 5)?;
    println!("median {median:?}");
    assert!(switch.path("stream").exists(), "the stream listens again");
    let line = switch.info("stream")?;
    assert!(line.starts_with("index=0,type=stream,listening"), "{line}");
    switch.finish()
}

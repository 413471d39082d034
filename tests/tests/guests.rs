//! Real Linux guests on the switch: with each other, with a third party on a tap, through filters, and coming back.

use std::time::Duration;

use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result};
use serde_json::json;

/// A pair of guests on hub 0, each with a nic of its address, booted.
fn two_guests(slot: &Slot, switch: &mut Switch) -> Result<(Guest, Guest)> {
    let mut guests = Vec::new();
    for number in [1, 2] {
        let name = format!("vm{number}");
        let socket = switch.plug_listening(&name, 0)?;
        let config = GuestConfig::new(number, NetAttach::connect(socket));
        switch.plug_nic(&name, &config.mac)?;
        guests.push(Guest::start(slot, config)?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    let second = guests.pop().expect("two were pushed");
    let first = guests.pop().expect("two were pushed");
    Ok((first, second))
}

#[test]
fn two_guests_and_a_tap_ping_and_run_iperf3_all_at_once() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let host = Netns::new()?;
    switch.plug_tap("t0", 0, &host, &["10.0.0.100/24", "fd00::100/64"])?;
    let (mut first, mut second) = two_guests(&slot, &mut switch)?;

    let no_loss = " 0% packet loss";
    for ping in ["ping -c 10 -i 0.1 10.0.0.2", "ping -6 -c 10 -i 0.1 fd00::2", "ping -c 3 10.0.0.100"] {
        let report = first.expect(ping)?;
        assert!(report.contains(no_loss), "{report}");
    }
    for ping in ["ping -c 10 -i 0.1 10.0.0.1", "ping -6 -c 10 -i 0.1 fd00::2"] {
        let report = host.run(ping)?;
        assert!(report.contains(no_loss), "{report}");
    }

    let server = second.spawn("iperf3 -s -1")?;
    second.expect("until netstat -lnt | grep -q :5201; do sleep 0.1; done")?;
    let pings = second.spawn("ping -c 20 -i 0.2 10.0.0.100")?;
    let client = first.spawn("iperf3 -c 10.0.0.2 -t 4")?;
    let report = host.run("ping -c 20 -i 0.2 -W 5 10.0.0.1")?;
    assert!(report.contains(no_loss), "{report}");
    let client = first.wait(&client, Duration::from_secs(30))?;
    assert!(client.status == 0 && client.stdout.contains("receiver"), "{client:?}");
    assert_eq!(second.wait(&server, Duration::from_secs(10))?.status, 0);
    let pings = second.wait(&pings, Duration::from_secs(30))?;
    assert!(pings.stdout.contains(no_loss), "{pings:?}");
    switch.finish()
}

#[test]
fn unicast_for_one_guest_never_reaches_the_ring_of_another() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let host = Netns::new()?;
    switch.plug_tap("t0", 0, &host, &["10.0.0.100/24"])?;
    let (mut first, mut second) = two_guests(&slot, &mut switch)?;
    host.run("ping -c 1 -W 5 10.0.0.1")?;

    let before = (second.counter("eth0", "rx_packets")?, switch.stats()?);
    let config = FlowConfig {
        destination: [0x52, 0x54, 0, 0, 0, 1],
        source: host.mac("t0")?,
        length: 100,
        rate: 2000,
    };
    let from = PacketSocket::open(&host, "t0")?;
    let sent_before = first.counter("eth0", "rx_packets")?;
    let report = Flow::start(from, PacketSocket::open(&host, "t0")?, config);
    first.expect("sleep 2")?;
    let report = report.finish()?;
    assert!(report.sent > 1000, "{report:?}");
    let received = first.counter("eth0", "rx_packets")? - sent_before;
    assert!(received >= report.sent, "{received} of {} frames", report.sent);

    let offered =
        |stats: &ringyard_tests::stats::Stats| stats.port("vm2").map_or(0, |port| port.egress.offered);
    let stray = offered(&switch.stats()?) - offered(&before.1);
    let seen = second.counter("eth0", "rx_packets")? - before.0;
    assert!(stray < 20 && seen < 20, "{stray} offered and {seen} seen: more than the odd broadcast");
    switch.finish()
}

#[test]
fn nic_that_admits_vlan_4_does_not_see_vlan_5() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let (mut first, mut second) = two_guests(&slot, &mut switch)?;
    switch.order("x-set-rx-filter", json!({"name": "vm2-nic", "vlan": "normal", "vlan-table": [4]}))?;
    for (guest, host) in [(&mut first, 1), (&mut second, 2)] {
        for vlan in [4, 5] {
            guest.expect(&format!("ip link add link eth0 name eth0.{vlan} type vlan id {vlan}"))?;
            guest.expect(&format!(
                "ip link set eth0.{vlan} up; ip addr add 10.{vlan}.0.{host}/24 dev eth0.{vlan}"
            ))?;
        }
    }
    let report = first.expect("ping -c 5 -i 0.2 10.4.0.2")?;
    assert!(report.contains(" 0% packet loss"), "{report}");
    assert_eq!(first.run("ping -c 3 -i 0.2 -W 1 10.5.0.2")?.status, 1, "VLAN 5 must not pass");
    assert_eq!(second.counter("eth0.5", "rx_packets")?, 0);

    let filter = switch.order("query-rx-filter", json!({"name": "vm2-nic"}))?;
    assert_eq!((&filter[0]["vlan"], &filter[0]["vlan-table"]), (&json!("normal"), &json!([4])));
    switch.order("x-set-rx-filter", json!({"name": "vm2-nic", "vlan": "all"}))?;
    let report = first.expect("ping -c 3 -i 0.2 10.5.0.2")?;
    assert!(report.contains(" 0% packet loss"), "{report}");
    switch.finish()
}

/// Kills and restarts a guest while a flow passes between two taps and the guest's neighbour pings a tap.
fn guest_comes_back(server: bool) -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let hosts = [Netns::new()?, Netns::new()?];
    switch.plug_tap("t0", 0, &hosts[0], &["10.0.0.100/24"])?;
    switch.plug_tap("t1", 0, &hosts[1], &["10.0.0.101/24"])?;
    let socket = if server { switch.plug_connecting("vm1", 0)? } else { switch.plug_listening("vm1", 0)? };
    let attach = NetAttach::VhostUser { socket, server, queues: 1, reconnect: None };
    let mut guest = Guest::boot(&slot, GuestConfig::new(1, attach.clone()))?;
    guest.expect("ping -c 2 -W 5 10.0.0.100")?;

    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 2000 };
    let flow =
        Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config);
    guest.kill()?;
    switch.wait_stats("the carrier to go", Duration::from_secs(10), |stats| {
        stats.port("vm1").is_some_and(|port| !port.carrier)
    })?;
    let mut guest = Guest::boot(&slot, GuestConfig::new(1, attach))?;
    guest.expect("ping -c 2 -W 5 10.0.0.100")?;
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(report.sent > 2000, "{report:?}");
    switch.finish()
}

#[test]
fn killed_guest_comes_back_by_itself_and_others_lose_nothing() -> Result<()> {
    guest_comes_back(false)
}

#[test]
fn killed_guest_that_listens_is_connected_to_again() -> Result<()> {
    guest_comes_back(true)
}

#[test]
fn guest_with_several_queue_pairs_uses_them() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&["--workers", "2"])?;
    let host = Netns::new()?;
    switch.plug_tap("t0", 0, &host, &["10.0.0.100/24"])?;
    let socket = switch.path("vm1.sock");
    let backend = json!({"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": socket}}, "server": true, "wait": false}});
    switch.order("chardev-add", json!({"id": "c1", "backend": backend}))?;
    switch.order("netdev_add", json!({"type": "vhost-user", "id": "vm1", "chardev": "c1", "queues": 2}))?;
    switch.order("netdev_add", json!({"type": "hubport", "id": "h1", "hubid": 0, "netdev": "vm1"}))?;
    let attach = NetAttach::VhostUser { socket, server: false, queues: 2, reconnect: None };
    let mut guest = Guest::boot(&slot, GuestConfig { cpus: 2, ..GuestConfig::new(1, attach) })?;
    for cpu in [1, 2] {
        let report = guest.expect(&format!("taskset {cpu} ping -c 5 -i 0.2 10.0.0.100"))?;
        assert!(report.contains(" 0% packet loss"), "{report}");
    }
    let stats = switch.stats()?;
    let queues = &stats.port("vm1").expect("it was added").queues;
    let running = |ring: &str| ring == "running";
    assert_eq!(queues.len(), 2);
    assert!(
        queues.iter().all(|queue| running(&queue.ingress_ring) && running(&queue.egress_ring)),
        "{queues:?}"
    );
    switch.finish()
}

/// QEMU asks for the rings' positions when it pauses its guest, and gives them back afterwards.
#[test]
fn guest_with_packed_rings_talks_to_one_with_split_rings_and_survives_pauses() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let mut guests = Vec::new();
    for (number, option) in [(1, "packed=on"), (2, "packed=off")] {
        let attach = NetAttach::connect(switch.plug_listening(&format!("vm{number}"), 0)?);
        let device_options = vec![option.into()];
        let config = GuestConfig { device_options, ..GuestConfig::new(number, attach) };
        guests.push(Guest::start(&slot, config)?);
    }
    for (guest, packed) in guests.iter_mut().zip(["1", "0"]) {
        guest.wait_booted(BOOT_TIME_MAX)?;
        // One character for each feature bit.
        let negotiated =
            guest.expect("cat /sys/bus/virtio/devices/virtio*/features | grep -m1 . | cut -c35")?;
        assert_eq!(negotiated.trim(), packed, "VIRTIO_F_RING_PACKED");
    }
    let [first, second] = &mut guests[..] else { unreachable!("two were started") };
    let server = second.spawn("iperf3 -s -1")?;
    second.expect("until netstat -lnt | grep -q :5201; do sleep 0.1; done")?;
    let client = first.spawn("iperf3 -c 10.0.0.2 -t 4")?;
    let mut monitor = first.monitor()?;
    for command in ["stop", "cont", "stop", "cont"] {
        monitor.execute(command, json!({})).doing(command)?;
    }
    let client = first.wait(&client, Duration::from_secs(30))?;
    assert!(client.status == 0 && client.stdout.contains("receiver"), "{client:?}");
    assert_eq!(second.wait(&server, Duration::from_secs(10))?.status, 0);
    let report = first.expect("ping -c 10 -i 0.1 -s 1400 10.0.0.2")?;
    assert!(report.contains(" 0% packet loss"), "{report}");
    let books = switch.stats()?;
    for name in ["vm1", "vm2"] {
        let queue = &books.port(name).expect("it was added").queues[0];
        assert_eq!((&*queue.ingress_ring, &*queue.egress_ring), ("running", "running"), "{name}");
    }
    switch.finish()
}

/// Without a keeper there is nobody to hold the sockets open: QEMU sees the switch go, and takes the guests' links down
/// until it is back. One QEMU connects again, the other one listens and is connected to.
#[test]
fn guests_of_both_kinds_come_back_when_all_of_the_switch_was_killed() -> Result<()> {
    let slot = Slot::take()?;
    let directory = tempfile::tempdir().doing("making a directory for sockets")?;
    let socket = |number: u8| directory.path().join(format!("vm{number}.sock"));
    let mut args = Vec::new();
    for (number, role) in [(1, "server=on,wait=off"), (2, "server=off,reconnect=1")] {
        args.push(("-chardev", format!("socket,id=c{number},path={},{role}", socket(number).display())));
        args.push(("-netdev", format!("vhost-user,id=vm{number},chardev=c{number}")));
        args.push(("-netdev", format!("hubport,id=h{number},hubid=0,netdev=vm{number}")));
    }
    let args: Vec<&str> = args.iter().flat_map(|(option, value)| [*option, value]).collect();
    let mut switch = Switch::start(&args)?;
    let mut guests = Vec::new();
    for (number, server, reconnect) in [(1, false, Some(1)), (2, true, None)] {
        let attach = NetAttach::VhostUser { socket: socket(number), server, queues: 1, reconnect };
        guests.push(Guest::start(&slot, GuestConfig::new(number, attach))?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    let [first, second] = &mut guests[..] else { unreachable!("two were started") };
    first.expect("ping -c 2 -W 5 10.0.0.2")?;
    for _ in 0..2 {
        let ping = first.spawn("ping -c 100 -i 0.1 -W 1 10.0.0.2")?;
        first.expect("sleep 1")?;
        switch.kill()?;
        switch = Switch::start(&args)?;
        for name in ["vm1", "vm2"] {
            switch.wait_carrier(name, Duration::from_secs(20))?;
        }
        // The same boots: a command that began before the end goes on behind it.
        let report = first.wait(&ping, Duration::from_secs(60))?;
        let received: u32 = report
            .stdout
            .split(", ")
            .find_map(|part| part.strip_suffix(" packets received")?.parse().ok())
            .ok_or_else(|| Error::new(format!("no count in {report:?}")))?;
        assert!(received > 20, "{report:?}");
        second.expect("ping -c 3 -i 0.1 -W 5 10.0.0.1")?;
    }
    switch.finish()
}

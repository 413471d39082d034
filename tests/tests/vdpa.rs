//! `x-vduse` and `vhost-vdpa` in a guest whose kernel has both ends: the switch makes a vDPA device there, which the
//! guest's kernel drives, or a second switch.

use std::time::Duration;

use ringyard_tests::deadline::Deadline;
use ringyard_tests::guest::{Guest, GuestConfig, NetAttach};
use ringyard_tests::slot::Slot;
use ringyard_tests::{Doing, Error, Result, tools};
use serde_json::Value;

/// The guest, without a network from outside, in which `ringyard` is a command. It has one processor: with two, QEMU 7.2's
/// emulator now and then runs what the kernel is just rewriting, which panics.
fn boot(slot: &Slot) -> Result<Guest> {
    let config = GuestConfig {
        image: Some("vdpa"),
        programs: vec![tools::switch_binary()?],
        memory_mib: 384,
        ..GuestConfig::new(1, NetAttach::None)
    };
    let mut guest = Guest::boot(slot, config)?;
    // Each test says which driver a device gets.
    guest.expect("echo 0 >/sys/bus/vdpa/drivers_autoprobe")?;
    // A namespace of its own for one side of each test: in the other one, an address would be its own.
    guest.spawn("echo $$ >/run/ns; exec unshare -n sleep 1000")?;
    until(&mut guest, "test $(readlink /proc/$(cat /run/ns)/ns/net) != $(readlink /proc/self/ns/net)")?;
    Ok(guest)
}

fn until(guest: &mut Guest, condition: &str) -> Result<()> {
    let loops = format!("until {{ {condition}; }} 2>/dev/null; do sleep 0.1; done");
    guest.expect(&loops).map(drop).doing(format!("waiting until {condition}"))
}

/// Starts the switch `name` in the guest, with a port made by `port` and a tap `tap` on one hub.
fn start_switch(guest: &mut Guest, name: &str, port: &str, tap: &str) -> Result<()> {
    let ports = format!(
        "-netdev {port},id=port -netdev tap,id=tap,ifname={tap},script=no,downscript=no \
         -netdev hubport,id=h0,hubid=0,netdev=port -netdev hubport,id=h1,hubid=0,netdev=tap"
    );
    let monitor = format!("-qmp unix:/run/{name}.sock,server=on,wait=off");
    guest.spawn(&format!(
        "echo $$ >/run/{name}.pid; exec ringyard run {monitor} {ports} >/run/{name}.log 2>&1"
    ))?;
    until(guest, &format!("grep -q ready: /run/{name}.log"))
        .map_err(|error| Error::new(format!("{error}\n{}", logs(guest))))
}

/// What the switches and the kernel say, for errors.
fn state(guest: &mut Guest) -> String {
    let ports = "for s in /run/*.sock; do ringyard show -m $s ports; ringyard show -m $s drops; done; ip addr; dmesg | tail -n 20";
    let shown = guest.run(ports).map(|output| output.stdout).unwrap_or_default();
    format!("{}\n{shown}", logs(guest))
}

fn logs(guest: &mut Guest) -> String {
    guest.expect("tail -n 30 /run/*.log").unwrap_or_default()
}

/// Runs a command in the namespace apart.
fn apart(guest: &mut Guest, command: &str) -> Result<String> {
    guest.expect(&format!("nsenter -t $(cat /run/ns) -n {command}"))
}

/// Puts the interface `far` into the namespace apart as 10.0.0.1, and has `near` be 10.0.0.2.
fn address(guest: &mut Guest, near: &str, far: &str) -> Result<()> {
    guest.expect(&format!("ip link set {far} netns $(cat /run/ns)"))?;
    guest.expect(&format!("ip addr add 10.0.0.2/24 dev {near}; ip link set {near} up"))?;
    apart(guest, &format!("ip addr add 10.0.0.1/24 dev {far}"))?;
    apart(guest, &format!("ip link set {far} up")).map(drop)
}

fn ping(guest: &mut Guest) -> Result<()> {
    for size in [56, 1400] {
        let report = apart(guest, &format!("ping -c 5 -i 0.1 -W 5 -s {size} 10.0.0.2"));
        match report {
            Ok(report) if report.contains(" 0% packet loss") => {}
            Ok(report) => return Err(Error::new(format!("{report}\n{}", state(guest)))),
            Err(error) => return Err(Error::new(format!("{error}\n{}", state(guest)))),
        }
    }
    Ok(())
}

/// Sends 1 MB by TCP, once each way, and compares what arrives.
fn transfer(guest: &mut Guest) -> Result<()> {
    guest.expect("head -c 1000000 /dev/urandom >/run/sent")?;
    let apart = "nsenter -t $(cat /run/ns) -n ";
    for (receiver, sender, to) in [(apart, "", "10.0.0.1"), ("", apart, "10.0.0.2")] {
        let received = guest.spawn(&format!("{receiver} nc -l -p 5000 -e dd of=/run/got"))?;
        until(guest, &format!("{receiver} netstat -lnt | grep -q :5000"))?;
        let sent = guest.run_within(&format!("{sender} nc {to} 5000 </run/sent"), TRANSFER_TIME_MAX)?;
        assert_eq!(sent.status, 0, "{}\n{}", sent.stdout, state(guest));
        guest.wait(&received, TRANSFER_TIME_MAX)?;
        guest.expect("cmp /run/sent /run/got")?;
    }
    Ok(())
}

/// What the switch `name` says of its port `id`.
fn port(guest: &mut Guest, name: &str, id: &str) -> Result<Value> {
    let text = guest.expect(&format!("ringyard show -j -m /run/{name}.sock ports"))?;
    let ports: Vec<Value> = serde_json::from_str(&text).doing(format!("reading {text}"))?;
    ports.into_iter().find(|port| port["name"] == id).ok_or_else(|| Error::new(format!("no {id} in {text}")))
}

/// What the switch `name` dropped, by port, side and reason.
fn drops(guest: &mut Guest, name: &str) -> Result<Vec<Value>> {
    let mut drops = Vec::new();
    for id in ["port", "tap"] {
        let port = port(guest, name, id)?;
        drops.extend([port["ingress"]["drops"].clone(), port["egress"]["drops"].clone()]);
    }
    Ok(drops)
}

/// Pings and sends by TCP, and sees that none of `names` drops a frame meanwhile.
fn exchange(guest: &mut Guest, names: &[&str]) -> Result<()> {
    // By then neighbours are known, and interfaces have buffers.
    ping(guest)?;
    let all = |guest: &mut Guest| names.iter().map(|name| drops(guest, name)).collect::<Result<Vec<_>>>();
    let before = all(guest)?;
    ping(guest)?;
    transfer(guest)?;
    let after = all(guest)?;
    assert_eq!(before, after, "dropped by {names:?}, by port and side\n{}", logs(guest));
    Ok(())
}

fn frames(port: &Value) -> (u64, u64) {
    let count = |side: &str| port[side]["frames"].as_u64().unwrap_or(0);
    (count("ingress"), count("egress"))
}

/// It takes a second where nothing else runs.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn x_vduse_is_an_interface_of_the_hosts_kernel() -> Result<()> {
    let slot = Slot::take()?;
    let mut guest = boot(&slot)?;
    start_switch(
        &mut guest,
        "a",
        "x-vduse,name=v0,macaddr=52:54:00:00:00:01,mtu=1450,queue-size=256,packed=off",
        "t0",
    )?;
    let refused = guest.run("ringyard add -m /run/a.sock x-vduse,id=again,name=v0")?;
    assert!(
        refused.status != 0 && refused.stdout.contains("the VDUSE device 'v0' is there already"),
        "{}",
        refused.stdout
    );
    guest.expect("vdpa dev add name v0 mgmtdev vduse")?;
    assert_eq!(port(&mut guest, "a", "port")?["carrier"], false, "nobody drives it");
    let mut far = String::new();
    for driver_comes_again in [false, true] {
        guest.expect("echo v0 >/sys/bus/vdpa/drivers/virtio_vdpa/bind")?;
        until(&mut guest, "ls /sys/bus/vdpa/devices/v0/virtio*/net/")?;
        far = guest.expect("ls /sys/bus/vdpa/devices/v0/virtio*/net/")?.trim().to_owned();
        let said = guest.expect(&format!("cat /sys/class/net/{far}/address /sys/class/net/{far}/mtu"))?;
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["52:54:00:00:00:01", "1450"]);
        address(&mut guest, "t0", &far)?;
        until(&mut guest, "ringyard show -m /run/a.sock ports | grep -q 'driver ok'")?;
        if driver_comes_again {
            ping(&mut guest)?;
        } else {
            exchange(&mut guest, &["a"])?;
            let (ingress, egress) = frames(&port(&mut guest, "a", "port")?);
            assert!(ingress > 20 && egress > 20, "{ingress} in and {egress} out");
            guest.expect("echo v0 >/sys/bus/vdpa/drivers/virtio_vdpa/unbind")?;
            until(&mut guest, "ringyard show -m /run/a.sock ports | grep -q 'no driver'")?;
            assert_eq!(port(&mut guest, "a", "port")?["carrier"], false);
            guest.expect("ip addr flush dev t0")?;
        }
    }
    let features = apart(&mut guest, &format!("ethtool -k {far}"))?;
    assert!(features.contains("tcp-segmentation-offload: on"), "{features}");

    guest.expect("vdpa dev del v0; ringyard del -m /run/a.sock port")?;
    until(&mut guest, "! test -e /dev/vduse/v0")?;
    guest.expect("kill $(cat /run/a.pid)")?;
    until(&mut guest, "! kill -0 $(cat /run/a.pid)")?;
    // Nobody uses the module any more.
    guest.expect("rmmod vduse")?;
    start_switch(&mut guest, "b", "tap,ifname=t2,script=no,downscript=no", "t1")?;
    let refused = guest.run("ringyard add -m /run/b.sock x-vduse,id=v,name=v0")?;
    let expected =
        "Could not open '/dev/vduse/control': No such file or directory (is the kernel module vduse loaded?)";
    assert!(refused.status != 0 && refused.stdout.contains(expected), "{}", refused.stdout);
    Ok(())
}

#[test]
fn vhost_vdpa_drives_a_device_that_another_switch_serves() -> Result<()> {
    let slot = Slot::take()?;
    let mut guest = boot(&slot)?;
    start_switch(&mut guest, "a", "x-vduse,name=v0", "t0")?;
    guest.expect("vdpa dev add name v0 mgmtdev vduse && echo v0 >/sys/bus/vdpa/drivers/vhost_vdpa/bind")?;
    start_switch(&mut guest, "b", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,queues=4,x-svq=on", "t1")?;
    address(&mut guest, "t0", "t1")?;
    exchange(&mut guest, &["a", "b"])?;
    // Nothing is lost between the two: what one sent into the device, the other received, and the other way round.
    // The kernels speak of their own accord, too: the two are read again until no frame is on its way between readings.
    let mut read =
        || Ok::<_, Error>((frames(&port(&mut guest, "a", "port")?), frames(&port(&mut guest, "b", "port")?)));
    let deadline = Deadline::after(Duration::from_secs(10));
    let (mut device, mut driver) = read()?;
    while device != (driver.1, driver.0) && deadline.remaining().is_some() {
        (device, driver) = read()?;
    }
    assert!(
        device == (driver.1, driver.0) && device.0 > 20,
        "{device:?} at the device, {driver:?} at the driver"
    );
    let shown = guest.expect("ringyard qmp -m /run/b.sock query-netdev")?;
    assert!(
        shown.contains("/dev/vhost-vdpa-0") && shown.replace(' ', "").contains("\"queues\":1"),
        "{shown}"
    );
    let second = guest.run("ringyard add -m /run/b.sock vhost-vdpa,id=second,vhostdev=/dev/vhost-vdpa-0")?;
    assert!(
        second.stdout.contains("Could not open '/dev/vhost-vdpa-0': Device or resource busy"),
        "{}",
        second.stdout
    );

    // The port goes and comes; so does its process, without a word.
    let hubport = "ringyard add -m /run/b.sock hubport,id=h0,hubid=0,netdev=port";
    let port_again = "ringyard add -m /run/b.sock vhost-vdpa,id=port,vhostdev=/dev/vhost-vdpa-0";
    guest.expect("ringyard del -m /run/b.sock port")?;
    until(&mut guest, "ringyard show -m /run/a.sock ports | grep -q 'no driver'")?;
    guest.expect(&format!("ringyard del -m /run/b.sock h0; {port_again} && {hubport}"))?;
    ping(&mut guest)?;
    guest.expect("kill -9 $(cat /run/b.pid)")?;
    until(&mut guest, "ringyard show -m /run/a.sock ports | grep -q 'no driver'")?;
    start_switch(&mut guest, "b", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0", "t1")?;
    address(&mut guest, "t0", "t1")?;
    ping(&mut guest)?;
    device_that_breaks_a_rule(&mut guest)
}

/// Writes into the rings of the switch `b`, as a device can: all descriptors of its transmit ring are used, under a number
/// that is no buffer's. The switch resets the device and goes on.
fn device_that_breaks_a_rule(guest: &mut Guest) -> Result<()> {
    // Behind the receive queue: a ring of 1,024 entries and as many buffers of 4 KiB, each of which begins a cache line on.
    const SEND_RING: usize = 26_752 + 1024 * (4096 + 64);
    let memory = "/proc/$(cat /run/b.pid)/fd/$(ls -l /proc/$(cat /run/b.pid)/fd | grep -m1 ringyard-vdpa | sed 's/.* \\([0-9]*\\) -> .*/\\1/')";
    let ones = "head -c 16384 /dev/zero | tr '\\0' '\\377'";
    guest.expect(&format!("{ones} | dd of={memory} bs=64 seek={} conv=notrunc", SEND_RING / 64))?;
    apart(guest, "ping -c 1 -W 1 10.0.0.2 || true")?;
    until(guest, "grep -q 'the device is reset.*a used entry names a chain' /run/b.log")
        .map_err(|error| Error::new(format!("{error}\n{}", state(guest))))?;
    until(guest, "ringyard show -j -m /run/b.sock ports | grep -A4 vhost-vdpa | grep -q 'carrier\": true'")?;
    ping(guest)?;
    assert_eq!(guest.expect("grep -c 'the device is reset' /run/b.log")?.trim(), "1");
    Ok(())
}

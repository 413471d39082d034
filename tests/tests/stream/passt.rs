//! passt at the other end: a guest behind the switch gets its address from it, and reaches the host through it.

use std::fs;

use ringyard_tests::Result;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::Doing;
use ringyard_tests::guest::{Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::process::Process;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use serde_json::json;

use crate::bench::{PATIENCE, plug, unix, wait_info};

/// What udhcpc calls with what it was told.
const LEASE: &str = "printf '#!/bin/sh\\n[ $1 = bound ] || exit 0\\nip addr flush dev eth0\\nip addr add $ip/$mask dev eth0\\n\
                     ip route add default via $router\\n' >/lease; chmod +x /lease";

#[test]
fn guest_gets_its_address_from_passt_and_reaches_the_host_through_it() -> Result<()> {
    let slot = Slot::take()?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let netns = Netns::new()?;
    netns.ip("link add v0 type veth peer name v1")?;
    netns.bring_up("v1", &[])?;
    netns.bring_up("v0", &["192.168.77.2/24"])?;
    netns.ip("route add default via 192.168.77.1")?;
    let file: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    fs::write(directory.path().join("file"), &file).doing("writing a file")?;
    let path = directory.path().display().to_string();
    let mut httpd = netns.command("busybox")?;
    httpd.args(["httpd", "-f", "-p", "8000", "-h", &path]);
    let _httpd = Process::start("httpd", httpd, directory.path())?;

    let mut switch = Switch::start(&[])?;
    let passt = switch.path("passt.sock");
    plug(&mut switch, "passt", 0, json!({"type": "stream", "addr": unix(&passt), "reconnect-ms": 50}))?;
    let socket = switch.plug_listening("guest", 0)?;
    let mut guest = Guest::start(&slot, GuestConfig::new(1, NetAttach::connect(&socket)))?;
    for round in 0..2 {
        // As root it would become another user, who may not write there.
        let mut command = netns.command("passt")?;
        command.args(["--foreground", "--stderr", "--ipv4-only", "--runas", "0", "--socket"]).arg(&passt);
        let mut process = Process::start("passt", command, directory.path())?;
        wait_info(&mut switch, "passt", &format!("unix:{}", passt.display()))?;
        if round == 0 {
            guest.wait_booted(ringyard_tests::guest::BOOT_TIME_MAX)?;
            guest.expect(LEASE)?;
        }
        guest.expect("udhcpc -i eth0 -q -n -t 20 -T 1 -s /lease")?;
        let addresses = guest.expect("ip -4 addr show dev eth0")?;
        assert!(addresses.contains("192.168.77.2/24"), "{addresses}");
        // The gateway stands for the host's loopback.
        let sum = guest.expect("wget -q -O - http://192.168.77.1:8000/file | sha256sum")?;
        let expected = netns.run(&format!("sha256sum <{path}/file"))?;
        assert_eq!(sum.split_whitespace().next(), expected.split_whitespace().next());
        process.kill()?;
        wait_info(&mut switch, "passt", "connecting")?;
        let _ = fs::remove_file(&passt);
    }
    wait_for("the connection's end to be told", PATIENCE, || {
        Ok(switch.qmp().wait_event("NETDEV_STREAM_DISCONNECTED", PATIENCE).ok())
    })?;
    switch.finish()
}

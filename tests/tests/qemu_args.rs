//! `ringyard qemu-args`: what it prints, given to a real QEMU as a shell gives it.

use ringyard_tests::deadline::wait_for;
use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::process::{Process, command, run};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, tools};
use serde_json::json;

/// The words that `$(ringyard qemu-args WORDS)` becomes in a shell.
fn qemu_args(switch: &Switch, words: &str) -> Result<Vec<String>> {
    let ringyard = tools::switch_binary()?;
    let script = format!("printf '%s\\n' $({} qemu-args {words})", ringyard.display());
    let mut shell = command("sh")?;
    shell.args(["-e", "-c", &script]).env("RINGYARD_MONITOR", switch.monitor());
    Ok(run(&mut shell)?.lines().map(str::to_owned).collect())
}

#[test]
fn guests_started_with_what_is_printed_ping_each_other() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    switch.plug_listening_queues("vm1", 0, 2)?;
    switch.plug_nic("vm1", "52:54:00:00:00:01")?;
    let stream = switch.path("vm2.sock");
    let address = json!({"type": "unix", "path": stream});
    switch.order("netdev_add", json!({"id": "vm2", "type": "stream", "server": true, "addr": address}))?;
    switch.order("netdev_add", json!({"id": "h2", "type": "hubport", "hubid": 0, "netdev": "vm2"}))?;

    let mut guests = Vec::new();
    for (number, port) in [(1, "vm1"), (2, "vm2")] {
        let words = qemu_args(&switch, &format!("{port} --memory 256M --tcg"))?;
        let config = GuestConfig { cpus: 2, ..GuestConfig::new(number, NetAttach::Whole(words)) };
        guests.push(Guest::start(&slot, config)?);
    }
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
    }
    let report = guests[0].expect("ping -c 5 -i 0.2 10.0.0.2")?;
    assert!(report.contains(" 0% packet loss"), "{report}");
    assert_eq!(guests[0].expect("cat /sys/class/net/eth0/address")?.trim(), "52:54:00:00:00:01");
    assert_eq!(guests[0].expect("ls -1 -d /sys/class/net/eth0/queues/tx-*")?.lines().count(), 2);
    switch.finish()
}

/// Without a guest that runs, the emulator takes interrupts of several vectors, too. QEMU is connected to both
/// vhost-user ports before its monitor answers.
#[test]
fn qemu_takes_every_word_for_a_machine_of_several_ports() -> Result<()> {
    let mut switch = Switch::start(&[
        "-netdev",
        "dgram,id=d0,local.type=unix,local.path=here,remote.type=unix,\
        remote.path=there",
    ])?;
    switch.plug_listening_queues("listens", 0, 2)?;
    switch.plug_connecting("connects", 0)?;
    switch.plug_nic("connects", "52:54:00:00:00:09")?;
    let words = qemu_args(&switch, "listens connects d0 --memory 64")?;

    let monitor = switch.path("qemu.sock");
    let mut qemu = command("qemu-system-x86_64")?;
    qemu.args(["-nodefaults", "-display", "none", "-S", "-accel", "tcg"]);
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]).args(words);
    let mut process = Process::start("qemu", qemu, &switch.path(""))?;
    wait_for("QEMU's monitor", BOOT_TIME_MAX, || {
        process.expect_running()?;
        Ok(monitor.exists().then_some(()))
    })?;
    let mut qemu = Qmp::connect(&monitor, BOOT_TIME_MAX)?;
    let network = qemu.execute("human-monitor-command", json!({"command-line": "info network"}));
    let network = network.doing("asking for info network")?;
    let network = network.as_str().unwrap_or_default();
    assert!(
        network.contains("connects-nic: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:09")
    );
    assert!(network.contains("listens: index=1,type=vhost-user"), "{network}");
    let (here, there) = (switch.path("here"), switch.path("there"));
    let paths = format!("udp={}:{}", there.display(), here.display());
    assert!(network.contains(&paths), "{network}");
    let chardevs = switch.order("query-chardev", json!({}))?;
    assert!(!chardevs.to_string().contains("disconnected"), "{chardevs}");
    switch.finish()
}

#[test]
fn libvirt_gets_a_part_of_a_domain() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let socket = switch.plug_listening("vm1", 0)?;
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["qemu-args", "vm1", "--libvirt", "--monitor"]).arg(switch.monitor());
    let domain = run(&mut ringyard)?;
    assert!(domain.starts_with("<domain>") && domain.ends_with("</domain>\n"), "{domain}");
    let source = format!("<source type='unix' path='{}' mode='client'>", socket.display());
    assert!(domain.contains(&source) && domain.contains("<access mode='shared'/>"), "{domain}");
    switch.finish()
}

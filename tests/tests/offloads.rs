//! Offloads between ports of every kind: real TCP over taps and guests that have them and that have not, and what it is
//! worth. What arrives is compared with what was sent, and no kernel finds a wrong checksum.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::process::Process;
use ringyard_tests::slot::Slot;
use ringyard_tests::stats::{PortStats, Stats};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, deadline};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// What QEMU's device has by itself, to be taken from it.
const TSO: [&str; 6] =
    ["guest_tso4=off", "guest_tso6=off", "guest_ecn=off", "host_tso4=off", "host_tso6=off", "host_ecn=off"];
const REST: [&str; 5] = ["csum=off", "gso=off", "guest_csum=off", "guest_ufo=off", "host_ufo=off"];
/// The longest frame of an interface whose MTU is 1500.
const WHOLE_FRAME: u64 = 1514;

/// A host on the hub that serves a file of its own and fetches those of others.
enum Host {
    Guest(Box<Guest>),
    Namespace { netns: Netns, name: String, _server: Process, _directory: TempDir },
}

impl Host {
    /// A namespace on the tap `name`, with host number `number`.
    fn on_tap(switch: &mut Switch, name: &str, number: u8, vnet_hdr: bool) -> Result<Host> {
        let netns = Netns::new()?;
        let addresses = [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")];
        let addresses = addresses.each_ref().map(String::as_str);
        switch.plug_tap_with(name, 0, &netns, &addresses, &json!({"vnet_hdr": vnet_hdr}))?;
        let directory = tempfile::tempdir().doing("making a directory")?;
        let path = directory.path().display().to_string();
        netns.run(&format!("dd if=/dev/urandom of={path}/file bs=64k count=32 2>/dev/null"))?;
        let mut httpd = netns.command("busybox")?;
        httpd.args(["httpd", "-f", "-p", "8000", "-h", &path]);
        let server = Process::start("httpd", httpd, directory.path())?;
        let mut host = Host::Namespace { netns, name: name.into(), _server: server, _directory: directory };
        host.wait_listening()?;
        Ok(host)
    }

    fn in_guest(mut guest: Guest) -> Result<Host> {
        guest.expect("mkdir /www; dd if=/dev/urandom of=/www/file bs=64k count=32; httpd -p 8000 -h /www")?;
        let mut host = Host::Guest(Box::new(guest));
        host.wait_listening()?;
        Ok(host)
    }

    fn wait_listening(&mut self) -> Result<()> {
        deadline::wait_for("the server to listen", Duration::from_secs(10), || {
            Ok(self.run("busybox netstat -lnt")?.contains(":8000 ").then_some(()))
        })
    }

    fn run(&mut self, command: &str) -> Result<String> {
        match self {
            Host::Guest(guest) => guest.expect(command),
            Host::Namespace { netns, .. } => netns.run(command),
        }
    }

    /// The sum of the file that the host at `address` serves.
    fn fetch(&mut self, address: &str) -> Result<String> {
        let report =
            self.run(&format!("busybox wget -q -O - http://{address}:8000/file | busybox sha256sum"))?;
        Ok(report.split_whitespace().next().unwrap_or_default().into())
    }

    fn wrong_checksums(&mut self) -> Result<u64> {
        Ok(wrong_checksums(&self.run(COUNTERS)?))
    }
}

/// Shows the counters of all protocols.
const COUNTERS: &str = "cat /proc/net/snmp /proc/net/snmp6";

/// Packets that were received with a wrong checksum, by any protocol.
fn wrong_checksums(report: &str) -> u64 {
    let (mut wrong, mut names) = (0, Vec::new());
    for line in report.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = |word: &str| word.parse::<u64>().unwrap_or(0);
        match words[..] {
            // Of /proc/net/snmp, two lines a protocol: the names, and then the numbers.
            [protocol, ..] if protocol.ends_with(':') && words.len() > 2 => {
                if words[1].parse::<i64>().is_err() {
                    names = words.iter().map(|name| name.to_string()).collect();
                } else {
                    let numbers = names.iter().zip(&words).filter(|(name, _)| name.contains("CsumErrors"));
                    wrong += numbers.map(|(_, number)| count(number)).sum::<u64>();
                }
            }
            [name, number] if name.contains("CsumErrors") => wrong += count(number),
            _ => {}
        }
    }
    wrong
}

/// Each host fetches the file of each other one, over IPv4 and IPv6. Host number `i` of `hosts` has address `i + 1`.
fn all_fetch_from_all(hosts: &mut [Host]) -> Result<()> {
    let mut files = Vec::new();
    for host in hosts.iter_mut() {
        let path = match host {
            Host::Guest(_) => PathBuf::from("/www/file"),
            Host::Namespace { _directory, .. } => _directory.path().join("file"),
        };
        let report = host.run(&format!("busybox sha256sum {}", path.display()))?;
        files.push(report.split_whitespace().next().unwrap_or_default().to_owned());
    }
    for (number, host) in hosts.iter_mut().enumerate() {
        for (other, file) in files.iter().enumerate().filter(|(other, _)| *other != number) {
            for address in [format!("10.0.0.{}", other + 1), format!("[fd00::{}]", other + 1)] {
                assert_eq!(&host.fetch(&address)?, file, "host {} from {address}", number + 1);
            }
        }
    }
    for (number, host) in hosts.iter_mut().enumerate() {
        assert_eq!(host.wrong_checksums()?, 0, "host {}", number + 1);
    }
    Ok(())
}

/// Bytes of a frame, on average.
fn average(bytes: u64, frames: u64) -> u64 {
    bytes / frames.max(1)
}

fn port<'s>(stats: &'s Stats, name: &str) -> &'s PortStats {
    stats.port(name).expect("it was added")
}

#[test]
fn taps_with_and_without_vnet_header_exchange_tcp_in_every_pair() -> Result<()> {
    for (left, right) in [(true, true), (true, false), (false, false)] {
        let mut switch = Switch::start(&[])?;
        let mut hosts =
            [Host::on_tap(&mut switch, "t1", 1, left)?, Host::on_tap(&mut switch, "t2", 2, right)?];
        all_fetch_from_all(&mut hosts)?;
        let stats = switch.stats()?;
        for (name, other, has) in [("t1", "t2", left), ("t2", "t1", right)] {
            let (from, to) = (port(&stats, name), port(&stats, other));
            let sent = average(from.ingress.bytes, from.ingress.frames);
            assert!(has == (sent > WHOLE_FRAME), "{name}: {left} {right}: frames of {sent} bytes");
            let cut = has && !(left && right);
            assert!(cut == (to.egress.segments > 0), "{left} {right}: {} segments", to.egress.segments);
            assert_eq!(from.ingress.drops.get("malformed"), None);
        }
        for (host, has) in hosts.iter_mut().zip([left, right]) {
            let Host::Namespace { name, .. } = host else { continue };
            let path = format!("/sys/class/net/{name}/statistics");
            let report = host.run(&format!("cat {path}/rx_bytes {path}/rx_packets"))?;
            let counts: Vec<u64> = report.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let received = average(counts[0], counts[1]);
            assert!(has && left && right || received <= WHOLE_FRAME, "frames of {received} bytes came in");
        }
        switch.finish()?;
    }
    Ok(())
}

#[test]
fn datagrams_between_taps_arrive_each_and_in_order() -> Result<()> {
    for (left, right) in [(true, true), (true, false), (false, true)] {
        let mut switch = Switch::start(&[])?;
        let (from, to) = (Netns::new()?, Netns::new()?);
        switch.plug_tap_with("t1", 0, &from, &["10.0.0.1/24"], &json!({"vnet_hdr": left}))?;
        switch.plug_tap_with("t2", 0, &to, &["10.0.0.2/24"], &json!({"vnet_hdr": right}))?;
        let receiver = to.enter(|| UdpSocket::bind("10.0.0.2:9000").doing("binding a receiver"))?;
        receiver.set_read_timeout(Some(ARRIVAL_TIME_MAX)).doing("setting a time limit")?;
        let sender = from.enter(|| UdpSocket::bind("10.0.0.1:9000").doing("binding a sender"))?;
        sender.connect("10.0.0.2:9000").doing("connecting a sender")?;
        from.run("ping -c 1 -w 10 10.0.0.2")?;
        let before = packets_received(&to, "t2")?;
        for round in 0..DATAGRAM_ROUNDS {
            // What was sent while it was stopped is one burst.
            send_signal(switch.process(), Signal::STOP)?;
            deadline::wait_for("the switch to stop", ARRIVAL_TIME_MAX, || {
                Ok(is_stopped(switch.process())?.then_some(()))
            })?;
            let datagrams: Vec<Vec<u8>> = (0..BURST).map(|number| datagram(round, number)).collect();
            for datagram in &datagrams {
                sender.send(datagram).doing("sending")?;
            }
            send_signal(switch.process(), Signal::CONT)?;
            for datagram in &datagrams {
                let mut received = [0; 2000];
                let len = receiver.recv(&mut received).doing(format!("receiving, {left} {right}"))?;
                assert_eq!(&received[..len], datagram, "{left} {right}");
            }
        }
        let packets = packets_received(&to, "t2")? - before;
        let sent = DATAGRAM_ROUNDS * BURST;
        // In half of the rounds all have the same length, and in the others no two that follow each other.
        let coupled = packets < sent * 3 / 4;
        assert_eq!(coupled, left && right && kernel_has_uso()?, "{left} {right}: {packets} packets");
        assert_eq!(wrong_checksums(&to.run(COUNTERS)?), 0);
        switch.finish()?;
    }
    Ok(())
}

/// All of the same length in even rounds, up and down in odd ones.
fn datagram(round: u64, number: u64) -> Vec<u8> {
    let len = if round.is_multiple_of(2) { 100 * round + 22 } else { 20 + (number * 7 + round) % 1400 };
    (0..len).map(|at| (at + number + round) as u8).collect()
}

fn packets_received(netns: &Netns, interface: &str) -> Result<u64> {
    let report = netns.run(&format!("cat /sys/class/net/{interface}/statistics/rx_packets"))?;
    report.trim().parse().doing("reading a number of packets")
}

fn send_signal(process: &Process, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(process.id() as i32).expect("a process has an id");
    kill_process(id, signal).doing("sending a signal to the switch")
}

/// Whether every thread has stopped.
fn is_stopped(process: &Process) -> Result<bool> {
    let tasks = format!("/proc/{}/task", process.id());
    for task in fs::read_dir(&tasks).doing(format!("listing {tasks}"))? {
        let path = task.doing(format!("listing {tasks}"))?.path().join("status");
        let status = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
        if !status.contains("State:\tT") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Since Linux 6.2.
fn kernel_has_uso() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").doing("reading the kernel's release")?;
    let numbers: Vec<u32> = release.split('.').map_while(|part| part.parse().ok()).collect();
    Ok(numbers.get(..2).is_some_and(|numbers| numbers >= &[6, 2][..]))
}

const DATAGRAM_ROUNDS: u64 = 14;
/// As many as the switch reads at once.
const BURST: u64 = 64;
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(10);

#[test]
fn guests_and_taps_of_every_kind_exchange_tcp_in_every_pair() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let kinds = [vec![], TSO.to_vec(), [TSO.to_vec(), REST.to_vec()].concat()];
    let mut guests = Vec::new();
    for (number, options) in (1..).zip(&kinds) {
        guests.push(start_guest(&slot, &mut switch, number, options)?);
    }
    let mut hosts = Vec::new();
    for mut guest in guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
        hosts.push(Host::in_guest(guest)?);
    }
    hosts.push(Host::on_tap(&mut switch, "t4", 4, true)?);
    hosts.push(Host::on_tap(&mut switch, "t5", 5, false)?);
    all_fetch_from_all(&mut hosts)?;
    let stats = switch.stats()?;
    for (name, has) in [("vm1", true), ("vm2", false), ("vm3", false), ("t4", true), ("t5", false)] {
        let port = port(&stats, name);
        let sent = average(port.ingress.bytes, port.ingress.frames);
        assert!(has == (sent > WHOLE_FRAME), "{name} sent frames of {sent} bytes");
        assert!(has != (port.egress.segments > 0), "{name}: {} segments", port.egress.segments);
        assert_eq!(port.ingress.drops.get("malformed"), None);
    }
    switch.finish()
}

#[test]
fn two_guests_with_tso_send_fewer_larger_frames_at_twice_the_rate() -> Result<()> {
    let slot = Slot::take()?;
    let without = run_iperf3(&slot, &[TSO.to_vec(), REST.to_vec()].concat())?;
    let with = run_iperf3(&slot, &[])?;
    let report = format!("with offloads {with:?}, without {without:?}");
    println!("{report}");
    assert!(without.frame_len <= WHOLE_FRAME && with.frame_len > 4 * WHOLE_FRAME, "{report}");
    assert!(with.frames_a_gigabyte * 4 < without.frames_a_gigabyte, "{report}");
    assert_eq!((with.segments, without.segments), (0, 0), "{report}");
    assert!(with.kilobits >= 2 * without.kilobits, "{report}");
    Ok(())
}

/// Times that iperf3 runs between two guests.
const RUNS: usize = 3;

/// What iperf3 between two guests came to.
#[derive(Debug)]
struct Run {
    kilobits: u64,
    /// Bytes of a frame from the sender, on average.
    frame_len: u64,
    frames_a_gigabyte: u64,
    segments: u64,
}

fn run_iperf3(slot: &Slot, options: &[&str]) -> Result<Run> {
    let mut switch = Switch::start(&[])?;
    let mut first = start_guest(slot, &mut switch, 1, options)?;
    let mut second = start_guest(slot, &mut switch, 2, options)?;
    first.wait_booted(BOOT_TIME_MAX)?;
    second.wait_booted(BOOT_TIME_MAX)?;
    second.spawn("iperf3 -s")?;
    second.expect("until netstat -lnt | grep -q :5201; do sleep 0.1; done")?;
    // The best of some: what else the machine does can only make one slower.
    let mut kilobits = 0;
    for _ in 0..RUNS {
        let report = first.expect("iperf3 -c 10.0.0.2 -t 3 -f k")?;
        let received = report.lines().find(|line| line.ends_with("receiver")).unwrap_or_default();
        let words: Vec<&str> = received.split_whitespace().collect();
        let place = words.iter().position(|word| *word == "Kbits/sec").unwrap_or_else(|| panic!("{report}"));
        kilobits = kilobits.max(words[place - 1].parse().doing(format!("reading {received}"))?);
    }
    let stats = switch.stats()?;
    let (from, to) = (&port(&stats, "vm1").ingress, &port(&stats, "vm2").egress);
    let frames_a_gigabyte = from.frames * 1_000_000_000 / from.bytes.max(1);
    let run = Run {
        kilobits,
        frame_len: average(from.bytes, from.frames),
        frames_a_gigabyte,
        segments: to.segments,
    };
    switch.finish()?;
    Ok(run)
}

fn start_guest(slot: &Slot, switch: &mut Switch, number: u8, options: &[&str]) -> Result<Guest> {
    let name = format!("vm{number}");
    let socket = switch.plug_listening(&name, 0)?;
    let device_options = options.iter().map(|option| option.to_string()).collect();
    let config = GuestConfig { device_options, ..GuestConfig::new(number, NetAttach::connect(socket)) };
    switch.plug_nic(&name, &config.mac)?;
    Guest::start(slot, config)
}

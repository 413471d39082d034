//! `user`: a Linux guest behind the host. The switch runs in a network namespace of its own, which is all the network that
//! its guest can reach: a name server, an HTTP server, whoever connects from there.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::guest::{Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::process::Process;
use ringyard_tests::qmp::Qmp;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What the HTTP server of the namespace serves.
const PAGE: &str = "a page of the host";
/// Bytes of the large file.
const LARGE: usize = 3 << 20;
/// What takes long takes less.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host's side: a namespace with servers in it.
struct Host {
    netns: Netns,
}

impl Host {
    fn new() -> Result<Host> {
        let host = Host { netns: Netns::new()? };
        for (server, address) in [("first", "127.0.0.53:53"), ("second", "127.0.0.54:53")] {
            let socket = host.netns.enter(|| UdpSocket::bind(address).doing("binding the name server"))?;
            thread::spawn(move || serve_names(&socket, server));
        }
        for address in ["127.0.0.1:8000", "[::1]:8000"] {
            let listener = host.netns.enter(|| TcpListener::bind(address).doing("binding the web server"))?;
            thread::spawn(move || serve_pages(&listener));
        }
        let sink = host.netns.enter(|| TcpListener::bind("127.0.0.1:9000").doing("binding the sink"))?;
        thread::spawn(move || count_bytes(&sink));
        Ok(host)
    }

    fn connect(&self, address: &str) -> Result<TcpStream> {
        let address: SocketAddr = address.parse().expect("an address");
        let stream = self.netns.enter(|| {
            TcpStream::connect_timeout(&address, PATIENCE).doing(format!("connecting to {address}"))
        })?;
        stream.set_read_timeout(Some(PATIENCE)).doing("setting a time limit")?;
        Ok(stream)
    }

    /// What comes back for `text` from whoever is behind `address`.
    fn ask(&self, address: &str, text: &str) -> Result<String> {
        let mut stream = self.connect(address)?;
        stream.write_all(text.as_bytes()).doing("writing")?;
        stream.shutdown(std::net::Shutdown::Write).doing("ending")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).doing("reading")?;
        Ok(answer)
    }
}

/// Answers every question for an IPv4 address: 10.9.8.7 for the first server, 10.9.8.6 for the second.
fn serve_names(socket: &UdpSocket, server: &str) {
    let mut message = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut message) {
        let question = &message[..len];
        let asks_for_ipv4 = question.windows(4).any(|bytes| bytes == [0, 1, 0, 1]);
        let mut answer = question.to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[8..12].fill(0);
        if asks_for_ipv4 {
            answer[7] = 1;
            let last = if server == "first" { 7 } else { 6 };
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 9, 8, last]);
        }
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_pages(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::spawn(move || {
            let mut request = [0; 1024];
            let len = stream.read(&mut request).unwrap_or(0);
            let large = request[..len].starts_with(b"GET /large");
            let body = if large { "large\n".repeat(LARGE / 6) } else { PAGE.to_owned() };
            let header = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((header + &body).as_bytes());
        });
    }
}

/// Answers with how many bytes came, once all are there.
fn count_bytes(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0);
        let _ = stream.write_all(count.to_string().as_bytes());
    }
}

/// A switch in the namespace of `host`, that finds `resolv_conf` where others have /etc/resolv.conf.
fn start_switch(host: &Host, resolv_conf: &Path, args: &[&str]) -> Result<Switch> {
    let mut shell = host.netns.command("unshare")?;
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv_conf.display());
    shell.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    Switch::start_by(shell, args)
}

/// The options by which these programs may answer guests.
fn may_run<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    programs.iter().flat_map(|program| ["--may-run", program]).collect()
}

/// A guest on hub 0, which has set nothing up yet.
fn boot(slot: &Slot, switch: &mut Switch) -> Result<Guest> {
    let attach = NetAttach::connect(switch.plug_listening("vm", 0)?);
    let none = String::new();
    let config = GuestConfig { ip4: none.clone(), ip6: none, ..GuestConfig::new(1, attach) };
    Guest::boot(slot, config)
}

fn plug_user(switch: &mut Switch, id: &str, mut members: Value) -> Result<()> {
    members["type"] = json!("user");
    members["id"] = json!(id);
    switch.order("netdev_add", members)?;
    let port = json!({"type": "hubport", "id": format!("{id}-hubport"), "hubid": 0, "netdev": id});
    switch.order("netdev_add", port).map(drop)
}

/// Has the guest get its address by DHCP; what it got, a variable a line.
fn lease(guest: &mut Guest) -> Result<String> {
    let script = "#!/bin/sh\\n[ \"$1\" = bound ] || exit 0\\nenv >/lease\\nip addr flush dev eth0 scope global\\n\
                  ip addr add $ip/$mask dev eth0\\nip route add default via $router\\n\
                  echo nameserver $dns >/etc/resolv.conf\\n";
    guest.expect(&format!("mkdir -p /etc; printf '{script}' >/bound; chmod +x /bound"))?;
    guest
        .expect("rm -f /lease; udhcpc -f -n -q -t 20 -T 1 -i eth0 -s /bound -O tftp -O bootfile -O search")?;
    guest.expect("cat /lease")
}

fn info(switch: &mut Switch, line: &str) -> Result<String> {
    let text = switch.order("human-monitor-command", json!({"command-line": line}))?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

/// A directory that everybody may read.
fn shared_directory() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).doing("opening it to all")?;
    Ok(directory)
}

/// The processes that `parent` started and that live.
fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let mut found: Vec<u32> = text.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    // Those of other threads are listed with them.
    for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The helpers that the switch has started, or its opener for it.
fn helpers(switch: u32) -> Vec<u32> {
    let direct = children(switch);
    let indirect: Vec<u32> = direct.iter().flat_map(|&child| children(child)).collect();
    let is_outer = |id: &u32| {
        is_helper(*id) && !direct.iter().any(|&child| is_helper(child) && children(child).contains(id))
    };
    direct.iter().chain(&indirect).copied().filter(is_outer).collect()
}

/// The helper's two processes: the one that the switch started, and the confined one.
fn helper(switch: &Switch) -> Result<(u32, u32)> {
    wait_for("the helper's processes", PATIENCE, || {
        let outer = helpers(switch.process().id()).first().copied();
        Ok(outer.and_then(|outer| Some((outer, children(outer).into_iter().find(|&id| is_helper(id))?))))
    })
}

fn is_helper(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline"))
        .is_ok_and(|line| line.windows(14).any(|part| part == b"\0slirp-helper\0"))
}

fn lives(id: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !text.is_empty() && !text.contains(") Z ")
}

#[test]
fn guest_gets_an_address_resolves_fetches_and_is_reached() -> Result<()> {
    let slot = Slot::take()?;
    let host = Host::new()?;
    let files = shared_directory()?;
    let resolv_conf = files.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.53\n").doing("writing resolv.conf")?;
    let tftp = shared_directory()?;
    fs::write(tftp.path().join("kernel"), "k".repeat(5000)).doing("writing a file")?;
    let device = files.path().join("device.sock");
    let device_listener = std::os::unix::net::UnixListener::bind(&device).doing("listening")?;
    let mut switch =
        start_switch(&host, &resolv_conf, &may_run(&["/usr/bin/tr", "/usr/bin/id", "/usr/sbin/smbd"]))?;
    plug_user(
        &mut switch,
        "u0",
        json!({
            "smb": tftp.path(), "hostname": "guest7", "domainname": "example", "tftp": tftp.path(), "bootfile": "kernel",
            "tftp-server-name": "boots", "dnssearch": [{"str": "a.example"}, {"str": "b.example"}],
            "hostfwd": [{"str": "tcp:127.0.0.1:2222-:22"}, {"str": "tcp:127.0.0.1:5201-:5201"}, {"str": "udp:127.0.0.1:5201-:5201"}],
            "guestfwd": [
                {"str": "tcp:10.0.2.100:80-cmd:/usr/bin/tr a-z A-Z"},
                {"str": "tcp:10.0.2.100:81-cmd:/usr/bin/id -u"},
                {"str": format!("tcp:10.0.2.100:82-unix:{}", device.display())},
            ],
        }),
    )?;
    let (mut device_end, _) = device_listener.accept().doing("accepting the device's connection")?;
    let mut guest = boot(&slot, &mut switch)?;

    let lease = lease(&mut guest)?;
    for line in [
        "ip=10.0.2.15",
        "mask=24",
        "router=10.0.2.2",
        "dns=10.0.2.3",
        "hostname=guest7",
        "domain=example",
        "boot_file=kernel",
        "tftp=boots",
        "search=a.example b.example",
    ] {
        assert!(lease.lines().any(|told| told == line), "{line} in {lease}");
    }
    let padded = guest.expect("cat /sys/class/net/eth0/statistics/rx_length_errors")?;
    assert_eq!(padded.trim(), "0");

    resolves_and_follows_resolv_conf(&mut guest, &resolv_conf)?;
    assert_eq!(guest.expect("wget -q -O - http://10.0.2.2:8000/")?, PAGE);
    let count = guest.expect("wget -q -O - http://10.0.2.2:8000/large | wc -c")?;
    assert_eq!(count.trim(), (LARGE / 6 * 6).to_string());
    // The guest leaves cutting these into segments to the switch.
    let sent = guest.expect(&format!("head -c {LARGE} /dev/zero | nc 10.0.2.2 9000"))?;
    assert_eq!(sent.trim(), LARGE.to_string());
    guest.expect("tftp -g -r kernel -l /kernel 10.0.2.2")?;
    assert_eq!(guest.expect("tr -d k </kernel | wc -c; wc -c </kernel")?.trim(), "0\n5000");
    assert_ne!(guest.run("tftp -g -r ../../etc/passwd -l /passwd 10.0.2.2")?.status, 0);

    is_reached_from_the_host(&host, &mut guest, &mut switch)?;
    assert_eq!(guest.expect("echo hello | nc 10.0.2.100 80")?.trim(), "HELLO");
    assert_eq!(
        guest.expect("nc 10.0.2.100 81 </dev/null")?.trim(),
        "0",
        "programs run as who runs the switch"
    );
    let asked = guest.spawn("(echo ping; sleep 1) | timeout 3 nc 10.0.2.100 82")?;
    let mut heard = [0; 5];
    device_end.read_exact(&mut heard).doing("reading from the guest")?;
    device_end.write_all(b"pong\n").doing("answering the guest")?;
    assert_eq!(&heard, b"ping\n");
    let told = guest.wait(&asked, PATIENCE)?.stdout;
    assert!(told.starts_with("pong\n"), "{told}");

    has_an_ipv6_address(&mut guest)?;
    finds_a_share(&host, &mut guest, &mut switch)?;
    switch.finish()
}

fn resolves_and_follows_resolv_conf(guest: &mut Guest, resolv_conf: &Path) -> Result<()> {
    let found = guest.expect("nslookup host.example 10.0.2.3")?;
    assert!(found.contains("10.9.8.7"), "{found}");
    // In place: it is the file that the switch's namespace has for its own.
    fs::write(resolv_conf, "# another server\nnameserver 127.0.0.54\n").doing("writing resolv.conf")?;
    wait_for("the other name server to be asked", PATIENCE, || {
        let found = guest.run("nslookup host.example 10.0.2.3")?;
        Ok(found.stdout.contains("10.9.8.6").then_some(()))
    })
}

fn is_reached_from_the_host(host: &Host, guest: &mut Guest, switch: &mut Switch) -> Result<()> {
    guest.spawn("nc -ll -p 22 -e cat")?;
    guest.expect("until netstat -lnt | grep -q :22; do sleep 0.1; done")?;
    assert_eq!(host.ask("127.0.0.1:2222", "over tcp")?, "over tcp");
    // Over a connection it agrees on UDP, which then comes from the host.
    let server = guest.spawn("iperf3 -s -1")?;
    guest.expect("until netstat -lnt | grep -q :5201; do sleep 0.1; done")?;
    let report = host.netns.run("iperf3 -c 127.0.0.1 -u -b 2M -l 1000 -t 1")?;
    assert!(report.contains("receiver"), "{report}");
    let heard = guest.wait(&server, PATIENCE)?.stdout;
    assert!(heard.contains("(0%)"), "{heard}");

    assert_eq!(info(switch, "hostfwd_add tcp:127.0.0.1:2223-:22")?, "");
    assert_eq!(host.ask("127.0.0.1:2223", "more")?, "more");
    let listed = info(switch, "info usernet")?;
    assert!(listed.starts_with("Hub 0 (u0):\r\n  Protocol[State] "), "{listed}");
    for line in ["127.0.0.1  2222", "127.0.0.1  2223", "UDP["] {
        assert!(listed.contains(line), "{line} in {listed}");
    }
    let busy = info(switch, "hostfwd_add u0 tcp:127.0.0.1:2223-:22")?;
    assert_eq!(busy, "Could not set up host forwarding rule 'tcp:127.0.0.1:2223-:22'\r\n");
    let removed = info(switch, "hostfwd_remove tcp:127.0.0.1:2223")?;
    assert_eq!(removed, "host forwarding rule for tcp:127.0.0.1:2223 removed\r\n");
    assert!(host.connect("127.0.0.1:2223").is_err());
    let removed = info(switch, "hostfwd_remove tcp:127.0.0.1:2223")?;
    assert_eq!(removed, "host forwarding rule for tcp:127.0.0.1:2223 not found\r\n");
    Ok(())
}

fn has_an_ipv6_address(guest: &mut Guest) -> Result<()> {
    wait_for("an address of the advertised network", PATIENCE, || {
        let addresses =
            guest.expect("ip -6 addr show dev eth0 scope site; ip -6 addr show dev eth0 scope global")?;
        Ok(addresses.contains("fec0::5054:ff:fe00:1/64").then_some(()))
    })?;
    assert_eq!(guest.expect("wget -q -O - 'http://[fec0::2]:8000/'")?, PAGE);
    Ok(())
}

/// A client on the host takes the way through the guest, which has none: host, guest, stack, Samba.
fn finds_a_share(host: &Host, guest: &mut Guest, switch: &mut Switch) -> Result<()> {
    assert_eq!(info(switch, "hostfwd_add tcp:127.0.0.1:4450-:4450")?, "");
    guest.spawn("nc -ll -p 4450 -e nc 10.0.2.4 445")?;
    guest.expect("until netstat -lnt | grep -q :4450; do sleep 0.1; done")?;
    let got = host.netns.run("smbclient //127.0.0.1/qemu -p 4450 -N -c 'get kernel -'")?;
    assert!(got.contains(&"k".repeat(5000)), "{got}");
    Ok(())
}

#[test]
fn restricted_guest_reaches_nothing_but_what_rules_forward() -> Result<()> {
    let slot = Slot::take()?;
    let host = Host::new()?;
    let files = shared_directory()?;
    let resolv_conf = files.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.53\n").doing("writing resolv.conf")?;
    let mut switch = start_switch(&host, &resolv_conf, &may_run(&["/bin/cat"]))?;
    plug_user(
        &mut switch,
        "u0",
        json!({
            "restrict": true, "net": "192.168.76.0/24", "dhcpstart": "192.168.76.9", "ipv6": false,
            "hostfwd": [{"str": "tcp:127.0.0.1:2222-:22"}],
            "guestfwd": [{"str": "tcp:192.168.76.100:80-cmd:/bin/cat"}],
        }),
    )?;
    assert!(info(&mut switch, "info network")?.contains("type=user,net=192.168.76.0,restrict=on\r\n"));
    let mut guest = boot(&slot, &mut switch)?;
    // It is given neither a router nor a name server.
    let script = "#!/bin/sh\\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev eth0 && env >/lease\\n";
    guest.expect(&format!("printf '{script}' >/bound; chmod +x /bound"))?;
    guest.expect("udhcpc -f -n -q -t 20 -T 1 -i eth0 -s /bound")?;
    let lease = guest.expect("cat /lease; ip route add default via 192.168.76.2")?;
    assert!(lease.contains("ip=192.168.76.9\n") && !lease.contains("router="), "{lease}");
    guest.spawn("nc -ll -p 22 -e cat")?;
    guest.expect("until netstat -lnt | grep -q :22; do sleep 0.1; done")?;
    assert_eq!(host.ask("127.0.0.1:2222", "hello")?, "hello");
    assert_eq!(guest.expect("echo hello | nc 192.168.76.100 80")?.trim(), "hello");

    for attempt in ["wget -T 3 -q -O - http://192.168.76.2:8000/", "nslookup host.example 192.168.76.3"] {
        let output = guest.run_within(attempt, Duration::from_secs(4))?;
        assert!(output.status != 0 && !output.stdout.contains(PAGE), "{attempt}: {output:?}");
    }
    let addresses = guest.expect("ip -6 addr show dev eth0")?;
    assert!(!addresses.contains("fec0:"), "{addresses}");
    switch.finish()
}

#[test]
fn helper_that_is_killed_costs_a_link_down_and_innocents_nothing() -> Result<()> {
    let slot = Slot::take()?;
    let host = Host::new()?;
    let files = shared_directory()?;
    let resolv_conf = files.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.53\n").doing("writing resolv.conf")?;
    let mut switch = start_switch(&host, &resolv_conf, &may_run(&["/bin/cat"]))?;
    plug_user(&mut switch, "u0", json!({"guestfwd": [{"str": "tcp:10.0.2.100:80-cmd:/bin/cat"}]}))?;
    let others = [Netns::new()?, Netns::new()?];
    let mut guest = boot(&slot, &mut switch)?;
    lease(&mut guest)?;
    let flow = innocents(&mut switch, &host, &others)?;
    assert_eq!(info(&mut switch, "hostfwd_add u0 tcp:127.0.0.1:2222-:22")?, "");
    guest.spawn("nc -ll -p 22 -e cat")?;

    for (inner, signal) in [(true, Signal::KILL), (false, Signal::KILL), (false, Signal::SEGV)] {
        let processes = helper(&switch)?;
        let victim = if inner { processes.1 } else { processes.0 };
        let before = switch.stats()?.port("u0").map_or(0, |port| port.ingress.frames);
        wait_for("both processes to end", PATIENCE, || {
            // Again and again: a fault that is none in truth is forgiven once.
            let _ = kill_process(Pid::from_raw(victim as i32).expect("not 0"), signal);
            Ok((!lives(processes.0) && !lives(processes.1)).then_some(()))
        })?;
        let next = wait_for("a new helper", PATIENCE, || {
            Ok(helper(&switch).ok().filter(|next| next.0 != processes.0))
        })?;
        assert_ne!(next, processes);
        switch.wait_carrier("u0", PATIENCE)?;
        assert_eq!(guest.expect("wget -q -O - http://10.0.2.2:8000/")?, PAGE);
        assert_eq!(guest.expect("echo hello | nc 10.0.2.100 80")?.trim(), "hello");
        // Rules that were added while it ran are there, too.
        assert_eq!(host.ask("127.0.0.1:2222", "still here")?, "still here");
        let after = switch.stats()?.port("u0").map_or(0, |port| port.ingress.frames);
        assert!(after > before, "{after} frames after {before}");
        assert!(
            info(&mut switch, "info network")?.contains("u0: index=0,type=user,net=10.0.2.0,restrict=off")
        );
    }
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(report.sent > 1000, "{report:?}");

    let (outer, inner) = helper(&switch)?;
    let directories = helper_directories(switch.process().id());
    assert_eq!(directories.len(), 1, "{directories:?}");
    switch.finish()?;
    wait_for("the helper to end with the switch", PATIENCE, || {
        Ok((!lives(outer) && !lives(inner)).then_some(()))
    })?;
    assert!(!directories[0].exists());
    Ok(())
}

/// Two taps on another hub, and a numbered flow from the first to the second.
fn innocents(switch: &mut Switch, host: &Host, others: &[Netns; 2]) -> Result<Flow> {
    for (name, other) in ["t0", "t1"].into_iter().zip(others) {
        let netdev = json!({"type": "tap", "id": name, "ifname": name, "script": "no", "downscript": "no"});
        switch.order("netdev_add", netdev)?;
        let port = json!({"type": "hubport", "id": format!("{name}-hubport"), "hubid": 1, "netdev": name});
        switch.order("netdev_add", port)?;
        host.netns.ip(&format!("link set {name} netns {}", other.name()))?;
        other.bring_up(name, &[])?;
    }
    let config = FlowConfig {
        destination: others[1].mac("t1")?,
        source: others[0].mac("t0")?,
        length: 200,
        rate: 1000,
    };
    Ok(Flow::start(PacketSocket::open(&others[0], "t0")?, PacketSocket::open(&others[1], "t1")?, config))
}

/// The directories that a switch's helpers have for their sockets.
fn helper_directories(switch: u32) -> Vec<PathBuf> {
    let prefix = format!("ringyard-user-{switch}-");
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let paths = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    paths.map(|entry| entry.path()).collect()
}

#[test]
fn rules_that_cannot_be_had_are_refused_and_leave_nothing_behind() -> Result<()> {
    let host = Host::new()?;
    let files = shared_directory()?;
    let resolv_conf = files.path().join("resolv.conf");
    fs::write(&resolv_conf, "").doing("writing resolv.conf")?;
    let mut switch = start_switch(&host, &resolv_conf, &may_run(&["/bin/cat", "/usr/sbin/smbd"]))?;
    let refused = |switch: &mut Switch, mut members: Value| -> String {
        members["type"] = json!("user");
        members["id"] = json!("u0");
        let error = switch.qmp().execute("netdev_add", members.clone());
        error.err().unwrap_or_else(|| panic!("{members}")).to_string()
    };
    let rule = |rule: &str| json!({"hostfwd": [{"str": rule}]});
    for (members, expected) in [
        (rule("tcp:127.0.0.1:8000-:1"), "Could not set up host forwarding rule 'tcp:127.0.0.1:8000-:1'"),
        (
            rule("unix:/-:1"),
            "Invalid host forwarding rule 'unix:/-:1' (file exists and it's not unix socket)",
        ),
        (rule("tcp:1.2.3.4:7777-:1"), "Could not set up host forwarding rule 'tcp:1.2.3.4:7777-:1'"),
        (
            json!({"guestfwd": [{"str": "tcp:10.0.2.2:80-cmd:/bin/cat"}]}),
            "Conflicting/invalid host:port in guest forwarding rule 'tcp:10.0.2.2:80-cmd:/bin/cat'",
        ),
        (
            json!({"guestfwd": [{"str": "tcp:10.0.2.100:80-unix:/no/such"}]}),
            "Could not open guest forwarding device 'guestfwd.tcp.80'",
        ),
        (
            json!({"smb": "/no/such"}),
            "Error accessing shared directory '/no/such': No such file or directory",
        ),
        (json!({"smb": files.path(), "smbserver": "10.0.2.2"}), "Conflicting/invalid smbserver address"),
        (json!({"hostname": "a\u{0}b"}), "'a\u{0}b' has a zero byte"),
    ] {
        let error = refused(&mut switch, members);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(helpers(switch.process().id()), Vec::<u32>::new());
    assert_eq!(helper_directories(switch.process().id()), Vec::<PathBuf>::new());
    assert_eq!(switch.order("query-netdev", json!({}))?, json!([]));

    // A port below 1024 is taken before privileges are given up, and is free again at once when the netdev is gone.
    for _ in 0..3 {
        switch.order(
            "netdev_add",
            json!({"type": "user", "id": "u0", "hostfwd": [{"str": "tcp::80-:80"}, {"str": "udp::54-:53"}]}),
        )?;
        host.connect("127.0.0.1:80")?;
        switch.order("netdev_del", json!({"id": "u0"}))?;
    }
    let path = files.path().join("forward.sock");
    let rule = format!("unix:{}-:22", path.display());
    // What a switch that was killed left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).doing("leaving a socket behind")?);
    for _ in 0..2 {
        switch.order("netdev_add", json!({"type": "user", "id": "u0", "hostfwd": [{"str": rule}]}))?;
        let mode = fs::metadata(&path).doing("looking at the socket")?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).doing("connecting to the forwarded socket")?;
        switch.order("netdev_del", json!({"id": "u0"}))?;
        assert!(!path.exists(), "it goes with the netdev");
    }
    switch.finish()
}

#[test]
fn options_are_shown_so_that_they_can_be_fed_back() -> Result<()> {
    let mut switch = Switch::start(&[
        "--netdev",
        "user,id=u9,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=udp::0-:53",
        "--may-run",
        "/bin/cat",
    ])?;
    let shown = switch.order("query-netdev", json!({}))?;
    assert_eq!(shown[0]["hostfwd"], json!([{"str": "tcp:127.0.0.1:0-:22"}, {"str": "udp::0-:53"}]));
    switch.order("netdev_del", json!({"id": "u9"}))?;
    let usual = json!({
        "id": "u0", "type": "user", "restrict": false, "ipv4": true, "ipv6": true,
        "net": "10.0.2.0/255.255.255.0", "host": "10.0.2.2", "dns": "10.0.2.3",
        "ipv6-prefix": "fec0::", "ipv6-prefixlen": 64, "ipv6-host": "fec0::2", "ipv6-dns": "fec0::3",
    });
    let all = json!({
        "id": "u0", "type": "user", "hostname": "h", "restrict": true, "ipv4": true, "ipv6": true,
        "net": "10.1.0.0/255.255.0.0", "host": "10.1.0.1", "tftp": "/no/such/directory", "bootfile": "b",
        "dhcpstart": "10.1.0.9", "dns": "10.1.0.5", "dnssearch": [{"str": "x.example"}], "domainname": "d",
        "ipv6-prefix": "fd00:1::", "ipv6-prefixlen": 48, "ipv6-host": "fd00:1::1", "ipv6-dns": "fd00:1::5",
        "smbserver": "10.1.0.4", "hostfwd": [{"str": "tcp:127.0.0.1:0-:22"}],
        "guestfwd": [{"str": "tcp:10.1.2.3:80-cmd:/bin/cat"}, {"str": "tcp:10.1.2.4:80-null"}],
        "tftp-server-name": "t",
    });
    for (given, expected) in [
        (json!({"id": "u0", "type": "user"}), &usual),
        (usual.clone(), &usual),
        (all.clone(), &all),
        (
            json!({"id": "u0", "type": "user", "ipv6": true}),
            &json!({
                "id": "u0", "type": "user", "restrict": false, "ipv4": false, "ipv6": true,
                "ipv6-prefix": "fec0::", "ipv6-prefixlen": 64, "ipv6-host": "fec0::2", "ipv6-dns": "fec0::3",
            }),
        ),
    ] {
        switch.order("netdev_add", given)?;
        let shown = switch.order("query-netdev", json!({}))?;
        assert_eq!(&shown[0], expected);
        switch.order("netdev_del", json!({"id": "u0"}))?;
    }
    switch.finish()
}

/// Asked of the kernel, not of the log: what the process that sees the guests' frames may still do.
#[test]
fn the_helper_is_confined() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    switch.order("netdev_add", json!({"type": "user", "id": "u0"}))?;
    let (outer, inner) = helper(&switch)?;
    let status = fs::read_to_string(format!("/proc/{inner}/status")).doing("reading its status")?;
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "Groups:\t ",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "Threads:\t1",
    ] {
        assert!(status.lines().any(|told| told == line), "{line:?} in {status}");
    }
    for (namespace, own) in [("mnt", true), ("pid", true), ("ipc", true), ("uts", true), ("net", false)] {
        let of = |id: u32| fs::read_link(format!("/proc/{id}/ns/{namespace}")).doing("reading a namespace");
        assert_eq!(of(inner)? != of(outer)?, own, "{namespace}");
    }
    let root = format!("/proc/{inner}/root");
    let mut names: Vec<_> = fs::read_dir(&root)
        .doing("listing its root")?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .doing("listing its root")?;
    names.sort_unstable();
    assert_eq!(names, ["etc"]);
    for entry in fs::read_dir(format!("/proc/{inner}/fd")).doing("listing its descriptors")? {
        let target = fs::read_link(entry.doing("listing its descriptors")?.path()).doing("reading a link")?;
        let target = target.to_string_lossy().into_owned();
        let known = ["socket:", "pipe:", "/dev/null", "/etc/resolv.conf"];
        assert!(known.iter().any(|known| target.starts_with(known)), "{target}");
    }
    switch.finish()
}

/// The library under the names that it has here.
fn library() -> Result<PathBuf> {
    let listed = ringyard_tests::process::run(ringyard_tests::process::command("ldconfig")?.arg("-p"))?;
    let line = listed.lines().find(|line| line.trim_start().starts_with("libslirp.so.0 "));
    let path = line.and_then(|line| line.rsplit(" => ").next()).map(PathBuf::from);
    fs::canonicalize(path.unwrap_or_default()).doing("finding libslirp.so.0: run tests/install")
}

#[test]
fn without_the_library_everything_else_works_and_the_error_names_the_package() -> Result<()> {
    let mut shell = ringyard_tests::process::command("unshare")?;
    let script = format!("mount --bind /dev/null {} && exec \"$@\"", library()?.display());
    shell.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    let mut switch = Switch::start_by(shell, &[])?;
    let error = switch.qmp().execute("netdev_add", json!({"type": "user", "id": "u0"}));
    let error = error.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("type 'user' needs libslirp") && error.contains("libslirp0 (Debian"), "{error}");
    switch.plug_listening("vm", 0)?;
    assert_eq!(switch.order("query-netdev", json!({}))?.as_array().map(Vec::len), Some(1));
    switch.finish()
}

/// QEMU itself is asked, in the same namespace: which options it refuses, in which order, and with what words.
#[test]
fn options_are_refused_as_qemu_refuses_them() -> Result<()> {
    let host = Host::new()?;
    let directory = shared_directory()?;
    let monitor = directory.path().join("qemu.sock");
    let mut qemu = host.netns.command("qemu-system-x86_64")?;
    qemu.args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"]);
    qemu.arg(format!("unix:{},server=on,wait=off", monitor.display()));
    let mut qemu = Process::start("qemu", qemu, directory.path())?;
    wait_for("QEMU's monitor", PATIENCE, || {
        qemu.expect_running()?;
        Ok(monitor.exists().then_some(()))
    })?;
    let mut qemu_monitor = Qmp::connect(&monitor, PATIENCE)?;
    let resolv_conf = directory.path().join("resolv.conf");
    fs::write(&resolv_conf, "").doing("writing resolv.conf")?;
    let mut switch = start_switch(&host, &resolv_conf, &may_run(&["/bin/cat", "x"]))?;
    for mut members in disputable() {
        members["id"] = json!("u0");
        members["type"] = json!("user");
        let expected = answer(&mut qemu_monitor, &members);
        assert_eq!(answer(switch.qmp(), &members), expected, "{members}");
    }
    switch.finish()
}

/// What `netdev_add` says; a netdev that it made is removed.
fn answer(monitor: &mut Qmp, members: &Value) -> String {
    match monitor.execute("netdev_add", members.clone()) {
        Ok(_) => monitor
            .execute("netdev_del", json!({"id": "u0"}))
            .map_or_else(|error| error.to_string(), |_| "made".into()),
        Err(error) => error.to_string(),
    }
}

/// Options that are wrong, or seem so.
fn disputable() -> Vec<Value> {
    let hostfwd = |rules: &[&str]| json!({"hostfwd": rules.iter().map(|rule| json!({"str": rule})).collect::<Vec<_>>()});
    let guestfwd = |rules: &[&str]| json!({"guestfwd": rules.iter().map(|rule| json!({"str": rule})).collect::<Vec<_>>()});
    let mut all = vec![
        json!({"ipv4": false, "ipv6": false}),
        json!({"ipv6": true, "net": "10.0.0.0/24"}),
        json!({"ipv4": true, "ipv6-host": "::1"}),
        json!({"ipv4": false, "dns": "x", "ipv6": false}),
        json!({"net": "10.0.0.0/0x18"}),
        json!({"net": "10.0.0.0/24 "}),
        json!({"net": " 10.0.0.0/24"}),
        json!({"net": "1.2.3.4/32"}),
        json!({"net": "10.0.0.0/99999999999999999999"}),
        json!({"net": "x/y", "host": "z", "dns": "w"}),
        json!({"ip": "10.1.2.3/24"}),
        json!({"net": "10.0.0.0/24", "ip": "x"}),
        json!({"host": "1.2.3.4", "dns": "x"}),
        json!({"dns": "10.0.2.2", "dhcpstart": "x"}),
        json!({"dns": "1.1.1.1"}),
        json!({"dns": "1.1.1.1", "restrict": true}),
        json!({"dhcpstart": "10.0.2.3"}),
        json!({"smbserver": "x", "ipv6-prefix": "x"}),
        json!({"ipv6-prefix": "fd00::", "ipv6-host": "fd01::"}),
        json!({"ipv6-prefix": "fd00::", "ipv6-prefixlen": 4, "ipv6-host": "fd01::"}),
        json!({"ipv6-prefixlen": 127}),
        json!({"ipv6-prefixlen": "64"}),
        json!({"ipv6-prefixlen": 4_294_967_297_i64}),
        json!({"ipv6-dns": "1::", "restrict": true, "domainname": ""}),
        json!({"domainname": "", "hostname": "a".repeat(256)}),
        json!({"hostname": "a".repeat(256), "tftp-server-name": "a".repeat(256)}),
        json!({"tftp": "/no/such/directory"}),
        json!({"dnssearch": ["a"]}),
        json!({"dnssearch": [{"str": "a"}]}),
        json!({"dnssearch": []}),
        json!({"restrict": "on"}),
        json!({"hostfwd": [{"str": "x"}], "guestfwd": [{"str": "a"}, {"str": "b"}]}),
        json!({"nonsense": 1, "hostfwd": 1}),
        json!({"nonsense": 1}),
    ];
    for rule in [
        "",
        "tcp",
        "sctp:",
        "tcp:x",
        "tcp:x:",
        "tcp::x",
        "tcp::7777",
        "tcp::x-",
        "tcp::70000-:1",
        "tcp::-:22",
        "tcp::7777-",
        "tcp::7777-x:1",
        "tcp::7777-:",
        "tcp::7777-:0",
        "tcp::7777-:65536",
        "tcp::7777-:1x",
        "tcp:: 7777-:22",
        "tcp::7777 -:22",
        "tcp::+7777-:22",
        "tcp::-1-:22",
        "udp:127.1:017-:0x16",
        ":127.0.0.1:0-:1",
        "tcp:1.2.3.4:7777-:1",
        "tcp:127.0.0.1:8000-:1",
        "tcp:1.2.3:7777-:1",
        "tcp:127.0.0.1 x:7777-:1",
    ] {
        all.push(hostfwd(&[rule]));
    }
    all.push(hostfwd(&["tcp::7777-:1", "tcp::7777-:2"]));
    all.push(hostfwd(&["udp::7777-:1", "tcp::7777-:2"]));
    for rule in [
        "",
        "tcp",
        "udp:",
        "tcp::80",
        "tcp::80-",
        "tcp::80-bogus",
        "tcp::80-cmd:/bin/cat",
        "tcp::0-cmd:x",
        "tcp::x-cmd:x",
        "tcp:x:80-cmd:x",
        "tcp:10.0.2.2:80-cmd:x",
        "tcp:10.0.2.3:80-cmd:x",
        "tcp:1.0.2.9:80-cmd:x",
        "tcp::080-null",
        "tcp:: 80-null",
        "tcp::80-unix:/no/such",
        "tcp::80-tcp:127.0.0.1:1",
        "tcp::80-tcp:127.0.0.1:8000",
        "tcp:10.0.2.2:80-unix:/no/such",
    ] {
        all.push(guestfwd(&[rule]));
    }
    all
}

//! Clients that are slow, rude, many, or in a hurry.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use ringyard_tests::Result;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::Netns;
use ringyard_tests::process::Process;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

use super::{PATIENCE, UnixClient, good, make_nic, over_tcp, over_unix, tcp_place};

/// What `run` allows, the rig's own client included.
const CLIENTS_MAX: usize = 64;

fn client(switch: &Switch) -> UnixClient {
    over_unix(good(UnixStream::connect(switch.monitor())))
}

/// Bytes of memory that the process has.
fn memory(process: &Process) -> usize {
    let status = good(std::fs::read_to_string(format!("/proc/{}/status", process.id())));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<usize>().ok()).expect("a number")
        << 10
}

#[test]
fn q03_clients_that_never_read_are_dropped_and_delay_nobody() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    make_nic(&mut switch);
    good(switch.qmp().execute("x-set-rx-filter", json!({"name": "g", "vlan-table": []})));
    let mut deaf = client(&switch);
    deaf.negotiate();
    // It asks for more than anybody could keep for it.
    let mut greedy = client(&switch);
    greedy.negotiate();
    good(greedy.writer.set_nonblocking(true));
    while greedy.writer.write(br#"{"execute":"query-qmp-schema"}"#).is_ok() {}
    let before = memory(switch.process());
    let mut slowest = std::time::Duration::ZERO;
    for number in 0..10_000 {
        let start = Instant::now();
        good(switch.qmp().execute("x-set-rx-filter", json!({"name": "g", "promiscuous": number % 2 == 0})));
        good(switch.qmp().execute("query-rx-filter", json!({"name": "g"})));
        slowest = slowest.max(start.elapsed());
        assert_eq!(switch.qmp().take_events().len(), 1, "number {number}");
    }
    assert!(slowest < PATIENCE / 4, "{slowest:?}");
    let grown = memory(switch.process()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let log = switch.process().log();
    let dropped = log.matches("client that does not read is disconnected").count();
    assert_eq!(dropped, 2, "{log}");
    // What was on its way to them still comes, and then the end.
    let mut told = 0;
    while deaf.next() != Value::Null {
        told += 1;
    }
    assert!((100..10_000).contains(&told), "{told} events");
    switch.finish()
}

#[test]
fn commands_come_byte_by_byte_without_an_end_of_line() -> Result<()> {
    let switch = Switch::start(&["-qmp", "tcp:127.0.0.1:0,server=on,wait=off"])?;
    let mut slow = over_tcp(good(TcpStream::connect(tcp_place(&switch, 0)?)));
    for byte in "{'execute':'qmp_capabilities'}{\"execute\": \"query-status\", \"id\": \"\u{e9}\"}".bytes() {
        good(slow.writer.write_all(&[byte]));
        client(&switch).is_served();
    }
    assert_eq!(slow.next(), json!({"return": {}}));
    assert_eq!(slow.next()["id"], "\u{e9}");
    switch.finish()
}

#[test]
fn q04_half_a_command_goes_with_its_client() -> Result<()> {
    let switch = Switch::start(&[])?;
    for half in
        ["{\"execute\": \"qu", "{\"execute\":\"quit\"", "[[[[", "\"", "\u{1}", "", "POST / HTTP/1.1\r\n\r\n"]
    {
        let mut leaving = client(&switch);
        leaving.negotiate();
        leaving.send(half);
        drop(leaving);
        client(&switch).is_served();
        // One that says that it sends no more is answered what it asked.
        let mut ending = client(&switch);
        ending.send(&format!("{}{half}", json!({"execute": "qmp_capabilities"})));
        good(ending.writer.shutdown(Shutdown::Write));
        assert_eq!(ending.next(), json!({"return": {}}));
        let mut rest = String::new();
        good(ending.lines.read_to_string(&mut rest));
        assert!(rest.lines().all(|line| line.contains("JSON parse error")), "{rest}");
    }
    switch.finish()
}

#[test]
fn many_commands_in_one_write_are_answered_in_order() -> Result<()> {
    const COMMANDS: usize = 10_000;
    let switch = Switch::start(&[])?;
    let mut hasty = client(&switch);
    hasty.negotiate();
    let all: String =
        (0..COMMANDS).map(|id| json!({"execute": "query-name", "id": id}).to_string()).collect();
    let mut writer = good(hasty.writer.try_clone());
    let writing = std::thread::spawn(move || writer.write_all(all.as_bytes()));
    for id in 0..COMMANDS {
        assert_eq!(hasty.next(), json!({"return": {}, "id": id}));
    }
    good(writing.join().expect("it does not panic"));
    switch.finish()
}

#[test]
fn q04_there_is_room_for_so_many_clients_and_for_another_when_one_leaves() -> Result<()> {
    let switch = Switch::start(&[])?;
    let mut clients: Vec<UnixClient> = (1..CLIENTS_MAX).map(|_| client(&switch)).collect();
    for _ in 0..3 {
        let mut turned_away = good(UnixStream::connect(switch.monitor()));
        good(turned_away.set_read_timeout(Some(PATIENCE)));
        assert_eq!(good(turned_away.read(&mut [0; 8])), 0, "it is hung up on, without a greeting");
    }
    clients.iter_mut().for_each(UnixClient::is_served);
    clients.pop();
    let mut next = wait_for("a free place", PATIENCE, || {
        let stream = good(UnixStream::connect(switch.monitor()));
        Ok(good(stream.peek_greeting()).then_some(stream))
    })
    .map(over_unix)?;
    next.is_served();
    switch.finish()
}

/// Looks at what a server says first, and leaves it there.
trait Peek {
    fn peek_greeting(&self) -> std::io::Result<bool>;
}

impl Peek for UnixStream {
    fn peek_greeting(&self) -> std::io::Result<bool> {
        let (_, count) = rustix::net::recv(self, &mut [0; 1], rustix::net::RecvFlags::PEEK)?;
        Ok(count > 0)
    }
}

#[test]
fn with_oob_commands_queue_and_errors_overtake_them() -> Result<()> {
    let netns = Netns::new()?;
    let switch = Switch::start_in(&netns, &[])?;
    // A command that takes as long as the test wants it to.
    let (script, release) = (switch.path("ifup"), switch.path("release"));
    let text = format!(
        "#!/bin/sh\necho nobody expects this on stdout\nwhile [ ! -e {} ]; do sleep 0.02; done\n",
        release.display()
    );
    good(std::fs::write(&script, text));
    good(std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)));
    let mut pipelining = client(&switch);
    let enable = json!({"enable": ["oob"]});
    assert_eq!(pipelining.ask("qmp_capabilities", enable), json!({"return": {}}));
    let slow = json!({"type": "tap", "id": "t", "ifname": "t0", "script": script, "downscript": "no"});
    let mut all = json!({"execute": "netdev_add", "arguments": slow, "id": 0}).to_string();
    for id in 1..=8 {
        all += &json!({"execute": "query-status", "id": id}).to_string();
        all += &json!({"exec-oob": if id % 2 == 0 { "query-status" } else { "nope" }, "id": -id}).to_string();
    }
    // The ninth waits unread, and so does what is behind it.
    all += &json!({"execute": "query-status", "id": 9}).to_string();
    all += &json!({"exec-oob": "query-status", "id": -9}).to_string();
    pipelining.send(&all);
    let expected = ["The command nope has not been found", "The command query-status does not support OOB"];
    for id in 1..8 {
        let error = pipelining.next();
        assert_eq!(
            (&error["id"], &error["error"]["desc"]),
            (&json!(-id), &json!(expected[(id as usize + 1) % 2]))
        );
    }
    client(&switch).is_served();
    good(std::fs::write(&release, ""));
    let rest: Vec<Value> = (0..12).map(|_| pipelining.next()["id"].clone()).collect();
    let in_order: Vec<i64> = rest.iter().filter_map(Value::as_i64).filter(|id| *id >= 0).collect();
    assert_eq!(in_order, (0..=9).collect::<Vec<_>>(), "{rest:?}");
    assert!(rest.contains(&json!(-8)) && rest.contains(&json!(-9)), "{rest:?}");
    switch.finish()
}

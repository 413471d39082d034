//! Replies stay short enough for every client, however much there is to say.

use std::os::unix::net::UnixStream;
use std::process::Command;

use ringyard_tests::process::{command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, tools};
use serde_json::{Value, json};

use super::{UnixClient, good, over_unix};

/// What qemu.qmp reads of a line.
const LINE_MAX: usize = 256 << 10;
/// Ports of the switch.
const PORTS: usize = 1024;

/// Executes a command; its reply, whose line is measured.
fn ask(client: &mut UnixClient, command: &str, arguments: Value) -> Value {
    client.send(&json!({"execute": command, "arguments": arguments}).to_string());
    let mut line = String::new();
    good(std::io::BufRead::read_line(&mut client.lines, &mut line));
    assert!(line.len() < LINE_MAX, "{command}: {} bytes", line.len());
    serde_json::from_str(&line).expect("it is JSON")
}

fn done(client: &mut UnixClient, command: &str, arguments: Value) {
    let reply = ask(client, command, arguments);
    assert_eq!(reply, json!({"return": {}}), "{command}");
}

fn make_ports(switch: &Switch, client: &mut UnixClient) {
    for number in 0..PORTS {
        let [chardev, port, nic, hubport] =
            ["c", "a-port-with-a-name-", "g", "h"].map(|name| format!("{name}{number}"));
        let socket =
            json!({"addr": {"type": "unix", "data": {"path": switch.path(&chardev)}}, "wait": false});
        done(client, "chardev-add", json!({"id": chardev, "backend": {"type": "socket", "data": socket}}));
        done(
            client,
            "netdev_add",
            json!({"type": "vhost-user", "id": port, "chardev": chardev, "queues": 4}),
        );
        done(client, "netdev_add", json!({"type": "nic", "id": nic, "netdev": port}));
        done(
            client,
            "netdev_add",
            json!({"type": "hubport", "id": hubport, "hubid": number % 600, "netdev": port}),
        );
    }
}

#[test]
fn a_thousand_ports_are_shown_in_lines_that_every_client_reads() -> Result<()> {
    let switch = Switch::start(&[])?;
    let mut client = over_unix(good(UnixStream::connect(switch.monitor())));
    client.negotiate();
    make_ports(&switch, &mut client);

    let mut names: Vec<Value> = Vec::new();
    let mut page = ask(&mut client, "x-query-stats", json!({"limit": 1000}));
    loop {
        let ports = page["return"]["ports"].as_array().expect("it is a list");
        names.extend(ports.iter().map(|port| port["name"].clone()));
        if page["return"]["more"] == false {
            break;
        }
        page = ask(&mut client, "x-query-stats", json!({"after": names.last()}));
    }
    let expected: Vec<Value> =
        (0..PORTS).map(|number| json!(format!("a-port-with-a-name-{number}"))).collect();
    assert_eq!(names, expected);
    for (command, arguments, advice) in [
        ("x-query-stats", json!({}), "ask for one port by 'name', or for some by 'limit' and 'after'"),
        ("query-rx-filter", json!({}), "ask for one nic by 'name'"),
        ("query-netdev", json!({}), ""),
        ("query-chardev", json!({}), ""),
        ("query-qmp-schema", json!({}), ""),
        ("x-query-fdb", json!({}), ""),
        ("human-monitor-command", json!({"command-line": "info network"}), ""),
    ] {
        let reply = ask(&mut client, command, arguments);
        let desc = reply["error"]["desc"].as_str().unwrap_or_default();
        assert_eq!(reply.get("error").is_some(), !advice.is_empty(), "{command}: {desc}");
        assert!(desc.ends_with(advice), "{command}: {desc}");
    }
    assert_eq!(ask(&mut client, "query-rx-filter", json!({"name": "g7"}))["return"][0]["vlan"], "all");

    for (view, rows) in
        [("ports", PORTS), ("nics", PORTS), ("hubs", 600), ("drops", 0), ("workers", 1), ("fdb", 0)]
    {
        let shown = run(&mut show(&switch, view)?)?;
        assert_eq!(shown.lines().count(), 1 + rows, "{view}");
    }
    assert_eq!(run(&mut show(&switch, "filters")?)?.matches("main-mac").count(), PORTS);
    switch.finish()
}

fn show(switch: &Switch, view: &str) -> Result<Command> {
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["show", view, "--monitor"]).arg(switch.monitor());
    Ok(ringyard)
}

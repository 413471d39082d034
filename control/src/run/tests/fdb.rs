//! The commands for what hubs have learned.

use ringyard_dataplane::fdb::AGEING_S;

use super::*;
use crate::wire::{FDB_LIMIT_MAX, XQueryStats, XSetHub};

/// A run with the vhost-user netdevs `n0` and `n1` on hub 3, and `n2` on hub 4.
fn running_with_hubs() -> (Running, TestClient) {
    let running = Running::start();
    let mut client = running.client();
    for (number, hub) in [(0, 3), (1, 3), (2, 4)] {
        let (chardev, netdev) = (format!("c{number}"), format!("n{number}"));
        client.add_chardev(&chardev, &running.path(&chardev));
        client.done("netdev_add", json!({"type": "vhost-user", "id": netdev, "chardev": chardev}));
        let port = json!({"type": "hubport", "id": format!("h{number}"), "hubid": hub, "netdev": netdev});
        client.done("netdev_add", port);
    }
    (running, client)
}

impl TestClient {
    /// The addresses that a query finds, with their netdevs.
    fn addresses(&mut self, query: Value) -> Vec<String> {
        let answer =
            self.execute("x-query-fdb", query.clone()).unwrap_or_else(|error| panic!("{query}: {error}"));
        let entries = answer["entries"].as_array().expect("entries are a list");
        let text = |member: &Value| member.as_str().map(str::to_owned).expect("it is a text");
        entries.iter().map(|entry| format!("{} {}", text(&entry["mac"]), text(&entry["netdev"]))).collect()
    }

    fn refused(&mut self, name: &str, arguments: Value) -> String {
        self.execute(name, arguments.clone()).expect_err(&format!("{name} {arguments}"))
    }
}

const X: &str = "52:54:00:00:00:0a";
const Y: &str = "52:54:00:00:00:0b";

#[test]
fn addresses_are_entered_shown_and_deleted() {
    let (_running, mut client) = running_with_hubs();
    assert_eq!(client.addresses(json!({})), [] as [&str; 0]);
    client.done("x-fdb-add", json!({"hubid": 3, "mac": Y, "netdev": "n0"}));
    client.done("x-fdb-add", json!({"hubid": 3, "mac": X, "netdev": "n0"}));
    client.done("x-fdb-add", json!({"hubid": 4, "mac": X, "netdev": "n2"}));
    client.done("x-fdb-add", json!({"hubid": 3, "mac": Y, "netdev": "n1"}));
    let all = [format!("{X} n0"), format!("{Y} n1"), format!("{X} n2")];
    assert_eq!(client.addresses(json!({})), all);
    assert_eq!(client.addresses(json!({"hubid": 4})), all[2..]);
    assert_eq!(client.addresses(json!({"netdev": "n1"})), all[1..2]);
    let first = client.execute("x-query-fdb", json!({"hubid": 3, "netdev": "n0"})).expect("it is there");
    assert_eq!((&first["entries"][0]["hubid"], &first["entries"][0]["static"]), (&json!(3), &json!(true)));
    assert!(first["entries"][0]["age"].as_u64().is_some_and(|age| age < 60) && first["more"] == false);
    let one = client.execute("x-query-fdb", json!({"limit": 1})).expect("it is there");
    assert_eq!((one["entries"].as_array().map(Vec::len), &one["more"]), (Some(1), &json!(true)));
    client.done("x-fdb-flush", json!({}));
    assert_eq!(client.addresses(json!({})), all, "what is static stays");
    client.done("x-fdb-del", json!({"hubid": 3, "mac": Y}));
    client.done("netdev_del", json!({"id": "h2"}));
    assert_eq!(client.addresses(json!({})), all[..1], "what is behind a netdev that leaves its hub does not");
}

#[test]
fn what_cannot_be_done_with_addresses_is_said() {
    let (_running, mut client) = running_with_hubs();
    let entry = |hub: i32, netdev: &str| json!({"hubid": hub, "mac": X, "netdev": netdev});
    for (name, arguments, expected) in [
        ("x-fdb-add", entry(4, "n0"), "GenericError: netdev 'n0' is not on hub 4"),
        ("x-fdb-add", entry(9, "n0"), "GenericError: hub 9 not found"),
        ("x-fdb-add", entry(3, "h0"), "DeviceNotFound: Device 'h0' not found"),
        (
            "x-fdb-del",
            json!({"hubid": 3, "mac": X}),
            &format!("GenericError: address {X} not found on hub 3"),
        ),
        ("x-query-fdb", json!({"hubid": 9}), "GenericError: hub 9 not found"),
        ("x-query-fdb", json!({"netdev": "n9"}), "DeviceNotFound: Device 'n9' not found"),
        ("x-fdb-flush", json!({"netdev": "n9"}), "DeviceNotFound: Device 'n9' not found"),
        ("x-fdb-flush", json!({"x": 1}), "GenericError: Parameter 'x' is unexpected"),
        ("x-set-hub", json!({}), "GenericError: Parameter 'hubid' is missing"),
    ] {
        assert_eq!(client.refused(name, arguments), expected);
    }
    client.done("x-set-hub", json!({"hubid": 3, "learning": false}));
    let deaf = "GenericError: hub 3 does not learn or has no ports";
    assert_eq!(client.refused("x-fdb-add", entry(3, "n0")), deaf);
}

#[test]
fn a_hub_is_told_how_to_learn_and_says_so() {
    let (_running, mut client) = running_with_hubs();
    let hub = |client: &mut TestClient, id: i64| {
        let stats = client.execute("x-query-stats", json!({})).expect("it needs no arguments");
        let hubs = stats["hubs"].as_array().expect("hubs are a list").clone();
        hubs.into_iter().find(|hub| hub["hubid"] == id).expect("the hub is there")
    };
    let fresh = hub(&mut client, 3);
    assert_eq!((&fresh["learning"], &fresh["ageing"]), (&json!(true), &json!(AGEING_S)));
    client.done("x-set-hub", json!({"hubid": 3, "ageing": 5}));
    client.done("x-set-hub", json!({"hubid": 12, "learning": false}));
    client.done("x-fdb-add", json!({"hubid": 3, "mac": X, "netdev": "n0"}));
    let set = hub(&mut client, 3);
    assert_eq!(
        (&set["learning"], &set["ageing"], &set["fdb"]["entries"]),
        (&json!(true), &json!(5), &json!(1))
    );
    assert_eq!(hub(&mut client, 12)["learning"], false, "it is made on first use");
    let info = client.execute("human-monitor-command", json!({"command-line": "info fdb"}));
    let hubs = format!(
        "hub 3: learning=on,ageing=5,entries=1\r\n \\ {X}: n0,static\r\nhub 4: learning=on,ageing=300,entries=0\r\n\
         hub 12: learning=off\r\n"
    );
    assert_eq!(info, Ok(json!(hubs)));
    client.done("x-set-hub", json!({"hubid": 3, "learning": false}));
    client.done("x-set-hub", json!({"hubid": 3, "learning": true}));
    assert_eq!(client.addresses(json!({"hubid": 3})), [] as [&str; 0], "a hub that stops learning forgets");
    assert_eq!(hub(&mut client, 3)["ageing"], 5);
}

#[test]
fn answers_with_many_addresses_fit_into_a_line() {
    const LINE_MAX: usize = 256 << 10;
    let running = Running::start();
    let mut client = running.client();
    let netdev = "n".repeat(400);
    client.add_chardev("c0", &running.path("c0"));
    client.done("netdev_add", json!({"type": "vhost-user", "id": netdev, "chardev": "c0"}));
    client.done("netdev_add", json!({"type": "hubport", "id": "h0", "hubid": 0, "netdev": netdev}));
    for number in 0..=FDB_LIMIT_MAX {
        let mac = format!("52:54:00:00:{:02x}:{:02x}", number >> 8, number & 0xff);
        client.done("x-fdb-add", json!({"hubid": 0, "mac": mac, "netdev": netdev}));
    }
    let answer = client.execute("x-query-fdb", json!({})).expect("it needs no arguments");
    assert!(answer.to_string().len() < LINE_MAX && answer["more"] == true);
    assert!(answer["entries"].as_array().is_some_and(|entries| entries.len() > 300));
    let info = client.execute("human-monitor-command", json!({"command-line": "info fdb"}));
    let info = info.expect("it needs no arguments").to_string();
    assert!(info.len() < LINE_MAX && info.contains(" \\\\ ...\\r\\n"), "{} bytes", info.len());
}

#[test]
fn the_command_lines_hubs_are_set_before_their_ports_come() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let set = |learning, ageing| XSetHub { hubid: 6, learning, ageing };
    let hubs = vec![set(Some(false), Some(9)), set(Some(true), None)];
    let mut control = Control::start(&RunConfig { hubs, ..config(directory.path()) }, stopper())
        .expect("there is nothing to fail");
    let stats = control.model.query_stats(&XQueryStats::default()).expect("all ports are asked for");
    assert_eq!((stats.hubs[0].learning, stats.hubs[0].ageing), (true, 9));
    control.take_down();
}

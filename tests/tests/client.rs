//! The commands of the binary that speak with a running switch, as somebody at a shell uses them.

use std::process::Command;

use ringyard_tests::process::{command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, tools};
use serde_json::Value;

/// `ringyard WORDS --monitor PATH`
fn ask(switch: &Switch, words: &[&str]) -> Result<Command> {
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(words).arg("--monitor").arg(switch.monitor());
    Ok(ringyard)
}

fn said(switch: &Switch, words: &[&str]) -> Result<String> {
    run(&mut ask(switch, words)?)
}

/// What it says on stderr when it fails.
fn refused(switch: &Switch, words: &[&str]) -> Result<String> {
    let output = ask(switch, words)?.output().expect("it can be started");
    assert!(!output.status.success(), "{words:?}");
    assert!(output.stdout.is_empty(), "{words:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_switch_is_shown_and_changed_from_a_shell() -> Result<()> {
    let switch = Switch::start(&["-hub", "7,ageing=60"])?;
    let socket = switch.path("c0.sock");
    let chardev = serde_json::json!({"id": "c0", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": socket}}, "server": true, "wait": false}}});
    said(&switch, &["qmp", "chardev-add", &chardev.to_string()])?;
    assert_eq!(said(&switch, &["add", "vhost-user,id=n0,chardev=c0"])?, "");
    assert_eq!(said(&switch, &["add", r#"{"type":"hubport","id":"h0","hubid":7,"netdev":"n0"}"#])?, "");
    said(&switch, &["add", "nic,id=g0,netdev=n0,macaddr=52:54:00:00:00:07"])?;

    let ports = said(&switch, &["show", "ports"])?;
    let row: Vec<&str> = ports.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, ["n0", "vhost-user", "7", "down", "0", "0", "0", "0", "-"], "{ports}");
    assert!(said(&switch, &["show", "hubs"])?.contains("for 60 s"));
    assert!(said(&switch, &["show", "nics"])?.contains("52:54:00:00:00:07"));
    assert!(said(&switch, &["show", "filters"])?.contains("main-mac"));
    for view in ["drops", "workers", "fdb"] {
        assert!(said(&switch, &["show", view])?.ends_with('\n'));
    }
    let as_json: Value = serde_json::from_str(&said(&switch, &["show", "ports", "-j"])?).expect("it is JSON");
    assert_eq!(as_json[0]["name"], "n0");

    said(&switch, &["link", "n0", "down"])?;
    assert!(said(&switch, &["show", "ports"])?.contains("down (set)"));
    let network = r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}}"#;
    assert!(said(&switch, &["qmp", network])?.starts_with("hub 7\n \\ h0: n0: index=0,type=vhost-user,"));
    for id in ["h0", "g0", "n0"] {
        said(&switch, &["del", id])?;
    }
    assert_eq!(said(&switch, &["show", "ports"])?.lines().count(), 1);
    switch.finish()
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    assert_eq!(refused(&switch, &["del", "x"])?, "ringyard: netdev_del: Device 'x' not found\n");
    assert!(refused(&switch, &["add", "tap,id=t0,bogus=1"])?.contains("Parameter 'bogus' is unexpected"));
    assert!(refused(&switch, &["link", "x", "sideways"])?.contains("[possible values: up, down]"));
    assert!(refused(&switch, &["qmp", "{}"])?.contains("no \"execute\""));
    switch.order("query-status", serde_json::json!({}))?;
    let mut nobody = command(tools::switch_binary()?)?;
    let output = nobody.args(["show", "ports", "-m", "/no/such/socket"]).output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/no/such/socket") && text.contains("--monitor PATH"), "{text}");
    switch.finish()
}

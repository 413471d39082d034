//! A guest's NIC: QEMU with a machine that stands still, and a nic of ours.

use ringyard_tests::Result;

use crate::answer::View;
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const ROWS: &[(View, &str)] = &[
    (View::Shape, r#"{"execute": "query-rx-filter"}"#),
    (View::Shape, r#"{"execute": "query-rx-filter", "arguments": {"name": "net0"}}"#),
    (View::Values, r#"{"execute": "query-rx-filter", "arguments": {"name": "u0"}}"#),
    (View::Values, r#"{"execute": "query-rx-filter", "arguments": {"name": "h0"}}"#),
    (View::Values, r#"{"execute": "query-rx-filter", "arguments": {"name": "nosuch"}}"#),
    (View::Values, r#"{"execute": "set_link", "arguments": {"name": "net0", "up": false}}"#),
    (View::Values, r#"{"execute": "set_link", "arguments": {"name": "net0", "up": true}}"#),
    (View::Values, r#"{"execute": "set_link", "arguments": {"name": "u0", "up": false}}"#),
    (View::Values, r#"{"execute": "set_link", "arguments": {"name": "u0", "up": true}}"#),
    (
        View::Values,
        r#"{"execute": "announce-self", "arguments": {"initial": 1, "max": 1, "rounds": 2, "step": 1}}"#,
    ),
    (
        View::Values,
        r#"{"execute": "announce-self", "arguments": {"initial": 1, "max": 1, "rounds": 2, "step": 1, "interfaces": ["net0", "nosuch"], "id": "x"}}"#,
    ),
    (
        View::Values,
        r#"{"execute": "announce-self", "arguments": {"initial": 1, "max": 1, "rounds": 0, "step": 1, "id": "x"}}"#,
    ),
    (View::Shape, r#"{"execute": "query-version"}"#),
    (View::Shape, r#"{"execute": "query-name"}"#),
    (View::Shape, r#"{"execute": "query-commands"}"#),
    (View::Shape, r#"{"execute": "query-status"}"#),
    (View::Values, r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}}"#),
    (View::Values, r#"{"execute": "netdev_del", "arguments": {"id": "u0"}}"#),
    (
        View::Values,
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 2}"#,
    ),
    (
        View::Values,
        r#"{"execute": "netdev_add", "arguments": {"type": "socket", "id": "u0", "udp": "127.0.0.1:3", "localaddr": "127.0.0.1:4"}}"#,
    ),
    (
        View::Values,
        r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 3}"#,
    ),
    (View::Values, r#"{"execute": "netdev_del", "arguments": {"id": "u0"}, "id": 3}"#),
    (
        View::Values,
        r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "net0", "hubid": 1}}"#,
    ),
    (View::Values, r#"{"execute": "netdev_del", "arguments": {"id": "net0"}}"#),
    (View::Values, r#"{"execute": "stop"}"#),
    (View::Values, r#"{"execute": "cont"}"#),
];

#[test]
fn a_nic_is_shown_and_filtered_as_in_qemu() -> Result<()> {
    let netdev = "socket,id=u0,udp=127.0.0.1:1,localaddr=127.0.0.1:2";
    let hub = "hubport,id=h0,hubid=0";
    let both = ["-netdev", netdev, "-netdev", hub];
    let qemu = [
        "-machine",
        "pc",
        "-m",
        "16",
        "-S",
        "-device",
        "virtio-net-pci,id=net0,netdev=u0,mac=52:54:00:aa:bb:cc",
    ];
    let ours = ["-netdev", "nic,id=net0,netdev=u0,macaddr=52:54:00:aa:bb:cc"];
    let mut pair = Pair::start_with(&[both.as_slice(), &qemu].concat(), &[both.as_slice(), &ours].concat())?;
    let mut comparison = Comparison::new(differences::MACHINE);
    for (view, row) in ROWS {
        comparison.say(&mut pair, *view, row)?;
    }
    comparison.finish()
}

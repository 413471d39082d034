//! Hub ports, and what holds on to what: added, shown and taken away in every order.

use ringyard_tests::Result;

use crate::answer::View;
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

/// One story over one pair; `info network` tells it.
const STORY: &[&str] = &[
    "info network",
    "!hubport,id=h0,hubid=0",
    "info network",
    "!hubport,id=h0,hubid=0",
    "!hubport,id=h0,hubid=7",
    "!hubport,id=hx,hubid=1,netdev=nosuch",
    "!hubport,id=hy,hubid=2,netdev=",
    "info network",
    "!dgram,id=a",
    "!socket,id=h0,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
    "!socket,id=a,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
    "!socket,id=b,udp=127.0.0.1:3,localaddr=127.0.0.1:4",
    "!socket,id=c,udp=127.0.0.1:5,localaddr=127.0.0.1:6",
    "info network",
    "!hubport,id=ha,hubid=0,netdev=a",
    "!hubport,id=hb,hubid=-5,netdev=b",
    "!hubport,id=hc,hubid=0,netdev=c",
    "info network",
    "set_link a off",
    "set_link ha off",
    "set_link a on",
    "set_link ha on",
    "netdev_del hb",
    "info network",
    "!hubport,id=hb,hubid=3,netdev=b",
    "info network",
    "netdev_del a",
    "info network",
    "!socket,id=a,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
    "info network",
    "netdev_del a",
    "netdev_del ha",
    "netdev_del ha",
    "netdev_del h0",
    "netdev_del hc",
    "info network",
    "netdev_del c",
    "netdev_del b",
    "netdev_del hb",
    "info network",
];

#[test]
fn hubs_come_and_go_and_are_shown_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::HUBS);
    for (number, line) in STORY.iter().enumerate() {
        // Lines recur; each has its place in the story.
        let line = line.replace('!', "netdev_add ");
        comparison.type_line(&mut pair, &format!("{number}: {line}"), &line)?;
    }
    comparison.finish()
}

/// The same said in QMP, where texts come with classes.
const COMMANDS: &[&str] = &[
    r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "h0", "hubid": -2147483648}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "h0", "hubid": 0}, "id": 2}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "h0", "hubid": "x"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "dgram", "id": "h0"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "stream", "id": "h0", "addr": {"type": "unix", "path": "x"}}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "tap", "id": "h0", "fd": "1", "fds": "2"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "none", "id": "h0"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "netmap", "id": "h0", "ifname": "x"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "hx", "hubid": 1, "netdev": "nosuch"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "hx", "hubid": 1, "netdev": "hx"}}"#,
    r#"{"execute": "query-rx-filter", "arguments": {"name": "h0"}}"#,
    r#"{"execute": "query-rx-filter", "arguments": {"name": "hx"}}"#,
    r#"{"execute": "query-rx-filter", "arguments": {"name": ""}}"#,
    r#"{"execute": "query-rx-filter"}"#,
    r#"{"execute": "set_link", "arguments": {"name": "h0", "up": false}}"#,
    r#"{"execute": "set_link", "arguments": {"name": "h0", "up": false}}"#,
    r#"{"execute": "set_link", "arguments": {"name": "h0", "up": true}}"#,
    r#"{"execute": "set_link", "arguments": {"name": "", "up": true}}"#,
    r#"{"execute": "set_link", "arguments": {"name": "H0", "up": true}}"#,
    r#"{"execute": "netdev_del", "arguments": {"id": "h0"}}"#,
    r#"{"execute": "netdev_del", "arguments": {"id": "h0"}}"#,
    r#"{"execute": "set_link", "arguments": {"name": "h0", "up": true}}"#,
];

#[test]
fn hub_ports_are_refused_in_qemus_words() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::HUB_COMMANDS);
    comparison.say_all(&mut pair, View::Values, COMMANDS)?;
    comparison.finish()
}

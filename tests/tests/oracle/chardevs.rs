//! Chardevs, and the `vhost-user` netdevs over them.

use ringyard_tests::Result;

use crate::answer::View;
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const ROWS: &[&str] = &[
    r#"{"execute": "query-chardev"}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c0"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c0"}}, "server": true, "wait": false}}}, "id": 1}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "null", "data": {}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "e"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "1a", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "e"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c1", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "nosuch"}}, "server": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c1", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c1"}}, "reconnect": 1}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c1", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c1"}}, "server": true, "reconnect": 1}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c1", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c1"}}, "server": true, "wait": false, "reconnect": 0}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c2", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "nosuch"}}, "server": false, "reconnect": 10}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "nosuch"}}, "server": false, "wait": true}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "nosuch"}}, "server": false, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "/no/such/directory"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": ""}}, "server": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "nosuch"}}}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "t0", "backend": {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}, "server": true, "wait": false}}}}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "n0", "backend": {"type": "null", "data": {}}}}"#,
    r#"{"execute": "query-chardev"}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "nosuch"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "n0"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "t0"}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "c0", "queues": 0}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "c0", "queues": 1025}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "c0", "queues": -1}}"#,
    r#"{"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "nosuch", "queues": 0}}"#,
    r#"{"execute": "chardev-remove", "arguments": {"id": "nosuch"}}"#,
    r#"{"execute": "chardev-remove", "arguments": {"id": "c0"}}"#,
    r#"{"execute": "chardev-remove", "arguments": {"id": "c0"}, "id": 2}"#,
    r#"{"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c0"}}, "server": true, "wait": false}}}, "id": 2}"#,
];

#[test]
fn chardevs_are_made_and_refused_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::CHARDEVS);
    for (number, row) in ROWS.iter().enumerate() {
        let view = if row.contains("query-chardev") { View::Shape } else { View::Values };
        comparison.say_as(&mut pair, view, &format!("{number}: {row}"), row)?;
    }
    comparison.finish()
}

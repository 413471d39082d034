//! Netdevs over sockets: `stream`, `dgram`, and the older `socket`.

use std::fs;

use ringyard_tests::Result;
use ringyard_tests::error::Doing;

use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

/// `stream`: what goes wrong later is no error.
const STREAM: &[&str] = &[
    r#"{"type": "stream", "addr": {"type": "inet", "host": "127.0.0.1", "port": "1"}}"#,
    r#"{"type": "stream", "addr": {"type": "inet", "host": "nosuch.invalid", "port": "1"}}"#,
    r#"{"type": "stream", "addr": {"type": "inet", "host": "", "port": ""}}"#,
    r#"{"type": "stream", "addr": {"type": "inet", "host": "127.0.0.1", "port": "abc"}}"#,
    r#"{"type": "stream", "addr": {"type": "inet", "host": "127.0.0.1", "port": "1", "ipv4": false, "ipv6": false}}"#,
    r#"{"type": "stream", "addr": {"type": "inet", "host": "127.0.0.1", "port": "1", "keep-alive": true}}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": "nosuch"}}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": ""}}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": "a", "abstract": true}}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": "a", "tight": false}}"#,
    r#"{"type": "stream", "addr": {"type": "fd", "str": "99"}}"#,
    r#"{"type": "stream", "addr": {"type": "fd", "str": "nosuch"}}"#,
    r#"{"type": "stream", "addr": {"type": "fd", "str": "9x"}}"#,
    r#"{"type": "stream", "server": true, "addr": {"type": "inet", "host": "10.9.9.9", "port": "1"}}"#,
    r#"{"type": "stream", "server": true, "addr": {"type": "unix", "path": "/no/such/directory"}}"#,
    r#"{"type": "stream", "server": true, "addr": {"type": "unix", "path": "s"}}"#,
    r#"{"type": "stream", "server": false, "addr": {"type": "unix", "path": "s"}}"#,
    r#"{"type": "stream", "server": true, "addr": {"type": "fd", "str": "99"}}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": "s"}, "reconnect": 1}"#,
    r#"{"type": "stream", "addr": {"type": "unix", "path": "s"}, "reconnect-ms": 1}"#,
    r#"{"type": "stream", "addr": {"type": "vsock", "cid": "x", "port": "1"}}"#,
];

/// `dgram`: what is wrong is said at once.
const DGRAM: &[&str] = &[
    r#"{"type": "dgram"}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "127.0.0.1", "port": "1"}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "230.0.0.1", "port": "abc"}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "230.0.0.1", "port": ""}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "::1", "port": "12"}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "nosuch.invalid", "port": "12"}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "1.2.3", "port": "12"}}"#,
    r#"{"type": "dgram", "remote": {"type": "unix", "path": "/x"}}"#,
    r#"{"type": "dgram", "remote": {"type": "fd", "str": "3"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "1"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "a"}}"#,
    r#"{"type": "dgram", "local": {"type": "vsock", "cid": "1", "port": "1"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "nosuch"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "9x"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "99"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": ""}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "-1"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "99999999999"}}"#,
    r#"{"type": "dgram", "local": {"type": "fd", "str": "99"}, "remote": {"type": "unix", "path": "x"}}"#,
    r#"{"type": "dgram", "local": {"type": "vsock", "cid": "1", "port": "1"}, "remote": {"type": "vsock", "cid": "1", "port": "1"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "", "port": "1"}, "remote": {"type": "vsock", "cid": "1", "port": "1"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "a"}, "remote": {"type": "inet", "host": "", "port": "9"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "", "port": "9"}, "remote": {"type": "unix", "path": "a"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "", "port": "9"}, "remote": {"type": "fd", "str": "a"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": ""}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "13"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "1.2.3.4.5", "port": "1"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "13"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "1"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "x"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "1"}, "remote": {"type": "inet", "host": "nosuch.invalid", "port": "1"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "10.9.9.9", "port": "1"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "13"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "abc", "port": "1"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "", "port": "1"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "10.9.9.9", "port": "1"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "x"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "local": {"type": "vsock", "cid": "1", "port": "1"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "directory"}, "remote": {"type": "unix", "path": "b"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "/no/such/directory"}, "remote": {"type": "unix", "path": "b"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": ""}, "remote": {"type": "unix", "path": "b"}}"#,
];

/// `dgram` that can be had, with what is shown of it.
const DGRAM_SHOWN: &[&str] = &[
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "18100"}, "remote": {"type": "inet", "host": "localhost", "port": "18101"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.1", "port": "013"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "0x50"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "", "port": "70000"}, "remote": {"type": "inet", "host": "", "port": "-1"}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "18100"}, "remote": {"type": "inet", "host": "127.0.0.2", "port": "18101"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "a"}, "remote": {"type": "unix", "path": "b"}}"#,
    r#"{"type": "dgram", "local": {"type": "unix", "path": "a"}, "remote": {"type": "unix", "path": ""}}"#,
    r#"{"type": "dgram", "local": {"type": "inet", "host": "127.1", "port": "1"}, "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "dgram", "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}}"#,
    r#"{"type": "socket", "udp": "127.0.0.1:5", "localaddr": "127.0.0.1:6"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1:1234"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "10.0.0.1"}"#,
    r#"{"type": "socket", "listen": ":1234"}"#,
];

/// `socket`
const SOCKET: &[&str] = &[
    r#"{"type": "socket"}"#,
    r#"{"type": "socket", "listen": ":1", "connect": ":1"}"#,
    r#"{"type": "socket", "fd": "1", "udp": ":1"}"#,
    r#"{"type": "socket", "localaddr": "127.0.0.1"}"#,
    r#"{"type": "socket", "listen": ":1", "localaddr": "127.0.0.1"}"#,
    r#"{"type": "socket", "connect": ":1", "localaddr": "127.0.0.1"}"#,
    r#"{"type": "socket", "fd": "1", "localaddr": "127.0.0.1"}"#,
    r#"{"type": "socket", "listen": ""}"#,
    r#"{"type": "socket", "listen": "17200"}"#,
    r#"{"type": "socket", "listen": ":abc"}"#,
    r#"{"type": "socket", "listen": ":"}"#,
    r#"{"type": "socket", "listen": "1.2.3.4.5:1"}"#,
    r#"{"type": "socket", "listen": "nosuch.invalid:1"}"#,
    r#"{"type": "socket", "listen": "::1:1"}"#,
    r#"{"type": "socket", "listen": "10.9.9.9:1"}"#,
    r#"{"type": "socket", "connect": ""}"#,
    r#"{"type": "socket", "connect": "127.0.0.1"}"#,
    r#"{"type": "socket", "connect": "127.0.0.1:x"}"#,
    r#"{"type": "socket", "connect": "nosuch.invalid:1"}"#,
    r#"{"type": "socket", "connect": "10.9.9.9.9:1"}"#,
    r#"{"type": "socket", "connect": "192.0.2.1:1"}"#,
    r#"{"type": "socket", "udp": "127.0.0.1:5"}"#,
    r#"{"type": "socket", "udp": "5", "localaddr": "127.0.0.1:6"}"#,
    r#"{"type": "socket", "udp": "127.0.0.1:x", "localaddr": "y"}"#,
    r#"{"type": "socket", "udp": "127.0.0.1:5", "localaddr": "y"}"#,
    r#"{"type": "socket", "udp": "127.0.0.1:5", "localaddr": "10.9.9.9:5"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1"}"#,
    r#"{"type": "socket", "mcast": "127.0.0.1:1234"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "x"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "10.0.0.1:1"}"#,
    r#"{"type": "socket", "mcast": "230.0.0.1:1234", "localaddr": "10.9.9.9"}"#,
    r#"{"type": "socket", "fd": "99"}"#,
    r#"{"type": "socket", "fd": "0"}"#,
    r#"{"type": "socket", "fd": "9x"}"#,
    r#"{"type": "socket", "fd": "nosuch"}"#,
    r#"{"type": "socket", "fd": ""}"#,
];

#[test]
fn socket_netdevs_are_refused_in_qemus_words() -> Result<()> {
    let mut pair = Pair::start()?;
    for side in [&pair.qemu, &pair.ours] {
        fs::create_dir(side.directory().join("directory")).doing("making a directory")?;
    }
    let mut comparison = Comparison::new(differences::SOCKETS);
    comparison.add_and_keep_all(&mut pair, STREAM)?;
    for rows in [DGRAM, SOCKET] {
        comparison.add_all(&mut pair, rows)?;
    }
    comparison.show_all(&mut pair, DGRAM_SHOWN)?;
    comparison.finish()
}

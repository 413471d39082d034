//! `user`: the options of a network behind libslirp, and the rules that come later.

use ringyard_tests::Result;

use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const ROWS: &[&str] = &[
    r#"{"type": "user", "ipv4": false, "net": "10.0.2.0/24"}"#,
    r#"{"type": "user", "ipv4": false, "host": "10.0.2.2"}"#,
    r#"{"type": "user", "ipv4": false, "dns": "10.0.2.3"}"#,
    r#"{"type": "user", "ipv4": false, "dhcpstart": "10.0.2.15"}"#,
    r#"{"type": "user", "ipv6": true, "net": "10.0.2.0/24"}"#,
    r#"{"type": "user", "ipv6": false, "ipv6-prefix": "fec0::"}"#,
    r#"{"type": "user", "ipv6": false, "ipv6-prefixlen": 64}"#,
    r#"{"type": "user", "ipv6": false, "ipv6-host": "fec0::2"}"#,
    r#"{"type": "user", "ipv6": false, "ipv6-dns": "fec0::3"}"#,
    r#"{"type": "user", "ipv4": false, "ipv6": false}"#,
    r#"{"type": "user", "net": ""}"#,
    r#"{"type": "user", "net": "x"}"#,
    r#"{"type": "user", "net": "10.0.2"}"#,
    r#"{"type": "user", "net": "10.0.2.256"}"#,
    r#"{"type": "user", "net": "10.0.2.0/"}"#,
    r#"{"type": "user", "net": "10.0.2.0/x"}"#,
    r#"{"type": "user", "net": "10.0.2.0/24x"}"#,
    r#"{"type": "user", "net": "10.0.2.0/3"}"#,
    r#"{"type": "user", "net": "10.0.2.0/33"}"#,
    r#"{"type": "user", "net": "10.0.2.0/-1"}"#,
    r#"{"type": "user", "net": "10.0.2.0/255.255.255"}"#,
    r#"{"type": "user", "net": "10.0.2.0/255.255.255.0x"}"#,
    r#"{"type": "user", "net": "10.0.2.0/0xff"}"#,
    r#"{"type": "user", "ip": "x"}"#,
    r#"{"type": "user", "host": "x"}"#,
    r#"{"type": "user", "host": "10.0.3.2"}"#,
    r#"{"type": "user", "net": "192.168.5.0/24", "host": "10.0.2.2"}"#,
    r#"{"type": "user", "host": ""}"#,
    r#"{"type": "user", "dns": "x"}"#,
    r#"{"type": "user", "dns": "8.8.8.8", "restrict": true}"#,
    r#"{"type": "user", "dns": "10.0.2.2", "restrict": true}"#,
    r#"{"type": "user", "dns": "10.0.2.2"}"#,
    r#"{"type": "user", "dhcpstart": "x"}"#,
    r#"{"type": "user", "dhcpstart": "10.0.3.15"}"#,
    r#"{"type": "user", "dhcpstart": "10.0.2.2"}"#,
    r#"{"type": "user", "dhcpstart": "10.0.2.3"}"#,
    r#"{"type": "user", "smbserver": "x"}"#,
    r#"{"type": "user", "ipv6-prefix": "x"}"#,
    r#"{"type": "user", "ipv6-prefix": "10.0.0.1"}"#,
    r#"{"type": "user", "ipv6-prefixlen": 127}"#,
    r#"{"type": "user", "ipv6-prefixlen": -1}"#,
    r#"{"type": "user", "ipv6-host": "x"}"#,
    r#"{"type": "user", "ipv6-host": "fec1::2"}"#,
    r#"{"type": "user", "ipv6-dns": "x"}"#,
    r#"{"type": "user", "ipv6-dns": "fec1::3", "restrict": true}"#,
    r#"{"type": "user", "domainname": ""}"#,
    r#"{"type": "user", "tftp-server-name": ""}"#,
    r#"{"type": "user", "hostname": ""}"#,
    r#"{"type": "user", "hostfwd": [{"str": ""}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "sctp::1-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp:1"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp:x:1-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::x-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::65536-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::-1-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-x:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-:x"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-:0"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-:65536"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::1-:"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp:10.9.9.9:1-:2"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::17400-:2"}, {"str": "tcp::17400-:3"}]}"#,
    r#"{"type": "user", "hostfwd": [{"str": "unix:/tmp/x-:2"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": ""}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.100"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "udp:10.0.2.100:1-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:x:1-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.100:x-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.100:0-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.100:65536-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.3.100:1-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.2:1-cmd:cat"}]}"#,
    r#"{"type": "user", "guestfwd": [{"str": "tcp:10.0.2.100:1-cmd:cat"}, {"str": "tcp:10.0.2.100:1-cmd:cat"}]}"#,
    r#"{"type": "user", "tftp": "/no/such/directory"}"#,
    r#"{"type": "user", "smb": "/no/such/directory"}"#,
];

const SHOWN: &[&str] = &[
    r#"{"type": "user"}"#,
    r#"{"type": "user", "restrict": true}"#,
    r#"{"type": "user", "ipv4": true}"#,
    r#"{"type": "user", "ipv6": true}"#,
    r#"{"type": "user", "ipv4": false}"#,
    r#"{"type": "user", "ipv6": false}"#,
    r#"{"type": "user", "net": "192.168.76.0/24"}"#,
    r#"{"type": "user", "net": "192.168.76.9/255.255.255.0", "host": "192.168.76.1"}"#,
    r#"{"type": "user", "net": "172.16.0.0"}"#,
    r#"{"type": "user", "net": "130.0.0.0"}"#,
    r#"{"type": "user", "net": "10.0.2.0/4"}"#,
    r#"{"type": "user", "net": "10.0.2.0/32"}"#,
    r#"{"type": "user", "ip": "192.168.5.9"}"#,
    r#"{"type": "user", "dns": "8.8.8.8"}"#,
    r#"{"type": "user", "ipv6-prefixlen": 0}"#,
    r#"{"type": "user", "ipv6-prefix": "fd00::", "ipv6-prefixlen": 126}"#,
    r#"{"type": "user", "hostfwd": [{"str": "tcp::17401-:22"}, {"str": "udp:127.0.0.1:17401-10.0.2.15:22"}, {"str": "::17402-:22"}]}"#,
    r#"{"type": "user", "hostname": "x", "domainname": "example.org", "dnssearch": [{"str": "a"}, {"str": "b"}]}"#,
];

/// Rules for a netdev at work.
const RULES: &[&str] = &[
    "hostfwd_add",
    "hostfwd_add tcp::17500-:22",
    "hostfwd_remove tcp::17500",
    "info usernet",
    "netdev_add user,id=u0,net=192.168.76.0/24",
    "hostfwd_add",
    "hostfwd_add u0",
    "hostfwd_add x y",
    "hostfwd_add nosuch tcp::17500-:22",
    "hostfwd_add a b c",
    "hostfwd_add u0 bogus",
    "hostfwd_add u0 tcp:x:1-:2",
    "hostfwd_add u0 tcp:127.0.0.1:17500-:22",
    "hostfwd_add u0 tcp:127.0.0.1:17500-:22",
    "hostfwd_add tcp:127.0.0.1:17501-:23",
    "hostfwd_remove",
    "hostfwd_remove a b c",
    "hostfwd_remove nosuch tcp::17500",
    "hostfwd_remove u0",
    "hostfwd_remove u0 x",
    "hostfwd_remove u0 tcp",
    "hostfwd_remove u0 tcp:x:1",
    "hostfwd_remove u0 tcp::x",
    "hostfwd_remove u0 sctp::1",
    "hostfwd_remove u0 tcp::17500",
    "hostfwd_remove u0 udp:127.0.0.1:17500",
    "hostfwd_remove u0 tcp:127.0.0.1:17500",
    "hostfwd_remove u0 tcp:127.0.0.1:17500",
    "hostfwd_remove tcp:127.0.0.1:17501",
    "info network",
    "netdev_del u0",
    "hostfwd_remove tcp:127.0.0.1:17501",
];

#[test]
fn user_netdevs_are_refused_in_qemus_words() -> Result<()> {
    let may_run = ["--may-run", "cat", "--may-run", "/usr/sbin/smbd"];
    let mut pair = Pair::start_with(&["-machine", "none"], &may_run)?;
    let mut comparison = Comparison::new(differences::USERS);
    comparison.add_all(&mut pair, ROWS)?;
    comparison.show_all(&mut pair, SHOWN)?;
    comparison.finish()
}

#[test]
fn rules_of_user_netdevs_change_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::USER_RULES);
    for (number, line) in RULES.iter().enumerate() {
        comparison.type_line(&mut pair, &format!("{number}: {line}"), line)?;
    }
    comparison.finish()
}

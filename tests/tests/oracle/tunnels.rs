//! Netdevs that reach further: `l2tpv3`, `vde`, `vhost-vdpa`.

use ringyard_tests::Result;

use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const ROWS: &[&str] = &[
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "offset": 257}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "offset": 257, "txcookie": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "txcookie": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "rxcookie": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "rxcookie": 1, "udp": true}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true, "srcport": "1"}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true, "dstport": "1"}"#,
    r#"{"type": "l2tpv3", "src": "nosuch.invalid", "dst": "10.0.0.2", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "nosuch.invalid", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "::1", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "::1", "dst": "10.0.0.1", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.1", "txsession": 1, "ipv6": true}"#,
    r#"{"type": "l2tpv3", "src": "10.9.9.9", "dst": "10.0.0.2", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.9.9.9", "dst": "nosuch.invalid", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true, "srcport": "x", "dstport": "1"}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true, "srcport": "1", "dstport": "x"}"#,
    r#"{"type": "l2tpv3", "src": "", "dst": "10.0.0.2", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "", "txsession": 1}"#,
    r#"{"type": "vhost-vdpa"}"#,
    r#"{"type": "vhost-vdpa", "vhostdev": "/nonexistent", "vhostfd": "3"}"#,
    r#"{"type": "vhost-vdpa", "vhostdev": "/nonexistent"}"#,
    r#"{"type": "vhost-vdpa", "vhostdev": ""}"#,
    r#"{"type": "vhost-vdpa", "vhostdev": "directory"}"#,
    r#"{"type": "vhost-vdpa", "vhostdev": "/dev/null"}"#,
    r#"{"type": "vhost-vdpa", "vhostfd": "nosuch"}"#,
    r#"{"type": "vhost-vdpa", "vhostfd": "9x"}"#,
    r#"{"type": "vhost-vdpa", "vhostfd": "99"}"#,
    r#"{"type": "vde"}"#,
    r#"{"type": "vde", "sock": "/nonexistent"}"#,
    r#"{"type": "vde", "sock": ""}"#,
];

const SHOWN: &[&str] = &[
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "offset": 256}"#,
    r#"{"type": "l2tpv3", "src": "10.0.0.1", "dst": "10.0.0.2", "txsession": 1, "udp": true, "srcport": "1", "dstport": "2"}"#,
    r#"{"type": "l2tpv3", "src": "::1", "dst": "::1", "txsession": 1, "ipv6": true}"#,
];

#[test]
fn tunnels_are_refused_in_qemus_words() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::TUNNELS);
    comparison.add_all(&mut pair, ROWS)?;
    comparison.show_all(&mut pair, SHOWN)?;
    comparison.finish()
}

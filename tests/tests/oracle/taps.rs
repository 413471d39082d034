//! `tap` and `bridge`.

use ringyard_tests::Result;

use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const ROWS: &[&str] = &[
    r#"{"type": "tap", "fd": "3", "ifname": "t"}"#,
    r#"{"type": "tap", "fd": "3", "script": "no"}"#,
    r#"{"type": "tap", "fd": "3", "downscript": "no"}"#,
    r#"{"type": "tap", "fd": "3", "vnet_hdr": true}"#,
    r#"{"type": "tap", "fd": "3", "helper": "h"}"#,
    r#"{"type": "tap", "fd": "3", "queues": 1}"#,
    r#"{"type": "tap", "fd": "3", "fds": "4"}"#,
    r#"{"type": "tap", "fd": "3", "vhostfds": "4"}"#,
    r#"{"type": "tap", "fd": "nosuch"}"#,
    r#"{"type": "tap", "fd": "9x"}"#,
    r#"{"type": "tap", "fd": "99"}"#,
    r#"{"type": "tap", "fd": "0"}"#,
    r#"{"type": "tap", "fd": ""}"#,
    r#"{"type": "tap", "fds": "3", "ifname": "t"}"#,
    r#"{"type": "tap", "fds": "3", "script": "no"}"#,
    r#"{"type": "tap", "fds": "3", "downscript": "no"}"#,
    r#"{"type": "tap", "fds": "3", "vnet_hdr": false}"#,
    r#"{"type": "tap", "fds": "3", "helper": "h"}"#,
    r#"{"type": "tap", "fds": "3", "queues": 1}"#,
    r#"{"type": "tap", "fds": "3", "vhostfd": "4"}"#,
    r#"{"type": "tap", "fds": "nosuch"}"#,
    r#"{"type": "tap", "fds": "9x:nosuch"}"#,
    r#"{"type": "tap", "fds": "98:99", "vhostfds": "0"}"#,
    r#"{"type": "tap", "helper": "h", "ifname": "t"}"#,
    r#"{"type": "tap", "helper": "h", "script": "no"}"#,
    r#"{"type": "tap", "helper": "h", "downscript": "no"}"#,
    r#"{"type": "tap", "helper": "h", "vnet_hdr": true}"#,
    r#"{"type": "tap", "helper": "h", "queues": 1}"#,
    r#"{"type": "tap", "helper": "h", "vhostfds": "1"}"#,
    r#"{"type": "tap", "helper": "/no/such/helper"}"#,
    r#"{"type": "tap", "helper": "/bin/false"}"#,
    r#"{"type": "tap", "helper": "/bin/true"}"#,
    r#"{"type": "tap", "helper": "exit 3"}"#,
    r#"{"type": "tap", "vhostfds": "1"}"#,
    r#"{"type": "tap", "ifname": "lo", "script": "no"}"#,
    r#"{"type": "tap", "ifname": "v0", "script": "no"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "/bin/false"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "/no/such/script"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "exit 3"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "/etc/passwd"}"#,
    r#"{"type": "tap", "ifname": "t0", "queues": 2, "script": "/bin/false"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "vhost": false, "vhostfd": "3"}"#,
    r#"{"type": "tap", "ifname": "a/b", "script": "no"}"#,
    r#"{"type": "tap", "ifname": "sixteen-bytes-name", "script": "no"}"#,
    r#"{"type": "tap", "ifname": "a%db", "script": "no"}"#,
    r#"{"type": "bridge"}"#,
    r#"{"type": "bridge", "br": "nosuch"}"#,
    r#"{"type": "bridge", "helper": "/no/such/helper"}"#,
    r#"{"type": "bridge", "helper": "/bin/false"}"#,
    r#"{"type": "bridge", "helper": "exit 3"}"#,
    r#"{"type": "bridge", "br": "", "helper": ""}"#,
];

const SHOWN: &[&str] = &[
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "", "downscript": "no"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": ""}"#,
    r#"{"type": "tap", "ifname": "t%d", "script": "no", "downscript": "no"}"#,
    r#"{"type": "tap", "ifname": "", "script": "no", "downscript": "no"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "/bin/true", "downscript": "/bin/true"}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "queues": 1}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "queues": 2}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "vnet_hdr": true, "sndbuf": 1000000}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "vnet_hdr": false, "sndbuf": 0}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "vhost": false, "poll-us": 10}"#,
    r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": "no", "br": "unused"}"#,
];

#[test]
fn taps_are_refused_in_qemus_words() -> Result<()> {
    let programs = ["/bin/true", "/bin/false", "/no/such/helper", "/no/such/script", "exit 3", "/etc/passwd"];
    let may_run: Vec<&str> = programs.iter().flat_map(|program| ["--may-run", program]).collect();
    let mut pair = Pair::start_with(&["-machine", "none"], &may_run)?;
    let mut comparison = Comparison::new(differences::TAPS);
    comparison.add_all(&mut pair, ROWS)?;
    comparison.add_ours_all(&mut pair, differences::TAPS_UNASKED)?;
    comparison.show_all(&mut pair, SHOWN)?;
    comparison.finish()
}

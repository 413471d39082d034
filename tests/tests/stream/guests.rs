//! Guests on either side: one behind QEMU's own stream netdev, one on a vhost-user port, whose segments are cut here.

use ringyard_tests::Result;
use ringyard_tests::guest::{BOOT_TIME_MAX, Guest, GuestConfig, NetAttach};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use serde_json::json;

use crate::bench::{PATIENCE, plug, unix, wait_info};

#[test]
fn guest_behind_qemu_exchanges_files_with_one_that_leaves_segmenting_to_us() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let path = switch.path("stream.sock");
    plug(&mut switch, "stream", 0, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
    wait_info(&mut switch, "stream", "listening")?;
    let ring = switch.plug_listening("ring", 0)?;
    let netdev = format!("stream,id=n0,addr.type=unix,addr.path={}", path.display());
    let behind = NetAttach::Raw(vec!["-netdev".into(), netdev]);
    let mut guests = [
        Guest::start(&slot, GuestConfig::new(1, behind))?,
        Guest::start(&slot, GuestConfig::new(2, NetAttach::connect(&ring)))?,
    ];
    for guest in &mut guests {
        guest.wait_booted(BOOT_TIME_MAX)?;
        guest.expect("mkdir /www; dd if=/dev/urandom of=/www/file bs=64k count=64; httpd -p 8000 -h /www")?;
    }
    for name in ["stream", "ring"] {
        switch.wait_carrier(name, PATIENCE)?;
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let sum = guests[from].expect("sha256sum </www/file")?;
        for host in [format!("10.0.0.{}", from + 1), format!("[fd00::{}]", from + 1)] {
            let fetched = guests[to].expect(&format!("wget -q -O - http://{host}:8000/file | sha256sum"))?;
            assert_eq!(fetched.split_whitespace().next(), sum.split_whitespace().next());
        }
    }
    let stats = switch.stats()?;
    let port = stats.port("stream").expect("it is plugged");
    assert!(port.egress.segments > 1000, "the guest sent no long frames: {port:?}");
    assert_eq!(port.egress.drops.get("io_error"), None);
    switch.finish()
}

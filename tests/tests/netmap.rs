//! `netmap` over the monitor, as far as that goes without the kernel module: what cannot be opened says why and leaves
//! nothing behind. Against the module itself, run the driver's example `netmap`.

use ringyard_tests::Result;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

#[test]
fn port_that_cannot_be_opened_names_the_device_and_the_module() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut refusal = |ifname: &str, devname: &str| {
        let netdev = json!({"type": "netmap", "id": "n", "ifname": ifname, "devname": devname});
        switch.qmp().execute("netdev_add", netdev).expect_err("there is no such port").desc
    };
    for ifname in ["vale0:a", "netmap:em0", "em0-1"] {
        assert_eq!(
            refusal(ifname, "/dev/no-netmap"),
            format!(
                "Failed to nm_open() {ifname}: could not open /dev/no-netmap: No such file or directory; is the kernel \
                 module 'netmap' loaded?"
            )
        );
    }
    let other_device = refusal("em0", "/dev/null");
    assert_eq!(other_device, "Failed to nm_open() em0: NETMAP_REQ_REGISTER: Inappropriate ioctl for device");
    let monitor = refusal("em0/r", "/dev/null");
    assert_eq!(monitor, "Failed to nm_open() em0/r: '/r' makes a monitor, which nothing can be sent to");
    let missing: Value = json!({"type": "netmap", "id": "n"});
    let error = switch.qmp().execute("netdev_add", missing).expect_err("a member is missing");
    assert_eq!(error.desc, "Parameter 'ifname' is missing");
    assert_eq!(switch.order("query-netdev", json!({}))?, json!([]));
    switch.finish()
}

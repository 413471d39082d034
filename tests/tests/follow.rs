//! A real guest's driver says what it wants to receive, and the switch honours it: `x-follow`.

use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::guest::{Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Error, Result};
use serde_json::{Value, json};

/// The filter of the guest's nic, once `condition` holds for it.
fn filter(switch: &mut Switch, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(what, WITHIN, || {
        let filter = switch.order("query-rx-filter", json!({"name": "vm1-nic"}))?[0].take();
        Ok(condition(&filter).then_some(filter))
    })
}

fn lists(filter: &Value, table: &str, item: &Value) -> bool {
    filter[table].as_array().is_some_and(|items| items.contains(item))
}

/// Whether the guest's ring gets `frame`, of which 20 are sent.
fn is_received(switch: &mut Switch, host: &PacketSocket, frame: &[u8]) -> Result<bool> {
    let count = |switch: &mut Switch, port: &str| {
        let stats = switch.stats()?;
        let port = stats.port(port).ok_or_else(|| Error::new("a port is missing"))?;
        Ok::<_, Error>((port.ingress.frames, port.egress.frames))
    };
    let (before, heard) = (count(switch, "vm1")?.1, count(switch, "t0")?.0);
    (0..20).try_for_each(|_| host.send(frame))?;
    wait_for("the frames to be switched", WITHIN, || {
        Ok((count(switch, "t0")?.0 >= heard + 20).then_some(()))
    })?;
    // What the namespace's kernel says of its own accord is less.
    Ok(count(switch, "vm1")?.1 >= before + 20)
}

#[test]
fn groups_and_vlans_that_a_guest_joins_reach_it_and_others_do_not() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let host = Netns::new()?;
    switch.plug_tap("t0", 0, &host, &[])?;
    let socket = switch.plug_listening("vm1", 0)?;
    let config = GuestConfig::new(1, NetAttach::connect(socket));
    let mac = config.mac.clone();
    let mut guest = Guest::boot(&slot, config)?;
    let nic = json!({"type": "nic", "id": "vm1-nic", "netdev": "vm1", "macaddr": mac,
        "x-follow": guest.monitor_path()});
    switch.order("netdev_add", nic)?;
    let own = filter(&mut switch, "the driver's filter", |filter| filter["vlan"] == "normal")?;
    assert_eq!((&own["main-mac"], &own["promiscuous"]), (&json!(mac), &json!(false)), "{own}");
    assert_eq!(own["broadcast-allowed"], true);

    guest.expect("ip -6 addr add fd00::abcd/64 dev eth0")?;
    let group = json!("33:33:ff:00:ab:cd");
    filter(&mut switch, "the group", |filter| lists(filter, "multicast-table", &group))?;
    switch.qmp().wait_event("NIC_RX_FILTER_CHANGED", WITHIN)?;
    guest.expect("ip link add link eth0 name eth0.5 type vlan id 5 && ip link set eth0.5 up")?;
    filter(&mut switch, "the VLAN", |filter| lists(filter, "vlan-table", &json!(5)))?;

    let socket = PacketSocket::open(&host, "t0")?;
    let to = |destination: [u8; 6]| {
        let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5]].concat();
        frame.resize(64, 0);
        frame
    };
    let (joined, other) = (to([0x33, 0x33, 0xff, 0, 0xab, 0xcd]), to([0x01, 0, 0x5e, 9, 9, 9]));
    assert!(is_received(&mut switch, &socket, &joined)?);
    assert!(!is_received(&mut switch, &socket, &other)?);
    let own = to([0x52, 0x54, 0, 0, 0, 1]);
    assert!(is_received(&mut switch, &socket, &tagged(&own, 5))?);
    assert!(!is_received(&mut switch, &socket, &tagged(&own, 6))?);

    guest.expect("ip link del eth0.5")?;
    filter(&mut switch, "the VLAN to go", |filter| !lists(filter, "vlan-table", &json!(5)))?;
    assert!(!is_received(&mut switch, &socket, &tagged(&own, 5))?);
    switch.finish()
}

#[test]
fn the_guest_sees_the_link_that_the_switch_has() -> Result<()> {
    let slot = Slot::take()?;
    let mut switch = Switch::start(&[])?;
    let socket = switch.plug_listening("vm1", 0)?;
    let config = GuestConfig::new(1, NetAttach::connect(socket));
    let mac = config.mac.clone();
    let mut guest = Guest::boot(&slot, config)?;
    let nic = json!({"type": "nic", "id": "vm1-nic", "netdev": "vm1", "macaddr": mac,
        "x-follow": guest.monitor_path()});
    switch.order("netdev_add", nic)?;
    filter(&mut switch, "the driver's filter", |filter| filter["vlan"] == "normal")?;
    for (up, carrier) in [(false, "0"), (true, "1"), (false, "0")] {
        switch.order("set_link", json!({"name": "vm1", "up": up}))?;
        guest.expect(&format!(
            "until [ $(cat /sys/class/net/eth0/carrier) = {carrier} ]; do sleep 0.1; done"
        ))?;
    }
    // A machine that has gone leaves the filter that nics have at first.
    guest.kill()?;
    let first = filter(&mut switch, "the first filter", |filter| filter["vlan"] == "all")?;
    assert_eq!((&first["multicast"], &first["multicast-table"]), (&json!("all"), &json!([])));
    switch.finish()
}

const WITHIN: Duration = Duration::from_secs(20);

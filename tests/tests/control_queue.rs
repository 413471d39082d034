//! A real guest whose driver says by its control queue what it wants to receive, and the switch honours it, at once.

use std::collections::BTreeSet;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::uml::UmlGuest;
use ringyard_tests::{Error, Result};
use serde_json::{Value, json};

/// A switch with a tap `t0`, the guest `vm1`, and the guest's nic `vm1-nic`.
struct World {
    // Dropped first: the guest goes before the switch.
    guest: UmlGuest,
    host: PacketSocket,
    _netns: Netns,
    switch: Switch,
    _slot: Slot,
}

impl World {
    fn new(nic: Value) -> Result<World> {
        let slot = Slot::take()?;
        let mut switch = Switch::start(&[])?;
        let netns = Netns::new()?;
        switch.plug_tap("t0", 0, &netns, &[])?;
        let socket = switch.plug_listening("vm1", 0)?;
        let mut add =
            json!({"type": "nic", "id": "vm1-nic", "netdev": "vm1", "macaddr": "52:54:00:00:00:01"});
        add.as_object_mut().expect("an object").extend(nic.as_object().cloned().unwrap_or_default());
        switch.order("netdev_add", add)?;
        let guest = UmlGuest::boot(&slot, 1, &socket)?;
        let host = PacketSocket::open(&netns, "t0")?;
        Ok(World { guest, host, _netns: netns, switch, _slot: slot })
    }

    /// The filter that the switch has. The driver waits for each command's answer, so it is what the guest said last.
    fn filter(&mut self) -> Result<Value> {
        Ok(self.switch.order("query-rx-filter", json!({"name": "vm1-nic"}))?[0].take())
    }

    /// Whether the guest's ring gets `frame`, of which 20 are sent.
    fn is_received(&mut self, frame: &[u8]) -> Result<bool> {
        let count = |switch: &mut Switch, port: &str| {
            let stats = switch.stats()?;
            let port = stats.port(port).ok_or_else(|| Error::new("a port is missing"))?;
            Ok::<_, Error>((port.ingress.frames, port.egress.frames))
        };
        let (before, heard) = (count(&mut self.switch, "vm1")?.1, count(&mut self.switch, "t0")?.0);
        (0..20).try_for_each(|_| self.host.send(frame))?;
        wait_for("the frames to be switched", WITHIN, || {
            Ok((count(&mut self.switch, "t0")?.0 >= heard + 20).then_some(()))
        })?;
        // What the namespace's kernel says of its own accord is less.
        let received = count(&mut self.switch, "vm1")?.1 - before >= 20;
        Ok(received)
    }

    fn wait_guest(&mut self, condition: &str) -> Result<()> {
        self.guest.expect(&format!("until {condition}; do sleep 0.1; done")).map(drop)
    }
}

fn to(destination: [u8; 6]) -> Vec<u8> {
    let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5]].concat();
    frame.resize(64, 0);
    frame
}

fn lists(filter: &Value, table: &str, item: Value) -> bool {
    filter[table].as_array().is_some_and(|items| items.contains(&item))
}

#[test]
fn groups_vlans_and_addresses_that_a_guest_takes_reach_it_and_others_do_not() -> Result<()> {
    let mut world = World::new(json!({}))?;
    let filter = world.filter()?;
    assert_eq!((&filter["main-mac"], &filter["promiscuous"]), (&json!(OWN_NAME), &json!(false)), "{filter}");
    for member in ["vlan", "unicast", "multicast"] {
        assert_eq!(filter[member], "normal", "{filter}");
    }
    assert!(world.guest.expect("cat /sys/class/net/eth0/address")?.contains(OWN_NAME));
    world.guest.expect("ping -c 1 -W 1 10.0.0.1")?;

    assert!(world.is_received(&to(OWN))?);
    assert!(!world.is_received(&to(OTHER))?);
    assert!(!world.is_received(&to(GROUP))?);
    world.guest.expect("/bin/ip maddr add 01:00:5e:09:09:09 dev eth0")?;
    assert!(lists(&world.filter()?, "multicast-table", json!("01:00:5e:09:09:09")));
    assert!(world.is_received(&to(GROUP))?);
    assert!(!world.is_received(&to([0x01, 0, 0x5e, 9, 9, 10]))?);
    world.guest.expect("/bin/ip maddr del 01:00:5e:09:09:09 dev eth0")?;
    assert!(!world.is_received(&to(GROUP))?);

    assert!(!world.is_received(&tagged(&to(OWN), 5))?);
    world.guest.expect("/bin/ip link add link eth0 name eth0.5 type vlan id 5")?;
    world.guest.expect("/bin/ip link set eth0.5 up")?;
    assert!(lists(&world.filter()?, "vlan-table", json!(5)));
    assert!(world.is_received(&tagged(&to(OWN), 5))?);
    assert!(!world.is_received(&tagged(&to(OWN), 6))?);
    world.wait_guest("[ $(cat /sys/class/net/eth0.5/statistics/rx_packets) -ge 20 ]")?;
    world.guest.expect("/bin/ip link del eth0.5")?;
    assert!(!world.is_received(&tagged(&to(OWN), 5))?);

    world.guest.expect("/bin/ip link set eth0 address 52:54:00:00:00:77")?;
    assert_eq!(world.filter()?["main-mac"], "52:54:00:00:00:77");
    assert!(world.is_received(&to(OTHER))?);
    assert!(!world.is_received(&to(OWN))?);
    world.switch.finish()
}

#[test]
fn a_guest_that_listens_to_everything_gets_it_until_it_stops() -> Result<()> {
    let mut world = World::new(json!({}))?;
    let received = world.guest.counter("eth0", "rx_packets")?;
    assert!(!world.is_received(&to(OTHER))?);
    assert!(world.guest.counter("eth0", "rx_packets")? < received + 20, "it never came to the ring");
    world.guest.expect("/bin/ip link set eth0 promisc on")?;
    assert_eq!(world.filter()?["promiscuous"], true);
    assert!(world.is_received(&to(OTHER))?);
    world
        .wait_guest(&format!("[ $(cat /sys/class/net/eth0/statistics/rx_packets) -ge {} ]", received + 20))?;
    world.guest.expect("/bin/ip link set eth0 promisc off")?;
    assert_eq!(world.filter()?["promiscuous"], false);
    assert!(!world.is_received(&to(OTHER))?);
    world.switch.finish()
}

#[test]
fn a_change_is_told_once_until_somebody_asks() -> Result<()> {
    let mut world = World::new(json!({}))?;
    world.switch.qmp().wait_event("NIC_RX_FILTER_CHANGED", WITHIN)?;
    world.filter()?;
    world.guest.expect("/bin/ip maddr add 01:00:5e:09:09:09 dev eth0")?;
    let event = world.switch.qmp().wait_event("NIC_RX_FILTER_CHANGED", WITHIN)?;
    assert_eq!(event["data"]["name"], "vm1-nic", "{event}");
    world.guest.expect("/bin/ip maddr add 01:00:5e:09:09:0a dev eth0")?;
    let again = world.switch.qmp().wait_event("NIC_RX_FILTER_CHANGED", Duration::from_millis(500));
    assert!(again.is_err(), "nobody asked: {again:?}");
    assert!(lists(&world.filter()?, "multicast-table", json!("01:00:5e:09:09:0a")));
    world.guest.expect("/bin/ip maddr del 01:00:5e:09:09:0a dev eth0")?;
    world.switch.qmp().wait_event("NIC_RX_FILTER_CHANGED", WITHIN)?;
    world.switch.finish()
}

#[test]
fn the_guest_sees_the_link_that_the_switch_has() -> Result<()> {
    let mut world = World::new(json!({}))?;
    for (name, up, carrier) in
        [("vm1", false, 0), ("vm1", true, 1), ("vm1-nic", false, 0), ("vm1-nic", true, 1)]
    {
        world.switch.order("set_link", json!({"name": name, "up": up}))?;
        world.wait_guest(&format!("[ $(cat /sys/class/net/eth0/carrier) = {carrier} ]"))?;
    }
    world.switch.finish()
}

#[test]
fn a_guest_that_is_asked_announces_all_its_addresses() -> Result<()> {
    let mut world = World::new(json!({}))?;
    world.guest.expect("/bin/ip addr add 10.0.0.200/24 dev eth0")?;
    let announce = json!({"initial": 50, "max": 100, "rounds": 3, "step": 10});
    world.switch.order("announce-self", announce)?;
    let mut announced = BTreeSet::new();
    wait_for("the guest to speak for both of its addresses", WITHIN, || {
        let frame = world.host.receive(Duration::from_millis(100))?;
        // Gratuitous ARP: sender and target are one. The switch itself says RARP.
        let arp = frame.filter(|frame| frame.len() >= 42 && frame[12..14] == [8, 6]);
        let own = arp.filter(|frame| frame[28..32] == frame[38..42]);
        announced.extend(own.map(|frame| frame[28..32].to_vec()));
        Ok((announced.len() == 2).then_some(()))
    })?;
    assert_eq!(announced, BTreeSet::from([vec![10, 0, 0, 1], vec![10, 0, 0, 200]]));
    world.switch.finish()
}

#[test]
fn a_guest_that_stands_by_is_told() -> Result<()> {
    let mut world = World::new(json!({"x-failover": true}))?;
    let event = world.switch.qmp().wait_event("FAILOVER_NEGOTIATED", WITHIN)?;
    assert_eq!(event["data"], json!({"device-id": "vm1-nic"}));
    world.switch.finish()
}

const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const OWN_NAME: &str = "52:54:00:00:00:01";
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x77];
const GROUP: [u8; 6] = [0x01, 0, 0x5e, 9, 9, 9];
const WITHIN: Duration = Duration::from_secs(20);

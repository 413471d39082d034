//! Plugging things into the switch over its monitor, as a manager does: a chardev and a netdev for a guest, a netdev
//! for a tap, each with a hubport when it is to be on a hub.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::GuestConfig;
use ringyard_benches::traffic::guest_mac;
use serde_json::{Value, json};

use crate::error::{Doing, Result};
use crate::netns::Netns;
use crate::process::{command, run};
use crate::switch::Switch;

impl Switch {
    /// Adds the vhost-user netdev `name` on `hub`, which listens; the socket to connect to.
    pub fn plug_listening(&mut self, name: &str, hub: u32) -> Result<PathBuf> {
        self.plug_listening_queues(name, hub, 1)
    }

    /// As [`Self::plug_listening`], with `queues` queue pairs.
    pub fn plug_listening_queues(&mut self, name: &str, hub: u32, queues: u32) -> Result<PathBuf> {
        let socket = self.path(&format!("{name}.sock"));
        let backend = json!({"addr": unix(&socket), "server": true, "wait": false});
        self.plug_vhost_user(name, hub, backend, queues)?;
        Ok(socket)
    }

    /// Plugs built-in guest `index` into hub 0, under the name `gINDEX`, with a nic of its address.
    pub fn plug_guest(&mut self, index: usize, config: &GuestConfig) -> Result<FrontEnd> {
        let name = format!("g{index}");
        let socket = self.plug_listening(&name, 0)?;
        self.plug_nic(&name, &guest_mac(index).to_string())?;
        let guest = FrontEnd::connect(&socket, config).doing("plugging a guest in")?;
        self.wait_carrier(&name, PLUG_TIME_MAX)?;
        Ok(guest)
    }

    /// Adds the vhost-user netdev `name` on `hub`, which connects to the socket returned, again every second.
    pub fn plug_connecting(&mut self, name: &str, hub: u32) -> Result<PathBuf> {
        let socket = self.path(&format!("{name}.sock"));
        let backend = json!({"addr": unix(&socket), "server": false, "reconnect": 1});
        self.plug_vhost_user(name, hub, backend, 1)?;
        Ok(socket)
    }

    /// Adds the tap netdev `name` on `hub`, and brings its interface up in `netns` under the same name.
    pub fn plug_tap(&mut self, name: &str, hub: u32, netns: &Netns, addresses: &[&str]) -> Result<()> {
        self.plug_tap_with(name, hub, netns, addresses, &json!({}))
    }

    /// As [`Switch::plug_tap`], with further members of the netdev, such as `vnet_hdr`.
    pub fn plug_tap_with(
        &mut self,
        name: &str,
        hub: u32,
        netns: &Netns,
        addresses: &[&str],
        members: &Value,
    ) -> Result<()> {
        let interface = unique_interface();
        let mut netdev =
            json!({"type": "tap", "id": name, "ifname": interface, "script": "no", "downscript": "no"});
        for (member, value) in members.as_object().into_iter().flatten() {
            netdev[member] = value.clone();
        }
        self.order("netdev_add", netdev)?;
        self.plug_into_hub(name, hub)?;
        netns.adopt(&interface)?;
        netns.ip(&format!("link set {interface} name {name}"))?;
        netns.bring_up(name, addresses)
    }

    /// Adds the af-packet netdev `name` on `hub`, on an interface that is joined to one of that name in `netns`, which comes
    /// up with these addresses; the interface's name.
    pub fn plug_af_packet(
        &mut self,
        name: &str,
        hub: u32,
        netns: &Netns,
        addresses: &[&str],
        members: &Value,
    ) -> Result<String> {
        let interface = unique_interface();
        join_to_ours(netns, name, &interface, addresses)?;
        let mut netdev = json!({"type": "af-packet", "id": name, "ifname": interface});
        for (member, value) in members.as_object().into_iter().flatten() {
            netdev[member] = value.clone();
        }
        self.order("netdev_add", netdev)?;
        self.plug_into_hub(name, hub)?;
        Ok(interface)
    }

    /// Adds a nic with this MAC address to the netdev `name`: from then on the port takes what its filter says.
    pub fn plug_nic(&mut self, name: &str, mac: &str) -> Result<()> {
        let nic = json!({"type": "nic", "id": nic(name), "netdev": name, "macaddr": mac});
        self.order("netdev_add", nic).map(drop)
    }

    /// Removes the netdev `name` with the nic, the hubport and the chardev that the methods above gave it.
    pub fn unplug(&mut self, name: &str) -> Result<()> {
        // Not every netdev has a nic.
        let _ = self.qmp().execute("netdev_del", json!({"id": nic(name)}));
        self.order("netdev_del", json!({"id": hubport(name)}))?;
        self.order("netdev_del", json!({"id": name}))?;
        let chardevs = self.order("query-chardev", json!({}))?;
        let chardevs = chardevs.as_array().map(Vec::as_slice).unwrap_or_default();
        if chardevs.iter().any(|known| known["label"] == chardev(name).as_str()) {
            self.order("chardev-remove", json!({"id": chardev(name)}))?;
        }
        Ok(())
    }

    /// Runs a command that must succeed.
    pub fn order(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = arguments.to_string();
        self.qmp().execute(command, arguments).doing(format!("{command} {text}"))
    }

    fn plug_vhost_user(&mut self, name: &str, hub: u32, backend: Value, queues: u32) -> Result<()> {
        let backend = json!({"type": "socket", "data": backend});
        self.order("chardev-add", json!({"id": chardev(name), "backend": backend}))?;
        let netdev = json!({"type": "vhost-user", "id": name, "chardev": chardev(name), "queues": queues});
        self.order("netdev_add", netdev)?;
        self.plug_into_hub(name, hub)
    }

    fn plug_into_hub(&mut self, name: &str, hub: u32) -> Result<()> {
        let port = json!({"type": "hubport", "id": hubport(name), "hubid": hub, "netdev": name});
        self.order("netdev_add", port).map(drop)
    }
}

/// Makes the interface `ours`, up and without addresses, in the test's own namespace, joined to `theirs` in `netns`.
pub fn join_to_ours(netns: &Netns, theirs: &str, ours: &str, addresses: &[&str]) -> Result<()> {
    let ip = |arguments: &str| run(command("ip")?.args(arguments.split_whitespace())).map(drop);
    ip(&format!("link add {ours} type veth peer name {theirs} netns {}", netns.name()))?;
    ip(&format!("link set {ours} addrgenmode none up"))?;
    netns.bring_up(theirs, addresses)
}

/// A name that is free in the whole machine, for an interface that is yet to move into its namespace: tests run side by
/// side, in one process and in several.
pub fn unique_interface() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only the number's uniqueness counts.
    format!("ry{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn unix(socket: &Path) -> Value {
    json!({"type": "unix", "data": {"path": socket}})
}

fn chardev(name: &str) -> String {
    format!("{name}-chardev")
}

fn nic(name: &str) -> String {
    format!("{name}-nic")
}

fn hubport(name: &str) -> String {
    format!("{name}-hubport")
}

/// From a guest's connection to its carrier.
const PLUG_TIME_MAX: Duration = Duration::from_secs(5);

//! Plugging things into the switch over its monitor, as a manager does: a chardev and a netdev for a guest, a netdev
//! for a tap, each with a hubport when it is to be on a hub.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Doing, Result};
use crate::netns::Netns;
use crate::switch::Switch;

impl Switch {
    /// Adds the vhost-user netdev `name` on `hub`, which listens; the socket to connect to.
    pub fn plug_listening(&mut self, name: &str, hub: u32) -> Result<PathBuf> {
        let socket = self.path(&format!("{name}.sock"));
        let backend = json!({"addr": unix(&socket), "server": true, "wait": false});
        self.plug_vhost_user(name, hub, backend)?;
        Ok(socket)
    }

    /// Adds the vhost-user netdev `name` on `hub`, which connects to the socket returned, again every second.
    pub fn plug_connecting(&mut self, name: &str, hub: u32) -> Result<PathBuf> {
        let socket = self.path(&format!("{name}.sock"));
        let backend = json!({"addr": unix(&socket), "server": false, "reconnect": 1});
        self.plug_vhost_user(name, hub, backend)?;
        Ok(socket)
    }

    /// Adds the tap netdev `name` on `hub`, and brings its interface up in `netns` under the same name.
    pub fn plug_tap(&mut self, name: &str, hub: u32, netns: &Netns, addresses: &[&str]) -> Result<()> {
        // An interface's name must be free in the whole machine until the namespace has it.
        let interface = format!("{name}-{}", std::process::id());
        let netdev =
            json!({"type": "tap", "id": name, "ifname": interface, "script": "no", "downscript": "no"});
        self.order("netdev_add", netdev)?;
        self.plug_into_hub(name, hub)?;
        netns.adopt(&interface)?;
        netns.ip(&format!("link set {interface} name {name}"))?;
        netns.bring_up(name, addresses)
    }

    /// Removes the netdev `name` with the hubport and the chardev that the methods above gave it.
    pub fn unplug(&mut self, name: &str) -> Result<()> {
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

    fn plug_vhost_user(&mut self, name: &str, hub: u32, backend: Value) -> Result<()> {
        let backend = json!({"type": "socket", "data": backend});
        self.order("chardev-add", json!({"id": chardev(name), "backend": backend}))?;
        self.order("netdev_add", json!({"type": "vhost-user", "id": name, "chardev": chardev(name)}))?;
        self.plug_into_hub(name, hub)
    }

    fn plug_into_hub(&mut self, name: &str, hub: u32) -> Result<()> {
        let port = json!({"type": "hubport", "id": hubport(name), "hubid": hub, "netdev": name});
        self.order("netdev_add", port).map(drop)
    }
}

fn unix(socket: &Path) -> Value {
    json!({"type": "unix", "data": {"path": socket}})
}

fn chardev(name: &str) -> String {
    format!("{name}-chardev")
}

fn hubport(name: &str) -> String {
    format!("{name}-hubport")
}

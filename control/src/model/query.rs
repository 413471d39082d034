//! `query-netdev`: the backends, as they could be added again.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Model;
use super::netdev::{Backend, Driver, Netdev, Part};
use crate::open::OpenTap;

impl Model {
    /// `query-netdev`, newest first; nics and hub ports are no backends.
    pub fn query_netdev(&self) -> Value {
        let info = |(_, netdev): (&str, &Netdev)| match &netdev.part {
            Part::Backend(backend) => Some(netdev_info(netdev, backend)),
            _ => None,
        };
        self.by_age().into_iter().rev().filter_map(info).collect()
    }
}

fn netdev_info(netdev: &Netdev, backend: &Backend) -> Value {
    let mut members = netdev.spec.members();
    if let Driver::Tap(tap) = &backend.driver {
        complete_tap(&mut members, tap);
    }
    if let Some(peer) = backend.nic.as_ref().or(backend.hubport.as_ref()) {
        members.insert("peer-id".into(), json!(peer));
    }
    members.into()
}

/// Adds what only the open tap knows, and takes out what goes without saying.
fn complete_tap(members: &mut Map<String, Value>, tap: &OpenTap) {
    if let Some(fd) = members.shift_remove("fd") {
        members.insert("fds".into(), fd);
    }
    for member in ["vnet_hdr", "vhost"] {
        if members.get(member) == Some(&json!(false)) {
            members.shift_remove(member);
        }
    }
    if !members.contains_key("fds") {
        members.insert("ifname".into(), json!(tap.port.ifname()));
        members.insert("script".into(), json!(script_name(&tap.script)));
        members.insert("downscript".into(), json!(script_name(&tap.downscript)));
    }
}

/// How a script, or none, is written.
pub(super) fn script_name(script: &Option<PathBuf>) -> String {
    script.as_deref().unwrap_or(Path::new("no")).display().to_string()
}

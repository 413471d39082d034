//! `info network`: the text that people and upstream's tests know.
//!
//! Hubs come first, the newest first, each with its ports; then the nics with what they stand on, and the netdevs that
//! stand alone. A netdev with a nic on a hub shows in both places, followed by
//! its captures. Lines end in CR LF.

use std::collections::HashMap;
use std::fmt::Write;

use super::Model;
use super::netdev::{Driver, Netdev, NicPart, Part};
use crate::wire::NetdevKind;

impl Model {
    /// `info network`
    pub fn info_network(&self) -> String {
        let netdevs = self.by_age();
        let mut ports: HashMap<i32, Vec<String>> = HashMap::new();
        for (id, netdev) in netdevs.iter().rev() {
            if let Part::Hubport(port) = &netdev.part {
                let peer = port.netdev.as_ref().and_then(|id| self.info_of(id));
                let lines = ports.entry(port.hub).or_default();
                lines.push(format!(" \\ {id}{}", with_colon(peer)));
                lines.extend(self.capture_lines_of(&port.netdev));
            }
        }
        let mut text = String::new();
        for hub in self.hubs.iter().rev() {
            line(&mut text, &format!("hub {hub}"));
            ports.get(hub).into_iter().flatten().for_each(|port| line(&mut text, port));
        }
        for (id, netdev) in netdevs {
            match &netdev.part {
                Part::Hubport(_) => {}
                Part::Nic(nic) => {
                    line(&mut text, &self.info_line(id, netdev));
                    let peer = nic.netdev.as_ref().and_then(|id| self.info_of(id));
                    if let Some(peer) = peer.or_else(|| nic.ghost.clone()) {
                        line(&mut text, &format!(" \\ {peer}"));
                    }
                    self.capture_lines_of(&nic.netdev).iter().for_each(|capture| line(&mut text, capture));
                }
                Part::Backend(backend) if backend.nic.is_none() && backend.hubport.is_none() => {
                    let queues = 0..queue_count(netdev);
                    queues.for_each(|queue| line(&mut text, &queue_line(id, netdev, queue)));
                    self.capture_lines(backend).iter().for_each(|capture| line(&mut text, capture));
                }
                Part::Backend(_) => {}
            }
        }
        text
    }

    /// An object's line without its end; of several queues, the first one's.
    pub(super) fn info_line(&self, id: &str, netdev: &Netdev) -> String {
        queue_line(id, netdev, 0)
    }

    /// The lines of the captures of a netdev that is named.
    fn capture_lines_of(&self, id: &Option<String>) -> Vec<String> {
        match id.as_ref().and_then(|id| self.netdevs.get(id)) {
            Some(Netdev { part: Part::Backend(backend), .. }) => self.capture_lines(backend),
            _ => Vec::new(),
        }
    }

    fn info_of(&self, id: &str) -> Option<String> {
        self.netdevs.get(id).map(|netdev| self.info_line(id, netdev))
    }
}

/// Adds a line and its end.
pub(super) fn line(text: &mut String, line: &str) {
    // Writing into a string cannot fail.
    let _ = write!(text, "{line}\r\n");
}

fn with_colon(peer: Option<String>) -> String {
    peer.map(|peer| format!(": {peer}")).unwrap_or_default()
}

fn queue_line(id: &str, netdev: &Netdev, queue: usize) -> String {
    let (kind, mut info) = match &netdev.part {
        Part::Backend(backend) => match &backend.driver {
            Driver::VhostUser { chardev, .. } => ("vhost-user", format!("vhost-user{queue} to {chardev}")),
            Driver::Port(port) => {
                let info = backend.state.clone().unwrap_or_else(|| port.info(queue));
                (port_type(netdev), info)
            }
        },
        Part::Nic(nic) => ("nic", nic_info(netdev, nic)),
        Part::Hubport(_) => ("hubport", String::new()),
    };
    let cut = (0..=INFO_BYTES_MAX.min(info.len())).rev().find(|&end| info.is_char_boundary(end));
    info.truncate(cut.unwrap_or(0));
    let index = if matches!(kind, "vhost-user" | "af-xdp") { queue } else { 0 };
    format!("{id}: index={index},type={kind},{info}")
}

fn nic_info(netdev: &Netdev, nic: &NicPart) -> String {
    let mut info = format!("model=virtio,macaddr={}", nic.filter.main_mac);
    if let NetdevKind::Nic(spec) = &netdev.spec.kind {
        info.extend(spec.addr.iter().map(|addr| format!(",addr={addr}")));
        info.extend(nic.follower.iter().map(|follower| format!(",x-follow={}", follower.state)));
        info.extend(spec.vectors.iter().map(|vectors| format!(",vectors={vectors}")));
    }
    info
}

/// The type of an opened port as it is shown: a bridge is a tap.
fn port_type(netdev: &Netdev) -> &'static str {
    match &netdev.spec.kind {
        NetdevKind::Port(spec) => spec.type_name(),
        _ => netdev.spec.type_name(),
    }
}

/// How many queues a netdev has.
pub(super) fn queue_count(netdev: &Netdev) -> usize {
    match (&netdev.part, &netdev.spec.kind) {
        (_, NetdevKind::VhostUser(spec)) => usize::from(spec.queues),
        (Part::Backend(backend), _) => match &backend.driver {
            Driver::Port(port) => port.queues(),
            Driver::VhostUser { .. } => 1,
        },
        _ => 1,
    }
}

/// Longer ones are cut, as in QEMU.
const INFO_BYTES_MAX: usize = 255;

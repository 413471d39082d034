//! A small model of what a switch's commands promise.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::step::{Role, Step};

/// An error's class and text.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    class: String,
    desc: String,
}

impl Refusal {
    /// As a monitor says it.
    pub fn new(class: &str, desc: impl Into<String>) -> Refusal {
        Refusal { class: class.into(), desc: desc.into() }
    }

    /// As the human monitor prints it.
    pub fn human(printed: &str) -> Refusal {
        let desc = printed.strip_prefix("Error: ").and_then(|text| text.strip_suffix("\r\n"));
        Refusal::new("", desc.unwrap_or(printed))
    }
}

/// All that there is, oldest first.
pub struct Yard {
    directory: PathBuf,
    objects: Vec<Object>,
    hubs: Vec<i32>,
    chardevs: BTreeMap<&'static str, Chardev>,
    events: Vec<Value>,
}

struct Object {
    id: &'static str,
    link: bool,
    kind: Kind,
}

enum Kind {
    Backend {
        members: Value,
        nic: Option<&'static str>,
        hubport: Option<&'static str>,
    },
    Nic {
        netdev: Option<&'static str>,
        mac: String,
        ghost: Option<String>,
        promiscuous: bool,
        is_event_due: bool,
    },
    Hubport {
        hub: i32,
        netdev: Option<&'static str>,
    },
}

struct Chardev {
    role: Role,
    user: Option<&'static str>,
}

type Answer = Result<Value, Refusal>;

impl Yard {
    /// An empty one, whose sockets are in `directory`.
    pub fn new(directory: PathBuf) -> Yard {
        let (objects, hubs, chardevs, events) = Default::default();
        Yard { directory, objects, hubs, chardevs, events }
    }

    /// Takes a step; what is to be answered.
    pub fn apply(&mut self, step: &Step) -> Answer {
        let answer = match step {
            Step::AddHubport { id, hubid, netdev, .. } => self.add_hubport(id, *hubid, *netdev),
            Step::AddNic { id, netdev, macaddr } => self.add_nic(id, *netdev, *macaddr),
            Step::AddStream { id, .. } | Step::AddDgram { id } => self.add_socket(id, step),
            Step::AddVhostUser { id, chardev, queues } => self.add_vhost_user(id, chardev, *queues),
            Step::NetdevDel { id, .. } => self.delete(id),
            Step::SetLink { name, up, .. } => self.set_link(name, *up),
            Step::ChardevAdd { id, role } => self.add_chardev(id, *role),
            Step::ChardevRemove { id } => self.remove_chardev(id),
            Step::QueryRxFilter { name } => return self.query_filter(*name),
            Step::SetRxFilter { name, promiscuous } => self.set_filter(name, *promiscuous),
            Step::AnnounceSelf { rounds: ..0, .. } => {
                generic("Parameter 'rounds' expects a non-negative value")
            }
            Step::AnnounceSelf { .. } => Ok(()),
            Step::SetHub { hubid } => {
                self.note_hub(*hubid);
                Ok(())
            }
        };
        match answer {
            Err(refusal) if step.human_line().is_some() => Err(Refusal { class: String::new(), ..refusal }),
            answer => answer.map(|()| json!({})),
        }
    }

    /// What `query-netdev` returns.
    pub fn netdevs(&self) -> Value {
        let shown = |object: &Object| match &object.kind {
            Kind::Backend { members, nic, hubport } => {
                let mut members = members.clone();
                nic.or(*hubport).iter().for_each(|peer| members["peer-id"] = (*peer).into());
                Some(members)
            }
            _ => None,
        };
        self.objects.iter().rev().filter_map(shown).collect()
    }

    /// What `query-chardev` returns; nobody ever connects.
    pub fn chardevs(&self) -> Value {
        let shown = |(id, chardev): (&&str, &Chardev)| {
            let server = if chardev.role == Role::Server { ",server=on" } else { "" };
            let path = self.chardev_path(id);
            let filename = format!("disconnected:unix:{path}{server}");
            json!({"label": id, "filename": filename, "frontend-open": chardev.user.is_some()})
        };
        self.chardevs.iter().map(shown).collect()
    }

    /// What the counters tell of each port, in the order of its text.
    pub fn ports(&self) -> Vec<Value> {
        let port = |object: &Object| {
            let Kind::Backend { members, nic, hubport } = &object.kind else { return None };
            let hubport = hubport.and_then(|id| self.find(id));
            let hub = hubport.and_then(|port| match port.kind {
                Kind::Hubport { hub, .. } => Some(hub),
                _ => None,
            });
            let nic = nic.and_then(|id| self.find(id));
            let link = object.link && [nic, hubport].into_iter().flatten().all(|other| other.link);
            Some(json!({"name": object.id, "type": members["type"], "link": link, "hub": hub}))
        };
        let mut ports: Vec<Value> = self.objects.iter().filter_map(port).collect();
        ports.sort_by_key(Value::to_string);
        ports
    }

    /// The lines of `info network`.
    pub fn shown(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for hub in self.hubs.iter().rev() {
            lines.push(format!("hub {hub}"));
            for object in self.objects.iter().rev() {
                match object.kind {
                    Kind::Hubport { hub: other, netdev } if other == *hub => {
                        let peer =
                            netdev.and_then(|id| self.find(id)).map(|peer| format!(": {}", line(peer)));
                        lines.push(format!(" \\ {}{}", object.id, peer.unwrap_or_default()));
                    }
                    _ => {}
                }
            }
        }
        for object in &self.objects {
            match &object.kind {
                Kind::Backend { members, nic: None, hubport: None } => {
                    let queues = members["queues"].as_i64().unwrap_or(1);
                    lines.extend((0..queues).map(|queue| queue_line(object, queue)));
                }
                Kind::Nic { netdev, ghost, .. } => {
                    lines.push(line(object));
                    let peer = netdev.and_then(|id| self.find(id)).map(line).or_else(|| ghost.clone());
                    lines.extend(peer.map(|peer| format!(" \\ {peer}")));
                }
                _ => {}
            }
        }
        lines
    }

    /// The data of all NIC_RX_FILTER_CHANGED so far.
    pub fn events(&self) -> Vec<Value> {
        self.events.clone()
    }

    fn add_hubport(
        &mut self,
        id: &'static str,
        hub: i32,
        netdev: Option<&'static str>,
    ) -> Result<(), Refusal> {
        self.check_new(id)?;
        if let Some(name) = netdev {
            let (_, hubport) = self.sides_of(name, "a hub port")?;
            match hubport {
                Some(other) => return Err(already(name, "hub port", other)),
                None => *hubport = Some(id),
            }
        }
        self.note_hub(hub);
        self.add(id, Kind::Hubport { hub, netdev });
        Ok(())
    }

    fn add_nic(
        &mut self,
        id: &'static str,
        netdev: Option<&'static str>,
        mac: Option<&'static str>,
    ) -> Result<(), Refusal> {
        self.check_new(id)?;
        let mac = mac.map(checked_mac).transpose()?;
        if let Some(name) = netdev {
            let (nic, _) = self.sides_of(name, "a nic")?;
            match nic {
                Some(other) => return Err(already(name, "nic", other)),
                None => *nic = Some(id),
            }
        }
        let mac = mac.unwrap_or_else(|| self.free_mac());
        self.add(id, Kind::Nic { netdev, mac, ghost: None, promiscuous: false, is_event_due: true });
        Ok(())
    }

    fn add_socket(&mut self, id: &'static str, step: &Step) -> Result<(), Refusal> {
        self.check_new(id)?;
        let (_, mut members) = step.socket(&self.directory).unwrap_or_default();
        members["id"] = id.into();
        self.add(id, Kind::Backend { members, nic: None, hubport: None });
        Ok(())
    }

    fn add_vhost_user(
        &mut self,
        id: &'static str,
        chardev: &'static str,
        queues: Option<i64>,
    ) -> Result<(), Refusal> {
        self.check_new(id)?;
        let queues = queues.unwrap_or(1);
        if !(1..=1024).contains(&queues) {
            return generic("vhost-user number of queues must be in range [1, 1024]");
        }
        let Some(found) = self.chardevs.get_mut(chardev) else {
            return generic(format!("chardev \"{chardev}\" not found"));
        };
        if found.user.is_some() {
            return generic(format!("Device '{chardev}' is in use"));
        }
        found.user = Some(id);
        let members = json!({"type": "vhost-user", "id": id, "chardev": chardev, "queues": queues});
        self.add(id, Kind::Backend { members, nic: None, hubport: None });
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<(), Refusal> {
        let at = self.objects.iter().position(|object| object.id == id).ok_or_else(|| not_found(id))?;
        let gone = self.objects.remove(at);
        self.chardevs
            .values_mut()
            .filter(|chardev| chardev.user == Some(gone.id))
            .for_each(|it| it.user = None);
        for object in &mut self.objects {
            match &mut object.kind {
                Kind::Backend { nic, hubport, .. } => {
                    [nic, hubport]
                        .into_iter()
                        .filter(|side| **side == Some(gone.id))
                        .for_each(|side| *side = None);
                }
                // A nic goes on showing what it stood on.
                Kind::Nic { netdev, ghost, .. } if *netdev == Some(gone.id) => {
                    (*netdev, *ghost) = (None, Some(line(&gone)));
                }
                Kind::Hubport { netdev, .. } if *netdev == Some(gone.id) => *netdev = None,
                _ => {}
            }
        }
        Ok(())
    }

    fn set_link(&mut self, name: &str, up: bool) -> Result<(), Refusal> {
        let object = self.objects.iter_mut().find(|object| object.id == name);
        let object = object.ok_or_else(|| not_found(name))?;
        object.link = up;
        // A netdev takes its nic along; no other object takes anything along.
        if let Kind::Backend { nic: Some(nic), .. } = object.kind
            && let Some(nic) = self.objects.iter_mut().find(|object| object.id == nic)
        {
            nic.link = up;
        }
        Ok(())
    }

    fn add_chardev(&mut self, id: &'static str, role: Role) -> Result<(), Refusal> {
        check_id(id)?;
        if self.chardevs.contains_key(id) {
            return generic(format!("Chardev with id '{id}' already exists"));
        }
        let problem = match role {
            Role::Server | Role::Patient => {
                self.chardevs.insert(id, Chardev { role, user: None });
                return Ok(());
            }
            Role::Hasty => {
                format!("Failed to connect to '{}': No such file or directory", self.chardev_path(id))
            }
            Role::Confused => "'reconnect' option is incompatible with socket in server listen mode".into(),
            Role::Waiting => "'wait' option is incompatible with socket in client connect mode".into(),
        };
        generic(format!("Failed to add chardev '{id}': {problem}"))
    }

    fn remove_chardev(&mut self, id: &str) -> Result<(), Refusal> {
        match self.chardevs.get(id) {
            None => generic(format!("Chardev '{id}' not found")),
            Some(chardev) if chardev.user.is_some() => generic(format!("Chardev '{id}' is busy")),
            Some(_) => {
                self.chardevs.remove(id);
                Ok(())
            }
        }
    }

    fn query_filter(&mut self, name: Option<&str>) -> Answer {
        if let Some(name) = name {
            match self.find(name).map(|object| &object.kind) {
                None => return generic(format!("invalid net client name: {name}")),
                Some(Kind::Nic { .. }) => {}
                Some(_) => return generic(format!("net client({name}) isn't a NIC")),
            }
        }
        let asked = self.objects.iter_mut().filter(|object| name.is_none_or(|name| object.id == name));
        let shown = asked.filter_map(|object| match &mut object.kind {
            Kind::Nic { mac, promiscuous, is_event_due, .. } => {
                *is_event_due = true;
                Some(filter(object.id, mac, *promiscuous))
            }
            _ => None,
        });
        Ok(shown.collect())
    }

    fn set_filter(&mut self, name: &str, wanted: bool) -> Result<(), Refusal> {
        let object = self.objects.iter_mut().find(|object| object.id == name);
        match object.map(|object| &mut object.kind) {
            None => generic(format!("invalid net client name: {name}")),
            Some(Kind::Nic { promiscuous, is_event_due, .. }) => {
                // An event tells of the first change since somebody asked.
                if *promiscuous != wanted && std::mem::take(is_event_due) {
                    let path = format!("/machine/peripheral/{name}/virtio-backend");
                    self.events.push(json!({"name": name, "path": path}));
                }
                *promiscuous = wanted;
                Ok(())
            }
            Some(_) => generic(format!("net client({name}) isn't a NIC")),
        }
    }

    fn note_hub(&mut self, hub: i32) {
        if !self.hubs.contains(&hub) {
            self.hubs.push(hub);
        }
    }

    fn check_new(&self, id: &str) -> Result<(), Refusal> {
        check_id(id)?;
        match self.find(id) {
            Some(_) => generic(format!("Duplicate ID '{id}'")),
            None => Ok(()),
        }
    }

    /// The nic and the hub port of a netdev that something is to stand on.
    fn sides_of(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<(&mut Option<&'static str>, &mut Option<&'static str>), Refusal> {
        let object = self.objects.iter_mut().find(|object| object.id == name);
        let kind = match object.map(|object| &mut object.kind) {
            None => return generic(format!("netdev '{name}' not found")),
            Some(Kind::Backend { nic, hubport, .. }) => return Ok((nic, hubport)),
            Some(Kind::Nic { .. }) => "nic",
            Some(Kind::Hubport { .. }) => "hub port",
        };
        generic(format!("netdev '{name}' is a {kind}: {what} stands on a netdev such as vhost-user or tap"))
    }

    fn free_mac(&self) -> String {
        let taken = |wanted: &String| {
            self.objects.iter().any(|object| matches!(&object.kind, Kind::Nic { mac, .. } if mac == wanted))
        };
        let macs = (0x56..=0xff).map(|last| format!("52:54:00:12:34:{last:02x}"));
        macs.into_iter().find(|mac| !taken(mac)).unwrap_or_default()
    }

    fn add(&mut self, id: &'static str, kind: Kind) {
        self.objects.push(Object { id, link: true, kind });
    }

    fn find(&self, id: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.id == id)
    }

    fn chardev_path(&self, id: &str) -> String {
        self.directory.join(format!("chardev-{id}")).display().to_string()
    }
}

/// An object's line in `info network`; of several queues, the first one's.
fn line(object: &Object) -> String {
    queue_line(object, 0)
}

fn queue_line(object: &Object, queue: i64) -> String {
    let kind = match &object.kind {
        Kind::Backend { members, .. } => members["type"].as_str().unwrap_or_default().to_owned(),
        Kind::Nic { mac, .. } => format!("nic,model=virtio,macaddr={mac}"),
        Kind::Hubport { .. } => "hubport".into(),
    };
    format!("{}: index={queue},type={kind}", object.id)
}

/// A filter of which nothing was ever changed but one member.
fn filter(name: &str, mac: &str, promiscuous: bool) -> Value {
    let all_vlans: Value = (0..4096).rev().collect();
    json!({
        "name": name, "promiscuous": promiscuous, "main-mac": mac, "broadcast-allowed": true,
        "unicast": "normal", "multicast": "all", "vlan": "all",
        "unicast-overflow": false, "multicast-overflow": false,
        "unicast-table": [], "multicast-table": [], "vlan-table": all_vlans,
    })
}

fn checked_mac(text: &str) -> Result<String, Refusal> {
    let octets: Option<Vec<u8>> =
        text.split([':', '-']).map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    match octets.filter(|octets| octets.len() == 6) {
        None => generic("invalid syntax for ethernet address"),
        Some(octets) if octets[0] & 1 == 1 => generic("NIC cannot have multicast MAC address (odd 1st byte)"),
        Some(octets) => Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")),
    }
}

fn check_id(id: &str) -> Result<(), Refusal> {
    match id.starts_with(|first: char| first.is_ascii_alphabetic()) {
        true => Ok(()),
        false => generic("Parameter 'id' expects an identifier"),
    }
}

fn already(netdev: &str, kind: &str, other: &str) -> Refusal {
    Refusal::new("GenericError", format!("netdev '{netdev}' is already connected to the {kind} '{other}'"))
}

fn not_found(id: &str) -> Refusal {
    Refusal::new("DeviceNotFound", format!("Device '{id}' not found"))
}

fn generic<T>(desc: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new("GenericError", desc))
}

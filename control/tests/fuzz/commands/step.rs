//! Steps: what a few bytes ask of a switch. The names are few, so that they meet.

use std::path::Path;

use serde_json::{Value, json};

/// Steps of one run, at most.
pub const STEPS_MAX: usize = 60;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Step {
    AddHubport { id: &'static str, hubid: i32, netdev: Option<&'static str>, human: bool },
    AddNic { id: &'static str, netdev: Option<&'static str>, macaddr: Option<&'static str> },
    AddStream { id: &'static str, server: bool },
    AddDgram { id: &'static str },
    AddVhostUser { id: &'static str, chardev: &'static str, queues: Option<i64> },
    NetdevDel { id: &'static str, human: bool },
    SetLink { name: &'static str, up: bool, human: bool },
    ChardevAdd { id: &'static str, role: Role },
    ChardevRemove { id: &'static str },
    QueryRxFilter { name: Option<&'static str> },
    SetRxFilter { name: &'static str, promiscuous: bool },
    AnnounceSelf { id: &'static str, rounds: i64 },
    SetHub { hubid: i32 },
}

/// How a chardev's socket is to come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// It listens.
    Server,
    /// It connects, again and again.
    Patient,
    /// It connects once; nobody listens.
    Hasty,
    /// Listens and connects again, which is a contradiction.
    Confused,
    /// Connects and waits for clients, which is another.
    Waiting,
}

/// Input, byte by byte.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(input: &'a [u8]) -> Bytes<'a> {
        Bytes(input)
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.next().map(|byte| of[usize::from(byte) % of.len()])
    }

    fn flag(&mut self) -> Option<bool> {
        self.next().map(|byte| byte & 1 == 1)
    }

    fn maybe<T: Copy>(&mut self, of: &[T]) -> Option<Option<T>> {
        let byte = usize::from(self.next()?);
        // One in four is absent.
        Some((byte % 4 != 0).then(|| of[byte / 4 % of.len()]))
    }
}

impl Step {
    /// The next step; `None` when the input ends.
    pub fn read(bytes: &mut Bytes<'_>) -> Option<Step> {
        let kind = bytes.next()?;
        let id = bytes.pick(&IDS)?;
        Some(match kind % 16 {
            0 | 1 => {
                let hubid = bytes.pick(&HUBS)?;
                Step::AddHubport { id, hubid, netdev: bytes.maybe(&NAMES)?, human: bytes.flag()? }
            }
            2 | 3 => Step::AddNic { id, netdev: bytes.maybe(&NAMES)?, macaddr: bytes.maybe(&MACS)? },
            4 => Step::AddStream { id, server: bytes.flag()? },
            5 => Step::AddDgram { id },
            6 | 7 => {
                let chardev = bytes.pick(&CHARDEVS)?;
                Step::AddVhostUser { id, chardev, queues: bytes.maybe(&[1, 2, 0, 1025])? }
            }
            8 => Step::NetdevDel { id, human: bytes.flag()? },
            9 => Step::SetLink { name: id, up: bytes.flag()?, human: bytes.flag()? },
            10 | 11 => {
                let role = bytes.pick(&[
                    Role::Server,
                    Role::Server,
                    Role::Patient,
                    Role::Hasty,
                    Role::Confused,
                    Role::Waiting,
                ])?;
                Step::ChardevAdd { id: bytes.pick(&CHARDEVS)?, role }
            }
            12 => Step::ChardevRemove { id: bytes.pick(&CHARDEVS)? },
            13 => Step::QueryRxFilter { name: bytes.maybe(&NAMES)? },
            14 => Step::SetRxFilter { name: id, promiscuous: bytes.flag()? },
            _ if bytes.flag()? => Step::SetHub { hubid: bytes.pick(&HUBS)? },
            _ => Step::AnnounceSelf { id, rounds: bytes.pick(&[0, 1, 3, -1])? },
        })
    }

    /// The command and its arguments; sockets are in `directory`.
    pub fn command(&self, directory: &Path) -> (&'static str, Value) {
        let netdev = |id: &str, mut members: Value| {
            members["id"] = id.into();
            ("netdev_add", members)
        };
        match self {
            Step::AddHubport { id, hubid, netdev: None, .. } => {
                netdev(id, json!({"type": "hubport", "hubid": hubid}))
            }
            Step::AddHubport { id, hubid, netdev: Some(other), .. } => {
                netdev(id, json!({"type": "hubport", "hubid": hubid, "netdev": other}))
            }
            Step::AddNic { id, netdev: other, macaddr } => {
                let mut members = json!({"type": "nic"});
                other.iter().for_each(|other| members["netdev"] = (*other).into());
                macaddr.iter().for_each(|mac| members["macaddr"] = (*mac).into());
                netdev(id, members)
            }
            Step::AddStream { .. } | Step::AddDgram { .. } => {
                let (id, members) = self.socket(directory).unwrap_or_default();
                netdev(id, members)
            }
            Step::AddVhostUser { id, chardev, queues } => {
                let mut members = json!({"type": "vhost-user", "chardev": chardev});
                queues.iter().for_each(|queues| members["queues"] = (*queues).into());
                netdev(id, members)
            }
            Step::NetdevDel { id, .. } => ("netdev_del", json!({"id": id})),
            Step::SetLink { name, up, .. } => ("set_link", json!({"name": name, "up": up})),
            Step::ChardevAdd { id, role } => {
                let addr = json!({"type": "unix", "data": {"path": directory.join(format!("chardev-{id}"))}});
                let data = match role {
                    Role::Server => json!({"addr": addr, "server": true, "wait": false}),
                    Role::Patient => json!({"addr": addr, "server": false, "reconnect": 3600}),
                    Role::Hasty => json!({"addr": addr, "server": false}),
                    Role::Confused => json!({"addr": addr, "server": true, "reconnect": 1}),
                    Role::Waiting => json!({"addr": addr, "server": false, "wait": true}),
                };
                ("chardev-add", json!({"id": id, "backend": {"type": "socket", "data": data}}))
            }
            Step::ChardevRemove { id } => ("chardev-remove", json!({"id": id})),
            Step::QueryRxFilter { name: None } => ("query-rx-filter", json!({})),
            Step::QueryRxFilter { name: Some(name) } => ("query-rx-filter", json!({"name": name})),
            Step::SetRxFilter { name, promiscuous } => {
                ("x-set-rx-filter", json!({"name": name, "promiscuous": promiscuous}))
            }
            Step::AnnounceSelf { id, rounds } => {
                ("announce-self", json!({"initial": 1, "max": 5, "rounds": rounds, "step": 1, "id": id}))
            }
            Step::SetHub { hubid } => ("x-set-hub", json!({"hubid": hubid, "learning": true})),
        }
    }

    /// The id and the members of a netdev over a socket.
    pub fn socket(&self, directory: &Path) -> Option<(&'static str, Value)> {
        let unix = |name: String| json!({"type": "unix", "path": directory.join(name)});
        match self {
            Step::AddStream { id, server } => {
                let addr = unix(format!("stream-{id}"));
                Some((id, json!({"type": "stream", "addr": addr, "server": server})))
            }
            Step::AddDgram { id } => {
                let (local, remote) = (unix(format!("dgram-{id}")), unix("nobody".into()));
                Some((id, json!({"type": "dgram", "local": local, "remote": remote})))
            }
            _ => None,
        }
    }

    /// The same for the human monitor, if it is to be told there.
    pub fn human_line(&self) -> Option<String> {
        match self {
            Step::AddHubport { id, hubid, netdev, human: true } => {
                let netdev = netdev.map(|netdev| format!(",netdev={netdev}")).unwrap_or_default();
                Some(format!("netdev_add hubport,id={id},hubid={hubid}{netdev}"))
            }
            Step::NetdevDel { id, human: true } => Some(format!("netdev_del \"{id}\"")),
            Step::SetLink { name, up, human: true } => {
                Some(format!("set_link \"{name}\" {}", if *up { "on" } else { "off" }))
            }
            _ => None,
        }
    }
}

/// Two of them are no identifiers.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f-1.x_Y", "1a", ""];
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f-1.x_Y", "nosuch"];
const CHARDEVS: [&str; 4] = ["c0", "c1", "c2", "1c"];
const HUBS: [i32; 4] = [0, 1, -7, i32::MAX];
const MACS: [&str; 5] =
    ["52:54:00:12:34:56", "52:54:00:00:00:01", "02-00-00-00-00-02", "53:54:00:00:00:01", "x"];

//! A run's configuration while it is collected from the file and the options.

use std::collections::BTreeSet;
use std::path::Path;

use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::worker::Mode;
use serde_json::{Map, Value};

use super::config::{LogLevel, MonitorConfig, Placement, RunConfig, SocketAccess};
use super::{CliError, file};
use crate::json;
use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{
    ChardevAdd, ChardevSpec, Hubport, Netdev, NetdevAdd, NetdevKind, NetdevSpec, Nic, NicSpec, XSetHub,
    unix_path,
};

/// What was read so far. Objects are resolved as they come, so that an error names the option it stands in.
#[derive(Debug, Default)]
pub(super) struct Draft {
    monitors: Vec<MonitorConfig>,
    chardevs: Vec<ChardevSpec>,
    netdevs: Vec<NetdevSpec>,
    hubs: Vec<XSetHub>,
    ids: BTreeSet<String>,
    pub(super) name: Option<String>,
    pub(super) placement: Option<Placement>,
    pub(super) mode: Option<Mode>,
    pub(super) full_receiver: Option<FullReceiver>,
    pub(super) socket_group: Option<String>,
    pub(super) socket_mode: Option<u32>,
    pub(super) log_level: Option<LogLevel>,
}

type Added = Result<(), QapiError>;

impl Draft {
    /// A draft that holds what the file says.
    pub(super) fn from_file(path: &Path) -> Result<Self, CliError> {
        let mut draft = Draft::default();
        file::read(&mut draft, path).map_err(|why| CliError::Usage(format!("{}: {why}", path.display())))?;
        Ok(draft)
    }

    /// Adds `unix:PATH,server=on,wait=off`.
    pub(super) fn add_qmp(&mut self, text: &str) -> Added {
        let members = parse_keyval(text, "address", Flags::Accepted)?;
        let mut visitor = Visitor::new(members, Form::Keyval);
        let address: String = visitor.required("address")?;
        let is_server: Option<bool> = visitor.optional("server")?;
        visitor.optional::<bool>("wait")?; // A monitor never delays the start.
        visitor.finish()?;
        let unix =
            || QapiError::generic("a monitor listens on a unix socket: write unix:PATH,server=on,wait=off");
        let path = address.strip_prefix("unix:").ok_or_else(unix)?;
        if is_server != Some(true) {
            return Err(unix());
        }
        self.monitors.push(MonitorConfig { path: unix_path(path)? });
        Ok(())
    }

    pub(super) fn add_chardev_option(&mut self, text: &str) -> Added {
        let (members, form) = option_members(text, "type", Flags::Accepted)?;
        self.add_chardev(members, form)
    }

    pub(super) fn add_netdev_option(&mut self, text: &str) -> Added {
        let (members, form) = option_members(text, "type", Flags::Refused)?;
        self.add_netdev(members, form)
    }

    /// Adds a netdev and the nic on it, which is named after it; `none` adds nothing.
    pub(super) fn add_nic_option(&mut self, text: &str) -> Added {
        let (mut members, form) = option_members(text, "type", Flags::Refused)?;
        match members.get("type").and_then(Value::as_str) {
            Some("none") => return Visitor::new(without_type(members), form).finish(),
            Some("nic" | "hubport") => {
                return Err(QapiError::generic("-nic needs a type that has a guest or a host behind it"));
            }
            _ => {}
        }
        if !members.contains_key("id") {
            members.insert("id".into(), self.free_id("net").into());
        }
        // An id that is no string is refused below, with the netdev.
        let id = members.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut nic = Map::new();
        for (given, member) in
            [("mac", "macaddr"), ("model", "model"), ("addr", "addr"), ("vectors", "vectors")]
        {
            if let Some(value) = members.shift_remove(given) {
                nic.insert(member.into(), value);
            }
        }
        nic.insert("netdev".into(), id.clone().into());
        let mut visitor = Visitor::new(nic, form);
        let nic = Netdev::from(Nic::visit(&mut visitor)?);
        let nic = NetdevAdd { id: format!("{id}-nic"), netdev: nic }.resolve()?;
        self.add_netdev(members, form)?;
        self.add_spec(nic)
    }

    /// Adds `nic,netdev=ID,macaddr=MAC`, with an `id` or without.
    pub(super) fn add_net_option(&mut self, text: &str) -> Added {
        let (members, form) = option_members(text, "type", Flags::Refused)?;
        match members.get("type").and_then(Value::as_str) {
            Some("nic") => self.add_nic(without_type(members), form),
            Some("none") => Ok(()),
            _ => Err(QapiError::generic("-net makes nics only; make the other side with -netdev")),
        }
    }

    /// Adds `ID,learning=off,ageing=S`.
    pub(super) fn add_hub_option(&mut self, text: &str) -> Added {
        let (members, form) = option_members(text, "id", Flags::Refused)?;
        self.hubs.push(XSetHub::visit_option(Visitor::new(members, form))?);
        Ok(())
    }

    pub(super) fn add_hub(&mut self, members: Map<String, Value>, form: Form) -> Added {
        self.hubs.push(XSetHub::visit_table(Visitor::new(members, form))?);
        Ok(())
    }

    pub(super) fn add_chardev(&mut self, members: Map<String, Value>, form: Form) -> Added {
        let is_wrapped = members.contains_key("backend");
        let visit = if is_wrapped { ChardevAdd::visit } else { ChardevAdd::visit_flat };
        let spec = visit(Visitor::new(members, form))?.resolve()?;
        if self.chardevs.iter().any(|chardev| chardev.id == spec.id) {
            return Err(QapiError::generic(format!("Chardev with id '{}' already exists", spec.id)));
        }
        self.chardevs.push(spec);
        Ok(())
    }

    pub(super) fn add_netdev(&mut self, members: Map<String, Value>, form: Form) -> Added {
        self.add_spec(NetdevAdd::visit(Visitor::new(members, form))?.resolve()?)
    }

    /// Adds a nic, whose members have no `type`.
    pub(super) fn add_nic(&mut self, mut members: Map<String, Value>, form: Form) -> Added {
        members.insert("type".into(), "nic".into());
        if !members.contains_key("id") {
            members.insert("id".into(), self.free_id("nic").into());
        }
        self.add_netdev(members, form)
    }

    fn add_spec(&mut self, spec: NetdevSpec) -> Added {
        if !self.ids.insert(spec.id.clone()) {
            return Err(QapiError::duplicate_id(&spec.id));
        }
        self.netdevs.push(spec);
        Ok(())
    }

    fn free_id(&self, prefix: &str) -> String {
        let mut ids = (0..).map(|number: usize| format!("{prefix}{number}"));
        ids.find(|id| !self.ids.contains(id)).unwrap_or_default()
    }

    /// Whether all that is named is there.
    fn check_references(&self) -> Result<(), CliError> {
        for NetdevSpec { id, kind, .. } in &self.netdevs {
            let missing = match kind {
                NetdevKind::VhostUser(spec) => {
                    let found = self.chardevs.iter().any(|chardev| chardev.id == spec.chardev);
                    (!found).then(|| format!("chardev \"{}\" not found", spec.chardev))
                }
                NetdevKind::Nic(NicSpec { netdev, .. }) | NetdevKind::Hubport(Hubport { netdev, .. }) => {
                    let lost = netdev.as_ref().filter(|netdev| !self.ids.contains(*netdev));
                    lost.map(|netdev| format!("netdev '{netdev}' not found"))
                }
                NetdevKind::Port(_) => None,
            };
            if let Some(why) = missing {
                return Err(CliError::Usage(format!("-netdev {id}: {why}")));
            }
        }
        Ok(())
    }

    /// Puts the objects into an order that satisfies references.
    pub(super) fn finish(mut self) -> Result<RunConfig, CliError> {
        if self.monitors.is_empty() && self.netdevs.is_empty() {
            let text = "nothing to switch, and no monitor to say what: give -qmp, -netdev or -c FILE.toml";
            return Err(CliError::Usage(text.into()));
        }
        self.netdevs.sort_by_key(|spec| match spec.kind {
            NetdevKind::VhostUser(_) | NetdevKind::Port(_) => 0,
            NetdevKind::Nic(_) => 1,
            NetdevKind::Hubport(_) => 2,
        });
        self.check_references()?;
        Ok(RunConfig {
            name: self.name,
            monitors: self.monitors,
            chardevs: self.chardevs,
            netdevs: self.netdevs,
            hubs: self.hubs,
            placement: self.placement.unwrap_or(Placement::Workers(1)),
            mode: self.mode.unwrap_or_default(),
            full_receiver: self.full_receiver.unwrap_or_default(),
            sockets: SocketAccess { group: self.socket_group, mode: self.socket_mode.unwrap_or(0o600) },
            log_level: self.log_level.unwrap_or_default(),
        })
    }
}

/// The members of an option's value, which is JSON when it starts with a brace.
pub(super) fn option_members(
    text: &str,
    implied_key: &str,
    flags: Flags,
) -> Result<(Map<String, Value>, Form), QapiError> {
    if !text.trim_start().starts_with('{') {
        return Ok((parse_keyval(text, implied_key, flags)?, Form::Keyval));
    }
    match json::parse(text).map_err(QapiError::generic)? {
        Value::Object(members) => Ok((members, Form::Json)),
        _ => Err(QapiError::generic("the value is not a JSON object")),
    }
}

fn without_type(mut members: Map<String, Value>) -> Map<String, Value> {
    members.shift_remove("type");
    members
}

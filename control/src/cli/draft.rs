//! A run's configuration while it is collected from the file and the options.

use std::collections::BTreeSet;
use std::path::Path;

use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::worker::Mode;
use serde_json::{Map, Value};

use super::config::{LogLevel, Placement, RunConfig, SocketAccess};
use super::document::{Document, lines};
use super::fault::{FAULTS_MAX, Fault, Given, Origin};
use super::monitor::MonitorConfig;
use super::{CliError, file, references};
use crate::json;
use crate::model::taken_object;
use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{
    ChardevAdd, ChardevSpec, NetdevAdd, NetdevKind, NetdevSpec, Nic, ObjectAdd, ObjectSpec, XSetHub,
};

/// What was read so far. Objects are resolved as they come, so that an error names the place it stands in.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The file, to show errors in.
    document: Option<Document>,
    faults: Vec<Fault>,
    monitors: Vec<Given<MonitorConfig>>,
    chardevs: Vec<Given<ChardevSpec>>,
    netdevs: Vec<Given<NetdevSpec>>,
    objects: Vec<Given<ObjectSpec>>,
    hubs: Vec<XSetHub>,
    /// Of netdevs.
    ids: BTreeSet<String>,
    pub(super) name: Option<String>,
    pub(super) placement: Option<Placement>,
    pub(super) mode: Option<Mode>,
    pub(super) full_receiver: Option<FullReceiver>,
    pub(super) socket_group: Option<String>,
    pub(super) socket_mode: Option<u32>,
    pub(super) log_level: Option<LogLevel>,
}

/// Whether something could be added.
pub(super) type Added = Result<(), Fault>;

impl Draft {
    /// A draft that holds what the file says, faults too. Errors: its syntax, or it cannot be read.
    pub(super) fn from_file(path: &Path) -> Result<Self, CliError> {
        let (document, members) = Document::read(path).map_err(CliError::File)?;
        let mut draft = Draft { document: Some(document), ..Draft::default() };
        file::read(&mut draft, members);
        Ok(draft)
    }

    /// Keeps the fault, if there is one, for [`Self::finish`].
    pub(super) fn note(&mut self, added: Added) {
        self.faults.extend(added.err());
    }

    /// Adds a monitor.
    pub(super) fn add_qmp(&mut self, text: &str, origin: &Origin) -> Added {
        let config = MonitorConfig::parse(text).map_err(|error| origin.fault(error))?;
        self.add_monitor(config, origin)
    }

    /// The same, which writes for people.
    pub(super) fn add_qmp_pretty(&mut self, text: &str, origin: &Origin) -> Added {
        let config = MonitorConfig::parse(text).map_err(|error| origin.fault(error))?;
        self.add_monitor(MonitorConfig { pretty: true, ..config }, origin)
    }

    fn add_monitor(&mut self, config: MonitorConfig, origin: &Origin) -> Added {
        if self.monitors.iter().any(|first| origin.repeats(&first.origin) && first.spec == config) {
            return Ok(());
        }
        if let Some(first) = self.monitors.iter().find(|given| given.spec.excludes(&config)) {
            let twice = QapiError::generic("there is a monitor already");
            return Err(origin.fault(twice).after(first.origin.note("it is this one", "")));
        }
        self.monitors.push(Given { spec: config, origin: origin.clone() });
        Ok(())
    }

    pub(super) fn add_chardev_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (members, form) = members_of(text, "type", Flags::Accepted, origin)?;
        self.add_chardev(members, form, origin)
    }

    pub(super) fn add_netdev_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (members, form) = members_of(text, "type", Flags::Refused, origin)?;
        self.add_netdev(members, form, origin)
    }

    /// Adds a netdev and the nic on it, which is named after it; `none` adds nothing.
    pub(super) fn add_nic_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (mut members, form) = members_of(text, "type", Flags::Refused, origin)?;
        match members.get("type").and_then(Value::as_str) {
            Some("none") => {
                members.shift_remove("type");
                return Visitor::new(members, form).finish().map_err(|error| origin.fault(error));
            }
            Some("nic" | "hubport") => {
                let why = QapiError::generic("-nic needs a type that has a guest or a host behind it");
                return Err(origin.fault(why));
            }
            _ => {}
        }
        if !members.contains_key("id") {
            members.insert("id".into(), self.free_id("net").into());
        }
        // An id that is no string is refused below, with the netdev.
        let id = members.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let nic = nic_of_option(&mut members, &id, form).map_err(|error| origin.fault(error))?;
        self.add_netdev(members, form, origin)?;
        self.add_spec(nic, origin)
    }

    /// Adds `nic,netdev=ID,macaddr=MAC`, with an `id` or without.
    pub(super) fn add_net_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (mut members, form) = members_of(text, "type", Flags::Refused, origin)?;
        match members.shift_remove("type").as_ref().and_then(Value::as_str) {
            Some("nic") => self.add_nic(members, form, origin),
            Some("none") => Ok(()),
            _ => {
                let why = "-net makes nics only; make the other side with -netdev";
                Err(origin.fault(QapiError::generic(why)))
            }
        }
    }

    /// Adds `filter-dump,id=ID,netdev=ID,file=FILE`.
    pub(super) fn add_object_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (members, form) = members_of(text, "qom-type", Flags::Refused, origin)?;
        self.add_object(members, form, origin)
    }

    pub(super) fn add_object(&mut self, members: Map<String, Value>, form: Form, origin: &Origin) -> Added {
        let spec = ObjectAdd::visit(Visitor::new(members, form)).and_then(ObjectAdd::resolve);
        let spec = spec.and_then(|spec| spec.position().map(|_| spec));
        let spec = spec.map_err(|error| origin.fault(error))?;
        if let Some(first) = self.objects.iter().find(|given| given.spec.id == spec.id) {
            if origin.repeats(&first.origin) && first.spec == spec {
                return Ok(());
            }
            let twice = taken_object(&spec.id);
            return Err(origin.fault(twice).after(first_with_id(&first.origin)));
        }
        self.objects.push(Given { spec, origin: origin.clone() });
        Ok(())
    }

    /// Adds `ID,learning=off,ageing=S`.
    pub(super) fn add_hub_option(&mut self, text: &str, origin: &Origin) -> Added {
        let (members, form) = members_of(text, "id", Flags::Refused, origin)?;
        let hub = XSetHub::visit_option(Visitor::new(members, form));
        self.hubs.push(hub.map_err(|error| origin.fault(error))?);
        Ok(())
    }

    pub(super) fn add_hub(&mut self, members: Map<String, Value>, form: Form, origin: &Origin) -> Added {
        let hub = XSetHub::visit_table(Visitor::new(members, form));
        self.hubs.push(hub.map_err(|error| origin.fault(error))?);
        Ok(())
    }

    pub(super) fn add_chardev(&mut self, members: Map<String, Value>, form: Form, origin: &Origin) -> Added {
        let is_wrapped = members.contains_key("backend");
        let visit = if is_wrapped { ChardevAdd::visit } else { ChardevAdd::visit_flat };
        let spec = visit(Visitor::new(members, form)).and_then(ChardevAdd::resolve);
        let spec = spec.map_err(|error| origin.fault(error))?;
        if let Some(first) = self.chardevs.iter().find(|given| given.spec.id == spec.id) {
            if origin.repeats(&first.origin) && first.spec == spec {
                return Ok(());
            }
            let twice = QapiError::generic(format!("Chardev with id '{}' already exists", spec.id));
            return Err(origin.fault(twice.about("id")).after(first_with_id(&first.origin)));
        }
        self.chardevs.push(Given { spec, origin: origin.clone() });
        Ok(())
    }

    pub(super) fn add_netdev(&mut self, members: Map<String, Value>, form: Form, origin: &Origin) -> Added {
        let spec = NetdevAdd::visit(Visitor::new(members, form)).and_then(NetdevAdd::resolve);
        self.add_spec(spec.map_err(|error| origin.fault(error))?, origin)
    }

    /// Adds a nic, whose members have no `type`.
    pub(super) fn add_nic(&mut self, mut members: Map<String, Value>, form: Form, origin: &Origin) -> Added {
        if members.insert("type".into(), "nic".into()).is_some_and(|given| given != "nic") {
            let why = "Parameter 'type' can only be 'nic' here";
            return Err(origin.fault(QapiError::generic(why).about("type")));
        }
        if !members.contains_key("id") {
            members.insert("id".into(), self.free_id("nic").into());
        }
        self.add_netdev(members, form, origin)
    }

    fn add_spec(&mut self, spec: NetdevSpec, origin: &Origin) -> Added {
        if let Some(first) = self.netdevs.iter().find(|given| given.spec.id == spec.id) {
            if origin.repeats(&first.origin) && first.spec == spec {
                return Ok(());
            }
            let twice = QapiError::duplicate_id(&spec.id).about("id");
            return Err(origin.fault(twice).after(first_with_id(&first.origin)));
        }
        self.ids.insert(spec.id.clone());
        self.netdevs.push(Given { spec, origin: origin.clone() });
        Ok(())
    }

    fn free_id(&self, prefix: &str) -> String {
        let mut ids = (0..).map(|number: usize| format!("{prefix}{number}"));
        ids.find(|id| !self.ids.contains(id)).unwrap_or_default()
    }

    /// Puts the objects into an order that satisfies references.
    ///
    /// Errors: every fault that was noted; without any, every reference that leads nowhere.
    pub(super) fn finish(mut self) -> Result<RunConfig, CliError> {
        if self.faults.is_empty() {
            self.faults = references::check(&self.chardevs, &self.netdevs, &self.objects);
        }
        if !self.faults.is_empty() {
            return Err(self.error());
        }
        self.netdevs.sort_by_key(|given| match given.spec.kind {
            NetdevKind::VhostUser(_) | NetdevKind::Port(_) => 0,
            NetdevKind::Nic(_) => 1,
            NetdevKind::Hubport(_) => 2,
        });
        Ok(RunConfig {
            name: self.name,
            monitors: specs(self.monitors),
            chardevs: specs(self.chardevs),
            netdevs: specs(self.netdevs),
            objects: specs(self.objects),
            hubs: self.hubs,
            placement: self.placement.unwrap_or(Placement::Workers(1)),
            mode: self.mode.unwrap_or_default(),
            full_receiver: self.full_receiver.unwrap_or_default(),
            sockets: SocketAccess { group: self.socket_group, mode: self.socket_mode.unwrap_or(0o600) },
            log_level: self.log_level.unwrap_or_default(),
        })
    }

    fn error(&mut self) -> CliError {
        self.faults.sort_by_key(|fault| fault.position(self.document.as_ref()));
        let findings: Vec<_> = self
            .faults
            .iter()
            .take(FAULTS_MAX)
            .flat_map(|fault| fault.findings(self.document.as_ref()))
            .collect();
        match self.faults.iter().any(|fault| matches!(fault.origin, Origin::File(_))) {
            true => CliError::File(findings),
            false => CliError::Usage(lines(&findings)),
        }
    }
}

fn specs<T>(given: Vec<Given<T>>) -> Vec<T> {
    given.into_iter().map(|given| given.spec).collect()
}

/// Of what has an id that is given again.
fn first_with_id(origin: &Origin) -> Fault {
    origin.note("it is first given here", "id")
}

/// The nic that the members of a `-nic` option make beside the netdev `id`; the netdev's own are left.
fn nic_of_option(members: &mut Map<String, Value>, id: &str, form: Form) -> Result<NetdevSpec, QapiError> {
    let mut nic = Map::new();
    for (given, member) in [("mac", "macaddr"), ("model", "model"), ("addr", "addr"), ("vectors", "vectors")]
    {
        if let Some(value) = members.shift_remove(given) {
            nic.insert(member.into(), value);
        }
    }
    nic.insert("netdev".into(), id.into());
    let nic: Nic = Visitor::new(nic, form).whole()?;
    NetdevAdd { id: format!("{id}-nic"), netdev: nic.into() }.resolve()
}

fn members_of(
    text: &str,
    implied_key: &str,
    flags: Flags,
    origin: &Origin,
) -> Result<(Map<String, Value>, Form), Fault> {
    option_members(text, implied_key, flags).map_err(|error| origin.fault(error))
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

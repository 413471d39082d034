//! The commands of the monitors: a name and arguments become one [`Command`], or QEMU's error.
//!
//! One table says what there is: each command's name, what its arguments are, and what it returns. The parser, the list of
//! `query-commands` and the schema of `query-qmp-schema` are made of it.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::chardev::ChardevAddArguments;
use super::fdb::{Count, XSetHubArguments};
use super::{
    AddfdInfo, AnnounceSelf, ChardevAdd, ChardevInfo, CommandInfo, ConfigInfo, FdbInfo, FdsetInfo, NameInfo,
    NetdevAdd, NetdevInfo, ObjectAdd, ObjectDel, ObjectPropertyInfo, QomGet, QomList, QomSet, ReloadReport,
    RxFilterInfo, Stats, StatusInfo, VersionInfo, XFdbAdd, XFdbDel, XFdbFlush, XQueryFdb, XReload, XSetHub,
    XSetRxFilter, XUpgrade, describe_events,
};
use crate::qapi::{Described, Form, QapiEnum, QapiError, Schema, SchemaInfo, Visitor, arguments};

/// Declares the commands: `NAME => VARIANT(ARGUMENTS) -> RETURNS`. Where arguments are more than a type says, `by` names
/// what reads them, and `as` the type that the schema shows.
macro_rules! commands {
    ($($name:literal => $variant:ident $(($arguments:ty $(as $shown:ty)? $(, by $visit:expr)?))? -> $returns:ty),* $(,)?) => {
        /// A command whose arguments have the right names and types.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Command {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant $(($arguments))?,
            )*
        }

        const COMMANDS: &[Entry] = &[$(Entry {
            name: $name,
            visit: commands!(@visit $variant $(($arguments $(, by $visit)?))?),
            arguments: commands!(@describe $($arguments $(as $shown)?)?),
            returns: <$returns>::describe,
        }),*];
    };
    (@visit $variant:ident) => {
        |visitor| visitor.finish().map(|()| Command::$variant)
    };
    (@visit $variant:ident($arguments:ty)) => {
        |visitor| visitor.whole::<$arguments>().map(Command::$variant)
    };
    (@visit $variant:ident($arguments:ty, by $visit:expr)) => {
        |visitor| $visit(visitor).map(Command::$variant)
    };
    (@describe) => { <()>::describe };
    (@describe $arguments:ty) => { <$arguments>::describe };
    (@describe $arguments:ty as $shown:ty) => { <$shown>::describe };
}

commands! {
    "chardev-add" => ChardevAdd(ChardevAdd as ChardevAddArguments, by ChardevAdd::visit) -> (),
    "chardev-remove" => ChardevRemove(ChardevRemove) -> (),
    "query-chardev" => QueryChardev -> Vec<ChardevInfo>,
    "netdev_add" => NetdevAdd(NetdevAdd, by NetdevAdd::visit) -> (),
    "netdev_del" => NetdevDel(NetdevDel) -> (),
    "set_link" => SetLink(SetLink) -> (),
    "announce-self" => AnnounceSelf(AnnounceSelf) -> (),
    "query-netdev" => QueryNetdev -> Vec<NetdevInfo>,
    "object-add" => ObjectAdd(ObjectAdd, by ObjectAdd::visit) -> (),
    "object-del" => ObjectDel(ObjectDel) -> (),
    "qom-list" => QomList(QomList) -> Vec<ObjectPropertyInfo>,
    "qom-get" => QomGet(QomGet) -> Value,
    "qom-set" => QomSet(QomSet) -> (),
    "query-rx-filter" => QueryRxFilter(QueryRxFilter) -> Vec<RxFilterInfo>,
    "x-set-rx-filter" => XSetRxFilter(Box<XSetRxFilter> as XSetRxFilter, by boxed_filter) -> (),
    "x-set-hub" => XSetHub(XSetHub as XSetHubArguments, by XSetHub::visit) -> (),
    "x-query-fdb" => XQueryFdb(XQueryFdb) -> FdbInfo,
    "x-fdb-add" => XFdbAdd(XFdbAdd, by XFdbAdd::visit) -> (),
    "x-fdb-del" => XFdbDel(XFdbDel) -> (),
    "x-fdb-flush" => XFdbFlush(XFdbFlush) -> (),
    "x-query-stats" => XQueryStats(XQueryStats) -> Stats,
    "x-set-worker" => XSetWorker(XSetWorker) -> (),
    "x-reload" => XReload(XReload) -> ReloadReport,
    "x-upgrade" => XUpgrade(XUpgrade) -> (),
    "x-query-config" => XQueryConfig -> ConfigInfo,
    "query-version" => QueryVersion -> VersionInfo,
    "query-commands" => QueryCommands -> Vec<CommandInfo>,
    "query-qmp-schema" => QueryQmpSchema -> Vec<SchemaInfo>,
    "query-name" => QueryName -> NameInfo,
    "query-status" => QueryStatus -> StatusInfo,
    "stop" => Stop -> (),
    "cont" => Cont -> (),
    "getfd" => GetFd(GetFd) -> (),
    "closefd" => CloseFd(CloseFd) -> (),
    "add-fd" => AddFd(AddFd) -> AddfdInfo,
    "remove-fd" => RemoveFd(RemoveFd) -> (),
    "query-fdsets" => QueryFdsets -> Vec<FdsetInfo>,
    "human-monitor-command" => HumanMonitorCommand(HumanMonitorCommand) -> String,
    "quit" => Quit -> (),
}

/// A command, and what belongs to it.
struct Entry {
    name: &'static str,
    visit: fn(Visitor) -> Result<Command, QapiError>,
    arguments: fn(&mut Schema) -> String,
    returns: fn(&mut Schema) -> String,
}

arguments! {
    /// The arguments of `chardev-remove`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ChardevRemove as "q_obj_chardev-remove-arg" {
        /// The chardev.
        pub id: String,
    }
}

arguments! {
    /// The arguments of `netdev_del`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct NetdevDel as "q_obj_netdev_del-arg" {
        /// The netdev.
        pub id: String,
    }
}

arguments! {
    /// The arguments of `set_link`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SetLink as "q_obj_set_link-arg" {
        /// A netdev, a nic or a hub port.
        pub name: String,
        /// The administrative state that it gets.
        pub up: bool,
    }
}

arguments! {
    /// The arguments of `query-rx-filter`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct QueryRxFilter as "q_obj_query-rx-filter-arg" {
        /// One nic only.
        pub name: Option<String>,
    }
}

arguments! {
    /// The arguments of `x-query-stats`.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct XQueryStats as "q_obj_x-query-stats-arg" {
        /// One port only.
        pub name: Option<String>,
        /// Those that are younger than this port, as many as fit into a reply.
        pub after: Option<String>,
        /// So many ports at most, 1 to [`STATS_LIMIT_MAX`], and as many as fit into a reply.
        pub limit: Option<Count<STATS_LIMIT_MAX>>,
    }
}

arguments! {
    /// The arguments of `x-set-worker`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XSetWorker as "q_obj_x-set-worker-arg" {
        /// A vhost-user or tap netdev.
        pub netdev: String,
        /// One queue only.
        pub queue: Option<u16>,
        /// The worker's number, from 0.
        pub worker: u32,
    }
}

arguments! {
    /// The arguments of `getfd`; the descriptor comes beside the bytes. [`check_fd_name`](super::check_fd_name) is still to
    /// be asked.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GetFd as "q_obj_getfd-arg" {
        /// What to call it.
        pub fdname: String,
    }
}

arguments! {
    /// The arguments of `closefd`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CloseFd as "q_obj_closefd-arg" {
        /// A name from `getfd`.
        pub fdname: String,
    }
}

arguments! {
    /// The arguments of `add-fd`; the descriptor comes beside the bytes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddFd as "q_obj_add-fd-arg" {
        /// The set; a new one without it.
        pub fdset_id: Option<i64>,
        /// Text for whoever asks later.
        pub opaque: Option<String>,
    }
}

arguments! {
    /// The arguments of `remove-fd`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RemoveFd as "q_obj_remove-fd-arg" {
        /// The set.
        pub fdset_id: i64,
        /// One descriptor only.
        pub fd: Option<i64>,
    }
}

arguments! {
    /// The arguments of `human-monitor-command`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HumanMonitorCommand as "q_obj_human-monitor-command-arg" {
        /// For [`hmp::parse`](crate::hmp::parse).
        pub command_line: String,
        /// There is no CPU to choose.
        pub cpu_index: Option<i64>,
    }
}

arguments! {
    /// The arguments of `qmp_capabilities`, which the session itself executes.
    pub struct QmpCapabilities as "q_obj_qmp_capabilities-arg" {
        /// What to enable.
        pub enable: Option<Vec<QmpCapability>>,
    }
}

/// Ports that `x-query-stats` can be asked for.
pub const STATS_LIMIT_MAX: u32 = 1000;

/// What a client can enable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QmpCapability {
    /// `exec-oob`.
    Oob,
}

impl QapiEnum for QmpCapability {
    const TYPE: &'static str = "QMPCapability";
    const NAMES: &'static [(&'static str, Self)] = &[("oob", QmpCapability::Oob)];
}

impl Command {
    /// Whether there is a command of this name, `qmp_capabilities` included.
    pub fn exists(name: &str) -> bool {
        name == CAPABILITIES || COMMANDS.iter().any(|entry| entry.name == name)
    }

    /// Parses the arguments of the command `name`.
    pub fn parse(name: &str, arguments: Map<String, Value>) -> Result<Command, QapiError> {
        if name == CAPABILITIES {
            Visitor::new(arguments, Form::Json).whole::<QmpCapabilities>()?;
            return Err(QapiError::command_not_found(NEGOTIATED));
        }
        let not_found = || QapiError::command_not_found(format!("The command {name} has not been found"));
        let entry = COMMANDS.iter().find(|entry| entry.name == name).ok_or_else(not_found)?;
        (entry.visit)(Visitor::new(arguments, Form::Json))
    }

    /// What `query-commands` returns.
    pub fn list() -> Vec<CommandInfo> {
        let names = std::iter::once(CAPABILITIES).chain(COMMANDS.iter().map(|entry| entry.name));
        names.map(|name| CommandInfo { name: name.to_owned() }).collect()
    }

    /// What `query-qmp-schema` returns. It is the same for as long as the program runs.
    pub fn schema() -> &'static Value {
        static SCHEMA: OnceLock<Value> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            let mut schema = Schema::default();
            schema.command(CAPABILITIES, QmpCapabilities::describe, <()>::describe);
            COMMANDS.iter().for_each(|entry| schema.command(entry.name, entry.arguments, entry.returns));
            describe_events(&mut schema);
            serde_json::to_value(schema.entities()).unwrap_or_default()
        })
    }
}

fn boxed_filter(visitor: Visitor) -> Result<Box<XSetRxFilter>, QapiError> {
    XSetRxFilter::visit(visitor).map(Box::new)
}

const CAPABILITIES: &str = "qmp_capabilities";
const NEGOTIATED: &str = "Capabilities negotiation is already complete, command ignored";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(name: &str, arguments: Value) -> Result<Command, QapiError> {
        let Value::Object(arguments) = arguments else { panic!("the test needs an object") };
        Command::parse(name, arguments)
    }

    #[test]
    fn an_unknown_command_has_its_own_class() {
        let expected = QapiError::command_not_found("The command nope has not been found");
        assert_eq!(parsed("nope", json!({})), Err(expected));
    }

    #[test]
    fn arguments_are_checked() {
        let link = Command::SetLink(SetLink { name: "n".into(), up: false });
        assert_eq!(parsed("set_link", json!({"name": "n", "up": false})), Ok(link));
        let refused = |name, arguments| parsed(name, arguments).expect_err(name).desc;
        let not_bool = "Invalid parameter type for 'up', expected: boolean";
        assert_eq!(refused("set_link", json!({"name": "n", "up": 1})), not_bool);
        assert_eq!(refused("quit", json!({"x": 1})), "Parameter 'x' is unexpected");
        assert_eq!(refused("netdev_del", json!({})), "Parameter 'id' is missing");
        assert_eq!(refused("human-monitor-command", json!({})), "Parameter 'command-line' is missing");
    }

    #[test]
    fn every_command_is_listed() {
        let list = Command::list();
        assert_eq!(list.len(), 1 + COMMANDS.len());
        assert!(list.iter().any(|command| command.name == "qmp_capabilities"));
        assert!(Command::exists("x-query-stats") && !Command::exists("query-events"));
    }

    #[test]
    fn the_schema_has_every_command_with_types_that_are_there() {
        let entities = Command::schema().as_array().expect("it is a list");
        let names: Vec<&str> = entities.iter().filter_map(|entity| entity["name"].as_str()).collect();
        for CommandInfo { name } in Command::list() {
            assert!(names.contains(&name.as_str()), "{name}");
        }
        let mut named = Vec::new();
        entities.iter().for_each(|entity| collect_types(entity, &mut named));
        for name in &named {
            assert!(names.contains(&name.as_str()), "{name} is nowhere");
        }
        assert_eq!(names.len(), names.iter().collect::<std::collections::HashSet<_>>().len(), "a name twice");
        assert!(Command::schema().to_string().len() < 200 << 10, "a client reads 256 KiB in a line");
    }

    fn collect_types(value: &Value, named: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect_types(item, named)),
            Value::Object(members) => {
                for (member, value) in members {
                    match (member.as_str(), value) {
                        ("type" | "arg-type" | "ret-type" | "element-type", Value::String(name)) => {
                            named.push(name.clone());
                        }
                        _ => collect_types(value, named),
                    }
                }
            }
            _ => {}
        }
    }

    #[test]
    fn a_union_has_a_case_for_each_value_of_its_tag() {
        let entities = Command::schema().as_array().expect("it is a list");
        let find =
            |name: &Value| entities.iter().find(|entity| entity["name"] == *name).expect("it is named");
        let add = find(&find(&json!("netdev_add"))["arg-type"]);
        let cases: Vec<&Value> =
            add["variants"].as_array().unwrap().iter().map(|variant| &variant["case"]).collect();
        let tag = find(&add["members"][1]["type"]);
        assert_eq!(tag["values"].as_array().unwrap().iter().collect::<Vec<_>>(), cases);
        let vdpa = add["variants"]
            .as_array()
            .unwrap()
            .iter()
            .find(|variant| variant["case"] == "vhost-vdpa")
            .unwrap();
        let members = find(&vdpa["type"])["members"].as_array().unwrap();
        assert_eq!(members.last().unwrap()["features"], json!(["unstable"]));
    }
}

//! The commands of the monitor: a name and arguments become one [`Command`], or QEMU's error.

use serde_json::{Map, Value, json};

use super::{
    AnnounceSelf, ChardevAdd, NetdevAdd, XFdbAdd, XFdbDel, XFdbFlush, XQueryFdb, XSetHub, XSetRxFilter,
};
use crate::qapi::{Form, QapiError, Visitor};

/// A command whose arguments have the right names and types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `chardev-add`
    ChardevAdd(ChardevAdd),
    /// `chardev-remove`
    ChardevRemove {
        /// The chardev.
        id: String,
    },
    /// `query-chardev`
    QueryChardev,
    /// `netdev_add`
    NetdevAdd(NetdevAdd),
    /// `netdev_del`
    NetdevDel {
        /// The netdev.
        id: String,
    },
    /// `set_link`
    SetLink(SetLink),
    /// `announce-self`
    AnnounceSelf(AnnounceSelf),
    /// `query-netdev`
    QueryNetdev,
    /// `query-rx-filter`
    QueryRxFilter {
        /// One nic only.
        name: Option<String>,
    },
    /// `x-set-rx-filter`, our own
    XSetRxFilter(Box<XSetRxFilter>),
    /// `x-set-hub`, our own
    XSetHub(XSetHub),
    /// `x-query-fdb`, our own
    XQueryFdb(XQueryFdb),
    /// `x-fdb-add`, our own
    XFdbAdd(XFdbAdd),
    /// `x-fdb-del`, our own
    XFdbDel(XFdbDel),
    /// `x-fdb-flush`, our own
    XFdbFlush(XFdbFlush),
    /// `x-query-stats`, our own
    XQueryStats {
        /// One port only.
        name: Option<String>,
    },
    /// `x-set-worker`, our own
    XSetWorker(XSetWorker),
    /// `query-version`
    QueryVersion,
    /// `query-commands`
    QueryCommands,
    /// `query-name`
    QueryName,
    /// `query-status`
    QueryStatus,
    /// `stop`
    Stop,
    /// `cont`
    Cont,
    /// `getfd`; the descriptor comes beside the bytes. [`check_fd_name`](super::check_fd_name) is still to be asked.
    GetFd {
        /// What to call it.
        fdname: String,
    },
    /// `closefd`
    CloseFd {
        /// A name from `getfd`.
        fdname: String,
    },
    /// `add-fd`; the descriptor comes beside the bytes.
    AddFd {
        /// The set; a new one without it.
        fdset_id: Option<i64>,
        /// Text for whoever asks later.
        opaque: Option<String>,
    },
    /// `remove-fd`
    RemoveFd {
        /// The set.
        fdset_id: i64,
        /// One descriptor only.
        fd: Option<i64>,
    },
    /// `query-fdsets`
    QueryFdsets,
    /// `human-monitor-command`
    HumanMonitorCommand {
        /// For [`hmp::parse`](crate::hmp::parse).
        command_line: String,
    },
    /// `quit`
    Quit,
}

/// The arguments of `set_link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetLink {
    /// A netdev, a nic or a hub port.
    pub name: String,
    /// The administrative state that it gets.
    pub up: bool,
}

/// The arguments of `x-set-worker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XSetWorker {
    /// A vhost-user or tap netdev.
    pub netdev: String,
    /// One queue only.
    pub queue: Option<u16>,
    /// The worker's number, from 0.
    pub worker: u32,
}

impl Command {
    /// Whether there is a command of this name, `qmp_capabilities` included.
    pub fn exists(name: &str) -> bool {
        COMMANDS.iter().any(|(known, _)| *known == name)
    }

    /// Parses the arguments of the command `name`.
    pub fn parse(name: &str, arguments: Map<String, Value>) -> Result<Command, QapiError> {
        let not_found = || QapiError::command_not_found(format!("The command {name} has not been found"));
        let (_, visit) = COMMANDS.iter().find(|(known, _)| *known == name).ok_or_else(not_found)?;
        visit(Visitor::new(arguments, Form::Json))
    }

    /// What `query-commands` returns.
    pub fn list() -> Value {
        COMMANDS.iter().map(|(name, _)| json!({"name": name})).collect()
    }
}

type Visit = fn(Visitor) -> Result<Command, QapiError>;

const COMMANDS: [(&str, Visit); 31] = [
    ("qmp_capabilities", |_| Err(QapiError::command_not_found(NEGOTIATED))),
    ("chardev-add", |visitor| ChardevAdd::visit(visitor).map(Command::ChardevAdd)),
    ("chardev-remove", |visitor| Ok(Command::ChardevRemove { id: only(visitor, "id")? })),
    ("query-chardev", |visitor| none(visitor, Command::QueryChardev)),
    ("netdev_add", |visitor| NetdevAdd::visit(visitor).map(Command::NetdevAdd)),
    ("netdev_del", |visitor| Ok(Command::NetdevDel { id: only(visitor, "id")? })),
    ("set_link", set_link),
    ("announce-self", |visitor| AnnounceSelf::visit(visitor).map(Command::AnnounceSelf)),
    ("query-netdev", |visitor| none(visitor, Command::QueryNetdev)),
    ("query-rx-filter", |visitor| Ok(Command::QueryRxFilter { name: maybe(visitor, "name")? })),
    ("x-set-rx-filter", |visitor| Ok(Command::XSetRxFilter(Box::new(XSetRxFilter::visit(visitor)?)))),
    ("x-set-hub", |visitor| XSetHub::visit(visitor).map(Command::XSetHub)),
    ("x-query-fdb", |visitor| XQueryFdb::visit(visitor).map(Command::XQueryFdb)),
    ("x-fdb-add", |visitor| XFdbAdd::visit(visitor).map(Command::XFdbAdd)),
    ("x-fdb-del", |visitor| XFdbDel::visit(visitor).map(Command::XFdbDel)),
    ("x-fdb-flush", |visitor| XFdbFlush::visit(visitor).map(Command::XFdbFlush)),
    ("x-query-stats", |visitor| Ok(Command::XQueryStats { name: maybe(visitor, "name")? })),
    ("x-set-worker", set_worker),
    ("query-version", |visitor| none(visitor, Command::QueryVersion)),
    ("query-commands", |visitor| none(visitor, Command::QueryCommands)),
    ("query-name", |visitor| none(visitor, Command::QueryName)),
    ("query-status", |visitor| none(visitor, Command::QueryStatus)),
    ("stop", |visitor| none(visitor, Command::Stop)),
    ("cont", |visitor| none(visitor, Command::Cont)),
    ("getfd", |visitor| Ok(Command::GetFd { fdname: only(visitor, "fdname")? })),
    ("closefd", |visitor| Ok(Command::CloseFd { fdname: only(visitor, "fdname")? })),
    ("add-fd", add_fd),
    ("remove-fd", remove_fd),
    ("query-fdsets", |visitor| none(visitor, Command::QueryFdsets)),
    ("human-monitor-command", human_monitor_command),
    ("quit", |visitor| none(visitor, Command::Quit)),
];

const NEGOTIATED: &str = "Capabilities negotiation is already complete, command ignored";

fn none(visitor: Visitor, command: Command) -> Result<Command, QapiError> {
    visitor.finish()?;
    Ok(command)
}

fn only(mut visitor: Visitor, name: &str) -> Result<String, QapiError> {
    let text = visitor.required(name)?;
    visitor.finish()?;
    Ok(text)
}

fn maybe(mut visitor: Visitor, name: &str) -> Result<Option<String>, QapiError> {
    let text = visitor.optional(name)?;
    visitor.finish()?;
    Ok(text)
}

fn set_link(mut visitor: Visitor) -> Result<Command, QapiError> {
    let arguments = SetLink { name: visitor.required("name")?, up: visitor.required("up")? };
    none(visitor, Command::SetLink(arguments))
}

fn set_worker(mut visitor: Visitor) -> Result<Command, QapiError> {
    let arguments = XSetWorker {
        netdev: visitor.required("netdev")?,
        queue: visitor.optional("queue")?,
        worker: visitor.required("worker")?,
    };
    none(visitor, Command::XSetWorker(arguments))
}

fn add_fd(mut visitor: Visitor) -> Result<Command, QapiError> {
    let (fdset_id, opaque) = (visitor.optional("fdset-id")?, visitor.optional("opaque")?);
    none(visitor, Command::AddFd { fdset_id, opaque })
}

fn remove_fd(mut visitor: Visitor) -> Result<Command, QapiError> {
    let (fdset_id, fd) = (visitor.required("fdset-id")?, visitor.optional("fd")?);
    none(visitor, Command::RemoveFd { fdset_id, fd })
}

fn human_monitor_command(mut visitor: Visitor) -> Result<Command, QapiError> {
    let command_line = visitor.required("command-line")?;
    visitor.optional::<i64>("cpu-index")?; // There is no CPU to choose.
    none(visitor, Command::HumanMonitorCommand { command_line })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let Value::Array(list) = Command::list() else { panic!("it is a list") };
        assert_eq!(list.len(), 31);
        assert!(list.contains(&json!({"name": "qmp_capabilities"})));
        assert!(Command::exists("x-query-stats") && !Command::exists("query-events"));
    }
}

//! The few commands of the human monitor that scripts send through `human-monitor-command`.
//!
//! A line becomes an [`HmpCommand`], or the text that says why not. Texts end in CR LF, as everything there does.

use serde_json::Value;

use crate::json;
use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{AnnounceSelf, NetdevAdd, ObjectAdd, SetLink};

/// A line of the human monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HmpCommand {
    /// An empty line, which answers nothing.
    Nothing,
    /// `info network`
    InfoNetwork,
    /// `info fdb`
    InfoFdb,
    /// `info usernet`
    InfoUsernet,
    /// `info version`
    InfoVersion,
    /// `hostfwd_add [ID] RULE`
    HostfwdAdd {
        /// The netdev; the first one without.
        id: Option<String>,
        /// As it was written.
        rule: String,
    },
    /// `hostfwd_remove [ID] RULE`
    HostfwdRemove {
        /// The netdev; the first one without.
        id: Option<String>,
        /// As it was written.
        rule: String,
    },
    /// `announce_self [INTERFACE,…] [ID]`
    AnnounceSelf(AnnounceSelf),
    /// `set_link NAME on|off`
    SetLink(SetLink),
    /// `netdev_add TYPE,id=ID,…`
    NetdevAdd(NetdevAdd),
    /// `netdev_del ID`
    NetdevDel {
        /// The netdev.
        id: String,
    },
    /// `object_add TYPE,id=ID,…`
    ObjectAdd(ObjectAdd),
    /// `object_del ID`
    ObjectDel {
        /// The object.
        id: String,
    },
    /// `help`, for all commands or for one.
    Help {
        /// What to print.
        text: String,
    },
}

/// Parses a line; an error is what the monitor prints.
pub fn parse(line: &str) -> Result<HmpCommand, String> {
    let Some((name, rest)) = split_name(line) else { return Ok(HmpCommand::Nothing) };
    let entry = COMMANDS.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| {
        // As it was written, with what stood before it.
        let end = line.len() - rest.len();
        format!("unknown command: '{}'\r\n", &line[..end])
    })?;
    let mut arguments = Arguments { entry, rest };
    let command = (entry.parse)(&mut arguments)?;
    arguments.finish()?;
    Ok(command)
}

/// How the human monitor prints a command's error.
pub fn error_text(error: &QapiError) -> String {
    format!("Error: {error}\r\n")
}

/// A command that the monitor knows.
struct Entry {
    /// One word, or two after `info`.
    name: &'static str,
    parameters: &'static str,
    help: &'static str,
    parse: fn(&mut Arguments<'_>) -> Result<HmpCommand, String>,
}

const COMMANDS: &[Entry] = &[
    Entry {
        name: "announce_self",
        parameters: "[INTERFACE,...] [ID]",
        help: "have nics announce their addresses",
        parse: announce_self,
    },
    Entry { name: "help", parameters: "[COMMAND]", help: "show what there is", parse: help },
    Entry { name: "?", parameters: "[COMMAND]", help: "the same", parse: help },
    Entry {
        name: "hostfwd_add",
        parameters: "[ID] [tcp|udp]:[HOST]:PORT-[GUEST]:PORT",
        help: "forward connections to a guest of a user netdev",
        parse: |arguments| rule(arguments).map(|(id, rule)| HmpCommand::HostfwdAdd { id, rule }),
    },
    Entry {
        name: "hostfwd_remove",
        parameters: "[ID] [tcp|udp]:[HOST]:PORT",
        help: "forward them no more",
        parse: |arguments| rule(arguments).map(|(id, rule)| HmpCommand::HostfwdRemove { id, rule }),
    },
    Entry {
        name: "info",
        parameters: "[SUBJECT]",
        help: "show the state of something",
        parse: |_| Ok(HmpCommand::Help { text: help_of(|name| name.starts_with("info ")) }),
    },
    Entry {
        name: "info fdb",
        parameters: "",
        help: "show the addresses that hubs have learned",
        parse: |_| Ok(HmpCommand::InfoFdb),
    },
    Entry {
        name: "info network",
        parameters: "",
        help: "show hubs, netdevs and nics",
        parse: |_| Ok(HmpCommand::InfoNetwork),
    },
    Entry {
        name: "info usernet",
        parameters: "",
        help: "show the connections of user netdevs",
        parse: |_| Ok(HmpCommand::InfoUsernet),
    },
    Entry {
        name: "info version",
        parameters: "",
        help: "show the version",
        parse: |_| Ok(HmpCommand::InfoVersion),
    },
    Entry {
        name: "netdev_add",
        parameters: "TYPE,id=ID[,MEMBER=VALUE...]",
        help: "add a netdev",
        parse: netdev_add,
    },
    Entry {
        name: "netdev_del",
        parameters: "ID",
        help: "remove a netdev",
        parse: |arguments| Ok(HmpCommand::NetdevDel { id: arguments.string()? }),
    },
    Entry {
        name: "object_add",
        parameters: "filter-dump,id=ID,netdev=ID,file=FILE[,MEMBER=VALUE...]",
        help: "capture the frames of a netdev in a file",
        parse: object_add,
    },
    Entry {
        name: "object_del",
        parameters: "ID",
        help: "end a capture",
        parse: |arguments| Ok(HmpCommand::ObjectDel { id: arguments.string()? }),
    },
    Entry {
        name: "set_link",
        parameters: "NAME on|off",
        help: "change the link of a netdev or a nic",
        parse: |arguments| {
            Ok(HmpCommand::SetLink(SetLink { name: arguments.string()?, up: arguments.boolean()? }))
        },
    },
];

/// The first word of a line, or the first two after `info`, and what follows; `None` for an empty line.
fn split_name(line: &str) -> Option<(String, &str)> {
    let (first, rest) = split_word(line)?;
    match split_word(rest) {
        Some((second, rest)) if first == "info" => Some((format!("info {second}"), rest)),
        _ => Some((first.to_owned(), rest)),
    }
}

fn split_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// What follows a command's name and is not taken yet.
struct Arguments<'a> {
    entry: &'static Entry,
    rest: &'a str,
}

impl Arguments<'_> {
    /// Takes a string: a word, or anything between double quotes; `None` at the end of the line.
    fn maybe_string(&mut self) -> Result<Option<String>, String> {
        let text = self.rest.trim_start();
        if let Some(quoted) = text.strip_prefix('"') {
            let (string, rest) = unquote(quoted).ok_or_else(|| self.problem("string expected"))?;
            self.rest = rest;
            return Ok(Some(string));
        }
        let Some((word, rest)) = split_word(text) else { return Ok(None) };
        self.rest = rest;
        Ok(Some(word.to_owned()))
    }

    fn string(&mut self) -> Result<String, String> {
        self.maybe_string()?.ok_or_else(|| self.problem("string expected"))
    }

    fn boolean(&mut self) -> Result<bool, String> {
        let (word, rest) = split_word(self.rest).unwrap_or_default();
        self.rest = rest;
        match word {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("Expected 'on' or 'off'\r\n{}", self.hint())),
        }
    }

    fn finish(&self) -> Result<(), String> {
        match self.rest.trim_start() {
            "" => Ok(()),
            _ => Err(self.problem("extraneous characters at the end of line")),
        }
    }

    fn problem(&self, problem: &str) -> String {
        let name = self.entry.name.trim_start_matches("info ");
        format!("{name}: {problem}\r\n{}", self.hint())
    }

    fn hint(&self) -> String {
        format!("Try \"help {}\" for more information\r\n", self.entry.name)
    }
}

/// What stands before the closing quote, and what follows it; `None` without one, or with an unknown escape.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut string = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((string, rest.as_str())),
            '\\' => string.push(match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                same @ ('\\' | '\'' | '"') => same,
                _ => return None,
            }),
            plain => string.push(plain),
        }
    }
}

fn announce_self(arguments: &mut Arguments<'_>) -> Result<HmpCommand, String> {
    let interfaces = arguments.maybe_string()?;
    let id = arguments.maybe_string()?.unwrap_or_default();
    let interfaces = interfaces.map(|list| list.split(',').map(str::to_owned).collect());
    Ok(HmpCommand::AnnounceSelf(AnnounceSelf::at_the_usual_pace(interfaces, id)))
}

/// The netdev, if one is named, and a rule for it.
fn rule(arguments: &mut Arguments<'_>) -> Result<(Option<String>, String), String> {
    let first = arguments.string()?;
    Ok(match arguments.maybe_string()? {
        Some(rule) => (Some(first), rule),
        None => (None, first),
    })
}

fn netdev_add(arguments: &mut Arguments<'_>) -> Result<HmpCommand, String> {
    let options = arguments.maybe_string()?.unwrap_or_default();
    // What is too much is said before anything is added.
    arguments.finish()?;
    let members = parse_keyval(&options, "type", Flags::Refused);
    let add = members.and_then(|members| NetdevAdd::visit(Visitor::new(members, Form::Keyval)));
    add.map(HmpCommand::NetdevAdd).map_err(|error| error_text(&error))
}

/// The options are the rest of the line, for the name of a file may have blanks; a JSON object will do.
fn object_add(arguments: &mut Arguments<'_>) -> Result<HmpCommand, String> {
    let options = std::mem::take(&mut arguments.rest).trim();
    if options.is_empty() {
        return Err(arguments.problem("string expected"));
    }
    let members = match options.starts_with('{') {
        true => json::parse(options).map_err(QapiError::generic).and_then(|value| match value {
            Value::Object(members) => Ok((members, Form::Json)),
            _ => Err(QapiError::generic("the value is not a JSON object")),
        }),
        false => parse_keyval(options, "qom-type", Flags::Refused).map(|members| (members, Form::Keyval)),
    };
    let add = members.and_then(|(members, form)| ObjectAdd::visit(Visitor::new(members, form)));
    add.map(HmpCommand::ObjectAdd).map_err(|error| error_text(&error))
}

fn help(arguments: &mut Arguments<'_>) -> Result<HmpCommand, String> {
    let Some((name, rest)) = split_name(std::mem::take(&mut arguments.rest)) else {
        return Ok(HmpCommand::Help { text: help_of(|_| true) });
    };
    let text = match name.as_str() {
        "info" => help_of(|known| known.starts_with("info ")),
        name => help_of(|known| known == name),
    };
    match text.is_empty() || !rest.trim_start().is_empty() {
        true => Err(format!("unknown command: '{name}'\r\n")),
        false => Ok(HmpCommand::Help { text }),
    }
}

/// A line for each of the commands whose names are wanted.
fn help_of(is_wanted: impl Fn(&str) -> bool) -> String {
    let wanted = COMMANDS.iter().filter(|entry| is_wanted(entry.name));
    wanted.map(|entry| format!("{} {} -- {}\r\n", entry.name, entry.parameters, entry.help)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        parse(line).expect_err(line)
    }

    #[test]
    fn lines_become_commands() {
        assert_eq!(parse("  "), Ok(HmpCommand::Nothing));
        assert_eq!(parse("info network"), Ok(HmpCommand::InfoNetwork));
        assert_eq!(parse("info fdb"), Ok(HmpCommand::InfoFdb));
        assert_eq!(parse(" info  version "), Ok(HmpCommand::InfoVersion));
        assert_eq!(parse("info usernet"), Ok(HmpCommand::InfoUsernet));
        let (id, rule) = (Some("u0".into()), "tcp::1-:2".into());
        assert_eq!(parse("hostfwd_add u0 tcp::1-:2"), Ok(HmpCommand::HostfwdAdd { id, rule }));
        let (id, rule) = (None, "tcp::1".into());
        assert_eq!(parse("hostfwd_remove tcp::1"), Ok(HmpCommand::HostfwdRemove { id, rule }));
        let link = SetLink { name: "n 0\"".into(), up: false };
        assert_eq!(parse(r#"set_link "n 0\"" off"#), Ok(HmpCommand::SetLink(link)));
        let announce = AnnounceSelf::at_the_usual_pace(Some(vec!["a".into(), "b".into()]), "x".into());
        assert_eq!(parse("announce_self a,b x"), Ok(HmpCommand::AnnounceSelf(announce)));
        let all = AnnounceSelf::at_the_usual_pace(None, String::new());
        assert_eq!(parse("announce_self"), Ok(HmpCommand::AnnounceSelf(all)));
        assert_eq!(parse("netdev_del n0"), Ok(HmpCommand::NetdevDel { id: "n0".into() }));
        assert!(matches!(parse("netdev_add hubport,id=h,hubid=-1"), Ok(HmpCommand::NetdevAdd(_))));
        let Ok(HmpCommand::ObjectAdd(add)) = parse(" object_add  filter-dump,id=f0,netdev=n0,file=a  b ")
        else {
            panic!("it is one");
        };
        assert_eq!((add.id.as_str(), add.dump.file.as_str()), ("f0", "a  b"));
        let json = r#"object_add {"qom-type": "filter-dump", "id": "f0", "netdev": "n0", "file": "a  b"}"#;
        assert_eq!(parse(json), Ok(HmpCommand::ObjectAdd(add)));
        assert_eq!(parse("object_del f0"), Ok(HmpCommand::ObjectDel { id: "f0".into() }));
    }

    #[test]
    fn what_is_wrong_is_said_in_lines_that_end_with_carriage_return_and_line_feed() {
        assert_eq!(refused("bogus"), "unknown command: 'bogus'\r\n");
        assert_eq!(refused("info bogus"), "unknown command: 'info bogus'\r\n");
        let hint = "Try \"help set_link\" for more information\r\n";
        assert_eq!(refused("set_link x maybe"), format!("Expected 'on' or 'off'\r\n{hint}"));
        assert_eq!(refused("set_link"), format!("set_link: string expected\r\n{hint}"));
        assert_eq!(refused("set_link \"x on"), format!("set_link: string expected\r\n{hint}"));
        assert_eq!(refused("set_link x"), format!("Expected 'on' or 'off'\r\n{hint}"));
        let extra = format!("set_link: extraneous characters at the end of line\r\n{hint}");
        assert_eq!(refused("set_link x on y"), extra);
        let hint = "Try \"help hostfwd_add\" for more information\r\n";
        assert_eq!(refused("hostfwd_add"), format!("hostfwd_add: string expected\r\n{hint}"));
        let extra = format!("hostfwd_add: extraneous characters at the end of line\r\n{hint}");
        assert_eq!(refused("hostfwd_add a b c"), extra);
        let hint = "Try \"help object_add\" for more information\r\n";
        assert_eq!(refused("object_add"), format!("object_add: string expected\r\n{hint}"));
        assert_eq!(refused("object_add filter-dump"), "Error: Parameter 'id' is missing\r\n");
        assert_eq!(refused("object_add bogus=1"), "Error: Parameter 'qom-type' is missing\r\n");
        assert_eq!(refused("object_add x,foo"), "Error: Expected '=' after parameter 'foo'\r\n");
        assert_eq!(refused("object_add {"), "Error: JSON parse error, premature EOI\r\n");
        let error = "Error: Parameter 'hubid' expects integer\r\n";
        assert_eq!(refused("netdev_add hubport,id=h,hubid=x"), error);
        let hint = "Try \"help info network\" for more information\r\n";
        let extra = format!("network: extraneous characters at the end of line\r\n{hint}");
        assert_eq!(refused("info network x"), extra);
    }

    #[test]
    fn help_is_a_line_for_each_command() {
        let help = |line| match parse(line) {
            Ok(HmpCommand::Help { text }) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(help("help").lines().count(), COMMANDS.len());
        assert!(
            help("? netdev_del") == "netdev_del ID -- remove a netdev\r\n"
                && help("help info") == help("info")
        );
        assert_eq!(refused("help info bogus"), "unknown command: 'info bogus'\r\n");
    }
}

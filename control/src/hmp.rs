//! The few commands of the human monitor that scripts send through `human-monitor-command`.
//!
//! A line becomes an [`HmpCommand`], or the text that says why not. Texts end in CR LF, as everything there does.

use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{AnnounceSelf, NetdevAdd, SetLink};

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
    /// `help`; [`help_text`] is the answer.
    Help,
}

/// Parses a line; an error is what the monitor prints.
pub fn parse(line: &str) -> Result<HmpCommand, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [] => Ok(HmpCommand::Nothing),
        ["info", "network"] => Ok(HmpCommand::InfoNetwork),
        ["info", "fdb"] => Ok(HmpCommand::InfoFdb),
        ["info", "usernet"] => Ok(HmpCommand::InfoUsernet),
        ["info", "version"] => Ok(HmpCommand::InfoVersion),
        ["info"] | ["help" | "?", ..] => Ok(HmpCommand::Help),
        ["announce_self", arguments @ ..] => announce_self(arguments),
        ["hostfwd_add", arguments @ ..] => {
            let (id, rule) = rule("hostfwd_add", arguments)?;
            Ok(HmpCommand::HostfwdAdd { id, rule })
        }
        ["hostfwd_remove", arguments @ ..] => {
            let (id, rule) = rule("hostfwd_remove", arguments)?;
            Ok(HmpCommand::HostfwdRemove { id, rule })
        }
        ["set_link", arguments @ ..] => set_link(arguments),
        ["netdev_add", arguments @ ..] => netdev_add(one("netdev_add", arguments)?),
        ["netdev_del", arguments @ ..] => {
            Ok(HmpCommand::NetdevDel { id: one("netdev_del", arguments)?.to_owned() })
        }
        _ => Err(format!("unknown command: '{}'\r\n", line.trim())),
    }
}

/// How the human monitor prints a command's error.
pub fn error_text(error: &QapiError) -> String {
    format!("Error: {error}\r\n")
}

/// The answer to `help`.
pub fn help_text() -> String {
    HELP.lines().map(|line| format!("{line}\r\n")).collect()
}

const HELP: &str = "\
announce_self [INTERFACE,...] [ID] -- have nics announce their addresses
help -- show this list
hostfwd_add [ID] [tcp|udp]:[HOST]:PORT-[GUEST]:PORT -- forward connections to a guest of a user netdev
hostfwd_remove [ID] [tcp|udp]:[HOST]:PORT -- forward them no more
info fdb -- show the addresses that hubs have learned
info network -- show hubs, netdevs and nics
info usernet -- show the connections of user netdevs
info version -- show the version
netdev_add TYPE,id=ID[,MEMBER=VALUE...] -- add a netdev
netdev_del ID -- remove a netdev
set_link NAME on|off -- change the link of a netdev or a nic";

fn announce_self(arguments: &[&str]) -> Result<HmpCommand, String> {
    let (interfaces, id) = match arguments {
        [] => (None, ""),
        [interfaces] => (Some(*interfaces), ""),
        [interfaces, id] => (Some(*interfaces), *id),
        _ => return Err(wrong_count("announce_self", arguments, 2)),
    };
    let interfaces = interfaces.map(|list| list.split(',').map(str::to_owned).collect());
    Ok(HmpCommand::AnnounceSelf(AnnounceSelf::at_the_usual_pace(interfaces, id.to_owned())))
}

fn set_link(arguments: &[&str]) -> Result<HmpCommand, String> {
    let [name, state] = arguments else { return Err(wrong_count("set_link", arguments, 2)) };
    let up = match *state {
        "on" => true,
        "off" => false,
        _ => return Err(format!("Expected 'on' or 'off'\r\n{}", try_help("set_link"))),
    };
    Ok(HmpCommand::SetLink(SetLink { name: (*name).to_owned(), up }))
}

/// The netdev, if one is named, and a rule for it.
fn rule(command: &str, arguments: &[&str]) -> Result<(Option<String>, String), String> {
    match *arguments {
        [rule] => Ok((None, rule.to_owned())),
        [id, rule] => Ok((Some(id.to_owned()), rule.to_owned())),
        _ => Err(wrong_count(command, arguments, 1)),
    }
}

fn netdev_add(options: &str) -> Result<HmpCommand, String> {
    let members = parse_keyval(options, "type", Flags::Refused);
    let add = members.and_then(|members| NetdevAdd::visit(Visitor::new(members, Form::Keyval)));
    add.map(HmpCommand::NetdevAdd).map_err(|error| error_text(&error))
}

fn one<'a>(command: &str, arguments: &[&'a str]) -> Result<&'a str, String> {
    match arguments {
        [argument] => Ok(argument),
        _ => Err(wrong_count(command, arguments, 1)),
    }
}

fn wrong_count(command: &str, arguments: &[&str], expected: usize) -> String {
    let few = arguments.len() < expected;
    let problem = if few { "string expected" } else { "extraneous characters at the end of line" };
    format!("{command}: {problem}\r\n{}", try_help(command))
}

fn try_help(command: &str) -> String {
    format!("Try \"help {command}\" for more information\r\n")
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
        assert_eq!(parse("help set_link"), Ok(HmpCommand::Help));
        assert_eq!(parse("info"), Ok(HmpCommand::Help));
        assert_eq!(parse("info usernet"), Ok(HmpCommand::InfoUsernet));
        let (id, rule) = (Some("u0".into()), "tcp::1-:2".into());
        assert_eq!(parse("hostfwd_add u0 tcp::1-:2"), Ok(HmpCommand::HostfwdAdd { id, rule }));
        let (id, rule) = (None, "tcp::1".into());
        assert_eq!(parse("hostfwd_remove tcp::1"), Ok(HmpCommand::HostfwdRemove { id, rule }));
        let link = SetLink { name: "n0".into(), up: false };
        assert_eq!(parse("set_link n0 off"), Ok(HmpCommand::SetLink(link)));
        let announce = AnnounceSelf::at_the_usual_pace(Some(vec!["a".into(), "b".into()]), "x".into());
        assert_eq!(parse("announce_self a,b x"), Ok(HmpCommand::AnnounceSelf(announce)));
        let all = AnnounceSelf::at_the_usual_pace(None, String::new());
        assert_eq!(parse("announce_self"), Ok(HmpCommand::AnnounceSelf(all)));
        assert_eq!(parse("netdev_del n0"), Ok(HmpCommand::NetdevDel { id: "n0".into() }));
        assert!(matches!(parse("netdev_add hubport,id=h,hubid=-1"), Ok(HmpCommand::NetdevAdd(_))));
    }

    #[test]
    fn what_is_wrong_is_said_in_lines_that_end_with_carriage_return_and_line_feed() {
        assert_eq!(refused("bogus"), "unknown command: 'bogus'\r\n");
        assert_eq!(refused("info bogus"), "unknown command: 'info bogus'\r\n");
        let hint = "Try \"help set_link\" for more information\r\n";
        assert_eq!(refused("set_link x maybe"), format!("Expected 'on' or 'off'\r\n{hint}"));
        assert_eq!(refused("set_link x"), format!("set_link: string expected\r\n{hint}"));
        let extra = format!("set_link: extraneous characters at the end of line\r\n{hint}");
        assert_eq!(refused("set_link x on y"), extra);
        let hint = "Try \"help hostfwd_add\" for more information\r\n";
        assert_eq!(refused("hostfwd_add"), format!("hostfwd_add: string expected\r\n{hint}"));
        let extra = format!("hostfwd_add: extraneous characters at the end of line\r\n{hint}");
        assert_eq!(refused("hostfwd_add a b c"), extra);
        let error = "Error: Parameter 'hubid' expects integer\r\n";
        assert_eq!(refused("netdev_add hubport,id=h,hubid=x"), error);
        assert!(help_text().lines().count() == 11 && help_text().ends_with("\r\n"));
    }
}

//! A line of the shell: our own verbs, QMP commands with `KEY=VALUE` or as JSON, and lines of the human monitor.

use serde_json::{Map, Value, json};

use crate::cli;
use crate::client::Action;
use crate::complete::{SchemaIndex, Values};

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// Nothing: it is empty, or a comment.
    Nothing,
    /// What the command of the same name does.
    Verb(Box<Action>),
    /// A command and its arguments.
    Qmp(String, Value),
    /// A line for the human monitor.
    Human(String),
    /// What can be written here.
    Help,
    /// To leave.
    Exit,
}

/// Verbs of ours, as on the command line.
pub(super) const VERBS: [&str; 7] = ["show", "add", "del", "link", "qemu-args", "qmp", "reload"];

/// Reads a line; an error is what is wrong with it.
pub(super) fn parse(line: &str, schema: &SchemaIndex) -> Result<Line, String> {
    let line = line.trim();
    if let Some(human) = line.strip_prefix('!').or_else(|| line.strip_prefix("hmp ")) {
        return Ok(Line::Human(human.trim().to_owned()));
    }
    if line.starts_with('{') {
        return request(line);
    }
    let words = words(line);
    let Some((first, rest)) = words.split_first() else { return Ok(Line::Nothing) };
    match (first.as_str(), rest) {
        (comment, _) if comment.starts_with('#') => Ok(Line::Nothing),
        ("exit" | "quit", []) => Ok(Line::Exit),
        ("help" | "?", []) => Ok(Line::Help),
        (verb, _) if VERBS.contains(&verb) => self::verb(&words),
        (command, members) if schema.has(command) && members.iter().all(|member| pair(member).is_some()) => {
            Ok(Line::Qmp(command.to_owned(), arguments(command, members, schema)?))
        }
        _ => Ok(Line::Human(line.to_owned())),
    }
}

fn verb(words: &[String]) -> Result<Line, String> {
    let words = std::iter::once("ringyard").chain(words.iter().map(String::as_str));
    match cli::parse(words.map(Into::into)) {
        Ok(cli::Invocation::Client(invocation)) => Ok(Line::Verb(Box::new(invocation.action))),
        Ok(_) => Err("this is no command for a running switch".into()),
        Err(error) => Err(error.to_string().trim_end().to_owned()),
    }
}

fn request(text: &str) -> Result<Line, String> {
    let Value::Object(mut members) = crate::json::parse(text)? else {
        return Err("a request is a JSON object".into());
    };
    match (members.shift_remove("execute"), members.shift_remove("arguments")) {
        (Some(Value::String(command)), arguments) => {
            Ok(Line::Qmp(command, arguments.unwrap_or_else(|| json!({}))))
        }
        _ => Err("a request has the command's name as \"execute\"".into()),
    }
}

/// `KEY=VALUE…` as the members of a command, dotted keys as objects.
fn arguments(command: &str, words: &[String], schema: &SchemaIndex) -> Result<Value, String> {
    let pairs: Vec<(&str, &str)> = words.iter().filter_map(|word| pair(word)).collect();
    let given = |key: &str| {
        let found = pairs.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| (*value).to_owned())
    };
    let mut members = Map::new();
    for (key, text) in &pairs {
        let kind = schema.member(command, key, &given).map(|member| member.values);
        insert(&mut members, key, value(text, kind.as_ref()))?;
    }
    Ok(members.into())
}

/// A value of the type that the schema says; where it says none, what it looks like.
fn value(text: &str, kind: Option<&Values>) -> Value {
    let as_json = || crate::json::parse(text).ok();
    let as_truth = || match text {
        "on" | "true" | "yes" => Some(json!(true)),
        "off" | "false" | "no" => Some(json!(false)),
        _ => None,
    };
    let found = match kind {
        Some(Values::Truth) => as_truth(),
        Some(Values::OneOf(_)) => None,
        Some(Values::Any(kind)) if kind == "string" => None,
        _ => as_json(),
    };
    found.unwrap_or_else(|| text.into())
}

fn insert(members: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), String> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let Some(rest) = rest else {
        return match members.insert(first.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(format!("{first} is given twice")),
        };
    };
    match members.entry(first).or_insert_with(|| json!({})) {
        Value::Object(inner) => insert(inner, rest, value),
        _ => Err(format!("{first} cannot be a value and have members")),
    }
}

/// `KEY=VALUE`, if that is what a word is.
fn pair(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!key.is_empty() && key.chars().all(is_key)).then_some((key, value))
}

/// The words of a line. Quotes hold a word together and are taken away, but not within JSON.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut depth, mut quote) = (0, None);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if depth == 0 && quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            ('{' | '[', None) => depth += 1,
            ('}' | ']', None) => depth -= i32::from(depth > 0),
            ('\\', Some(_)) if depth > 0 => {
                word.push(c);
                word.extend(rest.next());
                continue;
            }
            _ => {}
        }
        let is_quote = depth == 0 && matches!(c, '\'' | '"') && quote.is_none_or(|open| open == c);
        if !is_quote {
            word.push(c);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complete::small_schema;

    fn parsed(line: &str) -> Result<Line, String> {
        parse(line, &small_schema())
    }

    fn qmp(command: &str, arguments: Value) -> Result<Line, String> {
        Ok(Line::Qmp(command.into(), arguments))
    }

    #[test]
    fn qmp_is_written_with_members_or_as_json() {
        assert_eq!(parsed("set_link name=t0 up=off"), qmp("set_link", json!({"name": "t0", "up": false})));
        assert_eq!(parsed("set_link name=7 up=true"), qmp("set_link", json!({"name": "7", "up": true})));
        let nested = json!({"id": "h", "type": "stream", "addr": {"type": "unix", "path": "a b"}});
        assert_eq!(
            parsed("netdev_add id=h type=stream addr.type=unix addr.path='a b'"),
            qmp("netdev_add", nested)
        );
        let hub = json!({"id": "h", "type": "hubport", "hubid": -1, "more": {"a": [1, "x y"]}});
        assert_eq!(
            parsed(r#"netdev_add id=h type=hubport hubid=-1 more={"a": [1, "x y"]}"#),
            qmp("netdev_add", hub)
        );
        assert_eq!(parsed(r#"{"execute": "stop"}"#), qmp("stop", json!({})));
        assert_eq!(parsed("{'execute': 'x', 'arguments': {'a': 1}}"), qmp("x", json!({"a": 1})));
        assert!(parsed("{}").is_err() && parsed("{").is_err());
        assert!(parsed("set_link a=1 a.b=2").is_err() && parsed("set_link a=1 a=2").is_err());
    }

    #[test]
    fn what_is_no_pair_is_for_the_human_monitor() {
        let human = |line: &str| Ok(Line::Human(line.into()));
        assert_eq!(parsed("info network"), human("info network"));
        assert_eq!(parsed("set_link t0 off"), human("set_link t0 off"));
        assert_eq!(parsed("netdev_add hubport,id=h,hubid=0"), human("netdev_add hubport,id=h,hubid=0"));
        assert_eq!(parsed("! info version"), human("info version"));
        assert_eq!(parsed("hmp help"), human("help"));
    }

    #[test]
    fn our_verbs_are_those_of_the_command_line() {
        assert_eq!(parsed("del t0"), Ok(Line::Verb(Box::new(Action::del("t0")))));
        assert_eq!(parsed("link t0 down"), Ok(Line::Verb(Box::new(Action::link("t0", false)))));
        assert!(parsed("link t0 sideways").is_err_and(|why| why.contains("possible values")));
        assert!(parsed("show").is_err());
        assert_eq!(parsed("  "), Ok(Line::Nothing));
        assert_eq!(parsed("# a comment"), Ok(Line::Nothing));
        assert_eq!((parsed("help"), parsed("exit")), (Ok(Line::Help), Ok(Line::Exit)));
    }

    #[test]
    fn words_are_held_together_by_quotes_and_braces() {
        assert_eq!(words(r#" a  b="c d" 'e "f' "#), ["a", "b=c d", "e \"f"]);
        assert_eq!(words(r#"x={"a": "b } c"} y"#), [r#"x={"a": "b } c"}"#, "y"]);
        assert_eq!(words(r#"x=["\" ]"] ''"#), [r#"x=["\" ]"]"#, ""]);
        assert_eq!(words("}] 'open"), ["}]", "open"]);
    }
}

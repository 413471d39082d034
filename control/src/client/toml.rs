//! The answer of `x-query-config` as a configuration file: settings, then a table for each object, and as comments those
//! that no file can make.

use serde_json::{Map, Value};

/// See the module.
pub(super) fn text(config: &Value) -> String {
    let mut parts = Vec::new();
    let members: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    if let Some(monitors) = members.get("qmp") {
        parts.push(format!("qmp = {}\n", inline(monitors)));
    }
    for (name, member) in &members {
        match member {
            Value::Object(table) => parts.push(block(&format!("[{name}]"), table)),
            Value::Array(tables) if !APART.contains(&name.as_str()) => {
                let tables = tables.iter().filter_map(Value::as_object);
                parts.extend(tables.map(|table| block(&format!("[[{name}]]"), table)));
            }
            _ => {}
        }
    }
    for object in config["unwritable"].as_array().into_iter().flatten() {
        let mut table = object.as_object().cloned().unwrap_or_default();
        let mut taken = |name| match table.shift_remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (name, reason) = (taken("table"), taken("reason"));
        let lines = block(&format!("[[{name}]]"), &table);
        let commented: String = lines.lines().map(|line| format!("# {line}\n")).collect();
        parts.push(format!("# Left out: {reason}.\n{commented}"));
    }
    parts.join("\n")
}

fn block(head: &str, table: &Map<String, Value>) -> String {
    let lines = table.iter().map(|(name, value)| format!("{} = {}\n", key(name), inline(value)));
    format!("{head}\n{}", lines.collect::<String>())
}

/// A value on the right of a `=`.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".into(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let members: Vec<String> =
                table.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A string between double quotes, whose escapes TOML and JSON have in common but for DEL.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// What has no table of its own.
const APART: [&str; 2] = ["qmp", "unwritable"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn settings_come_first_and_objects_each_have_a_table() {
        let config = json!({
            "qmp": ["unix:/q,server=on,wait=off"],
            "log": {"level": "info"},
            "netdev": [{"type": "stream", "id": "s", "server": true, "addr": {"type": "unix", "path": "/a b"}},
                {"type": "user", "id": "u", "hostfwd": [{"str": "tcp::1-:2"}]}],
            "nic": [],
            "unwritable": [{"type": "tap", "id": "t", "fds": "x", "table": "netdev", "reason": "why"}],
        });
        let expected = r#"qmp = ["unix:/q,server=on,wait=off"]

[log]
level = "info"

[[netdev]]
type = "stream"
id = "s"
server = true
addr = { type = "unix", path = "/a b" }

[[netdev]]
type = "user"
id = "u"
hostfwd = [{ str = "tcp::1-:2" }]

# Left out: why.
# [[netdev]]
# type = "tap"
# id = "t"
# fds = "x"
"#;
        assert_eq!(text(&config), expected);
    }

    #[test]
    fn no_answer_makes_it_panic() {
        for odd in
            [json!(null), json!([1]), json!({"netdev": [1], "unwritable": [null, 3], "a b": {"": null}})]
        {
            drop(text(&odd));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_is(value in "\\PC*|[\\x00-\\xff]{0,8}", name in "[a-z]{1,3}|\\PC{0,4}") {
            let written = text(&json!({"table": {name.clone(): value.clone()}}));
            let read: toml::Table = written.parse().expect(&written);
            prop_assert_eq!(read["table"][&name].as_str(), Some(value.as_str()));
        }
    }
}

//! A QMP schema as completion needs it: commands, and the members of what they take, nested ones with dots.

use std::collections::HashMap;

use serde_json::Value;

/// The answer to `query-qmp-schema`, by name.
#[derive(Debug, Default)]
pub(crate) struct SchemaIndex(HashMap<String, Value>);

/// A member that a command takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    /// Its name, with those of what it lies in before it.
    pub(crate) key: String,
    /// Whether it has to be there.
    pub(crate) is_required: bool,
    /// What it can be.
    pub(crate) values: Values,
}

/// What a member can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// One of these words.
    OneOf(Vec<String>),
    /// True or false, which options and JSON spell differently.
    Truth,
    /// Anything of this type, in JSON's words.
    Any(String),
}

impl SchemaIndex {
    /// Takes in the answer; whatever of it is no entity is passed over.
    pub(crate) fn new(answer: Value) -> SchemaIndex {
        let Value::Array(entities) = answer else { return SchemaIndex::default() };
        let named = entities.into_iter().filter_map(|entity| {
            let name = entity["name"].as_str()?.to_owned();
            Some((name, entity))
        });
        SchemaIndex(named.collect())
    }

    /// The names of all commands, in order.
    pub(crate) fn commands(&self) -> Vec<&str> {
        let commands = self.0.iter().filter(|(_, entity)| entity["meta-type"] == "command");
        let mut names: Vec<&str> = commands.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is a command of that name.
    pub(crate) fn has(&self, command: &str) -> bool {
        self.0.get(command).is_some_and(|entity| entity["meta-type"] == "command")
    }

    /// The members that a command takes, given what some of them are: those of a union depend on its tag.
    pub(crate) fn members(&self, command: &str, given: &dyn Fn(&str) -> Option<String>) -> Vec<Argument> {
        let mut members = Vec::new();
        if let Some(arguments) = self.0.get(command).and_then(|command| command["arg-type"].as_str()) {
            self.add_members(arguments, "", true, given, DEPTH_MAX, &mut members);
        }
        members
    }

    /// What the member `key` of a command can be; `None`: it has no such member.
    pub(crate) fn member(
        &self,
        command: &str,
        key: &str,
        given: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Argument> {
        self.members(command, given).into_iter().find(|member| member.key == key)
    }

    fn add_members(
        &self,
        object: &str,
        place: &str,
        is_required: bool,
        given: &dyn Fn(&str) -> Option<String>,
        depth: usize,
        members: &mut Vec<Argument>,
    ) {
        let Some(object) = self.0.get(object).filter(|_| depth > 0) else { return };
        for member in list(&object["members"]) {
            let (name, kind) = (text(&member["name"]), text(&member["type"]));
            let key = format!("{place}{name}");
            // A default, be it null, says that it may be left out.
            let is_required = is_required && member.get("default").is_none();
            match self.0.get(kind).map(|kind| text(&kind["meta-type"])) {
                Some("object") => {
                    self.add_members(kind, &format!("{key}."), is_required, given, depth - 1, members)
                }
                _ => members.push(Argument { key, is_required, values: self.values(kind) }),
            }
        }
        let Some(tag) = object["tag"].as_str() else { return };
        let Some(case) = given(&format!("{place}{tag}")) else { return };
        let variants = list(&object["variants"]).filter(|variant| variant["case"] == case);
        variants.for_each(|variant| {
            self.add_members(text(&variant["type"]), place, is_required, given, depth - 1, members)
        });
    }

    fn values(&self, kind: &str) -> Values {
        let entity = self.0.get(kind).unwrap_or(&Value::Null);
        match text(&entity["meta-type"]) {
            "enum" => {
                // The older form lists values, the newer one members with names.
                let members = list(&entity["members"]).map(|member| text(&member["name"]).to_owned());
                let values = list(&entity["values"]).map(|value| text(value).to_owned());
                let mut words: Vec<String> = members.collect();
                if words.is_empty() {
                    words.extend(values);
                }
                Values::OneOf(words)
            }
            "builtin" if entity["json-type"] == "boolean" => Values::Truth,
            "builtin" => Values::Any(text(&entity["json-type"]).to_owned()),
            "array" => Values::Any("array".into()),
            _ => Values::Any("value".into()),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Objects within objects, at most: a foreign schema may go round in circles.
const DEPTH_MAX: usize = 8;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A small part of QEMU's, as QEMU writes it.
    pub(crate) fn small() -> SchemaIndex {
        let builtin =
            |name: &str, kind: &str| json!({"name": name, "meta-type": "builtin", "json-type": kind});
        let optional = |name: &str, kind: &str| json!({"name": name, "type": kind, "default": null});
        let required = |name: &str, kind: &str| json!({"name": name, "type": kind});
        let object =
            |name: &str, members: &[Value]| json!({"name": name, "meta-type": "object", "members": members});
        let mut add = object("100", &[required("id", "str"), required("type", "347")]);
        add["tag"] = json!("type");
        add["variants"] = json!([{"case": "stream", "type": "353"}, {"case": "hubport", "type": "357"}]);
        let mut address = object("365", &[required("type", "554")]);
        address["tag"] = json!("type");
        address["variants"] = json!([{"case": "unix", "type": "575"}]);
        SchemaIndex::new(json!([
            builtin("str", "string"),
            builtin("int", "int"),
            builtin("bool", "boolean"),
            {"name": "netdev_add", "meta-type": "command", "arg-type": "100", "ret-type": "0"},
            {"name": "set_link", "meta-type": "command", "arg-type": "99", "ret-type": "0"},
            {"name": "SHUTDOWN", "meta-type": "event", "arg-type": "0"},
            object("99", &[required("name", "str"), required("up", "bool")]),
            {"name": "347", "meta-type": "enum", "members": [{"name": "stream"}, {"name": "hubport"}]},
            {"name": "554", "meta-type": "enum", "values": ["inet", "unix"]},
            add,
            address,
            object("353", &[required("addr", "365"), optional("server", "bool")]),
            object("357", &[required("hubid", "int"), optional("netdev", "str")]),
            object("575", &[required("path", "str"), optional("circle", "575")]),
        ]))
    }

    fn keys(given: &[(&str, &str)]) -> Vec<String> {
        let given = |key: &str| {
            let found = given.iter().find(|(known, _)| *known == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        small().members("netdev_add", &given).into_iter().map(|member| member.key).collect()
    }

    #[test]
    fn members_of_a_union_follow_its_tag() {
        assert_eq!(keys(&[]), ["id", "type"]);
        assert_eq!(keys(&[("type", "hubport")]), ["id", "type", "hubid", "netdev"]);
        assert_eq!(keys(&[("type", "stream")]), ["id", "type", "addr.type", "server"]);
        let unix = keys(&[("type", "stream"), ("addr.type", "unix")]);
        assert_eq!(unix[..4], ["id", "type", "addr.type", "addr.path"]);
        assert!(unix.len() < 20 && unix.contains(&"server".to_owned()), "a circle ends: {unix:?}");
    }

    #[test]
    fn values_are_words_or_of_a_type() {
        let schema = small();
        let words = |words: &[&str]| Values::OneOf(words.iter().map(|word| (*word).to_owned()).collect());
        let values = |key: &str| schema.member("set_link", key, &|_| None).map(|member| member.values);
        assert_eq!(values("up"), Some(Values::Truth));
        assert_eq!(values("name"), Some(Values::Any("string".into())));
        assert_eq!(values("nothing"), None);
        let kind = schema.member("netdev_add", "type", &|_| None).map(|member| member.values);
        assert_eq!(kind, Some(words(&["stream", "hubport"])));
        assert_eq!(schema.commands(), ["netdev_add", "set_link"]);
        assert!(SchemaIndex::new(json!([1, {"name": 2}, null])).commands().is_empty());
    }
}

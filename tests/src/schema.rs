//! What a server says about itself (`query-qmp-schema`), to check that it does as it says: every answer and every event has
//! the members that its type has, each of its own type.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// A server's schema.
pub struct Schema {
    entities: HashMap<String, Value>,
}

impl Schema {
    /// From what `query-qmp-schema` returned.
    pub fn new(answer: &Value) -> Schema {
        let entities = answer.as_array().into_iter().flatten();
        let named = entities.filter_map(|entity| Some((entity["name"].as_str()?.to_owned(), entity.clone())));
        Schema { entities: named.collect() }
    }

    /// The schema of the switch under test, of which a test process sees one build only; `ask` asks for it once.
    pub fn of_switch(ask: impl FnOnce() -> Value) -> &'static Schema {
        SWITCH.get_or_init(|| Schema::new(&ask()))
    }

    /// The same, if it was asked for.
    pub fn known() -> Option<&'static Schema> {
        SWITCH.get()
    }

    /// An entity by its name.
    pub fn entity(&self, name: &str) -> Option<&Value> {
        self.entities.get(name)
    }

    /// The names of the entities of a meta-type, such as `command`.
    pub fn names(&self, meta_type: &str) -> Vec<&str> {
        let of_type = self.entities.iter().filter(|(_, entity)| entity["meta-type"] == meta_type);
        let mut names: Vec<&str> = of_type.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// What is wrong with what a command returned.
    pub fn check_return(&self, command: &str, returned: &Value) -> Result<(), String> {
        let entity =
            self.entity(command).ok_or_else(|| format!("{command}: no such command in the schema"))?;
        self.check(command, &entity["ret-type"], returned)
    }

    /// What is wrong with an event.
    pub fn check_event(&self, event: &Value) -> Result<(), String> {
        let name = event["event"].as_str().unwrap_or_default();
        let entity = self.entity(name).ok_or_else(|| format!("{name}: no such event in the schema"))?;
        let nothing = Value::Object(Map::new());
        self.check(name, &entity["arg-type"], event.get("data").unwrap_or(&nothing))
    }

    /// What is wrong with a value of that type; `path` names it.
    fn check(&self, path: &str, kind: &Value, value: &Value) -> Result<(), String> {
        let kind = kind.as_str().unwrap_or_default();
        let entity = self.entity(kind).ok_or_else(|| format!("{path}: no type {kind} in the schema"))?;
        let wrong = |expected: &str| Err(format!("{path}: {value} where {expected} is to be"));
        match entity["meta-type"].as_str().unwrap_or_default() {
            "builtin" if is_of(&entity["json-type"], value) => Ok(()),
            "builtin" => wrong(&entity["json-type"].to_string()),
            "enum" => match entity["values"].as_array().is_some_and(|values| values.contains(value)) {
                true => Ok(()),
                false => wrong(&format!("one of {}", entity["values"])),
            },
            "array" => {
                let Some(items) = value.as_array() else { return wrong("an array") };
                let mut items = items.iter().enumerate();
                items.try_for_each(|(at, item)| {
                    self.check(&format!("{path}[{at}]"), &entity["element-type"], item)
                })
            }
            "object" => {
                let Some(given) = value.as_object() else { return wrong("an object") };
                let mut left: Vec<&str> = given.keys().map(String::as_str).collect();
                self.check_members(path, entity, given, &mut left)?;
                match left.first() {
                    None => Ok(()),
                    Some(name) => Err(format!("{path}: a member {name} that the schema lacks")),
                }
            }
            "alternate" => {
                let mut members = entity["members"].as_array().into_iter().flatten();
                match members.any(|member| self.check(path, &member["type"], value).is_ok()) {
                    true => Ok(()),
                    false => wrong("one of several types"),
                }
            }
            other => Err(format!("{path}: a type {kind} of the unknown kind {other}")),
        }
    }

    /// Checks the members that a type has, and strikes them off those that are `left`.
    fn check_members(
        &self,
        path: &str,
        entity: &Value,
        given: &Map<String, Value>,
        left: &mut Vec<&str>,
    ) -> Result<(), String> {
        for member in entity["members"].as_array().into_iter().flatten() {
            let name = member["name"].as_str().unwrap_or_default();
            let is_optional = member.get("default").is_some();
            match given.get(name) {
                Some(value) => self.check(&format!("{path}.{name}"), &member["type"], value)?,
                None if is_optional => {}
                None => return Err(format!("{path}: no member {name}")),
            }
            left.retain(|other| *other != name);
        }
        let Some(tag) = entity["tag"].as_str() else { return Ok(()) };
        let mut variants = entity["variants"].as_array().into_iter().flatten();
        let variant = variants.find(|variant| variant["case"] == given[tag]);
        let variant = variant.and_then(|variant| self.entity(variant["type"].as_str()?));
        match variant {
            Some(variant) => self.check_members(path, variant, given, left),
            None => Err(format!("{path}: no variant for {tag} {}", given[tag])),
        }
    }
}

/// Whether a value is of a built-in type.
fn is_of(json_type: &Value, value: &Value) -> bool {
    match json_type.as_str().unwrap_or_default() {
        "value" => true,
        "string" => value.is_string(),
        "int" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

static SWITCH: OnceLock<Schema> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::new(&json!([
            {"name": "query", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"},
            {"name": "EVENT", "meta-type": "event", "arg-type": "0"},
            {"name": "[1]", "meta-type": "array", "element-type": "1"},
            {"name": "0", "meta-type": "object", "members": []},
            {"name": "1", "meta-type": "object", "tag": "kind", "members": [
                {"name": "kind", "type": "2"}, {"name": "count", "type": "int", "default": null}],
             "variants": [{"case": "a", "type": "3"}, {"case": "b", "type": "0"}]},
            {"name": "2", "meta-type": "enum", "values": ["a", "b"]},
            {"name": "3", "meta-type": "object", "members": [{"name": "text", "type": "str"}]},
            {"name": "int", "meta-type": "builtin", "json-type": "int"},
            {"name": "str", "meta-type": "builtin", "json-type": "string"},
        ]))
    }

    #[test]
    fn what_is_as_it_should_be_passes() {
        let answer = json!([{"kind": "a", "text": "x"}, {"kind": "b", "count": 1}]);
        assert_eq!(schema().check_return("query", &answer), Ok(()));
        assert_eq!(schema().check_event(&json!({"event": "EVENT"})), Ok(()));
    }

    #[test]
    fn what_is_not_is_named() {
        for (answer, wrong) in [
            (json!({}), "query: {} where an array is to be"),
            (json!([{}]), "query[0]: no member kind"),
            (json!([{"kind": "c"}]), "query[0].kind: \"c\" where one of [\"a\",\"b\"] is to be"),
            (json!([{"kind": "a"}]), "query[0]: no member text"),
            (json!([{"kind": "b", "text": "x"}]), "query[0]: a member text that the schema lacks"),
            (json!([{"kind": "b", "count": "1"}]), "query[0].count: \"1\" where \"int\" is to be"),
        ] {
            assert_eq!(schema().check_return("query", &answer), Err(wrong.into()));
        }
        let event = json!({"event": "EVENT", "data": {"x": 1}});
        assert_eq!(schema().check_event(&event), Err("EVENT: a member x that the schema lacks".into()));
        assert_eq!(
            schema().check_return("nope", &json!({})),
            Err("nope: no such command in the schema".into())
        );
    }
}

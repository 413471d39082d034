//! What each says about itself: the commands, events and types that both have must be the same ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ringyard_tests::Result;
use ringyard_tests::error::Error;
use ringyard_tests::schema::Schema;
use serde_json::Value;

use crate::differences;
use crate::pair::{Pair, Side};

#[test]
fn what_both_have_has_the_same_schema() -> Result<()> {
    let mut pair = Pair::start()?;
    let (qemu, ours) = (schema_of(&mut pair.qemu)?, schema_of(&mut pair.ours)?);
    let mut walk = Walk { qemu: &qemu, ours: &ours, seen: HashSet::new(), found: BTreeSet::new() };
    for meta_type in ["command", "event"] {
        for name in ours.names(meta_type) {
            walk.compare_entity(meta_type, name);
        }
    }
    let listed: BTreeMap<&str, &str> = differences::SCHEMA.iter().copied().collect();
    let unlisted = walk.found.iter().filter(|found| !listed.contains_key(found.as_str()));
    let mut failures: Vec<String> = unlisted.map(|found| format!("not listed: {found}")).collect();
    let gone = listed.iter().filter(|(text, _)| !walk.found.contains(**text));
    failures.extend(gone.map(|(text, reason)| format!("listed ({reason}), but not there: {text}")));
    assert_eq!(listed.len(), differences::SCHEMA.len(), "a difference is listed twice");
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::new(failures.join("\n"))),
    }
}

fn schema_of(side: &mut Side) -> Result<Schema> {
    let answers = side.ask(br#"{"execute": "query-qmp-schema"}"#, &[])?;
    match answers.as_slice() {
        [answer] if answer.is_return() => Ok(Schema::new(answer.returned())),
        _ => Err(Error::new("the schema is one answer")),
    }
}

/// Both schemas side by side. Types other than the built-in ones have no names, so they are compared by what they are.
struct Walk<'a> {
    qemu: &'a Schema,
    ours: &'a Schema,
    /// Pairs of types that were compared.
    seen: HashSet<(String, String)>,
    found: BTreeSet<String>,
}

impl Walk<'_> {
    /// Compares a command or an event of ours with QEMU's of that name.
    fn compare_entity(&mut self, meta_type: &str, name: &str) {
        let theirs = self.qemu.entity(name).filter(|entity| entity["meta-type"] == meta_type);
        let (Some(theirs), Some(ours)) = (theirs, self.ours.entity(name)) else {
            // Those that begin with x- are our own by their names.
            if !name.starts_with("x-") {
                self.found.insert(format!("{meta_type} {name}: only ours"));
            }
            return;
        };
        for member in ["allow-oob", "features", "success-response"] {
            if theirs.get(member) != ours.get(member) {
                self.differ(name, member, theirs.get(member), ours.get(member));
            }
        }
        for (member, path) in [("arg-type", name.to_owned()), ("ret-type", format!("{name}()"))] {
            if meta_type == "command" || member == "arg-type" {
                self.compare(&path, &theirs[member], &ours[member]);
            }
        }
    }

    fn compare(&mut self, path: &str, theirs: &Value, ours: &Value) {
        let names =
            (theirs.as_str().unwrap_or_default().to_owned(), ours.as_str().unwrap_or_default().to_owned());
        let (Some(theirs), Some(ours)) = (self.qemu.entity(&names.0), self.ours.entity(&names.1)) else {
            self.found.insert(format!("{path}: a type that is not there, {} or {}", names.0, names.1));
            return;
        };
        if !self.seen.insert(names) {
            return;
        }
        if theirs["meta-type"] != ours["meta-type"] {
            return self.differ(path, "kind", theirs.get("meta-type"), ours.get("meta-type"));
        }
        match ours["meta-type"].as_str().unwrap_or_default() {
            "builtin" if theirs["json-type"] != ours["json-type"] => {
                self.differ(path, "type", theirs.get("json-type"), ours.get("json-type"));
            }
            "enum" => self.compare_values(
                path,
                &names_in(&theirs["members"], "name"),
                &names_in(&ours["members"], "name"),
            ),
            "array" => self.compare(&format!("{path}[]"), &theirs["element-type"], &ours["element-type"]),
            "object" => self.compare_objects(path, theirs, ours),
            "alternate" => self.found.extend([format!("{path}: alternates are not compared")]),
            _ => {}
        }
    }

    fn compare_objects(&mut self, path: &str, theirs: &Value, ours: &Value) {
        if theirs.get("tag") != ours.get("tag") {
            self.differ(path, "tag", theirs.get("tag"), ours.get("tag"));
        }
        self.compare_values(path, &names_in(&theirs["members"], "name"), &names_in(&ours["members"], "name"));
        for (name, theirs, ours) in both(&theirs["members"], &ours["members"], "name") {
            let path = format!("{path}.{name}");
            if theirs.get("default") != ours.get("default") {
                let optional = |member: &Value| Value::from(member.get("default").is_some());
                self.differ(&path, "optional", Some(&optional(theirs)), Some(&optional(ours)));
            }
            self.compare(&path, &theirs["type"], &ours["type"]);
        }
        // The tag's enum has told of the cases that one lacks.
        for (case, theirs, ours) in both(&theirs["variants"], &ours["variants"], "case") {
            self.compare(&format!("{path}<{case}>"), &theirs["type"], &ours["type"]);
        }
    }

    fn compare_values(&mut self, path: &str, theirs: &BTreeSet<&str>, ours: &BTreeSet<&str>) {
        for (whose, mut only) in [("QEMU's", theirs.difference(ours)), ("ours", ours.difference(theirs))] {
            let only: Vec<&str> = only.by_ref().copied().collect();
            if !only.is_empty() {
                self.found.insert(format!("{path}: only {whose}: {}", only.join(", ")));
            }
        }
    }

    fn differ(&mut self, path: &str, what: &str, theirs: Option<&Value>, ours: Option<&Value>) {
        let text = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
        self.found.insert(format!("{path}: {what}: QEMU's {}, ours {}", text(theirs), text(ours)));
    }
}

/// What the items of a list are called.
fn names_in<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|item| item[key].as_str()).collect()
}

/// The items that both lists have, QEMU's first.
fn both<'a>(theirs: &'a Value, ours: &'a Value, key: &str) -> Vec<(&'a str, &'a Value, &'a Value)> {
    let items = |list: &'a Value| list.as_array().into_iter().flatten();
    items(theirs)
        .filter_map(|their| {
            let name = their[key].as_str()?;
            items(ours).find(|our| our[key] == name).map(|our| (name, their, our))
        })
        .collect()
}

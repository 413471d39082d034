//! What introspection tells (`query-qmp-schema`): every command and event with the types of its members.
//!
//! Types register themselves when a command or an event that needs them is added. As in QEMU, the names of types other
//! than the built-in ones are hidden behind numbers: clients are to look at what a type is, not at what it is called.

use std::collections::{HashMap, HashSet};

use serde::{Serialize, Serializer};
use serde_json::Map;

use super::described::{Described, EMPTY, Word};
use super::object::answer;
use super::{QapiEnum, shown, written};

/// A schema that is being collected.
#[derive(Default)]
pub struct Schema {
    commands: Vec<(&'static str, String, String)>,
    events: Vec<(&'static str, String)>,
    /// In the order of their first use.
    types: Vec<(String, Type)>,
    known: HashSet<String>,
}

/// What a type is.
enum Type {
    Builtin,
    Enum(Vec<&'static str>),
    Array(String),
    Object(Object),
}

#[derive(Default)]
struct Object {
    members: Vec<Member>,
    /// The member that decides, and what the others are for each of its values.
    variants: Option<(&'static str, Vec<(&'static str, String)>)>,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    name: &'static str,
    kind: String,
    is_optional: bool,
}

type Describe = fn(&mut Schema) -> String;

impl Member {
    /// A member of that type.
    pub(crate) fn of<T: Described>(schema: &mut Schema, name: &'static str) -> Member {
        Member { name, kind: T::describe(schema), is_optional: T::OPTIONAL }
    }

    /// A member that is always there, of a type in the schema.
    pub(crate) fn required(name: &'static str, kind: String) -> Member {
        Member { name, kind, is_optional: false }
    }
}

impl Schema {
    /// Adds a command.
    pub fn command(&mut self, name: &'static str, arguments: Describe, returns: Describe) {
        let (arguments, returns) = (arguments(self), returns(self));
        self.commands.push((name, arguments, returns));
    }

    /// Adds an event.
    pub fn event(&mut self, name: &'static str, data: Describe) {
        let data = data(self);
        self.events.push((name, data));
    }

    pub(crate) fn builtin(&mut self, name: &'static str) -> String {
        self.add(name.to_owned(), |_| Type::Builtin)
    }

    pub(crate) fn array(&mut self, item: &str) -> String {
        self.add(format!("[{item}]"), |_| Type::Array(item.to_owned()))
    }

    pub(crate) fn enumeration(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> String {
        self.add(name.to_owned(), |_| Type::Enum(values.into_iter().collect()))
    }

    pub(crate) fn object(
        &mut self,
        name: &'static str,
        members: impl FnOnce(&mut Schema) -> Vec<Member>,
    ) -> String {
        self.add(name.to_owned(), |schema| Type::Object(Object { members: members(schema), variants: None }))
    }

    /// An object with a tag: its common members, the tag's name, and a type for each value of it.
    pub(crate) fn union(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut Schema) -> (Vec<Member>, &'static str, Vec<(&'static str, String)>),
    ) -> String {
        self.add(name.to_owned(), |schema| {
            let (members, tag, cases) = body(schema);
            Type::Object(Object { members, variants: Some((tag, cases)) })
        })
    }

    /// Adds a type unless it is known. It is known from then on, so that it may name itself.
    fn add(&mut self, name: String, make: impl FnOnce(&mut Schema) -> Type) -> String {
        if self.known.insert(name.clone()) {
            let made = make(self);
            self.types.push((name.clone(), made));
        }
        name
    }

    /// What `query-qmp-schema` returns.
    pub fn entities(&self) -> Vec<SchemaInfo> {
        let masks = Masks::of(self);
        let commands = self.commands.iter().map(|(name, arguments, returns)| {
            let (arg_type, ret_type) = (masks.of_type(arguments), masks.of_type(returns));
            let body = Body::Command(SchemaInfoCommand { arg_type, ret_type, allow_oob: None });
            SchemaInfo { name: (*name).to_owned(), features: features(name), body }
        });
        let events = self.events.iter().map(|(name, data)| {
            let body = Body::Event(SchemaInfoEvent { arg_type: masks.of_type(data) });
            SchemaInfo { name: (*name).to_owned(), features: None, body }
        });
        let types = self.types.iter().map(|(name, kind)| {
            let body = match kind {
                Type::Builtin => Body::Builtin(SchemaInfoBuiltin { json_type: json_type(name) }),
                Type::Enum(values) => Body::Enum(SchemaInfoEnum {
                    members: values
                        .iter()
                        .map(|name| SchemaInfoEnumMember { name: (*name).into() })
                        .collect(),
                    values: values.iter().map(|name| (*name).into()).collect(),
                }),
                Type::Array(item) => Body::Array(SchemaInfoArray { element_type: masks.of_type(item) }),
                Type::Object(object) => Body::Object(object.info(&masks)),
            };
            SchemaInfo { name: masks.of_type(name), features: None, body }
        });
        commands.chain(events).chain(types).collect()
    }
}

impl Object {
    fn info(&self, masks: &Masks) -> SchemaInfoObject {
        let member = |member: &Member| SchemaInfoObjectMember {
            name: member.name.into(),
            kind: masks.of_type(&member.kind),
            default: member.is_optional.then_some(Null),
            features: features(member.name),
        };
        let (tag, variants) = self.variants.as_ref().map_or((None, None), |(tag, cases)| {
            let variant = |(case, kind): &(&str, String)| SchemaInfoObjectVariant {
                case: (*case).into(),
                kind: masks.of_type(kind),
            };
            (Some((*tag).to_owned()), Some(cases.iter().map(variant).collect()))
        });
        SchemaInfoObject { members: self.members.iter().map(member).collect(), tag, variants }
    }
}

/// The numbers behind which names are hidden.
struct Masks(HashMap<String, String>);

impl Masks {
    /// The empty object comes first, as in QEMU.
    fn of(schema: &Schema) -> Masks {
        let names = schema.types.iter().filter(|(_, kind)| matches!(kind, Type::Enum(_) | Type::Object(_)));
        let names = names.map(|(name, _)| name.as_str()).filter(|name| *name != EMPTY);
        let numbered = std::iter::once(EMPTY).chain(names).enumerate();
        Masks(numbered.map(|(number, name)| (name.to_owned(), number.to_string())).collect())
    }

    fn of_type(&self, name: &str) -> String {
        match name.strip_prefix('[').and_then(|item| item.strip_suffix(']')) {
            Some(item) => format!("[{}]", self.of_type(item)),
            None => self.0.get(name).cloned().unwrap_or_else(|| name.to_owned()),
        }
    }
}

/// What is called `x-` something may change, as everywhere in QEMU.
fn features(name: &str) -> Option<Vec<String>> {
    name.starts_with("x-").then(|| vec!["unstable".to_owned()])
}

fn json_type(builtin: &str) -> Word<JsonType> {
    Word(match builtin {
        "str" => JsonType::String,
        "int" => JsonType::Int,
        "number" => JsonType::Number,
        "bool" => JsonType::Boolean,
        "null" => JsonType::Null,
        _ => JsonType::Value,
    })
}

/// What the built-in types look like in JSON.
#[derive(Clone, Copy, PartialEq)]
enum JsonType {
    String,
    Number,
    Int,
    Boolean,
    Null,
    Object,
    Array,
    Value,
}

impl QapiEnum for JsonType {
    const TYPE: &'static str = "JSONType";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("string", JsonType::String),
        ("number", JsonType::Number),
        ("int", JsonType::Int),
        ("boolean", JsonType::Boolean),
        ("null", JsonType::Null),
        ("object", JsonType::Object),
        ("array", JsonType::Array),
        ("value", JsonType::Value),
    ];
}

/// One entity of the schema.
pub struct SchemaInfo {
    name: String,
    features: Option<Vec<String>>,
    body: Body,
}

enum Body {
    Builtin(SchemaInfoBuiltin),
    Enum(SchemaInfoEnum),
    Array(SchemaInfoArray),
    Object(SchemaInfoObject),
    Command(SchemaInfoCommand),
    Event(SchemaInfoEvent),
}

impl Body {
    /// The value of `meta-type`, and the members that belong to it.
    fn parts(&self) -> (&'static str, Map<String, serde_json::Value>) {
        match self {
            Body::Builtin(body) => ("builtin", written(body)),
            Body::Enum(body) => ("enum", written(body)),
            Body::Array(body) => ("array", written(body)),
            Body::Object(body) => ("object", written(body)),
            Body::Command(body) => ("command", written(body)),
            Body::Event(body) => ("event", written(body)),
        }
    }
}

impl Serialize for SchemaInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (meta_type, members) = self.body.parts();
        let mut entity = Map::new();
        entity.insert("name".into(), self.name.as_str().into());
        entity.insert("meta-type".into(), meta_type.into());
        entity.extend(self.features.clone().map(|features| ("features".to_owned(), features.into())));
        entity.extend(members);
        entity.serialize(serializer)
    }
}

/// The schema tells of itself, too.
impl Described for SchemaInfo {
    fn describe(schema: &mut Schema) -> String {
        schema.union("SchemaInfo", |schema| {
            let meta_type = schema.enumeration(
                "SchemaMetaType",
                ["builtin", "enum", "array", "object", "alternate", "command", "event"],
            );
            let members = vec![
                Member::of::<String>(schema, "name"),
                Member::required("meta-type", meta_type),
                Member::of::<Option<Vec<String>>>(schema, "features"),
            ];
            let cases = vec![
                ("builtin", SchemaInfoBuiltin::describe(schema)),
                ("enum", SchemaInfoEnum::describe(schema)),
                ("array", SchemaInfoArray::describe(schema)),
                ("object", SchemaInfoObject::describe(schema)),
                ("alternate", SchemaInfoAlternate::describe(schema)),
                ("command", SchemaInfoCommand::describe(schema)),
                ("event", SchemaInfoEvent::describe(schema)),
            ];
            (members, "meta-type", cases)
        })
    }
}

answer! {
    /// A type of JSON, or several of them.
    struct SchemaInfoBuiltin as "SchemaInfoBuiltin" {
        json_type: Word<JsonType>,
    }
}

answer! {
    /// One of several names.
    struct SchemaInfoEnum as "SchemaInfoEnum" {
        members: Vec<SchemaInfoEnumMember>,
        values: Vec<String>,
    }
}

answer! {
    /// A name of an enum.
    struct SchemaInfoEnumMember as "SchemaInfoEnumMember" {
        name: String,
    }
}

answer! {
    /// A list.
    struct SchemaInfoArray as "SchemaInfoArray" {
        element_type: String,
    }
}

answer! {
    /// An object.
    struct SchemaInfoObject as "SchemaInfoObject" {
        members: Vec<SchemaInfoObjectMember>,
        tag: Option<String>,
        variants: Option<Vec<SchemaInfoObjectVariant>>,
    }
}

answer! {
    /// A member of an object.
    struct SchemaInfoObjectMember as "SchemaInfoObjectMember" {
        name: String,
        kind: String = "type",
        default: Option<Null>,
        features: Option<Vec<String>>,
    }
}

answer! {
    /// What the other members are for a value of the tag.
    struct SchemaInfoObjectVariant as "SchemaInfoObjectVariant" {
        case: String,
        kind: String = "type",
    }
}

answer! {
    /// One of several types of JSON; there is none here.
    #[allow(dead_code, reason = "clients may ask what one would look like")]
    struct SchemaInfoAlternate as "SchemaInfoAlternate" {
        members: Vec<SchemaInfoAlternateMember>,
    }
}

answer! {
    /// A type of an alternate.
    #[allow(dead_code, reason = "clients may ask what one would look like")]
    struct SchemaInfoAlternateMember as "SchemaInfoAlternateMember" {
        kind: String = "type",
    }
}

answer! {
    /// A command.
    struct SchemaInfoCommand as "SchemaInfoCommand" {
        arg_type: String,
        ret_type: String,
        allow_oob: Option<bool>,
    }
}

answer! {
    /// An event.
    struct SchemaInfoEvent as "SchemaInfoEvent" {
        arg_type: String,
    }
}

/// The default of a member that may be absent: there is none to tell.
#[derive(Clone, Copy)]
struct Null;

impl Serialize for Null {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

shown!(Null);

impl Described for Null {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("any")
    }
}

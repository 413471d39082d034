//! `object-add`, and how objects are looked at: `qom-list`, `qom-get` and `qom-set`.
//!
//! The one type of object is `filter-dump`, a capture of the frames of a netdev.

use std::path::PathBuf;

use ringyard_drivers::capture::Direction;
use serde_json::{Map, Value};

use super::FdRef;
use crate::qapi::{
    Described, FromMembers, Member, QapiEnum, QapiError, Schema, Visitor, Word, answer, arguments, check_id,
    options, tagged_map,
};

/// The arguments of `object-add`, types checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectAdd {
    /// A well-formed identifier.
    pub id: String,
    /// The members of the one type.
    pub dump: FilterDump,
}

/// The types of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// [`FilterDump`].
    FilterDump,
}

impl QapiEnum for ObjectType {
    const TYPE: &'static str = "ObjectType";
    const NAMES: &'static [(&'static str, Self)] = &[("filter-dump", ObjectType::FilterDump)];
}

options! {
    /// The members of a `filter-dump`, as given.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FilterDump as "FilterDumpProperties" {
        /// Whose frames.
        pub netdev: String,
        /// Which of them; all without.
        pub queue: Option<Word<Direction>>,
        /// `on` or `off`; on without.
        pub status: Option<String>,
        /// `head`, `tail` or `id=ID`; the tail without.
        pub position: Option<String>,
        /// On which side of the `ID`; behind without.
        pub insert: Option<Word<Insert>>,
        /// Where they go; `/dev/fdset/ID` is a descriptor that `add-fd` passed.
        pub file: String,
        /// Bytes of a frame that are kept, [`MAXLEN`] without.
        pub maxlen: Option<u32>,
    }
}

/// The directions of frames, seen from the netdev: what it receives from the switch, and what it sends into it.
impl QapiEnum for Direction {
    const TYPE: &'static str = "NetFilterDirection";
    const NAMES: &'static [(&'static str, Self)] =
        &[("all", Direction::Both), ("rx", Direction::Egress), ("tx", Direction::Ingress)];
}

/// On which side of another filter one stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Insert {
    /// Nearer to the head.
    Before,
    /// Nearer to the tail.
    #[default]
    Behind,
}

impl QapiEnum for Insert {
    const TYPE: &'static str = "NetfilterInsert";
    const NAMES: &'static [(&'static str, Self)] = &[("before", Insert::Before), ("behind", Insert::Behind)];
}

/// Where a filter stands among those of its netdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// First.
    Head,
    /// Last.
    Tail,
    /// Beside this one.
    Beside(String),
}

/// An object that is ready to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSpec {
    /// A well-formed identifier.
    pub id: String,
    /// What was asked for.
    pub given: FilterDump,
    /// Which frames.
    pub direction: Direction,
    /// Whether it begins at once.
    pub is_on: bool,
    /// Bytes of a frame that are kept, at least 1.
    pub maxlen: u32,
}

arguments! {
    /// The arguments of `object-del`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ObjectDel as "q_obj_object-del-arg" {
        /// The object.
        pub id: String,
    }
}

arguments! {
    /// The arguments of `qom-list`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct QomList as "q_obj_qom-list-arg" {
        /// From the root, or as much of the end as is unambiguous.
        pub path: String,
    }
}

arguments! {
    /// The arguments of `qom-get`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct QomGet as "q_obj_qom-get-arg" {
        /// As for `qom-list`.
        pub path: String,
        /// Its name.
        pub property: String,
    }
}

arguments! {
    /// The arguments of `qom-set`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct QomSet as "q_obj_qom-set-arg" {
        /// As for `qom-list`.
        pub path: String,
        /// Its name.
        pub property: String,
        /// Of the property's type.
        pub value: Value,
    }
}

answer! {
    /// What `qom-list` returns of a property.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ObjectPropertyInfo as "ObjectPropertyInfo" {
        /// Its name.
        pub name: String,
        /// What its value is; `child<TYPE>` for what is below the object.
        pub kind: String = "type",
        /// Of none.
        pub description: Option<String>,
        /// Of none.
        pub default_value: Option<Value>,
    }
}

impl ObjectAdd {
    /// Checks types, then the id. Ends the visit.
    pub fn visit(mut visitor: Visitor) -> Result<Self, QapiError> {
        let ObjectType::FilterDump = visitor.required(TAG)?;
        let id: String = visitor.required("id")?;
        let dump = FilterDump::from_members(&mut visitor)?;
        visitor.finish()?;
        check_id(&id)?;
        Ok(ObjectAdd { id, dump })
    }

    /// The members as they would be given over QMP, `qom-type` and `id` among them.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = tagged_map(TAG, ObjectType::NAMES[0].0, &self.dump);
        members.shift_insert(1, "id".into(), self.id.clone().into());
        members
    }

    /// Checks what the members say. Whether the id is taken, and whether what they name is there, comes later.
    pub fn resolve(self) -> Result<ObjectSpec, QapiError> {
        let ObjectAdd { id, dump: given } = self;
        let is_on = given.status.as_deref().map_or(Ok(true), status_is_on)?;
        let maxlen = given.maxlen.unwrap_or(MAXLEN);
        if maxlen == 0 {
            let why = "Property 'filter-dump.maxlen' doesn't take value '0'";
            return Err(QapiError::generic(why).about("maxlen"));
        }
        let direction = given.queue.map(|Word(direction)| direction).unwrap_or_default();
        Ok(ObjectSpec { id, given, direction, is_on, maxlen })
    }
}

impl ObjectSpec {
    /// The members that `object-add` would need to make it again, `qom-type` and `id` among them.
    pub fn members(&self) -> Map<String, Value> {
        ObjectAdd { id: self.id.clone(), dump: self.given.clone() }.members()
    }

    /// Where it stands.
    pub fn position(&self) -> Result<Position, QapiError> {
        match self.given.position.as_deref() {
            Some("head") => Ok(Position::Head),
            Some("tail") | None => Ok(Position::Tail),
            Some(other) => match other.strip_prefix("id=") {
                Some(id) => Ok(Position::Beside(id.to_owned())),
                None => {
                    let why = "Parameter 'position' expects 'head', 'tail' or 'id=<id>'";
                    Err(QapiError::generic(why).about("position"))
                }
            },
        }
    }

    /// On which side of what [`Self::position`] names.
    pub fn insert(&self) -> Insert {
        self.given.insert.map(|Word(insert)| insert).unwrap_or_default()
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.given.file)
    }

    /// The descriptor that the file's name stands for.
    pub fn fd(&self) -> Option<FdRef> {
        match FdRef::of_path(&self.given.file)? {
            FdRef::Set(id) => Some(FdRef::WritableSet(id)),
            other => Some(other),
        }
    }
}

impl Described for ObjectAdd {
    fn describe(schema: &mut Schema) -> String {
        schema.union("ObjectOptions", |schema| {
            let members =
                vec![Member::of::<Word<ObjectType>>(schema, TAG), Member::of::<String>(schema, "id")];
            (members, TAG, vec![(ObjectType::NAMES[0].0, FilterDump::describe(schema))])
        })
    }
}

/// Reads a filter's status.
pub fn status_is_on(status: &str) -> Result<bool, QapiError> {
    match status {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => {
            let why = "Invalid value for netfilter status, should be 'on' or 'off'";
            Err(QapiError::generic(why).about("status"))
        }
    }
}

/// The member that says what the others are.
const TAG: &str = "qom-type";
/// Bytes of a frame that are kept, where nothing is said of it.
pub const MAXLEN: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, parse_keyval};
    use serde_json::json;

    fn resolved(members: Value) -> Result<ObjectSpec, String> {
        let Value::Object(members) = members else { panic!("the test needs an object") };
        let add = ObjectAdd::visit(Visitor::new(members, Form::Json));
        add.and_then(ObjectAdd::resolve).map_err(|error| error.desc)
    }

    #[test]
    fn a_dump_has_a_netdev_and_a_file_and_the_rest_is_usual() {
        let given = json!({"qom-type": "filter-dump", "id": "f0", "netdev": "n0", "file": "/dev/fdset/3"});
        let spec = resolved(given).expect("it is whole");
        assert_eq!((spec.direction, spec.is_on, spec.maxlen), (Direction::Both, true, 65_536));
        assert_eq!((spec.position(), spec.insert()), (Ok(Position::Tail), Insert::Behind));
        assert_eq!(spec.fd(), Some(FdRef::WritableSet(3)));
        let options =
            "filter-dump,id=f0,netdev=n0,file=d,queue=tx,status=off,position=id=f1,insert=before,maxlen=0x10";
        let members = parse_keyval(options, "qom-type", Flags::Refused).expect("it is well-formed");
        let add = ObjectAdd::visit(Visitor::new(members, Form::Keyval)).expect("it is whole");
        let all = json!({"qom-type": "filter-dump", "netdev": "n0", "queue": "tx", "status": "off",
            "position": "id=f1", "insert": "before", "file": "d", "maxlen": 16, "id": "f0"});
        assert_eq!(Value::Object(add.members()), all);
        let spec = add.resolve().expect("it makes sense");
        assert_eq!((spec.direction, spec.is_on, spec.maxlen), (Direction::Ingress, false, 16));
        assert_eq!((spec.position(), spec.insert()), (Ok(Position::Beside("f1".into())), Insert::Before));
        assert_eq!((spec.fd(), spec.path()), (None, "d".into()));
    }

    #[test]
    fn what_is_wrong_is_said_in_qemus_order() {
        let mut given = json!({});
        let mut refused = |name: &str, value: Value| {
            given[name] = value;
            resolved(given.clone()).expect_err(name)
        };
        assert_eq!(refused("id", json!("1f")), "Parameter 'qom-type' is missing");
        let nope = "Parameter 'qom-type' does not accept value 'nope'";
        assert_eq!(refused("qom-type", json!("nope")), nope);
        assert_eq!(refused("qom-type", json!("filter-dump")), "Parameter 'netdev' is missing");
        assert_eq!(refused("netdev", json!("n")), "Parameter 'file' is missing");
        assert_eq!(refused("file", json!("f")), "Parameter 'id' expects an identifier");
        assert_eq!(refused("queue", json!("zz")), "Parameter 'queue' does not accept value 'zz'");
        assert_eq!(refused("queue", json!("rx")), "Parameter 'id' expects an identifier");
        assert_eq!(refused("maxlen", json!(-1)), "Parameter 'maxlen' expects uint32_t");
        assert_eq!(refused("maxlen", json!(0)), "Parameter 'id' expects an identifier");
        let zero = "Property 'filter-dump.maxlen' doesn't take value '0'";
        assert_eq!(refused("id", json!("f")), zero);
        let status = "Invalid value for netfilter status, should be 'on' or 'off'";
        assert_eq!(refused("status", json!("zz")), status);
        assert_eq!(refused("x", json!(1)), "Parameter 'x' is unexpected");
    }
}

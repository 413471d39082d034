//! Macros that declare the objects of the schema.
//!
//! [`arguments!`] declares what is only read, [`answer!`] what is only written, [`options!`] what is read and shown again.
//! All three take the same form: a struct with its name in the schema, whose members are called as its fields, with dashes
//! for underscores, where no other name is given. A member of an `Option` type may be absent.
//!
//! ```text
//! options! {
//!     /// The members of a `hubport` netdev.
//!     #[derive(Clone, Debug)]
//!     pub struct Hubport as "NetdevHubPortOptions" {
//!         /// The hub.
//!         pub hubid: i32,
//!         /// The netdev that the port stands for.
//!         pub netdev: Option<String>,
//!     }
//! }
//! ```
//!
//! [`union!`] declares an object whose tag decides what its other members are.

/// The struct itself, and its description.
macro_rules! declares {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident as $schema:literal {
            $($(#[$about:meta])* $access:vis $field:ident : $type:ty $(= $member:literal)?),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$about])* $access $field: $type,)*
        }

        impl $crate::qapi::Described for $name {
            fn describe(schema: &mut $crate::qapi::Schema) -> String {
                schema.object($schema, |schema| Self::members(schema))
            }
        }

        impl $name {
            /// What introspection tells of the members.
            #[allow(unused_variables, reason = "an object may have no members")]
            pub(crate) fn members(schema: &mut $crate::qapi::Schema) -> Vec<$crate::qapi::Member> {
                vec![$($crate::qapi::Member::of::<$type>(
                    schema,
                    $crate::qapi::object::member_name!($field $(= $member)?),
                )),*]
            }
        }
    };
}
pub(crate) use declares;

/// How an object is read.
macro_rules! reads {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident as $schema:literal {
            $($(#[$about:meta])* $access:vis $field:ident : $type:ty $(= $member:literal)?),* $(,)?
        }
    ) => {
        impl $crate::qapi::FromMembers for $name {
            #[allow(unused_variables, reason = "an object may have no members")]
            fn from_members(visitor: &mut $crate::qapi::Visitor) -> Result<Self, $crate::qapi::QapiError> {
                Ok($name {
                    $($field: visitor.member($crate::qapi::object::member_name!($field $(= $member)?))?,)*
                })
            }
        }

        impl $crate::qapi::FromQapi for $name {
            fn from_qapi(
                value: serde_json::Value,
                place: &$crate::qapi::Place,
            ) -> Result<Self, $crate::qapi::QapiError> {
                $crate::qapi::Visitor::from_qapi(value, place)?.whole()
            }
        }
    };
}
pub(crate) use reads;

/// How an object is written: absent members are left out.
macro_rules! writes {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident as $schema:literal {
            $($(#[$about:meta])* $access:vis $field:ident : $type:ty $(= $member:literal)?),* $(,)?
        }
    ) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[allow(unused_imports, reason = "an object may have no members")]
                use $crate::qapi::Shown;
                #[allow(unused_mut, reason = "an object may have no members")]
                let mut members = serializer.serialize_map(None)?;
                $(if let Some(value) = self.$field.shown() {
                    serde::ser::SerializeMap::serialize_entry(
                        &mut members,
                        $crate::qapi::object::member_name!($field $(= $member)?),
                        value,
                    )?;
                })*
                serde::ser::SerializeMap::end(members)
            }
        }

        $crate::qapi::shown!($name);
    };
}
pub(crate) use writes;

/// An object that is only read.
macro_rules! arguments {
    ($($declaration:tt)*) => {
        $crate::qapi::object::declares! { $($declaration)* }
        $crate::qapi::object::reads! { $($declaration)* }
    };
}
pub(crate) use arguments;

/// An object that is only written.
macro_rules! answer {
    ($($declaration:tt)*) => {
        $crate::qapi::object::declares! { $($declaration)* }
        $crate::qapi::object::writes! { $($declaration)* }
    };
}
pub(crate) use answer;

/// An object that is read, and written as it was read.
macro_rules! options {
    ($($declaration:tt)*) => {
        $crate::qapi::object::declares! { $($declaration)* }
        $crate::qapi::object::reads! { $($declaration)* }
        $crate::qapi::object::writes! { $($declaration)* }
    };
}
pub(crate) use options;

/// An object, read and written, that is one of several: the member `type` says which.
macro_rules! union {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident as $schema:literal by $tag:literal {
            $($(#[$about:meta])* $value:literal => $variant:ident($object:ty)),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$about])* $variant($object),)*
        }

        impl $crate::qapi::Described for $name {
            fn describe(schema: &mut $crate::qapi::Schema) -> String {
                schema.union($schema, |schema| {
                    let kind = schema.enumeration($tag, [$($value),*]);
                    let members = vec![$crate::qapi::Member::required("type", kind)];
                    let cases = vec![$(($value, <$object as $crate::qapi::Described>::describe(schema))),*];
                    (members, "type", cases)
                })
            }
        }

        impl $crate::qapi::FromQapi for $name {
            fn from_qapi(
                value: serde_json::Value,
                place: &$crate::qapi::Place,
            ) -> Result<Self, $crate::qapi::QapiError> {
                let mut visitor = $crate::qapi::Visitor::from_qapi(value, place)?;
                let made = match visitor.tag("type", &[$($value),*])? {
                    $($value => $name::$variant($crate::qapi::FromMembers::from_members(&mut visitor)?),)*
                    _ => return Err($crate::qapi::QapiError::generic("the tag has no such value")),
                };
                visitor.finish()?;
                Ok(made)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $($name::$variant(object) => $crate::qapi::tagged("type", $value, object, serializer),)*
                }
            }
        }

        $crate::qapi::shown!($name);
    };
}
pub(crate) use union;

/// A member's name: the one that is given, else the field's with dashes.
macro_rules! member_name {
    ($field:ident = $member:literal) => {
        $member
    };
    ($field:ident) => {{
        const FIELD: &str = stringify!($field);
        const BYTES: [u8; FIELD.len()] = $crate::qapi::object::dashed(FIELD);
        const NAME: &str = match std::str::from_utf8(&BYTES) {
            Ok(name) => name,
            Err(_) => FIELD,
        };
        NAME
    }};
}
pub(crate) use member_name;

/// The bytes of a name, with dashes for underscores.
pub(crate) const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        let byte = name.as_bytes()[at];
        bytes[at] = if byte == b'_' { b'-' } else { byte };
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use crate::qapi::{Described, Form, FromMembers, FromQapi, Schema, Visitor};

    options! {
        /// Of every kind of member.
        #[derive(Debug, PartialEq)]
        struct Thing as "Thing" {
            /// Must be there.
            is_here: bool,
            /// May be there.
            long_name: Option<String>,
            /// Has another name.
            kind: Option<Vec<i64>> = "vnet_hdr",
            /// A union.
            place: Option<Place>,
        }
    }

    options! {
        /// Has no members.
        #[derive(Debug, PartialEq)]
        struct Nothing as "Nothing" {}
    }

    union! {
        /// One or the other.
        #[derive(Debug, PartialEq)]
        enum Place as "Place" by "PlaceType" {
            /// Nowhere.
            "no-where" => Nowhere(Nothing),
            /// Within.
            "inner" => Inner(Inner),
        }
    }

    options! {
        /// One member.
        #[derive(Debug, PartialEq)]
        struct Inner as "Inner" {
            /// A text.
            str: String,
        }
    }

    fn read(value: Value) -> Result<Thing, String> {
        let Value::Object(members) = value else { panic!("the test needs an object") };
        Visitor::new(members, Form::Json).whole().map_err(|error| error.desc)
    }

    #[test]
    fn what_was_read_is_written_again() {
        for value in [
            json!({"is-here": true}),
            json!({"is-here": false, "long-name": "x", "vnet_hdr": [1, 2], "place": {"type": "inner", "str": "s"}}),
            json!({"is-here": false, "place": {"type": "no-where"}}),
        ] {
            let thing = read(value.clone()).expect("it is well-formed");
            assert_eq!(serde_json::to_value(thing).expect("it has string keys"), value);
        }
    }

    #[test]
    fn members_are_read_in_their_order_and_by_their_names() {
        assert_eq!(read(json!({})), Err("Parameter 'is-here' is missing".into()));
        let wrong = json!({"is-here": true, "long-name": 1, "vnet_hdr": 1});
        assert_eq!(read(wrong), Err("Invalid parameter type for 'long-name', expected: string".into()));
        let unknown = json!({"is-here": true, "place": {"type": "no-where", "str": "s"}});
        assert_eq!(read(unknown), Err("Parameter 'place.str' is unexpected".into()));
        let bogus = json!({"is-here": true, "place": {"type": "bogus"}});
        assert_eq!(read(bogus), Err("Parameter 'type' does not accept value 'bogus'".into()));
    }

    #[test]
    fn what_is_declared_is_what_is_told() {
        let mut schema = Schema::default();
        schema.command("a", Thing::describe, <()>::describe);
        let told = serde_json::to_value(schema.entities()).expect("it has string keys");
        let find = |name: &Value| {
            let entities = told.as_array().expect("it is a list");
            entities
                .iter()
                .find(|entity| entity["name"] == *name)
                .cloned()
                .expect("every type that is named is there")
        };
        let command = find(&json!("a"));
        assert_eq!(
            (&command["meta-type"], find(&command["ret-type"])["members"].clone()),
            (&json!("command"), json!([]))
        );
        let members = find(&command["arg-type"])["members"].clone();
        let shape: Map<String, Value> = members
            .as_array()
            .expect("it is a list")
            .iter()
            .map(|member| (member["name"].as_str().unwrap_or_default().to_owned(), member["default"].clone()))
            .collect();
        assert_eq!(shape.keys().collect::<Vec<_>>(), ["is-here", "long-name", "vnet_hdr", "place"]);
        assert!(members[0].get("default").is_none() && members[1].get("default") == Some(&Value::Null));
        assert_eq!(
            (&members[0]["type"], &members[1]["type"], &members[2]["type"]),
            (&json!("bool"), &json!("str"), &json!("[int]"))
        );
        let union = find(&members[3]["type"]);
        assert_eq!((&union["tag"], &union["variants"][1]["case"]), (&json!("type"), &json!("inner")));
        assert_eq!(find(&union["variants"][1]["type"])["members"][0]["name"], "str");
        assert_eq!(find(&find(&union["members"][0]["type"])["name"])["values"], json!(["no-where", "inner"]));
    }

    #[test]
    fn an_object_can_stand_in_another() {
        let value = json!({"type": "inner", "str": 7});
        let Value::Object(members) = json!({"place": value}) else { panic!("it is one") };
        let mut visitor = Visitor::new(members, Form::Json);
        let error = visitor.required::<Place>("place").expect_err("7 is no string");
        assert_eq!(error.desc, "Invalid parameter type for 'place.str', expected: string");
        let mut empty = Visitor::new(Map::new(), Form::Json);
        assert!(Inner::from_members(&mut empty).is_err() && Nothing::from_members(&mut empty).is_ok());
        fn takes<T: FromQapi>() {}
        takes::<Inner>();
    }
}

//! The types of the schema, as they say themselves what they are.
//!
//! Whatever goes over the wire is declared once, by the macros of [`object`](super::object): what is read, what is written
//! and what [`Schema`](super::Schema) tells of it are three views of one list of members.

use serde_json::Value;

use super::schema::Schema;
use super::visitor::{FromQapi, Place, QapiEnum, Size};
use super::{QapiError, Visitor};

/// A type that introspection can tell of.
pub trait Described {
    /// Whether a member of this type may be absent.
    const OPTIONAL: bool = false;

    /// The type's name in the schema, to which it is added if it is new there.
    fn describe(schema: &mut Schema) -> String;
}

/// An object of the schema whose members are read one by one, in the schema's order.
pub trait FromMembers: Sized {
    /// Takes the members. Others may follow: ending the visit is left to the caller.
    fn from_members(visitor: &mut Visitor) -> Result<Self, QapiError>;
}

/// A member as it is written: nothing when it is absent.
pub trait Shown {
    /// The value, if there is one.
    fn shown(&self) -> Option<&impl serde::Serialize>;
}

/// An enum's value that is written by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<T: QapiEnum + PartialEq> Word<T> {
    /// The name.
    pub fn name(&self) -> &'static str {
        let found = T::NAMES.iter().find(|(_, value)| *value == self.0);
        found.map_or("", |(name, _)| *name)
    }
}

impl<T: QapiEnum> FromQapi for Word<T> {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        T::from_qapi(value, place).map(Word)
    }
}

impl<T: QapiEnum + PartialEq> serde::Serialize for Word<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<T: QapiEnum> Described for Word<T> {
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

impl<T: QapiEnum> Described for T {
    fn describe(schema: &mut Schema) -> String {
        schema.enumeration(T::TYPE, T::NAMES.iter().map(|(name, _)| *name))
    }
}

impl<T: Described> Described for Option<T> {
    const OPTIONAL: bool = true;

    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

impl<T: Described> Described for Vec<T> {
    fn describe(schema: &mut Schema) -> String {
        let item = T::describe(schema);
        schema.array(&item)
    }
}

/// What a command returns that returns nothing: the empty object.
impl Described for () {
    fn describe(schema: &mut Schema) -> String {
        schema.object(EMPTY, |_| Vec::new())
    }
}

/// Describes types as one of the schema's own.
macro_rules! builtin {
    ($name:literal: $($type:ty),+) => {
        $(impl Described for $type {
            fn describe(schema: &mut Schema) -> String {
                schema.builtin($name)
            }
        })+
    };
}

builtin!("str": String, &'static str);
builtin!("bool": bool);
builtin!("int": i64, u64, i32, u32, u16, usize, Size);
builtin!("any": Value);

/// Writes types as they are.
macro_rules! shown {
    ($($type:ty),+) => {
        $(impl $crate::qapi::Shown for $type {
            fn shown(&self) -> Option<&impl serde::Serialize> {
                Some(self)
            }
        })+
    };
}
pub(crate) use shown;

shown!(String, &'static str, bool, i64, u64, i32, u32, u16, usize, Size, Value);

impl<T: QapiEnum + PartialEq> Shown for Word<T> {
    fn shown(&self) -> Option<&impl serde::Serialize> {
        Some(self)
    }
}

impl<T: serde::Serialize> Shown for Option<T> {
    fn shown(&self) -> Option<&impl serde::Serialize> {
        self.as_ref()
    }
}

impl<T: serde::Serialize> Shown for Vec<T> {
    fn shown(&self) -> Option<&impl serde::Serialize> {
        Some(self)
    }
}

/// QEMU's name of the object without members.
pub(super) const EMPTY: &str = "q_empty";

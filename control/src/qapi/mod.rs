//! Typed access to untyped arguments, and the errors that come of it.
//!
//! A [`Visitor`] takes the members of an object one by one, in the schema's order, and says what is wrong with them in
//! the words that QMP clients compare. It reads JSON strictly; in [`Form::Keyval`] it reads the strings of a command
//! line, where `on` is a boolean and `2M` a size. The objects themselves are declared by the macros of [`object`]; from one
//! list of members come how they are read, how they are written, and what the [`Schema`] tells of them.

mod described;
mod error;
mod keyval;
pub(crate) mod object;
mod schema;
mod visitor;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub(crate) use described::shown;
pub use described::{Described, FromMembers, Shown, Word};
pub use error::{ErrorClass, QapiError, Spot};
pub use keyval::{Flags, parse_keyval};
pub(crate) use object::{answer, arguments, options, union};
pub use schema::{Member, Schema, SchemaInfo};
pub use visitor::{Form, FromQapi, Place, QapiEnum, Size, Visitor};

/// The members that an object is written as.
pub fn written(object: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(object) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The same with its tag before its other members.
pub(crate) fn tagged_map(tag: &str, value: &str, object: &impl Serialize) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert(tag.to_owned(), value.into());
    members.extend(written(object));
    members
}

/// Writes an object with its tag before its other members.
pub(crate) fn tagged<S: Serializer>(
    tag: &str,
    value: &str,
    object: &impl Serialize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    tagged_map(tag, value, object).serialize(serializer)
}

/// Refuses what is not an identifier: an ASCII letter, then letters, digits, `-`, `.` and `_`.
pub fn check_id(id: &str) -> Result<(), QapiError> {
    let follows = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match id.as_bytes().split_first() {
        Some((first, rest)) if first.is_ascii_alphabetic() && rest.iter().copied().all(follows) => Ok(()),
        _ => Err(QapiError::generic("Parameter 'id' expects an identifier")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_starts_with_a_letter() {
        for good in ["a", "net0", "A-b.c_9"] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "a b", "6s", "_a", "é", "a/../b"] {
            let error = check_id(bad).expect_err(bad);
            assert_eq!(error, QapiError::generic("Parameter 'id' expects an identifier"));
        }
    }
}

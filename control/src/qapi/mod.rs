//! Typed access to untyped arguments, and the errors that come of it.
//!
//! A [`Visitor`] takes the members of an object one by one, in the schema's order, and says what is wrong with them in
//! the words that QMP clients compare. It reads JSON strictly; in [`Form::Keyval`] it reads the strings of a command
//! line, where `on` is a boolean and `2M` a size.

mod error;
mod keyval;
mod visitor;

pub use error::{ErrorClass, QapiError, Spot};
pub use keyval::{Flags, parse_keyval};
pub use visitor::{Form, FromQapi, Place, QapiEnum, Size, Visitor};

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

//! What a word that is being typed can become: on the command line, and in `ringyard shell`.
//!
//! Commands, members and values come from a QMP schema ([`schema`]), ours or that of the monitor that is spoken with;
//! names of what is there come from the monitor ([`Names`]).

mod keyval;
mod names;
mod schema;

pub(crate) use keyval::option_value;
pub(crate) use names::Names;
#[cfg(test)]
pub(crate) use schema::tests::small as small_schema;
pub(crate) use schema::{Argument, SchemaIndex, Values};

/// What a word can become.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// The whole word. One that ends in `=`, `,` or `.` is not finished.
    pub(crate) text: String,
    /// A few words about it, or none.
    pub(crate) help: String,
}

impl Candidate {
    pub(crate) fn new(text: impl Into<String>, help: impl Into<String>) -> Candidate {
        Candidate { text: text.into(), help: help.into() }
    }
}

/// Where values are offered.
pub(crate) struct Place<'p> {
    /// What is there.
    pub(crate) names: &'p Names,
    /// How true and false are spelled.
    pub(crate) truth: [&'p str; 2],
    /// What stands before the value in the word.
    pub(crate) head: &'p str,
}

impl Place<'_> {
    /// The values that a member can have, of which `prefix` is typed.
    pub(crate) fn values(&self, member: &Argument, prefix: &str) -> Vec<Candidate> {
        let texts = match &member.values {
            Values::OneOf(texts) => texts.clone(),
            Values::Truth => self.truth.map(str::to_owned).to_vec(),
            Values::Any(_) => self.names.for_member(&member.key),
        };
        let fitting = texts.into_iter().filter(|text| text.starts_with(prefix));
        fitting.map(|text| Candidate::new(format!("{}{text}", self.head), "")).collect()
    }
}

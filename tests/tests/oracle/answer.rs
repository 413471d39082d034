//! An answer as it is compared: what must be the same on both sides and nothing else, in one line of text.

use std::collections::BTreeMap;

use ringyard_tests::error::{Doing, Error, Result};
use serde_json::Value;

/// How much of a `return` is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of it, but for the numbers of descriptors.
    Values,
    /// Which members there are and of what type.
    Shape,
}

/// A line of a monitor, which must be one JSON object in ASCII that ends with CR LF.
pub struct Answer {
    value: Value,
}

impl Answer {
    /// Reads a line.
    pub fn read(line: &[u8]) -> Result<Answer> {
        let text = line.escape_ascii().to_string();
        let body = line.strip_suffix(b"\r\n").unwrap_or_default();
        if body.is_empty() || !body.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Error::new(format!("no line of ASCII that ends with CR LF: {text}")));
        }
        let value: Value = serde_json::from_slice(body).doing(format!("parsing {text}"))?;
        match value {
            Value::Object(_) => Ok(Answer { value }),
            _ => Err(Error::new(format!("no object: {text}"))),
        }
    }

    /// Whether it is the answer to the request of that id.
    pub fn has_id(&self, id: &str) -> bool {
        self.value["id"] == id
    }

    /// Whether it answers nothing.
    pub fn is_event(&self) -> bool {
        self.value.get("event").is_some()
    }

    /// Whether a command succeeded.
    pub fn is_return(&self) -> bool {
        self.value.get("return").is_some()
    }

    /// What a command returned.
    pub fn returned(&self) -> &Value {
        &self.value["return"]
    }

    /// What is compared.
    pub fn text(&self, view: View) -> String {
        let mut members = self.value.as_object().cloned().unwrap_or_default();
        let id = members.remove("id").map(|id| format!("id {id}: ")).unwrap_or_default();
        // A timestamp is compared by being there.
        let event = members.get("event").is_some() && members.remove("timestamp").is_some();
        let text = match (members.remove("return"), members.remove("error")) {
            (Some(value), None) if members.is_empty() => match view {
                View::Values => format!("return {}", without_descriptors(&sorted(&value))),
                View::Shape => format!("return {}", shape(&value)),
            },
            (None, Some(error)) if members.is_empty() => error_text(error),
            _ if event => sorted(&Value::Object(members)),
            _ => format!("neither return nor error nor event: {}", self.value),
        };
        format!("{id}{text}")
    }
}

/// `CLASS: DESC`, if that is all there is.
fn error_text(error: Value) -> String {
    match (error["class"].as_str(), error["desc"].as_str(), error.as_object().map(|members| members.len())) {
        (Some(class), Some(desc), Some(2)) => format!("{class}: {}", without_descriptors(desc)),
        _ => format!("malformed error {error}"),
    }
}

/// JSON whose members are in alphabetical order.
pub fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<&String, String> =
                members.iter().map(|(name, value)| (name, sorted(value))).collect();
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", items.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// The types in a value; of an array's items those that differ.
pub fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => {
            let mut shapes: Vec<String> = items.iter().map(shape).collect();
            shapes.sort();
            shapes.dedup();
            format!("[{}]", shapes.join(" or "))
        }
        Value::Object(members) => {
            let members: BTreeMap<&String, String> =
                members.iter().map(|(name, value)| (name, shape(value))).collect();
            let members: Vec<String> =
                members.iter().map(|(name, shape)| format!("{name}: {shape}")).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// Text in which descriptors have no numbers: those are each process's own.
fn without_descriptors(text: &str) -> String {
    ["fd=", "TUNGETIFF on FD "].iter().fold(text.to_owned(), |text, before| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |stripped, part| {
            let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
            stripped + before + if rest.len() < part.len() { "N" } else { "" } + rest
        })
    })
}

//! A TOML document that knows where everything in it stands: its values are for the visitor, and an error about one of
//! them gets the line, the column and a caret.
//!
//! Places are found by the name that a visitor has for a member, from the document's root on: `netdev[2].addr.port`. So
//! values are read by the same code as a monitor's, which knows nothing of lines.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::qapi::{QapiError, Spot};

/// Bytes that a file may have: a switch full of ports needs no more.
const BYTES_MAX: u64 = 4 << 20;
/// Characters of a line that are quoted, at most.
const QUOTED_MAX: usize = 160;

/// See the module.
#[derive(Debug)]
pub(super) struct Document {
    /// The file's name, for people.
    file: String,
    text: String,
    places: HashMap<String, Place>,
}

/// Where a member stands, in bytes.
#[derive(Clone, Debug)]
struct Place {
    name: Range<usize>,
    value: Range<usize>,
}

/// What is wrong at one place, or where else to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, and what: `yard.toml:3:7: Duplicate ID 't0'`.
    pub line: String,
    /// The line of the file, and another one with a caret below it.
    pub excerpt: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.line)?;
        self.excerpt.iter().try_for_each(|excerpt| write!(out, "\n{excerpt}"))
    }
}

/// Findings one below the other.
pub(super) fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

impl Document {
    /// Reads the file, which yields its values and the document that knows where they stand.
    ///
    /// Errors: what is wrong with its syntax, everywhere.
    pub(super) fn read(path: &Path) -> Result<(Document, Map<String, Value>), Vec<Finding>> {
        let file = path.display().to_string();
        let failed = |why: String| vec![Finding { line: format!("{file}: {why}"), excerpt: None }];
        let bytes = read_limited(path).map_err(failed)?;
        match String::from_utf8(bytes) {
            Ok(text) => Document::parse(file, text),
            Err(error) => {
                let end = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let document = Document { file, text, places: HashMap::new() };
                Err(vec![document.finding(&(end..end), "this is not UTF-8")])
            }
        }
    }

    /// The same of a text.
    fn parse(file: String, text: String) -> Result<(Document, Map<String, Value>), Vec<Finding>> {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut places = Places(HashMap::new());
        let members = places.table("", table.get_ref());
        drop(table);
        let document = Document { file, text, places: places.0 };
        let mut wrong: Vec<_> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        wrong.sort_by_key(|(range, _)| range.start);
        match wrong.is_empty() {
            true => Ok((document, members)),
            false => Err(wrong.iter().map(|(range, why)| document.finding(range, why)).collect()),
        }
    }

    /// An error about what stands at `path`, or about a member of that, shown where it belongs.
    pub(super) fn locate(&self, path: &str, error: &QapiError) -> Finding {
        self.finding(&self.range(path, error), &error.desc)
    }

    /// Where that begins, in bytes.
    pub(super) fn position(&self, path: &str, error: &QapiError) -> usize {
        self.range(path, error).start
    }

    fn range(&self, path: &str, error: &QapiError) -> Range<usize> {
        let range = match &error.spot {
            Some(Spot::Name(member)) => self.place(&join(path, member)).map(|place| &place.name),
            Some(Spot::Value(member)) => self.value(&join(path, member)),
            None => self.mentioned(path, &error.desc).or_else(|| self.value(path)),
        };
        range.cloned().unwrap_or(0..0)
    }

    /// A member's value; that of what it would be in, if it is not there.
    fn value(&self, path: &str) -> Option<&Range<usize>> {
        self.place(path).map(|place| &place.value)
    }

    fn place(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            match self.places.get(path) {
                Some(place) => return Some(place),
                None => path = &path[..path.rfind(['.', '['])?],
            }
        }
    }

    /// The member that a text speaks of: the first that it names, else one whose value it quotes.
    fn mentioned(&self, path: &str, text: &str) -> Option<&Range<usize>> {
        let names = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
        let named = |name: &str| self.places.get(&join(path, name));
        let mut quoted = text.split('\'').skip(1).step_by(2).filter(|value| !value.is_empty());
        let prefix = format!("{path}.");
        let is_value = |quoted: &str| {
            let members = self.places.iter().filter(|(name, _)| name.starts_with(&prefix));
            let value = |place: &Place| self.text[place.value.clone()].trim_matches(['\'', '"']) == quoted;
            members.map(|(_, place)| place).filter(|place| value(place)).min_by_key(|place| place.value.start)
        };
        let found = names.filter(|name| !name.is_empty()).find_map(named);
        found.or_else(|| quoted.find_map(is_value)).map(|place| &place.value)
    }

    fn finding(&self, range: &Range<usize>, what: &str) -> Finding {
        let (number, line, column) = self.line_at(range.start);
        let width = range.len().min(line[column..].len());
        let width = line[column..].get(..width).map_or(1, |marked| marked.chars().count().max(1));
        let before = line[..column].chars().count();
        let place = format!("{}:{number}:{}", self.file, before + 1);
        let quotable = line.chars().count() <= QUOTED_MAX;
        let excerpt = quotable.then(|| {
            let shown: String = line.chars().map(printable).collect();
            // A tab stays one, so that the caret is below what it points at however wide tabs are.
            let blank: String = line[..column].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let gutter = " ".repeat(number.to_string().len());
            format!("  {number} | {shown}\n  {gutter} | {blank}{}", "^".repeat(width))
        });
        Finding { line: format!("{place}: {what}"), excerpt }
    }

    /// The line that byte `at` is in: its number from 1, its text, and where `at` is in it. The end of the text belongs to
    /// the last line that has something in it.
    fn line_at(&self, at: usize) -> (usize, &str, usize) {
        let at = at.min(self.text.trim_end_matches(['\r', '\n']).len());
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[start..].lines().next().unwrap_or_default();
        (self.text[..start].matches('\n').count() + 1, line, (at - start).min(line.len()))
    }
}

/// Notes where members stand while they are turned into the values that visitors read.
struct Places(HashMap<String, Place>);

impl Places {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Map<String, Value> {
        let mut members: Vec<_> = table.iter().collect();
        // In the order of the file, so that of two members that nobody expects the first is reported.
        members.sort_by_key(|(name, _)| name.span().start);
        let member = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name_text: &str = AsRef::<std::borrow::Cow<'_, str>>::as_ref(name);
            let value_json = self.value(&join(path, name_text), name.span(), value);
            (name_text.to_owned(), value_json)
        };
        members.into_iter().map(member).collect()
    }

    fn value(&mut self, path: &str, name: Range<usize>, value: &Spanned<DeValue<'_>>) -> Value {
        self.0.insert(path.to_owned(), Place { name, value: value.span() });
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, table).into(),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| self.value(&format!("{path}[{index}]"), item.span(), item))
                    .collect()
            }
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Boolean(bool) => (*bool).into(),
            DeValue::Integer(number) => integer(number.as_str(), number.radix()),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok().into(),
            // There is no date in the schema: whoever visits it says what was expected.
            DeValue::Datetime(_) => Value::Null,
        }
    }
}

/// A number that does not fit is one of a wrong type, as in JSON.
fn integer(text: &str, radix: u32) -> Value {
    let signed = i64::from_str_radix(text, radix).map(Value::from);
    signed.or_else(|_| u64::from_str_radix(text, radix).map(Value::from)).unwrap_or(Value::Null)
}

fn join(path: &str, member: &str) -> String {
    match (path, member) {
        ("", name) | (name, "") => name.to_owned(),
        _ => format!("{path}.{member}"),
    }
}

fn printable(character: char) -> char {
    if character.is_control() && character != '\t' { char::REPLACEMENT_CHARACTER } else { character }
}

fn read_limited(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 {
        0..=BYTES_MAX => Ok(bytes),
        _ => Err(format!("the file has more than {BYTES_MAX} bytes")),
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;

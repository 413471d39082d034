//! The visitor: takes members out of an object by name and type; what is left at the end was not expected.
//!
//! The texts are QEMU's, its inconsistencies included: unsigned integers complain differently from signed ones, and
//! enums and integer ranges are reported under the member's bare name (`null` within a list), all else under the dotted one.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{FromMembers, QapiError, Spot};

/// How scalars are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As JSON, with strict types.
    Json,
    /// As strings, from a command line.
    Keyval,
}

/// Where a value stands, for error texts and for how to read it.
#[derive(Clone, Debug)]
pub struct Place {
    form: Form,
    path: String,
    name: Option<String>,
}

impl Place {
    fn member(&self, name: &str) -> Place {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Place { form: self.form, path, name: Some(name.to_owned()) }
    }

    fn item(&self, index: usize) -> Place {
        Place { form: self.form, path: format!("{}[{index}]", self.path), name: None }
    }

    /// How the value is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The error for a value of the wrong JSON type.
    pub fn invalid_type(&self, expected: &str) -> QapiError {
        self.error(format!("Invalid parameter type for '{}', expected: {expected}", self.path))
    }

    /// The error for a value of the right type that is not one of those expected.
    pub fn expects(&self, what: &str) -> QapiError {
        self.error(format!("Parameter '{}' expects {what}", self.path))
    }

    fn out_of_range(&self, expected: &str) -> QapiError {
        self.error(format!("Parameter '{}' expects {expected}", self.bare_name()))
    }

    fn refuses(&self, value: &str) -> QapiError {
        let name = self.bare_name();
        self.error(format!("Parameter '{name}' does not accept value '{value}'"))
    }

    fn error(&self, desc: String) -> QapiError {
        QapiError::generic(desc).about(&self.path)
    }

    fn bare_name(&self) -> &str {
        self.name.as_deref().unwrap_or("null")
    }
}

/// A type that a member can have.
pub trait FromQapi: Sized {
    /// Reads `value`, which stands at `place`.
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError>;

    /// What a member of this type is when it is absent; `None`: it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// An enum of the schema: [`FromQapi`] comes with it.
pub trait QapiEnum: Copy + 'static {
    /// What the schema calls it.
    const TYPE: &'static str;

    /// Every value with its name.
    const NAMES: &'static [(&'static str, Self)];
}

/// A number of bytes; in keyval form it may carry a suffix from `B` to `E`, powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// The members of one object that were not taken yet.
#[derive(Debug)]
pub struct Visitor {
    members: Map<String, Value>,
    place: Place,
}

impl Visitor {
    /// A visitor of a whole object.
    pub fn new(members: Map<String, Value>, form: Form) -> Self {
        Visitor { members, place: Place { form, path: String::new(), name: None } }
    }

    /// Takes a member that must be there.
    pub fn required<T: FromQapi>(&mut self, name: &str) -> Result<T, QapiError> {
        let place = self.place.member(name);
        let missing = || place.error(format!("Parameter '{}' is missing", place.path));
        T::from_qapi(self.members.shift_remove(name).ok_or_else(missing)?, &place)
    }

    /// Takes a member that may be absent.
    pub fn optional<T: FromQapi>(&mut self, name: &str) -> Result<Option<T>, QapiError> {
        let place = self.place.member(name);
        self.members.shift_remove(name).map(|value| T::from_qapi(value, &place)).transpose()
    }

    /// Takes a member of which its type says whether it may be absent.
    pub fn member<T: FromQapi>(&mut self, name: &str) -> Result<T, QapiError> {
        match T::absent() {
            Some(absent) if !self.members.contains_key(name) => Ok(absent),
            _ => self.required(name),
        }
    }

    /// Takes the member that says what the others are, one of `values`.
    pub fn tag(&mut self, name: &str, values: &[&'static str]) -> Result<&'static str, QapiError> {
        let text: String = self.required(name)?;
        let found = values.iter().find(|value| **value == text);
        found.copied().ok_or_else(|| self.place.member(name).refuses(&text))
    }

    /// Takes all members of an object, and ends the visit.
    pub fn whole<T: FromMembers>(mut self) -> Result<T, QapiError> {
        let object = T::from_members(&mut self)?;
        self.finish()?;
        Ok(object)
    }

    /// Takes every member that is left, for a branch that reads them later.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.members)
    }

    /// How this visitor reads scalars.
    pub fn form(&self) -> Form {
        self.place.form
    }

    /// Ends the visit; refuses a member that nobody took.
    pub fn finish(self) -> Result<(), QapiError> {
        let Some(name) = self.members.keys().next() else { return Ok(()) };
        let path = self.place.member(name).path;
        let error = QapiError::generic(format!("Parameter '{path}' is unexpected"));
        Err(QapiError { spot: Some(Spot::Name(path)), ..error })
    }
}

impl FromQapi for Visitor {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match value {
            Value::Object(members) => Ok(Visitor { members, place: place.clone() }),
            _ => Err(place.invalid_type("object")),
        }
    }
}

impl<T: FromQapi> FromQapi for Option<T> {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        T::from_qapi(value, place).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl FromQapi for Value {
    fn from_qapi(value: Value, _: &Place) -> Result<Self, QapiError> {
        Ok(value)
    }
}

impl FromQapi for String {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(place.invalid_type("string")),
        }
    }
}

impl FromQapi for bool {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match (place.form, value) {
            (Form::Json, Value::Bool(bool)) => Ok(bool),
            (Form::Json, _) => Err(place.invalid_type("boolean")),
            (Form::Keyval, value) => match String::from_qapi(value, place)?.as_str() {
                "on" | "yes" | "true" | "y" => Ok(true),
                "off" | "no" | "false" | "n" => Ok(false),
                _ => Err(place.expects("'on' or 'off'")),
            },
        }
    }
}

impl FromQapi for i64 {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match place.form {
            Form::Json => value.as_i64().ok_or_else(|| place.invalid_type("integer")),
            Form::Keyval => i64::try_from(integer(value, place)?).map_err(|_| place.expects("integer")),
        }
    }
}

impl FromQapi for u64 {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match place.form {
            // A negative number is taken for what C makes of it, as in QEMU.
            Form::Json => {
                let wrapped = || value.as_i64().map(|number| number as u64);
                value.as_u64().or_else(wrapped).ok_or_else(|| place.expects("uint64"))
            }
            Form::Keyval => u64::try_from(integer(value, place)?).map_err(|_| place.expects("integer")),
        }
    }
}

impl FromQapi for i32 {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        i32::try_from(i64::from_qapi(value, place)?).map_err(|_| place.out_of_range("int32_t"))
    }
}

impl FromQapi for u32 {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        unsigned(value, place, "uint32_t")
    }
}

impl FromQapi for u16 {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        unsigned(value, place, "uint16_t")
    }
}

impl FromQapi for Size {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        if place.form == Form::Json {
            return u64::from_qapi(value, place).map(Size);
        }
        let text = String::from_qapi(value, place)?;
        let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "b" | "B" => 1,
            "k" | "K" => 1 << 10,
            "m" | "M" => 1 << 20,
            "g" | "G" => 1 << 30,
            "t" | "T" => 1 << 40,
            "p" | "P" => 1 << 50,
            "e" | "E" => 1 << 60,
            _ => return Err(place.expects("size")),
        };
        let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        bytes.map(Size).ok_or_else(|| place.expects("size"))
    }
}

impl<T: FromQapi> FromQapi for Vec<T> {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        let items = match (place.form, value) {
            (_, Value::Array(items)) => items,
            (Form::Keyval, Value::Object(members)) => numbered(members, place)?,
            _ => return Err(place.invalid_type("array")),
        };
        let items = items.into_iter().enumerate();
        items.map(|(index, item)| T::from_qapi(item, &place.item(index))).collect()
    }
}

impl<T: QapiEnum> FromQapi for T {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        let text = String::from_qapi(value, place)?;
        let found = T::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| place.refuses(&text))
    }
}

/// A 16-bit or 32-bit integer; a negative one is out of its range rather than of a wrong type.
fn unsigned<T: TryFrom<i128>>(value: Value, place: &Place, type_name: &str) -> Result<T, QapiError> {
    let wide = match (place.form, value.as_i64()) {
        (Form::Keyval, _) => integer(value, place)?,
        (Form::Json, Some(number)) => number.into(),
        (Form::Json, None) => u64::from_qapi(value, place)?.into(),
    };
    T::try_from(wide).map_err(|_| place.out_of_range(type_name))
}

/// An integer as a command line writes it, with the prefixes of C.
fn integer(value: Value, place: &Place) -> Result<i128, QapiError> {
    let text = String::from_qapi(value, place)?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.as_str()),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let magnitude = u64::from_str_radix(digits, radix).map_err(|_| place.expects("integer"))?;
    Ok(sign * i128::from(magnitude))
}

/// The items of a list that a command line spells `name.0=…,name.1=…`.
fn numbered(mut members: Map<String, Value>, place: &Place) -> Result<Vec<Value>, QapiError> {
    let items = (0..members.len()).map(|index| members.shift_remove(&index.to_string()));
    items.collect::<Option<_>>().ok_or_else(|| place.invalid_type("array"))
}

#[cfg(test)]
#[path = "visitor_tests.rs"]
mod tests;

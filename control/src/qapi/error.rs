//! What a command answers when it fails: a class that programs test and a text that people read.

use std::fmt;

use serde_json::{Value, json};

/// The error classes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Everything without a class of its own.
    GenericError,
    /// The command does not exist, or not in the session's present mode.
    CommandNotFound,
    /// The named device does not exist.
    DeviceNotFound,
    /// The named device exists but does not work at present.
    DeviceNotActive,
}

impl ErrorClass {
    /// The class as it goes over the wire.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::GenericError => "GenericError",
            ErrorClass::CommandNotFound => "CommandNotFound",
            ErrorClass::DeviceNotFound => "DeviceNotFound",
            ErrorClass::DeviceNotActive => "DeviceNotActive",
        }
    }
}

/// The error of a command.
#[derive(Clone, Debug)]
pub struct QapiError {
    /// What clients may test.
    pub class: ErrorClass,
    /// One sentence without a full stop.
    pub desc: String,
    /// The member that it is about, for whoever can show the place.
    pub spot: Option<Spot>,
}

/// A member, by its dotted name within the object that was read: `addr.port`, `fds[1]`. It need not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Its name is what is wrong.
    Name(String),
    /// Its value is, or that there is none.
    Value(String),
}

/// What clients see decides.
impl PartialEq for QapiError {
    fn eq(&self, other: &Self) -> bool {
        (self.class, &self.desc) == (other.class, &other.desc)
    }
}

impl Eq for QapiError {}

impl QapiError {
    /// An error of the class `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        QapiError::new(ErrorClass::GenericError, desc)
    }

    /// An error of the class `CommandNotFound`.
    pub fn command_not_found(desc: impl Into<String>) -> Self {
        QapiError::new(ErrorClass::CommandNotFound, desc)
    }

    /// The error for a name that no device has.
    pub fn device_not_found(name: &str) -> Self {
        QapiError::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }

    /// An error of the class `DeviceNotActive`.
    pub fn device_not_active(desc: impl Into<String>) -> Self {
        QapiError::new(ErrorClass::DeviceNotActive, desc)
    }

    /// The error for a netdev id that is taken.
    pub fn duplicate_id(id: &str) -> Self {
        QapiError::generic(format!("Duplicate ID '{id}'"))
    }

    /// The same error, about the value of this member.
    pub fn about(self, member: &str) -> Self {
        QapiError { spot: Some(Spot::Value(member.to_owned())), ..self }
    }

    fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        QapiError { class, desc: desc.into(), spot: None }
    }

    /// The `error` member of a reply.
    pub fn to_value(&self) -> Value {
        json!({"class": self.class.name(), "desc": self.desc})
    }
}

impl fmt::Display for QapiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.desc)
    }
}

impl std::error::Error for QapiError {}

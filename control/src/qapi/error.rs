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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QapiError {
    /// What clients may test.
    pub class: ErrorClass,
    /// One sentence without a full stop.
    pub desc: String,
}

impl QapiError {
    /// An error of the class `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        QapiError { class: ErrorClass::GenericError, desc: desc.into() }
    }

    /// An error of the class `CommandNotFound`.
    pub fn command_not_found(desc: impl Into<String>) -> Self {
        QapiError { class: ErrorClass::CommandNotFound, desc: desc.into() }
    }

    /// The error for a name that no device has.
    pub fn device_not_found(name: &str) -> Self {
        QapiError { class: ErrorClass::DeviceNotFound, desc: format!("Device '{name}' not found") }
    }

    /// An error of the class `DeviceNotActive`.
    pub fn device_not_active(desc: impl Into<String>) -> Self {
        QapiError { class: ErrorClass::DeviceNotActive, desc: desc.into() }
    }

    /// The error for a netdev id that is taken.
    pub fn duplicate_id(id: &str) -> Self {
        QapiError::generic(format!("Duplicate ID '{id}'"))
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

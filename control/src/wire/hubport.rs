//! `hubport`: a port of a hub, usually for another netdev.

use serde::Serialize;
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind, shown};
use crate::qapi::{QapiError, Visitor};

/// The members of a `hubport` netdev. Nothing of it can be checked without the model, so it is its own spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hubport {
    /// The hub, made on first use; negative ids are legal.
    pub hubid: i32,
    /// The netdev that the port stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
}

impl Members for Hubport {
    fn type_name(&self) -> &'static str {
        "hubport"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Hubport(self.clone()))
    }

    fn shown(&self) -> Map<String, Value> {
        shown(self)
    }
}

impl Hubport {
    pub(super) fn visit(visitor: &mut Visitor) -> Result<Self, QapiError> {
        Ok(Hubport { hubid: visitor.required("hubid")?, netdev: visitor.optional("netdev")? })
    }
}

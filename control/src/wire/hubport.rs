//! `hubport`: a port of a hub, usually for another netdev.

use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `hubport` netdev. Nothing of it can be checked without the model, so it is its own spec.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Hubport as "NetdevHubPortOptions" {
        /// The hub, made on first use; negative ids are legal.
        pub hubid: i32,
        /// The netdev that the port stands for.
        pub netdev: Option<String>,
    }
}

impl Members for Hubport {
    fn type_name(&self) -> &'static str {
        "hubport"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Hubport(self.clone()))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

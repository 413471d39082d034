//! `vhost-user`: the guest behind a socket chardev, whose rings we serve.

use serde_json::{Map, Value, json};

use super::netdev::{Members, NetdevKind};
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `vhost-user` netdev, as given.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct VhostUser as "NetdevVhostUserOptions" {
        /// The id of a socket chardev.
        pub chardev: String,
        /// Accepted without effect: there is no other way than vhost here.
        pub vhostforce: Option<bool>,
        /// Queue pairs.
        pub queues: Option<i64>,
    }
}

/// A `vhost-user` netdev that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserSpec {
    /// The id of a chardev; whether it exists and is free is for the model to say.
    pub chardev: String,
    /// Queue pairs, 1 to 1024.
    pub queues: u16,
}

impl Members for VhostUser {
    fn type_name(&self) -> &'static str {
        "vhost-user"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        self.spec().map(NetdevKind::VhostUser)
    }

    /// The number of queue pairs is shown always.
    fn shown(&self) -> Map<String, Value> {
        let mut members = written(self);
        members.insert("queues".into(), json!(self.queues.unwrap_or(1)));
        members
    }
}

impl VhostUser {
    fn spec(&self) -> Result<VhostUserSpec, QapiError> {
        match u16::try_from(self.queues.unwrap_or(1)) {
            Ok(queues @ 1..=1024) => Ok(VhostUserSpec { chardev: self.chardev.clone(), queues }),
            _ => Err(QapiError::generic("vhost-user number of queues must be in range [1, 1024]")),
        }
    }
}

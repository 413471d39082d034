//! `netmap`: a port of the netmap framework.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind, shown};
use crate::ports::NetmapSpec;
use crate::qapi::{QapiError, Visitor};

/// The members of a `netmap` netdev, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Netmap {
    /// The port's name: `netmap:em0`, `vale0:a`, `em0`, each with a suffix that says which rings.
    pub ifname: String,
    /// The control device; else `/dev/netmap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devname: Option<String>,
}

impl Members for Netmap {
    fn type_name(&self) -> &'static str {
        "netmap"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        let devname = self.devname.clone().filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(NetdevKind::Port(Arc::new(NetmapSpec { ifname: self.ifname.clone(), devname })))
    }

    fn shown(&self) -> Map<String, Value> {
        shown(self)
    }
}

impl Netmap {
    pub(super) fn visit(visitor: &mut Visitor) -> Result<Self, QapiError> {
        Ok(Netmap { ifname: visitor.required("ifname")?, devname: visitor.optional("devname")? })
    }
}

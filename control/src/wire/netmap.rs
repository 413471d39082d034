//! `netmap`: a port of the netmap framework.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use crate::ports::NetmapSpec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `netmap` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Netmap as "NetdevNetmapOptions" {
        /// The port's name: `netmap:em0`, `vale0:a`, `em0`, each with a suffix that says which rings.
        pub ifname: String,
        /// The control device; else `/dev/netmap`.
        pub devname: Option<String>,
    }
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
        written(self)
    }
}

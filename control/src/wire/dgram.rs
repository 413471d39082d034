//! `dgram`: a frame a datagram.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use super::{FdRef, SocketAddress};
use crate::ports::DgramSpec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `dgram` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Dgram as "NetdevDgramOptions" {
        /// Our own address, or our socket.
        pub local: Option<SocketAddress>,
        /// The peer's, or a multicast group's.
        pub remote: Option<SocketAddress>,
    }
}

impl Members for Dgram {
    fn type_name(&self) -> &'static str {
        "dgram"
    }

    /// Almost all is left to the opening: what remote is decides what local may be, and its name has to be looked up.
    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        let fd = match &self.local {
            Some(SocketAddress::Fd(local)) => Some(FdRef::parse(&local.str)?),
            _ => None,
        };
        let (local, remote) = (self.local.clone(), self.remote.clone());
        Ok(NetdevKind::Port(Arc::new(DgramSpec { local, remote, fd })))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

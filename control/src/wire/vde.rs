//! `vde`: a port of a VDE switch.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::netdev::{Members, NetdevKind};
use crate::ports::VdeSpec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `vde` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Vde as "NetdevVdeOptions" {
        /// The switch's directory.
        pub sock: Option<String>,
        /// The number of the switch's port; 0: any.
        pub port: Option<u16>,
        /// The group of our socket.
        pub group: Option<String>,
        /// The permission bits of our socket.
        pub mode: Option<u16>,
    }
}

impl Members for Vde {
    fn type_name(&self) -> &'static str {
        "vde"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(self.spec()?)))
    }

    /// Port and mode are shown always.
    fn shown(&self) -> Map<String, Value> {
        let mut members = written(self);
        members.insert("port".into(), json!(self.port.unwrap_or(0)));
        members.insert("mode".into(), json!(self.mode.unwrap_or(MODE)));
        members
    }
}

impl Vde {
    fn spec(&self) -> Result<VdeSpec, QapiError> {
        let sock = self.sock.as_deref().unwrap_or_default();
        // VDE's library takes other kinds of networks by other schemes.
        let path = sock.strip_prefix("vde://").unwrap_or(sock);
        if path.contains("://") {
            return Err(QapiError::generic("Could not open vde: Protocol not supported"));
        }
        Ok(VdeSpec {
            sock: (!path.is_empty()).then(|| PathBuf::from(path)),
            port: self.port.unwrap_or(0),
            group: self.group.clone(),
            mode: self.mode.unwrap_or(MODE),
        })
    }
}

/// Of our socket, for its owner alone.
const MODE: u16 = 0o700;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_found_by_its_directory_or_at_a_usual_place() {
        let of = |sock: Option<&str>| {
            let vde = Vde { sock: sock.map(String::from), ..Vde::default() };
            vde.spec().map(|spec| spec.sock).map_err(|error| error.desc)
        };
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some("")), Ok(None));
        assert_eq!(of(Some("/run/sw")), Ok(Some("/run/sw".into())));
        assert_eq!(of(Some("vde:///run/sw")), Ok(Some("/run/sw".into())));
        let other = Err("Could not open vde: Protocol not supported".into());
        assert_eq!(of(Some("vxvde://239.0.0.1")), other);
    }

    #[test]
    fn port_and_mode_are_shown_always() {
        let shown = Vde::default().shown();
        assert_eq!(Value::Object(shown), json!({"port": 0, "mode": 448}));
        let all = Vde { sock: Some("s".into()), port: Some(65535), group: Some("g".into()), mode: Some(432) };
        let expected = json!({"sock": "s", "port": 65535, "group": "g", "mode": 432});
        assert_eq!(Value::Object(all.shown()), expected);
    }
}

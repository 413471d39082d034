//! `bridge`: a tap on a bridge of the host, made by a helper.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use super::tap::BRIDGE;
use crate::ports::{TapSource, TapSpec};
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `bridge` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Bridge as "NetdevBridgeOptions" {
        /// The bridge; `br0` without it.
        pub br: Option<String>,
        /// The program that makes the tap; QEMU's without it.
        pub helper: Option<String>,
    }
}

impl Members for Bridge {
    fn type_name(&self) -> &'static str {
        "bridge"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        let helper = self.helper.clone().unwrap_or_else(|| installed_helper().into());
        let bridge = self.br.clone().unwrap_or_else(|| BRIDGE.into());
        let spec = TapSpec { source: TapSource::Helper { helper, bridge }, sndbuf_bytes: i32::MAX };
        Ok(NetdevKind::Port(Arc::new(spec)))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

/// QEMU's helper, where this distribution has it; the first place if it is nowhere.
fn installed_helper() -> &'static str {
    HELPERS.iter().find(|path| Path::new(path).exists()).unwrap_or(&HELPERS[0])
}

const HELPERS: [&str; 3] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
    "/usr/local/libexec/qemu-bridge-helper",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(bridge: &Bridge) -> String {
        match bridge.resolve() {
            Ok(NetdevKind::Port(spec)) => format!("{spec:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said_is_br0_and_the_helper_of_qemu() {
        let default = resolved(&Bridge::default());
        assert!(default.contains("bridge: \"br0\"") && default.contains("qemu-bridge-helper"), "{default}");
        let given = Bridge { br: Some("lan".into()), helper: Some("/bin/h".into()) };
        let given = resolved(&given);
        assert!(given.contains("bridge: \"lan\"") && given.contains("helper: \"/bin/h\""), "{given}");
    }
}

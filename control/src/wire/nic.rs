//! `nic`: the guest's side of a netdev: its name, its MAC address, its receive filter.

use ringyard_dataplane::mac::Mac;
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use super::{nic_mac, unix_path};
use crate::follow::Followed;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `nic` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Nic as "NetdevLegacyNicOptions" {
        /// The netdev that the guest is attached to.
        pub netdev: Option<String>,
        /// The guest's MAC address.
        pub macaddr: Option<String>,
        /// The device model; only `virtio`.
        pub model: Option<String>,
        /// The PCI address, kept and shown.
        pub addr: Option<String>,
        /// The number of interrupt vectors, kept and shown.
        pub vectors: Option<u32>,
        /// The monitor of the guest's machine, whose rx-filter is followed.
        pub x_follow: Option<String>,
        /// What that machine calls the nic.
        pub x_follow_nic: Option<String>,
        /// The guest may take it for the standby of a nic of its own.
        pub x_failover: Option<bool>,
    }
}

/// A `nic` that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// The netdev that it stands on; whether it exists and is free is for the model to say.
    pub netdev: Option<String>,
    /// Its main MAC, a unicast address; without one the model gives it the next free default.
    pub mac: Option<Mac>,
    /// The PCI address, to be shown.
    pub addr: Option<String>,
    /// The number of interrupt vectors, to be shown.
    pub vectors: Option<u32>,
    /// Where the guest's rx-filter can be learned.
    pub follow: Option<Followed>,
    /// Offered as the standby of another nic (VIRTIO_NET_F_STANDBY).
    pub failover: bool,
}

impl Members for Nic {
    fn type_name(&self) -> &'static str {
        "nic"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        self.spec().map(NetdevKind::Nic)
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl Nic {
    fn spec(&self) -> Result<NicSpec, QapiError> {
        if let Some(model) = self.model.as_deref().filter(|model| *model != "virtio") {
            let text = format!("model '{model}' is not available: every nic of ringyard is 'virtio'");
            return Err(QapiError::generic(text));
        }
        let mac = self.macaddr.as_deref().map(nic_mac).transpose().map_err(|error| error.about("macaddr"))?;
        if let Some(addr) = self.addr.as_deref().filter(|addr| !is_pci_address(addr)) {
            return Err(
                QapiError::generic(format!("Invalid PCI device address {addr} for device nic")).about("addr")
            );
        }
        if let Some(vectors @ 0x800_0000..) = self.vectors {
            return Err(QapiError::generic(format!("invalid # of vectors: {vectors}")));
        }
        let (netdev, addr) = (self.netdev.clone(), self.addr.clone());
        let follow = match (&self.x_follow, self.x_follow_nic.clone()) {
            (Some(monitor), nic) => Some(Followed { monitor: unix_path(monitor)?, nic }),
            (None, Some(_)) => return Err(QapiError::generic("x-follow-nic= is invalid without x-follow=")),
            (None, None) => None,
        };
        let failover = self.x_failover.unwrap_or(false);
        Ok(NicSpec { netdev, mac, addr, vectors: self.vectors, follow, failover })
    }
}

/// `[[domain:]bus:]slot[.function]`, all hexadecimal.
fn is_pci_address(text: &str) -> bool {
    let up_to = |part: &str, max| u32::from_str_radix(part, 16).is_ok_and(|number| number <= max);
    let (path, function) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = path.rsplit(':');
    let slot = parts.next().is_some_and(|slot| up_to(slot, 0x1F));
    let bus = parts.next().is_none_or(|bus| up_to(bus, 0xFF));
    let domain = parts.next().is_none_or(|domain| up_to(domain, 0xFFFF));
    slot && bus && domain && parts.next().is_none() && up_to(function, 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(nic: Nic) -> String {
        nic.spec().expect_err("the test's nic is wrong").desc
    }

    #[test]
    fn a_nic_is_virtio_or_refused() {
        let virtio = Nic { model: Some("virtio".into()), ..Nic::default() };
        assert_eq!(
            virtio.spec(),
            Ok(NicSpec { netdev: None, mac: None, addr: None, vectors: None, follow: None, failover: false })
        );
        let e1000 = Nic { model: Some("e1000".into()), ..Nic::default() };
        assert_eq!(refused(e1000), "model 'e1000' is not available: every nic of ringyard is 'virtio'");
    }

    #[test]
    fn addr_and_vectors_are_checked() {
        for good in ["4", "1f.7", "00:04.0", "0000:ff:1f"] {
            assert!(is_pci_address(good), "{good}");
        }
        for bad in ["", "20", "4.8", "100:4", "0:0:0:4", "x"] {
            let error = refused(Nic { addr: Some(bad.into()), ..Nic::default() });
            assert_eq!(error, format!("Invalid PCI device address {bad} for device nic"));
        }
        let most = Nic { vectors: Some(0x7FF_FFFF), ..Nic::default() };
        assert!(most.spec().is_ok());
        let more = Nic { vectors: Some(0x800_0000), ..Nic::default() };
        assert_eq!(refused(more), "invalid # of vectors: 134217728");
    }
}

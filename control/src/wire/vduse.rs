//! `x-vduse`, our own: a virtio-net device that we are, on the host's vDPA bus.

use std::sync::Arc;

use ringyard_drivers::vduse::{NAME_LEN_MAX, QUEUE_SIZE, VduseOptions};
use serde_json::{Map, Value};

use super::{Members, NetdevKind, nic_mac};
use crate::ports::VduseSpec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of an `x-vduse` netdev, as given.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Vduse as "NetdevVduseOptions" {
        /// The device's name, for `vdpa dev add name NAME mgmtdev vduse`.
        pub name: String,
        /// Entries of each ring, at most.
        pub queue_size: Option<u32>,
        /// The address that the driver takes.
        pub macaddr: Option<String>,
        /// The longest IP packet that the driver sends.
        pub mtu: Option<u32>,
        /// Whether packed rings are offered, as they are without a word.
        pub packed: Option<bool>,
    }
}

impl Members for Vduse {
    fn type_name(&self) -> &'static str {
        "x-vduse"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(VduseSpec(self.options()?))))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl Vduse {
    fn options(&self) -> Result<VduseOptions, QapiError> {
        let Vduse { name, .. } = self;
        // A file of this name comes to be in /dev/vduse, beside `control`.
        let reserved = ["control", ".", ".."].contains(&name.as_str());
        let whole = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if reserved || !(1..=NAME_LEN_MAX).contains(&name.len()) || !name.bytes().all(whole) {
            return refused(format!(
                "'{name}' is no name of a VDUSE device: at most {NAME_LEN_MAX} bytes, without '/' and spaces, and not 'control'"
            ));
        }
        let queue_size = match self.queue_size {
            None => QUEUE_SIZE,
            Some(size) => match u16::try_from(size) {
                Ok(size) if size.is_power_of_two() && (QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&size) => {
                    size
                }
                _ => {
                    return refused(format!(
                        "queue-size must be a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}"
                    ));
                }
            },
        };
        let mtu = match self.mtu {
            None => None,
            Some(mtu) => match u16::try_from(mtu) {
                Ok(mtu) if mtu >= MTU_MIN => Some(mtu),
                _ => return refused(format!("mtu must be from {MTU_MIN} to 65535")),
            },
        };
        let mac = self.macaddr.as_deref().map(nic_mac).transpose()?;
        Ok(VduseOptions { name: name.clone(), queue_size, mac, mtu, packed: self.packed.unwrap_or(true) })
    }
}

fn refused<T>(text: String) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

/// Room for one frame of a driver that spreads it over as many descriptors as Linux does.
const QUEUE_SIZE_MIN: u16 = 32;
/// Virtio's limit (1.2, 2.7).
const QUEUE_SIZE_MAX: u16 = 1 << 15;
/// Of IPv4 (RFC 791).
const MTU_MIN: u16 = 68;

#[cfg(test)]
mod tests {
    use super::*;

    fn vduse() -> Vduse {
        Vduse { name: "v0".into(), queue_size: None, macaddr: None, mtu: None, packed: None }
    }

    fn refusal(members: Vduse) -> String {
        members.options().expect_err("the test's options are wrong").desc
    }

    #[test]
    fn what_is_left_out_is_left_to_the_driver() {
        let expected =
            VduseOptions { name: "v0".into(), queue_size: 1024, mac: None, mtu: None, packed: true };
        assert_eq!(vduse().options(), Ok(expected));
    }

    #[test]
    fn every_limit_holds() {
        for name in ["", "control", "..", "a/b", "a b", "\u{7f}", &"x".repeat(256)] {
            assert!(refusal(Vduse { name: name.into(), ..vduse() }).contains("is no name of a VDUSE device"));
        }
        assert!(Vduse { name: "x".repeat(255), ..vduse() }.options().is_ok());
        for size in [0, 16, 33, 100, 65_536] {
            let error = refusal(Vduse { queue_size: Some(size), ..vduse() });
            assert_eq!(error, "queue-size must be a power of two from 32 to 32768");
        }
        for size in [32, 32_768] {
            assert!(Vduse { queue_size: Some(size), ..vduse() }.options().is_ok());
        }
        for mtu in [0, 67, 65_536] {
            assert_eq!(refusal(Vduse { mtu: Some(mtu), ..vduse() }), "mtu must be from 68 to 65535");
        }
        let group = Vduse { macaddr: Some("01:00:00:00:00:01".into()), ..vduse() };
        assert_eq!(refusal(group), "NIC cannot have multicast MAC address (odd 1st byte)");
    }
}

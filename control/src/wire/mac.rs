//! Ethernet addresses as people write them.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::qapi::{FromQapi, Place, QapiError};

/// An Ethernet address, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// True for group addresses, the broadcast address among them.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Refuses a group address, which no nic can have as its own.
    pub fn check_unicast(self) -> Result<Self, QapiError> {
        if self.is_multicast() {
            return Err(QapiError::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
        }
        Ok(self)
    }

    /// A nic's address: six octets, or one number up to 0xFFFFFF that fills the last three after 52:54:00.
    pub fn of_nic(text: &str) -> Result<Self, QapiError> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let address = match number {
            Ok(number @ 0..=0xFF_FFFF) => {
                let [_, a, b, c] = number.to_be_bytes();
                MacAddress([0x52, 0x54, 0x00, a, b, c])
            }
            _ => text.parse()?,
        };
        address.check_unicast()
    }
}

impl FromStr for MacAddress {
    type Err = QapiError;

    /// Reads six hexadecimal octets between `:` or `-`.
    fn from_str(text: &str) -> Result<Self, QapiError> {
        let octet = |part: &str| match part.len() {
            1 | 2 if part.bytes().all(|digit| digit.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let octets: Option<Vec<u8>> = text.split([':', '-']).map(octet).collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets.map(MacAddress).ok_or_else(|| QapiError::generic("invalid syntax for ethernet address"))
    }
}

impl FromQapi for MacAddress {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        let text = String::from_qapi(value, place)?;
        text.parse().map_err(|_| place.expects("a MAC address such as 52:54:00:12:34:56"))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_has_six_octets_or_is_a_small_number() {
        for text in ["52:54:00:aa:BB:0c", "52-54-0-AA-bb-c", "0xAABB0C", "11189004"] {
            let address = MacAddress::of_nic(text).expect(text);
            assert_eq!(address.to_string(), "52:54:00:aa:bb:0c");
        }
        for text in
            ["", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:dd", "52:54:00:aa:bb:+c", "0x1000000", "-1", "é"]
        {
            let error = MacAddress::of_nic(text).expect_err(text);
            assert_eq!(error.desc, "invalid syntax for ethernet address", "{text}");
        }
    }

    #[test]
    fn a_nic_cannot_have_a_multicast_mac() {
        let error = MacAddress::of_nic("53:54:00:00:00:01").expect_err("the first octet is odd");
        assert_eq!(error.desc, "NIC cannot have multicast MAC address (odd 1st byte)");
    }
}

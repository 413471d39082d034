//! Ethernet addresses as options and commands give them.

use ringyard_dataplane::mac::Mac;
use serde_json::Value;

use crate::qapi::{Described, FromQapi, Place, QapiError, Schema};

/// A nic's address: six octets, or one number up to 0xFFFFFF that fills the last three after 52:54:00.
pub fn nic_mac(text: &str) -> Result<Mac, QapiError> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let mac = match number {
        Ok(number @ 0..=0xFF_FFFF) => mac_of_number(number),
        _ => text.parse().map_err(|_| QapiError::generic("invalid syntax for ethernet address"))?,
    };
    check_unicast(mac)
}

/// The address 52:54:00 with the low three octets of `number` after it.
pub fn mac_of_number(number: u32) -> Mac {
    let [_, a, b, c] = number.to_be_bytes();
    Mac([0x52, 0x54, 0x00, a, b, c])
}

/// Refuses a group address, which no nic can have as its own.
pub fn check_unicast(mac: Mac) -> Result<Mac, QapiError> {
    if mac.is_multicast() {
        return Err(QapiError::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
    }
    Ok(mac)
}

impl FromQapi for Mac {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        let text = String::from_qapi(value, place)?;
        text.parse().map_err(|_| place.expects("a MAC address such as 52:54:00:12:34:56"))
    }
}

impl Described for Mac {
    fn describe(schema: &mut Schema) -> String {
        String::describe(schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_has_six_octets_or_is_a_small_number() {
        for text in ["52:54:00:aa:BB:0c", "52-54-0-AA-bb-c", "0xAABB0C", "11189004"] {
            let mac = nic_mac(text).expect(text);
            assert_eq!(mac.to_string(), "52:54:00:aa:bb:0c");
        }
        for text in
            ["", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:dd", "52:54:00:aa:bb:+c", "0x1000000", "-1", "é"]
        {
            let error = nic_mac(text).expect_err(text);
            assert_eq!(error.desc, "invalid syntax for ethernet address", "{text}");
        }
    }

    #[test]
    fn a_nic_cannot_have_a_multicast_mac() {
        let error = nic_mac("53:54:00:00:00:01").expect_err("the first octet is odd");
        assert_eq!(error.desc, "NIC cannot have multicast MAC address (odd 1st byte)");
    }
}

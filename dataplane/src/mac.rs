//! Ethernet addresses (IEEE 802, 8.2), as the hub compares them and as QMP writes them.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group bit set; true for the broadcast address too.
    #[inline]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The address as the low 48 bits of a number; equal addresses and only they have equal keys.
    #[inline]
    pub fn key(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not six hexadecimal octets.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address: write six hexadecimal octets, as in 52:54:00:12:34:56")
    }
}

impl std::error::Error for InvalidMac {}

impl FromStr for Mac {
    type Err = InvalidMac;

    /// Six octets of one or two hexadecimal digits, separated by `:` or by `-`.
    fn from_str(text: &str) -> Result<Mac, InvalidMac> {
        let separator = if text.contains(':') { ':' } else { '-' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or(InvalidMac)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidMac);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() { Err(InvalidMac) } else { Ok(Mac(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_address_are_the_same_both_ways() {
        let mac: Mac = "52:54:00:aB:0c:d".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:0c:0d");
        assert_eq!("52-54-00-ab-0c-0d".parse(), Ok(mac));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:+6",
            "52:54-00:12:34:56",
            "g::::::",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac), "{text}");
        }
    }

    #[test]
    fn group_bit_tells_multicast() {
        assert!(Mac::BROADCAST.is_multicast());
        assert!(Mac([1, 0, 0x5e, 0, 0, 1]).is_multicast());
        assert!(!Mac([0x52, 0x54, 0, 0, 0, 1]).is_multicast());
    }
}

//! `user`: a network behind the host, as libslirp makes it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ringyard_drivers::user::{Ipv4Side, Ipv6Side, SmbShare, UserOptions};
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use super::user_rule::{guest_forward, host_forward, leading_number, literal};
use crate::ports::UserSpec;
use crate::qapi::{Form, FromQapi, Place, QapiError, Visitor, answer, options, written};

options! {
    /// The members of a `user` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct User as "NetdevUserOptions" {
        /// The name that DHCP gives to guests.
        pub hostname: Option<String>,
        /// Whether guests reach nothing but what rules forward.
        pub restrict: Option<bool>,
        /// Whether there is IPv4.
        pub ipv4: Option<bool>,
        /// Whether there is IPv6.
        pub ipv6: Option<bool>,
        /// The older form of `net`.
        pub ip: Option<String>,
        /// The IPv4 network, as `ADDRESS[/MASK]`.
        pub net: Option<String>,
        /// The host's address in it.
        pub host: Option<String>,
        /// The directory that TFTP serves.
        pub tftp: Option<String>,
        /// The boot file in DHCP's answers.
        pub bootfile: Option<String>,
        /// The first address that DHCP gives away.
        pub dhcpstart: Option<String>,
        /// The name server's address.
        pub dns: Option<String>,
        /// Domains that guests search.
        pub dnssearch: Option<Vec<Text>>,
        /// The guests' domain.
        pub domainname: Option<String>,
        /// The IPv6 network.
        pub ipv6_prefix: Option<String>,
        /// Its bits.
        pub ipv6_prefixlen: Option<i64>,
        /// The host's address in it.
        pub ipv6_host: Option<String>,
        /// The name server's address.
        pub ipv6_dns: Option<String>,
        /// The directory that Samba serves.
        pub smb: Option<String>,
        /// Samba's address.
        pub smbserver: Option<String>,
        /// What comes in on the host.
        pub hostfwd: Option<Vec<Text>>,
        /// What guests connect to.
        pub guestfwd: Option<Vec<Text>>,
        /// The name of the TFTP server in DHCP's answers.
        pub tftp_server_name: Option<String>,
    }
}

answer! {
    /// The schema's `String`: an object with a text in it. On a command line it is the text.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Text as "String" {
        /// The text.
        pub str: String,
    }
}

impl FromQapi for Text {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        if place.form() == Form::Keyval && value.is_string() {
            return String::from_qapi(value, place).map(|str| Text { str });
        }
        let mut visitor = Visitor::from_qapi(value, place)?;
        let text = Text { str: visitor.required("str")? };
        visitor.finish().map(|()| text)
    }
}

impl Members for User {
    fn type_name(&self) -> &'static str {
        "user"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(UserSpec(self.options()?))))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl User {
    /// All of it with its defaults, checked in QEMU's order.
    fn options(&self) -> Result<UserOptions, QapiError> {
        let restrict = self.restrict.unwrap_or(false);
        // Asking for one alone turns the other one off.
        let ipv4 = !(self.ipv4 == Some(false) || self.ipv6 == Some(true) && self.ipv4.is_none());
        let ipv6 = !(self.ipv6 == Some(false) || self.ipv4 == Some(true) && self.ipv6.is_none());
        let net = self.net.clone().or_else(|| self.ip.as_ref().map(|ip| format!("{ip}/24")));
        if !ipv4 && (net.is_some() || self.host.is_some() || self.dns.is_some()) {
            return refused("IPv4 disabled but netmask/host/dns provided");
        }
        if !ipv6 && (self.ipv6_prefix.is_some() || self.ipv6_host.is_some() || self.ipv6_dns.is_some()) {
            return refused("IPv6 disabled but prefix/host6/dns6 provided");
        }
        if !ipv4 && !ipv6 {
            return refused("IPv4 and IPv6 disabled");
        }
        let ipv4 = self.ipv4_side(ipv4, net.as_deref(), restrict)?;
        let smb_server = parsed(&self.smbserver, Ipv4Addr::UNSPECIFIED, "Failed to parse SMB address")?;
        let ipv6 = self.ipv6_side(ipv6, restrict)?;
        self.check_names()?;
        // QEMU keeps the rules in a list that grows at its head.
        let rules =
            |rules: &Option<Vec<Text>>| rules.iter().flatten().rev().map(|text| text.str.clone()).collect();
        let (guest_rules, host_rules): (Vec<String>, Vec<String>) =
            (rules(&self.guestfwd), rules(&self.hostfwd));
        let guest_forwards = guest_rules.iter().map(|rule| guest_forward(rule)).collect::<Result<_, _>>()?;
        let host_forwards = host_rules.iter().map(|rule| host_forward(rule)).collect::<Result<_, _>>()?;
        Ok(UserOptions {
            restrict,
            ipv4,
            ipv6,
            hostname: self.hostname.clone(),
            tftp: self.tftp.clone(),
            tftp_server_name: self.tftp_server_name.clone(),
            bootfile: self.bootfile.clone(),
            dns_search: self.dnssearch.iter().flatten().map(|domain| domain.str.clone()).collect(),
            domain_name: self.domainname.clone(),
            smb: self.smb.clone().map(|directory| SmbShare { directory, server: smb_server }),
            host_forwards,
            guest_forwards,
        })
    }

    fn ipv4_side(&self, enabled: bool, net: Option<&str>, restrict: bool) -> Result<Ipv4Side, QapiError> {
        let (network, mask) = network(net.unwrap_or(NETWORK))?;
        let (network_bits, mask_bits) = (network.to_bits(), mask.to_bits());
        let numbered = |number: u32| Ipv4Addr::from_bits(network_bits | number & !mask_bits);
        let belongs = |address: Ipv4Addr| address.to_bits() & mask_bits == network_bits;
        let host = parsed(&self.host, numbered(0x0202), "Failed to parse host")?;
        if !belongs(host) {
            return refused("Host doesn't belong to network");
        }
        let dns = parsed(&self.dns, numbered(0x0203), "Failed to parse DNS")?;
        if restrict && !belongs(dns) {
            return refused("DNS doesn't belong to network");
        }
        if dns == host {
            return refused("DNS must be different from host");
        }
        let dhcp_start = parsed(&self.dhcpstart, numbered(0x020f), "Failed to parse DHCP start address")?;
        if !belongs(dhcp_start) {
            return refused("DHCP doesn't belong to network");
        }
        if dhcp_start == host || dhcp_start == dns {
            return refused("DHCP must be different from host and DNS");
        }
        Ok(Ipv4Side { enabled, network, mask, host, dhcp_start, dns })
    }

    fn ipv6_side(&self, enabled: bool, restrict: bool) -> Result<Ipv6Side, QapiError> {
        let parsed = |given: &Option<String>, default: Ipv6Addr, error: &str| match given {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| QapiError::generic(error)),
        };
        let prefix: Ipv6Addr = parsed(&self.ipv6_prefix, PREFIX, "Failed to parse IPv6 prefix")?;
        // An int of C holds it in QEMU.
        let prefix_len = match self.ipv6_prefixlen.unwrap_or(0) as i32 {
            0 => PREFIX_LEN,
            len @ 1..=126 => len as u8,
            _ => {
                return refused(
                    "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)",
                );
            }
        };
        let numbered = |number: u128| Ipv6Addr::from_bits(prefix.to_bits() | number);
        let belongs =
            |address: Ipv6Addr| (address.to_bits() ^ prefix.to_bits()) >> (128 - u32::from(prefix_len)) == 0;
        let host = parsed(&self.ipv6_host, numbered(2), "Failed to parse IPv6 host")?;
        if self.ipv6_host.is_some() && !belongs(host) {
            return refused("IPv6 Host doesn't belong to network");
        }
        let dns = parsed(&self.ipv6_dns, numbered(3), "Failed to parse IPv6 DNS")?;
        if self.ipv6_dns.is_some() && restrict && !belongs(dns) {
            return refused("IPv6 DNS doesn't belong to network");
        }
        Ok(Ipv6Side { enabled, prefix, prefix_len, host, dns })
    }

    fn check_names(&self) -> Result<(), QapiError> {
        if self.domainname.as_deref() == Some("") {
            return refused("'domainname' parameter cannot be empty");
        }
        let names = [
            ("domainname", &self.domainname),
            ("vhostname", &self.hostname),
            ("tftp-server-name", &self.tftp_server_name),
        ];
        match names.iter().find(|(_, name)| name.as_ref().is_some_and(|name| name.len() > NAME_LEN_MAX)) {
            Some((name, _)) => refused(&format!("'{name}' parameter cannot exceed {NAME_LEN_MAX} bytes")),
            None => Ok(()),
        }
    }
}

/// The network and the mask that `net` means.
fn network(net: &str) -> Result<(Ipv4Addr, Ipv4Addr), QapiError> {
    let parse = |text| literal(text).ok_or_else(|| QapiError::generic("Failed to parse netmask"));
    let (network, mask) = match net.split_once('/') {
        None => {
            let network = parse(net)?;
            (network, guessed_mask(network.to_bits()))
        }
        Some((network, mask)) => {
            let network = parse(network)?;
            let mask = match leading_number(mask, 10) {
                (bits @ 4..=32, "") => u32::MAX << (32 - bits),
                (_, "") => return refused("Invalid netmask provided (must be in range 4-32)"),
                _ => match literal(mask) {
                    Some(mask) => mask.to_bits(),
                    None => return refused("Failed to parse netmask (trailing chars)"),
                },
            };
            (network, mask)
        }
    };
    Ok((Ipv4Addr::from_bits(network.to_bits() & mask), Ipv4Addr::from_bits(mask)))
}

/// The mask of a network that is given without one.
fn guessed_mask(network: u32) -> u32 {
    match network {
        _ if network & 0x8000_0000 == 0 => 0xff00_0000,
        _ if network & 0xfff0_0000 == 0xac10_0000 => 0xfff0_0000,
        _ if network & 0xc000_0000 == 0x8000_0000 => 0xffff_0000,
        _ if network & 0xffff_0000 == 0xc0a8_0000 => 0xffff_0000,
        _ if network & 0xffff_0000 == 0xc612_0000 => 0xfffe_0000,
        _ if network & 0xe000_0000 == 0xe000_0000 => 0xffff_ff00,
        _ => 0xffff_fff0,
    }
}

fn parsed(given: &Option<String>, default: Ipv4Addr, error: &str) -> Result<Ipv4Addr, QapiError> {
    match given {
        None => Ok(default),
        Some(text) => literal(text).ok_or_else(|| QapiError::generic(error)),
    }
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

const NETWORK: &str = "10.0.2.0/24";
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0);
const PREFIX_LEN: u8 = 64;
/// DHCP has a byte for a name's length.
const NAME_LEN_MAX: usize = 255;

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;

//! Addresses of sockets between a host and its guests.

use rustix::net::SocketAddrAny;

use crate::line::SocketName;
use crate::sys::address::{vsock, vsock_of};

/// Errors: what is no number.
pub(super) fn address(cid: &str, port: &str) -> Result<SocketAddrAny, String> {
    let number =
        |name: &str, text: &str| text.parse().map_err(|_| format!("Failed to parse {name} '{text}'"));
    Ok(vsock(number("cid", cid)?, number("port", port)?))
}

/// The machine and port of such an address; `None` of any other.
pub(super) fn name(address: &SocketAddrAny) -> Option<SocketName> {
    vsock_of(address).map(|(cid, port)| SocketName::Vsock { cid, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_made_of_numbers_and_read_back() {
        let made = address("3", "4294967295").expect("both are numbers");
        assert_eq!(name(&made), Some(SocketName::Vsock { cid: 3, port: u32::MAX }));
        assert_eq!(address("x", "1").map(drop), Err("Failed to parse cid 'x'".into()));
        assert_eq!(address("1", "4294967296").map(drop), Err("Failed to parse port '4294967296'".into()));
        let inet: std::net::SocketAddr = "127.0.0.1:1".parse().expect("an address");
        assert_eq!(name(&inet.into()), None);
    }
}

//! Names of hosts and services as addresses: the system's own `getaddrinfo`, so that its files, its servers and its error
//! texts are used.

#![allow(unsafe_code)] // getaddrinfo, which the standard library has without services and families

use std::ffi::{CStr, CString, c_int};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{io, mem, ptr};

/// What kind of socket the address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Datagrams.
    Datagram,
    /// Raw IP of this protocol, which has no ports.
    Raw {
        /// By its number.
        protocol: u8,
    },
}

/// The addresses of `host` and `service`, best first, at least one; IPv6 ones only if `ipv6`, else IPv4 ones only. May wait
/// for a name server.
///
/// Errors: the system's text (`gai_strerror`).
pub(crate) fn resolve(
    host: &str,
    service: Option<&str>,
    ipv6: bool,
    kind: Kind,
) -> Result<Vec<SocketAddr>, String> {
    let unknown = || text_of(libc::EAI_NONAME);
    let host = CString::new(host).map_err(|_| unknown())?;
    let service = service.map(CString::new).transpose().map_err(|_| unknown())?;
    // SAFETY: numbers and pointers, for which zeros are values.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    (hints.ai_socktype, hints.ai_protocol) = match kind {
        Kind::Datagram => (libc::SOCK_DGRAM, 0),
        Kind::Raw { protocol } => (libc::SOCK_RAW, c_int::from(protocol)),
    };
    let mut list = ptr::null_mut();
    let service = service.as_ref().map_or(ptr::null(), |service| service.as_ptr());
    // SAFETY: strings that end with a zero (or none, for the service), hints, and a place for the list; all live on.
    let error = unsafe { libc::getaddrinfo(host.as_ptr(), service, &hints, &mut list) };
    match error {
        0 => {}
        libc::EAI_SYSTEM => return Err(io::Error::last_os_error().to_string()),
        error => return Err(text_of(error)),
    }
    let addresses = addresses_of(list);
    // SAFETY: the list is what getaddrinfo gave, and is not used any more.
    unsafe { libc::freeaddrinfo(list) };
    if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
}

/// The addresses of a list that `getaddrinfo` gave.
fn addresses_of(mut item: *const libc::addrinfo) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    while !item.is_null() {
        // SAFETY: not null, so it is an item of the list, which lives.
        let info = unsafe { *item };
        addresses.extend(address_of(&info));
        item = info.ai_next;
    }
    addresses
}

fn address_of(info: &libc::addrinfo) -> Option<SocketAddr> {
    let len = info.ai_addrlen as usize;
    match info.ai_family {
        libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family and the length say what it is.
            let raw = unsafe { info.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let host = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(host, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let raw = unsafe { info.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            let host = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(host, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn text_of(error: c_int) -> String {
    // SAFETY: a number, for each of which there is a text.
    let text = unsafe { libc::gai_strerror(error) };
    // SAFETY: it ends with a zero and is never freed.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The address of the host in `sockaddr`, an address as the kernel writes it; `None` of other families.
pub(crate) fn host_in(sockaddr: &[u8]) -> Option<IpAddr> {
    let family = u16::from_ne_bytes(*sockaddr.first_chunk()?);
    match c_int::from(family) {
        libc::AF_INET => sockaddr.get(4..)?.first_chunk::<4>().map(|&host| IpAddr::from(host)),
        libc::AF_INET6 => sockaddr.get(8..)?.first_chunk::<16>().map(|&host| IpAddr::from(host)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(host: &str, service: Option<&str>, ipv6: bool, kind: Kind) -> Result<String, String> {
        resolve(host, service, ipv6, kind).map(|addresses| addresses[0].to_string())
    }

    #[test]
    fn hosts_and_services_are_numbers_or_names() {
        let datagram = |host, service, ipv6| one(host, Some(service), ipv6, Kind::Datagram);
        assert_eq!(datagram("127.0.0.1", "1701", false), Ok("127.0.0.1:1701".into()));
        assert_eq!(datagram("localhost", "", false), Ok("127.0.0.1:0".into()));
        assert_eq!(datagram("::1", "4500", true), Ok("[::1]:4500".into()));
        let raw = Kind::Raw { protocol: 115 };
        assert_eq!(one("::1", None, true, raw), Ok("[::1]:0".into()));
        assert_eq!(one("10.1.2.3", None, false, raw), Ok("10.1.2.3:0".into()));
    }

    #[test]
    fn what_has_no_address_is_an_error_in_the_systems_words() {
        let datagram = |host, service, ipv6| one(host, Some(service), ipv6, Kind::Datagram).expect_err(host);
        assert_eq!(datagram("", "1", false), "Name or service not known");
        assert_eq!(datagram("a\0b", "1", false), "Name or service not known");
        assert_eq!(datagram("::1", "1", false), "Address family for hostname not supported");
        assert_eq!(datagram("127.0.0.1", "1", true), "Address family for hostname not supported");
        assert_eq!(datagram("127.0.0.1", "no such", false), "Servname not supported for ai_socktype");
    }

    #[test]
    fn the_host_of_an_address_is_found_in_its_bytes() {
        let v4 = [2, 0, 0x12, 0x34, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(host_in(&v4), Some(IpAddr::from([10, 0, 0, 1])));
        let mut v6 = [0; 28];
        (v6[0], v6[23]) = (10, 1);
        assert_eq!(host_in(&v6), Some(IpAddr::from(Ipv6Addr::LOCALHOST)));
        for cut in [&v4[..7], &v6[..23], &v4[..1], &[][..], &[1, 0, b'/', b'x'][..]] {
            assert_eq!(host_in(cut), None);
        }
    }
}

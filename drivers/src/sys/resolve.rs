//! Names of hosts and services as addresses: the system's own `getaddrinfo`, so that its files, its servers and its error
//! texts are used (the standard library has it without services and families).

use std::ffi::{CStr, CString, c_int};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{io, mem, ptr};

/// What kind of socket the address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A stream.
    Stream,
    /// Datagrams.
    Datagram,
    /// Raw IP of this protocol, which has no ports.
    Raw {
        /// By its number.
        protocol: u8,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    /// A name or a number; `None`: all of this host if `passive`, else its loopback.
    pub host: Option<&'a str>,
    /// A number or a service's name; `None`: port 0.
    pub service: Option<&'a str>,
    /// IPv6 only, or else IPv4 only; `None`: both.
    pub ipv6: Option<bool>,
    /// What for.
    pub kind: Kind,
    /// A socket is to be bound to it.
    pub passive: bool,
    /// Both are numbers: nobody is asked.
    pub numeric: bool,
}

/// The addresses, best first, at least one. May wait for a name server.
///
/// Errors: the system's text (`gai_strerror`).
pub(crate) fn resolve(query: Query<'_>) -> Result<Vec<SocketAddr>, String> {
    let unknown = |_| text_of(libc::EAI_NONAME);
    let host = query.host.map(CString::new).transpose().map_err(unknown)?;
    let service = query.service.map(CString::new).transpose().map_err(unknown)?;
    // SAFETY: numbers and pointers, for which zeros are values.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_family = match query.ipv6 {
        None => libc::AF_UNSPEC,
        Some(true) => libc::AF_INET6,
        Some(false) => libc::AF_INET,
    };
    (hints.ai_socktype, hints.ai_protocol) = match query.kind {
        Kind::Stream => (libc::SOCK_STREAM, 0),
        Kind::Datagram => (libc::SOCK_DGRAM, 0),
        Kind::Raw { protocol } => (libc::SOCK_RAW, c_int::from(protocol)),
    };
    if query.passive {
        hints.ai_flags |= libc::AI_PASSIVE;
    }
    if query.numeric {
        hints.ai_flags |= libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;
    }
    let mut list = ptr::null_mut();
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: strings that end with a zero, or none, hints, and a place for the list; all live on.
    let error = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &mut list) };
    match error {
        0 => {}
        libc::EAI_SYSTEM => return Err(io::Error::last_os_error().to_string()),
        error => return Err(text_of(error)),
    }
    let addresses = addresses_of(list);
    // SAFETY: the list is what getaddrinfo gave, and is not used any more.
    unsafe { libc::freeaddrinfo(list) };
    if addresses.is_empty() { Err(text_of(libc::EAI_NONAME)) } else { Ok(addresses) }
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

    const ANY: Query<'_> =
        Query { host: None, service: None, ipv6: None, kind: Kind::Stream, passive: false, numeric: false };

    fn first(query: Query<'_>) -> Result<String, String> {
        resolve(query).map(|addresses| addresses[0].to_string())
    }

    fn one(host: &str, service: Option<&str>, ipv6: bool, kind: Kind) -> Result<String, String> {
        first(Query { host: Some(host), service, ipv6: Some(ipv6), kind, ..ANY })
    }

    #[test]
    fn numbers_are_told_from_names_and_need_nobody() {
        let numeric =
            |host, service| first(Query { host: Some(host), service: Some(service), numeric: true, ..ANY });
        assert_eq!(numeric("127.0.0.1", "80"), Ok("127.0.0.1:80".into()));
        assert_eq!(numeric("::1", "80"), Ok("[::1]:80".into()));
        assert!(numeric("localhost", "80").is_err() && numeric("127.0.0.1", "ssh").is_err());
    }

    #[test]
    fn no_host_is_all_of_this_one_or_its_loopback() {
        let v4 = |passive| first(Query { service: Some("9"), ipv6: Some(false), passive, ..ANY });
        assert_eq!(v4(true), Ok("0.0.0.0:9".into()));
        assert_eq!(v4(false), Ok("127.0.0.1:9".into()));
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

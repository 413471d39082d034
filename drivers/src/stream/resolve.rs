//! Names of hosts and services into addresses, as the host's resolver has them. It may take long: never on control's
//! thread, and never on a worker.

#![allow(unsafe_code)] // getaddrinfo

use std::ffi::{CStr, CString, c_int};
use std::ptr;

use rustix::net::{AddressFamily, SocketAddrAny, SocketType};

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Query<'a> {
    /// A name or a number; `None`: every address of this host if `passive`, else its loopback address.
    pub host: Option<&'a str>,
    /// A number or a service's name.
    pub service: Option<&'a str>,
    /// `UNSPEC` for any.
    pub family: AddressFamily,
    /// What the sockets are.
    pub socket_type: SocketType,
    /// For a socket that is to be bound.
    pub passive: bool,
    /// Both are numbers: nothing is looked up.
    pub numeric: bool,
}

/// The addresses, best first; at least one.
///
/// Errors: the resolver's text.
pub(super) fn resolve(query: &Query<'_>) -> Result<Vec<SocketAddrAny>, String> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    let (Ok(host), Ok(service)) = (text(query.host), text(query.service)) else {
        return Err(error_text(libc::EAI_NONAME));
    };
    // SAFETY: numbers and null pointers; all of them may be zero.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = query.family.as_raw().into();
    hints.ai_socktype = query.socket_type.as_raw() as c_int;
    let flag = |set: bool, flag: c_int| if set { flag } else { 0 };
    hints.ai_flags = flag(query.passive, libc::AI_PASSIVE)
        | flag(query.numeric, libc::AI_NUMERICHOST | libc::AI_NUMERICSERV);
    let mut list = ptr::null_mut();
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: strings that end with a zero or null, hints of the right type, and a place for the result.
    let code =
        unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(error_text(code));
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list, which is not freed yet.
        let entry = unsafe { &*next };
        // SAFETY: the resolver fills in an address of `ai_addrlen` bytes of a family that sockets have.
        addresses.push(unsafe { SocketAddrAny::read(entry.ai_addr.cast(), entry.ai_addrlen) });
        next = entry.ai_next;
    }
    // SAFETY: what getaddrinfo made, once, and nothing of it is used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

fn error_text(code: c_int) -> String {
    // SAFETY: it takes any number.
    let text = unsafe { libc::gai_strerror(code) };
    // SAFETY: a constant string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const ANY: Query<'_> = Query {
        host: None,
        service: Some("9"),
        family: AddressFamily::UNSPEC,
        socket_type: SocketType::STREAM,
        passive: false,
        numeric: false,
    };

    fn resolved(query: Query<'_>) -> Result<Vec<SocketAddr>, String> {
        let addresses = resolve(&query)?;
        Ok(addresses.into_iter().map(|address| address.try_into().expect("of the internet")).collect())
    }

    #[test]
    fn numbers_are_resolved_without_asking_anybody() {
        let numeric = |host, service| {
            resolved(Query { host: Some(host), service: Some(service), numeric: true, ..ANY })
        };
        assert_eq!(numeric("127.0.0.1", "80"), Ok(vec!["127.0.0.1:80".parse().expect("an address")]));
        assert_eq!(numeric("::1", "80"), Ok(vec!["[::1]:80".parse().expect("an address")]));
        assert!(numeric("localhost", "80").is_err());
        assert!(numeric("127.0.0.1", "ssh").is_err());
    }

    #[test]
    fn nobody_in_particular_is_all_of_this_host_or_its_loopback() {
        let v4 = |passive| resolved(Query { passive, family: AddressFamily::INET, ..ANY });
        assert_eq!(v4(true), Ok(vec!["0.0.0.0:9".parse().expect("an address")]));
        assert_eq!(v4(false), Ok(vec!["127.0.0.1:9".parse().expect("an address")]));
    }

    #[test]
    fn errors_are_in_the_resolvers_words() {
        let unknown = Query { host: Some("127.0.0.1"), service: Some("no such service"), ..ANY };
        assert_eq!(resolved(unknown), Err("Servname not supported for ai_socktype".into()));
        for host in ["", "a\0b"] {
            let error = resolved(Query { host: Some(host), numeric: true, ..ANY });
            assert_eq!(error, Err("Name or service not known".into()), "{host:?}");
        }
    }
}

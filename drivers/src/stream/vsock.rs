//! Addresses of sockets between a host and its guests, which rustix does not have.

#![allow(unsafe_code)] // sockaddr_vm

use std::mem::MaybeUninit;

use rustix::net::SocketAddrAny;
use rustix::net::addr::SocketAddrStorage;

use crate::line::SocketName;

/// Errors: what is no number.
pub(super) fn address(cid: &str, port: &str) -> Result<SocketAddrAny, String> {
    let number =
        |name: &str, text: &str| text.parse().map_err(|_| format!("Failed to parse {name} '{text}'"));
    // SAFETY: numbers, and zeros behind them.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = number("cid", cid)?;
    address.svm_port = number("port", port)?;
    let mut storage = MaybeUninit::<SocketAddrStorage>::zeroed();
    // SAFETY: any address fits into the storage, and is aligned no more than it.
    unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_vm>().write(address) };
    // SAFETY: the storage holds this address, of its family and length.
    Ok(unsafe { SocketAddrAny::new(storage, size_of::<libc::sockaddr_vm>() as u32) })
}

/// The machine and port of such an address; `None` of any other.
pub(super) fn name(address: &SocketAddrAny) -> Option<SocketName> {
    let vsock = i32::from(address.address_family().as_raw()) == libc::AF_VSOCK;
    if !vsock || (address.addr_len() as usize) < size_of::<libc::sockaddr_vm>() {
        return None;
    }
    // SAFETY: the family and the length say what it is; the storage is aligned for any address.
    let address = unsafe { &*address.as_ptr().cast::<libc::sockaddr_vm>() };
    Some(SocketName::Vsock { cid: address.svm_cid, port: address.svm_port })
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

//! The address of a packet socket, `struct sockaddr_ll` of packet(7), which rustix does not have.

#![allow(unsafe_code)] // no crate of ours offers this address safely

use rustix::net::AddressFamily;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// See the module; to be bound to.
#[repr(C)]
pub struct LinkAddress {
    family: u16,
    protocol: u16,
    index: u32,
    hardware_type: u16,
    packet_type: u8,
    address_len: u8,
    address: [u8; 8],
}

impl LinkAddress {
    /// Every protocol on the interface of this index.
    pub fn every_frame_on(index: u32) -> LinkAddress {
        LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: (libc::ETH_P_ALL as u16).to_be(),
            index,
            hardware_type: 0,
            packet_type: 0,
            address_len: 0,
            address: [0; 8],
        }
    }
}

// SAFETY: `f` gets a pointer to the whole of `self`, laid out as the kernel's `struct sockaddr_ll`, with its size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<LinkAddress>() as SocketAddrLen)
    }
}

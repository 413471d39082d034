//! The control device: `/dev/netmap` and its ioctls, with the structures of `net/netmap.h` that they take.
//!
//! Revision followed: NETMAP_API 14 of `sys/net/netmap.h`, netmap's repository, commit 89607e1406c1 of February 2026; the
//! control API of `struct nmreq_header`, not that of `struct nmreq`, and no option. Requests are made of the header, whose
//! `nr_body` points to the structure of its type; the kernel copies both in and out.

use std::ffi::{c_ulong, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::checked;

/// Bytes of the kernel's name with the zero behind it (NETMAP_REQ_IFNAMSIZ).
pub(crate) const NAME_LEN: usize = 64;

/// `struct nmreq_header`.
#[repr(C)]
struct Header {
    nr_version: u16,
    nr_reqtype: u16,
    nr_reserved: u32,
    nr_name: [u8; NAME_LEN],
    nr_options: u64,
    nr_body: u64,
}

/// `struct nmreq_register`. Numbers of slots and rings are the kernel's answer, and 0 when asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Register {
    /// Where `struct netmap_if` begins in the memory.
    pub(crate) nr_offset: u64,
    /// Bytes of the memory.
    pub(crate) nr_memsize: u64,
    pub(crate) nr_tx_slots: u32,
    pub(crate) nr_rx_slots: u32,
    pub(crate) nr_tx_rings: u16,
    pub(crate) nr_rx_rings: u16,
    pub(crate) nr_host_tx_rings: u16,
    pub(crate) nr_host_rx_rings: u16,
    /// Which memory.
    pub(crate) nr_mem_id: u16,
    pub(crate) nr_ringid: u16,
    pub(crate) nr_mode: u32,
    pub(crate) nr_extra_bufs: u32,
    pub(crate) pad: u32,
    pub(crate) nr_flags: u64,
}

/// `struct nmreq_port_hdr`.
#[repr(C)]
struct PortHeader {
    nr_hdr_len: u32,
    pad1: u32,
}

const _: () = assert!(size_of::<Header>() == 88 && align_of::<Header>() == 8);
const _: () = assert!(std::mem::offset_of!(Header, nr_name) == 8);
const _: () = assert!(std::mem::offset_of!(Header, nr_options) == 72);
const _: () = assert!(std::mem::offset_of!(Header, nr_body) == 80);
const _: () = assert!(size_of::<Register>() == 56 && align_of::<Register>() == 8);
const _: () = assert!(std::mem::offset_of!(Register, nr_tx_slots) == 16);
const _: () = assert!(std::mem::offset_of!(Register, nr_tx_rings) == 24);
const _: () = assert!(std::mem::offset_of!(Register, nr_mem_id) == 32);
const _: () = assert!(std::mem::offset_of!(Register, nr_ringid) == 34);
const _: () = assert!(std::mem::offset_of!(Register, nr_mode) == 36);
const _: () = assert!(std::mem::offset_of!(Register, nr_extra_bufs) == 40);
const _: () = assert!(std::mem::offset_of!(Register, nr_flags) == 48);
const _: () = assert!(size_of::<PortHeader>() == 8);
const _: () = assert!(NIOCCTRL == 0xc058_6997 && NIOCTXSYNC == 0x6994 && NIOCRXSYNC == 0x6995);

/// A descriptor of the control device.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

impl Device {
    pub(crate) fn open(path: &Path) -> Result<Device, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(Device(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// NETMAP_REQ_REGISTER: binds the descriptor to rings of the port `name`, and says what they are.
    pub(crate) fn register(&self, name: &str, mut request: Register) -> Result<Register, Errno> {
        self.control(name, REQ_REGISTER, &mut request)?;
        Ok(request)
    }

    /// NETMAP_REQ_PORT_HDR_SET: has frames of the port `name` begin with a virtio-net header of `len` bytes.
    pub(crate) fn set_header_len(&self, name: &str, len: usize) -> Result<(), Errno> {
        self.control(name, REQ_PORT_HDR_SET, &mut PortHeader { nr_hdr_len: len as u32, pad1: 0 })
    }

    /// NETMAP_REQ_PORT_HDR_GET: bytes of the virtio-net header of the port `name`.
    pub(crate) fn header_len(&self, name: &str) -> Result<usize, Errno> {
        let mut header = PortHeader { nr_hdr_len: 0, pad1: 0 };
        self.control(name, REQ_PORT_HDR_GET, &mut header)?;
        Ok(header.nr_hdr_len as usize)
    }

    /// NIOCTXSYNC: what stands before `head` of the transmit rings goes out, and `tail` says what went.
    pub(crate) fn sync_out(&self) -> Result<(), Errno> {
        self.sync(NIOCTXSYNC)
    }

    /// NIOCRXSYNC: what stands before `head` of the receive rings is the kernel's, and `tail` says what came.
    pub(crate) fn sync_in(&self) -> Result<(), Errno> {
        self.sync(NIOCRXSYNC)
    }

    /// Asks with the body `T` that `kind` has.
    fn control<T>(&self, name: &str, kind: u16, body: &mut T) -> Result<(), Errno> {
        let mut nr_name = [0; NAME_LEN];
        // The zero behind it stays.
        nr_name[..name.len().min(NAME_LEN - 1)]
            .copy_from_slice(&name.as_bytes()[..name.len().min(NAME_LEN - 1)]);
        let nr_body = ptr::from_mut(body).expose_provenance() as u64;
        let mut header =
            Header { nr_version: API, nr_reqtype: kind, nr_reserved: 0, nr_name, nr_options: 0, nr_body };
        // SAFETY: the header is as the kernel expects it; its body, exclusively borrowed, has the type that `kind` has.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), NIOCCTRL, &raw mut header) }).map(drop)
    }

    fn sync(&self, code: c_ulong) -> Result<(), Errno> {
        // SAFETY: takes no argument. What the kernel does in the memory meanwhile, it does to what is its own there.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), code, ptr::null_mut::<c_void>()) }).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `_IOWR('i', number, size)` and `_IO('i', number)` of Linux.
const fn request_code(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    direction << 30 | (size as c_ulong) << 16 | (b'i' as c_ulong) << 8 | number
}

const NIOCCTRL: c_ulong = request_code(3, 151, size_of::<Header>());
/// See [`Device::sync_out`].
pub(crate) const NIOCTXSYNC: c_ulong = request_code(0, 148, 0);
/// See [`Device::sync_in`].
pub(crate) const NIOCRXSYNC: c_ulong = request_code(0, 149, 0);
const API: u16 = 14;
const REQ_REGISTER: u16 = 1;
const REQ_PORT_HDR_SET: u16 = 6;
const REQ_PORT_HDR_GET: u16 = 7;

/// NR_REG_ALL_NIC.
pub(crate) const MODE_ALL_NIC: u32 = 1;
/// NR_REG_SW.
pub(crate) const MODE_SW: u32 = 2;
/// NR_REG_NIC_SW.
pub(crate) const MODE_NIC_SW: u32 = 3;
/// NR_REG_ONE_NIC.
pub(crate) const MODE_ONE_NIC: u32 = 4;
/// NR_REG_ONE_SW.
pub(crate) const MODE_ONE_SW: u32 = 8;
/// NR_EXCLUSIVE.
pub(crate) const EXCLUSIVE: u64 = 0x800;
/// NR_RX_RINGS_ONLY.
pub(crate) const RX_RINGS_ONLY: u64 = 0x2000;
/// NR_TX_RINGS_ONLY.
pub(crate) const TX_RINGS_ONLY: u64 = 0x4000;
/// NR_ACCEPT_VNET_HDR.
pub(crate) const ACCEPT_VNET_HDR: u64 = 0x8000;
/// NR_NO_TX_POLL: a doorbell for what comes in sends nothing.
pub(crate) const NO_TX_POLL: u64 = 0x20000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_without_netmap_has_no_device() {
        let error = Device::open(Path::new("/dev/ringyard-no-netmap")).unwrap_err();
        assert_eq!(error, Errno::NOENT);
        // Any other device refuses the request, whose number it does not know.
        let null = Device::open(Path::new("/dev/null")).unwrap();
        let error = null.register("em0", Register::default()).unwrap_err();
        assert_eq!(error, Errno::NOTTY);
        assert_eq!(null.sync_in().unwrap_err(), Errno::NOTTY);
    }

    #[test]
    fn name_that_is_too_long_is_cut_before_its_zero() {
        let null = Device::open(Path::new("/dev/null")).unwrap();
        assert!(null.header_len(&"e".repeat(200)).is_err());
    }
}

//! The requests of `linux/vhost.h` and `linux/vhost_types.h` (as of Linux 6.1) that a vDPA device takes, with their
//! structures, and no more.

use std::mem::{offset_of, size_of};
use std::os::fd::AsFd;

use libc::{_IO, _IOR, _IOW, Ioctl, c_int};
use rustix::io::Errno;

use super::Plain;
use super::ioctl::{Bare, Request, ioctl};

/// VHOST_VIRTIO.
const BASE: u32 = 0xaf;

/// VHOST_GET_FEATURES.
pub(crate) const GET_FEATURES: Request<u64> = Request::sized(_IOR::<u64>(BASE, 0x00));
/// VHOST_SET_FEATURES.
pub(crate) const SET_FEATURES: Request<u64> = Request::sized(_IOW::<u64>(BASE, 0x00));
// SAFETY: the request takes nothing.
/// VHOST_SET_OWNER.
pub(crate) const SET_OWNER: Bare = unsafe { Bare::new(_IO(BASE, 0x01)) };
/// VHOST_SET_VRING_NUM.
pub(crate) const SET_VRING_NUM: Request<VringState> = Request::sized(_IOW::<VringState>(BASE, 0x10));
/// VHOST_SET_VRING_ADDR.
pub(crate) const SET_VRING_ADDR: Request<VringAddr> = Request::sized(_IOW::<VringAddr>(BASE, 0x11));
/// VHOST_SET_VRING_BASE.
pub(crate) const SET_VRING_BASE: Request<VringState> = Request::sized(_IOW::<VringState>(BASE, 0x12));
/// VHOST_SET_VRING_KICK.
pub(crate) const SET_VRING_KICK: Request<VringFile> = Request::sized(_IOW::<VringFile>(BASE, 0x20));
/// VHOST_SET_VRING_CALL.
pub(crate) const SET_VRING_CALL: Request<VringFile> = Request::sized(_IOW::<VringFile>(BASE, 0x21));
/// VHOST_SET_BACKEND_FEATURES.
pub(crate) const SET_BACKEND_FEATURES: Request<u64> = Request::sized(_IOW::<u64>(BASE, 0x25));
/// VHOST_GET_BACKEND_FEATURES.
pub(crate) const GET_BACKEND_FEATURES: Request<u64> = Request::sized(_IOR::<u64>(BASE, 0x26));
/// VHOST_GET_DEVICE_ID.
pub(crate) const GET_DEVICE_ID: Request<u32> = Request::sized(_IOR::<u32>(BASE, 0x70));
/// VHOST_GET_STATUS.
pub(crate) const GET_STATUS: Request<u8> = Request::sized(_IOR::<u8>(BASE, 0x71));
/// VHOST_SET_STATUS.
pub(crate) const SET_STATUS: Request<u8> = Request::sized(_IOW::<u8>(BASE, 0x72));
/// Of `vhost_vdpa_config`, which has a flexible end: see [`config`].
const GET_CONFIG: Ioctl = _IOR::<[u32; 2]>(BASE, 0x73);
/// VHOST_SET_VRING_ENABLE.
pub(crate) const SET_VRING_ENABLE: Request<VringState> = Request::sized(_IOW::<VringState>(BASE, 0x75));
/// VHOST_GET_VRING_NUM.
pub(crate) const GET_VRING_NUM: Request<u16> = Request::sized(_IOR::<u16>(BASE, 0x76));
/// VHOST_SET_CONFIG_CALL.
pub(crate) const SET_CONFIG_CALL: Request<c_int> = Request::sized(_IOW::<c_int>(BASE, 0x77));
/// VHOST_GET_IOVA_RANGE.
pub(crate) const GET_IOVA_RANGE: Request<IovaRange> = Request::sized(_IOR::<IovaRange>(BASE, 0x78));
/// VHOST_GET_CONFIG_SIZE.
pub(crate) const GET_CONFIG_SIZE: Request<u32> = Request::sized(_IOR::<u32>(BASE, 0x79));
/// VHOST_GET_VQS_COUNT.
pub(crate) const GET_VQS_COUNT: Request<u32> = Request::sized(_IOR::<u32>(BASE, 0x80));
// SAFETY: the request takes nothing.
/// VHOST_VDPA_SUSPEND.
pub(crate) const SUSPEND: Bare = unsafe { Bare::new(_IO(BASE, 0x7d)) };

/// The first bytes of the configuration space, `len` of them at most; the others are 0.
pub(crate) fn config(device: impl AsFd, len: u32) -> Result<[u8; CONFIG_LEN], Errno> {
    let mut request = ConfigRequest { len: len.min(CONFIG_LEN as u32), ..ConfigRequest::default() };
    // SAFETY: the request reads the head and writes `len` bytes behind it, of which there are as many.
    let get = unsafe { Request::new(GET_CONFIG) };
    ioctl(device, get, &mut request)?;
    Ok(request.bytes)
}

/// `vhost_vring_state`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VringState {
    pub index: u32,
    pub num: u32,
}

/// `vhost_vring_file`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VringFile {
    pub index: u32,
    pub fd: c_int,
}

/// `vhost_vring_addr`, whose addresses are the device's here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VringAddr {
    pub index: u32,
    pub flags: u32,
    pub desc: u64,
    pub used: u64,
    pub avail: u64,
    pub log: u64,
}

/// `vhost_vdpa_iova_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IovaRange {
    pub first: u64,
    pub last: u64,
}

/// The first fields of `virtio_net_config` (virtio 1.2, 5.1.4) behind the head of `vhost_vdpa_config`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ConfigRequest {
    offset: u32,
    len: u32,
    bytes: [u8; CONFIG_LEN],
}

/// Bytes of the configuration space that are of interest.
pub(crate) const CONFIG_LEN: usize = 12;

// SAFETY: numbers.
unsafe impl Plain for VringState {}
// SAFETY: as above.
unsafe impl Plain for VringFile {}
// SAFETY: as above; the addresses are the device's.
unsafe impl Plain for VringAddr {}
// SAFETY: as above.
unsafe impl Plain for IovaRange {}

const _: () = {
    assert!(size_of::<VringState>() == 8 && size_of::<VringFile>() == 8);
    assert!(offset_of!(VringAddr, desc) == 8 && offset_of!(VringAddr, avail) == 24);
    assert!(size_of::<VringAddr>() == 40 && size_of::<IovaRange>() == 16);
    assert!(offset_of!(ConfigRequest, bytes) == 8);
    // As the kernel's headers have them.
    assert!(
        GET_FEATURES.number() == 0x8008_af00
            && SET_FEATURES.number() == 0x4008_af00
            && SET_OWNER.number() == 0xaf01
    );
    assert!(
        SET_VRING_NUM.number() == 0x4008_af10
            && SET_VRING_ADDR.number() == 0x4028_af11
            && SET_VRING_BASE.number() == 0x4008_af12
    );
    assert!(SET_VRING_KICK.number() == 0x4008_af20 && SET_VRING_CALL.number() == 0x4008_af21);
    assert!(SET_BACKEND_FEATURES.number() == 0x4008_af25 && GET_BACKEND_FEATURES.number() == 0x8008_af26);
    assert!(
        GET_DEVICE_ID.number() == 0x8004_af70
            && GET_STATUS.number() == 0x8001_af71
            && SET_STATUS.number() == 0x4001_af72
    );
    assert!(
        GET_CONFIG == 0x8008_af73
            && SET_VRING_ENABLE.number() == 0x4008_af75
            && GET_VRING_NUM.number() == 0x8002_af76
    );
    assert!(SET_CONFIG_CALL.number() == 0x4004_af77 && GET_IOVA_RANGE.number() == 0x8010_af78);
    assert!(
        GET_CONFIG_SIZE.number() == 0x8004_af79
            && GET_VQS_COUNT.number() == 0x8004_af80
            && SUSPEND.number() == 0xaf7d
    );
};

//! The requests of `linux/vduse.h` (API version 0, as of Linux 6.12) and their structures, and no more.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, OwnedFd};

use libc::{_IOR, _IOW, _IOWR, Ioctl, c_int};
use rustix::io::Errno;

use super::ioctl::{Request, ioctl};
use super::{Plain, of_bytes, owned};

/// VDUSE_BASE.
const BASE: u32 = 0x81;
/// Bytes of a name, the ending zero included.
pub(crate) const NAME_MAX: usize = 256;

/// VDUSE_SET_API_VERSION.
pub(crate) const SET_API_VERSION: Request<u64> = Request::sized(_IOW::<u64>(BASE, 0x01));
/// VDUSE_CREATE_DEV: see [`create`].
pub(crate) const CREATE_DEV: Ioctl = _IOW::<[u8; CONFIG_HEAD]>(BASE, 0x02);
/// VDUSE_DESTROY_DEV.
pub(crate) const DESTROY_DEV: Request<[u8; NAME_MAX]> = Request::sized(_IOW::<[u8; NAME_MAX]>(BASE, 0x03));
/// VDUSE_IOTLB_GET_FD: see [`mapping`].
const IOTLB_GET_FD: Request<IotlbEntry> = Request::sized(_IOWR::<IotlbEntry>(BASE, 0x10));
/// VDUSE_DEV_GET_FEATURES.
pub(crate) const DEV_GET_FEATURES: Request<u64> = Request::sized(_IOR::<u64>(BASE, 0x11));
/// VDUSE_VQ_SETUP.
pub(crate) const VQ_SETUP: Request<VqConfig> = Request::sized(_IOW::<VqConfig>(BASE, 0x14));
/// VDUSE_VQ_GET_INFO.
pub(crate) const VQ_GET_INFO: Request<VqInfo> = Request::sized(_IOWR::<VqInfo>(BASE, 0x15));
/// VDUSE_VQ_SETUP_KICKFD.
pub(crate) const VQ_SETUP_KICKFD: Request<VqEventfd> = Request::sized(_IOW::<VqEventfd>(BASE, 0x16));
/// VDUSE_VQ_INJECT_IRQ.
pub(crate) const VQ_INJECT_IRQ: Request<u32> = Request::sized(_IOW::<u32>(BASE, 0x17));

/// Makes a device. The configuration space is no longer than [`NetConfig`].
pub(crate) fn create(control: impl AsFd, config: &mut DevConfig) -> Result<i32, Errno> {
    if config.config_size as usize > size_of::<NetConfig>() {
        return Err(Errno::INVAL);
    }
    // SAFETY: the request reads the head, and behind it as many bytes as that says, which are there.
    let request = unsafe { Request::new(CREATE_DEV) };
    ioctl(control, request, config)
}

/// VDUSE_IOTLB_GET_FD: the first mapping from the address `start` on, with its file; `None`: there is none.
pub(crate) fn mapping(device: impl AsFd, start: u64) -> Option<(IotlbEntry, OwnedFd)> {
    let mut entry = IotlbEntry { start, last: u64::MAX, ..IotlbEntry::default() };
    let fd = ioctl(device, IOTLB_GET_FD, &mut entry).ok()?;
    // SAFETY: the kernel made the descriptor for us; nobody else has it.
    Some((entry, unsafe { owned(fd.into()) }))
}

/// `vduse_dev_config` without its flexible end.
const CONFIG_HEAD: usize = 336;

/// `vduse_dev_config` with the configuration space of a network device behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DevConfig {
    pub name: [u8; NAME_MAX],
    pub vendor_id: u32,
    pub device_id: u32,
    pub features: u64,
    pub vq_num: u32,
    pub vq_align: u32,
    pub reserved: [u32; 13],
    pub config_size: u32,
    pub config: NetConfig,
}

/// The first fields of `virtio_net_config` (virtio 1.2, 5.1.4), as bytes: they are little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetConfig {
    pub mac: [u8; 6],
    pub status: [u8; 2],
    pub max_virtqueue_pairs: [u8; 2],
    pub mtu: [u8; 2],
}

/// `vduse_vq_config`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VqConfig {
    pub index: u32,
    pub max_size: u16,
    pub reserved: [u16; 13],
}

/// `vduse_iotlb_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IotlbEntry {
    pub offset: u64,
    pub start: u64,
    pub last: u64,
    pub perm: u8,
    pub padding: [u8; 7],
}

/// VDUSE_ACCESS_RW.
pub(crate) const ACCESS_RW: u8 = 3;

/// `vduse_vq_state_packed`, the union's larger half; the available index of a split ring is its first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingPosition {
    pub words: [u16; 4],
}

/// `vduse_vq_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VqInfo {
    pub index: u32,
    pub num: u32,
    pub desc_addr: u64,
    pub driver_addr: u64,
    pub device_addr: u64,
    pub position: RingPosition,
    pub ready: u8,
    pub padding: [u8; 7],
}

/// `vduse_vq_eventfd`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VqEventfd {
    pub index: u32,
    pub fd: c_int,
}

impl DevConfig {
    /// Bytes of one.
    pub(crate) const LEN: usize = size_of::<DevConfig>();

    /// The one that stands in `bytes`, if they are as many.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<DevConfig> {
        of_bytes(bytes)
    }
}

// SAFETY: numbers.
unsafe impl Plain for DevConfig {}
// SAFETY: as above.
unsafe impl Plain for VqConfig {}
// SAFETY: as above.
unsafe impl Plain for IotlbEntry {}
// SAFETY: as above.
unsafe impl Plain for VqInfo {}
// SAFETY: as above.
unsafe impl Plain for VqEventfd {}

const _: () = {
    assert!(offset_of!(DevConfig, features) == 264);
    assert!(offset_of!(DevConfig, config_size) == 332);
    assert!(offset_of!(DevConfig, config) == CONFIG_HEAD);
    assert!(size_of::<NetConfig>() == 12);
    assert!(size_of::<VqConfig>() == 32);
    assert!(offset_of!(IotlbEntry, perm) == 24 && size_of::<IotlbEntry>() == 32);
    assert!(offset_of!(VqInfo, position) == 32 && offset_of!(VqInfo, ready) == 40);
    assert!(size_of::<VqInfo>() == 48);
    assert!(size_of::<VqEventfd>() == 8);
    // As the kernel's headers have them.
    assert!(CREATE_DEV == 0x4150_8102 && DESTROY_DEV.number() == 0x4100_8103);
    assert!(SET_API_VERSION.number() == 0x4008_8101 && IOTLB_GET_FD.number() == 0xc020_8110);
    assert!(DEV_GET_FEATURES.number() == 0x8008_8111 && VQ_SETUP.number() == 0x4020_8114);
    assert!(VQ_GET_INFO.number() == 0xc030_8115 && VQ_SETUP_KICKFD.number() == 0x4008_8116);
    assert!(VQ_INJECT_IRQ.number() == 0x4004_8117);
};

//! The structures and numbers of `linux/vhost.h` and `linux/vhost_types.h` (as of Linux 6.1) that a vDPA device takes, and
//! no more.

use std::mem::{offset_of, size_of};

use libc::{_IO, _IOR, _IOW, _IOWR, Ioctl, c_int};

/// VHOST_VIRTIO.
const BASE: u32 = 0xaf;

pub(super) const GET_FEATURES: Ioctl = _IOR::<u64>(BASE, 0x00);
pub(super) const SET_FEATURES: Ioctl = _IOW::<u64>(BASE, 0x00);
pub(super) const SET_OWNER: Ioctl = _IO(BASE, 0x01);
pub(super) const SET_VRING_NUM: Ioctl = _IOW::<VringState>(BASE, 0x10);
pub(super) const SET_VRING_ADDR: Ioctl = _IOW::<VringAddr>(BASE, 0x11);
pub(super) const SET_VRING_BASE: Ioctl = _IOW::<VringState>(BASE, 0x12);
pub(super) const SET_VRING_KICK: Ioctl = _IOW::<VringFile>(BASE, 0x20);
pub(super) const SET_VRING_CALL: Ioctl = _IOW::<VringFile>(BASE, 0x21);
pub(super) const SET_BACKEND_FEATURES: Ioctl = _IOW::<u64>(BASE, 0x25);
pub(super) const GET_BACKEND_FEATURES: Ioctl = _IOR::<u64>(BASE, 0x26);
pub(super) const GET_DEVICE_ID: Ioctl = _IOR::<u32>(BASE, 0x70);
pub(super) const GET_STATUS: Ioctl = _IOR::<u8>(BASE, 0x71);
pub(super) const SET_STATUS: Ioctl = _IOW::<u8>(BASE, 0x72);
/// Of `vhost_vdpa_config`, which has a flexible end.
pub(super) const GET_CONFIG: Ioctl = _IOR::<[u32; 2]>(BASE, 0x73);
pub(super) const SET_VRING_ENABLE: Ioctl = _IOW::<VringState>(BASE, 0x75);
pub(super) const GET_VRING_NUM: Ioctl = _IOR::<u16>(BASE, 0x76);
pub(super) const SET_CONFIG_CALL: Ioctl = _IOW::<c_int>(BASE, 0x77);
pub(super) const GET_IOVA_RANGE: Ioctl = _IOR::<IovaRange>(BASE, 0x78);
pub(super) const GET_CONFIG_SIZE: Ioctl = _IOR::<u32>(BASE, 0x79);
pub(super) const GET_VQS_COUNT: Ioctl = _IOR::<u32>(BASE, 0x80);
pub(super) const SUSPEND: Ioctl = _IO(BASE, 0x7d);

/// VHOST_BACKEND_F_IOTLB_MSG_V2.
pub(super) const BACKEND_MSG_V2: u64 = 1 << 1;
/// VHOST_BACKEND_F_IOTLB_BATCH.
pub(super) const BACKEND_BATCH: u64 = 1 << 2;
/// VHOST_BACKEND_F_IOTLB_ASID.
pub(super) const BACKEND_ASID: u64 = 1 << 3;
/// VHOST_BACKEND_F_SUSPEND.
pub(super) const BACKEND_SUSPEND: u64 = 1 << 4;

/// `vhost_vring_state`.
#[repr(C)]
#[derive(Default)]
pub(super) struct VringState {
    pub index: u32,
    pub num: u32,
}

/// `vhost_vring_file`.
#[repr(C)]
pub(super) struct VringFile {
    pub index: u32,
    pub fd: c_int,
}

/// `vhost_vring_addr`, whose addresses are the device's here.
#[repr(C)]
#[derive(Default)]
pub(super) struct VringAddr {
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
pub(super) struct IovaRange {
    pub first: u64,
    pub last: u64,
}

/// The first fields of `virtio_net_config` (virtio 1.2, 5.1.4) behind the head of `vhost_vdpa_config`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ConfigRequest {
    pub offset: u32,
    pub len: u32,
    pub bytes: [u8; CONFIG_LEN],
}

/// Bytes of the configuration space that are of interest.
pub(super) const CONFIG_LEN: usize = 12;

/// What a message about addresses says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iotlb {
    /// VHOST_IOTLB_UPDATE: `size` bytes at `iova` are those at `uaddr` here, to be read and written.
    Update { iova: u64, size: u64, uaddr: u64 },
    /// VHOST_IOTLB_INVALIDATE: nothing is there any more.
    Invalidate { iova: u64, size: u64 },
    /// VHOST_IOTLB_BATCH_BEGIN.
    Begin,
    /// VHOST_IOTLB_BATCH_END.
    End,
}

/// Bytes of `vhost_msg_v2`.
pub(super) const MESSAGE_LEN: usize = 72;

impl Iotlb {
    /// The message: a `vhost_msg_v2` for address space 0, which all rings are in unless somebody moves them.
    pub(super) fn encode(self) -> [u8; MESSAGE_LEN] {
        /// VHOST_IOTLB_MSG_V2.
        const TYPE: u32 = 2;
        /// VHOST_ACCESS_RW.
        const RW: u8 = 3;
        let (iova, size, uaddr, perm, kind) = match self {
            Iotlb::Update { iova, size, uaddr } => (iova, size, uaddr, RW, 2),
            Iotlb::Invalidate { iova, size } => (iova, size, 0, 0, 3),
            Iotlb::Begin => (0, 0, 0, 0, 5),
            Iotlb::End => (0, 0, 0, 0, 6),
        };
        let mut message = [0; MESSAGE_LEN];
        message[..4].copy_from_slice(&TYPE.to_ne_bytes());
        message[8..16].copy_from_slice(&iova.to_ne_bytes());
        message[16..24].copy_from_slice(&size.to_ne_bytes());
        message[24..32].copy_from_slice(&uaddr.to_ne_bytes());
        (message[32], message[33]) = (perm, kind);
        message
    }
}

const _: () = {
    assert!(size_of::<VringState>() == 8 && size_of::<VringFile>() == 8);
    assert!(offset_of!(VringAddr, desc) == 8 && offset_of!(VringAddr, avail) == 24);
    assert!(size_of::<VringAddr>() == 40 && size_of::<IovaRange>() == 16);
    assert!(offset_of!(ConfigRequest, bytes) == 8);
    // As the kernel's headers have them.
    assert!(GET_FEATURES == 0x8008_af00 && SET_FEATURES == 0x4008_af00 && SET_OWNER == 0xaf01);
    assert!(SET_VRING_NUM == 0x4008_af10 && SET_VRING_ADDR == 0x4028_af11 && SET_VRING_BASE == 0x4008_af12);
    assert!(SET_VRING_KICK == 0x4008_af20 && SET_VRING_CALL == 0x4008_af21);
    assert!(SET_BACKEND_FEATURES == 0x4008_af25 && GET_BACKEND_FEATURES == 0x8008_af26);
    assert!(GET_DEVICE_ID == 0x8004_af70 && GET_STATUS == 0x8001_af71 && SET_STATUS == 0x4001_af72);
    assert!(GET_CONFIG == 0x8008_af73 && SET_VRING_ENABLE == 0x4008_af75 && GET_VRING_NUM == 0x8002_af76);
    assert!(SET_CONFIG_CALL == 0x4004_af77 && GET_IOVA_RANGE == 0x8010_af78);
    assert!(GET_CONFIG_SIZE == 0x8004_af79 && GET_VQS_COUNT == 0x8004_af80 && SUSPEND == 0xaf7d);
    assert!(_IOWR::<VringState>(BASE, 0x7b) == 0xc008_af7b);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_says_where_it_is_for_the_device_and_where_for_us() {
        let message = Iotlb::Update { iova: 0x10_0000, size: 0x2000, uaddr: 0x7f00_0000_1000 }.encode();
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| message[at + byte]));
        assert_eq!(
            (message[..4].to_vec(), word(8), word(16), word(24)),
            (vec![2, 0, 0, 0], 0x10_0000, 0x2000, 0x7f00_0000_1000)
        );
        assert_eq!((message[4..8].to_vec(), &message[32..34]), (vec![0; 4], &[3, 2][..]));
        assert!(message[34..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn messages_without_a_mapping_carry_none() {
        for (message, kind) in [(Iotlb::Begin, 5), (Iotlb::End, 6)] {
            let message = message.encode();
            assert_eq!((message[33], message.iter().filter(|&&byte| byte != 0).count()), (kind, 2));
        }
        let gone = Iotlb::Invalidate { iova: 0x1000, size: 0x1000 }.encode();
        assert_eq!((gone[32], gone[33]), (0, 3));
    }
}

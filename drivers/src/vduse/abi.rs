//! The structures and numbers of `linux/vduse.h` (API version 0, as of Linux 6.12), and no more.

use std::mem::{offset_of, size_of};

use libc::{_IO, _IOR, _IOW, _IOWR, Ioctl, c_int};

/// VDUSE_BASE.
const BASE: u32 = 0x81;
/// Bytes of a name, the ending zero included.
pub(super) const NAME_MAX: usize = 256;

pub(super) const SET_API_VERSION: Ioctl = _IOW::<u64>(BASE, 0x01);
pub(super) const CREATE_DEV: Ioctl = _IOW::<[u8; CONFIG_HEAD]>(BASE, 0x02);
pub(super) const DESTROY_DEV: Ioctl = _IOW::<[u8; NAME_MAX]>(BASE, 0x03);
pub(super) const IOTLB_GET_FD: Ioctl = _IOWR::<IotlbEntry>(BASE, 0x10);
pub(super) const DEV_GET_FEATURES: Ioctl = _IOR::<u64>(BASE, 0x11);
pub(super) const VQ_SETUP: Ioctl = _IOW::<VqConfig>(BASE, 0x14);
pub(super) const VQ_GET_INFO: Ioctl = _IOWR::<VqInfo>(BASE, 0x15);
pub(super) const VQ_SETUP_KICKFD: Ioctl = _IOW::<VqEventfd>(BASE, 0x16);
pub(super) const VQ_INJECT_IRQ: Ioctl = _IOW::<u32>(BASE, 0x17);

/// `vduse_dev_config` without its flexible end.
const CONFIG_HEAD: usize = 336;

/// `vduse_dev_config` with the configuration space of a network device behind it.
#[repr(C)]
pub(super) struct DevConfig {
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
pub(super) struct NetConfig {
    pub mac: [u8; 6],
    pub status: [u8; 2],
    pub max_virtqueue_pairs: [u8; 2],
    pub mtu: [u8; 2],
}

/// `vduse_vq_config`.
#[repr(C)]
#[derive(Default)]
pub(super) struct VqConfig {
    pub index: u32,
    pub max_size: u16,
    pub reserved: [u16; 13],
}

/// `vduse_iotlb_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IotlbEntry {
    pub offset: u64,
    pub start: u64,
    pub last: u64,
    pub perm: u8,
    pub padding: [u8; 7],
}

/// VDUSE_ACCESS_RW.
pub(super) const ACCESS_RW: u8 = 3;

/// `vduse_vq_state_packed`, the union's larger half; the available index of a split ring is its first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingPosition {
    pub words: [u16; 4],
}

/// `vduse_vq_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VqInfo {
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
pub(super) struct VqEventfd {
    pub index: u32,
    pub fd: c_int,
}

/// Bytes of `vduse_dev_request` and of `vduse_dev_response`.
pub(super) const MESSAGE_LEN: usize = 152;
/// Where the union of either begins.
const BODY: usize = 24;

/// What the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// VDUSE_GET_VQ_STATE: where this ring got to.
    Position {
        /// Its index.
        ring: u32,
    },
    /// VDUSE_SET_STATUS: the driver wrote the device's status.
    Status(u8),
    /// VDUSE_UPDATE_IOTLB: these addresses mean something else from now on, if they mean anything.
    Remapped,
    /// A later kernel's.
    Unknown,
}

/// A request with the number that its answer carries.
pub(super) fn parse(message: &[u8; MESSAGE_LEN]) -> (u32, Request) {
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| message[at + byte]));
    let request = match word(0) {
        0 => Request::Position { ring: word(BODY) },
        1 => Request::Status(message[BODY]),
        2 => Request::Remapped,
        _ => Request::Unknown,
    };
    (word(4), request)
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// VDUSE_REQ_RESULT_OK.
    Done,
    /// The same, with where this ring got to.
    Position(u32, RingPosition),
    /// VDUSE_REQ_RESULT_FAILED.
    Failed,
}

/// The answer to request number `id`.
pub(super) fn encode(id: u32, answer: Answer) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[..4].copy_from_slice(&id.to_ne_bytes());
    let failed = u32::from(answer == Answer::Failed);
    message[4..8].copy_from_slice(&failed.to_ne_bytes());
    if let Answer::Position(ring, RingPosition { words }) = answer {
        message[BODY..BODY + 4].copy_from_slice(&ring.to_ne_bytes());
        for (place, word) in words.iter().enumerate() {
            let at = BODY + 4 + 2 * place;
            message[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
    }
    message
}

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
    assert!(CREATE_DEV == 0x4150_8102 && DESTROY_DEV == 0x4100_8103);
    assert!(SET_API_VERSION == 0x4008_8101 && IOTLB_GET_FD == 0xc020_8110);
    assert!(DEV_GET_FEATURES == 0x8008_8111 && VQ_SETUP == 0x4020_8114);
    assert!(VQ_GET_INFO == 0xc030_8115 && VQ_SETUP_KICKFD == 0x4008_8116 && VQ_INJECT_IRQ == 0x4004_8117);
    assert!(_IO(BASE, 0) == 0x8100);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as the kernel writes it.
    fn request(kind: u32, body: &[u8]) -> [u8; MESSAGE_LEN] {
        let mut message = [0; MESSAGE_LEN];
        message[..4].copy_from_slice(&kind.to_ne_bytes());
        message[4..8].copy_from_slice(&77u32.to_ne_bytes());
        message[24..24 + body.len()].copy_from_slice(body);
        message
    }

    #[test]
    fn every_request_is_known_by_its_number() {
        assert_eq!(parse(&request(0, &3u32.to_ne_bytes())), (77, Request::Position { ring: 3 }));
        assert_eq!(parse(&request(1, &[0x0f])), (77, Request::Status(0x0f)));
        assert_eq!(parse(&request(2, &[0xff; 16])), (77, Request::Remapped));
        assert_eq!(parse(&request(3, &[])), (77, Request::Unknown));
        assert_eq!(parse(&[0xff; MESSAGE_LEN]), (u32::MAX, Request::Unknown));
    }

    #[test]
    fn an_answer_carries_its_requests_number_and_a_position_its_ring() {
        let done = encode(77, Answer::Done);
        assert_eq!((&done[..4], &done[4..]), (&77u32.to_ne_bytes()[..], &[0; MESSAGE_LEN - 4][..]));
        assert_eq!(encode(77, Answer::Failed)[4..8], 1u32.to_ne_bytes());
        let position = encode(77, Answer::Position(1, RingPosition { words: [1, 2, 3, 4] }));
        assert_eq!(position[24..28], 1u32.to_ne_bytes());
        let words: Vec<u8> = [1u16, 2, 3, 4].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!((&position[28..36], &position[36..]), (&words[..], &[0; MESSAGE_LEN - 36][..]));
    }
}

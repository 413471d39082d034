//! What `linux/vhost_types.h` has of messages about addresses (as of Linux 6.1), and the features that they take.

/// VHOST_BACKEND_F_IOTLB_MSG_V2.
pub(super) const BACKEND_MSG_V2: u64 = 1 << 1;
/// VHOST_BACKEND_F_IOTLB_BATCH.
pub(super) const BACKEND_BATCH: u64 = 1 << 2;
/// VHOST_BACKEND_F_IOTLB_ASID.
pub(super) const BACKEND_ASID: u64 = 1 << 3;
/// VHOST_BACKEND_F_SUSPEND.
pub(super) const BACKEND_SUSPEND: u64 = 1 << 4;

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

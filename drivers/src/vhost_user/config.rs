//! The device's configuration space (virtio 1.2, 5.1.4), and the messages that read and write it.

use ringyard_dataplane::mac::Mac;
use vhost::vhost_user::message::VhostUserConfig;
use virtio_bindings::virtio_net::{VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP};
use vm_memory::ByteValued;

use super::body::read;
use super::device::Refusal;

/// What the fields say that we have something to say about; the others are not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    pub mac: Option<Mac>,
    pub link: bool,
    pub announce: bool,
    pub pairs_max: u16,
}

impl Space {
    fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let status = [(self.link, VIRTIO_NET_S_LINK_UP), (self.announce, VIRTIO_NET_S_ANNOUNCE)];
        let status: u32 = status.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        bytes[..MAC_LEN].copy_from_slice(&self.mac.unwrap_or(Mac([0; 6])).0);
        bytes[6..8].copy_from_slice(&(status as u16).to_le_bytes());
        bytes[8..10].copy_from_slice(&self.pairs_max.to_le_bytes());
        bytes
    }

    /// The reply to GET_CONFIG: the request with the bytes filled in, or with none for what is not in the space, which is
    /// how vhost-user says no to this one.
    pub(super) fn reply(self, body: &[u8]) -> Vec<u8> {
        match access(body) {
            Ok((head, at, wanted)) => [head, &self.bytes()[at..at + wanted.len()]].concat(),
            Err(_) => VhostUserConfig::default().as_slice().to_vec(),
        }
    }

    /// The address that a SET_CONFIG makes of ours. No other field can be written; a driver that tries is not heard.
    pub(super) fn write(self, body: &[u8]) -> Result<Mac, Refusal> {
        let (_, at, written) = access(body)?;
        let mut bytes = self.bytes();
        bytes[at..at + written.len()].copy_from_slice(written);
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&bytes[..MAC_LEN]);
        Ok(Mac(mac))
    }
}

/// The head of a body, where it begins in the space, and the bytes, all of which lie in the space.
fn access(body: &[u8]) -> Result<(&[u8], usize, &[u8]), Refusal> {
    let bad = || Refusal::Bad(format!("{} bytes of a configuration space of {LEN}", body.len()));
    let (head, bytes) = body.split_at_checked(size_of::<VhostUserConfig>()).ok_or_else(bad)?;
    let VhostUserConfig { offset, size, .. } = read::<VhostUserConfig>(head)?;
    let fits = offset as usize <= LEN && size as usize <= LEN - offset as usize;
    if !fits || size == 0 || bytes.len() != size as usize {
        return Err(bad());
    }
    Ok((head, offset as usize, bytes))
}

/// Bytes of `struct virtio_net_config`.
const LEN: usize = 24;
const MAC_LEN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space =
        Space { mac: Some(Mac([2, 3, 4, 5, 6, 7])), link: true, announce: true, pairs_max: 0x0102 };

    fn body(offset: u32, size: u32, bytes: &[u8]) -> Vec<u8> {
        let head = [offset, size, 0].map(u32::to_ne_bytes);
        [head.as_flattened(), bytes].concat()
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let reply = SPACE.reply(&body(0, 24, &[0; 24]));
        assert_eq!(reply[..12], body(0, 24, &[]));
        assert_eq!(reply[12..22], [2, 3, 4, 5, 6, 7, 3, 0, 2, 1]);
        assert_eq!(reply[22..], [0; 14]);
        assert_eq!(SPACE.reply(&body(6, 2, &[0; 2]))[12..], [3, 0]);
        assert_eq!(Space::default().reply(&body(0, 8, &[9; 8]))[12..], [0; 8]);
    }

    #[test]
    fn what_is_outside_is_refused() {
        for (offset, size, len) in [
            (0, 25, 25),
            (24, 1, 1),
            (23, 2, 2),
            (u32::MAX, 1, 1),
            (1, u32::MAX, 4),
            (0, 6, 5),
            (0, 6, 7),
            (0, 0, 0),
            (4096, 0, 0),
        ] {
            let body = body(offset, size, &vec![0; len]);
            assert_eq!(SPACE.reply(&body), [0; 12], "{offset} {size}");
            assert!(SPACE.write(&body).is_err(), "{offset} {size}");
        }
        assert_eq!(SPACE.reply(&[0; 11]), [0; 12]);
    }

    #[test]
    fn only_the_address_is_written() {
        let written = |offset, bytes: &[u8]| SPACE.write(&body(offset, bytes.len() as u32, bytes)).ok();
        assert_eq!(written(0, &[8; 6]), Some(Mac([8; 6])));
        assert_eq!(written(5, &[9]), Some(Mac([2, 3, 4, 5, 6, 9])));
        assert_eq!(written(6, &[0, 0]), SPACE.mac);
        assert_eq!(written(0, &[1; 24]), Some(Mac([1; 6])));
    }
}

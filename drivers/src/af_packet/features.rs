//! What an interface does with a frame that its sender left something to (ethtool's features): a packet socket that goes
//! around the queueing discipline goes around the kernel's own segmentation, too, so what the interface does not cut we do.

#![allow(unsafe_code)] // ioctls that rustix does not have

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use ringyard_dataplane::offload::Offloads;

/// Of `linux/ethtool.h`.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const NAME_LEN: usize = 32;
/// More than any kernel has.
const FEATURES_MAX: usize = 256;
/// Words of each answer before its list.
const HEAD: usize = 3;

/// The features of the interface `name`; the checksum is always the kernel's to complete.
pub(super) fn offloads(socket: BorrowedFd<'_>, name: &str) -> Offloads {
    active(socket, name).unwrap_or(Offloads::CHECKSUM)
}

fn active(socket: BorrowedFd<'_>, name: &str) -> io::Result<Offloads> {
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, a number for each bit.
    let mut count = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    #[cfg(target_endian = "big")]
    count.swap(2, 3);
    ask(socket, name, &mut count)?;
    let count = (count[4] as usize).min(FEATURES_MAX);
    // struct ethtool_gstrings: command, set, length, strings.
    let mut strings = vec![0; HEAD + count * NAME_LEN / size_of::<u32>()];
    strings[..HEAD].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
    ask(socket, name, &mut strings)?;
    // struct ethtool_gfeatures: command, size, of each 32 features the available, requested, active, and fixed ones.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + blocks * 4];
    features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    ask(socket, name, &mut features)?;
    let names: Vec<u8> = strings[HEAD..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let has = |wanted: &str| {
        let is = |name: &[u8]| name.split(|&byte| byte == 0).next() == Some(wanted.as_bytes());
        let at = names.chunks_exact(NAME_LEN).position(is);
        at.is_some_and(|at| features[2 + at / 32 * 4 + 2] >> (at % 32) & 1 == 1)
    };
    let udp = has("tx-udp-segmentation");
    Ok(Offloads::CHECKSUM
        .with_if(has("tx-tcp-segmentation"), Offloads::TSO4)
        .with_if(has("tx-tcp6-segmentation"), Offloads::TSO6)
        .with_if(has("tx-tcp-ecn-segmentation"), Offloads::ECN)
        .with_if(udp, Offloads::USO4.with(Offloads::USO6))
        .consistent())
}

/// SIOCETHTOOL: the answer takes the question's place.
fn ask(socket: BorrowedFd<'_>, name: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: an ifreq of zeros is a valid one: numbers, a pointer and an array of characters.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the kernel reads the question and writes an answer of the length that the question names, for which each
    // caller has made room; the words outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;
    use crate::testing::in_namespace;

    #[test]
    fn features_are_those_that_are_switched_on() {
        in_namespace(|| {
            let run = |program: &str, arguments: &str| {
                let status = Command::new(program).args(arguments.split(' ')).status().expect(program);
                assert!(status.success(), "{program} {arguments}");
            };
            let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
            run("ip", "link add v0 type veth peer name v1");
            assert_eq!(offloads(socket.as_fd(), "v0"), Offloads::ALL);
            run("ethtool", "-K v0 tx-udp-segmentation off tx-tcp6-segmentation off");
            let without = Offloads::USO4.with(Offloads::USO6).with(Offloads::TSO6);
            assert_eq!(offloads(socket.as_fd(), "v0"), Offloads::ALL.without(without));
            assert_eq!(offloads(socket.as_fd(), "nobody"), Offloads::CHECKSUM);
            assert_eq!(offloads(socket.as_fd(), "a-name-that-is-far-too-long"), Offloads::CHECKSUM);
        });
    }
}

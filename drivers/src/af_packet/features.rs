//! What an interface does with a frame that its sender left something to (ethtool's features): a packet socket that goes
//! around the queueing discipline goes around the kernel's own segmentation, too, so what the interface does not cut we do.

use std::os::fd::BorrowedFd;

use ringyard_dataplane::offload::Offloads;

use crate::sys::ethtool::Features;

/// The features of the interface `name`; the checksum is always the kernel's to complete.
pub(super) fn offloads(socket: BorrowedFd<'_>, name: &str) -> Offloads {
    let Ok(features) = Features::of(socket, name) else { return Offloads::CHECKSUM };
    let udp = features.has("tx-udp-segmentation");
    Offloads::CHECKSUM
        .with_if(features.has("tx-tcp-segmentation"), Offloads::TSO4)
        .with_if(features.has("tx-tcp6-segmentation"), Offloads::TSO6)
        .with_if(features.has("tx-tcp-ecn-segmentation"), Offloads::ECN)
        .with_if(udp, Offloads::USO4.with(Offloads::USO6))
        .consistent()
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

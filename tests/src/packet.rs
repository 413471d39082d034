//! Raw Ethernet frames on an interface inside a namespace, over an AF_PACKET socket. The socket hears whatever arrives
//! at the interface and what the namespace's own kernel sends there, but not what it sends itself. The kernel takes a
//! VLAN tag off before the socket sees a frame, so tagged frames can be sent and counted here, but whoever wants to read
//! their tags does so in a guest, on a VLAN interface: the host's kernel may not have any.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ringyard_benches::link_address::LinkAddress;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice::name_to_index, recv, send,
    socket_with,
};

use crate::error::{Doing, Error, Result};
use crate::netns::Netns;

/// A socket that sends and receives whole frames.
pub struct PacketSocket {
    socket: OwnedFd,
    interface: String,
}

impl PacketSocket {
    /// Opens a socket on `interface` in `netns`.
    pub fn open(netns: &Netns, interface: &str) -> Result<PacketSocket> {
        let socket = netns.enter(|| open_bound(interface))?;
        Ok(PacketSocket { socket, interface: interface.into() })
    }

    /// Sends one frame, from its destination address on.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent =
            send(&self.socket, frame, SendFlags::empty()).doing(format!("sending on {}", self.interface))?;
        if sent != frame.len() {
            return Err(Error::new(format!("{} took {sent} of {} bytes", self.interface, frame.len())));
        }
        Ok(())
    }

    /// The next frame; `None` when none comes within the time.
    pub fn receive(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        let doing = || format!("receiving on {}", self.interface);
        set_socket_timeout(&self.socket, Timeout::Recv, Some(within)).doing(doing())?;
        let mut frame = vec![0; FRAME_MAX];
        match recv(&self.socket, frame.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error).doing(doing()),
        }
    }
}

/// The frame with an 802.1Q tag for `vlan` after its addresses.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tag = [ETHERTYPE_VLAN.to_be_bytes(), vlan.to_be_bytes()].concat();
    [addresses, &tag, rest].concat()
}

/// Opens the socket in the calling thread's namespace. Nothing reaches it before it is bound: it starts with no protocol.
fn open_bound(interface: &str) -> Result<OwnedFd> {
    let doing = || format!("opening a packet socket on {interface}");
    let socket =
        socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None).doing(doing())?;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_SIZE).doing(doing())?;
    let index = name_to_index(&socket, interface).doing(doing())?;
    bind(&socket, &LinkAddress::every_frame_on(index)).doing(doing())?;
    Ok(socket)
}

/// 802.1Q.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// The longest that a tap or veth hands over: 64 KiB of a segmentation offload, and headers.
const FRAME_MAX: usize = 66 * 1024;
/// Room for what arrives while the test waits for a core; forced, past `net.core.rmem_max`.
const RECEIVE_BUFFER_SIZE: usize = 8 << 20;

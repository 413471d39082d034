//! Raw Ethernet frames on an interface inside a namespace, over an AF_PACKET socket. The socket hears whatever arrives
//! at the interface and what the namespace's own kernel sends there, but not what it sends itself. The kernel takes a
//! VLAN tag off before the socket sees a frame, so tagged frames can be sent and counted here, and whoever wants to read
//! their tags asks for them with the frame ([`PacketSocket::receive_tagged`]).

#![allow(unsafe_code)] // the tag comes in a control message that rustix does not know

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use ringyard_benches::bench::packet::set_packet_option;
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

    /// Opens a socket on `interface`, where the caller is.
    pub fn open_here(interface: &str) -> Result<PacketSocket> {
        Ok(PacketSocket { socket: open_bound(interface)?, interface: interface.into() })
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

    /// As [`PacketSocket::receive`], with the VLAN tag in its place that the kernel took off.
    pub fn receive_tagged(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        let doing = || format!("receiving on {}", self.interface);
        set_socket_timeout(&self.socket, Timeout::Recv, Some(within)).doing(doing())?;
        let mut frame = vec![0; FRAME_MAX];
        let mut aside = Aside { header: NO_HEADER, data: [0; 12] };
        let mut vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: all zero is a header of nothing, in which pointers are null and lengths zero.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        message.msg_control = (&raw mut aside).cast();
        message.msg_controllen = size_of::<Aside>() as _;
        // SAFETY: the message names the frame's memory and `aside` with their lengths, and both outlive the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error).doing(doing()),
            };
        };
        frame.truncate(len);
        if let Some(tag) = aside.tag().filter(|_| len >= 12) {
            frame.splice(12..12, tag);
        }
        Ok(Some(frame))
    }
}

/// A control message with a `struct tpacket_auxdata`.
#[repr(C)]
struct Aside {
    header: libc::cmsghdr,
    /// As 16-bit words: the frame's status and lengths (32 bits each), two offsets, the tag and its type.
    data: [u16; 12],
}

impl Aside {
    /// The tag that was taken off.
    fn tag(&self) -> Option<[u8; 4]> {
        let is_ours = (self.header.cmsg_level, self.header.cmsg_type)
            == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            && self.header.cmsg_len > 0;
        let [low, high, .., tci, tpid] = *self.data.first_chunk::<10>()?;
        let status = u32::from_ne_bytes([low.to_ne_bytes(), high.to_ne_bytes()].concat().try_into().ok()?);
        if !is_ours || status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { ETHERTYPE_VLAN } else { tpid };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
        Some([a, b, c, d])
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
    set_packet_option(&socket, libc::PACKET_AUXDATA).doing(doing())?;
    let index = name_to_index(&socket, interface).doing(doing())?;
    bind(&socket, &LinkAddress::every_frame_on(index)).doing(doing())?;
    Ok(socket)
}

const NO_HEADER: libc::cmsghdr = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
/// 802.1Q.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// The longest that a tap or veth hands over: 64 KiB of a segmentation offload, and headers.
const FRAME_MAX: usize = 66 * 1024;
/// Room for what arrives while the test waits for a core; forced, past `net.core.rmem_max`.
const RECEIVE_BUFFER_SIZE: usize = 8 << 20;

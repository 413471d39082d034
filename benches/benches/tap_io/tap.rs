//! A tap with a virtio-net header, and a packet socket on its other side that fills it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

/// Bytes of the virtio-net header in front of each frame.
pub const NET_LEN: usize = 10;

/// An interface that is up, and says nothing by itself.
pub struct Tap {
    pub file: File,
    name: String,
}

impl Tap {
    pub fn open(name: &str) -> io::Result<Tap> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        // SAFETY: an ifreq of zeros is a valid one: numbers and an array of characters.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        // SAFETY: TUNSETIFF takes an ifreq, which lives through the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4;
        // SAFETY: TUNSETOFFLOAD takes a number, no memory.
        check(unsafe {
            libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads))
        })?;
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        let up = Command::new("ip").args(["link", "set", name, "mtu", "1500", "up"]).status()?;
        if !up.success() {
            return Err(io::Error::other("ip link set failed"));
        }
        Ok(Tap { file, name: name.into() })
    }
}

/// A length of frames; `segment` is not 0 when they are to be cut.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub len: usize,
    pub segment: u16,
}

/// A packet socket that puts frames where a reader of the tap finds them.
pub struct Source {
    socket: OwnedFd,
    pub kind: Kind,
    /// Net header and frame.
    pub record: Vec<u8>,
}

impl Source {
    pub fn open(tap: &Tap, kind: Kind) -> io::Result<Source> {
        // SAFETY: numbers only.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: nobody else has this new descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for (level, option, value) in [
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 1 << 25),
        ] {
            let value: libc::c_int = value;
            let len = size_of_val(&value) as libc::socklen_t;
            // SAFETY: the value is an int, whose size is given.
            check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) })?;
        }
        // SAFETY: an address of zeros is a valid one: numbers only.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = ifindex(&tap.name)?;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address has the size that is given.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), len) })?;
        Ok(Source { socket, kind, record: record(kind) })
    }

    /// Lets the tap have `count` frames.
    pub fn fill(&self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            rustix::net::send(&self.socket, &self.record, rustix::net::SendFlags::empty())?;
        }
        Ok(())
    }
}

/// The index of an interface of this thread's namespace; /sys may show another's.
fn ifindex(name: &str) -> io::Result<libc::c_int> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: a string that ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index as libc::c_int),
    }
}

/// TCP over IPv4 between two strangers: no host takes it.
fn record(kind: Kind) -> Vec<u8> {
    let mut record = vec![0; NET_LEN + kind.len];
    let (net, frame) = record.split_at_mut(NET_LEN);
    if kind.segment > 0 {
        let [low, high] = kind.segment.to_le_bytes();
        net.copy_from_slice(&[1, 1, 54, 0, low, high, 34, 0, 16, 0]);
    }
    frame[..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0]);
    let total = (kind.len - 14) as u16;
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46] = 5 << 4;
    record
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

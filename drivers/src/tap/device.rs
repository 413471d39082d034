//! The tun driver's character device: the ioctls of `linux/if_tun.h`, and a frame in one `writev`.

#![allow(unsafe_code)] // ioctls that rustix does not have, and writev from guest memory

use std::ffi::{CStr, c_int, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ringyard_dataplane::frame::{Frame, HEADER_LEN};
use rustix::fs::{Mode, OFlags};

use super::OpenError;

const TUN: &str = "/dev/net/tun";
/// The kernel's default size of the virtio-net header, without `num_buffers`.
const NET_HEADER_LEN: usize = 10;
/// Body pieces that one `writev` takes here; Linux takes 1024 in all.
const PIECES_MAX: usize = 62;

/// Whether frames carry a virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetHeader {
    /// If the kernel can.
    IfSupported,
    /// Or else fail.
    Required,
    /// No.
    Off,
}

/// One queue of a tap interface.
pub(super) struct Device {
    fd: OwnedFd,
    ifname: String,
    net_header_len: usize,
}

impl Device {
    /// Opens a queue of the interface `ifname`, made if it is not there.
    pub(super) fn open(
        ifname: Option<&str>,
        multi_queue: bool,
        header: VnetHeader,
    ) -> Result<Device, OpenError> {
        let fd = rustix::fs::open(TUN, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| OpenError::new(format!("could not open {TUN}"), error.into()))?;
        let mut features: c_uint = 0;
        if ioctl(&fd, libc::TUNGETFEATURES, &mut features).is_err() {
            features = 0;
        }
        let supports = |flag: c_int| features & flag as c_uint != 0;
        if header == VnetHeader::Required && !supports(libc::IFF_VNET_HDR) {
            return Err(OpenError(
                "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available".into(),
            ));
        }
        if multi_queue && !supports(libc::IFF_MULTI_QUEUE) {
            return Err(OpenError(
                "multiqueue required, but no kernel support for IFF_MULTI_QUEUE available".into(),
            ));
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if header != VnetHeader::Off && supports(libc::IFF_VNET_HDR) {
            flags |= libc::IFF_VNET_HDR;
        }
        if multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let name = ifname.unwrap_or("tap%d");
        let failed = |error| OpenError::new(format!("could not configure {TUN} ({name})"), error);
        let mut request = request(name).map_err(failed)?;
        request.ifr_ifru.ifru_flags = flags as i16;
        ioctl(&fd, libc::TUNSETIFF, &mut request).map_err(failed)?;
        Device::set_up(fd, &request, flags).map_err(failed)
    }

    /// A queue that somebody else opened.
    pub(super) fn take_over(fd: OwnedFd) -> Result<Device, OpenError> {
        let number = fd.as_raw_fd();
        let failed = |error| OpenError::new(format!("Unable to query TUNGETIFF on FD {number}"), error);
        let mut request = request("").map_err(failed)?;
        ioctl(&fd, libc::TUNGETIFF, &mut request).map_err(failed)?;
        // SAFETY: the kernel filled the flags in; they are a plain number in any case.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & libc::IFF_TAP == 0 {
            return Err(OpenError(format!("FD {number} is a tun device, and a tap is needed")));
        }
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| failed(error.into()))?;
        Device::set_up(fd, &request, flags).map_err(failed)
    }

    fn set_up(fd: OwnedFd, request: &libc::ifreq, flags: c_int) -> io::Result<Device> {
        let mut net_header_len = 0;
        if flags & libc::IFF_VNET_HDR != 0 {
            net_header_len = NET_HEADER_LEN;
            ioctl(&fd, libc::TUNSETVNETHDRSZ, &mut (NET_HEADER_LEN as c_int))?;
            set_offload(&fd, 0)?;
        }
        // SAFETY: the kernel ends the name with a zero within the array; `request` filled it with zeros.
        let ifname = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
        Ok(Device { fd, ifname: ifname.to_string_lossy().into_owned(), net_header_len })
    }

    /// The interface's name.
    pub(super) fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Bytes of virtio-net header in front of each frame: 0 or 10.
    pub(super) fn net_header_len(&self) -> usize {
        self.net_header_len
    }

    /// Limits what the kernel queues for this writer.
    pub(super) fn set_sndbuf(&self, bytes: i32) -> io::Result<()> {
        ioctl(&self.fd, libc::TUNSETSNDBUF, &mut { bytes })
    }

    /// Reads one net header and frame.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Writes one frame behind an empty net header, from where it lies. `bounce` has room for any frame and is used for
    /// one of more than 62 pieces.
    pub(super) fn write(&self, frame: &Frame<'_>, bounce: &mut [u8]) -> io::Result<()> {
        if frame.body().len() > PIECES_MAX {
            let len = frame.copy_to(bounce).ok_or(io::ErrorKind::InvalidInput)?;
            return self
                .write_pieces(&bounce[..len.min(HEADER_LEN)], &[(&bounce[len.min(HEADER_LEN)..len]).into()]);
        }
        let mut pieces = [Stretch::EMPTY; PIECES_MAX];
        for (stretch, piece) in pieces.iter_mut().zip(frame.body()) {
            *stretch = Stretch { start: piece.start(), len: piece.len() };
        }
        self.write_pieces(frame.header(), &pieces[..frame.body().len()])
    }

    fn write_pieces(&self, header: &[u8], body: &[Stretch]) -> io::Result<()> {
        let net_header = [0u8; NET_HEADER_LEN];
        let net_header = &net_header[..self.net_header_len];
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES_MAX + 2];
        let stretches = [net_header.into(), header.into()];
        for (vector, stretch) in vectors.iter_mut().zip(stretches.iter().chain(body)) {
            *vector = libc::iovec { iov_base: stretch.start.cast_mut().cast(), iov_len: stretch.len };
        }
        let count = (stretches.len() + body.len()) as c_int;
        // SAFETY: every vector is readable while the frame is lent, whatever its owner writes there; none is written to.
        let written = unsafe { libc::writev(self.fd.as_raw_fd(), vectors.as_ptr(), count) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Memory to be written out.
#[derive(Clone, Copy)]
struct Stretch {
    start: *const u8,
    len: usize,
}

impl Stretch {
    const EMPTY: Stretch = Stretch { start: std::ptr::null(), len: 0 };
}

impl From<&[u8]> for Stretch {
    fn from(bytes: &[u8]) -> Stretch {
        Stretch { start: bytes.as_ptr(), len: bytes.len() }
    }
}

/// A request for the interface `name`, which must be shorter than 16 bytes.
fn request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an ifreq of zeros is a valid one: numbers and an array of characters.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl<T>(fd: &OwnedFd, code: impl Into<c_ulong>, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller passes the type that the request takes, exclusively borrowed for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code.into(), std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// TUNSETOFFLOAD takes its flags by value.
fn set_offload(fd: &OwnedFd, flags: c_ulong) -> io::Result<()> {
    // SAFETY: a number, no memory.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), c_ulong::from(libc::TUNSETOFFLOAD), flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

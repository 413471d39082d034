//! One AF_XDP socket: its options, its rings, and what wakes the kernel.

#![allow(unsafe_code)] // socket options and addresses that no crate in use has

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::ring::{Consumer, Producer};
use super::umem::{CHUNK_LEN, CHUNKS_IN, CHUNKS_OUT, UMEM_LEN, Umem};
use crate::message;

/// What a socket is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    /// The interface's number.
    pub(super) interface: u32,
    /// The queue of it.
    pub(super) queue: u32,
    /// Whether frames are to be copied even where the driver could spare that.
    pub(super) copy: bool,
}

/// A socket that is bound, without its rings.
pub(super) struct Socket {
    fd: OwnedFd,
    /// Frames may lie in several chunks.
    several: bool,
}

/// The rings of a socket.
pub(super) struct Rings {
    /// Chunks for frames to come in by.
    pub(super) fill: Producer<u64>,
    /// Frames that came in.
    pub(super) received: Consumer<libc::xdp_desc>,
    /// Frames to go out.
    pub(super) transmit: Producer<libc::xdp_desc>,
    /// Chunks of frames that went out.
    pub(super) completed: Consumer<u64>,
}

/// What came of a call that wakes the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// It looked at all there is.
    All,
    /// It took some, or none now: it is to be woken again.
    Part,
    /// The interface is down or gone.
    Gone,
}

/// What went wrong while a socket was set up: what was being done, and why it failed.
pub(super) struct Failed(pub(super) &'static str, pub(super) io::Error);

impl Socket {
    /// A new socket, not bound.
    pub(super) fn create() -> io::Result<OwnedFd> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: numbers only.
        let fd = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Makes rings for `fd`, which is not bound, over `umem`, and binds it.
    pub(super) fn bind(fd: OwnedFd, umem: &Umem, binding: Binding) -> Result<(Socket, Rings), Failed> {
        let doing = |what| move |error| Failed(what, error);
        let family: c_int = get(&fd, libc::SOL_SOCKET, libc::SO_DOMAIN).map_err(doing("looking at"))?;
        if family != libc::AF_XDP {
            return Err(Failed("looking at", io::Error::other("the descriptor is no AF_XDP socket")));
        }
        let registration = libc::xdp_umem_reg {
            addr: umem.address(),
            len: UMEM_LEN as u64,
            chunk_size: CHUNK_LEN as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &registration).map_err(doing("registering the memory of"))?;
        let rings = Rings::make(&fd).map_err(doing("making the rings of"))?;
        let several = bind(&fd, binding).map_err(doing("binding"))?;
        set_buffers(&fd);
        Ok((Socket { fd, several }, rings))
    }

    /// Whether frames may lie in several chunks.
    pub(super) fn takes_several(&self) -> bool {
        self.several
    }

    /// Has the kernel send what stands in the transmit ring.
    pub(super) fn send(&self) -> Woken {
        // SAFETY: no memory is passed.
        woken(unsafe { message::send(self.fd.as_fd(), &[]) })
    }

    /// Has the kernel look at the fill ring.
    pub(super) fn receive(&self) -> Woken {
        woken(message::receive(self.fd.as_fd(), &mut [], 0))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Rings {
    fn make(fd: &OwnedFd) -> io::Result<Rings> {
        for (ring, places) in [
            (libc::XDP_UMEM_FILL_RING, CHUNKS_IN),
            (libc::XDP_UMEM_COMPLETION_RING, CHUNKS_OUT),
            (libc::XDP_RX_RING, CHUNKS_IN),
            (libc::XDP_TX_RING, CHUNKS_OUT),
        ] {
            set(fd, ring, &(places as c_int))?;
        }
        let offsets: libc::xdp_mmap_offsets = get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let (fd, chunks_in, chunks_out) = (fd.as_fd(), CHUNKS_IN as u32, CHUNKS_OUT as u32);
        let (rx, tx) = (libc::XDP_PGOFF_RX_RING as u64, libc::XDP_PGOFF_TX_RING as u64);
        Ok(Rings {
            fill: Producer::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, offsets.fr, chunks_in)?,
            completed: Consumer::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, offsets.cr, chunks_out)?,
            received: Consumer::map(fd, rx, offsets.rx, chunks_in)?,
            transmit: Producer::map(fd, tx, offsets.tx, chunks_out)?,
        })
    }
}

/// Binds with frames in several chunks where the kernel (6.6) and the driver have them. Whether they do.
fn bind(fd: &OwnedFd, binding: Binding) -> io::Result<bool> {
    let copy = if binding.copy { libc::XDP_COPY } else { 0 };
    let plain = libc::XDP_USE_NEED_WAKEUP | copy;
    if bind_with(fd, binding, plain | libc::XDP_USE_SG).is_ok() {
        return Ok(true);
    }
    bind_with(fd, binding, plain)?;
    Ok(false)
}

fn bind_with(fd: &OwnedFd, binding: Binding, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: binding.interface,
        sxdp_queue_id: binding.queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of that length, read during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel have all chunks under way at once. Where it does not, frames wait in the ring.
fn set_buffers(fd: &OwnedFd) {
    let bytes = SEND_BUFFER_LEN as c_int;
    if set_at(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
        let _ = set_at(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
    }
    // Before Linux 6.17, 32 frames a call.
    let _ = set(fd, XDP_MAX_TX_SKB_BUDGET, &(CHUNKS_OUT as c_int));
}

fn woken(result: Result<usize, Errno>) -> Woken {
    match result {
        Ok(_) => Woken::All,
        Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Woken::Part,
        // A frame that the kernel could not make a packet of is gone; what stands behind it is still there.
        Err(Errno::OVERFLOW | Errno::INVAL | Errno::MSGSIZE) => Woken::Part,
        Err(_) => Woken::Gone,
    }
}

fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_XDP, option, value)
}

fn set_at<T>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (value, len) = ((&raw const *value).cast::<c_void>(), size_of::<T>() as libc::socklen_t);
    // SAFETY: each caller passes the type that the option has; it is read during the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get<T: Copy>(fd: &OwnedFd, level: c_int, option: c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `value` has.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &mut len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of::<T>() {
        return Err(io::Error::other("the kernel's rings have a form that is not known here"));
    }
    // SAFETY: numbers only, all of them written.
    Ok(unsafe { value.assume_init() })
}

/// Chunks, and what the kernel counts for each besides.
const SEND_BUFFER_LEN: usize = CHUNKS_OUT * (CHUNK_LEN + 1024);
/// Of `linux/if_xdp.h`, in which libc does not have it.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

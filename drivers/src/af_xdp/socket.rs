//! One AF_XDP socket: its options, its rings, and what wakes the kernel.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_domain};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::ring::{Consumer, Producer};
use super::umem::{CHUNK_LEN, CHUNKS_IN, CHUNKS_OUT, Umem};
use crate::sys::{address, message, option};

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
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(socket_with(FAMILY, SocketType::RAW, flags, None)?)
    }

    /// Makes rings for `fd`, which is not bound, over `umem`, and binds it.
    pub(super) fn bind(fd: OwnedFd, umem: &Umem, binding: Binding) -> Result<(Socket, Rings), Failed> {
        let doing = |what| move |error| Failed(what, error);
        let family = socket_domain(&fd).map_err(|error| Failed("looking at", error.into()))?;
        if family != FAMILY {
            return Err(Failed("looking at", io::Error::other("the descriptor is no AF_XDP socket")));
        }
        umem.register(&fd).map_err(|error| Failed("registering the memory of", error.into()))?;
        let rings = Rings::make(&fd).map_err(doing("making the rings of"))?;
        let several = bind(&fd, binding).map_err(|error| Failed("binding", error.into()))?;
        set_buffers(&fd);
        Ok((Socket { fd, several }, rings))
    }

    /// Whether frames may lie in several chunks.
    pub(super) fn takes_several(&self) -> bool {
        self.several
    }

    /// Has the kernel send what stands in the transmit ring.
    pub(super) fn send(&self) -> Woken {
        woken(message::send(self.fd.as_fd(), &[]))
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
            (option::XDP_FILL_RING, CHUNKS_IN),
            (option::XDP_COMPLETION_RING, CHUNKS_OUT),
            (option::XDP_RX_RING, CHUNKS_IN),
            (option::XDP_TX_RING, CHUNKS_OUT),
        ] {
            option::set(fd, ring, places as c_int)?;
        }
        let offsets = option::get(fd, option::XDP_MMAP_OFFSETS).map_err(|error| match error {
            Errno::MSGSIZE => io::Error::other("the kernel's rings have a form that is not known here"),
            error => error.into(),
        })?;
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
fn bind(fd: &OwnedFd, binding: Binding) -> Result<bool, Errno> {
    let copy = if binding.copy { libc::XDP_COPY } else { 0 };
    let plain = libc::XDP_USE_NEED_WAKEUP | copy;
    if bind_with(fd, binding, plain | libc::XDP_USE_SG).is_ok() {
        return Ok(true);
    }
    bind_with(fd, binding, plain)?;
    Ok(false)
}

fn bind_with(fd: &OwnedFd, binding: Binding, flags: u16) -> Result<(), Errno> {
    rustix::net::bind(fd, &address::xdp(binding.interface, binding.queue, flags))
}

/// Lets the kernel have all chunks under way at once. Where it does not, frames wait in the ring.
fn set_buffers(fd: &OwnedFd) {
    if set_socket_send_buffer_size_force(fd, SEND_BUFFER_LEN).is_err() {
        let _ = set_socket_send_buffer_size(fd, SEND_BUFFER_LEN);
    }
    // Before Linux 6.17, 32 frames a call.
    let _ = option::set(fd, option::XDP_SEND_MAX, CHUNKS_OUT as c_int);
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

const FAMILY: AddressFamily = AddressFamily::from_raw(libc::AF_XDP as u16);
/// Chunks, and what the kernel counts for each besides.
const SEND_BUFFER_LEN: usize = CHUNKS_OUT * (CHUNK_LEN + 1024);

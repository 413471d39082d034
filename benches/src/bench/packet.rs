//! A packet socket (packet(7)) on an interface, in another network namespace if asked: a tap's other side. Frames go
//! and come in batches of one system call.

#![allow(unsafe_code)] // sendmmsg and recvmmsg take arrays of pointers, and no crate of ours wraps them

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::frame::{SIZE_MAX, Shape, Stamp};
use crate::error::{Doing, Error, Result};
use crate::link_address::LinkAddress;

/// Frames of one system call.
pub const BATCH: usize = 64;

/// One interface's socket with the memory for a batch each way.
pub struct PacketPort {
    socket: OwnedFd,
    interface: String,
    send: Box<Batch>,
    receive: Box<Batch>,
}

impl PacketPort {
    /// Opens `interface`, in the namespace of that name below /run/netns if there is one. Needs CAP_NET_RAW there.
    pub fn open(netns: Option<&str>, interface: &str) -> Result<PacketPort> {
        let socket = match netns {
            None => open_bound(interface)?,
            Some(netns) => open_in(netns, interface)?,
        };
        let (send, receive) = (Batch::new(), Batch::new());
        Ok(PacketPort { socket, interface: interface.into(), send, receive })
    }

    /// Sends frames of `shape` numbered from `first` on, `count` of them at most [`BATCH`]. How many the kernel took.
    pub fn send(&mut self, shape: &mut Shape, first: Stamp, count: usize) -> Result<usize> {
        let count = count.min(BATCH);
        for place in 0..count {
            let sequence = first.sequence + place as u64;
            let stamp = Stamp { sequence, ..first }.word();
            self.send.set(place, shape.frame(sequence).stamped(stamp));
        }
        self.send_batch(count)
    }

    /// Sends one frame. Whether the kernel took it.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<bool> {
        self.send.set(0, frame);
        Ok(self.send_batch(1)? == 1)
    }

    /// Shows up to a batch of received frames to `take`. Returns how many.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<usize> {
        self.receive.all_room();
        let socket = self.socket.as_raw_fd();
        let headers = self.receive.headers(BATCH);
        // SAFETY: every header points to one vector, and every vector to memory of the batch of its length.
        let got = unsafe {
            libc::recvmmsg(
                socket,
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let got = self.outcome(got, "receiving on")?;
        for place in 0..got {
            take(self.receive.frame(place));
        }
        Ok(got)
    }

    fn send_batch(&mut self, count: usize) -> Result<usize> {
        let socket = self.socket.as_raw_fd();
        let headers = self.send.headers(count);
        // SAFETY: as in `receive`; the kernel only reads.
        let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        self.outcome(sent, "sending on")
    }

    /// A full queue is no error, and neither is an interface whose other side is away for a moment.
    fn outcome(&self, count: libc::c_int, doing: &str) -> Result<usize> {
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => Ok(0),
            _ => Err(error).doing(format!("{doing} {}", self.interface)),
        }
    }
}

/// Buffers, and the vectors and headers that tell the kernel of them.
struct Batch {
    bytes: Vec<[u8; SIZE_MAX]>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    fn new() -> Box<Batch> {
        // SAFETY: all of a header's members may be zero.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Batch {
            bytes: vec![[0; SIZE_MAX]; BATCH],
            vectors: vec![vector; BATCH],
            headers: vec![header; BATCH],
        })
    }

    fn set(&mut self, place: usize, frame: &[u8]) {
        self.bytes[place][..frame.len()].copy_from_slice(frame);
        self.vectors[place].iov_len = frame.len();
    }

    fn all_room(&mut self) {
        self.vectors.iter_mut().for_each(|vector| vector.iov_len = SIZE_MAX);
    }

    /// The first `count` headers, each with its vector and that with its buffer.
    fn headers(&mut self, count: usize) -> &mut [libc::mmsghdr] {
        let parts = self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.bytes);
        for ((header, vector), bytes) in parts.take(count) {
            vector.iov_base = bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        &mut self.headers[..count]
    }

    fn frame(&self, place: usize) -> &[u8] {
        let len = (self.headers[place].msg_len as usize).min(SIZE_MAX);
        &self.bytes[place][..len]
    }
}

fn open_in(netns: &str, interface: &str) -> Result<OwnedFd> {
    let path = Path::new("/run/netns").join(netns);
    let file = File::open(&path).doing(format!("opening {}", path.display()))?;
    // A thread's namespace is changed for good, so it is one that ends.
    let entered = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .doing(format!("entering the namespace {netns}"))?;
        open_bound(interface)
    };
    thread::scope(|scope| scope.spawn(entered).join())
        .unwrap_or_else(|_| Err(Error::new(format!("the thread in {netns} panicked"))))
}

/// Opens a socket of whole frames on `interface`, in the calling thread's namespace; it never waits. Nothing reaches it
/// before it is bound: it starts with no protocol.
pub fn open_bound(interface: &str) -> Result<OwnedFd> {
    let doing = || format!("opening a packet socket on {interface}");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None).doing(doing())?;
    // Forced past net.core.rmem_max where we may, for what arrives while the generator is busy.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN).doing(doing())?;
    }
    for option in [libc::PACKET_IGNORE_OUTGOING, libc::PACKET_QDISC_BYPASS] {
        set_packet_option(&socket, option).doing(doing())?;
    }
    let index = name_to_index(&socket, interface).doing(doing())?;
    bind(&socket, &LinkAddress::every_frame_on(index)).doing(doing())?;
    Ok(socket)
}

/// Switches an option of a packet socket on: one of packet(7) that is a number.
pub fn set_packet_option(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives on the stack for the length of the call, and its length is its own.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), len)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const RECEIVE_BUFFER_LEN: usize = 16 << 20;

//! Datagrams by the batch: buffers, and what tells `sendmmsg` and `recvmmsg` of them.

#![allow(unsafe_code)] // both calls take arrays of pointers, and no crate of ours wraps them

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Buffers of one size with a header, a vector and room for one control message each.
pub struct Batch {
    bytes: Vec<u8>,
    size: usize,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

/// A control message with a number in it: the segment length of UDP_SEGMENT (2 bytes) or UDP_GRO (4 bytes).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Control {
    header: libc::cmsghdr,
    value: u64,
}

impl Batch {
    /// `count` buffers of `size` bytes.
    pub fn new(count: usize, size: usize) -> Batch {
        Batch {
            bytes: vec![0; count * size],
            size,
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; count],
            controls: vec![Control::none(); count],
            headers: vec![empty_header(); count],
        }
    }

    pub fn buffer(&mut self, place: usize) -> &mut [u8] {
        &mut self.bytes[place * self.size..][..self.size]
    }

    /// The datagram received there, as much of it as there was room for.
    pub fn received(&mut self, place: usize) -> &mut [u8] {
        let len = self.received_len(place).min(self.vectors[place].iov_len);
        &mut self.bytes[place * self.size..][..len]
    }

    /// The length of the datagram there, with MSG_TRUNC also of what did not fit.
    pub fn received_len(&self, place: usize) -> usize {
        self.headers[place].msg_len as usize
    }

    /// How long the datagrams are that came as one there; all of it, if the kernel says nothing.
    pub fn segment_len(&self, place: usize) -> usize {
        let control = &self.controls[place];
        let told = self.headers[place].msg_hdr.msg_controllen > 0
            && (control.header.cmsg_level, control.header.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
        if told { control.value as u32 as usize } else { self.received_len(place) }
    }

    /// Receives into every buffer's first `room` bytes. Returns how many datagrams came; none is 0.
    pub fn receive(&mut self, socket: &OwnedFd, room: usize, flags: libc::c_int) -> io::Result<usize> {
        let room = room.min(self.size);
        let parts = self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.controls);
        for (((header, vector), control), bytes) in parts.zip(self.bytes.chunks_exact_mut(self.size)) {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room };
            // Not where the last batch went: the kernel would write the sources there.
            header.msg_hdr.msg_name = std::ptr::null_mut();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        let flags = flags | libc::MSG_DONTWAIT;
        // SAFETY: every header points to a vector and a control of this batch, every vector to a buffer with its room.
        let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, std::ptr::null_mut()) };
        outcome(got)
    }

    /// Sends the buffers' first `len` bytes from `first` up to `end`, one datagram each. Returns how many were taken.
    pub fn send(&mut self, socket: &OwnedFd, first: usize, end: usize, len: usize) -> io::Result<usize> {
        for place in first..end {
            self.vectors[place] = libc::iovec { iov_base: self.pointer(place), iov_len: len };
            self.headers[place] = header_of(&mut self.vectors[place..=place], None);
        }
        send(socket, &mut self.headers[first..end])
    }

    /// Sends what was received on to `name`, from `first` up to `end`.
    pub fn send_received(
        &mut self,
        socket: &OwnedFd,
        name: &[u8],
        first: usize,
        end: usize,
    ) -> io::Result<usize> {
        for place in first..end {
            let iov_len = self.received_len(place);
            self.vectors[place] = libc::iovec { iov_base: self.pointer(place), iov_len };
            self.headers[place] = header_of(&mut self.vectors[place..=place], None);
            set_name(&mut self.headers[place], name);
            // For another attempt, if this one is not taken.
            self.headers[place].msg_len = iov_len as u32;
        }
        send(socket, &mut self.headers[first..end])
    }

    /// Sends the first `count` buffers' first `len` bytes as one that the kernel cuts. Returns how many were taken.
    pub fn send_as_one(&mut self, socket: &OwnedFd, count: usize, len: usize) -> io::Result<usize> {
        for place in 0..count {
            self.vectors[place] = libc::iovec { iov_base: self.pointer(place), iov_len: len };
        }
        self.controls[0] = Control::segments(len);
        let header = header_of(&mut self.vectors[..count], Some(&mut self.controls[0]));
        Ok(if send(socket, &mut [header])? == 1 { count } else { 0 })
    }

    fn pointer(&mut self, place: usize) -> *mut libc::c_void {
        self.buffer(place).as_mut_ptr().cast()
    }
}

impl Control {
    pub fn none() -> Control {
        let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
        Control { header, value: 0 }
    }

    /// Cuts what is sent into datagrams of `len` bytes.
    pub fn segments(len: usize) -> Control {
        let cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        let header = libc::cmsghdr { cmsg_len, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        // The number is the first two bytes, however the machine orders them.
        let mut value = [0; 8];
        value[..2].copy_from_slice(&(len as u16).to_ne_bytes());
        Control { header, value: u64::from_ne_bytes(value) }
    }
}

/// The header of a datagram that lies in `vectors`; valid as long as they stay where they are.
pub fn header_of(vectors: &mut [libc::iovec], control: Option<&mut Control>) -> libc::mmsghdr {
    let mut header = empty_header();
    header.msg_hdr.msg_iov = vectors.as_mut_ptr();
    header.msg_hdr.msg_iovlen = vectors.len() as _;
    if let Some(control) = control {
        header.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
        header.msg_hdr.msg_controllen = size_of::<Control>() as _;
    }
    header
}

/// Where it goes: a `sockaddr` that stays where it is, or nothing for a socket that is connected.
pub fn set_name(header: &mut libc::mmsghdr, name: &[u8]) {
    if !name.is_empty() {
        header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = name.len() as u32;
    }
}

/// Sends datagrams whose headers came from [`header_of`]. Returns how many were taken.
pub fn send(socket: &OwnedFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let (pointer, count) = (headers.as_mut_ptr(), headers.len() as u32);
    // SAFETY: the callers keep what the headers point to; the kernel only reads it.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), pointer, count, libc::MSG_DONTWAIT) };
    outcome(sent)
}

/// Switches an option on, or sets it.
pub fn set_option(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives on the stack for the length of the call, and its length is its own.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all zero is a header of nothing, in which pointers are null and lengths zero.
    unsafe { std::mem::zeroed() }
}

/// A full or an empty queue is no error, and neither is a peer that is not there yet.
fn outcome(count: libc::c_int) -> io::Result<usize> {
    if let Ok(count) = usize::try_from(count) {
        return Ok(count);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ECONNREFUSED | libc::ENOTCONN) => Ok(0),
        _ => Err(error),
    }
}

/// Datagrams of one system call.
pub const BATCH: usize = 64;

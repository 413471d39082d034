//! Datagrams by recvmmsg(2), many in one call, with what the kernel says of each.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{ptr, slice};

use libc::{iovec, mmsghdr, msghdr, sockaddr_storage};
use rustix::io::Errno;

use super::checked;

/// Room for the control messages of one datagram.
const CONTROL_WORDS: usize = 16;

/// What the call wants besides the memory that datagrams go to, a place for each of `N` slots.
pub(crate) struct Incoming<const N: usize> {
    messages: Box<[mmsghdr; N]>,
    vectors: Box<[iovec; N]>,
    names: Box<[sockaddr_storage; N]>,
    controls: Box<[[u64; CONTROL_WORDS]; N]>,
}

// SAFETY: the pointers in it are set anew before each call, which is made by whoever has it exclusively, and mean nothing
// between calls.
unsafe impl<const N: usize> Send for Incoming<N> {}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Datagrams, at most.
    pub(crate) count: usize,
    /// Bytes of a slot.
    pub(crate) slot_len: usize,
    /// Who sent them.
    pub(crate) with_source: bool,
    /// How many were put together (UDP_GRO).
    pub(crate) with_control: bool,
}

/// What the kernel says of one slot.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// Bytes in it; those of a datagram that was cut, too.
    pub(crate) len: usize,
    /// Bytes of each datagram in it but the last; as many as `len` if it is one.
    pub(crate) segment_len: usize,
    /// Bytes of its source's address.
    pub(crate) source_len: usize,
    /// The kernel had more, of it or of what it says about it.
    pub(crate) cut: bool,
}

impl<const N: usize> Incoming<N> {
    pub(crate) fn new() -> Incoming<N> {
        // SAFETY: numbers and pointers, for which zeros are values.
        let messages = Box::new(unsafe { mem::zeroed() });
        // SAFETY: as above.
        let vectors = Box::new(unsafe { mem::zeroed() });
        // SAFETY: as above.
        let names = Box::new(unsafe { mem::zeroed() });
        Incoming { messages, vectors, names, controls: Box::new([[0; CONTROL_WORDS]; N]) }
    }

    /// Reads datagrams, a slot of `memory` each, without waiting. How many, at least 1.
    pub(crate) fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [u8],
        wanted: Wanted,
    ) -> Result<usize, Errno> {
        let slots = memory.chunks_exact_mut(wanted.slot_len).take(wanted.count);
        let mut count = 0;
        for (at, slot) in slots.enumerate() {
            self.vectors[at] = iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut self.messages[at].msg_hdr;
            header.msg_iov = &mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            (header.msg_name, header.msg_namelen) = (ptr::null_mut(), 0);
            if wanted.with_source {
                header.msg_name = ptr::from_mut(&mut self.names[at]).cast();
                header.msg_namelen = size_of::<sockaddr_storage>() as u32;
            }
            (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
            if wanted.with_control {
                header.msg_control = self.controls[at].as_mut_ptr().cast();
                header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
            }
            count = at + 1;
        }
        let (messages, flags) = (self.messages.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: the first `count` of `messages` name memory that nobody else uses during the call, with its length: a
        // slot of `memory`, and a name and a control buffer of ours.
        let read = checked(unsafe {
            libc::recvmmsg(socket.as_raw_fd(), messages, count as u32, flags as _, ptr::null_mut())
        })?;
        Ok((read as usize).min(count))
    }

    /// What the last read put into slot `slot`.
    #[inline]
    pub(crate) fn told(&self, slot: usize) -> Told {
        let mmsghdr { msg_hdr: header, msg_len } = &self.messages[slot];
        let len = *msg_len as usize;
        let has_name = !header.msg_name.is_null();
        let name_len = (header.msg_namelen as usize).min(size_of::<sockaddr_storage>());
        let mut segment_len = len;
        if header.msg_controllen > 0 && !header.msg_control.is_null() {
            segment_len = segment_len_told(header).filter(|&told| told > 0).unwrap_or(len);
        }
        // Without its control message a slot of several would be taken for one.
        let lost_control = header.msg_flags & libc::MSG_CTRUNC != 0 && !header.msg_control.is_null();
        Told {
            len,
            segment_len: segment_len.min(len),
            source_len: if has_name { name_len } else { 0 },
            cut: header.msg_flags & libc::MSG_TRUNC != 0 || lost_control,
        }
    }

    /// The first `len` bytes of the address that the last read put with slot `slot`.
    #[inline]
    pub(crate) fn name(&self, slot: usize, len: usize) -> &[u8] {
        if len == 0 {
            return &[];
        }
        let name = ptr::from_ref(&self.names[slot]).cast();
        // SAFETY: a name is that much initialized memory, and any bytes are u8.
        unsafe { slice::from_raw_parts(name, len.min(size_of::<sockaddr_storage>())) }
    }
}

/// What UDP_GRO says of the datagrams in one slot.
fn segment_len_told(header: &msghdr) -> Option<usize> {
    // SAFETY: the kernel filled in as many bytes of control messages as `msg_controllen` says, in a buffer that is aligned.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie in the buffer as a whole.
        let found = unsafe { control.read() };
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
            // SAFETY: the data follow its header in the buffer.
            let data = unsafe { libc::CMSG_DATA(control) };
            // SAFETY: of this message they are an int.
            let told = unsafe { data.cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(told).ok();
        }
        // SAFETY: both are of the same buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

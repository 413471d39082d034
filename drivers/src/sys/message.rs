//! One message by the calls that take many. Workers may make few system calls, and need these two in any case; what they
//! cost more than those for one message (some 20 ns; Linux 6.18) is not found again in a burst.

use std::ffi::{c_int, c_uint};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use super::checked;
use super::vector::{Vector, as_raw};

/// Sends what `vectors` describe as one message; how many bytes of it went. Never waits.
pub(crate) fn send(socket: BorrowedFd<'_>, vectors: &[Vector<'_>]) -> Result<usize, Errno> {
    let mut message = empty();
    let (first, count) = as_raw(vectors);
    (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (first.cast_mut(), count as _);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: one message, whose vectors are readable; the kernel writes its length only.
    checked(unsafe { libc::sendmmsg(socket.as_raw_fd(), &raw mut message, 1, flags as _) })?;
    Ok(message.msg_len as usize)
}

/// Receives one message; its length, which with MSG_TRUNC may be more than `room` has. Never waits. An error that the
/// socket has kept comes first.
pub(crate) fn receive(socket: BorrowedFd<'_>, room: &mut [u8], flags: c_int) -> Result<usize, Errno> {
    let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut message = empty();
    (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut vector, 1);
    const ONE: c_uint = 1;
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: one message, whose vector is `room`, which is borrowed exclusively.
    checked(unsafe {
        libc::recvmmsg(socket.as_raw_fd(), &raw mut message, ONE, flags as _, ptr::null_mut())
    })?;
    Ok(message.msg_len as usize)
}

fn empty() -> libc::mmsghdr {
    // SAFETY: a header of zeros is a valid one: no name, no vectors, no control data.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_message_goes_and_comes_whole_and_a_longer_one_says_so() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets can be made");
        let parts = [&b"ab"[..], &b"cde"[..]];
        let vectors = parts.map(Vector::of);
        for (room_len, flags) in [(9, 0), (3, libc::MSG_TRUNC)] {
            assert_eq!(send(ours.as_fd(), &vectors), Ok(5));
            let mut room = vec![0; room_len];
            assert_eq!(receive(theirs.as_fd(), &mut room, flags), Ok(5));
            assert_eq!(room[..3], *b"abc");
        }
        assert_eq!(receive(theirs.as_fd(), &mut [0; 9], 0), Err(Errno::AGAIN));
        drop(theirs);
        assert!(send(ours.as_fd(), &vectors).is_err());
    }
}

//! Memory as a call takes it to read from, piece by piece (`struct iovec`), where a slice may not describe it: somebody else
//! may write there meanwhile.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use libc::iovec;
use ringyard_dataplane::offload::Payload;
use rustix::io::Errno;

use super::checked;

/// A stretch of memory that is readable during `'m`, whoever else writes there.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Vector<'m> {
    raw: iovec,
    memory: PhantomData<&'m [u8]>,
}

impl<'m> Vector<'m> {
    /// Of nothing.
    pub(crate) const EMPTY: Vector<'m> =
        Vector { raw: iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }, memory: PhantomData };

    /// Of these bytes.
    #[inline]
    pub(crate) fn of(bytes: &'m [u8]) -> Vector<'m> {
        Vector { raw: raw(bytes.as_ptr(), bytes.len()), memory: PhantomData }
    }

    /// Of the pieces of `payload`, which are readable as long as its frame is lent.
    #[inline]
    pub(crate) fn all_of(payload: &Payload<'m>) -> impl Iterator<Item = Vector<'m>> + use<'m> {
        payload.pieces().map(|piece| Vector { raw: raw(piece.start(), piece.len()), memory: PhantomData })
    }

    pub(super) fn raw(self) -> iovec {
        self.raw
    }
}

/// writev(2): writes what the vectors describe, to what takes it as a whole.
pub(crate) fn write_vectors(fd: impl AsFd, vectors: &[Vector<'_>]) -> Result<(), Errno> {
    let (first, count) = as_raw(vectors);
    // SAFETY: every vector is readable as long as it lives, whoever else writes there; none is written to.
    let written = unsafe { libc::writev(fd.as_fd().as_raw_fd(), first, count as i32) };
    checked(written as std::ffi::c_long).map(drop)
}

/// The same as the kernel takes them: how many from where on.
pub(super) fn as_raw(vectors: &[Vector<'_>]) -> (*const iovec, usize) {
    (vectors.as_ptr().cast(), vectors.len())
}

fn raw(start: *const u8, len: usize) -> iovec {
    iovec { iov_base: start.cast_mut().cast(), iov_len: len }
}

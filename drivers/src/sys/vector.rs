//! Memory as a call takes it to read from, piece by piece (`struct iovec`), where a slice may not describe it: somebody else
//! may write there meanwhile.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use libc::iovec;
use ringyard_dataplane::offload::{Payload, Pieces};
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
    pub(crate) fn all_of(payload: &Payload<'m>) -> Vectors<'m> {
        Vectors(payload.pieces())
    }

    /// Bytes.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.raw.iov_len
    }

    #[inline]
    pub(super) fn raw(self) -> iovec {
        self.raw
    }
}

/// Those of a payload.
pub(crate) struct Vectors<'m>(Pieces<'m>);

impl<'m> Iterator for Vectors<'m> {
    type Item = Vector<'m>;

    #[inline]
    fn next(&mut self) -> Option<Vector<'m>> {
        self.0.next().map(|piece| Vector { raw: raw(piece.start(), piece.len()), memory: PhantomData })
    }
}

/// A stretch of memory to copy to that is ours alone to write during `'m`, and that a kernel may see.
pub(crate) struct Room<'m> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'m mut [u8]>,
}

impl<'m> Room<'m> {
    /// The `len` bytes from `start` on.
    ///
    /// # Safety
    /// They are writable during `'m`, and nobody here reads or writes them otherwise.
    #[inline]
    pub(crate) unsafe fn at(start: *mut u8, len: usize) -> Room<'m> {
        Room { start, len, memory: PhantomData }
    }

    /// These bytes.
    #[cfg(test)]
    pub(crate) fn of(bytes: &'m mut [u8]) -> Room<'m> {
        Room { start: bytes.as_mut_ptr(), len: bytes.len(), memory: PhantomData }
    }

    /// Bytes that are left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the first bytes of `vector`, as many as there are and as there is room for, to the front, and takes both
    /// off.
    #[inline]
    pub(crate) fn take(&mut self, vector: &mut Vector<'_>) {
        let count = vector.len().min(self.len);
        let from = vector.raw.iov_base.cast::<u8>();
        // SAFETY: `from` is readable for as many bytes, whoever writes there, and `start` writable; what is ours alone to
        // write is not what others lend.
        unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), self.start, count) };
        vector.raw = raw(from.wrapping_add(count), vector.len() - count);
        (self.start, self.len) = (self.start.wrapping_add(count), self.len - count);
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

#[inline]
fn raw(start: *const u8, len: usize) -> iovec {
    iovec { iov_base: start.cast_mut().cast(), iov_len: len }
}

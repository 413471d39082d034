//! What the kernel says of files, byte for byte as it says it.

use std::ffi::{CStr, c_int, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::slice;

use rustix::io::Errno;

use super::checked;

/// fstatat(2): a `struct stat`.
pub(crate) fn stat(base: impl AsFd, path: &CStr, flags: c_int) -> Result<Vec<u8>, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    let base = base.as_fd().as_raw_fd();
    // SAFETY: a path that ends with a zero, and room for the structure.
    checked(unsafe { libc::fstatat(base, path.as_ptr(), stat.as_mut_ptr(), flags) })?;
    Ok(bytes(&stat))
}

/// statx(2): a `struct statx`.
pub(crate) fn statx(base: impl AsFd, path: &CStr, flags: c_int, mask: c_uint) -> Result<Vec<u8>, Errno> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let base = base.as_fd().as_raw_fd();
    // SAFETY: as above.
    checked(unsafe { libc::statx(base, path.as_ptr(), flags, mask, stat.as_mut_ptr()) })?;
    Ok(bytes(&stat))
}

/// All bytes of a structure, which were set to zero before the kernel wrote to it.
fn bytes<T>(structure: &MaybeUninit<T>) -> Vec<u8> {
    // SAFETY: initialized, gaps included: both callers begin with zeros.
    unsafe { slice::from_raw_parts(structure.as_ptr().cast(), size_of::<T>()) }.to_vec()
}

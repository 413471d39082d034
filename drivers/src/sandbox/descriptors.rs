//! Descriptors that a process was started with.

#![allow(unsafe_code)] // close_range(2), which no library has

use std::os::fd::{AsRawFd, BorrowedFd};

/// Closes all descriptors of this process but the standard ones and `kept`. To be called before there are others.
pub(crate) fn close_others(kept: [BorrowedFd<'_>; 2]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd() as u32);
    kept.sort_unstable();
    let [first, second] = kept;
    for (from, to) in [(3, first - 1), (first + 1, second - 1), (second + 1, u32::MAX)] {
        if from <= to {
            // SAFETY: numbers. Whoever made these descriptors was another program, so nobody here has them. A kernel
            // without this call leaves them open, as their maker did.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    }
}

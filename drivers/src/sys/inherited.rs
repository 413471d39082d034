//! Descriptors that this process was started with, known by their numbers.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{Errno, FdFlags, fcntl_getfd};

/// Looks at the descriptor `number`, whether or not it is open. `None`: it cannot be one.
pub(crate) fn look<T>(number: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: it is borrowed for this call only; one that is not open is a number that the kernel refuses.
    (number >= 0).then(|| look(unsafe { BorrowedFd::borrow_raw(number) }))
}

/// Takes the descriptor `number`, which whoever started this process has opened for it and told it of, and which therefore
/// nobody else here has; once.
///
/// Errors: it is not open, or was taken before.
pub(crate) fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let _flags: FdFlags = look(number, |fd| fcntl_getfd(fd)).unwrap_or(Err(Errno::BADF))?;
    if number <= libc::STDERR_FILENO || !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(Errno::BADF);
    }
    // SAFETY: it is open, and nobody has it, as above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

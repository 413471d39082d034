//! What happens when a front end truncates its memory file under us: SIGBUS, and nobody but that port is hurt.
//!
//! A file that cannot be sealed against shrinking can lose its pages while a worker copies. The handler finds the
//! address in a table of guarded mappings, puts empty pages in place of the whole mapping, says so, and returns: the copy
//! goes on, over zeros. The fast path pays nothing. Whoever serves the connection hears the bell and ends it.
//!
//! In the handler there are only loads and stores of atomics, `mmap` and `writev`. A SIGBUS anywhere else ends the process
//! as ever.

#![allow(unsafe_code)] // a signal handler, and what it maps

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use super::span::Span;

/// Mappings that can be guarded at one time, in the whole process.
pub const GUARDS_MAX: usize = 4096;

/// One guarded mapping. Written by whoever maps and unmaps; read by the handler, on any thread.
struct Slot {
    span: Span,
    /// Of the mapping that the span is, which does not end while the handler has found it: somebody is in there.
    bell: AtomicI32,
    /// Set by the handler, once.
    lost: AtomicBool,
}

#[cfg(not(loom))]
static SLOTS: [Slot; GUARDS_MAX] =
    [const { Slot { span: Span::new(), bell: AtomicI32::new(-1), lost: AtomicBool::new(false) } };
        GUARDS_MAX];
/// Models are of spans alone.
#[cfg(loom)]
static SLOTS: [Slot; 0] = [];

/// Keeps one mapping guarded. To be dropped before the mapping is.
pub(super) struct Guard {
    slot: &'static Slot,
    /// Kept open as long as the handler may write to it.
    _bell: Arc<OwnedFd>,
}

impl Guard {
    /// Guards `len` bytes at `start`; `bell` is an eventfd, added to when they are lost.
    ///
    /// Errors: the handler cannot be installed, or [`GUARDS_MAX`] mappings are guarded already.
    pub(super) fn new(start: *mut u8, len: usize, bell: Arc<OwnedFd>) -> io::Result<Guard> {
        install()?;
        let free = |slot: &&Slot| slot.span.take();
        let slot = SLOTS.iter().find(free).ok_or_else(|| io::Error::other("too many mappings"))?;
        slot.bell.store(bell.as_raw_fd(), Ordering::Relaxed);
        slot.lost.store(false, Ordering::Relaxed);
        slot.span.set(start.addr(), len);
        Ok(Guard { slot, _bell: bell })
    }

    /// Whether the file shrank and the memory is gone.
    pub(super) fn is_lost(&self) -> bool {
        // Relaxed: a hint; the bell, a system call, came after it.
        self.slot.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.span.clear();
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let result = INSTALLED.get_or_init(|| {
        // SAFETY: a sigaction of zeros is a valid one: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the action is whole, and its handler does only what a handler may.
        let result = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    });
    result.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_sigbus(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives the handler a siginfo (SA_SIGINFO).
    let info = unsafe { &*info };
    // SAFETY: for SIGBUS, the address is what the siginfo holds.
    let addr = unsafe { info.si_addr() }.addr();
    let guarded = SLOTS.iter().find_map(|slot| slot.span.find(addr).map(|range| (slot, range)));
    if !guarded.is_some_and(|(slot, range)| replace(slot, range)) {
        // Not ours: the instruction runs again, and this time it ends the process.
        // SAFETY: resetting a signal is allowed in a handler.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// Puts empty pages in place of the mapping. Whether it worked.
fn replace(slot: &Slot, (start, len): (usize, usize)) -> bool {
    let start = std::ptr::with_exposed_provenance_mut(start);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: always there: the thread's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno = unsafe { place.read() };
    // SAFETY: the range is one whole mapping of ours, which is not unmapped while it is guarded.
    let mapped = unsafe { libc::mmap(start, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    slot.lost.store(true, Ordering::Relaxed);
    let mut one = 1u64.to_ne_bytes();
    // As workers add to any eventfd: they may make no other call for that.
    let vector = libc::iovec { iov_base: one.as_mut_ptr().cast(), iov_len: one.len() };
    // SAFETY: eight bytes of the stack; the guard keeps the descriptor open, and it does not block.
    unsafe { libc::writev(slot.bell.load(Ordering::Relaxed), &raw const vector, 1) };
    // SAFETY: as above; whoever was interrupted finds what there was.
    unsafe { place.write(errno) };
    mapped != libc::MAP_FAILED
}

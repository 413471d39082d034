//! Lets a User Mode Linux guest run on hosts whose processors have more state than its kernel knows (AMX). It reads and
//! writes its processes' registers by PTRACE_GETREGSET and PTRACE_SETREGSET, with a buffer of its own size; the host lets
//! it read a part, and refuses to take back less than all. Preloaded, this hands on the part, and gives back the rest as
//! it was.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_long, c_void};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `struct iovec`.
#[repr(C)]
struct Buffer {
    start: *mut u8,
    len: usize,
}

const SYS_PTRACE: c_long = 101;
const PEEK: std::ops::RangeInclusive<c_int> = 1..=3;
const GETREGSET: c_int = 0x4204;
const SETREGSET: c_int = 0x4205;
const XSTATE: usize = 0x202;
/// More than any processor has.
const XSTATE_MAX: usize = 1 << 14;

/// Not on the stack, which is one of the guest kernel's, and smaller.
struct Scratch(UnsafeCell<[u8; XSTATE_MAX]>);

// SAFETY: the guest's kernel is one thread, and does not call ptrace out of a call of ptrace.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; XSTATE_MAX]));

/// In place of the C library's.
#[unsafe(no_mangle)]
extern "C" fn ptrace(request: c_int, process: c_int, addr: usize, data: *mut c_void) -> c_long {
    let ask = |request: c_int, data: *mut c_void| {
        // SAFETY: the arguments are those of the call that we stand in for, or a buffer of ours.
        unsafe { syscall(SYS_PTRACE, c_long::from(request), c_long::from(process), addr, data) }
    };
    if PEEK.contains(&request) {
        let mut word: c_long = 0;
        let failed = ask(request, (&raw mut word).cast());
        return if failed == 0 { word } else { failed };
    }
    if addr != XSTATE || !matches!(request, GETREGSET | SETREGSET) {
        return ask(request, data);
    }
    // SAFETY: as above, nobody else has it meanwhile.
    let bytes = unsafe { &mut *SCRATCH.0.get() };
    let mut all = Buffer { start: bytes.as_mut_ptr(), len: bytes.len() };
    let failed = ask(GETREGSET, (&raw mut all).cast());
    if failed != 0 {
        return failed;
    }
    // SAFETY: a `struct iovec` of the caller's.
    let part = unsafe { &mut *data.cast::<Buffer>() };
    let len = part.len.min(all.len);
    // SAFETY: the caller's buffer, as long as it says.
    let part_bytes = unsafe { std::slice::from_raw_parts_mut(part.start, len) };
    if request == GETREGSET {
        part_bytes.copy_from_slice(&bytes[..len]);
        part.len = len;
        return 0;
    }
    bytes[..len].copy_from_slice(part_bytes);
    ask(SETREGSET, (&raw mut all).cast())
}

//! Settings of glibc's allocator (mallopt(3)).

use std::thread;

/// Arenas a core that glibc makes of its own accord.
const ARENAS_A_CORE: usize = 8;

/// Gives `workers` threads that are about to start an arena each, besides the usual ones, and has no arena shrink.
pub(crate) fn give_arenas(workers: usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(cores * ARENAS_A_CORE + workers).unwrap_or(i32::MAX);
    // SAFETY: two numbers; no other thread allocates yet that would mind.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) };
}

//! What a worker may do: forward frames. A dozen system calls are enough for that, none of which opens, makes or finds
//! anything.
//!
//! The list is the union of what the data plane and the drivers say their hot halves call, each beside the code that does.
//! What libc tries besides is answered without being done: it has another way each time. Anything else fails, and what
//! only an intruder would try ends the process, since whoever runs code of its own here may read all that the process has.

use std::collections::BTreeSet;
use std::ffi::c_long;
use std::path::Path;
use std::sync::OnceLock;

use ringyard_dataplane::worker;

use super::program::{Check, Program, Rule, Verdict};
use super::{NEVER, PROT_EXEC, deny, opener};
use crate::{af_packet, af_xdp, datagram, netmap, stream, tap, vduse};

/// By which a thread ends; no worker makes another call after it.
const END: c_long = libc::SYS_exit;
/// What libc does without. The allocator maps memory where it cannot extend an arena or a block, and keeps what it cannot
/// give back; a thread that ends leaves its signal mask and its second stack to nobody; who cannot yield goes on.
const ANSWERED: &[c_long] = &[
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_close,
];

/// What must not fail. Glibc does not understand that `brk` did; since workers have arenas of their own, it is not called
/// ([`prepare`]). And a handler of faults that takes itself away wants the process to end.
const FATAL: &[c_long] = &[libc::SYS_brk, libc::SYS_rt_sigaction, libc::SYS_pidfd_getfd];

/// Devices whose rings a worker turns by ioctl: where they are, the calls, and the requests.
const TURNED: [(&str, &[c_long], &[libc::Ioctl]); 2] = [
    (netmap::DEVICE, netmap::CALLS, &netmap::WORKERS_REQUESTS),
    (vduse::DEVICE, vduse::CALLS, &vduse::WORKERS_REQUESTS),
];

/// The calls of workers that are there, or are started now, without that by which they end. On a host that has netmap or
/// VDUSE there is one more, ioctl.
pub fn calls() -> &'static BTreeSet<c_long> {
    static CALLS: OnceLock<BTreeSet<c_long>> = OnceLock::new();
    CALLS.get_or_init(|| {
        let turned = TURNED.iter().filter(|(device, ..)| Path::new(device).exists());
        let lists =
            [worker::CALLS, tap::CALLS, datagram::CALLS, stream::CALLS, af_packet::CALLS, af_xdp::CALLS];
        lists.into_iter().chain(turned.map(|(_, calls, _)| *calls)).flatten().copied().collect()
    })
}

/// Whether workers may turn such a device's rings: not if the host had none when they were confined.
///
/// Errors: a sentence.
pub(crate) fn may_turn() -> Result<(), String> {
    if opener().is_none() || calls().contains(&libc::SYS_ioctl) {
        return Ok(());
    }
    Err("this host had no such device when the switch was started, and what workers may do was settled then: start it anew".into())
}

/// The filter of workers.
pub(super) fn program() -> Program {
    let mut rules: Vec<Rule> = calls().iter().copied().chain([END]).map(rule).collect();
    rules.extend(ANSWERED.iter().map(|&call| Rule::always(call, deny())));
    rules.extend(NEVER.iter().map(|&call| Rule::always(call, Verdict::Kill)));
    rules.extend(FATAL.iter().map(|&call| Rule::always(call, Verdict::Kill)));
    Program::new(&rules, deny())
}

fn rule(call: c_long) -> Rule {
    let cases = match call {
        libc::SYS_mmap => vec![(vec![Check::has(2, PROT_EXEC)], Verdict::Kill)],
        libc::SYS_ioctl => return Rule { call, cases: requests(), otherwise: deny() },
        _ => Vec::new(),
    };
    Rule { call, cases, otherwise: Verdict::Allow }
}

fn requests() -> Vec<(Vec<Check>, Verdict)> {
    let requests = TURNED.iter().flat_map(|(_, _, requests)| *requests);
    requests.map(|&request| (vec![Check::is(1, request as u32)], Verdict::Allow)).collect()
}

/// Has the allocator of a process with so many workers never need `brk` on their account: each has an arena of its own,
/// and what others free is not given back by whoever frees it. Before they are started.
pub(super) fn prepare(workers: usize) {
    #[cfg(target_env = "gnu")]
    crate::sys::malloc::give_arenas(workers);
    #[cfg(not(target_env = "gnu"))]
    let _ = workers;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_twelve_calls() {
        let turned = TURNED.iter().any(|(device, ..)| Path::new(device).exists());
        assert_eq!(calls().len(), 12 + usize::from(turned), "{:?}", calls());
    }
}

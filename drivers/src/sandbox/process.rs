//! What the process as a whole may do, once it is confined: by itself, what concerns nothing but what it has already; by
//! the opener, what makes, opens or finds something. Each row says who needs it.

use std::ffi::c_long;

use super::program::{Check, Program, Rule, Verdict};
use super::{NEVER, PROT_EXEC, deny};
use crate::sys::tap::SIOCGSKNS;
use crate::sys::vduse::CREATE_DEV;

/// Calls that are made as they are.
const OWN: &[(&str, &[c_long])] = &[
    (
        "descriptors that there are",
        &[
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_pread64,
            libc::SYS_preadv2,
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_close,
            libc::SYS_lseek,
            libc::SYS_fstat,
            libc::SYS_fstatfs,
            libc::SYS_fcntl,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_getdents64,
            libc::SYS_ftruncate,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            // A socket's, before it is bound.
            libc::SYS_fchmod,
        ],
    ),
    (
        "what has no name",
        &[
            libc::SYS_pipe2,
            libc::SYS_socketpair,
            libc::SYS_eventfd2,
            libc::SYS_memfd_create,
            libc::SYS_epoll_create1,
        ],
    ),
    (
        "waiting",
        &[
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_ppoll,
            libc::SYS_futex,
            libc::SYS_clock_nanosleep,
            libc::SYS_nanosleep,
            libc::SYS_restart_syscall,
        ],
    ),
    (
        "sockets that there are",
        &[
            libc::SYS_accept4,
            libc::SYS_listen,
            libc::SYS_shutdown,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_recvmmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
        ],
    ),
    ("memory", &[libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise]),
    (
        "threads and signals",
        &[
            libc::SYS_set_robust_list,
            libc::SYS_rseq,
            libc::SYS_gettid,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_sigaltstack,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_exit,
            libc::SYS_exit_group,
            // The filters of workers.
            libc::SYS_seccomp,
        ],
    ),
    (
        "who, when and where we are",
        &[
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getcwd,
            libc::SYS_uname,
            libc::SYS_getrandom,
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_gettimeofday,
            libc::SYS_capget,
        ],
    ),
];

/// The same, where an architecture has older calls beside them.
#[cfg(target_arch = "x86_64")]
const OWN_OLDER: &[c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_accept, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OWN_OLDER: &[c_long] = &[libc::SYS_accept];

/// Requests of ioctl that are made as they are.
const REQUESTS: &[(&str, &[libc::Ioctl])] = &[
    ("any descriptor", &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS]),
    (
        "tap",
        &[
            libc::TUNGETIFF,
            libc::TUNGETFEATURES,
            libc::TUNSETSNDBUF,
            libc::TUNSETOFFLOAD,
            libc::TUNSETVNETHDRSZ,
            libc::TUNGETVNETHDRSZ,
        ],
    ),
    ("interfaces", &[libc::SIOCETHTOOL, libc::SIOCGIFINDEX, libc::SIOCGIFMTU]),
];
/// And whole families of them, by the byte that stands for their driver: netmap, vhost, vduse.
const REQUEST_TYPES: [u8; 3] = [b'i', 0xaf, 0x81];
/// Requests that the opener makes.
pub(super) const ASKED_REQUESTS: [u32; 4] =
    [libc::TUNSETIFF as u32, libc::TUNGETDEVNETNS as u32, SIOCGSKNS, CREATE_DEV as u32];

/// Levels of socket options.
const LEVELS: [i32; 9] = [
    libc::SOL_SOCKET,
    libc::IPPROTO_IP,
    libc::IPPROTO_IPV6,
    libc::IPPROTO_TCP,
    libc::IPPROTO_UDP,
    libc::SOL_PACKET,
    libc::SOL_NETLINK,
    libc::SOL_XDP,
    libc::AF_VSOCK,
];

/// The filter of the process. What it does not know is asked after, too: the opener says no, and says so in the log.
pub(super) fn program() -> Program {
    let mut rules: Vec<Rule> = OWN
        .iter()
        .flat_map(|(_, calls)| *calls)
        .chain(OWN_OLDER)
        .map(|&call| Rule::always(call, Verdict::Allow))
        .collect();
    rules.extend(NEVER.iter().map(|&call| Rule::always(call, Verdict::Kill)));
    rules.extend([memory(libc::SYS_mmap), memory(libc::SYS_mprotect)]);
    rules.extend(threads());
    rules.extend([socket(), setsockopt(), ioctl()]);
    // A place and no more: nothing is opened by it. And the kernel hands no such descriptor over.
    let place = |flags| vec![(vec![Check::has(flags, libc::O_PATH as u32)], Verdict::Allow)];
    rules.push(Rule { call: libc::SYS_openat, cases: place(2), otherwise: Verdict::Ask });
    #[cfg(target_arch = "x86_64")]
    rules.push(Rule { call: libc::SYS_open, cases: place(1), otherwise: Verdict::Ask });
    // Of a descriptor, which may also have a path: nothing is opened by either.
    let of_descriptor = |flags| (vec![Check::has(flags, libc::AT_EMPTY_PATH as u32)], Verdict::Allow);
    rules.push(Rule { call: libc::SYS_newfstatat, cases: vec![of_descriptor(3)], otherwise: Verdict::Ask });
    rules.push(Rule { call: libc::SYS_statx, cases: vec![of_descriptor(2)], otherwise: Verdict::Ask });
    Program::new(&rules, Verdict::Ask)
}

/// No memory that can be run.
fn memory(call: c_long) -> Rule {
    Rule { call, cases: vec![(vec![Check::lacks(2, PROT_EXEC)], Verdict::Allow)], otherwise: Verdict::Kill }
}

/// Threads, and no processes; limits and names, and nobody else's; an end of our own making.
fn threads() -> Vec<Rule> {
    let allowed = |call, checks| Rule { call, cases: vec![(checks, Verdict::Allow)], otherwise: deny() };
    let own = std::process::id();
    vec![
        allowed(libc::SYS_clone, vec![Check::has(0, libc::CLONE_THREAD as u32)]),
        // Its flags are in memory. libc knows the one above, too.
        Rule::always(libc::SYS_clone3, Verdict::Fail(libc::ENOSYS)),
        // Descriptors that this process was started with are taken by it.
        allowed(libc::SYS_pidfd_open, vec![Check::is(0, own)]),
        Rule::always(libc::SYS_pidfd_getfd, Verdict::Allow),
        allowed(libc::SYS_prlimit64, vec![Check::is(0, 0)]),
        allowed(libc::SYS_tgkill, vec![Check::is(0, own)]),
        Rule {
            call: libc::SYS_prctl,
            cases: [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_NO_NEW_PRIVS, libc::PR_SET_VMA]
                .map(|option| (vec![Check::is(0, option as u32)], Verdict::Allow))
                .to_vec(),
            otherwise: deny(),
        },
    ]
}

/// Those that anybody may have, and that reach nobody before they are bound or connected.
fn socket() -> Rule {
    let mut cases = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_VSOCK] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            // Above the kind there are flags.
            let kind = Check { argument: 1, mask: 0xf, value: kind as u32 };
            cases.push((vec![Check::is(0, family as u32), kind], Verdict::Allow));
        }
    }
    Rule { call: libc::SYS_socket, cases, otherwise: Verdict::Ask }
}

fn setsockopt() -> Rule {
    let forced = [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE];
    let forced =
        forced.map(|option| vec![Check::is(1, libc::SOL_SOCKET as u32), Check::is(2, option as u32)]);
    let mut cases: Vec<_> = forced.into_iter().map(|checks| (checks, Verdict::Ask)).collect();
    cases.extend(LEVELS.map(|level| (vec![Check::is(1, level as u32)], Verdict::Allow)));
    Rule { call: libc::SYS_setsockopt, cases, otherwise: Verdict::Ask }
}

fn ioctl() -> Rule {
    let mut cases: Vec<_> =
        ASKED_REQUESTS.iter().map(|&request| (vec![Check::is(1, request)], Verdict::Ask)).collect();
    let requests = REQUESTS.iter().flat_map(|(_, requests)| *requests);
    cases.extend(requests.map(|&request| (vec![Check::is(1, request as u32)], Verdict::Allow)));
    for kind in REQUEST_TYPES {
        let check = Check { argument: 1, mask: 0xff00, value: u32::from(kind) << 8 };
        cases.push((vec![check], Verdict::Allow));
    }
    Rule { call: libc::SYS_ioctl, cases, otherwise: Verdict::Ask }
}

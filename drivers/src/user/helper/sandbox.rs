//! What keeps the helper from doing anything but its work, should a guest take it over: no privileges, few resources, no
//! files but its own (Landlock), and no system calls but those that libslirp makes (seccomp). None of it can be undone.
//!
//! Every layer is applied where the kernel has it; only seccomp and the end of privileges must succeed. What was applied is
//! said in a sentence.

use std::path::PathBuf;

use landlock::Scope;
use rustix::fs::{Gid, Uid};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, geteuid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::namespaces::Namespaces;
use super::root::RESOLV_CONF;
use crate::sandbox::{Check, Program, Rule, Verdict, doing, restrict_files};

/// What the helper still needs.
pub(super) struct Needs {
    /// Where it is.
    pub(super) namespaces: Namespaces,
    /// Whether its root directory is its own.
    pub(super) rooted: bool,
    /// The TFTP directory, as it sees it.
    pub(super) tftp: Option<PathBuf>,
    /// Whether it connects to unix sockets, behind which programs wait.
    pub(super) connects: bool,
}

/// `nobody`, on every Linux.
pub(super) const NOBODY: u32 = 65534;
/// Connections of guests, about; each has a descriptor.
const FDS_MAX: u64 = 4096;
/// Two buffers of 128 KiB a connection, and what is below 100 MiB without any.
const MEMORY_MAX: u64 = 2 << 30;

/// Confines this process for good; says how.
///
/// Errors: a sentence, and the process must end.
pub(super) fn confine(needs: &Needs) -> Result<String, String> {
    limit_resources().map_err(doing("limiting resources"))?;
    drop_privileges(needs.namespaces).map_err(doing("giving up privileges"))?;
    // The kernel forgets it when the user changes.
    die_with_parent().map_err(doing("asking to end with the switch"))?;
    // Nobody looks into it; it can't look into itself after that, so it comes late.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(doing("becoming not dumpable"))?;
    set_no_new_privs(true).map_err(doing("setting no_new_privs"))?;
    let files = confine_files(needs).map_err(doing("applying Landlock"))?;
    let user = geteuid().as_raw();
    filter(needs.connects).install().map_err(doing("applying the seccomp filter"))?;

    let namespaces = match needs.namespaces {
        Namespaces { own: false, .. } => "no namespaces",
        Namespaces { user: false, .. } => "mount, pid, ipc and uts namespaces",
        Namespaces { user: true, .. } => "user, mount, pid, ipc and uts namespaces",
    };
    let root = if needs.rooted { "a root of its own" } else { "the host's root" };
    Ok(format!("uid {user}, {namespaces}, {root}, {files}, seccomp"))
}

/// Has the kernel kill this process when its parent ends.
pub(super) fn die_with_parent() -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
}

fn limit_resources() -> rustix::io::Result<()> {
    let limits = [
        (Resource::Nofile, FDS_MAX),
        (Resource::As, MEMORY_MAX),
        (Resource::Core, 0),
        (Resource::Nproc, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        // The copy of resolv.conf is the only file that it writes.
        (Resource::Fsize, 1 << 20),
    ];
    for (resource, wanted) in limits {
        let had = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(wanted.min(had));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Whether [`confine`] makes `nobody` of this process: of whoever is root outside of a user namespace.
pub(super) fn becomes_nobody(namespaces: Namespaces) -> bool {
    geteuid().is_root() && !namespaces.user
}

fn drop_privileges(namespaces: Namespaces) -> rustix::io::Result<()> {
    if becomes_nobody(namespaces) {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn confine_files(needs: &Needs) -> Result<&'static str, landlock::RulesetError> {
    let mut readable = vec![PathBuf::from(RESOLV_CONF)];
    readable.extend(needs.tftp.clone());
    restrict_files(&readable, Scope::AbstractUnixSocket | Scope::Signal)
}

/// What libslirp, glib and glibc call between two packets; anything else fails with EPERM.
const CALLS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    // By which a handler of faults lets them end the process.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same, where an architecture has older calls beside them.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[libc::c_long] = &[libc::SYS_accept, libc::SYS_poll, libc::SYS_stat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[libc::c_long] = &[libc::SYS_accept];

/// Of `linux/sockios.h`: the number of an interface, for the scope of a name server's address.
const SIOCGIFINDEX: u32 = 0x8933;

/// The options of sockets that libslirp sets, by level; 0 stands for all of a level.
const SOCKET_OPTIONS: &[(libc::c_int, libc::c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    // Of our own channel to the switch.
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
];

fn filter(connects: bool) -> Program {
    let refused = Verdict::Fail(libc::EPERM);
    let mut rules: Vec<Rule> =
        CALLS.iter().chain(OLDER_CALLS).map(|&call| Rule::always(call, Verdict::Allow)).collect();
    let mut permit_if = |call, cases: Vec<Vec<Check>>| {
        let cases = cases.into_iter().map(|checks| (checks, Verdict::Allow)).collect();
        rules.push(Rule { call, cases, otherwise: refused });
    };

    let mut sockets = Vec::new();
    let mut domains = vec![libc::AF_INET, libc::AF_INET6];
    domains.extend(connects.then_some(libc::AF_UNIX));
    for domain in domains {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            // Behind the kind there are flags.
            let kind = Check { argument: 1, mask: 0xf, value: kind as u32 };
            sockets.push(vec![Check::is(0, domain as u32), kind]);
        }
    }
    permit_if(libc::SYS_socket, sockets);

    let option =
        |&(level, option): &(i32, i32)| vec![Check::is(1, level as u32), Check::is(2, option as u32)];
    permit_if(libc::SYS_setsockopt, SOCKET_OPTIONS.iter().map(option).collect());

    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    permit_if(libc::SYS_openat, vec![vec![Check::lacks(2, writing as u32)]]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        permit_if(call, vec![vec![Check::lacks(2, libc::PROT_EXEC as u32)]]);
    }
    let second = |value: u32| vec![Check::is(1, value)];
    let fcntl = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];
    permit_if(libc::SYS_fcntl, fcntl.map(|command| second(command as u32)).to_vec());
    let ioctl = [libc::FIONREAD as u32, libc::FIONBIO as u32, SIOCGIFINDEX];
    permit_if(libc::SYS_ioctl, ioctl.map(second).to_vec());
    Program::new(&rules, refused)
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;

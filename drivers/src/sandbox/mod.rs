//! What keeps the switch from doing anything but its work, should a guest take a part of it over.
//!
//! Workers, who alone touch what guests write into their rings, may make a dozen system calls (`worker`). The process as a
//! whole may do as it likes with the descriptors that it has, wait, and start threads (`process`). Whatever makes, opens,
//! finds or names something is done for it by another process, the `opener`, which judges each. Behind that, it has no files
//! (Landlock) and no capabilities (`rights`). None of it can be undone.
//!
//! A call that is not permitted fails with EPERM, and the log says so: it may be an error of ours, and a switch that goes on
//! is worth more than one that ends. What nobody here ever does ends the process: whoever starts a program, or looks into
//! another process, is not us.

mod allowed;
mod client;
mod messages;
pub mod opener;
mod process;
mod program;
mod rights;
mod worker;

use std::collections::hash_map::RandomState;
use std::ffi::c_long;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use landlock::Scope;
use ringyard_dataplane::worker::begin_with;
use rustix::thread::set_no_new_privs;

use crate::sys::seccomp;
pub(crate) use allowed::Errand;
pub use allowed::{Allowed, share_words};
pub(crate) use client::{Client, opener};
pub(crate) use messages::{Order, Request, Slot};
pub(crate) use program::{Check, Program, Rule, Verdict};
pub(crate) use rights::restrict_files;
pub use worker::calls as worker_calls;
pub(crate) use worker::may_turn;

/// The number that a descriptor has in a program which the opener starts.
pub(crate) const PASSED: i32 = 20;

/// What a process is about to be.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Workers that it will start.
    pub workers: usize,
    /// Directories in which it will write captures, besides the usual ones.
    pub writable: Vec<PathBuf>,
    /// Programs that are started for it.
    pub allowed: Allowed,
}

/// Confines this process for good, as far as the kernel lets us; what is in force, in a line. To be called once, by the only
/// thread there is, before there is a log.
///
/// Errors: a sentence; what was begun cannot be taken back, so the process must end.
pub fn enter(needs: Needs) -> Result<String, String> {
    worker::prepare(needs.workers);
    begin_with(|| {
        if let Err(error) = confine_worker() {
            tracing::warn!("a worker is not confined: {error}");
        }
    });
    match confine(needs)? {
        Ok(all) => Ok(format!("{all}; {} system calls for a worker", worker_calls().len())),
        Err(why) => Ok(format!("seccomp for workers, {} system calls; no more: {why}", worker_calls().len())),
    }
}

/// The outer error: something went wrong halfway. The inner one: nothing was done, since it cannot be had here.
fn confine(needs: Needs) -> Result<Result<String, String>, String> {
    if let Err(why) = is_supported() {
        return Ok(Err(why));
    }
    rights::be_dumpable();
    let helper = match client::Helper::start(needs) {
        Ok(helper) => helper,
        Err(why) => return Ok(Err(why)),
    };
    let id = helper.id();
    // Nobody outside hears a signal of ours.
    let files = restrict_files(&[], Scope::Signal.into()).map_err(doing("applying Landlock"))?;
    let rights = rights::drop_capabilities().map_err(doing("giving up capabilities"))?;
    set_no_new_privs(true).map_err(doing("setting no_new_privs"))?;
    let listener = process::program().install_listening().map_err(doing("applying the seccomp filter"))?;
    helper.begin(listener).map_err(doing("handing the filter's listener over"))?;
    Ok(Ok(format!("seccomp, {files}, {rights}, opener {id}")))
}

/// Whether this kernel lets another process answer calls as it must.
///
/// Errors: a sentence.
pub fn is_supported() -> Result<(), String> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next().and_then(Result::ok), numbers.next().and_then(Result::ok));
    // Descriptors are handed over together with the answer.
    if version < (Some(5), Some(14)) {
        return Err(format!("that takes Linux 5.14, and this is {release}"));
    }
    seccomp::has_listeners().map_err(|error| format!("the kernel has no seccomp notification: {error}"))
}

/// Confines the calling thread as a worker, for good.
///
/// Errors: the kernel has no filters.
pub fn confine_worker() -> io::Result<()> {
    // A thread's tables ask for random numbers once.
    let _ = RandomState::new();
    set_no_new_privs(true)?;
    Ok(worker::program().install()?)
}

/// What went wrong, behind what was being done.
pub(crate) fn doing<E: Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// What nobody in the switch ever does, however things stand: to start a program, to look into another process, to change
/// what the kernel is. Whoever tries is not one of us, so the process ends at once.
const NEVER: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

const PROT_EXEC: u32 = libc::PROT_EXEC as u32;

/// What is not to be done fails as what one may not do.
fn deny() -> Verdict {
    Verdict::Fail(libc::EPERM)
}

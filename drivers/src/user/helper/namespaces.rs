//! The helper's namespaces: it gets its own view of mounts, processes, IPC and the host's name, and stays in the network
//! namespace that it came from, for it is to reach the network as whoever started it.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use libc::{CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, c_int};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, waitpid};

use crate::sys::process::{end_copy, fork_into};

/// What the child is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Its own mounts, processes, IPC and host name.
    pub(super) own: bool,
    /// A user namespace, in which it stays who it is.
    pub(super) user: bool,
}

/// One of two processes.
pub(super) enum Side {
    /// The old one, with the new one's id.
    Parent(Pid),
    /// The new one.
    Child(Namespaces),
}

const OWN: c_int = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;

/// Makes a process in namespaces of its own, or as many as the host permits. Called while there is one thread.
pub(super) fn split() -> io::Result<Side> {
    // Who is not root may have them inside a user namespace only.
    let root = geteuid().is_root().then_some(Namespaces { own: true, user: false });
    let others = [Namespaces { own: true, user: true }, Namespaces { own: false, user: false }];
    let mut last = io::ErrorKind::Unsupported.into();
    for namespaces in root.into_iter().chain(others) {
        match clone(namespaces) {
            Ok(side) => return Ok(side),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn clone(namespaces: Namespaces) -> io::Result<Side> {
    let own = if namespaces.own { OWN } else { 0 };
    let user_own = if namespaces.user { CLONE_NEWUSER } else { 0 };
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    match fork_into(own | user_own)? {
        Some(child) => {
            drop(writer);
            let mut error = [0];
            // Without a word it was killed.
            let said = reader.read_exact(&mut error);
            if said.is_ok() && error == [0] {
                return Ok(Side::Parent(child));
            }
            let _ = waitpid(Some(child), WaitOptions::empty());
            said.and(Err(io::Error::from_raw_os_error(error[0].into())))
        }
        None => {
            drop(reader);
            let named = if namespaces.user { stay_the_same(user, group) } else { Ok(()) };
            let error = named.as_ref().map_or_else(errno, |()| 0);
            let told = writer.write_all(&[error]);
            if named.is_ok() && told.is_ok() {
                return Ok(Side::Child(namespaces));
            }
            // The host permits the user namespace, but nothing in it: fewer namespaces are tried.
            end_copy(1)
        }
    }
}

/// The number of an error, which is small; never 0.
fn errno(error: &io::Error) -> u8 {
    let number = error.raw_os_error().and_then(|number| u8::try_from(number).ok());
    number.filter(|&number| number > 0).unwrap_or(libc::EIO as u8)
}

/// Gives the one user and group of a new user namespace the numbers that they have outside.
fn stay_the_same(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

//! The switch as the opener sees it: what its arguments point to, and its descriptors. All of it is copied before it is
//! looked at, since other threads of the switch may change it meanwhile.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::sys::process::{read_memory, write_memory};

/// The process.
pub(super) struct Caller {
    pub process: i32,
    id: Pid,
    handle: OwnedFd,
}

/// Where a path begins.
pub(super) enum Base {
    /// In the working directory, which is the switch's, too.
    Here,
    /// In a directory that the switch has open.
    Directory(OwnedFd),
}

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Base::Here => CWD,
            Base::Directory(fd) => fd.as_fd(),
        }
    }
}

/// Bytes of a path, with the zero behind it.
const PATH_LEN: usize = libc::PATH_MAX as usize;
const PAGE: u64 = 4096;

impl Caller {
    pub(super) fn new(process: i32) -> io::Result<Caller> {
        let pid = Pid::from_raw(process).ok_or(io::ErrorKind::NotFound)?;
        Ok(Caller { process, id: pid, handle: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// `len` bytes at `address`.
    pub(super) fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let bytes = self.read_some(address, len)?;
        if bytes.len() == len { Ok(bytes) } else { Err(Errno::FAULT) }
    }

    /// The `int` at `address`.
    pub(super) fn read_number(&self, address: u64) -> Result<i32, Errno> {
        let bytes = self.read(address, size_of::<i32>())?;
        bytes.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes)).ok_or(Errno::FAULT)
    }

    fn read_some(&self, address: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let count = read_memory(self.id, address, &mut bytes).map_err(|_| Errno::FAULT)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes to `address`.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let count = write_memory(self.id, address, bytes);
        if count == Ok(bytes.len()) { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// The path at `address`, as it is meant: what a process calls its own is the switch's.
    pub(super) fn path(&self, address: u64, thread: i32) -> Result<PathBuf, Errno> {
        let mut bytes = Vec::new();
        while bytes.len() < PATH_LEN {
            let at = address.wrapping_add(bytes.len() as u64);
            // Not beyond the page: the next one may not be there.
            let part = self.read_some(at, (PAGE - at % PAGE) as usize)?;
            match part.iter().position(|&byte| byte == 0) {
                Some(end) => {
                    bytes.extend(&part[..end]);
                    return if bytes.len() < PATH_LEN {
                        Ok(self.meant(&bytes, thread))
                    } else {
                        Err(Errno::NAMETOOLONG)
                    };
                }
                None if part.is_empty() => return Err(Errno::FAULT),
                None => bytes.extend(part),
            }
        }
        Err(Errno::NAMETOOLONG)
    }

    /// As a path that begins so is meant.
    pub(super) fn meant(&self, path: &[u8], thread: i32) -> PathBuf {
        let process = self.process;
        let own = [
            (&b"/proc/self"[..], format!("/proc/{process}")),
            (b"/proc/thread-self", format!("/proc/{process}/task/{thread}")),
            (b"/dev/fd", format!("/proc/{process}/fd")),
            (b"/dev/stdin", format!("/proc/{process}/fd/0")),
            (b"/dev/stdout", format!("/proc/{process}/fd/1")),
            (b"/dev/stderr", format!("/proc/{process}/fd/2")),
        ];
        let found = own.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(*from)?;
            (rest.is_empty() || rest[0] == b'/').then(|| [to.as_bytes(), rest].concat())
        });
        PathBuf::from(OsString::from_vec(found.unwrap_or_else(|| path.to_vec())))
    }

    /// The descriptor of the switch that `path` names, if it does by its number.
    pub(super) fn named_descriptor(&self, path: &Path) -> Option<Result<OwnedFd, Errno>> {
        let text = path.as_os_str().as_bytes();
        let number = text.strip_prefix(format!("/proc/{}/fd/", self.process).as_bytes())?;
        let number: i32 = OsStr::from_bytes(number).to_str()?.parse().ok()?;
        Some(self.descriptor(number as u64))
    }

    /// A duplicate of a descriptor of the switch.
    pub(super) fn descriptor(&self, number: u64) -> Result<OwnedFd, Errno> {
        pidfd_getfd(&self.handle, number as i32, PidfdGetfdFlags::empty())
    }

    /// Where a path begins, by the argument that says so.
    pub(super) fn base(&self, number: u64) -> Result<Base, Errno> {
        if number as i32 == libc::AT_FDCWD {
            return Ok(Base::Here);
        }
        self.descriptor(number).map(Base::Directory)
    }
}

/// As the C functions take it.
pub(super) fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

//! The file of a unix socket, and who may use it.
//!
//! Whoever may write to the directory can put another file, or a link to one, in the place of ours at any time. So its
//! rights are never changed by its path: the socket is bound with no rights at all, which tells its file from others, and
//! that file itself gets its group, then its mode.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::sandbox::{Request, opener};

/// What is at `path`, not opened (O_PATH), be it a link. Where we may not look since we are confined, our opener may.
pub(crate) fn find(directory: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match (rustix::fs::openat(&directory, path, flags, Mode::empty()), opener()) {
        (Err(Errno::ACCESS), Some(opener)) => {
            // The working directory has no descriptor.
            let base = Some(directory.as_fd()).filter(|fd| fd.as_raw_fd() != libc::AT_FDCWD);
            let (_, found) = opener.ask(&Request::Find(path.to_owned()), base.as_slice())?;
            found.into_iter().next().ok_or(io::ErrorKind::InvalidData.into())
        }
        (found, _) => Ok(found?),
    }
}

/// The file of a socket that we made.
pub(crate) struct SocketFile {
    fd: OwnedFd,
    found: Stat,
}

impl SocketFile {
    /// Before `socket` is bound: its file will have no rights.
    pub(crate) fn withhold(socket: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fchmod(socket, Mode::empty())
    }

    /// After that, the file at `path`, which may be relative to `directory`.
    ///
    /// Errors: also when it is another one.
    pub(crate) fn open(directory: BorrowedFd<'_>, path: &Path) -> io::Result<SocketFile> {
        let fd = find(directory, path)?;
        let found = rustix::fs::fstat(&fd)?;
        let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
        let has_no_rights = Mode::from_raw_mode(found.st_mode) == Mode::empty();
        let user = rustix::process::geteuid().as_raw();
        if is_socket && has_no_rights && found.st_uid == user && found.st_nlink == 1 {
            Ok(SocketFile { fd, found })
        } else {
            Err(io::Error::other("somebody has replaced our socket"))
        }
    }

    /// As it was when it was opened.
    pub(crate) fn found(&self) -> &Stat {
        &self.found
    }

    pub(crate) fn set_group(&self, group: u32) -> Result<(), Errno> {
        rustix::fs::chownat(&self.fd, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)
    }

    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        // An O_PATH descriptor takes no fchmod.
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode))
    }

    /// The group first: nobody of another one gets in.
    pub(crate) fn grant(&self, mode: u32, group: Option<u32>) -> Result<(), Errno> {
        group.map_or(Ok(()), |group| self.set_group(group))?;
        self.set_mode(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixDatagram;

    use rustix::fs::CWD;

    #[test]
    fn rights_go_to_our_socket_and_to_nothing_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, moved, other] = ["ours", "moved", "other"].map(|name| directory.path().join(name));
        let socket = UnixDatagram::bind(&ours).unwrap();
        assert!(SocketFile::open(CWD, &ours).is_err(), "it has rights");
        std::fs::set_permissions(&ours, PermissionsExt::from_mode(0o000)).unwrap();
        let file = SocketFile::open(CWD, &ours).unwrap();
        std::fs::write(&other, "other").unwrap();
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o000)).unwrap();
        std::fs::rename(&ours, &moved).unwrap();
        symlink(&other, &ours).unwrap();
        assert!(SocketFile::open(CWD, &ours).is_err(), "a link");
        assert!(SocketFile::open(CWD, &other).is_err(), "no socket");
        file.grant(0o620, Some(file.found().st_gid)).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&moved), mode(&other)), (0o620, 0));
        drop(socket);
    }
}

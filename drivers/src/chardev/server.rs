//! The listening half of a chardev, and its socket file.
//!
//! The socket is bound in a private directory beside its place, given its owner and mode, made to listen, and only then
//! renamed to its name: nobody sees it with other rights, or finds it deaf. What stands at the name already is replaced
//! only if it is a socket that nobody listens at.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, fstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::{OpenError, SocketAccess, connect_to, wait};
use crate::socket_file::{SocketFile, find};
use crate::store::Drawer;

/// A listener and its file, which is removed when this is dropped, if it is still ours.
pub struct Server {
    listener: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Server {
    /// Listens at `path`, non-blocking.
    pub fn bind(path: &Path, access: &SocketAccess) -> Result<Server, OpenError> {
        let fail = |error| OpenError::new(format!("Failed to bind socket to {}", path.display()), error);
        if path.as_os_str().len() > PATH_MAX {
            return Err(fail(Errno::NAMETOOLONG));
        }
        let stale = is_stale(path).map_err(fail)?;
        // A change of the working directory must not make us forget our file.
        let path = std::path::absolute(path)
            .map_err(|error| OpenError::new(format!("Failed to bind socket to {}", path.display()), error))?;
        let nursery = Nursery::beside(&path).map_err(fail)?;
        let listener = nursery.listen(access).map_err(fail)?;
        let flags = if stale { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let file = nursery.stat().map_err(fail)?;
        rustix::fs::renameat_with(&nursery.fd, SOCKET, CWD, &path, flags).map_err(|error| match error {
            Errno::EXIST => fail(Errno::ADDRINUSE),
            error => fail(error),
        })?;
        Ok(Server { listener, path, file: identity(&file) })
    }

    /// As [`Self::bind`], with `path` as the socket's own name, for peers that ask what they are connected to. Between its
    /// making and its listening, the socket is there and refuses them.
    pub(crate) fn bind_by_name(path: &Path, access: &SocketAccess) -> Result<Server, OpenError> {
        let fail = |error| OpenError::new(format!("Failed to bind socket to {}", path.display()), error);
        if is_stale(path).map_err(fail)? {
            rustix::fs::unlink(path).map_err(fail)?;
        }
        let listener = new_socket().map_err(fail)?;
        SocketFile::withhold(&listener).map_err(fail)?;
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        bind(&listener, &address).map_err(fail)?;
        let file = SocketFile::open(CWD, path)
            .map_err(|error| OpenError::new(format!("Failed to bind socket to {}", path.display()), error))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let server = Server { listener, path, file: identity(file.found()) };
        file.grant(access.mode, access.group).map_err(fail)?;
        listen(&server.listener, BACKLOG).map_err(fail)?;
        Ok(server)
    }

    /// What a server at `path` in a process before this one left in `drawer`: it has been listening all the time.
    pub fn restore(path: &Path, drawer: &Drawer) -> Option<Server> {
        let (listener, file) = (drawer.take(LISTENER)?, drawer.take(FILE)?);
        let path = std::path::absolute(path).ok()?;
        let file = identity(&fstat(&file).ok()?);
        // Whoever took the file away wanted another one there.
        let is_there = rustix::fs::lstat(&path).is_ok_and(|now| identity(&now) == file);
        is_there.then_some(Server { listener, path, file })
    }

    /// Leaves itself in `drawer`, for [`Self::restore`].
    pub fn keep(&self, drawer: &Drawer) {
        // The file's descriptor keeps its number from being used again.
        if let Ok(file) = find(CWD, &self.path) {
            drawer.keep(FILE, file);
            drawer.keep(LISTENER, &self.listener);
        }
    }

    /// Removes the socket file, if it is still ours: while we listen, no other file can have its number.
    pub(super) fn remove_file(&self) {
        if rustix::fs::lstat(&self.path).is_ok_and(|now| identity(&now) == self.file) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }

    /// The next connection; `None` when `stop` became readable before.
    pub(super) fn accept(&self, stop: BorrowedFd<'_>) -> Option<UnixStream> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            ];
            let _ = poll(&mut fds, None);
            if !fds[0].revents().is_empty() {
                return None;
            }
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => return Some(socket.into()),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                // No descriptors, no memory: the connection waits, and so do we.
                Err(_) => {
                    if wait(stop, ACCEPT_AGAIN) {
                        return None;
                    }
                }
            }
        }
    }
}

impl AsFd for Server {
    /// The listening socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove_file();
    }
}

/// Whether a socket that nobody listens at stands at `path`; anything else that stands there is an error.
fn is_stale(path: &Path) -> Result<bool, Errno> {
    let there = match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(false),
        there => there?,
    };
    if FileType::from_raw_mode(there.st_mode) != FileType::Socket {
        return Err(Errno::EXIST);
    }
    match connect_to(path) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(error @ Errno::ACCESS) => Err(error),
        _ => Err(Errno::ADDRINUSE),
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Gives the socket's file in `directory`, which nobody else can write to, its group and its mode, in this order.
fn set_access(directory: BorrowedFd<'_>, access: &SocketAccess) -> Result<(), Errno> {
    if let Some(group) = access.group {
        rustix::fs::chownat(directory, SOCKET, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmodat(directory, SOCKET, Mode::from_raw_mode(access.mode), AtFlags::empty())
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

/// A private directory in which a socket is made ready. It goes when this is dropped.
struct Nursery {
    path: PathBuf,
    fd: OwnedFd,
}

impl Nursery {
    /// Beside `path`, so that a rename reaches it.
    fn beside(path: &Path) -> Result<Nursery, Errno> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        for attempt in 0..NURSERIES {
            let name = format!(".ringyard-{}-{attempt}", rustix::process::getpid().as_raw_nonzero());
            let path = parent.join(name);
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                made => made?,
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(fd) => Ok(Nursery { path, fd }),
                Err(error) => {
                    let _ = rustix::fs::rmdir(&path);
                    Err(error)
                }
            };
        }
        Err(Errno::EXIST)
    }

    /// A socket that listens here, with its rights.
    fn listen(&self, access: &SocketAccess) -> Result<OwnedFd, Errno> {
        let socket = new_socket()?;
        // By way of the descriptor, because the directory's name may be too long for a socket address.
        let address = format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_raw_fd());
        bind(&socket, &SocketAddrUnix::new(address.as_str())?)?;
        set_access(self.fd.as_fd(), access)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, SOCKET, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.fd, SOCKET, AtFlags::empty());
        let _ = rustix::fs::rmdir(&self.path);
    }
}

/// Bytes of a path that every client can name, with the zero behind it.
const PATH_MAX: usize = 107;
/// The socket's name while it is made ready.
const SOCKET: &str = "s";
/// Names tried for the private directory.
const NURSERIES: u32 = 1000;
/// What is kept of a server.
const LISTENER: &str = "listener";
const FILE: &str = "file";
/// Connections that may wait while one is served.
const BACKLOG: i32 = 8;
/// Pause when a connection cannot be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

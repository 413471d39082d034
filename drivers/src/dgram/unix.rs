//! Unix datagrams between two names of the file system, or two abstract ones.
//!
//! A peer that knows one path only is served too: it needs a name of its own, so that it can be answered, but we learn
//! that from what it sends. And where the peer is such a server, we need not think of a name: the kernel gives us one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ringyard_dataplane::port::Attachment;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::attachment;
use crate::chardev::SocketAccess;
use crate::datagram::{Bare, DatagramOptions, Destination, make_room};
use crate::errno;
use crate::minder::Alarm;
use crate::socket_file::SocketFile;

/// A unix socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// None: ours is given by the kernel, the peer's is learned.
    Unnamed,
    /// In the file system.
    Path(PathBuf),
    /// In the kernel.
    Abstract {
        /// Without the zero before it.
        name: String,
        /// Whether it ends where it ends; else zeros fill it up.
        tight: bool,
    },
}

/// Makes the socket and its file.
pub(super) fn open(
    local: &UnixName,
    remote: &UnixName,
    access: &SocketAccess,
    alarm: Arc<Alarm>,
) -> Result<Attachment, String> {
    let destination = match remote {
        UnixName::Unnamed => Destination::FirstSource,
        name => Destination::Fixed(name.address()?.into()),
    };
    let socket = Arc::new(bound(local, access)?);
    make_room(&socket);
    let options = DatagramOptions { receive: socket.clone(), send: socket, destination, queue: 0, alarm };
    Ok(attachment(Bare, options))
}

fn bound(name: &UnixName, access: &SocketAccess) -> Result<OwnedFd, String> {
    let address = name.address()?;
    let failed =
        |error: io::Error| format!("can't bind unix={} to socket: {}", name.text(), errno::with_user(error));
    if let UnixName::Path(path) = name {
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                let why = errno::with_user(error);
                return Err(format!("failed to unlink socket {}: {why}", path.display()));
            }
        }
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
        .map_err(|error| format!("can't create datagram socket: {}", errno::text(error)))?;
    SocketFile::withhold(&socket).map_err(|error| failed(error.into()))?;
    bind(&socket, &address).map_err(|error| failed(error.into()))?;
    if let UnixName::Path(path) = name {
        let file = SocketFile::open(CWD, path).map_err(failed)?;
        file.grant(access.mode, access.group).map_err(|error| failed(error.into()))?;
    }
    Ok(socket)
}

impl UnixName {
    /// As the kernel has it; of [`UnixName::Unnamed`], an address that makes the kernel choose one when bound to.
    fn address(&self) -> Result<SocketAddrUnix, String> {
        let address = match self {
            UnixName::Unnamed => Ok(SocketAddrUnix::new_unnamed()),
            UnixName::Path(path) if path.as_os_str().len() > PATH_LEN_MAX => Err(Errno::NAMETOOLONG),
            UnixName::Path(path) => SocketAddrUnix::new(path),
            UnixName::Abstract { name, tight: true } => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            UnixName::Abstract { name, tight: false } => {
                let mut filled = name.as_bytes().to_vec();
                filled.resize(filled.len().max(ABSTRACT_LEN), 0);
                SocketAddrUnix::new_abstract_name(&filled)
            }
        };
        address.map_err(|_| format!("UNIX socket path '{}' is too long", self.text()))
    }

    /// As it is shown.
    pub fn text(&self) -> String {
        match self {
            UnixName::Unnamed => String::new(),
            UnixName::Path(path) => path.display().to_string(),
            UnixName::Abstract { name, .. } => format!("@{name}"),
        }
    }
}

/// Bytes of a path that everybody can name, with the zero behind it.
const PATH_LEN_MAX: usize = 107;
/// Bytes of an abstract name that fills its address.
const ABSTRACT_LEN: usize = 107;

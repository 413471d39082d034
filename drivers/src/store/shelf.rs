//! The keeper's end of the protocol: what was sent to be kept, as systemd keeps it.
//!
//! Only processes that the keeper knows are listened to; what others send is read and thrown away. Nothing here waits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::Pid;

use super::wire::{self, Message};

/// See the module. Dropping it closes what is kept.
#[derive(Debug)]
pub struct Shelf {
    limit: usize,
    /// Oldest first, by the senders' names.
    kept: Vec<(String, OwnedFd)>,
}

/// What came besides what to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The process of this number said so.
    Said(Pid, String),
    /// A descriptor was not kept: there is no room, or there was none for it in this process.
    Full,
    /// Nobody has the other end any more.
    Gone,
}

/// A socket for `NOTIFY_SOCKET`, in a directory where nobody else may make anything.
pub fn notify_socket(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    set_socket_passcred(&socket, true)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

impl Shelf {
    /// An empty one, for at most `limit` descriptors.
    pub fn new(limit: usize) -> Shelf {
        Shelf { limit, kept: Vec::new() }
    }

    /// What is kept, with the senders' names: what `LISTEN_FDS` and `LISTEN_FDNAMES` say.
    pub fn kept(&self) -> &[(String, OwnedFd)] {
        &self.kept
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// Takes in what processes that are `known` sent to `socket`, but not for ever. The socket tells who sends
    /// (`SO_PASSCRED`).
    pub fn serve(&mut self, socket: impl AsFd, known: impl Fn(Pid) -> bool) -> Vec<Notice> {
        let mut notices = Vec::new();
        for _ in 0..MESSAGES_MAX {
            match wire::receive(&socket, RecvFlags::DONTWAIT) {
                Ok(Some(Message { sender: Some(sender), text: Some(text), fds, is_cut }))
                    if known(sender) =>
                {
                    notices.extend(self.take(sender, text, fds, is_cut));
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    notices.push(Notice::Gone);
                    break;
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        notices
    }

    fn take(&mut self, sender: Pid, text: String, fds: Vec<OwnedFd>, is_cut: bool) -> Option<Notice> {
        let says = |line: &str| text.lines().any(|other| other == line);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
        let is_removal = says("FDSTOREREMOVE=1");
        if is_removal {
            self.kept.retain(|(other, _)| other != name);
        }
        if says("FDSTORE=1") {
            let room = self.limit.saturating_sub(self.kept.len());
            if is_cut || fds.len() > room || !is_name(name) {
                return Some(Notice::Full);
            }
            self.kept.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
            return None;
        }
        // What comes with a barrier tells by being closed here that all before it was taken in.
        (!is_removal).then_some(Notice::Said(sender, text))
    }
}

/// Whether a name can stand in `LISTEN_FDNAMES`.
fn is_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| (0x20..0x7F).contains(&byte) && byte != b':')
}

/// Messages that are taken in one after the other: many times what waits in a socket at one moment.
const MESSAGES_MAX: usize = 1 << 16;

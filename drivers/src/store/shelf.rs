//! The keeper's end of the protocol: a datagram socket, and what was sent to it, as systemd does it.
//!
//! Only processes that the keeper started are listened to; what others send is read and thrown away. Nothing here waits.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, recvmsg, socket_with,
};
use rustix::process::Pid;

/// See the module. Dropping it removes the socket's file and closes what is kept.
#[derive(Debug)]
pub struct Shelf {
    socket: OwnedFd,
    path: PathBuf,
    limit: usize,
    /// Oldest first, by the senders' names.
    kept: Vec<(String, OwnedFd)>,
}

/// What a message says besides what to keep, as far as a keeper cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The process of this number sent it.
    Said(Pid, String),
    /// A descriptor was not kept: there is no room, or there was none for it in this process.
    Full,
}

impl Shelf {
    /// Listens at `path`, where nothing is yet, in a directory where nobody else may make anything. At most `limit`
    /// descriptors are kept.
    pub fn bind(path: &Path, limit: usize) -> io::Result<Shelf> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Shelf { socket, path: path.to_owned(), limit, kept: Vec::new() })
    }

    /// What `NOTIFY_SOCKET` says.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept, with the senders' names: what `LISTEN_FDS` and `LISTEN_FDNAMES` say.
    pub fn kept(&self) -> &[(String, OwnedFd)] {
        &self.kept
    }

    /// Takes in what was sent by processes that are `known`, but not for ever.
    pub fn serve(&mut self, known: impl Fn(Pid) -> bool) -> Vec<Notice> {
        let mut notices = Vec::new();
        for _ in 0..MESSAGES_MAX {
            match self.receive() {
                Ok(Some(message)) if known(message.sender) => self.take(message, &mut notices),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        notices
    }

    /// The next message; `None`: one that is not to be understood.
    fn receive(&self) -> rustix::io::Result<Option<Message>> {
        let mut bytes = [0; MESSAGE_LEN_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        let (mut sender, mut fds) = (None, Vec::new());
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
        let text = (!received.flags.contains(ReturnFlags::TRUNC))
            .then(|| str::from_utf8(&bytes[..received.bytes]).ok())
            .flatten();
        Ok(sender.zip(text).map(|(sender, text)| Message { sender, text: text.to_owned(), fds, is_cut }))
    }

    fn take(&mut self, message: Message, notices: &mut Vec<Notice>) {
        let lines = || message.text.lines();
        let says = |line: &str| lines().any(|other| other == line);
        let name = lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
        if says("FDSTOREREMOVE=1") {
            self.kept.retain(|(other, _)| other != name);
        }
        if says("FDSTORE=1") {
            let room = self.limit.saturating_sub(self.kept.len());
            if message.is_cut || message.fds.len() > room || !is_name(name) {
                notices.push(Notice::Full);
            } else {
                self.kept.extend(message.fds.into_iter().map(|fd| (name.to_owned(), fd)));
            }
        } else {
            // What comes with a barrier tells by being closed that all before was taken in.
            drop(message.fds);
            notices.push(Notice::Said(message.sender, message.text));
        }
    }
}

impl AsFd for Shelf {
    /// Readable when there is something to [`serve`](Shelf::serve).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Message {
    sender: Pid,
    text: String,
    fds: Vec<OwnedFd>,
    /// There were no descriptors to be had for some of its own.
    is_cut: bool,
}

/// Whether a name can stand in `LISTEN_FDNAMES`.
fn is_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| (0x20..0x7F).contains(&byte) && byte != b':')
}

/// Messages that are taken in one after the other.
const MESSAGES_MAX: usize = 256;
/// Bytes of a message; a longer one is not understood.
const MESSAGE_LEN_MAX: usize = 4096;
/// Descriptors that the kernel puts into a message, at most.
const FDS_MAX: usize = 253;

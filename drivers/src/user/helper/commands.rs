//! Programs that answer guests' connections (`guestfwd` with `cmd:`, and Samba). They run outside the helper's
//! confinement, as whoever started the switch: libslirp connects to a unix socket, and here somebody accepts and runs the
//! program with the connection as its standard input, output and error.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;

use super::super::options::{GuestTarget, UserOptions};
use super::root::SOCKETS;
use super::sandbox::NOBODY;

/// Programs that run at a time for one port; connections beyond are closed at once.
pub(super) const PROGRAMS_MAX: usize = 64;
/// Where QEMU looks for Samba's server, too.
pub(crate) const SMBD: &str = "/usr/sbin/smbd";
/// Samba's two ports.
pub(super) const SMB_PORTS: [u16; 2] = [139, 445];

/// The listening sockets with their programs.
pub(super) struct Commands {
    listeners: Vec<(UnixListener, Program)>,
    running: Vec<Child>,
}

/// What answers a connection.
struct Program {
    words: Vec<String>,
    /// It wants a connection of the internet's: Samba looks where its client is.
    wants_inet: bool,
}

/// The directory of the sockets, inside `directory`.
pub(super) fn socket_directory(directory: &Path) -> PathBuf {
    directory.join("sockets")
}

/// Samba's own directory, inside `directory`.
pub(super) fn smb_directory(directory: &Path) -> PathBuf {
    directory.join("smb")
}

/// The socket of the program of the guest forward number `index`; Samba's is behind the last.
pub(super) fn socket_path(directory: Option<&Path>, index: usize) -> CString {
    let sockets = directory.map_or(PathBuf::from(SOCKETS), socket_directory);
    let path = sockets.join(index.to_string()).display().to_string();
    // Our own directory's name has no zero byte.
    CString::new(path).unwrap_or_default()
}

/// Lets `nobody`, who this process is about to become, reach the sockets inside `directory`.
pub(super) fn hand_over(directory: &Path) -> io::Result<()> {
    let sockets = socket_directory(directory);
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
    match chown(&sockets, Some(NOBODY), Some(NOBODY)) {
        // Not every root may: then anybody can connect, and nobody but the helper is served.
        Err(_) => fs::set_permissions(&sockets, fs::Permissions::from_mode(0o711)),
        Ok(()) => Ok(()),
    }
}

impl Commands {
    /// Listens for each program that `options` name, in `directory`.
    pub(super) fn listen(options: &UserOptions, directory: Option<&Path>) -> io::Result<Commands> {
        let mut listeners = Vec::new();
        if let Some(directory) = directory {
            let sockets = socket_directory(directory);
            fs::DirBuilder::new().mode(0o700).create(&sockets)?;
            let programs = options.guest_forwards.iter().map(|forward| match &forward.target {
                GuestTarget::Command(words) => Some(Program { words: words.clone(), wants_inet: false }),
                GuestTarget::Device(_) => None,
            });
            let smb = options.smb.as_ref().map(|_| smbd(&smb_directory(directory)));
            for (index, program) in programs.chain([smb]).enumerate() {
                let Some(program) = program else { continue };
                let path = sockets.join(index.to_string());
                let listener = UnixListener::bind(&path)?;
                // The directory, and who is asked for below, say who may.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
                listener.set_nonblocking(true)?;
                listeners.push((listener, program));
            }
        }
        Ok(Commands { listeners, running: Vec::new() })
    }

    /// The listening sockets.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(|(listener, _)| listener.as_fd())
    }

    /// Whether there are programs to look after.
    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Forgets programs that have ended, and runs one for each connection that `helper` has made to listener `index`.
    pub(super) fn serve(&mut self, index: Option<usize>, helper: Pid) {
        // An error: it is no child any more.
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let Some((listener, program)) = index.and_then(|index| self.listeners.get(index)) else { return };
        while let Ok((stream, _)) = listener.accept() {
            let is_helper = socket_peercred(&stream).is_ok_and(|peer| peer.pid == helper);
            if is_helper
                && self.running.len() < PROGRAMS_MAX
                && let Ok(child) = program.run(stream)
            {
                self.running.push(child);
            }
        }
    }
}

impl Program {
    /// One that cannot be started is as one that ends at once.
    fn run(&self, stream: UnixStream) -> io::Result<Child> {
        let (name, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        stream.set_nonblocking(false)?;
        let stream = if self.wants_inet { relay(stream)?.into() } else { OwnedFd::from(stream) };
        let (output, errors) = (stream.try_clone()?, stream.try_clone()?);
        let mut command = Command::new(name);
        command.args(arguments).stdin(stream).stdout(output).stderr(errors).spawn()
    }
}

/// A connection over the loopback interface whose bytes are those of `stream`, both ways until their ends.
fn relay(stream: UnixStream) -> io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, from) = listener.accept()?;
    if from != ours.local_addr()? {
        // Somebody else on this host was faster.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let (mut from_guest, mut to_guest) = (stream.try_clone()?, stream);
    let (mut to_program, mut from_program) = (ours.try_clone()?, ours);
    thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut from_guest, &mut to_program);
        let _ = to_program.shutdown(Shutdown::Write);
    })?;
    thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut from_program, &mut to_guest);
        let _ = to_guest.shutdown(Shutdown::Both);
    })?;
    Ok(theirs)
}

fn smbd(directory: &Path) -> Program {
    let conf = directory.join("smb.conf").display().to_string();
    let words = [SMBD.into(), "-l".into(), directory.display().to_string(), "-s".into(), conf];
    Program { words: words.into(), wants_inet: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    #[test]
    fn sockets_are_nobodys_or_without_that_privilege_everybodys_to_find() {
        for (privileged, owner, mode) in [(true, NOBODY, 0o700), (false, 0, 0o711)] {
            let directory = tempfile::tempdir().expect("a directory can be made");
            let sockets = socket_directory(directory.path());
            fs::DirBuilder::new().mode(0o700).create(&sockets).expect("it is ours");
            let path = directory.path().to_owned();
            // Capabilities are a thread's own.
            let thread = thread::spawn(move || {
                let mut own = capabilities(None).expect("it has some");
                own.effective.set(CapabilitySet::CHOWN, privileged);
                set_capabilities(None, own).expect("it may have fewer");
                hand_over(&path)
            });
            thread.join().expect("it does not panic").expect("it is handed over");
            let found = fs::metadata(&sockets).expect("it is there");
            assert_eq!((found.uid(), found.mode() & 0o777), (owner, mode));
            let found = fs::metadata(directory.path()).expect("it is there");
            assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o711));
        }
    }
}

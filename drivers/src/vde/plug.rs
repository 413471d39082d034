//! How one plugs into a switch of VDE: what `vde_switch` of VDE 2 expects, without its library.
//!
//! The control socket is a stream, `DIRECTORY/ctl`. One makes a datagram socket with a path of its own, sends the path
//! and a port number over the control socket, and gets the path of the switch's datagram socket back. From then on frames
//! are datagrams between the two, whose paths are needed no more; the port is ours until the control socket is closed.
//! A switch that has no such port, or may not use our socket, hangs up or says nothing at all.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

use super::VdeOptions;
use crate::errno;
use crate::socket_file::SocketFile;

/// A port of a switch, for as long as the control socket is open.
pub(super) struct Plug {
    /// The switch's directory.
    pub directory: PathBuf,
    /// Ends when the switch closes the port or goes away.
    pub control: OwnedFd,
    /// Connected to the switch: a frame a datagram.
    pub data: OwnedFd,
}

/// Why there is no port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A system call's error.
    System(Errno),
    /// What the switch did.
    Switch(&'static str),
    /// Nobody wants to know any more.
    Stopped,
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::System(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::System(error) => f.write_str(&errno::text(*error)),
            Failure::Switch(what) => f.write_str(what),
            Failure::Stopped => f.write_str("stopped"),
        }
    }
}

/// What came of waiting for a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Readable,
    TimedOut,
    Stopped,
}

/// Waits until a descriptor is readable, at most that long.
pub(super) type Patience<'a> = &'a dyn Fn(BorrowedFd<'_>, Duration) -> Waited;

impl Plug {
    /// Asks for a port. Waits for the switch with `patience`, [`ANSWER_TIME_MAX`] at most.
    pub(super) fn insert(options: &VdeOptions, patience: Patience<'_>) -> Result<Plug, Failure> {
        let (directory, control) = reach(options.sock.as_deref())?;
        let ours = Socket::bind(&directory)?;
        ours.grant(options, &directory.join(CONTROL))?;
        let request = request(options, ours.name.0.as_os_str().as_bytes());
        let sent = send(&control, &request, SendFlags::NOSIGNAL)?;
        if sent < request.len() {
            return Err(Failure::System(Errno::AGAIN));
        }
        let answer = receive(control.as_fd(), patience)?;
        connect(&ours.fd, &SocketAddrUnix::new(path_in(&answer)?)?)?;
        Ok(Plug { directory, control, data: ours.fd })
    }
}

/// Connects to the switch at `given`, or to the first one at a usual place.
fn reach(given: Option<&Path>) -> Result<(PathBuf, OwnedFd), Failure> {
    let usual = USUAL_PLACES.map(Path::new);
    let places = given.as_ref().map_or(&usual[..], std::slice::from_ref);
    let mut failure = Failure::System(Errno::NOENT);
    for place in places {
        match reach_one(place) {
            Ok(reached) => return Ok(reached),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

fn reach_one(place: &Path) -> Result<(PathBuf, OwnedFd), Errno> {
    // The switch does not know our working directory.
    let directory =
        place.canonicalize().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let control = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&control, &SocketAddrUnix::new(directory.join(CONTROL))?)?;
    Ok((directory, control))
}

/// Our datagram socket, while it has a path.
struct Socket {
    fd: OwnedFd,
    name: Name,
}

/// A socket's path, which goes when this is dropped.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = rustix::fs::unlink(&self.0);
    }
}

impl Socket {
    /// In the switch's directory, or where else sockets are. Nobody may use it yet.
    fn bind(directory: &Path) -> Result<Socket, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        SocketFile::withhold(&fd)?;
        let elsewhere = SPARE_PLACES.iter().map(|place| (Path::new(place), "vde."));
        let mut failure = Errno::NOENT;
        for (place, prefix) in [(directory, ".")].into_iter().chain(elsewhere) {
            match bind_in(&fd, place, prefix) {
                Ok(name) => return Ok(Socket { fd, name }),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Lets those use it that the options name. Without a group, and with a mode for the owner alone, a switch that
    /// neither root nor we run may use it too, by the group of its own socket.
    fn grant(&self, options: &VdeOptions, control: &Path) -> Result<(), Failure> {
        // Whoever owns the directory can put another file there.
        let file =
            SocketFile::open(CWD, &self.name.0).map_err(|error| match Errno::from_io_error(&error) {
                Some(error) => Failure::System(error),
                None => Failure::Switch("somebody has replaced our socket"),
            })?;
        let user = rustix::process::geteuid().as_raw();
        let mut mode = options.mode & 0o7777;
        match options.group {
            Some(group) => file.set_group(group)?,
            None if mode & 0o077 == 0 => {
                let switch = rustix::fs::stat(control)?;
                let needs_group = switch.st_uid != 0 && switch.st_uid != user;
                if needs_group && file.set_group(switch.st_gid).is_ok() {
                    mode |= mode >> 3 & 0o070;
                }
            }
            None => {}
        }
        Ok(file.set_mode(mode)?)
    }
}

/// Gives the socket a path in `directory` that nobody has.
fn bind_in(socket: &OwnedFd, directory: &Path, prefix: &str) -> Result<Name, Errno> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let process = rustix::process::getpid().as_raw_nonzero();
    for _ in 0..NAMES_MAX {
        // Relaxed: only the number's uniqueness counts.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 100_000;
        let path = directory.join(format!("{prefix}{process:05}-{number:05}"));
        match bind(socket, &SocketAddrUnix::new(&path)?) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map(|()| Name(path)),
        }
    }
    Err(Errno::ADDRINUSE)
}

/// The request: four fields, all in the machine's own order, and a description.
fn request(options: &VdeOptions, path: &[u8]) -> Vec<u8> {
    let kind = NEW_PORT | u32::from(options.port) << 8;
    let mut request = Vec::with_capacity(12 + ADDRESS_LEN + DESCRIPTION_LEN_MAX);
    request.extend([MAGIC, VERSION, kind].iter().flat_map(|word| word.to_ne_bytes()));
    request.extend((libc::AF_UNIX as u16).to_ne_bytes());
    request.extend(path);
    request.resize(12 + ADDRESS_LEN, 0);
    request.extend(options.description.bytes().take(DESCRIPTION_LEN_MAX));
    request
}

/// The switch's answer, whole.
fn receive(control: BorrowedFd<'_>, patience: Patience<'_>) -> Result<[u8; ADDRESS_LEN], Failure> {
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let mut answer = [0; ADDRESS_LEN];
    let mut len = 0;
    while len < answer.len() {
        match recv(control, &mut answer[len..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Failure::Switch(HUNG_UP)),
            Ok((more, _)) => len += more,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(Failure::Switch(HUNG_UP)),
            Err(Errno::AGAIN) => {
                match patience(control, deadline.saturating_duration_since(Instant::now())) {
                    Waited::Readable => {}
                    Waited::TimedOut => return Err(SILENCE),
                    Waited::Stopped => return Err(Failure::Stopped),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

/// The path in a `sockaddr_un`: of a file, from the root, and ended by a zero.
fn path_in(answer: &[u8; ADDRESS_LEN]) -> Result<&OsStr, Failure> {
    let (family, path) = answer.split_at(2);
    let end = path.iter().position(|&byte| byte == 0);
    match end.map(|end| &path[..end]) {
        Some(path @ [b'/', ..]) if family == (libc::AF_UNIX as u16).to_ne_bytes() => {
            Ok(OsStr::from_bytes(path))
        }
        _ => Err(Failure::Switch(NO_ADDRESS)),
    }
}

/// Where switches are when nobody says where.
const USUAL_PLACES: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];
/// Where our socket is made when it cannot be beside the switch's.
const SPARE_PLACES: [&str; 3] = ["/var/run", "/var/tmp", "/tmp"];
/// The control socket's name.
const CONTROL: &str = "ctl";
const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
/// The port's number stands above this byte; 0: any port.
const NEW_PORT: u32 = 0;
/// Bytes of a `sockaddr_un`.
const ADDRESS_LEN: usize = 110;
/// Bytes that the switch keeps to show who is there.
const DESCRIPTION_LEN_MAX: usize = 127;
/// Names tried in one directory.
const NAMES_MAX: u32 = 1000;
/// From the request to the whole answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

const HUNG_UP: &str = "the switch hung up: it may not use our socket (group=, mode=), or does not take us";
/// It did not answer in time.
pub(super) const SILENCE: Failure =
    Failure::Switch("the switch does not answer: it may have no such port, or not a free one");
const NO_ADDRESS: &str = "the switch's answer names no socket";

#[cfg(any(test, fuzzing))]
#[path = "plug_fuzzing.rs"]
pub mod fuzzing;
#[cfg(test)]
#[path = "plug_tests.rs"]
mod tests;

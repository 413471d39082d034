//! What is measured: a ringyard that the bench starts, any vhost-user back end, or whatever is between some interfaces.

#![allow(unsafe_code)] // a child that dies with us: prctl between fork and exec

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::packet::PacketPort;
use super::port::Port;
use crate::error::{Doing, Error, Result};
use crate::front_end::FrontEnd;
use crate::guest::GuestConfig;
use crate::traffic::guest_mac;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A ringyard of our own.
    Own {
        /// The program.
        program: PathBuf,
    },
    /// Back ends at these sockets, two or more.
    Sockets(Vec<SocketSpec>),
    /// Interfaces, two or more.
    Interfaces(Vec<InterfaceSpec>),
}

/// A vhost-user socket: `PATH` or `PATH,server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// The unix socket.
    pub path: PathBuf,
    /// We listen and the back end connects; else the other way round.
    pub server: bool,
}

/// An interface: `NAME` or `NETNS/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// The namespace below /run/netns; else our own.
    pub netns: Option<String>,
    /// The interface's name.
    pub name: String,
}

impl std::str::FromStr for SocketSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<SocketSpec, String> {
        let (path, server) = match text.strip_suffix(",server") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err("the socket has no path".into());
        }
        Ok(SocketSpec { path: path.into(), server })
    }
}

impl std::str::FromStr for InterfaceSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<InterfaceSpec, String> {
        let (netns, name) = match text.split_once('/') {
            Some((netns, name)) => (Some(netns.to_owned()), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || netns.as_deref() == Some("") {
            return Err(format!("'{text}' is neither NAME nor NETNS/NAME"));
        }
        Ok(InterfaceSpec { netns, name: name.into() })
    }
}

impl Target {
    /// As reports name it.
    pub fn name(&self) -> String {
        let list = |parts: Vec<String>| parts.join(" + ");
        match self {
            Target::Own { .. } => "ringyard".into(),
            Target::Sockets(sockets) => list(sockets.iter().map(|socket| file_name(&socket.path)).collect()),
            Target::Interfaces(interfaces) => list(interfaces.iter().map(|one| one.name.clone()).collect()),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Listens at every socket that the back end is to connect to. Done once: a socket serves all guests to come.
pub fn listen(sockets: &[SocketSpec]) -> Result<Vec<Option<UnixListener>>> {
    let listener = |socket: &SocketSpec| {
        if !socket.server {
            return Ok(None);
        }
        // What an earlier run left behind; nothing but a socket is removed.
        if fs::symlink_metadata(&socket.path).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(&socket.path).doing(format!("removing {}", socket.path.display()))?;
        }
        UnixListener::bind(&socket.path).doing(format!("listening at {}", socket.path.display())).map(Some)
    };
    sockets.iter().map(listener).collect()
}

/// Plugs a guest into a back end.
pub fn plug(socket: &SocketSpec, listener: Option<&UnixListener>, config: &GuestConfig) -> Result<Port> {
    let front_end = match listener {
        None => FrontEnd::connect(&socket.path, config)?,
        Some(listener) => {
            wait_for_peer(listener).doing(format!("waiting for a back end at {}", socket.path.display()))?;
            FrontEnd::accept(listener, config)?
        }
    };
    Ok(Port::Plugged(Box::new(front_end)))
}

/// Opens an interface.
pub fn open(interface: &InterfaceSpec) -> Result<Port> {
    PacketPort::open(interface.netns.as_deref(), &interface.name).map(|port| Port::Packet(Box::new(port)))
}

fn wait_for_peer(listener: &UnixListener) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: PEER_TIME_MAX.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)) {
        Ok(0) => Err(Error::new(format!("none came within {} s", PEER_TIME_MAX.as_secs()))),
        result => result.map(drop).map_err(Error::new),
    }
}

/// A ringyard in a process of its own, with vhost-user ports on hub 0. Dropping it ends it.
pub struct OwnSwitch {
    child: Child,
    directory: PrivateDirectory,
    ports: usize,
}

/// What the switch is to be.
#[derive(Clone, Copy, Debug)]
pub struct OwnConfig {
    /// vhost-user ports.
    pub ports: usize,
    /// Queue pairs of each.
    pub pairs: u16,
    /// Whether a nic with the address of its guest stands behind each port; without one, a port takes everything.
    pub nics: bool,
    /// Where it forwards.
    pub core: usize,
    /// Its worker's mode.
    pub mode: &'static str,
    /// Cores that its process may use, whatever ours is pinned to.
    pub allowed: CpuSet,
}

impl OwnSwitch {
    /// Starts it and waits for its sockets.
    pub fn start(program: &Path, config: OwnConfig) -> Result<OwnSwitch> {
        let directory = PrivateDirectory::new()?;
        let mut command = Command::new(program);
        command.args([
            "run",
            "--cores",
            &config.core.to_string(),
            "--mode",
            config.mode,
            "--log-level",
            "warn",
        ]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", directory.0.join(MONITOR).display()));
        let queues = if config.pairs > 1 { format!(",queues={}", config.pairs) } else { String::new() };
        for port in 0..config.ports {
            let (path, mac) = (socket_in(&directory.0, port), guest_mac(port));
            let mut option = |name: &str, value: String| {
                command.arg(name).arg(value);
            };
            option("-chardev", format!("socket,id=c{port},path={},server=on,wait=off", path.display()));
            option("-netdev", format!("vhost-user,id=n{port},chardev=c{port}{queues}"));
            option("-netdev", format!("hubport,id=h{port},hubid=0,netdev=n{port}"));
            if config.nics {
                option("-netdev", format!("nic,id=g{port},netdev=n{port},macaddr={mac}"));
            }
        }
        let log = directory.0.join(LOG);
        let file = File::create(&log).doing(format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(sched_setaffinity(None, &config.allowed)?)
        };
        // SAFETY: the two system calls are all that is done between fork and exec, and both are async-signal-safe.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().doing(format!("starting {}", program.display()))?;
        let mut switch = OwnSwitch { child, directory, ports: config.ports };
        switch.wait_until_ready()?;
        Ok(switch)
    }

    /// Where guest `port` connects.
    pub fn socket(&self, port: usize) -> SocketSpec {
        SocketSpec { path: socket_in(&self.directory.0, port), server: false }
    }

    /// A path for one more socket.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// Its monitor.
    pub fn monitor(&self) -> PathBuf {
        self.directory.0.join(MONITOR)
    }

    /// Its ports.
    pub fn ports(&self) -> usize {
        self.ports
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let sockets = (0..self.ports).map(|port| socket_in(&self.directory.0, port));
            if sockets.chain([self.monitor()]).all(|socket| socket.exists()) {
                return Ok(());
            }
            let ended = self.child.try_wait().doing("asking after the switch")?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.0.join(LOG)).unwrap_or_default();
                return Err(Error::new(format!("the switch did not start ({ended:?}); it wrote:\n{log}")));
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for OwnSwitch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_TIME_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cores that the calling thread may use.
pub fn allowed_cores() -> Result<CpuSet> {
    sched_getaffinity(None).doing("asking for our cores")
}

fn socket_in(directory: &Path, port: usize) -> PathBuf {
    directory.join(format!("port{port}"))
}

/// A directory that is removed, with what is in it, when this is dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> Result<PrivateDirectory> {
        let parent = std::env::temp_dir();
        for number in 0..DIRECTORIES_MAX {
            let path = parent.join(format!("ringyard-bench-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(PrivateDirectory(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).doing(format!("making {}", path.display())),
            }
        }
        Err(Error::new(format!("{} is full of old directories", parent.display())))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // What stays behind is ours and small.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MONITOR: &str = "monitor";
const LOG: &str = "log";
const START_TIME_MAX: Duration = Duration::from_secs(10);
const END_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a back end may take to connect.
const PEER_TIME_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
const DIRECTORIES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_written_with_who_listens() {
        let socket: SocketSpec = "/run/a".parse().unwrap();
        assert_eq!(socket, SocketSpec { path: "/run/a".into(), server: false });
        let socket: SocketSpec = "/run/a,server".parse().unwrap();
        assert_eq!(socket, SocketSpec { path: "/run/a".into(), server: true });
        assert!(",server".parse::<SocketSpec>().is_err());
    }

    #[test]
    fn interfaces_are_written_with_their_namespace() {
        let plain: InterfaceSpec = "tap0".parse().unwrap();
        assert_eq!(plain, InterfaceSpec { netns: None, name: "tap0".into() });
        let inside: InterfaceSpec = "red/tap0".parse().unwrap();
        assert_eq!(inside, InterfaceSpec { netns: Some("red".into()), name: "tap0".into() });
        for text in ["", "/tap0", "red/", "a/b/c"] {
            assert!(text.parse::<InterfaceSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn listening_replaces_an_old_socket_and_nothing_else() {
        let directory = PrivateDirectory::new().unwrap();
        let spec = |name: &str| vec![SocketSpec { path: directory.0.join(name), server: true }];
        drop(listen(&spec("old")).unwrap());
        assert!(directory.0.join("old").exists());
        assert_eq!(listen(&spec("old")).unwrap().len(), 1);
        fs::write(directory.0.join("file"), "precious").unwrap();
        assert!(listen(&spec("file")).is_err());
        assert_eq!(fs::read_to_string(directory.0.join("file")).unwrap(), "precious");
    }

    #[test]
    fn program_that_is_no_switch_is_an_error_with_what_it_wrote() {
        let config = OwnConfig {
            ports: 1,
            pairs: 1,
            nics: true,
            core: 0,
            mode: "poll",
            allowed: allowed_cores().unwrap(),
        };
        let error = OwnSwitch::start(Path::new("/bin/false"), config).map(drop).unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
    }
}

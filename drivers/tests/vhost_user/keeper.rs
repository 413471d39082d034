//! A switch in a process of its own, which is killed and started again, and the keeper of its descriptors.
//!
//! The process is this test binary: [`switch_that_is_killed`] is what it runs, and does nothing for anybody else.

use std::env;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringyard_drivers::chardev::{SocketAccess, SocketChardev, SocketRole};
use ringyard_drivers::store::{Shelf, Store, notify_socket};
use ringyard_drivers::vhost_user::Keeping;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::yard::Yard;

/// Where the switch finds everything; nobody else has this variable.
const DIR: &str = "RINGYARD_TEST_SWITCH";
/// Bytes of a descriptor's name on its way to the switch.
const LABEL_LEN: usize = 32;

pub struct Keeper {
    dir: tempfile::TempDir,
    /// Each asks for a kill, and is told when it was.
    kills: Option<Sender<Kill>>,
    thread: Option<JoinHandle<()>>,
}

/// What is left after a kill, and who is told of it.
type Kill = (Left, Sender<Instant>);

enum Left {
    Kept,
    Nothing,
}

impl Keeper {
    /// A switch with two ports of one queue pair.
    pub fn start() -> Keeper {
        let dir = tempfile::tempdir().unwrap();
        let (kills, asked) = channel();
        let path = dir.path().to_owned();
        let thread = thread::spawn(move || keep(&path, &asked));
        Keeper { dir, kills: Some(kills), thread: Some(thread) }
    }

    pub fn path(&self, port: usize) -> PathBuf {
        self.dir.path().join(port.to_string())
    }

    /// A connection to a port, as soon as the switch listens, which may just have been killed.
    pub fn connect(&self, port: usize) -> UnixStream {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(self.path(port)) {
                Ok(socket) => return socket,
                Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills the switch and has it started again; when it was killed.
    pub fn kill(&self) -> Instant {
        self.kill_it(Left::Kept)
    }

    /// The same, with all that was kept.
    pub fn kill_all(&self) -> Instant {
        self.kill_it(Left::Nothing)
    }

    fn kill_it(&self, left: Left) -> Instant {
        let (done, killed) = channel();
        self.kills.as_ref().unwrap().send((left, done)).unwrap();
        killed.recv_timeout(Duration::from_secs(20)).expect("the keeper is there")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kills = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(dir: &Path, kills: &Receiver<Kill>) {
    let (notify, mut shelf) = (notify_socket(&dir.join("notify")).unwrap(), Shelf::new(1000));
    let handover = UnixListener::bind(dir.join("handover")).unwrap();
    handover.set_nonblocking(true).unwrap();
    let mut child = spawn(dir);
    loop {
        shelf.serve(&notify, |_| true);
        if let Ok((socket, _)) = handover.accept() {
            hand_over(&socket, &shelf);
        }
        match kills.try_recv() {
            Ok((left, done)) => {
                let now = Instant::now();
                end(&mut child);
                // All that it sent, before its successor is given it.
                shelf.serve(&notify, |_| true);
                if matches!(left, Left::Nothing) {
                    shelf.clear();
                }
                child = spawn(dir);
                done.send(now).unwrap();
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: 200_000 };
        let mut fds = [PollFd::new(&notify, PollFlags::IN), PollFd::new(&handover, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&limit));
    }
    end(&mut child);
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "keeper::switch_that_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(DIR, dir).stdout(Stdio::null()).spawn().unwrap()
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn hand_over(socket: &UnixStream, shelf: &Shelf) {
    // The end of the stream says that it was all.
    for (label, fd) in shelf.kept() {
        let mut bytes = label.clone().into_bytes();
        bytes.resize(LABEL_LEN, 0);
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(LABEL_LEN));
    }
}

fn receive(socket: &UnixStream) -> Option<(String, OwnedFd)> {
    let mut bytes = [0; LABEL_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let count = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })?;
    assert_eq!(count.unwrap().bytes, LABEL_LEN);
    Some((String::from_utf8(bytes.to_vec()).unwrap().trim_end_matches('\0').to_owned(), fd))
}

#[test]
fn switch_that_is_killed() {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else { return };
    let socket = UnixStream::connect(dir.join("handover")).unwrap();
    let given: Vec<_> = std::iter::from_fn(|| receive(&socket)).collect();
    let store = Store::at(dir.join("notify").as_os_str(), given).unwrap();
    let keepings = [0, 1].map(|port: usize| Keeping { store: store.clone(), chardev: port.to_string() });
    let mut yard = Yard::after(keepings.iter().filter(|keeping| keeping.has_connection()).count());
    for (port, keeping) in keepings.into_iter().enumerate() {
        let path = dir.join(port.to_string());
        let chardev = SocketChardev::open(&path, SocketRole::Server, &SocketAccess::default()).unwrap();
        yard.add_kept(chardev, 1, keeping);
    }
    // Until it is killed, or nobody is there to do so.
    let keeper = rustix::process::getppid();
    while rustix::process::getppid() == keeper {
        thread::sleep(Duration::from_millis(100));
    }
}

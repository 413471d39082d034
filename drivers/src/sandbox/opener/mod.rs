//! The opener: the process that makes, opens and finds things for a switch that is confined, and starts programs for it.
//!
//! It is this program, started again as `ringyard opener` by the switch before that has any other thread. The switch's filter
//! tells it of each call that needs it, by the kernel (`listener`); it copies the arguments (`caller`), judges the copy
//! (`policy`), does the same call itself (`paths`, `devices`), and what comes of it is what the call returns. So no driver
//! knows of it, and a call that nobody has thought of meets the policy. It never lets the kernel go on with a call: what is
//! done is what was judged.
//!
//! Programs (`programs`) and XDP's bpf(2) are asked for over a socket, for neither is a call that another process can make
//! in one's place.
//!
//! It keeps the rights that the switch gives up, reads nothing that comes over a network, and ends with the switch.

mod caller;
mod devices;
mod listener;
mod paths;
mod policy;
mod programs;
mod serve;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, stdin};

use super::messages::{Reply, Request, receive, send};
use crate::af_xdp::{Redirect, SocketMap};
use crate::sys::process::{close_others, outlive};
use caller::Caller;
use devices::Travellers;
use listener::Listener;
use paths::find_socket;
use policy::Policy;
pub(super) use policy::is_door;
use programs::{Place, Programs};
use serve::Server;

/// The subcommand, which no help shows.
pub const SUBCOMMAND: &str = "opener";
/// Calls that are served at once; further ones wait.
const THREADS: usize = 4;

/// Runs the opener, on the socket that it was started with, until the switch ends.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is there to be told.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = Arc::new(stdin().try_clone_to_owned()?);
    close_others([socket.as_fd(), socket.as_fd()]);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(null.as_fd())?;
    // Whoever stops the switch by a signal to all of its processes shall not stop us first: it still has to remove its
    // sockets.
    outlive(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);

    // While its number is free.
    let place = Place::keep()?;

    let switch = getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    let caller = Caller::new(switch)?;
    let (hello, _) = receive(&*socket)?;
    let Request::Hello { address, value, number, mut writable, allowed } = hello else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if let Err(why) = probe(&caller, address, value, number) {
        return send(&socket, &Reply::Refused(why), &[]);
    }
    writable.extend(std::env::current_dir());
    send(&socket, &Reply::Ready, &[])?;
    let (Request::Begin, mut fds) = receive(&*socket)? else { return Err(io::ErrorKind::InvalidData.into()) };
    let listener = Listener(fds.pop().ok_or(io::ErrorKind::InvalidData)?);

    let told = socket.clone();
    let tell = move |text: String| _ = send(&told, &Reply::Note(text), &[]);
    let server = Arc::new(Server {
        listener,
        caller,
        policy: Policy::new(switch, writable),
        travellers: Travellers::default(),
        turn: Mutex::default(),
        refused: Mutex::default(),
        tell: Box::new(tell),
    });
    for _ in 0..THREADS {
        let server = server.clone();
        thread::Builder::new().spawn(move || server.run())?;
    }
    answer_all(&socket, Programs::new(allowed, place))
}

/// Whether we may look into the switch, and have its descriptors.
fn probe(caller: &Caller, address: u64, value: u64, number: i32) -> Result<(), String> {
    let read = caller.read(address, size_of::<u64>());
    if !read.is_ok_and(|bytes| bytes == value.to_ne_bytes()) {
        return Err("the opener may not look into the switch (ptrace)".into());
    }
    let fd = caller.descriptor(number as u64);
    fd.map(drop).map_err(|error| format!("the opener cannot have the switch's descriptors: {error}"))
}

/// Answers requests, and tells of programs that end, until the switch does.
fn answer_all(socket: &OwnedFd, mut programs: Programs) -> io::Result<()> {
    loop {
        for (program, status) in programs.wait(socket)? {
            send(socket, &Reply::Ended { program, status }, &[])?;
        }
        if !programs.is_asked() {
            continue;
        }
        let (request, fds) = receive(socket)?;
        match answer(&mut programs, request, fds) {
            Ok((number, made)) => {
                let made: Vec<BorrowedFd<'_>> = made.iter().map(OwnedFd::as_fd).collect();
                send(socket, &Reply::Done(number), &made)?;
            }
            Err(error) => {
                let reply = match error.raw_os_error() {
                    Some(number) => Reply::Failed(number),
                    None => Reply::Refused(error.to_string()),
                };
                send(socket, &reply, &[])?;
            }
        }
    }
}

fn answer(programs: &mut Programs, request: Request, fds: Vec<OwnedFd>) -> io::Result<(i32, Vec<OwnedFd>)> {
    let mut fds = fds.into_iter();
    let mut fd = || fds.next().ok_or(io::Error::from(io::ErrorKind::InvalidData));
    match request {
        Request::Start(order) => {
            let (number, handle) = programs.start(order, fds)?;
            Ok((number, vec![handle]))
        }
        Request::Kill(program) => programs.kill(program).map(|()| (0, Vec::new())),
        Request::Find(path) => Ok((0, vec![find_socket(fd().ok().as_ref(), &path)?])),
        Request::MakeMap { queues } => Ok((0, vec![SocketMap::new(queues)?.into()])),
        Request::OpenMap(path) => Ok((0, vec![SocketMap::open(&path)?.into()])),
        Request::PinMap(path) => SocketMap::from(fd()?).pin(&path).map(|()| (0, Vec::new())),
        Request::Insert { queue } => {
            let (map, socket) = (SocketMap::from(fd()?), fd()?);
            map.insert(queue, socket.as_fd()).map(|()| (0, Vec::new()))
        }
        Request::Attach { index, how } => {
            let attached = Redirect::attach(&SocketMap::from(fd()?), index, how)?;
            Ok((0, attached.into()))
        }
        Request::Hello { .. } | Request::Begin => Err(io::ErrorKind::InvalidData.into()),
    }
}

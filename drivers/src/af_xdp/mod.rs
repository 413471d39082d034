//! `af-xdp`: an interface of the host kernel, whose frames come and go in memory that we share with its driver.
//!
//! Each queue of the interface has a socket with rings (`ring`) and chunks of memory (`umem`) of its own; a program
//! (`bpf`) hands the queue's frames to it, in the driver (`native`) or behind it (`skb`), before the host's own network
//! stack sees them. Frames are lent from the chunks that they came in by, and copied once into those that they go out by
//! (`queue`). Longer ones than a chunk lie in several where kernel (6.6) and driver have that, and are `too_long` elsewhere.
//!
//! A socket's frames say nothing about offloads. What we send is finished in software first. What comes in must be
//! finished by whoever sent it: at the other end of a veth pair, where a kernel saves itself checksums and segmentation,
//! `ethtool -K IFNAME tx off` makes it do so.
//!
//! The port's thread (`life`) follows the interface: down, gone, made again, its MTU.

mod bpf;
mod life;
mod queue;
mod ring;
mod socket;
mod umem;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, getrlimit};

pub use bpf::{Attach, Redirect, SocketMap};
use life::Life;
use queue::XdpQueue;
use socket::{Binding, Failed, Socket};
use umem::{UMEM_LEN, Umem};

use crate::errno;
use crate::health::Health;
use crate::line::Line;
use crate::minder::Minder;

/// What workers call for it: to have the kernel look at its rings.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_recvmmsg, libc::SYS_sendmmsg];
/// Queues of a port, at most.
pub const QUEUES_MAX: u32 = 256;
/// The highest number that a queue of an interface can have.
pub const QUEUE_MAX: u32 = u16::MAX as u32;

/// All that opening an interface needs.
#[derive(Debug)]
pub struct AfXdpOptions {
    /// The interface's name.
    pub ifname: String,
    /// How the program is attached: `None`, natively where that is possible.
    pub mode: Option<Attach>,
    /// Whether frames are copied between the driver's memory and ours even where the driver could use ours.
    pub force_copy: bool,
    /// Queues, from 1 to [`QUEUES_MAX`].
    pub queues: u32,
    /// The first of them.
    pub start_queue: u32,
    /// Where sockets and program come from.
    pub source: Source,
}

/// Who makes the program and the sockets.
#[derive(Debug)]
pub enum Source {
    /// We make both.
    Own,
    /// A program is there that looks up a pinned map: our sockets go in there.
    Map {
        /// The file of the map.
        path: PathBuf,
        /// The place of the first queue's socket.
        start_index: u32,
    },
    /// A program is there, and sockets that it knows and that are not bound, one a queue.
    Sockets(Vec<OwnedFd>),
}

/// An open interface. Dropping it closes its sockets and takes our program off.
pub struct AfXdpPort {
    name: Arc<str>,
    queues: usize,
    /// Until it is asked for: what is attached later is the thread's, and this must not keep it.
    attachment: Mutex<Attachment>,
    /// Until the thread has it.
    life: Option<Life>,
    trouble: Trouble,
    minder: Option<Minder>,
}

/// Why a port does not work, for people; none while it does. Written by its thread.
type Trouble = Arc<Mutex<Option<String>>>;

impl AfXdpPort {
    /// Opens the sockets, and attaches the program if it is ours.
    ///
    /// Errors: the text for people, in QEMU's words where it has some.
    pub fn open(options: AfXdpOptions) -> Result<AfXdpPort, String> {
        let trouble = Trouble::default();
        let (name, queues) = (options.ifname.as_str().into(), options.queues as usize);
        let life = Life::begin(options, trouble.clone())?;
        let attachment = Mutex::new(life.attachment());
        Ok(AfXdpPort { name, queues, attachment, life: Some(life), trouble, minder: None })
    }

    /// What workers get at first; to be asked for once.
    pub fn attachment(&self) -> Attachment {
        std::mem::take(&mut *self.attachment.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the interface from now on, and reports over `line`.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        if let Some(life) = self.life.take() {
            self.minder = Some(Minder::start("af-xdp", move |stop| life.live(stop, &line))?);
        }
        Ok(())
    }

    /// Queues.
    pub fn queues(&self) -> usize {
        self.queues
    }

    /// How a queue stands.
    pub fn info(&self, queue: usize) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().unwrap_or_else(|| format!("af-xdp{queue} to {}", self.name))
    }
}

/// Why sockets could not be opened.
struct OpenError {
    /// For people, in QEMU's words where it has some.
    text: String,
    /// Somebody else has the interface, or the queue of it.
    busy: bool,
}

impl OpenError {
    fn new(doing: String, error: io::Error) -> OpenError {
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        OpenError { text: format!("{doing}: {}", errno::text(error)), busy }
    }
}

/// The sockets of a port, and the program that knows them.
struct Sockets {
    interface: u32,
    queues: Vec<Arc<XdpQueue>>,
    health: Arc<Health>,
    /// Taken off when dropped.
    _redirect: Option<Redirect>,
}

impl Sockets {
    /// Opens them as the options say, with `given` where that are descriptors.
    fn open(options: &AfXdpOptions, given: Vec<OwnedFd>) -> Result<Sockets, OpenError> {
        let name = &options.ifname;
        let interface = interface_number(name)
            .map_err(|error| OpenError::new(format!("failed to get ifindex for '{name}'"), error))?;
        if !matches!(options.source, Source::Own) {
            return Sockets::bind(options, interface, options.force_copy, given, None);
        }
        let open = |mode| Sockets::open_own(options, interface, mode);
        match options.mode {
            Some(mode) => open(mode),
            None => open(Attach::Native)
                .or_else(|native| open(Attach::Skb).map_err(|skb| if native.busy { native } else { skb })),
        }
    }

    fn open_own(options: &AfXdpOptions, interface: u32, mode: Attach) -> Result<Sockets, OpenError> {
        let failed = |error| {
            let name = &options.ifname;
            OpenError::new(format!("failed to load an XDP program on '{name}', ifindex: {interface}"), error)
        };
        let map = SocketMap::new(options.start_queue + options.queues).map_err(failed)?;
        let redirect = Redirect::attach(&map, interface, mode).map_err(failed)?;
        // Behind the driver, frames are copied in any case; a driver that has our memory would not bring them there.
        let copy = options.force_copy || mode == Attach::Skb;
        Sockets::bind(options, interface, copy, Vec::new(), Some((map, redirect)))
    }

    fn bind(
        options: &AfXdpOptions,
        interface: u32,
        copy: bool,
        given: Vec<OwnedFd>,
        own: Option<(SocketMap, Redirect)>,
    ) -> Result<Sockets, OpenError> {
        let health = Health::new().map_err(|error| OpenError::new("making an eventfd".into(), error))?;
        let health = Arc::new(health);
        let (mut queues, mut given) = (Vec::new(), given.into_iter());
        for index in 0..options.queues {
            let queue = options.start_queue + index;
            let fd = given.next().map_or_else(Socket::create, Ok);
            let fd = fd.map_err(|error| options.failed(queue, Failed("making", error)))?;
            let umem = Umem::new()
                .map_err(|error| options.failed(queue, Failed("mapping the memory of", error.into())))?;
            let binding = Binding { interface, queue, copy };
            let bound = Socket::bind(fd, &umem, binding);
            let (socket, rings) = bound.map_err(|failed| options.failed(queue, failed))?;
            options.insert(own.as_ref().map(|(map, _)| map), index, &socket)?;
            queues.push(Arc::new(XdpQueue::new(index as u16, socket, rings, umem, health.clone())));
        }
        Ok(Sockets { interface, queues, health, _redirect: own.map(|(_, redirect)| redirect) })
    }

    fn attachment(&self, carrier: bool) -> Attachment {
        let ingress = |(index, queue): (usize, &Arc<XdpQueue>)| {
            let (ingress, doorbell) = (queue.clone(), queue.clone());
            Arc::new(IngressEnd {
                queue: index as u16,
                ingress,
                doorbell,
                linger_us: LINGER_US,
                discard: None,
            })
        };
        Attachment {
            carrier,
            ingress: self.queues.iter().enumerate().map(ingress).collect(),
            egress: self.queues.iter().map(|queue| queue.clone() as Arc<dyn Egress>).collect(),
            rings: Vec::new(),
        }
    }
}

impl AfXdpOptions {
    /// Puts the socket of queue `index` of the port where the program looks for it.
    fn insert(&self, own: Option<&SocketMap>, index: u32, socket: &Socket) -> Result<(), OpenError> {
        if let Source::Map { path, start_index } = &self.source {
            return insert_pinned(path, start_index + index, socket).map_err(|error| {
                OpenError::new(format!("failed to insert AF_XDP socket into map {}", path.display()), error)
            });
        }
        let Some(map) = own else { return Ok(()) };
        let queue = self.start_queue + index;
        map.insert(queue, socket.as_fd())
            .map_err(|error| self.failed(queue, Failed("telling the program of", error)))
    }

    /// What to say when the socket of a queue cannot be had.
    fn failed(&self, queue: u32, Failed(doing, error): Failed) -> OpenError {
        let name = &self.ifname;
        let hint = match error.raw_os_error() {
            Some(libc::ENOBUFS) => {
                let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
                format!("; it needs {UMEM_LEN} bytes and RLIMIT_MEMLOCK is {limit}")
            }
            Some(libc::EINVAL) if doing == "binding" => "; is there such a queue?".to_owned(),
            _ => String::new(),
        };
        let socket = format!("failed to create AF_XDP socket for {name} queue_id: {queue}: {doing} it");
        let failed = OpenError::new(socket, error);
        OpenError { text: failed.text + &hint, ..failed }
    }
}

fn insert_pinned(path: &Path, index: u32, socket: &Socket) -> io::Result<()> {
    SocketMap::open(path)?.insert(index, socket.as_fd())
}

fn interface_number(name: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(name_to_index(any, name)?)
}

/// How long a worker goes on looking at an idle ring, which is a look at memory, before it waits for the kernel to ring.
const LINGER_US: u32 = 50;

#[cfg(test)]
#[path = "../af_xdp_tests.rs"]
mod tests;

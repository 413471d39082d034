//! `netmap`: a port of the netmap framework: a network card whose rings we take over, or a port of a VALE switch.
//!
//! What is opened is named as netmap(4) and its library name it (`name`). Each pair of rings has a descriptor of its own
//! (`sys::netmap`), and so a doorbell and calls of its own; the first descriptor, for all rings, only keeps them together,
//! so that a card is set up once. Rings and buffers are memory that we share with the kernel (`memory`): frames are lent
//! from the slots that they came in by and copied once into those that they go out by, over several where they are longer
//! than a buffer (`queue`). A VALE port's frames carry a virtio-net header, and with it go the offloads; a card's are
//! finished before.
//!
//! The port's thread (`life`) follows the card: down, gone, made again, its MTU. The control device is `/dev/netmap`, which
//! the kernel module `netmap` makes, or what `devname` names.

mod life;
mod memory;
mod name;
mod queue;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use rustix::io::Errno;

use crate::errno;
use crate::health::Health;
use crate::line::Line;
use crate::minder::Minder;
use crate::sandbox::may_turn;
use crate::sys::netmap::{self as abi, Device, Register};
use life::Life;
use memory::{Region, Ring, Way};
use name::{Direction, PortName, Rings};
use queue::{Inlet, Outlet};

/// All that opening a port needs.
#[derive(Clone, Debug)]
pub struct NetmapOptions {
    /// The port's name.
    pub ifname: String,
    /// The control device: `None`, `/dev/netmap`.
    pub devname: Option<PathBuf>,
}

/// An open port. Dropping it gives the rings back.
pub struct NetmapPort {
    /// Until it is asked for: what is attached later is the thread's, and this must not keep it.
    attachment: Mutex<Attachment>,
    queues: usize,
    /// Until the thread has it.
    life: Option<Life>,
    trouble: Trouble,
    minder: Option<Minder>,
}

/// Why a port does not work, for people; none while it does. Written by its thread.
type Trouble = Arc<Mutex<Option<String>>>;

impl NetmapPort {
    /// Opens the rings.
    ///
    /// Errors: the text for people, in QEMU's words as far as these go.
    pub fn open(options: &NetmapOptions) -> Result<NetmapPort, String> {
        let trouble = Trouble::default();
        let life = Life::begin(options, trouble.clone()).map_err(|error| options.failed(&error))?;
        may_turn().map_err(|why| options.failed(&why))?;
        let attachment = life.attachment();
        let queues = attachment.ingress.len().max(attachment.egress.len());
        Ok(NetmapPort { attachment: Mutex::new(attachment), queues, life: Some(life), trouble, minder: None })
    }

    /// What workers get at first; to be asked for once.
    pub fn attachment(&self) -> Attachment {
        std::mem::take(&mut *self.attachment.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the port from now on, and reports over `line`.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        if let Some(life) = self.life.take() {
            self.minder = Some(Minder::start("netmap", move |stop| life.live(stop, &line))?);
        }
        Ok(())
    }

    /// Pairs of rings.
    pub fn queues(&self) -> usize {
        self.queues
    }

    /// How the port stands; nothing while it works, as QEMU has it.
    pub fn info(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}

impl NetmapOptions {
    fn failed(&self, why: &str) -> String {
        format!("Failed to nm_open() {}: {why}", self.ifname)
    }

    fn device(&self) -> &Path {
        self.devname.as_deref().unwrap_or(Path::new(DEVICE))
    }
}

/// The rings of a port, and the descriptors that they are bound to.
struct Opened {
    inlets: Vec<Arc<Inlet<Device>>>,
    outlets: Vec<Arc<Outlet<Device>>>,
    health: Arc<Health>,
    /// Bound to all rings; never asked to move a frame.
    _all: Arc<Device>,
}

/// A pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    mode: u32,
    ring: u16,
    /// Their places among all rings of that way.
    out: Option<u32>,
    inward: Option<u32>,
}

impl Opened {
    /// Errors: what went wrong, for people.
    fn open(device: &Path, name: &PortName) -> Result<Opened, String> {
        let all = Arc::new(open_device(device)?);
        let reply = register(&all, name, name.request())?;
        let region =
            Arc::new(Region::map(rustix::fd::AsFd::as_fd(&*all), reply.nr_memsize).map_err(|error| {
                format!("mapping {} bytes of {}: {}", reply.nr_memsize, device.display(), errno::text(error))
            })?);
        let net_header_len = net_header_len(&all, name)?;
        let health = Health::new().map_err(|error| format!("making an eventfd: {}", errno::text(error)))?;
        let mut opened =
            Opened { inlets: Vec::new(), outlets: Vec::new(), health: Arc::new(health), _all: all.clone() };
        let pairs = name.pairs(&reply);
        for (index, pair) in pairs.iter().enumerate() {
            // What nobody else may have cannot be bound twice.
            let first = index == 0 && (name.exclusive || pairs.len() == 1);
            let (kernel, reply) = if first { (all.clone(), reply) } else { bind_pair(device, name, pair)? };
            opened.add(kernel, &region, &reply, pair, net_header_len)?;
        }
        Ok(opened)
    }

    fn add(
        &mut self,
        kernel: Arc<Device>,
        region: &Arc<Region>,
        reply: &Register,
        pair: &Pair,
        net_header_len: usize,
    ) -> Result<(), String> {
        if reply.nr_memsize != region.len() as u64 {
            return Err("the rings of the port are not in one memory".into());
        }
        let find = |way, index| Ring::find(region, reply.nr_offset, way, index);
        if let Some(index) = pair.inward {
            let (ring, queue) = (find(Way::In, index)?, self.inlets.len() as u16);
            let inlet = Inlet::new(kernel.clone(), ring, queue, net_header_len, self.health.clone());
            self.inlets.push(Arc::new(inlet));
        }
        if let Some(index) = pair.out {
            let ring = find(Way::Out, index)?;
            self.outlets.push(Arc::new(Outlet::new(kernel, ring, net_header_len, self.health.clone())));
        }
        Ok(())
    }

    fn attachment(&self, carrier: bool) -> Attachment {
        let ingress = |(index, inlet): (usize, &Arc<Inlet<Device>>)| {
            let (ingress, doorbell) = (inlet.clone(), inlet.clone());
            Arc::new(IngressEnd { queue: index as u16, ingress, doorbell, linger_us: 0, discard: None })
        };
        Attachment {
            carrier,
            ingress: self.inlets.iter().enumerate().map(ingress).collect(),
            egress: self.outlets.iter().map(|outlet| outlet.clone() as Arc<dyn Egress>).collect(),
            rings: Vec::new(),
        }
    }
}

impl PortName {
    /// For the first descriptor.
    fn request(&self) -> Register {
        let (mode, ring) = match self.rings {
            Rings::One(ring) => (abi::MODE_ONE_NIC, ring),
            Rings::HostOne(ring) => (abi::MODE_ONE_SW, ring),
            Rings::All | Rings::AllAndHost if self.exclusive => (abi::MODE_ONE_NIC, 0),
            Rings::Host if self.exclusive => (abi::MODE_ONE_SW, 0),
            Rings::All => (abi::MODE_ALL_NIC, 0),
            Rings::Host => (abi::MODE_SW, 0),
            Rings::AllAndHost => (abi::MODE_NIC_SW, 0),
        };
        self.request_for(mode, ring, self.only)
    }

    fn request_for(&self, mode: u32, ring: u16, only: Option<Direction>) -> Register {
        let mut flags = abi::NO_TX_POLL | abi::ACCEPT_VNET_HDR;
        flags |= if self.exclusive { abi::EXCLUSIVE } else { 0 };
        flags |= match only {
            None => 0,
            Some(Direction::In) => abi::RX_RINGS_ONLY,
            Some(Direction::Out) => abi::TX_RINGS_ONLY,
        };
        let nr_mem_id = self.memory.unwrap_or(0);
        Register { nr_mode: mode, nr_ringid: ring, nr_flags: flags, nr_mem_id, ..Register::default() }
    }

    /// The pairs of rings that are wanted, of a port that has those that `reply` says.
    fn pairs(&self, reply: &Register) -> Vec<Pair> {
        let (out, inward) = (reply.nr_tx_rings, reply.nr_rx_rings);
        // A kernel of before there were several says nothing of the one.
        let (host_out, host_in) = (reply.nr_host_tx_rings.max(1), reply.nr_host_rx_rings.max(1));
        let place = |ring: u16, before: u16, count: u16, way| {
            let wanted = self.only.is_none_or(|only| only == way);
            (wanted && ring < count).then(|| u32::from(before) + u32::from(ring))
        };
        let nic = |ring| Pair {
            mode: abi::MODE_ONE_NIC,
            ring,
            out: place(ring, 0, out, Direction::Out),
            inward: place(ring, 0, inward, Direction::In),
        };
        let host = |ring| Pair {
            mode: abi::MODE_ONE_SW,
            ring,
            out: place(ring, out, host_out, Direction::Out),
            inward: place(ring, inward, host_in, Direction::In),
        };
        let (nics, hosts) = ((0..out.max(inward)).map(nic), (0..host_out.max(host_in)).map(host));
        let pairs: Vec<Pair> = match self.rings {
            Rings::All => nics.collect(),
            Rings::One(ring) => vec![nic(ring)],
            Rings::Host => hosts.collect(),
            Rings::HostOne(ring) => vec![host(ring)],
            Rings::AllAndHost => nics.chain(hosts).collect(),
        };
        pairs.into_iter().filter(|pair| pair.out.is_some() || pair.inward.is_some()).collect()
    }
}

fn open_device(path: &Path) -> Result<Device, String> {
    Device::open(path).map_err(|error| {
        let hint = match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => "; is the kernel module 'netmap' loaded?",
            _ => "",
        };
        format!("could not open {}: {}{hint}", path.display(), errno::text(error))
    })
}

fn register(device: &Device, name: &PortName, request: Register) -> Result<Register, String> {
    device
        .register(&name.kernel, request)
        .map_err(|error| format!("NETMAP_REQ_REGISTER: {}", errno::text(error)))
}

/// A descriptor for one pair of rings.
fn bind_pair(device: &Path, name: &PortName, pair: &Pair) -> Result<(Arc<Device>, Register), String> {
    let only = match (pair.out, pair.inward) {
        (None, _) => Some(Direction::In),
        (_, None) => Some(Direction::Out),
        _ => None,
    };
    let bound = open_device(device)?;
    let reply = register(&bound, name, name.request_for(pair.mode, pair.ring, only))?;
    Ok((Arc::new(bound), reply))
}

/// Bytes of virtio-net header in front of each frame: what a VALE port is told, and what any other has.
fn net_header_len(device: &Device, name: &PortName) -> Result<usize, String> {
    if name.is_vale() {
        // A kernel that does not know of it goes without.
        let _ = device.set_header_len(&name.kernel, NET_HEADER_LEN);
    }
    match device.header_len(&name.kernel) {
        Ok(len @ (0 | 10 | 12)) => Ok(len),
        Ok(len) => Err(format!("frames have a virtio-net header of {len} bytes")),
        Err(_) => Ok(0),
    }
}

pub(crate) const DEVICE: &str = "/dev/netmap";
/// What workers call for it.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_ioctl];
/// The requests that this is for.
pub(crate) const WORKERS_REQUESTS: [libc::Ioctl; 2] = [abi::NIOCTXSYNC, abi::NIOCRXSYNC];
/// That of a virtio-net device of today, so that a virtual machine on the same VALE switch has the same one.
const NET_HEADER_LEN: usize = 12;

#[cfg(test)]
mod tests;

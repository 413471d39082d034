//! A [`Guest`] behind a real vhost-user connection, in the front end's role: what QEMU is to its guest.
//!
//! The front end takes what the back end offers: one without REPLY_ACK is not asked to answer, and nothing is assumed of
//! when it is ready.

#![allow(unsafe_code)] // the vhost crate takes eventfds in a type of its own, which only a raw descriptor makes

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use ringyard_dataplane::ring::DriverMemory;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Doing, Error, Result};
use crate::guest::{Features, Guest, GuestConfig, Queue};

/// A guest that is plugged in.
pub struct FrontEnd {
    connection: Frontend,
    /// The guest.
    pub guest: Guest,
    running: bool,
}

impl FrontEnd {
    /// Connects to the back end that listens at `socket`, waiting for up to [`CONNECT_TIME_MAX`] until it does, and
    /// starts all rings.
    pub fn connect(socket: &Path, config: &GuestConfig) -> Result<FrontEnd> {
        let deadline = Instant::now() + CONNECT_TIME_MAX;
        let stream = loop {
            match UnixStream::connect(socket) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(CONNECT_PAUSE),
                result => break result.doing(format!("connecting to {}", socket.display()))?,
            }
        };
        FrontEnd::over(stream, config).doing(format!("plugging a guest into {}", socket.display()))
    }

    /// Waits for a back end that connects, and starts all rings.
    pub fn accept(listener: &UnixListener, config: &GuestConfig) -> Result<FrontEnd> {
        let (stream, _) = listener.accept().doing("waiting for a back end")?;
        FrontEnd::over(stream, config)
    }

    /// Starts all rings over an open connection.
    pub fn over(stream: UnixStream, config: &GuestConfig) -> Result<FrontEnd> {
        // A back end that does not answer is an error, not a wait for ever.
        stream.set_read_timeout(Some(ANSWER_TIME_MAX)).doing("setting a time limit")?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX)).doing("setting a time limit")?;
        let mut connection = Frontend::from_stream(stream, u64::from(config.pairs) * 2);
        let features = negotiate(&mut connection, config)?;
        let guest = Guest::new(config, features)?;
        let mut front_end = FrontEnd { connection, guest, running: false };
        front_end.share_memory()?;
        // A packed ring begins with its wrap counter set, which is bit 15.
        let start = if features.packed { 1 << 15 } else { 0 };
        for pair in 0..front_end.guest.pairs().len() {
            front_end.start_ring(2 * pair, start, |guest| guest.pairs()[pair].receive.queue())?;
            front_end.start_ring(2 * pair + 1, start, |guest| guest.pairs()[pair].send.queue())?;
        }
        front_end.running = true;
        front_end.set_enabled(true)?;
        for pair in front_end.guest.pairs() {
            pair.receive.queue().kick();
        }
        Ok(front_end)
    }

    /// Enables or disables all rings.
    pub fn set_enabled(&mut self, enabled: bool) -> Result<()> {
        for ring in 0..2 * self.guest.pairs().len() {
            self.connection.set_vring_enable(ring, enabled).doing(format!("enabling ring {ring}"))?;
        }
        Ok(())
    }

    /// Stops all rings in order and unplugs. Returns the rings' positions as the back end tells them: receive and
    /// transmit, pair after pair.
    pub fn stop(mut self) -> Result<Vec<u32>> {
        self.stop_rings()
    }

    /// Stops all rings and starts them where they stopped, as a guest's reset does.
    pub fn reset(&mut self) -> Result<()> {
        let bases = self.stop_rings()?;
        for (ring, &base) in bases.iter().enumerate() {
            let pair = ring / 2;
            self.start_ring(ring, base, |guest| {
                let pair = &guest.pairs()[pair];
                if ring % 2 == 0 { pair.receive.queue() } else { pair.send.queue() }
            })?;
        }
        self.running = true;
        self.set_enabled(true)
    }

    fn share_memory(&self) -> Result<()> {
        let memory = self.guest.memory();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: DriverMemory::GUEST_ADDR,
            memory_size: memory.len() as u64,
            userspace_addr: DriverMemory::USER_ADDR,
            mmap_offset: 0,
            mmap_handle: memory.file().as_raw_fd(),
        };
        self.connection.set_mem_table(&[region]).doing("SET_MEM_TABLE").map(drop)
    }

    fn start_ring(&self, number: usize, base: u32, queue: impl Fn(&Guest) -> &Queue) -> Result<()> {
        let queue = queue(&self.guest);
        let layout = queue.layout();
        let connection = &self.connection;
        let doing = |message: &str| format!("{message} of ring {number}");
        connection.set_vring_num(number, layout.size).doing(doing("SET_VRING_NUM"))?;
        // The upper half says the same of a packed ring's used position.
        connection.set_vring_base(number, base as u16).doing(doing("SET_VRING_BASE"))?;
        let addresses = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: layout.desc,
            used_ring_addr: layout.used,
            avail_ring_addr: layout.avail,
            log_addr: None,
        };
        connection.set_vring_addr(number, &addresses).doing(doing("SET_VRING_ADDR"))?;
        let call = event_of(queue.call_fd().as_fd())?;
        connection.set_vring_call(number, &call).doing(doing("SET_VRING_CALL"))?;
        let kick = event_of(queue.kick_fd().as_fd())?;
        connection.set_vring_kick(number, &kick).doing(doing("SET_VRING_KICK"))
    }

    fn stop_rings(&mut self) -> Result<Vec<u32>> {
        if !std::mem::take(&mut self.running) {
            return Ok(Vec::new());
        }
        self.set_enabled(false)?;
        let base =
            |ring| self.connection.get_vring_base(ring).doing(format!("GET_VRING_BASE of ring {ring}"));
        (0..2 * self.guest.pairs().len()).map(base).collect()
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        // The back end may be gone; then there is nothing to stop.
        let _ = self.stop_rings();
    }
}

/// Agrees on features; what was agreed.
fn negotiate(connection: &mut Frontend, config: &GuestConfig) -> Result<Features> {
    connection.set_owner().doing("SET_OWNER")?;
    let offered = connection.get_features().doing("GET_FEATURES")?;
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    let (needed, names) = (bit(VIRTIO_F_VERSION_1) | protocol, "VERSION_1 and PROTOCOL_FEATURES");
    if offered & needed != needed {
        return Err(Error::new(format!("the back end offers {offered:#x}, which lacks {names}")));
    }
    let mut known = VhostUserProtocolFeatures::REPLY_ACK;
    if config.pairs > 1 {
        known |= VhostUserProtocolFeatures::MQ;
    }
    let agreed = connection.get_protocol_features().doing("GET_PROTOCOL_FEATURES")? & known;
    if !agreed.contains(known & VhostUserProtocolFeatures::MQ) {
        return Err(Error::new("the back end has one queue pair only"));
    }
    connection.set_protocol_features(agreed).doing("SET_PROTOCOL_FEATURES")?;
    if agreed.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        connection.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    let wanted = wishes(config.features) | if config.pairs > 1 { bit(VIRTIO_NET_F_MQ) } else { 0 };
    let accepted = offered & wanted;
    connection.set_features(accepted | needed).doing("SET_FEATURES")?;
    Ok(Features {
        packed: accepted & bit(VIRTIO_F_RING_PACKED) != 0,
        mergeable: accepted & bit(VIRTIO_NET_F_MRG_RXBUF) != 0,
        event_idx: accepted & bit(VIRTIO_RING_F_EVENT_IDX) != 0,
        indirect: accepted & bit(VIRTIO_RING_F_INDIRECT_DESC) != 0,
        in_order: accepted & bit(VIRTIO_F_IN_ORDER) != 0,
    })
}

fn wishes(features: Features) -> u64 {
    let all = [
        (features.packed, VIRTIO_F_RING_PACKED),
        (features.mergeable, VIRTIO_NET_F_MRG_RXBUF),
        (features.event_idx, VIRTIO_RING_F_EVENT_IDX),
        (features.indirect, VIRTIO_RING_F_INDIRECT_DESC),
        (features.in_order, VIRTIO_F_IN_ORDER),
    ];
    all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, number)| bit(number)).sum()
}

fn bit(number: u32) -> u64 {
    1 << number
}

/// The same eventfd as the vhost crate wants it.
fn event_of(fd: BorrowedFd<'_>) -> Result<EventFd> {
    let own = fd.try_clone_to_owned().doing("duplicating an eventfd")?;
    // SAFETY: the descriptor was just made, it is an eventfd, and nobody else closes it.
    Ok(unsafe { EventFd::from_raw_fd(own.into_raw_fd()) })
}

/// How long a back end may take until it listens.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// How long a back end may take for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

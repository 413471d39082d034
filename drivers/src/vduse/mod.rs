//! `x-vduse`: a virtio-net device for the host's own kernel or for whoever opens `/dev/vhost-vdpa-N`, made by us.
//!
//! VDUSE (vDPA device in user space, Linux 6.9 for network devices) turns us into the device behind `/dev/vduse/NAME`. The
//! user puts it on the vDPA bus (`vdpa dev add name NAME mgmtdev vduse`), and a bus driver takes it: virtio_vdpa makes a
//! network interface of it, vhost_vdpa a character device for a VMM, a container, or another switch. The rings are those of
//! [`vhost_user`](crate::vhost_user), in the addresses of whoever drives the device.
//!
//! [`abi`] is what the kernel and we tell each other, [`device`] the calls, [`memory`] what the driver shares, [`server`] the
//! rest.
//!
//! One queue pair: Linux makes no network device with a control queue over VDUSE ("Temporarily fail if control queue feature
//! requested", 6.9), and without that a driver uses no second pair (virtio 1.2, 5.1.3.1).

mod abi;
mod device;
mod memory;
mod server;

use std::io;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ringyard_dataplane::mac::Mac;
use virtio_bindings::virtio_config::{
    VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::line::Line;
use crate::minder::Minder;
use crate::sandbox::may_turn;
use crate::sys::vduse::{DevConfig, NAME_MAX, NetConfig, VQ_INJECT_IRQ};
use crate::virtio_net::OFFLOADS;
use device::Device;
use server::{RINGS, Server};

/// Entries of a ring where nothing else is asked for.
pub const QUEUE_SIZE: u16 = 1024;
/// Bytes of a device's name, at most.
pub const NAME_LEN_MAX: usize = NAME_MAX - 1;

/// What a device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VduseOptions {
    /// Its name on the vDPA bus, at most [`NAME_LEN_MAX`] bytes.
    pub name: String,
    /// Entries of each ring, at most: a power of two.
    pub queue_size: u16,
    /// What the driver takes for its address; else it makes one up.
    pub mac: Option<Mac>,
    /// What the driver may send, at most; else it decides.
    pub mtu: Option<u16>,
    /// Whether the driver may have packed rings.
    pub packed: bool,
}

/// A device of ours.
pub struct VdusePort {
    name: String,
    /// Until its thread has it.
    server: Option<Server>,
    serving: Option<(Minder, Receiver<()>)>,
}

impl VdusePort {
    /// Makes the device. Nobody drives it yet.
    ///
    /// Errors: what could not be done, for the user.
    pub fn open(options: &VduseOptions) -> Result<VdusePort, String> {
        let device = Device::make(&options.name, config(options), options.queue_size)?;
        may_turn()?;
        Ok(VdusePort { name: options.name.clone(), server: Some(Server::new(device)?), serving: None })
    }

    /// What there is to show at first.
    pub fn info(&self) -> String {
        format!("name={},no driver", self.name)
    }

    /// Starts to serve; only once.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let (ended, end) = bounded(0);
        let minder = Minder::start("vduse", move |stop| {
            server.run(&line, stop);
            drop(server);
            drop::<crossbeam_channel::Sender<()>>(ended);
        })?;
        self.serving = Some((minder, end));
        Ok(())
    }

    /// Takes the device away, which takes as long as a request that is being served. No worker may use it any more.
    ///
    /// Errors: it takes too long.
    pub fn close(self) -> Result<(), String> {
        let Some((minder, end)) = self.serving else { return Ok(()) };
        drop(minder);
        match end.recv_timeout(CLOSE_TIME_MAX) {
            Err(RecvTimeoutError::Timeout) => Err(format!("the VDUSE device '{}' is still busy", self.name)),
            _ => Ok(()),
        }
    }
}

fn config(options: &VduseOptions) -> DevConfig {
    let some = |bit: u32, wanted: bool| if wanted { 1 << bit } else { 0 };
    let features = FEATURES
        | OFFLOADS
        | some(VIRTIO_F_RING_PACKED, options.packed)
        | some(VIRTIO_NET_F_MAC, options.mac.is_some())
        | some(VIRTIO_NET_F_MTU, options.mtu.is_some());
    DevConfig {
        name: device::name_bytes(&options.name),
        vendor_id: 0,
        device_id: VIRTIO_ID_NET,
        features,
        vq_num: RINGS as u32,
        vq_align: RING_ALIGNMENT,
        reserved: [0; 13],
        config_size: size_of::<NetConfig>() as u32,
        config: NetConfig {
            mac: options.mac.unwrap_or_default().0,
            // VIRTIO_NET_S_LINK_UP, for drivers that look though there is no VIRTIO_NET_F_STATUS.
            status: 1u16.to_le_bytes(),
            max_virtqueue_pairs: 1u16.to_le_bytes(),
            mtu: options.mtu.unwrap_or(0).to_le_bytes(),
        },
    }
}

/// Whether a host has it.
pub(crate) const DEVICE: &str = device::CONTROL;
/// What workers call for it.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_ioctl];
/// The request that this is for.
pub(crate) const WORKERS_REQUESTS: [libc::Ioctl; 1] = [VQ_INJECT_IRQ.number()];
/// Virtio features, besides the offloads. The kernel demands the first two.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_F_ACCESS_PLATFORM
    | 1 << VIRTIO_F_IN_ORDER
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX;
/// For the kernel, which allocates rings: a page.
const RING_ALIGNMENT: u32 = 4096;
/// A request is served in much less, and so are those of a switch whose workers are busy.
const CLOSE_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> VduseOptions {
        VduseOptions { name: "v0".into(), queue_size: QUEUE_SIZE, mac: None, mtu: None, packed: true }
    }

    #[test]
    fn a_device_says_what_it_was_given_and_nothing_that_it_was_not() {
        let plain = config(&options());
        assert_eq!(plain.features & (1 << 5 | 1 << 3), 0, "VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU");
        assert_eq!(plain.features & (1 << 32 | 1 << 33), 3 << 32, "what the kernel demands");
        assert_eq!(
            plain.features & (1 << 17 | 1 << 22),
            0,
            "what the kernel refuses: the control queue, and what needs it"
        );
        assert_eq!((&plain.name[..3], plain.vq_num, plain.device_id), (&b"v0\0"[..], 2, 1));
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let full = config(&VduseOptions { mac: Some(mac), mtu: Some(9000), ..options() });
        assert_eq!(full.features & !plain.features, 1 << 5 | 1 << 3);
        let split = config(&VduseOptions { packed: false, ..options() });
        assert_eq!(plain.features & !split.features, 1 << 34, "VIRTIO_F_RING_PACKED");
        assert_eq!(full.config.mac, mac.0);
        assert_eq!(full.config.mtu, [0x28, 0x23]);
    }
}

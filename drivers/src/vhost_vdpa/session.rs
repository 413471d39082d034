//! A device from reset to reset: negotiated, its queues laid out in memory of ours, running.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use ringyard_dataplane::ring::{
    DeviceFault, DeviceQueue, DriverEgress, DriverIngress, DriverMemory, DriverOptions,
};
use rustix::event::{EventfdFlags, eventfd};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use super::abi::{BACKEND_ASID, BACKEND_BATCH, BACKEND_MSG_V2, BACKEND_SUSPEND};
use super::control::ControlQueue;
use super::device::Device;
use super::plan::{self, BUFFER_LEN, Plan};
use crate::errno;
use crate::virtio_net;

/// A device that runs. Dropping it resets the device.
pub(super) struct Session {
    device: Arc<Device>,
    plan: Plan,
    /// Of the kernel's side.
    backend: u64,
    memory: Arc<DriverMemory>,
    receive: Vec<Arc<DriverIngress>>,
    send: Vec<Arc<DriverEgress>>,
    /// The same as the workers have it, for as long as the session: a duty goes on over a change of the link.
    ends: Vec<Arc<IngressEnd>>,
    /// Kept for the device, which may still use its ring.
    control: Option<ControlQueue>,
}

impl Session {
    /// Resets the device and starts it, with up to `queues` queue pairs. `trouble` is signalled when it breaks a rule,
    /// `changed` when its configuration changes.
    ///
    /// Errors: what could not be done, and why.
    pub(super) fn start(
        device: Arc<Device>,
        queues: u16,
        trouble: &Arc<OwnedFd>,
        changed: &OwnedFd,
    ) -> Result<Session, String> {
        let offered = device.features().map_err(|error| {
            format!("Fail to query features from vhost-vDPA device: {}", errno::text(error))
        })?;
        let id = device.device_id().map_err(doing("asking for the device's kind"))?;
        if id != VIRTIO_ID_NET {
            return Err(format!("the vDPA device is no network device: its virtio id is {id}"));
        }
        let backend = backend_features(&device)?;
        let config = device.config().map_err(doing("reading the device's configuration"))?;
        let size_max = device.ring_size_max().map_err(doing("asking for the size of rings"))?;
        let plan = Plan::new(offered, &config, device.rings(), size_max, queues)
            .map_err(|why| format!("the vDPA device cannot be driven: {why}"))?;
        negotiate(&device, plan.features)?;
        let mut session = Session::lay_out(device, plan, backend, trouble)?;
        session.run(changed)?;
        Ok(session)
    }

    fn lay_out(
        device: Arc<Device>,
        plan: Plan,
        backend: u64,
        trouble: &Arc<OwnedFd>,
    ) -> Result<Session, String> {
        let (offsets, len) = plan.lay_out();
        let range = device.iova_range().map_err(doing("asking for the addresses that the device reaches"))?;
        let iova = plan::place(range, len)?;
        let memory =
            DriverMemory::at("ringyard-vdpa", len, iova).map_err(doing("making the rings' memory"))?;
        let memory = Arc::new(memory);
        device.map(&memory, backend & BACKEND_BATCH != 0).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::OutOfMemory => " (is the limit of locked memory too low?)",
                _ => "",
            };
            format!("having the device reach {len} bytes of memory: {}{hint}", errno::text(error))
        })?;
        let mut session = Session {
            device,
            plan,
            backend,
            memory,
            receive: Vec::new(),
            send: Vec::new(),
            ends: Vec::new(),
            control: None,
        };
        session.make_queues(&offsets, trouble)?;
        Ok(session)
    }

    fn make_queues(&mut self, offsets: &[usize], trouble: &Arc<OwnedFd>) -> Result<(), String> {
        let options = virtio_net::options(self.plan.features);
        let start = if options.packed { PACKED_START } else { 0 };
        for (index, &offset) in offsets[..2 * usize::from(self.plan.pairs)].iter().enumerate() {
            let receives = index.is_multiple_of(2);
            let queue = DeviceQueue {
                memory: self.memory.clone(),
                offset,
                size: self.plan.ring_size,
                buffer_len: if receives { self.plan.receive_len } else { BUFFER_LEN },
                options,
                kick: event()?,
                call: event()?,
                trouble: trouble.clone(),
            };
            let text = |error: &dyn fmt::Display| format!("laying out ring {index}: {error}");
            let layout = if receives {
                let number = (index / 2) as u16;
                let ingress = Arc::new(DriverIngress::new(number, &queue).map_err(|error| text(&error))?);
                self.ends.push(Arc::new(IngressEnd {
                    queue: number,
                    ingress: ingress.clone(),
                    doorbell: ingress.clone(),
                    linger_us: LINGER_US,
                    discard: None,
                }));
                self.receive.push(ingress.clone());
                ingress.layout()
            } else {
                let egress = Arc::new(DriverEgress::new(&queue).map_err(|error| text(&error))?);
                self.send.push(egress.clone());
                egress.layout()
            };
            self.device
                .set_ring(index as u32, layout, start, &queue.kick, &queue.call)
                .map_err(doing("setting a ring up"))?;
        }
        let Some(index) = self.plan.control else { return Ok(()) };
        let ring = DriverOptions { packed: options.packed, event_idx: options.event_idx, in_order: false };
        let offset = offsets[offsets.len() - 1];
        let control =
            ControlQueue::new(self.memory.clone(), offset, self.plan.control_size, ring, event()?, event()?)?;
        let (kick, call) = control.eventfds();
        self.device
            .set_ring(index, control.layout(), start, kick, call)
            .map_err(doing("setting the control queue up"))?;
        self.control = Some(control);
        Ok(())
    }

    /// Lets the device loose.
    fn run(&mut self, changed: &OwnedFd) -> Result<(), String> {
        let device = &self.device;
        // Not all have one to change.
        if let Err(error) = device.set_config_call(changed) {
            tracing::debug!("vhost-vdpa: no word of changed configurations: {}", errno::text(error));
        }
        let data = 0..2 * u32::from(self.plan.pairs);
        for index in data.chain(self.plan.control) {
            device.enable_ring(index).map_err(doing("enabling a ring"))?;
        }
        add_status(device, VIRTIO_CONFIG_S_DRIVER_OK)?;
        self.receive.iter().for_each(|receive| receive.kick());
        let Some(control) = &mut self.control else { return Ok(()) };
        if self.plan.pairs > 1 {
            control.set_pairs(self.plan.pairs)?;
        }
        if self.plan.features & plan::CTRL_RX != 0
            && let Err(why) = control.set_promiscuous()
        {
            tracing::warn!(why, "vhost-vdpa: the device may keep frames for others from us");
        }
        Ok(())
    }

    /// What workers get of it.
    pub(super) fn attachment(&self, carrier: bool) -> Attachment {
        Attachment {
            carrier,
            ingress: self.ends.clone(),
            egress: self.send.iter().map(|egress| egress.clone() as Arc<dyn Egress>).collect(),
            rings: Vec::new(),
        }
    }

    /// Whether the device says that its link is up.
    pub(super) fn link_is_up(&self) -> io::Result<bool> {
        if self.plan.features & plan::STATUS == 0 {
            return Ok(true);
        }
        let config = self.device.config()?;
        // VIRTIO_NET_S_LINK_UP.
        Ok(config[6] & 1 != 0)
    }

    /// Whether the device asks to be reset.
    pub(super) fn needs_reset(&self) -> io::Result<bool> {
        Ok(u32::from(self.device.status()?) & VIRTIO_CONFIG_S_NEEDS_RESET != 0)
    }

    /// What the device did wrong, if it did.
    pub(super) fn fault(&self) -> Option<DeviceFault> {
        let receive = self.receive.iter().find_map(|end| end.fault());
        receive.or_else(|| self.send.iter().find_map(|end| end.fault()))
    }

    /// Frames that are lost if it ends now; when no worker has it.
    pub(super) fn held(&self) -> u64 {
        self.receive.iter().map(|end| end.held()).sum()
    }

    /// Queue pairs.
    pub(super) fn pairs(&self) -> u16 {
        self.plan.pairs
    }

    /// Whether it has a control queue in use.
    pub(super) fn has_control(&self) -> bool {
        self.plan.control.is_some()
    }

    /// What was negotiated.
    pub(super) fn features(&self) -> u64 {
        self.plan.features
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A device that is gone cannot be reset; what it is told is for the others.
        if self.backend & BACKEND_SUSPEND != 0 {
            let _ = self.device.suspend();
        }
        if let Err(error) = self.device.set_status(0) {
            tracing::debug!("vhost-vdpa: resetting the device: {}", errno::text(error));
        }
        let _ = self.device.unmap(&self.memory, self.backend & BACKEND_BATCH != 0);
    }
}

fn backend_features(device: &Device) -> Result<u64, String> {
    let offered = device.backend_features().map_err(doing("asking for backend features"))?;
    if offered & BACKEND_MSG_V2 == 0 {
        return Err(format!(
            "the kernel takes no IOTLB messages of version 2 (backend features {offered:#x})"
        ));
    }
    let used = offered & (BACKEND_MSG_V2 | BACKEND_BATCH | BACKEND_ASID | BACKEND_SUSPEND);
    device.set_backend_features(used).map_err(doing("setting backend features"))?;
    Ok(used)
}

/// The steps of virtio 1.2, 3.1.1, up to the features.
fn negotiate(device: &Device, features: u64) -> Result<(), String> {
    device.set_status(0).map_err(doing("resetting the device"))?;
    add_status(device, VIRTIO_CONFIG_S_ACKNOWLEDGE)?;
    add_status(device, VIRTIO_CONFIG_S_DRIVER)?;
    device.set_features(features).map_err(doing("setting features"))?;
    add_status(device, VIRTIO_CONFIG_S_FEATURES_OK)
        .map_err(|error| format!("the device refuses the features {features:#x}: {error}"))
}

/// Adds a bit to the device's status, which must then have it.
fn add_status(device: &Device, bit: u32) -> Result<(), String> {
    let status = device.status().map_err(doing("reading the device's status"))?;
    device.set_status(status | bit as u8).map_err(doing("setting the device's status"))?;
    let status = device.status().map_err(doing("reading the device's status"))?;
    if u32::from(status) & bit == 0 {
        return Err(format!("the device's status stays {status:#x} where {bit:#x} was added"));
    }
    Ok(())
}

fn event() -> Result<Arc<OwnedFd>, String> {
    let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    made.map(Arc::new).map_err(|error| format!("making an eventfd: {}", errno::text(error)))
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {}", errno::text(error))
}

/// Where a packed ring begins, as vhost tells it: both positions at 0, with wrap counters of 1.
const PACKED_START: u32 = 0x8000_8000;
/// How long a worker goes on looking at an idle receive queue before it asks to be called.
const LINGER_US: u32 = 50;

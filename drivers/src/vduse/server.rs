//! A VDUSE device from the port's own thread: what the kernel asks is done to the rings, and answered when no worker uses
//! what was before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::port::Attachment;
use ringyard_dataplane::ring::{Call, Fault, MemoryTable, RingLayout};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;

use super::abi::{Answer, Request};
use super::device::{Device, inject};
use super::memory;
use crate::bucket::Bucket;
use crate::errno;
use crate::line::{Line, Unplugged};
use crate::minder::{Stop, Wait};
use crate::sys::vduse::{RingPosition, VqInfo};
use crate::virtio_net;
use crate::vring::{self, Surroundings, Vring};

/// Rings of a device: a queue pair.
pub(super) const RINGS: usize = 2;

/// A device with its rings.
pub(super) struct Server {
    /// For the calls of rings, which come from workers. Those have it weakly: a device that is open anywhere is not taken
    /// away, and so this one goes before the device.
    calls: Arc<OwnedFd>,
    device: Device,
    kicks: [Arc<OwnedFd>; RINGS],
    trouble: Arc<OwnedFd>,
    bucket: Bucket,
    status: u8,
    features: u64,
    memory: Arc<MemoryTable>,
    retries: Retries,
    vrings: Vec<Vring>,
    /// Rings that the kernel stopped since the driver was ready: they stay so until it is anew.
    stopped: [bool; RINGS],
    /// Why a ring was not started, as far as that was told.
    complaints: [Option<String>; RINGS],
    /// Workers may have rings of ours.
    attached: bool,
}

impl Server {
    /// Of a device that nobody drives yet.
    pub(super) fn new(device: Device) -> Result<Server, String> {
        let event = || {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            made.map(Arc::new).map_err(|error| format!("making an eventfd: {}", errno::text(error)))
        };
        let calls = device.duplicate().map_err(|error| {
            format!("duplicating the descriptor of '{}': {}", device.name(), errno::text(error))
        })?;
        Ok(Server {
            calls: Arc::new(calls),
            kicks: [event()?, event()?],
            trouble: event()?,
            bucket: Bucket::new(),
            status: 0,
            features: 0,
            memory: Arc::default(),
            retries: Retries::default(),
            vrings: vec![Vring::default(); RINGS],
            stopped: [false; RINGS],
            complaints: Default::default(),
            attached: false,
            device,
        })
    }

    /// Serves until the port goes away.
    pub(super) fn run(&mut self, line: &Line, stop: &Stop) {
        while let Ok(true) = self.turn(line, stop) {}
        // The kernel's references to our eventfds end with the device.
    }

    /// Waits for one thing to happen, and sees to it. False: the port goes away.
    fn turn(&mut self, line: &Line, stop: &Stop) -> Result<bool, Unplugged> {
        let fds = [(self.trouble.as_fd(), PollFlags::IN), (self.device.fd(), PollFlags::IN)];
        let limit = self.is_incomplete().then_some(LATE_RINGS);
        match stop.wait(&fds, limit) {
            Wait::Stopped => return Ok(false),
            Wait::TimedOut => self.start_late_rings(line)?,
            Wait::Ready(0) => {
                let _ = rustix::io::read(&*self.trouble, &mut [0; 8]);
                self.look_after_rings(line)?;
            }
            Wait::Ready(_) => match self.device.request() {
                Ok(Some((id, request))) => {
                    let answer = self.serve(request, line)?;
                    self.device.answer(id, answer);
                }
                Ok(None) => {}
                Err(error) => {
                    let (name, error) = (self.device.name(), errno::text(error));
                    tracing::warn!(device = name, error, "x-vduse: reading a request");
                    return Ok(stop.sleep(FAULT_PAUSE));
                }
            },
        }
        Ok(true)
    }

    fn serve(&mut self, request: Request, line: &Line) -> Result<Answer, Unplugged> {
        tracing::debug!(device = self.device.name(), ?request, "x-vduse");
        match request {
            Request::Position { ring } if (ring as usize) < RINGS => {
                let position = self.stop_ring(ring as usize, line)?;
                Ok(Answer::Position(ring, position))
            }
            Request::Status(0) => {
                self.reset(line)?;
                Ok(Answer::Done)
            }
            Request::Status(status) => {
                let starts = status & !self.status & DRIVER_OK != 0;
                self.status = status;
                Ok(if !starts || self.start(line)? { Answer::Done } else { Answer::Failed })
            }
            Request::Remapped => {
                if self.is_running() || self.status & DRIVER_OK != 0 {
                    self.remap(line)?;
                }
                Ok(Answer::Done)
            }
            Request::Position { .. } | Request::Unknown => Ok(Answer::Failed),
        }
    }

    /// The driver is ready: starts the rings that it set up. Whether it can be served.
    fn start(&mut self, line: &Line) -> Result<bool, Unplugged> {
        let known = self.device.features().map_err(errno::text);
        let known = known.and_then(|features| Ok((features, memory::table(&self.device, &self.trouble)?)));
        match known {
            Ok((features, memory)) => {
                self.features = features;
                self.set_memory(memory);
            }
            Err(error) => {
                self.status &= !DRIVER_OK;
                self.show_error(line, &error);
                return Ok(false);
            }
        }
        tracing::info!(
            device = self.device.name(),
            features = format!("{:#x}", self.features),
            "x-vduse: negotiated"
        );
        (self.stopped, self.complaints) = Default::default();
        self.start_ready_rings();
        self.publish(line)?;
        line.show(format!("name={},driver ok", self.device.name()));
        Ok(true)
    }

    /// A driver may enable a ring of a running device, which nobody tells.
    fn start_late_rings(&mut self, line: &Line) -> Result<(), Unplugged> {
        if self.start_ready_rings() { self.publish(line) } else { Ok(()) }
    }

    /// Starts what the driver enabled and is not started. Whether there was something.
    fn start_ready_rings(&mut self) -> bool {
        let mut started = false;
        for index in (0..RINGS).filter(|&index| self.is_missing(index)).collect::<Vec<_>>() {
            let info = match self.device.ring(index as u32) {
                Ok(info) if info.ready != 0 => info,
                _ => continue,
            };
            match self.start_ring(index, &info) {
                Ok(()) => started = true,
                // It is tried again and again.
                Err(why) if self.complaints[index].as_ref() != Some(&why) => {
                    let name = self.device.name();
                    tracing::warn!(device = name, ring = index, why, "x-vduse: ring not started");
                    self.complaints[index] = Some(why);
                }
                Err(_) => {}
            }
        }
        started
    }

    fn start_ring(&mut self, index: usize, info: &VqInfo) -> Result<(), String> {
        let around = self.surroundings();
        let size = u16::try_from(info.num).map_err(|_| format!("a ring of {} entries", info.num))?;
        let (calls, number) = (Arc::downgrade(&self.calls), index as u32);
        let mut vring = Vring::default();
        vring.layout =
            RingLayout { size, desc: info.desc_addr, avail: info.driver_addr, used: info.device_addr };
        vring.packed = around.options.packed;
        vring.base = Some(base_of(info.position, vring.packed));
        vring.kick = Some(self.kicks[index].clone());
        vring.call = Some(Call::Other(Arc::new(move || {
            if let Some(calls) = calls.upgrade() {
                inject(&calls, number);
            }
        })));
        vring.enabled = true;
        vring.start(index, &around).map_err(|error| error.to_string())?;
        self.device.set_kick(number, &self.kicks[index]).map_err(errno::text)?;
        tracing::info!(
            device = self.device.name(),
            ring = index,
            size,
            base = vring.base,
            "x-vduse: ring started"
        );
        self.vrings[index] = vring;
        Ok(())
    }

    /// Stops a ring and says where it got to.
    fn stop_ring(&mut self, index: usize, line: &Line) -> Result<RingPosition, Unplugged> {
        if self.vrings[index].is_started() {
            self.vrings[index].stop();
            self.publish(line)?;
            self.give_back(line);
            self.vrings[index].settle();
            self.stopped[index] = true;
        }
        let packed = virtio_net::options(self.features).packed;
        let start = if packed { WRAP } else { 0 };
        Ok(position_of(self.vrings[index].base.unwrap_or(start), packed))
    }

    fn reset(&mut self, line: &Line) -> Result<(), Unplugged> {
        (self.status, self.features) = (0, 0);
        let running = self.is_running();
        self.detach(line)?;
        self.vrings = vec![Vring::default(); RINGS];
        (self.stopped, self.complaints) = Default::default();
        // What is mapped now may be unmapped, or be something else, when the next driver comes.
        self.memory = Arc::default();
        if running {
            tracing::info!(device = self.device.name(), "x-vduse: reset");
        }
        line.show(format!("name={},no driver", self.device.name()));
        Ok(())
    }

    /// Takes all rings away from the workers.
    fn detach(&mut self, line: &Line) -> Result<(), Unplugged> {
        self.vrings.iter_mut().for_each(Vring::stop);
        if std::mem::take(&mut self.attached) {
            self.bucket.take();
            line.attach(Attachment::default())?;
        }
        self.give_back(line);
        Ok(())
    }

    /// The driver changed what its addresses mean. Rings that are not reached any more stop.
    fn remap(&mut self, line: &Line) -> Result<(), Unplugged> {
        match memory::table(&self.device, &self.trouble) {
            Ok(memory) => {
                self.set_memory(memory);
                self.refit();
                self.publish(line)?;
                self.give_back(line);
                Ok(())
            }
            Err(error) => {
                self.detach(line)?;
                self.memory = Arc::default();
                self.show_error(line, &error);
                Ok(())
            }
        }
    }

    /// Makes all started rings anew in the memory as it is now, those that broke included.
    fn refit(&mut self) {
        let around = self.surroundings();
        for (index, vring) in self.vrings.iter_mut().enumerate().filter(|(_, vring)| vring.is_started()) {
            if let Err(why) = vring.start(index, &around) {
                let name = self.device.name();
                tracing::warn!(device = name, ring = index, %why, "x-vduse: ring stopped");
                vring.stop();
            }
        }
    }

    /// Takes broken rings out of service. One that met an address that it does not know is tried again with what we know
    /// by now: the kernel's bounce buffer is made when the driver first uses it, and nobody tells.
    fn look_after_rings(&mut self, line: &Line) -> Result<(), Unplugged> {
        if self.memory.is_lost() {
            self.detach(line)?;
            self.memory = Arc::default();
            self.show_error(line, "a file of the driver's memory was truncated");
            return Ok(());
        }
        let faults: Vec<(usize, Fault)> = self
            .vrings
            .iter_mut()
            .enumerate()
            .filter_map(|(index, vring)| Some((index, vring.retire_broken()?)))
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        self.publish(line)?;
        self.give_back(line);
        if faults.iter().all(|&(_, fault)| fault == Fault::Address) {
            self.look_at_memory();
            if self.retries.take(&faults.iter().map(|&(ring, _)| ring).collect::<Vec<_>>()) {
                self.refit();
                return self.publish(line);
            }
        }
        for (ring, fault) in faults {
            tracing::warn!(device = self.device.name(), ring, %fault, "x-vduse: ring stopped until the driver resets");
        }
        Ok(())
    }

    /// Takes over what is mapped now, if it is not what we knew.
    fn look_at_memory(&mut self) {
        let Ok(memory) = memory::table(&self.device, &self.trouble) else { return };
        let extents = |table: &MemoryTable| -> Vec<(u64, u64)> {
            table.regions().iter().map(|region| (region.guest_addr, region.len)).collect()
        };
        if extents(&memory) != extents(&self.memory) {
            self.set_memory(memory);
        }
    }

    fn set_memory(&mut self, memory: Arc<MemoryTable>) {
        self.memory = memory;
        self.retries = Retries::default();
    }

    /// What rings that no worker has any more held, is given back; the frames of that are counted as dropped.
    fn give_back(&self, line: &Line) {
        line.count_dropped(self.vrings.iter().map(Vring::give_back).sum());
    }

    fn show_error(&self, line: &Line, error: &str) {
        let name = self.device.name();
        tracing::warn!(device = name, error, "x-vduse");
        line.show(format!("name={name},error: {error}"));
    }

    /// Makes the workers follow, and returns when they have.
    fn publish(&mut self, line: &Line) -> Result<(), Unplugged> {
        self.bucket.take();
        self.attached = true;
        line.attach(vring::attachment(&self.vrings))?;
        // A driver that sleeps looks again: what it did before the rings were ours may have gone unheard.
        self.vrings.iter().for_each(Vring::signal);
        Ok(())
    }

    fn surroundings(&self) -> Surroundings {
        let options = virtio_net::options(self.features);
        let (memory, trouble) = (self.memory.clone(), self.trouble.clone());
        Surroundings { memory, options, control: None, logging: None, trouble, journals: None }
    }

    fn is_running(&self) -> bool {
        self.vrings.iter().any(Vring::is_started)
    }

    /// The driver runs, and has not enabled all rings.
    fn is_incomplete(&self) -> bool {
        self.status & DRIVER_OK != 0 && (0..RINGS).any(|index| self.is_missing(index))
    }

    fn is_missing(&self, index: usize) -> bool {
        !self.vrings[index].is_started() && !self.stopped[index]
    }
}

/// Which rings met an address that is not in the memory as we know it, and were tried again since.
///
/// One retry a ring, even when the memory is what we knew by then: the worker may have met that address in the memory as it
/// was before, while another ring's fault had us look.
#[derive(Default)]
struct Retries([bool; RINGS]);

impl Retries {
    /// Whether one of these `rings` has its retry left; now none of them has.
    fn take(&mut self, rings: &[usize]) -> bool {
        let before = self.0;
        rings.iter().for_each(|&ring| self.0[ring] = true);
        rings.iter().any(|&ring| !before[ring])
    }
}

/// Where a ring begins, as [`Vring::base`] has it: of a packed ring with the wrap counter in bit 15.
fn base_of(RingPosition { words: [first, index, ..] }: RingPosition, packed: bool) -> u16 {
    if packed { index | if first == 0 { 0 } else { WRAP } } else { first }
}

/// The other way round. What comes first goes first, so both positions of a packed ring are the same.
fn position_of(base: u16, packed: bool) -> RingPosition {
    if !packed {
        return RingPosition { words: [base, 0, 0, 0] };
    }
    let (counter, index) = (u16::from(base & WRAP != 0), base & !WRAP);
    RingPosition { words: [counter, index, counter, index] }
}

/// The wrap counter of a packed ring's position.
const WRAP: u16 = 1 << 15;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
/// Between two looks whether a driver enabled the rest of its rings.
const LATE_RINGS: Duration = Duration::from_millis(100);
/// After a request that could not be read.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_is_tried_again_once_in_the_same_memory() {
        let mut retries = Retries::default();
        assert!(retries.take(&[1]));
        assert!(retries.take(&[0]), "it broke in the memory before, as the other was looked after");
        assert!(!retries.take(&[0, 1]));
        let mut retries = Retries::default();
        assert!(retries.take(&[0, 1]));
        assert!(!retries.take(&[1]));
    }

    #[test]
    fn positions_of_both_forms_go_to_the_kernel_and_back() {
        for base in [0, 1, 77, u16::MAX] {
            assert_eq!(base_of(position_of(base, false), false), base);
        }
        for base in [WRAP, WRAP | 5, 5, 0] {
            assert_eq!(base_of(position_of(base, true), true), base);
        }
        assert_eq!(position_of(WRAP | 7, true).words, [1, 7, 1, 7]);
        assert_eq!(base_of(RingPosition { words: [1, 0, 1, 0] }, true), WRAP, "as a driver starts one");
    }
}

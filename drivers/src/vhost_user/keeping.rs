//! What the journal is told of a device, and a device that is made of what the journal says.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::ring::{Call, MemoryTable, RingLayout};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserMemoryRegion, VhostUserSingleMemoryRegion, VhostUserU64,
};

use super::backchannel::Backchannel;
use super::body::{self, read};
use super::channel::Message;
use super::control::Wishes;
use super::device::{Device, NO_FD};
use super::inflight::Inflight;
use super::journal::Journal;
use super::known::{Known, KnownRegion, KnownReply, KnownRequest, KnownRing, KnownStart, Number};
use super::log::Log;
use super::socket_call::SocketCall;
use super::{Port, memory};
use crate::line::Unplugged;
use crate::vring::{Vring, event};

/// Under which numbers the descriptors of a connection are kept; those of a ring by its index, of a region by its guest
/// address. What is not in use any more may still be here.
#[derive(Default)]
pub(super) struct Numbers {
    memory: BTreeMap<u64, Number>,
    kick: BTreeMap<usize, Number>,
    call: BTreeMap<usize, Number>,
    error: BTreeMap<usize, Number>,
    backchannel: Option<Number>,
    inflight: Option<Number>,
    log: Option<Number>,
    log_bell: Option<Number>,
}

/// A request that is in the journal, by the numbers of its descriptors; `None`: there is no journal.
pub(super) type Recorded = Option<Vec<Number>>;

impl<'a> Device<'a> {
    /// Records that `message` is there to be served.
    pub(super) fn record_request(&mut self, message: &Message) -> Recorded {
        let kept = self.journal.as_mut()?.keep(&message.fds);
        let Ok(fds) = kept else {
            self.end_journal();
            return None;
        };
        let Message { request, need_reply, ref body, .. } = *message;
        let request = Some(KnownRequest { request, need_reply, body: body.clone(), fds: fds.clone() });
        let known = Known { request, ..self.known() };
        self.write(&known);
        Some(fds)
    }

    /// Takes note of which descriptors a request left with the device, which it served.
    pub(super) fn note_served(&mut self, request: u32, body: &[u8], numbers: &[Number]) {
        let Ok(request) = FrontendReq::try_from(request) else { return };
        let first = numbers.first().copied();
        match request {
            FrontendReq::SET_MEM_TABLE => {
                let regions = body::memory_table(body).unwrap_or_default();
                let addresses = regions.iter().map(|region| region.guest_phys_addr);
                self.numbers.memory = addresses.zip(numbers.iter().copied()).collect();
            }
            FrontendReq::ADD_MEM_REG => {
                if let (Ok(region), Some(number)) = (read::<VhostUserSingleMemoryRegion>(body), first) {
                    // One that was there already is still what it was.
                    self.numbers.memory.entry(region.guest_phys_addr).or_insert(number);
                }
            }
            FrontendReq::REM_MEM_REG => {
                let is_there =
                    |addr: u64| self.memory.regions().iter().any(|region| region.guest_addr == addr);
                self.numbers.memory.retain(|&addr, _| is_there(addr));
            }
            FrontendReq::SET_VRING_KICK => note(&mut self.numbers.kick, body, first),
            FrontendReq::SET_VRING_CALL => note(&mut self.numbers.call, body, first),
            FrontendReq::SET_VRING_ERR => note(&mut self.numbers.error, body, first),
            FrontendReq::SET_BACKEND_REQ_FD => self.numbers.backchannel = first,
            FrontendReq::SET_INFLIGHT_FD => self.numbers.inflight = first,
            FrontendReq::SET_LOG_BASE => self.numbers.log = first,
            FrontendReq::SET_LOG_FD => self.numbers.log_bell = first,
            _ => {}
        }
    }

    /// Records what became of the request, before its reply is sent.
    pub(super) fn record_outcome(&mut self, reply: Option<&[u8]>, fd: Option<&OwnedFd>) {
        let Some(journal) = &mut self.journal else { return };
        let fd = match fd.and_then(|fd| fd.try_clone().ok()).map(|fd| journal.keep(&[fd])) {
            Some(Ok(numbers)) => numbers.first().copied(),
            Some(Err(_)) => return self.end_journal(),
            None => None,
        };
        let reply = reply.map(|bytes| KnownReply { bytes: bytes.to_vec(), fd });
        let known = Known { reply, ..self.known() };
        self.write(&known);
    }

    /// Records what the device is now, if it changed.
    pub(super) fn record(&mut self) {
        if self.journal.is_some() {
            let known = self.known();
            self.write(&known);
        }
    }

    /// The connection ends, or cannot be kept any more.
    pub(super) fn end_journal(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.end();
        }
    }

    fn write(&mut self, known: &Known) {
        if let Some(journal) = &mut self.journal {
            journal.write(known);
        }
    }

    fn known(&self) -> Known {
        let Numbers { memory, backchannel, inflight, log, log_bell, .. } = &self.numbers;
        let (log, log_bell) = self.log.known(*log, *log_bell);
        let region = |region: &ringyard_dataplane::ring::Region| {
            let file = memory.get(&region.guest_addr).copied()?;
            let (guest_addr, user_addr) = (region.guest_addr, region.user_addr);
            Some(KnownRegion { guest_addr, user_addr, len: region.len, offset: region.offset, file })
        };
        let rings =
            self.vrings.iter().enumerate().map(|(index, vring)| (index, self.known_ring(index, vring)));
        Known {
            offered: self.offered,
            features: self.features,
            protocol: self.protocol,
            status: self.status,
            attached: self.attached,
            nic: self.nic.into(),
            regions: self.memory.regions().iter().filter_map(region).collect(),
            rings: rings.filter(|(_, ring)| *ring != KnownRing::default()).collect(),
            wishes: self.control.wishes().map(Wishes::known),
            control_is_new: self.control.is_new(),
            announce_later: self.announce_later.map(|Mac(mac)| mac),
            backchannel: backchannel.filter(|_| self.backchannel.is_some()),
            inflight: inflight.and_then(|file| Some(self.inflight.as_ref()?.known(file))),
            log,
            log_bell,
            request: None,
            reply: None,
        }
    }

    fn known_ring(&self, index: usize, vring: &Vring) -> KnownRing {
        let Numbers { kick, call, error, .. } = &self.numbers;
        let number = |numbers: &BTreeMap<usize, Number>| numbers.get(&index).copied();
        let start = |ring: Arc<ringyard_dataplane::ring::Ring>| KnownStart {
            skew: ring.skew(),
            broken: vring.is_broken(),
        };
        let RingLayout { size, desc, avail, used } = vring.layout;
        KnownRing {
            size,
            desc,
            avail,
            used,
            base: vring.base,
            packed: vring.packed,
            enabled: vring.enabled,
            kick: number(kick).filter(|_| vring.kick.is_some()),
            call: number(call).filter(|_| vring.call.is_some()),
            error: number(error).filter(|_| vring.error.is_some()),
            used_log: vring.used_log,
            started: vring.ring().map(start),
        }
    }

    /// The device of a connection that a process before this one was killed with. No worker has anything of it yet.
    ///
    /// Errors: it cannot be; a sentence.
    pub(super) fn restore(port: &'a Port<'a>, journal: Journal, known: &Known) -> Result<Device<'a>, String> {
        let mut device = Device::new(port);
        if known.features & !known.offered != 0 {
            return Err("features in its record were not offered".into());
        }
        (device.offered, device.features) = (known.offered, known.features);
        (device.protocol, device.status) = (known.protocol, known.status);
        device.nic = known.nic.into();
        device.announce_later = known.announce_later.map(Mac);
        device.memory = device.restore_memory(&journal, &known.regions)?;
        if let Some(inflight) = &known.inflight {
            let buffer = Inflight::restore(journal.take(inflight.file)?, inflight, &port.trouble)?;
            (device.inflight, device.numbers.inflight) = (Some(buffer), Some(inflight.file));
        }
        if let Some(number) = known.backchannel {
            device.backchannel = Some(Backchannel::new(journal.take(number)?)?);
            device.numbers.backchannel = Some(number);
        }
        let log = known.log.map(|log| Ok::<_, String>((journal.take(log.file)?, log))).transpose()?;
        let bell = known.log_bell.map(|number| journal.take(number)).transpose()?;
        device.log = Log::restore(log, bell, &port.trouble)?;
        (device.numbers.log, device.numbers.log_bell) = (known.log.map(|log| log.file), known.log_bell);
        if let Some(wishes) = &known.wishes {
            device.control.restore(Wishes::restore(known.features, port.pairs, wishes));
        }
        device.control.note_start(known.control_is_new);
        device.journal = Some(journal);
        for (&index, ring) in &known.rings {
            device.restore_ring(index, ring).map_err(|why| format!("ring {index}: {why}"))?;
        }
        Ok(device)
    }

    fn restore_memory(
        &mut self,
        journal: &Journal,
        known: &[KnownRegion],
    ) -> Result<Arc<MemoryTable>, String> {
        if known.is_empty() {
            return Ok(Arc::default());
        }
        let (mut regions, mut files) = (Vec::new(), Vec::new());
        for region in known {
            files.push(journal.take(region.file)?);
            regions.push(VhostUserMemoryRegion::new(
                region.guest_addr,
                region.len,
                region.user_addr,
                region.offset,
            ));
            self.numbers.memory.insert(region.guest_addr, region.file);
        }
        memory::table(&[], &regions, files, &self.port.trouble)
    }

    fn restore_ring(&mut self, index: usize, known: &KnownRing) -> Result<(), String> {
        let journal = self.journal.as_ref().ok_or("no journal")?;
        let take = |number: Option<Number>| number.map(|number| journal.take(number)).transpose();
        let (kick, call, error) = (take(known.kick)?, take(known.call)?, take(known.error)?);
        let [kick, error] = [kick, error].map(|fd| fd.map(event).transpose());
        let KnownRing { size, desc, avail, used, base, packed, enabled, .. } = *known;
        let mut vring = Vring::default();
        (vring.layout, vring.base) = (RingLayout { size, desc, avail, used }, base);
        (vring.packed, vring.enabled) = (packed, enabled);
        (vring.kick, vring.error) = (kick?, error?);
        for (numbers, number) in [
            (&mut self.numbers.kick, known.kick),
            (&mut self.numbers.call, known.call),
            (&mut self.numbers.error, known.error),
        ] {
            numbers.extend(number.map(|number| (index, number)));
        }
        let (call, socket) = self.call(call)?;
        (vring.call, vring.used_log) = (call, known.used_log);
        self.socket_calls.extend(socket.map(|socket: Arc<SocketCall>| (index, socket)));
        if let Some(KnownStart { skew, broken }) = known.started {
            vring.resume(index, &self.surroundings(), skew, broken).map_err(|error| error.to_string())?;
        }
        *self.vrings.get_mut(index).ok_or("there is no such ring")? = vring;
        Ok(())
    }

    /// Has the workers go on with a device that was restored, and its guest look at what it may have missed.
    pub(super) fn go_on(&mut self, was_attached: bool) -> Result<(), Unplugged> {
        self.restore_control()?;
        if was_attached {
            self.publish()?;
        }
        self.vrings.iter().for_each(Vring::signal);
        Ok(())
    }

    /// What a call descriptor is to be used as.
    pub(super) fn call(
        &self,
        fd: Option<OwnedFd>,
    ) -> Result<(Option<Call>, Option<Arc<SocketCall>>), String> {
        Ok(match fd {
            None => (None, None),
            Some(fd) if SocketCall::is_socket(&fd) => {
                let socket = Arc::new(SocketCall::new(fd, self.port.notices.waker()));
                (Some(socket.call()), Some(socket))
            }
            Some(fd) => (Some(Call::from(event(fd)?)), None),
        })
    }
}

/// Notes the number of the descriptor of SET_VRING_KICK, CALL or ERR, or that there is none.
fn note(numbers: &mut BTreeMap<usize, Number>, body: &[u8], number: Option<Number>) {
    let Ok(VhostUserU64 { value }) = read::<VhostUserU64>(body) else { return };
    let index = (value & !NO_FD) as usize;
    match number {
        Some(number) => numbers.insert(index, number),
        None => numbers.remove(&index),
    };
}

//! What a front end negotiated on one connection, and what its messages do to it.
//!
//! A message is checked whole and tried on a copy of what it changes; only what works takes effect, and it is answered
//! when no worker uses what was before. Changes of rings that are not started concern no worker and cost no publish.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::Attachment;
use ringyard_dataplane::ring::{ControlRing, MemoryTable, RingError, is_ring_size};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserInflight, VhostUserLog, VhostUserProtocolFeatures, VhostUserSingleMemoryRegion,
    VhostUserU64, VhostUserVringAddr, VhostUserVringState,
};

use super::backchannel::Backchannel;
use super::body::{check_mtu, empty, mac, read};
use super::control_queue::ControlQueue;
use super::inflight::Inflight;
use super::journal::Journal;
use super::keeping::Numbers;
use super::log::{self, Log};
use super::nic::NicState;
use super::socket_call::SocketCall;
use super::{Port, body, features, memory};
use crate::bucket::Bucket;
use crate::line::Unplugged;
use crate::virtio_net;
use crate::vring::{self, Surroundings, Vring, event};

/// What a request that was served says.
pub(super) enum Answer {
    /// Nothing, unless asked to acknowledge.
    Done,
    Value(u64),
    State(VhostUserVringState),
    Log(VhostUserLog),
    /// The body of GET_CONFIG.
    Config(Vec<u8>),
    /// A buffer that is for the front end to keep.
    Inflight(VhostUserInflight, OwnedFd),
}

/// Why a request was not served.
pub(super) enum Refusal {
    /// There is no such request here; nothing changed.
    Unknown,
    /// It cannot be; nothing changed.
    Bad(String),
    /// The port has been taken away.
    Unplugged,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Bad(why)
    }
}

impl From<RingError> for Refusal {
    fn from(error: RingError) -> Refusal {
        Refusal::Bad(error.to_string())
    }
}

impl From<Unplugged> for Refusal {
    fn from(_: Unplugged) -> Refusal {
        Refusal::Unplugged
    }
}

/// One front end's device.
pub(super) struct Device<'a> {
    pub(super) port: &'a Port<'a>,
    pub(super) bucket: Bucket,
    /// Virtio features as they were offered last.
    pub(super) offered: u64,
    /// Acknowledged virtio features; 0 before SET_FEATURES.
    pub(super) features: u64,
    /// Acknowledged protocol features.
    pub(super) protocol: u64,
    /// The virtio device status, kept for the front end only.
    pub(super) status: u64,
    pub(super) memory: Arc<MemoryTable>,
    /// What it logs of that when the guest is migrated.
    pub(super) log: Log,
    /// Those of all queue pairs, and one more, which can only be the control queue.
    pub(super) vrings: Vec<Vring>,
    /// Whom to announce once a ring runs.
    pub(super) announce_later: Option<Mac>,
    /// Workers may have rings of ours.
    pub(super) attached: bool,
    /// The nic as the front end knows it.
    pub(super) nic: NicState,
    pub(super) control: ControlQueue,
    pub(super) backchannel: Option<Backchannel>,
    /// By ring: the call descriptor, where it is a socket.
    pub(super) socket_calls: BTreeMap<usize, Arc<SocketCall>>,
    /// What the front end keeps for whoever serves it after a crash.
    pub(super) inflight: Option<Inflight>,
    /// What a successor of this process goes by, and the numbers of the descriptors in it.
    pub(super) journal: Option<Journal>,
    pub(super) numbers: Numbers,
}

impl<'a> Device<'a> {
    /// Of a front end that has just come.
    pub(super) fn new(port: &'a Port<'a>) -> Device<'a> {
        let pairs = usize::from(port.pairs);
        let nic = port.notices.state();
        Device {
            port,
            bucket: Bucket::new(),
            offered: features::offered(pairs, &nic),
            features: 0,
            protocol: 0,
            status: 0,
            memory: Arc::default(),
            log: Log::default(),
            vrings: vec![Vring::default(); 2 * pairs + 1],
            announce_later: None,
            attached: false,
            nic,
            control: ControlQueue::default(),
            backchannel: None,
            socket_calls: BTreeMap::new(),
            inflight: None,
            journal: None,
            numbers: Numbers::default(),
        }
    }

    /// Whether a front end that wants to know how a request went is told.
    pub(super) fn acknowledges(&self) -> bool {
        self.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// Serves one request.
    pub(super) fn serve(&mut self, request: u32, body: &[u8], fds: Vec<OwnedFd>) -> Result<Answer, Refusal> {
        let request = FrontendReq::try_from(request).map_err(|()| Refusal::Unknown)?;
        // Requests that come with a protocol feature are none without it (P24).
        if self.protocol & features::needed(request) != features::needed(request) {
            return Err(Refusal::Unknown);
        }
        if let Some(value) = self.value(request) {
            return empty(body).map(|()| Answer::Value(value));
        }
        match request {
            FrontendReq::GET_VRING_BASE => return self.vring_base(read(body)?),
            FrontendReq::SET_LOG_BASE => return self.set_log_base(read(body)?, fds),
            FrontendReq::SET_LOG_FD => self.set_log_bell(fds)?,
            FrontendReq::GET_INFLIGHT_FD => return self.make_inflight(body::inflight(body)?),
            FrontendReq::SET_INFLIGHT_FD => self.set_inflight(body::inflight(body)?, fds)?,
            FrontendReq::GET_CONFIG => return Ok(Answer::Config(self.config().reply(body))),
            FrontendReq::SET_CONFIG => self.set_config(body)?,
            FrontendReq::SET_BACKEND_REQ_FD => self.set_backchannel(body, fds)?,
            FrontendReq::SET_OWNER => empty(body)?,
            FrontendReq::RESET_OWNER | FrontendReq::RESET_DEVICE => {
                empty(body)?;
                self.reset()?;
                self.vrings.iter_mut().for_each(|vring| vring.base = None);
                self.forget_wishes();
            }
            FrontendReq::SET_FEATURES => self.set_features(read::<VhostUserU64>(body)?.value)?,
            FrontendReq::SET_PROTOCOL_FEATURES => {
                self.set_protocol_features(read::<VhostUserU64>(body)?.value)?;
            }
            FrontendReq::SET_STATUS => self.set_status(read::<VhostUserU64>(body)?.value)?,
            FrontendReq::SEND_RARP => self.announce(mac(read::<VhostUserU64>(body)?.value)?),
            FrontendReq::NET_SET_MTU => check_mtu(read::<VhostUserU64>(body)?.value)?,
            FrontendReq::SET_MEM_TABLE => {
                let regions = body::memory_table(body)?;
                self.set_memory(memory::table(&[], &regions, fds, &self.port.trouble)?)?;
            }
            FrontendReq::ADD_MEM_REG => {
                let region: VhostUserSingleMemoryRegion = read(body)?;
                if !memory::has(self.memory.regions(), &region) {
                    self.set_memory(memory::table(
                        self.memory.regions(),
                        &[*region],
                        fds,
                        &self.port.trouble,
                    )?)?;
                }
            }
            FrontendReq::REM_MEM_REG => {
                let region: VhostUserSingleMemoryRegion = read(body)?;
                if memory::has(self.memory.regions(), &region) {
                    self.set_memory(memory::without(self.memory.regions(), &region)?)?;
                }
            }
            FrontendReq::SET_VRING_NUM => self.set_vring_num(read(body)?)?,
            FrontendReq::SET_VRING_BASE => self.set_vring_base(read(body)?)?,
            FrontendReq::SET_VRING_ADDR => self.set_vring_addr(read(body)?)?,
            FrontendReq::SET_VRING_ENABLE => self.set_vring_enable(read(body)?)?,
            FrontendReq::SET_VRING_KICK => self.set_vring_kick(body, fds)?,
            FrontendReq::SET_VRING_CALL => self.set_vring_call(body, fds)?,
            FrontendReq::SET_VRING_ERR => {
                let (index, error) = self.event(body, fds)?;
                self.change(index, |vring| vring.error = error)?;
            }
            _ => return Err(Refusal::Unknown),
        }
        Ok(Answer::Done)
    }

    /// Takes rings that broke out of service, each with one warning.
    pub(super) fn retire_broken(&mut self) -> Result<(), Unplugged> {
        let mut retired = false;
        for (ring, vring) in self.vrings.iter_mut().enumerate() {
            if let Some(fault) = vring.retire_broken() {
                tracing::warn!(socket = self.port.name, ring, %fault, "vhost-user: ring stopped until it is started again");
                retired = true;
            }
        }
        if retired {
            self.publish()?;
            self.give_back();
        }
        Ok(())
    }

    /// Whether the front end truncated a file of its memory, or its dirty log.
    pub(super) fn has_lost_memory(&self) -> bool {
        self.memory.is_lost() || self.log.is_lost() || self.inflight.as_ref().is_some_and(Inflight::is_lost)
    }

    /// Takes everything away from the workers: the front end has gone.
    pub(super) fn detach(&mut self) -> Result<(), Unplugged> {
        if !std::mem::take(&mut self.attached) {
            return Ok(());
        }
        let detached = self.port.gate.wait(|| self.port.line.attach(Attachment::default()));
        self.forget_wishes();
        // A front end that comes back goes on from the used indexes.
        self.vrings.iter_mut().for_each(Vring::stop);
        self.give_back();
        detached
    }

    /// What rings that no worker has any more held, is given back; the frames of that are counted as dropped.
    fn give_back(&self) {
        self.port.line.count_dropped(self.vrings.iter().map(Vring::give_back).sum());
    }

    /// What answers a question that is about no ring.
    fn value(&mut self, request: FrontendReq) -> Option<u64> {
        match request {
            FrontendReq::GET_FEATURES => {
                self.offered = features::offered(self.pairs(), &self.nic);
                Some(self.offered)
            }
            FrontendReq::GET_PROTOCOL_FEATURES => Some(features::PROTOCOL),
            FrontendReq::GET_QUEUE_NUM => Some(self.pairs() as u64),
            FrontendReq::GET_MAX_MEM_SLOTS => Some(memory::SLOTS_MAX as u64),
            FrontendReq::GET_STATUS => Some(self.status),
            _ => None,
        }
    }

    fn set_features(&mut self, features: u64) -> Result<(), Refusal> {
        let unknown = features & !self.offered;
        if unknown != 0 {
            return Err(Refusal::Bad(format!("features {unknown:#x} were not offered")));
        }
        // A started ring has the positions of its form.
        if (features ^ self.features) & features::PACKED != 0 && self.vrings.iter().any(Vring::is_started) {
            return Err(Refusal::Bad("started rings do not change between split and packed".into()));
        }
        let (old, control) = (self.control_index(), features::control_queue(features, self.pairs()));
        let is_started = |index: Option<usize>| index.is_some_and(|index| self.vrings[index].is_started());
        if old != control && (is_started(old) || is_started(control)) {
            return Err(Refusal::Bad(
                "a started ring does not become the control queue, nor ceases to be it".into(),
            ));
        }
        let mut vrings = self.vrings.clone();
        if features & features::PROTOCOL_FEATURES == 0 {
            vrings.iter_mut().for_each(|vring| vring.enabled = true);
        }
        let around = Surroundings {
            options: virtio_net::options(features),
            control,
            logging: self.log.logging(features),
            ..self.surroundings()
        };
        self.replace(vrings, &around)?;
        if features != self.features {
            tracing::info!(
                socket = self.port.name,
                features = format!("{features:#x}"),
                "vhost-user: negotiated"
            );
        }
        self.features = features;
        self.follow_features();
        Ok(())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<(), Refusal> {
        let unknown = features & !features::PROTOCOL;
        if unknown != 0 {
            return Err(Refusal::Bad(format!("protocol features {unknown:#x} were not offered")));
        }
        self.protocol = features;
        Ok(())
    }

    fn set_status(&mut self, status: u64) -> Result<(), Refusal> {
        if status > u64::from(u8::MAX) {
            return Err(Refusal::Bad(format!("status {status:#x}")));
        }
        if status == 0 {
            self.reset()?;
        }
        self.status = status;
        Ok(())
    }

    /// Back to what it was when the front end came, but for what was acknowledged of the protocol; for the memory, which
    /// QEMU sends by differences; and for the positions: QEMU before 8.1 asks for them after SET_STATUS 0, whenever it
    /// pauses its guest.
    fn reset(&mut self) -> Result<(), Refusal> {
        (self.features, self.status) = (0, 0);
        let started = self.vrings.iter().any(Vring::is_started);
        self.vrings.iter_mut().for_each(Vring::stop);
        if started {
            self.publish()?;
            self.give_back();
            tracing::info!(socket = self.port.name, "vhost-user: all rings stopped by a reset");
        }
        self.vrings.iter_mut().for_each(Vring::reset);
        self.log = Log::default();
        Ok(())
    }

    /// Rings that are started must lie in the new memory too (P04).
    fn set_memory(&mut self, memory: Arc<MemoryTable>) -> Result<(), Refusal> {
        let around = Surroundings { memory: memory.clone(), ..self.surroundings() };
        self.replace(self.vrings.clone(), &around)?;
        self.memory = memory;
        Ok(())
    }

    fn set_vring_num(&mut self, state: VhostUserVringState) -> Result<(), Refusal> {
        let (index, size) = (self.stopped(state.index)?, state.num);
        match u16::try_from(size) {
            Ok(size) if is_ring_size(size, self.packed()) => {
                self.vrings[index].layout.size = size;
                Ok(())
            }
            _ => Err(Refusal::Bad(format!("a ring of {size} entries"))),
        }
    }

    fn set_vring_base(&mut self, state: VhostUserVringState) -> Result<(), Refusal> {
        let (index, base) = (self.stopped(state.index)?, state.num);
        // A packed ring's used position is in the upper half. It can only be the same, since what comes first goes first;
        // DPDK leaves it 0.
        let packed = self.packed();
        let base = if packed { base & u32::from(u16::MAX) } else { base };
        let base = u16::try_from(base).map_err(|_| Refusal::Bad(format!("a split ring at {base:#x}")))?;
        (self.vrings[index].base, self.vrings[index].packed) = (Some(base), packed);
        Ok(())
    }

    fn set_vring_addr(&mut self, addr: VhostUserVringAddr) -> Result<(), Refusal> {
        let index = self.index(addr.index)?;
        self.change(index, |vring| {
            vring.layout.desc = addr.descriptor;
            vring.layout.avail = addr.available;
            vring.layout.used = addr.used;
            vring.used_log = log::used_address(&addr);
        })
    }

    /// QEMU sends it while it makes the device, before SET_FEATURES; it holds from then on.
    fn set_vring_enable(&mut self, state: VhostUserVringState) -> Result<(), Refusal> {
        let (index, enable) = (self.index(state.index)?, state.num);
        match enable {
            // QEMU says it twice for each start.
            0 | 1 if self.vrings[index].enabled == (enable == 1) => Ok(()),
            0 | 1 => self.change(index, |vring| vring.enabled = enable == 1),
            _ => Err(Refusal::Bad(format!("SET_VRING_ENABLE with {enable}"))),
        }
    }

    fn set_vring_kick(&mut self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let (index, kick) = self.event(body, fds)?;
        self.retire_broken()?;
        let mut vring = self.vrings[index].clone();
        vring.kick = kick;
        let fresh = !vring.is_started();
        if index == 2 * self.pairs() && self.control_index() != Some(index) {
            return Err(Refusal::Bad(format!("ring {index} is no control queue")));
        }
        vring.start(index, &self.surroundings())?;
        if fresh {
            if self.control_index() == Some(index) {
                self.control.note_start(vring.is_at_beginning());
            }
            let (size, base, enabled) = (vring.layout.size, self.base(index), vring.enabled);
            tracing::info!(
                socket = self.port.name,
                ring = index,
                size,
                base,
                enabled,
                "vhost-user: ring started"
            );
        }
        self.vrings[index] = vring;
        self.publish()?;
        self.vrings[index].signal();
        Ok(())
    }

    fn set_vring_call(&mut self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let (index, fd) = self.descriptor(body, fds)?;
        let (call, socket) = self.call(fd)?;
        self.change(index, |vring| vring.call = call)?;
        self.socket_calls.remove(&index);
        self.socket_calls.extend(socket.map(|socket| (index, socket)));
        Ok(())
    }

    /// Stops the ring and says where it got to.
    fn vring_base(&mut self, state: VhostUserVringState) -> Result<Answer, Refusal> {
        let index = self.index(state.index)?;
        self.retire_broken()?;
        if self.vrings[index].is_started() {
            self.vrings[index].stop();
            self.publish()?;
            self.give_back();
            self.vrings[index].settle();
            // As on the rings' stop in other back ends, the way to wake us goes; it comes again with the next start.
            self.vrings[index].kick = None;
            tracing::info!(socket = self.port.name, ring = index, "vhost-user: ring stopped");
        }
        Ok(Answer::State(VhostUserVringState::new(state.index, self.base(index))))
    }

    /// Where a stopped ring goes on, as vhost-user tells it: of a packed ring the available position in the lower half,
    /// the used one in the upper.
    fn base(&self, index: usize) -> u32 {
        let vring = &self.vrings[index];
        match vring.base {
            Some(base) if vring.packed => u32::from(base) * 0x1_0001,
            Some(base) => base.into(),
            None if self.packed() => 0x8000_8000,
            None => 0,
        }
    }

    /// VIRTIO_F_RING_PACKED was negotiated.
    pub(super) fn packed(&self) -> bool {
        virtio_net::options(self.features).packed
    }

    /// Tries `edit` on a ring; workers follow if it is started.
    fn change(&mut self, index: usize, edit: impl FnOnce(&mut Vring)) -> Result<(), Refusal> {
        let mut vring = self.vrings[index].clone();
        edit(&mut vring);
        vring.refit(index, &self.surroundings())?;
        let started = vring.is_started();
        self.vrings[index] = vring;
        if started {
            self.publish()?;
            self.vrings[index].signal();
        }
        Ok(())
    }

    /// Tries other surroundings on all rings; workers follow if any is started.
    pub(super) fn replace(&mut self, mut vrings: Vec<Vring>, around: &Surroundings) -> Result<(), Refusal> {
        for (index, vring) in vrings.iter_mut().enumerate() {
            vring.refit(index, around)?;
        }
        self.vrings = vrings;
        if self.vrings.iter().any(Vring::is_started) { Ok(self.publish()?) } else { Ok(()) }
    }

    /// Makes the workers follow, and returns when they have.
    pub(super) fn publish(&mut self) -> Result<(), Unplugged> {
        self.bucket.take();
        self.attached = true;
        let data = features::data_rings(self.features, self.pairs());
        let mut attachment = vring::attachment(&self.vrings[..data]);
        attachment.egress.truncate(self.control.pairs().map_or(usize::MAX, usize::from));
        let carrier = attachment.carrier;
        self.port.gate.wait(|| self.port.line.attach(attachment))?;
        if let Some(mac) = self.announce_later.take_if(|_| carrier) {
            self.port.line.announce(mac);
        }
        Ok(())
    }

    /// QEMU has a guest announced when it has moved here, several times within a second; one that is kept paused for longer
    /// starts its rings after that, and nobody would know where it is.
    fn announce(&mut self, mac: Mac) {
        let can_be_heard = self.vrings.iter().any(Vring::is_live);
        self.announce_later = (!can_be_heard).then_some(mac);
        self.port.line.announce(mac);
    }

    pub(super) fn surroundings(&self) -> Surroundings {
        let (memory, trouble) = (self.memory.clone(), self.port.trouble.clone());
        let (options, control) = (virtio_net::options(self.features), self.control_index());
        let inflight = self.inflight.as_ref().and_then(|inflight| inflight.journals(options.packed));
        let journals = inflight.or_else(|| self.journal.as_ref().map(Journal::rings));
        let logging = self.log.logging(self.features);
        Surroundings { memory, options, control, logging, trouble, journals }
    }

    /// Queue pairs, at most.
    pub(super) fn pairs(&self) -> usize {
        self.port.pairs.into()
    }

    /// The control queue's ring.
    pub(super) fn control_index(&self) -> Option<usize> {
        features::control_queue(self.features, self.pairs())
    }

    /// Our end of it, while it is started and enabled.
    pub(super) fn control_ring(&self) -> Option<Arc<ControlRing>> {
        self.vrings[self.control_index()?].control()
    }

    /// The ring that a message is about, by the index as it came (P02).
    fn index(&self, index: u32) -> Result<usize, Refusal> {
        let known = (index as usize) < self.vrings.len();
        if known { Ok(index as usize) } else { Err(Refusal::Bad(format!("there is no ring {index}"))) }
    }

    /// As [`Self::index`], of a ring that is not started: size and position of one that is are its own (P16).
    fn stopped(&self, index: u32) -> Result<usize, Refusal> {
        match self.index(index)? {
            at if self.vrings[at].is_started() => Err(Refusal::Bad(format!("ring {index} is started"))),
            at => Ok(at),
        }
    }

    /// The ring and the descriptor of SET_VRING_KICK and ERR.
    fn event(&self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(usize, Option<Arc<OwnedFd>>), Refusal> {
        let (index, fd) = self.descriptor(body, fds)?;
        Ok((index, fd.map(event).transpose()?))
    }

    /// The ring and the descriptor of SET_VRING_KICK, CALL and ERR: an index in the lowest 8 bits, and bit 8 when there
    /// is no descriptor.
    fn descriptor(&self, body: &[u8], mut fds: Vec<OwnedFd>) -> Result<(usize, Option<OwnedFd>), Refusal> {
        let VhostUserU64 { value } = read(body)?;
        let index = self.index(u32::try_from(value & !NO_FD).unwrap_or(u32::MAX))?;
        let fd = match (value & NO_FD != 0, fds.pop()) {
            (true, None) => None,
            (false, Some(fd)) if fds.is_empty() => Some(fd),
            (without, _) => return Err(Refusal::Bad(format!("descriptors do not fit the flag {without}"))),
        };
        Ok((index, fd))
    }
}

/// In SET_VRING_KICK, CALL and ERR: no descriptor comes with it.
pub(super) const NO_FD: u64 = 1 << 8;

//! One virtqueue of a virtio-net device that we are: what was said of it, and our end of it while it is started.
//!
//! Ring 2k is the guest's receive queue, our egress k; ring 2k + 1 its transmit queue, our ingress k; one more may be the
//! control queue, which no worker has. Over vhost-user a ring starts with its kick descriptor and stops when its base is
//! asked for; over VDUSE it follows the device's status. Our end is made anew with every change and shared with the workers
//! by the attachment; the positions survive.

use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::port::{Attachment, Egress, IngressEnd, QueueRings};
use ringyard_dataplane::ring::{
    self, Call, ControlRing, Fault, Mapping, MemoryTable, Ring, RingEnd, RingError, RingJournal, RingLayout,
    RingLogging, RingOptions, RingSignals, RingView,
};
use rustix::fs::OFlags;

/// What all rings of a device share.
pub(crate) struct Surroundings {
    pub memory: Arc<MemoryTable>,
    pub options: RingOptions,
    /// Which ring is the control queue, if any is.
    pub control: Option<usize>,
    /// What is logged of all rings, and where, if there is a log.
    pub logging: Option<RingLogging>,
    /// What a ring that breaks signals.
    pub trouble: Arc<OwnedFd>,
    /// Where rings keep what a successor has to know of them, if anywhere.
    pub journals: Option<Journals>,
}

/// Memory that outlives this process, with a region for each ring.
#[derive(Clone)]
pub(crate) struct Journals {
    pub mapping: Arc<Mapping>,
    /// Where the first region begins, and each next one behind it.
    pub at: usize,
    pub stride: usize,
    /// Regions.
    pub count: usize,
    /// A ring that starts goes on where its region says, if that says anything.
    pub resumes: bool,
}

impl Journals {
    fn of(&self, index: usize, size: u16, packed: bool) -> Option<RingJournal> {
        if index >= self.count || RingJournal::len(size, packed) > self.stride {
            return None;
        }
        let at = index.checked_mul(self.stride)?.checked_add(self.at)?;
        RingJournal::new(self.mapping.clone(), at, size, packed)
    }
}

/// One ring.
#[derive(Clone, Default)]
pub(crate) struct Vring {
    /// Size and addresses as last set; size 0 until then.
    pub layout: RingLayout,
    /// The guest address under which its used part is logged, if it is.
    pub used_log: Option<u64>,
    /// Where the ring goes on when it starts; `None`: at its beginning.
    pub base: Option<u16>,
    /// The form of the ring that [`Self::base`] is about.
    pub packed: bool,
    /// Who tells us; `None`: nobody, we look.
    pub kick: Option<Arc<OwnedFd>>,
    /// Whom we tell of used buffers.
    pub call: Option<Call>,
    /// Whom we tell of a fault.
    pub error: Option<Arc<OwnedFd>>,
    /// Frames may pass.
    pub enabled: bool,
    /// Its positions, and where it lay last, while started.
    ring: Option<Arc<Ring>>,
    view: Option<Arc<RingView>>,
    /// It broke, and was taken out of service.
    broken: bool,
    part: Option<Part>,
}

/// Our end of a started ring.
#[derive(Clone)]
enum Part {
    Ingress(Arc<IngressEnd>),
    Egress(Arc<dyn Egress>),
    Control(Arc<ControlRing>),
}

impl Vring {
    /// Between its kick descriptor and the question for its base.
    pub(crate) fn is_started(&self) -> bool {
        self.ring.is_some()
    }

    /// It stands at its beginning, as it does when a driver has just made it.
    pub(crate) fn is_at_beginning(&self) -> bool {
        matches!((&self.ring, &self.view), (Some(ring), Some(view)) if ring.is_at_beginning(view))
    }

    /// Frames pass.
    pub(crate) fn is_live(&self) -> bool {
        self.part.is_some() && self.enabled
    }

    /// The positions, while started.
    pub(crate) fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.clone()
    }

    /// The ingress, while started.
    pub(crate) fn ingress(&self) -> Option<Arc<IngressEnd>> {
        match &self.part {
            Some(Part::Ingress(end)) => Some(end.clone()),
            _ => None,
        }
    }

    /// The egress, while started and enabled.
    pub(crate) fn egress(&self) -> Option<Arc<dyn Egress>> {
        match &self.part {
            Some(Part::Egress(egress)) if self.enabled => Some(egress.clone()),
            _ => None,
        }
    }

    /// The control queue, while started and enabled.
    pub(crate) fn control(&self) -> Option<Arc<ControlRing>> {
        match &self.part {
            Some(Part::Control(ring)) if self.enabled => Some(ring.clone()),
            _ => None,
        }
    }

    /// Starts the ring, or starts it anew if it is broken; makes our end of it, number `index` of its device.
    pub(crate) fn start(&mut self, index: usize, around: &Surroundings) -> Result<(), RingError> {
        if self.broken {
            self.stop();
            self.settle();
        }
        let view = self.view(index, around)?;
        if self.ring.is_none() {
            let packed = view.options().packed;
            let base = self.base.filter(|_| packed == self.packed);
            let resumes = around.journals.as_ref().is_some_and(|journals| journals.resumes);
            let ring = match resumes && view.was_journalled() {
                true => Ring::resume(&view, 0)?,
                false => Ring::start(&view, base)?,
            };
            (self.ring, self.packed) = (Some(Arc::new(ring)), packed);
        }
        self.fit(index, view, around);
        Ok(())
    }

    /// Goes on with a ring that was started in a process before this one, which was killed; with one that broke there, when
    /// it is started anew. `skew` is as [`Ring::skew`] said.
    pub(crate) fn resume(
        &mut self,
        index: usize,
        around: &Surroundings,
        skew: u16,
        broken: bool,
    ) -> Result<(), RingError> {
        let view = self.view(index, around)?;
        (self.ring, self.packed) = (Some(Arc::new(Ring::resume(&view, skew)?)), view.options().packed);
        self.broken = broken;
        match broken {
            true => self.view = Some(view),
            false => self.fit(index, view, around),
        }
        Ok(())
    }

    /// It broke, and was taken out of service.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Makes our end of the ring anew if it is started: something of it changed.
    pub(crate) fn refit(&mut self, index: usize, around: &Surroundings) -> Result<(), RingError> {
        if self.is_started() && !self.broken {
            self.fit(index, self.view(index, around)?, around);
        }
        Ok(())
    }

    /// Takes our end away. The positions are final when no worker has it any more: then [`Self::give_back`], and
    /// [`Self::settle`].
    pub(crate) fn stop(&mut self) {
        self.part = None;
        self.broken = false;
    }

    /// Gives back what a stopped or broken ring held before it let later frames pass, so that it can go on from its base.
    /// Returns the frames that are lost by that.
    #[must_use = "every drop is counted"]
    pub(crate) fn give_back(&self) -> u64 {
        match (&self.ring, &self.view, &self.part) {
            (Some(ring), Some(view), None) => ring.settle(view),
            _ => 0,
        }
    }

    /// Remembers where a stopped ring got to.
    pub(crate) fn settle(&mut self) {
        if let Some(view) = self.view.take() {
            view.end_journal();
        }
        if let Some(ring) = self.ring.take() {
            self.base = Some(ring.base());
        }
    }

    /// Forgets all of a stopped ring but where it got to, and whom to tell: QEMU does not repeat that after a reset.
    pub(crate) fn reset(&mut self) {
        self.settle();
        let Vring { base, packed, call, error, .. } = std::mem::take(self);
        *self = Vring { base, packed, call, error, ..Vring::default() };
    }

    /// Takes a ring that broke since the last time out of service, and says why.
    pub(crate) fn retire_broken(&mut self) -> Option<Fault> {
        let fault = self.ring.as_ref()?.fault()?;
        if self.broken {
            return None;
        }
        self.part = None;
        self.broken = true;
        Some(fault)
    }

    /// Tells the guest to look: what was signalled to its descriptor before may have gone unheard.
    pub(crate) fn signal(&self) {
        if let (Some(call), Some(_)) = (&self.call, &self.part) {
            call.make();
        }
    }

    fn view(&self, index: usize, around: &Surroundings) -> Result<Arc<RingView>, RingError> {
        let signals = RingSignals {
            call: self.call.clone(),
            error: self.error.clone(),
            trouble: Some(around.trouble.clone()),
        };
        let view = RingView::new(around.memory.clone(), self.layout, around.options, signals)?;
        let of = |journals: &Journals| journals.of(index, view.size(), view.options().packed);
        let view = match around.journals.as_ref().and_then(of) {
            Some(journal) => view.journalled(journal),
            None => view,
        };
        let logging = around.logging.clone().map(|all| RingLogging { used: self.used_log, ..all });
        match logging.filter(|logging| logging.buffers || logging.used.is_some()) {
            Some(logging) => view.logged(logging).map(Arc::new),
            None => Ok(Arc::new(view)),
        }
    }

    fn fit(&mut self, index: usize, view: Arc<RingView>, around: &Surroundings) {
        let Some(ring) = self.ring.clone() else { return };
        self.view = Some(view.clone());
        self.part = Some(if around.control == Some(index) {
            Part::Control(Arc::new(ControlRing::new(view, ring, self.kick.clone())))
        } else if index.is_multiple_of(2) {
            Part::Egress(ring::egress(view, ring))
        } else {
            let queue = (index / 2) as u16;
            let RingEnd { ingress, doorbell } = ring::ingress(view, ring, queue, self.kick.clone());
            let discard = (!self.enabled).then_some(DropReason::NotReady);
            Part::Ingress(Arc::new(IngressEnd { queue, ingress, doorbell, linger_us: LINGER_US, discard }))
        });
    }
}

/// Takes an eventfd from a front end. Anything else could make a worker wait when it signals.
pub(crate) fn event(fd: OwnedFd) -> Result<Arc<OwnedFd>, String> {
    let cannot = |error: &dyn Display| format!("looking at a descriptor: {error}");
    let kind =
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|error| cannot(&error))?;
    if kind.as_os_str() != "anon_inode:[eventfd]" {
        return Err(format!("{} is no eventfd", kind.display()));
    }
    let flags = rustix::fs::fcntl_getfl(fd.as_fd()).map_err(|error| cannot(&error))?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(|error| cannot(&error))?;
    Ok(Arc::new(fd))
}

/// How long a worker goes on looking at an idle transmit ring before it asks to be kicked.
const LINGER_US: u32 = 50;

/// What workers get of a device: rings in pairs, the driver's receive ring first. A port has carrier when a frame can pass
/// one way at least: a device whose driver is not up yet is like a host whose interface is down, not like one that drops.
pub(crate) fn attachment(vrings: &[Vring]) -> Attachment {
    let pair = |pair: &[Vring]| QueueRings {
        egress: pair[0].ring(),
        ingress: pair[1].ring(),
        egress_enabled: pair[0].enabled,
        ingress_enabled: pair[1].enabled,
    };
    Attachment {
        carrier: vrings.iter().any(Vring::is_live),
        ingress: vrings.iter().filter_map(Vring::ingress).collect(),
        egress: vrings.iter().step_by(2).map_while(Vring::egress).collect(),
        rings: vrings.chunks_exact(2).map(pair).collect(),
    }
}

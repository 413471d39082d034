//! The cold half of a tap: what its interface goes through, and how it is had again.
//!
//! Workers notice that an interface is down (EIO) or was deleted (EBADFD) when they use it; the kernel tells of both, too,
//! in the network namespace that the interface is in, wherever it has been moved to. While it is down nothing is done but
//! wait. One that was deleted is made again, if it was we who made it; else it is tried for until somebody has.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;

use super::device::{Condition, Device};
use super::queue::TapQueue;
use super::{OpenError, TapSource, VnetHeader, helper, open_queues, run_script};
use crate::line::{Line, Unplugged};
use crate::links::Links;
use crate::minder::{Alarm, Stop, Wait};
use crate::store::Drawer;

/// After the interface could not be had again.
const PAUSE: Duration = Duration::from_secs(1);
/// In which an alarm is not heard again.
const ALARM_PAUSE: Duration = Duration::from_millis(100);

/// How the interface is had again.
pub(super) enum Origin {
    /// We made it.
    Made {
        /// By this name.
        ifname: String,
        queues: u16,
        vnet_hdr: VnetHeader,
        /// Run when it is there.
        script: Option<PathBuf>,
    },
    /// It was there before we opened it.
    Found { ifname: String, queues: u16, vnet_hdr: VnetHeader },
    /// Descriptors of it were given to us.
    Given { ifname: String },
    /// A helper made it.
    Helped { helper: String, bridge: String },
}

/// See the module.
pub(super) struct Life {
    origin: Origin,
    sndbuf_bytes: i32,
    queues: Vec<Arc<TapQueue>>,
    alarm: Arc<Alarm>,
    /// Interfaces of our own namespace.
    home: Links,
    /// Those of the interface's namespace, which is this one, if it is another.
    away: Option<((u64, u64), Links)>,
    /// It was up since it was made.
    was_up: bool,
    /// It is in a namespace that we may not look into: only using it tells whether it is up.
    is_hidden: bool,
    /// Counts what workers are to notice.
    generation: u64,
    /// What workers have.
    told: Option<u64>,
    /// Where its descriptors outlive this process.
    drawer: Drawer,
}

/// How the interface stands.
enum State {
    /// Frames pass; or would, if it were up, which it never was.
    Attached,
    /// They do not, and why.
    Down(String),
    /// It is to be had again.
    Gone(String),
}

impl Life {
    pub(super) fn new(
        origin: Origin,
        sndbuf_bytes: i32,
        devices: Vec<Device>,
        home: Links,
        alarm: Arc<Alarm>,
    ) -> Life {
        let queues = queues_of(devices, &alarm);
        let told = Some(0);
        let (was_up, is_hidden, drawer) = (false, false, Drawer::default());
        let (away, generation) = (None, 0);
        Life { origin, sndbuf_bytes, queues, alarm, home, away, was_up, is_hidden, generation, told, drawer }
    }

    /// The same, which leaves its descriptors in `drawer`, for [`restore`].
    pub(super) fn kept_in(mut self, drawer: Drawer) -> Life {
        self.drawer = drawer;
        self.keep();
        self
    }

    fn keep(&self) {
        let Some(kind) = self.origin.kind() else { return };
        for (index, queue) in self.queues.iter().enumerate() {
            self.drawer.keep(format_args!("{kind}/{index}"), queue.device());
        }
    }

    /// Workers get ends of their own each time, so that none is left that a worker has given up.
    pub(super) fn attachment(&self) -> Attachment {
        let mut attachment = Attachment { carrier: true, ..Attachment::default() };
        for (queue, index) in self.queues.iter().zip(0..) {
            attachment.ingress.push(Arc::new(IngressEnd {
                queue: index,
                ingress: queue.clone(),
                doorbell: queue.clone(),
                linger_us: 0,
                discard: None,
            }));
            attachment.egress.push(queue.clone() as Arc<dyn Egress>);
        }
        attachment
    }

    /// Sleeps until something happens to the interface, and tells control; `info` is what is shown while all is well.
    pub(super) fn run(mut self, line: &Line, info: &str, stop: &Stop) {
        let mut shown = info.to_owned();
        let mut show = |text: String| {
            if text != shown {
                line.show(text.clone());
                shown = text;
            }
        };
        let mut just_made = false;
        loop {
            let alarmed = self.alarm.take();
            let at_home = self.home.clear();
            let were_up = self.away.as_ref().map_or(at_home, |(_, links)| links.clear());
            let state = self.look(&were_up);
            if self.tell(line, &state).is_err() {
                return;
            }
            match &state {
                State::Attached => show(info.to_owned()),
                State::Down(why) => show(format!("error: {why}")),
                State::Gone(why) => {
                    show(format!("error: {why}"));
                    // One that does not last must not keep a core busy.
                    if just_made && !stop.sleep(PAUSE) {
                        return;
                    }
                    let made = self.make_again(line);
                    just_made = made.is_ok();
                    if let Err(error) = made {
                        show(format!("error: {error}"));
                        if !stop.sleep(PAUSE) {
                            return;
                        }
                    }
                    continue;
                }
            }
            just_made = false;
            if self.wait(stop, &state, alarmed) == Wait::Stopped {
                return;
            }
        }
    }

    /// Until there may be news. What raises the alarm again and again must not keep a core busy.
    fn wait(&self, stop: &Stop, state: &State, alarmed: bool) -> Wait {
        let (heard, limit) =
            if alarmed { (PollFlags::empty(), Some(ALARM_PAUSE)) } else { (PollFlags::IN, None) };
        let mut events = vec![(self.alarm.fd(), heard), (self.home.as_fd(), PollFlags::IN)];
        events.extend(self.away.iter().map(|(_, links)| (links.as_fd(), PollFlags::IN)));
        // A tap that is up can be written to, a macvtap always; that it was deleted is told in any case.
        let asked = self.is_hidden && matches!(state, State::Down(_));
        let up = if asked { PollFlags::OUT } else { PollFlags::empty() };
        events.extend(self.device().map(|device| (device.as_fd(), up)));
        stop.wait(&events, limit)
    }

    fn device(&self) -> Option<&Device> {
        self.queues.first().map(|queue| queue.device())
    }

    /// How the interface stands. `were_up`: the interfaces that were up since the last time.
    fn look(&mut self, were_up: &[u32]) -> State {
        self.is_hidden = false;
        let Some(device) = self.device() else { return State::Gone("the interface is not there".into()) };
        let (name, _) = device.whereabouts();
        match device.condition() {
            Condition::Whole => {}
            Condition::Gone => return State::Gone(format!("the interface {name} was deleted")),
            Condition::OtherHeader => {
                let failed = self.queues.iter().any(|queue| queue.device().put_header_right().is_err());
                // Looked at once more: it is up again then, unless it cannot be put right.
                if !failed {
                    self.alarm.raise();
                }
                return State::Down(format!("the virtio-net header of {name} was changed"));
            }
        }
        if self.is_up(were_up) {
            self.was_up = true;
            if self.queues.iter().any(|queue| queue.set_back()) {
                self.generation += 1;
            }
            return State::Attached;
        }
        self.was_up |= self.queues.iter().any(|queue| queue.is_used());
        // Until somebody sets it up, nobody is missing anything; and then no frame is to be lost because we are late.
        if self.was_up { State::Down(format!("the interface {name} is down")) } else { State::Attached }
    }

    fn is_up(&mut self, were_up: &[u32]) -> bool {
        self.follow();
        let Some(device) = self.device() else { return false };
        let links = self.away.as_ref().map_or(&self.home, |(_, links)| links);
        if let Ok(Some(link)) = links.by_name(&device.whereabouts().0) {
            self.was_up |= were_up.contains(&link.index);
            return link.is_up();
        }
        // A tap that can be written to is up.
        let mut fds = [PollFd::new(device, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_up = poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::OUT);
        self.is_hidden = true;
        is_up
    }

    /// Watches the namespace that the interface is in now.
    fn follow(&mut self) {
        let Some(namespace) = self.device().and_then(|device| device.whereabouts().1) else { return };
        let home = rustix::fs::open(HOME, rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).ok();
        let there = identity(&namespace);
        if there == home.as_ref().and_then(identity) {
            self.away = None;
        } else if there != self.away.as_ref().map(|(identity, _)| *identity) {
            let links = Links::open_in(namespace.as_fd()).ok();
            self.away = there.zip(links);
        }
    }

    /// Lets workers have what they do not have yet.
    fn tell(&mut self, line: &Line, state: &State) -> Result<(), Unplugged> {
        let (told, attachment) = match state {
            State::Attached => (Some(self.generation), self.attachment()),
            State::Down(_) | State::Gone(_) => (None, Attachment::default()),
        };
        if told != self.told {
            line.attach(attachment)?;
            self.told = told;
        }
        Ok(())
    }

    /// Has the interface again, which workers do not use any more.
    fn make_again(&mut self, line: &Line) -> Result<(), OpenError> {
        let devices = match &self.origin {
            Origin::Made { ifname, queues, vnet_hdr, script } => {
                let devices = open_queues(Some(ifname.clone()), *queues, *vnet_hdr)?;
                script.as_ref().map_or(Ok(()), |script| run_script(script, ifname))?;
                devices
            }
            Origin::Found { ifname, queues, vnet_hdr } => {
                must_exist(&self.home, ifname)?;
                open_queues(Some(ifname.clone()), *queues, *vnet_hdr)?
            }
            Origin::Given { ifname } => {
                let namespace = self.device().and_then(Device::home);
                let elsewhere = namespace.and_then(|namespace| Links::open_in(namespace.as_fd()).ok());
                must_exist(elsewhere.as_ref().unwrap_or(&self.home), ifname)?;
                for queue in &self.queues {
                    let failed = |error| OpenError::new(format!("could not attach to {ifname}"), error);
                    queue.device().take_back().map_err(failed)?;
                }
                Vec::new()
            }
            Origin::Helped { helper, bridge } => vec![Device::take_over(helper::tap(helper, bridge)?)?],
        };
        if !devices.is_empty() {
            let held: usize = self.queues.iter().map(|queue| queue.held()).sum();
            line.count_dropped(held as u64);
            self.queues = queues_of(devices, &self.alarm);
            self.keep();
        }
        for queue in &self.queues {
            let failed = |error| OpenError::new("TUNSETSNDBUF ioctl failed", error);
            queue.device().set_sndbuf(self.sndbuf_bytes).map_err(failed)?;
            queue.begin();
        }
        self.was_up = false;
        self.generation += 1;
        // As an interface that was just opened: nobody knows yet whether it is up.
        self.told = Some(0);
        Ok(())
    }
}

impl Origin {
    /// What the descriptors are kept as; those that were given to us are kept by whoever took them.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Origin::Made { .. } => Some(MADE),
            Origin::Found { .. } => Some(FOUND),
            Origin::Helped { .. } => Some(HELPED),
            Origin::Given { .. } => None,
        }
    }
}

/// What a process before this one left in `drawer`, if the interface is still there.
pub(super) fn restore(
    source: &TapSource,
    script: &Option<PathBuf>,
    drawer: &Drawer,
) -> Option<(Vec<Device>, Origin)> {
    let take = |kind: &str| {
        let fds = (0..).map_while(|index| drawer.take(format_args!("{kind}/{index}")));
        // One whose interface was deleted cannot be asked for it.
        let devices: Result<Vec<Device>, _> = fds.map(Device::take_over).collect();
        devices.ok().filter(|devices| !devices.is_empty())
    };
    match source {
        TapSource::Name { ifname, queues, vnet_hdr } => {
            let (made, queues, vnet_hdr) = (take(MADE), *queues, *vnet_hdr);
            let is_made = made.is_some();
            let devices = made.or_else(|| take(FOUND))?;
            let ifname = ifname.clone().unwrap_or_else(|| devices[0].ifname().to_owned());
            let devices = devices.into_iter().map(|device| device.known_as(&ifname)).collect();
            let origin = match is_made {
                true => Origin::Made { ifname, queues, vnet_hdr, script: script.clone() },
                false => Origin::Found { ifname, queues, vnet_hdr },
            };
            Some((devices, origin))
        }
        TapSource::Helper { helper, bridge } => {
            Some((take(HELPED)?, Origin::Helped { helper: helper.clone(), bridge: bridge.clone() }))
        }
        TapSource::Fds(_) => None,
    }
}

/// As [`Origin::kind`] has it.
const MADE: &str = "made";
const FOUND: &str = "found";
const HELPED: &str = "helped";

fn queues_of(devices: Vec<Device>, alarm: &Arc<Alarm>) -> Vec<Arc<TapQueue>> {
    let queue = |(device, index)| Arc::new(TapQueue::new(device, index, alarm.clone()));
    devices.into_iter().zip(0..).map(queue).collect()
}

fn must_exist(links: &Links, ifname: &str) -> Result<(), OpenError> {
    let failed = |error| OpenError::new(format!("could not find the interface {ifname}"), error);
    let link = links.by_name(ifname).map_err(failed)?;
    link.map(drop).ok_or_else(|| failed(Errno::NODEV.into()))
}

/// Of a namespace.
fn identity(namespace: &OwnedFd) -> Option<(u64, u64)> {
    fstat(namespace).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

const HOME: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;

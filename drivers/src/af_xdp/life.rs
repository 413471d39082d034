//! The port's thread: it follows the interface, takes the carrier down when that is down or gone, and sets up everything
//! anew when it is back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_dataplane::port::Attachment;
use rustix::event::PollFlags;

use super::{AfXdpOptions, OpenError, Sockets, Source, Trouble};
use crate::line::{Line, Unplugged};
use crate::links::{Link, Links};
use crate::minder::{Stop, Wait};

/// A port's life from its first opening on.
pub(super) struct Life {
    options: AfXdpOptions,
    links: Links,
    /// None while the interface is down or gone.
    sockets: Option<Sockets>,
    /// What workers were told last.
    carrier: bool,
    /// The kernel did not take all that it was given when it was woken last.
    flush: bool,
    trouble: Trouble,
}

impl Life {
    /// Opens the sockets.
    pub(super) fn begin(mut options: AfXdpOptions, trouble: Trouble) -> Result<Life, String> {
        let links = Links::open().map_err(|error| format!("opening a netlink socket: {error}"))?;
        let given = match &mut options.source {
            Source::Sockets(fds) => std::mem::take(fds),
            _ => Vec::new(),
        };
        let sockets = open_patiently(&options, given)?;
        let mut life = Life { options, links, sockets: None, carrier: false, flush: false, trouble };
        let link = life.links.by_index(sockets.interface).unwrap_or_default();
        life.carrier = link.as_ref().is_some_and(Link::has_carrier);
        link.into_iter().for_each(|link| sockets.health.set_mtu(link.mtu));
        life.sockets = Some(sockets);
        Ok(life)
    }

    /// What workers get now.
    pub(super) fn attachment(&self) -> Attachment {
        self.sockets.as_ref().map(|sockets| sockets.attachment(self.carrier)).unwrap_or_default()
    }

    /// Until the port goes away.
    pub(super) fn live(mut self, stop: &Stop, line: &Line) {
        loop {
            self.links.clear();
            let Ok(pause) = self.look(line) else { return };
            let mut fds = vec![(self.links.as_fd(), PollFlags::IN)];
            fds.extend(self.sockets.iter().map(|sockets| (sockets.health.fd(), PollFlags::IN)));
            if stop.wait(&fds, pause) == Wait::Stopped {
                return;
            }
        }
    }

    /// Looks at the interface once, and says when to look again if nothing tells before.
    fn look(&mut self, line: &Line) -> Result<Option<Duration>, Unplugged> {
        let Some(sockets) = &self.sockets else { return self.look_for_it(line) };
        let flush = sockets.health.wants_flush() || self.flush;
        let lasting = self.is_given();
        match self.links.by_index(sockets.interface) {
            Ok(Some(link)) if link.is_up() && (lasting || !sockets.health.has_failed()) => {
                sockets.health.set_mtu(link.mtu);
                sockets.health.recover();
                self.flush = flush && sockets.queues.iter().fold(false, |more, queue| queue.flush() | more);
                if lasting {
                    self.say(None);
                }
                self.set_carrier(link.has_carrier(), line)?;
                Ok(self.flush.then_some(FLUSH_PAUSE))
            }
            Ok(Some(_)) if lasting => {
                self.say(Some(format!("error: {} is down", self.options.ifname)));
                self.set_carrier(false, line)?;
                Ok(None)
            }
            Ok(Some(_)) => self.lose("is down", line),
            Ok(None) => self.lose("is gone", line),
            // No memory for an answer: nothing is known.
            Err(_) => Ok(Some(RETRY_PAUSE)),
        }
    }

    /// Whether the sockets were given to us: then they are not to be had again.
    fn is_given(&self) -> bool {
        given_once(&self.options)
    }

    fn set_carrier(&mut self, carrier: bool, line: &Line) -> Result<(), Unplugged> {
        if self.carrier != carrier {
            self.carrier = carrier;
            line.attach(self.attachment())?;
        }
        Ok(())
    }

    /// Gives the sockets up: frames that wait in them are not to be sent later.
    fn lose(&mut self, what: &str, line: &Line) -> Result<Option<Duration>, Unplugged> {
        self.say(Some(format!("error: {} {what}", self.options.ifname)));
        let queues = self.sockets.take().map(|sockets| sockets.queues).unwrap_or_default();
        (self.carrier, self.flush) = (false, false);
        line.attach(Attachment::default())?;
        line.count_dropped(queues.iter().map(|queue| queue.held() as u64).sum());
        Ok(Some(RETRY_PAUSE))
    }

    /// Opens sockets anew once the interface is there and up.
    fn look_for_it(&mut self, line: &Line) -> Result<Option<Duration>, Unplugged> {
        if self.is_given() {
            return Ok(None);
        }
        let Ok(Some(link)) = self.links.by_name(&self.options.ifname) else { return Ok(None) };
        if !link.is_up() {
            return Ok(None);
        }
        match Sockets::open(&self.options, Vec::<OwnedFd>::new()) {
            Ok(sockets) => {
                sockets.health.set_mtu(link.mtu);
                self.sockets = Some(sockets);
                self.carrier = link.has_carrier();
                self.say(None);
                line.attach(self.attachment())?;
                Ok(None)
            }
            // The old sockets may not be closed yet.
            Err(error) => {
                self.say(Some(format!("error: {}", error.text)));
                Ok(Some(RETRY_PAUSE))
            }
        }
    }

    fn say(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// A port that was on the interface until just now may not have closed its sockets yet.
fn open_patiently(options: &AfXdpOptions, mut given: Vec<OwnedFd>) -> Result<Sockets, String> {
    let deadline = Instant::now() + BUSY_TIME_MAX;
    loop {
        match Sockets::open(options, std::mem::take(&mut given)) {
            Ok(sockets) => return Ok(sockets),
            Err(OpenError { busy: true, .. }) if !given_once(options) && Instant::now() < deadline => {
                thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(error.text),
        }
    }
}

fn given_once(options: &AfXdpOptions) -> bool {
    matches!(options.source, Source::Sockets(_))
}

/// Before the kernel is woken again for frames that it had no room for.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);
/// Before sockets are opened again after that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long an interface may be somebody else's when a port is opened.
const BUSY_TIME_MAX: Duration = Duration::from_secs(1);
/// Before it is tried again meanwhile.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

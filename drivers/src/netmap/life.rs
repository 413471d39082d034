//! The port's thread: it follows the card, takes the carrier down when that is down or gone or the kernel has no more use
//! for our rings, and opens everything anew when it is back.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use ringyard_dataplane::port::Attachment;
use rustix::event::PollFlags;

use super::{NetmapOptions, Opened, PortName, Trouble};
use crate::errno;
use crate::line::{Line, Unplugged};
use crate::links::{Link, Links};
use crate::minder::{Stop, Wait};

/// A port's life from its first opening on.
pub(super) struct Life {
    ifname: String,
    device: PathBuf,
    name: PortName,
    links: Links,
    /// None while the card is down or gone.
    opened: Option<Opened>,
    /// What workers were told last.
    carrier: bool,
    /// Looks at frames on their way out that are left before the next one goes.
    flushes: u32,
    trouble: Trouble,
}

/// How the card stands.
enum Standing {
    /// There, with a carrier or without.
    Up(bool),
    Down,
    Gone,
}

impl Life {
    /// Opens the rings.
    pub(super) fn begin(options: &NetmapOptions, trouble: Trouble) -> Result<Life, String> {
        let name = PortName::parse(&options.ifname)?;
        let links =
            Links::open().map_err(|error| format!("opening a netlink socket: {}", errno::text(error)))?;
        let opened = Opened::open(options.device(), &name)?;
        let mut life = Life {
            ifname: options.ifname.clone(),
            device: options.device().to_owned(),
            name,
            links,
            opened: Some(opened),
            carrier: false,
            flushes: 0,
            trouble,
        };
        life.carrier = matches!(life.standing(), Standing::Up(true));
        Ok(life)
    }

    /// What workers get now.
    pub(super) fn attachment(&self) -> Attachment {
        self.opened.as_ref().map(|opened| opened.attachment(self.carrier)).unwrap_or_default()
    }

    /// Until the port goes away.
    pub(super) fn live(mut self, stop: &Stop, line: &Line) {
        loop {
            self.links.clear();
            let Ok(pause) = self.look(line) else { return };
            let mut fds = vec![(self.links.as_fd(), PollFlags::IN)];
            fds.extend(self.opened.iter().map(|opened| (opened.health.fd(), PollFlags::IN)));
            if stop.wait(&fds, pause) == Wait::Stopped {
                return;
            }
        }
    }

    /// Looks at the port once, and says when to look again if nothing tells before.
    fn look(&mut self, line: &Line) -> Result<Option<Duration>, Unplugged> {
        let standing = self.standing();
        let Some(opened) = &self.opened else { return self.look_for_it(&standing, line) };
        if opened.health.wants_flush() {
            self.flushes = FAST_FLUSHES + SLOW_FLUSHES;
        }
        match standing {
            Standing::Up(carrier) if !opened.health.has_failed() => {
                let pending = self.flushes > 0
                    && opened.outlets.iter().fold(false, |pending, outlet| outlet.flush() | pending);
                self.flushes = if pending { self.flushes - 1 } else { 0 };
                if self.carrier != carrier {
                    self.carrier = carrier;
                    line.attach(self.attachment())?;
                }
                let pause = if self.flushes > SLOW_FLUSHES { FLUSH_PAUSE } else { SLOW_FLUSH_PAUSE };
                Ok((self.flushes > 0).then_some(pause))
            }
            Standing::Up(_) => self.lose("gives no more frames", line),
            Standing::Down => self.lose("is down", line),
            Standing::Gone => self.lose("is gone", line),
        }
    }

    /// Asks for the card; a port without one is always up.
    fn standing(&self) -> Standing {
        if self.name.is_vale() {
            return Standing::Up(true);
        }
        match self.links.by_name(self.name.interface()) {
            Ok(Some(link)) if link.is_up() => {
                self.opened.iter().for_each(|opened| opened.health.set_mtu(link.mtu));
                Standing::Up(Link::has_carrier(&link))
            }
            Ok(Some(_)) => Standing::Down,
            // Pipes and ports that others made need not be interfaces.
            Ok(None) if self.name.kernel != self.name.interface() => Standing::Up(true),
            Ok(None) => Standing::Gone,
            Err(_) => Standing::Up(self.carrier),
        }
    }

    /// Gives the rings back.
    fn lose(&mut self, what: &str, line: &Line) -> Result<Option<Duration>, Unplugged> {
        self.say(Some(format!("error: {} {what}", self.ifname)));
        let inlets = self.opened.take().map(|opened| opened.inlets).unwrap_or_default();
        (self.carrier, self.flushes) = (false, 0);
        line.attach(Attachment::default())?;
        line.count_dropped(inlets.iter().map(|inlet| inlet.held() as u64).sum());
        Ok(Some(RETRY_PAUSE))
    }

    fn look_for_it(&mut self, standing: &Standing, line: &Line) -> Result<Option<Duration>, Unplugged> {
        let Standing::Up(carrier) = *standing else { return Ok(None) };
        match Opened::open(&self.device, &self.name) {
            Ok(opened) => {
                self.opened = Some(opened);
                self.carrier = carrier;
                self.say(None);
                line.attach(self.attachment())?;
                // For the MTU, of which the rings do not know yet.
                Ok(Some(Duration::ZERO))
            }
            Err(error) => {
                self.say(Some(format!("error: {error}")));
                Ok(Some(RETRY_PAUSE))
            }
        }
    }

    fn say(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Before the kernel is asked again to send what it had no room for.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);
/// The same, once it did not help so often.
const SLOW_FLUSH_PAUSE: Duration = Duration::from_millis(100);
const FAST_FLUSHES: u32 = 20;
/// And then no more, until the next frame: a card gives slots back when it likes, not when they are sent.
const SLOW_FLUSHES: u32 = 100;
/// Before rings are opened again after that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

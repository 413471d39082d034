//! The cold half of an `af-packet` port: what its interface goes through, and what becomes of the sockets.
//!
//! An interface that goes down keeps its sockets: the kernel gives them frames again when it is up. One that vanished and
//! came back, under its name, is another one, and needs new ones.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::queue::{Queue, Sender};
use super::socket::{Socket, SocketOptions};
use super::{AfPacketOptions, OpenError, features};
use crate::line::{Line, Unplugged};
use crate::links::{Link, Links};
use crate::minder::{Alarm, Stop, Wait};

/// After opening failed.
const PAUSE: Duration = Duration::from_secs(1);
/// After an alarm: what raises it again and again must not keep a core busy.
const ALARM_PAUSE: Duration = Duration::from_millis(100);
/// Microseconds without a frame after which a queue waits for its doorbell, as a guest's ring.
const LINGER_US: u32 = 50;

/// See the module.
pub(super) struct Life {
    options: AfPacketOptions,
    links: Links,
    alarm: Arc<Alarm>,
    /// Of the interface `index`.
    queues: Vec<Arc<Queue>>,
    index: u32,
    /// How often sockets were opened.
    generation: u64,
    /// Those before, which workers may still have.
    retired: Vec<Arc<Queue>>,
    /// What workers have: sockets, and what their interface takes as it is.
    told: Option<(u64, Offloads)>,
}

/// How the interface stands.
enum State {
    /// It takes these as they are.
    Up(Offloads),
    /// Why nothing passes.
    Down(String),
}

impl Life {
    /// Opens the sockets, and says what workers are to have of them.
    pub(super) fn begin(
        options: AfPacketOptions,
        links: Links,
        alarm: Arc<Alarm>,
    ) -> Result<(Life, Attachment), OpenError> {
        let (queues, retired) = (Vec::new(), Vec::new());
        let mut life = Life { options, links, alarm, queues, index: 0, generation: 0, retired, told: None };
        let link = life.find()?;
        let mut attachment = Attachment::default();
        if let State::Up(offloads) = life.adopt(&link)? {
            life.told = Some((life.generation, offloads));
            attachment = life.attachment(offloads);
        }
        Ok((life, attachment))
    }

    /// Sleeps until something happens to the interface, and tells control; `info` is what is shown while all is well.
    pub(super) fn run(mut self, line: &Line, info: &str, stop: &Stop) {
        let mut shown = info.to_owned();
        loop {
            let alarmed = self.alarm.take();
            self.links.clear();
            let (state, pause) = match self.look(alarmed) {
                Ok(state) => (state, None),
                Err(error) => (State::Down(error.to_string()), Some(PAUSE)),
            };
            let text = match &state {
                State::Up(_) => info.to_owned(),
                State::Down(why) => format!("error: {why}"),
            };
            if self.tell(line, &state).is_err() {
                return;
            }
            if text != shown {
                line.show(text.clone());
                shown = text;
            }
            if alarmed && !stop.sleep(ALARM_PAUSE) {
                return;
            }
            let events = [(self.links.as_fd(), PollFlags::IN), (self.alarm.fd(), PollFlags::IN)];
            if stop.wait(&events, pause) == Wait::Stopped {
                return;
            }
        }
    }

    /// How the interface stands. `alarmed`: a worker found something wrong with the sockets.
    fn look(&mut self, alarmed: bool) -> Result<State, OpenError> {
        let link = match self.find() {
            Ok(link) => link,
            // Not one to try again: the kernel tells when it comes.
            Err(error) => return Ok(State::Down(error.to_string())),
        };
        let broken = self.queues.iter().any(|queue| queue.is_broken());
        if broken || alarmed && link.has_carrier() {
            // It was away for a moment only, or it is another one with the same number.
            self.index = 0;
        }
        self.adopt(&link)
    }

    /// The interface, whatever its name is now; or else the one that has the name.
    fn find(&self) -> Result<Link, OpenError> {
        let name = &self.options.ifname;
        let ours = if self.index > 0 { self.links.by_index(self.index) } else { Ok(None) };
        let found = match ours {
            Ok(None) => self.links.by_name(name),
            ours => ours,
        };
        let link =
            found.map_err(|error| OpenError::new(format!("looking for the interface {name}"), error))?;
        link.ok_or_else(|| OpenError::new(format!("could not find the interface {name}"), Errno::NODEV))
    }

    /// Makes `link` the port's interface.
    fn adopt(&mut self, link: &Link) -> Result<State, OpenError> {
        if self.index != link.index {
            let queues = open_queues(&self.options, link, &self.alarm)?;
            self.retired.append(&mut std::mem::replace(&mut self.queues, queues));
            self.index = link.index;
            self.generation += 1;
        }
        if !link.has_carrier() {
            let how = if link.is_up() { "has no carrier" } else { "is down" };
            return Ok(State::Down(format!("the interface {} {how}", link.name)));
        }
        // What is pending is of the time before.
        self.queues.iter().for_each(|queue| _ = queue.socket.take_error());
        let socket = self.queues.first().filter(|_| self.options.offloads);
        let offloads = socket.map(|queue| features::offloads(queue.socket.as_fd(), &link.name));
        Ok(State::Up(offloads.unwrap_or(Offloads::NONE)))
    }

    /// Lets workers have what they do not have yet.
    fn tell(&mut self, line: &Line, state: &State) -> Result<(), Unplugged> {
        let (told, attachment) = match state {
            State::Up(offloads) => (Some((self.generation, *offloads)), self.attachment(*offloads)),
            State::Down(_) => (None, Attachment::default()),
        };
        if told != self.told {
            line.attach(attachment)?;
            self.told = told;
        }
        // What workers have now is not of those.
        let lost: usize = self.retired.drain(..).map(|queue| queue.held()).sum();
        line.count_dropped(lost as u64);
        Ok(())
    }

    /// Workers get ends of their own each time, so that none is left that a worker has given up.
    fn attachment(&self, offloads: Offloads) -> Attachment {
        let mut attachment = Attachment { carrier: true, ..Attachment::default() };
        for queue in &self.queues {
            attachment.ingress.push(Arc::new(IngressEnd {
                queue: queue.number,
                ingress: queue.clone(),
                doorbell: queue.clone(),
                linger_us: LINGER_US,
                discard: None,
            }));
            let sender = Sender { queue: queue.clone(), offloads };
            attachment.egress.push(Arc::new(sender) as Arc<dyn Egress>);
        }
        attachment
    }
}

fn open_queues(
    options: &AfPacketOptions,
    link: &Link,
    alarm: &Arc<Alarm>,
) -> Result<Vec<Arc<Queue>>, OpenError> {
    let failed = |what: &dyn Display, error| {
        OpenError::new(format!("could not open a packet socket on {} ({what})", link.name), error)
    };
    let socket_options = SocketOptions { link, promiscuous: options.promiscuous };
    let (mut queues, mut group) = (Vec::new(), None);
    for number in 0..options.queues {
        let (socket, ring) = Socket::open(&socket_options).map_err(|(what, error)| failed(&what, error))?;
        if options.queues > 1 {
            let joined = socket.join(options.fanout, group);
            group = Some(joined.map_err(|error| failed(&"PACKET_FANOUT", error))?);
        }
        queues.push(Arc::new(Queue::new(socket, ring, number, alarm.clone())));
    }
    for queue in &queues {
        queue.socket.let_in().map_err(|error| failed(&"SO_DETACH_FILTER", error))?;
    }
    Ok(queues)
}

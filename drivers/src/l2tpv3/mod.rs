//! `l2tpv3`: an Ethernet pseudowire over UDP or IP, without a control plane (RFC 3931; the peer's `l2tpv3`, or a static
//! session of Linux's).
//!
//! A frame is a datagram behind a [`Header`](header). The socket is not connected, so that a peer behind an address
//! translation is heard; who is heard is the header's matter. The carrier is up while there is a way to the peer
//! ([`route`]); whether it listens nobody knows.

mod header;
mod route;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringyard_dataplane::port::Attachment;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::ipproto;
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, bind, socket_with};

pub use header::{Cookies, Counter, Format, OFFSET_MAX};

use crate::datagram::{self, DatagramOptions, DatagramQueue, Destination};
use crate::errno;
use crate::line::{Line, Unplugged};
use crate::minder::{Alarm, Minder, Stop, Wait};
use crate::sys::resolve::{Kind, Query, resolve};
#[cfg(any(test, fuzzing))]
pub use header::fuzzing;
use header::{Carrier, Counts, Header, Refusals};
use route::Route;

/// All that opening a tunnel's end needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2tpv3Options {
    /// Our address: a host.
    pub src: String,
    /// The peer's.
    pub dst: String,
    /// Over UDP, our port and the peer's; `None`: over IP itself.
    pub ports: Option<(String, String)>,
    /// Whether the addresses are IPv6 ones; else they are IPv4 ones.
    pub ipv6: bool,
    /// What the two ends agree on.
    pub format: Format,
}

/// Why a tunnel's end could not be opened, in QEMU's words.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// An open end of a tunnel.
pub struct L2tpv3Port {
    id: String,
    tunnel: Arc<Tunnel>,
    /// Given away once; after that the port's thread says what workers have.
    first: Cell<Attachment>,
    /// Until the port's thread has it.
    frames: Option<Arc<Frames>>,
    minder: Option<Minder>,
}

impl L2tpv3Port {
    /// Finds the addresses and opens the socket. May wait for a name server.
    pub fn open(id: &str, options: L2tpv3Options) -> Result<L2tpv3Port, OpenError> {
        let tunnel = Arc::new(Tunnel::open(options)?);
        let frames = tunnel.frames();
        let first = Cell::new(datagram::attachment(frames.clone()));
        Ok(L2tpv3Port { id: id.to_owned(), tunnel, first, frames: Some(frames), minder: None })
    }

    /// What workers get at first; to be asked once, after [`Self::start`].
    pub fn attachment(&self) -> Attachment {
        self.first.take()
    }

    /// Starts the thread that watches the way to the peer and says what was refused.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        let Some(frames) = self.frames.take() else { return Ok(()) };
        let watch = Watch {
            id: self.id.clone(),
            tunnel: self.tunnel.clone(),
            line,
            attachment: self.first.get_mut().clone(),
            frames,
            refused: Counts::default(),
            said_at: None,
        };
        self.minder = Some(Minder::start("l2tpv3", move |stop| watch.run(stop))?);
        Ok(())
    }
}

/// As `info network` shows it.
pub const INFO: &str = "l2tpv3: connected";

type Frames = DatagramQueue<Arc<Header>>;

/// What does not change as long as the port is there.
struct Tunnel {
    socket: Arc<OwnedFd>,
    peer: SocketAddr,
    header: Arc<Header>,
    refusals: Arc<Refusals>,
    /// Raised when nothing can be sent.
    alarm: Arc<Alarm>,
    route: Route,
}

impl Tunnel {
    fn open(options: L2tpv3Options) -> Result<Tunnel, OpenError> {
        let L2tpv3Options { src, dst, ports, ipv6, format } = options;
        let kind = match ports {
            Some(_) => Kind::Datagram,
            None => Kind::Raw { protocol: header::PROTOCOL },
        };
        let find = |host: &str, service: Option<&String>| {
            let (host, service) = (Some(host), service.map(String::as_str));
            let query = Query { host, service, ipv6: Some(ipv6), kind, passive: false, numeric: false };
            let found = resolve(query)?;
            found.first().copied().ok_or_else(String::new)
        };
        let (src_port, dst_port) = ports.as_ref().map(|(src, dst)| (src, dst)).unzip();
        let local = find(&src, src_port)
            .map_err(|error| OpenError(format!("could not resolve src, errno = {error}")))?;
        let failed = |doing| move |error: Errno| OpenError(format!("{doing}: {}", errno::text(error)));
        let socket = open_socket(ipv6, ports.is_some()).map_err(failed("socket creation failed"))?;
        datagram::make_room(&socket);
        bind_to(&socket, local).map_err(failed("could not bind socket"))?;
        let peer = find(&dst, dst_port)
            .map_err(|error| OpenError(format!("could not resolve dst, error = {error}")))?;
        let carrier = match (&ports, ipv6) {
            (Some(_), _) => Carrier::Udp,
            (None, false) => Carrier::Ipv4,
            (None, true) => Carrier::Ipv6,
        };
        let alarm = || Alarm::new().map_err(|error| OpenError(format!("making an eventfd: {error}")));
        let refusals = Arc::new(Refusals::new(alarm()?));
        Ok(Tunnel {
            socket: Arc::new(socket),
            peer,
            header: Arc::new(Header::new(format, carrier, peer.ip(), refusals.clone())),
            refusals,
            alarm: Arc::new(alarm()?),
            route: Route::new(local, peer),
        })
    }

    /// A new queue on the socket.
    fn frames(&self) -> Arc<Frames> {
        Arc::new(DatagramQueue::new(
            self.header.clone(),
            DatagramOptions {
                receive: self.socket.clone(),
                send: self.socket.clone(),
                destination: Destination::Fixed(self.peer.into()),
                queue: 0,
                alarm: self.alarm.clone(),
            },
        ))
    }
}

fn open_socket(ipv6: bool, udp: bool) -> Result<OwnedFd, Errno> {
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, protocol) = if udp {
        (SocketType::DGRAM, ipproto::UDP)
    } else {
        let number = u32::from(header::PROTOCOL);
        (SocketType::RAW, Protocol::from_raw(RawProtocol::new(number).ok_or(Errno::INVAL)?))
    };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))
}

/// A port that was deleted a moment ago may have the address still.
fn bind_to(socket: &OwnedFd, local: SocketAddr) -> Result<(), Errno> {
    let deadline = Instant::now() + BIND_TIME_MAX;
    loop {
        match bind(socket, &local) {
            Err(Errno::ADDRINUSE) if Instant::now() < deadline => thread::sleep(BIND_PAUSE),
            result => return result,
        }
    }
}

/// What the port's thread does.
struct Watch {
    id: String,
    tunnel: Arc<Tunnel>,
    line: Line,
    /// What workers have.
    attachment: Attachment,
    frames: Arc<Frames>,
    /// What was said already, and when.
    refused: Counts,
    said_at: Option<Instant>,
}

impl Watch {
    fn run(mut self, stop: &Stop) {
        // What is so from the start.
        let mut goes_on = self.check_route(stop);
        while goes_on == Ok(()) && self.wait(stop) != Wait::Stopped {
            if self.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                self.say_refusals();
            }
            goes_on = self.check_route(stop);
        }
        self.say_refusals();
    }

    /// Until there is something to look at.
    fn wait(&self, stop: &Stop) -> Wait {
        let Tunnel { alarm, refusals, route, .. } = &*self.tunnel;
        let mut fds = vec![(alarm.fd(), PollFlags::IN)];
        fds.extend(route.events().map(|events| (events, PollFlags::IN)));
        let silent = self.said_at.map_or(Duration::ZERO, |at| SAY_EVERY.saturating_sub(at.elapsed()));
        if silent.is_zero() {
            fds.push((refusals.alarm.fd(), PollFlags::IN));
            return stop.wait(&fds, None);
        }
        stop.wait(&fds, Some(silent))
    }

    /// In one line, however many there were since the last one.
    fn say_refusals(&mut self) {
        let Tunnel { refusals, .. } = &*self.tunnel;
        if !refusals.alarm.take() {
            return;
        }
        let (words, refused) = refusals.since(self.refused);
        (self.refused, self.said_at) = (refused, Some(Instant::now()));
        tracing::warn!("l2tpv3 '{}': refused datagrams: {words}", self.id);
    }

    /// Takes the carrier down while there is no way to the peer, and stays here as long.
    fn check_route(&mut self, stop: &Stop) -> Result<(), Unplugged> {
        let tunnel = self.tunnel.clone();
        let is_suspicious = tunnel.alarm.take();
        let mut shown = None;
        loop {
            // First, so that what happens after the look is not missed.
            tunnel.route.clear();
            let Err(error) = tunnel.route.check() else { break };
            let text = format!("error: no way to {}: {}", tunnel.peer.ip(), errno::text(error));
            if shown.as_ref() != Some(&text) {
                tracing::warn!("l2tpv3 '{}': {text}", self.id);
                self.line.show(text.clone());
                self.line.attach(Attachment { carrier: false, ..self.attachment.clone() })?;
                shown = Some(text);
            }
            let events = tunnel.route.events().map(|events| (events, PollFlags::IN));
            let fds: Vec<_> = events.into_iter().collect();
            if stop.wait(&fds, Some(LOOK_AGAIN)) == Wait::Stopped {
                return Err(Unplugged);
            }
        }
        if shown.is_none() && !is_suspicious {
            return Ok(());
        }
        // A socket that fails though there is a way does not keep us busy.
        if shown.is_none() && !stop.sleep(LOOK_AGAIN) {
            return Err(Unplugged);
        }
        tunnel.alarm.clear();
        let old = std::mem::replace(&mut self.frames, tunnel.frames());
        self.attachment = datagram::attachment(self.frames.clone());
        if shown.is_some() {
            tracing::info!("l2tpv3 '{}': there is a way to {} again", self.id, tunnel.peer.ip());
            self.line.show(INFO);
        }
        self.line.attach(self.attachment.clone())?;
        self.line.count_dropped(old.left());
        Ok(())
    }
}

/// How long an address may be somebody else's, and the time between two looks.
const BIND_TIME_MAX: Duration = Duration::from_millis(500);
const BIND_PAUSE: Duration = Duration::from_millis(5);
/// Between two lines about refused datagrams.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Between two looks for a way, when the kernel says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

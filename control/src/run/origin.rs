//! Where a monitor's clients come from: a socket that listens, a peer that we connect to, or one connection that was there.
//!
//! Names are looked up and peers are waited for on a thread of the monitor's own, which ends or sleeps once that is done.
//! A name server or a peer that does not answer costs nobody else anything.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use ringyard_drivers::chardev::{Server, SocketAccess};
use ringyard_drivers::minder::{Minder, Stop, Wait};
use ringyard_drivers::store::Drawer;
use ringyard_drivers::stream::{Address, InetAddress, Listener, check_connected, connect_by};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, getsockname, sockopt};

use super::Stopper;
use super::monitor::inherited;
use crate::cli::MonitorSource;

/// See the module.
pub(super) enum Origin {
    /// Clients connect.
    Listener(Listener),
    /// We connect to one.
    Caller(Caller),
    /// There is one client, or was.
    Given,
}

impl Origin {
    /// Listens, or connects, and says which connection there is already. Waits as long as that takes, unless `stopper` is
    /// used: before a run begins, its thread has nothing else to do.
    ///
    /// Errors: why there can be no client.
    pub(super) fn open(
        source: &MonitorSource,
        access: &SocketAccess,
        stopper: &Stopper,
        drawer: Drawer,
    ) -> Result<(Origin, Option<OwnedFd>), String> {
        match source {
            MonitorSource::Listen { address, .. } => {
                let (address, access) = (address.clone(), *access);
                let listener = match Listener::restore(&address, &drawer) {
                    Some(listener) => listener,
                    None => beside(stopper, move |_| Some(listen(&address, &access)))?,
                };
                listener.keep(&drawer);
                Ok((Origin::Listener(listener), None))
            }
            MonitorSource::Connect { address, reconnect: None } => {
                let address = address.clone();
                let socket = beside(stopper, move |stop| connect_by(stop, &address))?;
                Ok((Origin::Given, Some(socket)))
            }
            MonitorSource::Connect { address, reconnect: Some(pause) } => {
                let caller = Caller::start(address.clone(), *pause);
                Ok((Origin::Caller(caller.map_err(|error| format!("starting a thread: {error}"))?), None))
            }
            MonitorSource::Fd(number) => {
                let left = drawer.take(Listener::SOCKET);
                let socket = left.map_or_else(|| inherited(*number), Ok).map_err(|error| error.desc)?;
                let opened = of_socket(socket)?;
                if let (Origin::Listener(listener), _) = &opened {
                    listener.keep(&drawer);
                }
                Ok(opened)
            }
            MonitorSource::Stdio => Ok((Origin::Given, None)),
        }
    }

    /// What becomes readable when there is another client.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Origin::Listener(listener) => Some(listener.as_fd()),
            Origin::Caller(caller) => Some(caller.bell.as_fd()),
            Origin::Given => None,
        }
    }

    /// The next client, if there is one.
    ///
    /// Errors: it cannot be had now.
    pub(super) fn next_client(&self) -> rustix::io::Result<Option<OwnedFd>> {
        match self {
            Origin::Listener(listener) => {
                match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
                    accepted => accepted.map(Some),
                }
            }
            Origin::Caller(caller) => Ok(caller.take()),
            Origin::Given => Ok(None),
        }
    }

    /// Hears that a client has gone.
    pub(super) fn forget_client(&self) {
        if let Origin::Caller(caller) = self {
            ring(&caller.gone);
        }
    }

    /// Where a TCP socket listens, whoever chose its port.
    pub(super) fn inet_address(&self) -> Option<SocketAddr> {
        let Origin::Listener(listener) = self else { return None };
        getsockname(listener).ok()?.try_into().ok()
    }
}

/// Whether somebody on another machine can come to this address.
pub(super) fn is_exposed(address: SocketAddr) -> bool {
    !match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// A socket that somebody else made: it listens, or it is connected.
fn of_socket(socket: OwnedFd) -> Result<(Origin, Option<OwnedFd>), String> {
    let is_listening = sockopt::socket_acceptconn(&socket);
    if is_listening.map_err(|_| "the file descriptor is not a socket")? {
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(|error| format!("making it non-blocking: {error}"))?;
        return Ok((Origin::Listener(Listener::Socket(socket)), None));
    }
    check_connected(&socket)?;
    Ok((Origin::Given, Some(socket)))
}

fn listen(address: &Address, access: &SocketAccess) -> Result<Listener, String> {
    match address {
        Address::Unix { path, tight: None } => {
            let server = Server::bind(Path::new(path), access).map_err(|error| error.to_string())?;
            Ok(Listener::File(server, path.clone()))
        }
        // All of this host, of either version where there is IPv6.
        Address::Inet(inet) if inet.host.is_empty() && (inet.ipv4, inet.ipv6) == (None, None) => {
            let any = Address::Inet(InetAddress { host: "::".into(), ..inet.clone() });
            Listener::bind(&any, access).or_else(|_| Listener::bind(address, access))
        }
        _ => Listener::bind(address, access),
    }
}

/// What comes of `work`, which a thread of its own does; it is told to stop when `stopper` is used.
fn beside<T: Send + 'static>(
    stopper: &Stopper,
    work: impl FnOnce(&Stop) -> Option<Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let started = |error| format!("starting a thread: {error}");
    let (told, news) = bounded(1);
    let bell = bell().map_err(started)?;
    let teller = Teller { told, bell: bell.clone() };
    let body = move |stop: &Stop| work(stop).into_iter().for_each(|done| teller.send(done));
    let _minder = Minder::start("monitor", body).map_err(started)?;
    while !stopper.is_used() {
        if let Ok(done) = news.try_recv() {
            return done;
        }
        await_either([bell.as_fd(), stopper.fd()]);
    }
    Err("told to stop while this was being opened".into())
}

/// Waits until one of them is readable.
pub(super) fn await_either(fds: [BorrowedFd<'_>; 2]) {
    // Interrupted: the caller looks in any case.
    let _ = poll(&mut fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)), None);
}

/// How a thread tells what it did.
struct Teller<T> {
    told: Sender<Result<T, String>>,
    bell: Arc<OwnedFd>,
}

impl<T> Teller<T> {
    fn send(&self, news: Result<T, String>) {
        // Nobody listens any more: what it is goes.
        let _ = self.told.send(news);
        ring(&self.bell);
    }
}

/// A thread that connects to a peer, again after a pause whenever the connection is gone.
pub(super) struct Caller {
    _minder: Minder,
    connected: Receiver<Result<OwnedFd, String>>,
    /// Readable when there is a connection to be taken.
    bell: Arc<OwnedFd>,
    /// Readable when that connection is gone.
    gone: Arc<OwnedFd>,
}

impl Caller {
    fn start(address: Address, pause: Duration) -> std::io::Result<Caller> {
        let (told, connected) = bounded(1);
        let (bell, gone) = (bell()?, bell()?);
        let teller = Teller { told, bell: bell.clone() };
        let lost = gone.clone();
        let minder = Minder::start("monitor", move |stop| call(&address, pause, &teller, &lost, stop))?;
        Ok(Caller { _minder: minder, connected, bell, gone })
    }

    fn take(&self) -> Option<OwnedFd> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.connected.try_recv().ok()?.ok()
    }
}

fn call(address: &Address, pause: Duration, teller: &Teller<OwnedFd>, gone: &OwnedFd, stop: &Stop) {
    let mut failure = None;
    loop {
        match connect_by(stop, address) {
            Some(Ok(socket)) => {
                failure = None;
                teller.send(Ok(socket));
                if stop.wait(&[(gone.as_fd(), PollFlags::IN)], None) == Wait::Stopped {
                    return;
                }
                let _ = rustix::io::read(gone, &mut [0; 8]);
            }
            Some(Err(why)) if failure.as_ref() != Some(&why) => {
                tracing::warn!("a monitor has no client: {why}");
                failure = Some(why);
            }
            Some(Err(_)) => {}
            None => return,
        }
        if !stop.sleep(pause) {
            return;
        }
    }
}

fn bell() -> std::io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn loopback_is_not_exposed() {
        for (address, exposed) in [
            ("127.0.0.1:1", false),
            ("127.9.9.9:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("192.0.2.1:1", true),
        ] {
            assert_eq!(is_exposed(address.parse().expect("it is an address")), exposed, "{address}");
        }
    }

    #[test]
    fn an_inherited_descriptor_must_be_a_stream_socket_with_somebody_there() {
        let refused = |fd: OwnedFd| of_socket(fd).err().expect("it is refused");
        let file = tempfile::tempfile().expect("the temporary directory is writable");
        assert_eq!(refused(file.into()), "the file descriptor is not a socket");
        let datagrams = std::os::unix::net::UnixDatagram::unbound().expect("sockets can be made");
        assert_eq!(refused(datagrams.into()), "the file descriptor is not a stream socket");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let listener = of_socket(listener.into());
        assert!(matches!(listener, Ok((Origin::Listener(_), None))));
        assert!(matches!(of_socket(stream.into()), Ok((Origin::Given, Some(_)))));
    }
}

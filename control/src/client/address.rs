//! Where a monitor is, and the connection to there.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Where a monitor listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorAddress {
    /// At a unix socket.
    Unix(PathBuf),
    /// At `HOST:PORT`, an IPv6 address in brackets.
    Tcp(String),
}

impl FromStr for MonitorAddress {
    type Err = String;

    /// Reads `PATH`, `unix:PATH` or `tcp:HOST:PORT`, as QEMU writes them, too.
    fn from_str(text: &str) -> Result<MonitorAddress, String> {
        if let Some(place) = text.strip_prefix("tcp:") {
            let (host, port) = place.rsplit_once(':').unwrap_or_default();
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(format!("'{text}' is not tcp:HOST:PORT"));
            }
            return Ok(MonitorAddress::Tcp(place.into()));
        }
        match text.strip_prefix("unix:").unwrap_or(text) {
            "" => Err("the path of a monitor's socket is empty".into()),
            path => Ok(MonitorAddress::Unix(path.into())),
        }
    }
}

impl fmt::Display for MonitorAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorAddress::Unix(path) => path.display().fmt(out),
            MonitorAddress::Tcp(place) => write!(out, "tcp:{place}"),
        }
    }
}

/// A connection to a monitor.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn connect(address: &MonitorAddress) -> io::Result<Stream> {
        match address {
            MonitorAddress::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            MonitorAddress::Tcp(place) => {
                let stream = TcpStream::connect(place)?;
                // Commands are short, and each is waited for.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
        }
    }

    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(limit),
            Stream::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    /// Writes all of `bytes`, with a descriptor that goes along.
    pub(super) fn write_all_with_fd(&mut self, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
        let Stream::Unix(stream) = self else {
            return Err(io::Error::other("only a unix socket passes descriptors"));
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let sent = sendmsg(&*stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        stream.write_all(&bytes[sent..])
    }

    /// The working directory of whoever listens, where that is a process of this host that we may look at.
    pub(super) fn peer_directory(&self) -> Option<PathBuf> {
        let Stream::Unix(stream) = self else { return None };
        let peer = socket_peercred(stream).ok()?;
        std::fs::read_link(format!("/proc/{}/cwd", peer.pid.as_raw_nonzero())).ok()
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_at_a_path_or_a_tcp_port() {
        let unix = |path: &str| Ok(MonitorAddress::Unix(path.into()));
        assert_eq!("/run/q".parse(), unix("/run/q"));
        assert_eq!("unix:q".parse(), unix("q"));
        assert_eq!("tcp:localhost:4444".parse(), Ok(MonitorAddress::Tcp("localhost:4444".into())));
        let ipv6: MonitorAddress = "tcp:[::1]:4444".parse().expect("it is one");
        assert_eq!(ipv6.to_string(), "tcp:[::1]:4444");
        for wrong in ["", "unix:", "tcp:", "tcp:4444", "tcp::4444", "tcp:host:x", "tcp:host:70000"] {
            assert!(wrong.parse::<MonitorAddress>().is_err(), "{wrong}");
        }
    }
}

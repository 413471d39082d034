//! A multicast group. Everybody hears what is sent to it, on this host too, and its sender as well: so that no port
//! floods a hub with frames that came from there, we send from a second socket and drop what comes back from its address.
//!
//! That socket is connected, which fixes its address. When the address, or the interface, is gone, a new pair of sockets
//! is made as soon as that can be.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::port::Attachment;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ip_add_membership, set_ip_multicast_if, set_ip_multicast_loop};
use rustix::net::{SocketAddrAny, connect, getsockname};

use super::inet::{bind_to, bound, share_address, socket};
use super::{Medium, attachment, attachment_of_given};
use crate::datagram::{DatagramOptions, Destination, Encapsulation, Refusal, Source, make_room};
use crate::errno;
use crate::minder::Alarm;
use crate::sys::option;

pub(super) struct Multicast {
    group: SocketAddrV4,
    interface: Option<Ipv4Addr>,
    hearing: Arc<OwnedFd>,
    /// It is not ours: there is no other one to be had.
    is_given: bool,
    own: SocketAddrV4,
    attachment: Attachment,
    alarm: Arc<Alarm>,
    /// The attachment is of sockets that have lost their interface.
    is_stale: bool,
}

/// Frames as they are, but for our own.
struct Group {
    own: SocketAddrV4,
}

impl Multicast {
    pub(super) fn open(
        group: SocketAddrV4,
        interface: Option<Ipv4Addr>,
        given: Option<OwnedFd>,
        alarm: Arc<Alarm>,
    ) -> Result<Multicast, String> {
        if !group.ip().is_multicast() {
            let (address, bits) = (group.ip(), group.ip().to_bits());
            return Err(format!(
                "specified mcastaddr {address} (0x{bits:08x}) does not contain a multicast address"
            ));
        }
        let is_given = given.is_some();
        let hearing = Arc::new(match given {
            Some(socket) => prepared(socket, group)?,
            None => member(group, interface)?,
        });
        if is_given {
            join(&hearing, group, interface).or_else(already).map_err(|error| not_joined(group, error))?;
        }
        let (speaking, own) = speaker(group, interface)?;
        let mut port = Multicast {
            group,
            interface,
            hearing,
            is_given,
            own,
            attachment: Attachment::default(),
            alarm,
            is_stale: false,
        };
        port.attachment = port.attached(speaking);
        Ok(port)
    }

    fn attached(&self, speaking: OwnedFd) -> Attachment {
        let options = DatagramOptions {
            receive: self.hearing.clone(),
            send: Arc::new(speaking),
            destination: Destination::Connected,
            queue: 0,
            alarm: self.alarm.clone(),
        };
        let encapsulation = Group { own: self.own };
        if self.is_given {
            attachment_of_given(encapsulation, options)
        } else {
            attachment(encapsulation, options)
        }
    }

    /// Whether nothing has changed: we are a member, and would send from where we send from.
    fn is_sound(&self) -> Result<bool, String> {
        match join(&self.hearing, self.group, self.interface) {
            Err(Errno::ADDRINUSE) => {}
            // The interface went and came back, or another one has its part.
            Ok(()) | Err(Errno::NOBUFS) => return Ok(false),
            Err(error) => return Err(not_joined(self.group, error)),
        }
        let (_, now) = speaker(self.group, self.interface)?;
        Ok(now.ip() == self.own.ip())
    }
}

impl Medium for Multicast {
    fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    fn mend(&mut self) -> Result<bool, String> {
        let was_stale = std::mem::replace(&mut self.is_stale, true);
        if self.is_sound()? && !was_stale {
            self.is_stale = false;
            return Ok(false);
        }
        if !self.is_given {
            self.hearing = Arc::new(member(self.group, self.interface)?);
        }
        let (speaking, own) = speaker(self.group, self.interface)?;
        self.own = own;
        self.attachment = self.attached(speaking);
        self.is_stale = false;
        Ok(true)
    }
}

impl Encapsulation for Group {
    const PREFIX_MAX: usize = 0;
    const WANTS_SOURCE: bool = true;

    fn wrap(&self, _prefix: &mut [u8]) -> usize {
        0
    }

    fn unwrap(&self, _datagram: &[u8], source: Source<'_>) -> Result<usize, Refusal> {
        if source.ipv4() == Some(self.own) { Err(Refusal::Ignore) } else { Ok(0) }
    }
}

/// A socket that hears the group.
fn member(group: SocketAddrV4, interface: Option<Ipv4Addr>) -> Result<OwnedFd, String> {
    let socket = bound(group)?;
    join(&socket, group, interface).map_err(|error| not_joined(group, error))?;
    make_room(&socket);
    Ok(socket)
}

/// A socket of somebody else's, with the group's address if it had none.
fn prepared(socket: OwnedFd, group: SocketAddrV4) -> Result<OwnedFd, String> {
    let address = getsockname(&socket)
        .map_err(|error| format!("Unable to query local socket address: {}", errno::text(error)))?;
    let has_port = SocketAddrV4::try_from(address).map(|address| address.port() != 0);
    // The second socket would speak to another network.
    if namespace(&socket) != namespace(&self::socket()?) {
        return Err(format!("can't set up multicast to {group} on a socket of another network namespace"));
    }
    match has_port {
        Ok(true) => {}
        Ok(false) => {
            share_address(&socket)?;
            bind_to(&socket, group)?;
        }
        Err(_) => return Err(format!("can't set up multicast to {group} on a socket that is not IPv4")),
    }
    Ok(socket)
}

/// What tells network namespaces apart; `None` where the kernel does not say (before Linux 5.14).
fn namespace(socket: &OwnedFd) -> Option<u64> {
    option::get(socket, option::NETNS_COOKIE).ok()
}

fn join(socket: &OwnedFd, group: SocketAddrV4, interface: Option<Ipv4Addr>) -> Result<(), Errno> {
    set_ip_add_membership(socket, group.ip(), &interface.unwrap_or(Ipv4Addr::UNSPECIFIED))
}

fn already(error: Errno) -> Result<(), Errno> {
    if error == Errno::ADDRINUSE { Ok(()) } else { Err(error) }
}

fn not_joined(group: SocketAddrV4, error: Errno) -> String {
    format!("can't add socket to multicast group {}: {}", group.ip(), errno::text(error))
}

/// A socket that sends to the group, and its address, which no other has.
fn speaker(group: SocketAddrV4, interface: Option<Ipv4Addr>) -> Result<(OwnedFd, SocketAddrV4), String> {
    let socket = socket()?;
    set_ip_multicast_loop(&socket, true)
        .map_err(|error| format!("can't force multicast message to loopback: {}", errno::text(error)))?;
    if let Some(interface) = interface {
        set_ip_multicast_if(&socket, &interface).map_err(|error| {
            format!("can't set the default network send interface to {interface}: {}", errno::text(error))
        })?;
    }
    let own = connect(&socket, &group).and_then(|()| getsockname(&socket)).and_then(ipv4);
    let own =
        own.map_err(|error| format!("can't send to multicast group {}: {}", group.ip(), errno::text(error)))?;
    make_room(&socket);
    Ok((socket, own))
}

fn ipv4(address: SocketAddrAny) -> Result<SocketAddrV4, Errno> {
    SocketAddrV4::try_from(address)
}

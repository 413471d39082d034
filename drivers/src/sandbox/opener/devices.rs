//! Calls that make, or give a name to, a socket or a device.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::listener::Answer;
use super::paths::Desk;
use crate::sys::address::{bind_bytes, connect_bytes};
use crate::sys::vduse::{self, DevConfig};
use crate::sys::{option, tap};

/// Threads of the switch that are in another network namespace, as far as they know: their sockets are made there.
#[derive(Default)]
pub(super) struct Travellers(Mutex<HashMap<i32, OwnedFd>>);

/// Bytes of an address (`struct sockaddr_storage`).
const ADDRESS_LEN_MAX: u64 = 128;
const PATH_AT: usize = 2;

impl Desk<'_> {
    /// `socket(family, kind, protocol)`: those that not everybody may have, and those of another namespace.
    pub(super) fn socket(&self, travellers: &Travellers) -> Result<Answer, Errno> {
        let [family, kind, protocol] = [0, 1, 2].map(|at| self.argument(at) as i32);
        let raw = (kind & 0xf) == libc::SOCK_RAW;
        let permitted = match family {
            libc::AF_NETLINK => protocol == libc::NETLINK_ROUTE,
            libc::AF_PACKET | libc::AF_XDP => raw,
            libc::AF_INET | libc::AF_INET6 => raw && protocol == L2TP,
            libc::AF_UNIX => kind & 0xf == libc::SOCK_SEQPACKET,
            _ => false,
        };
        if !permitted {
            return Err(self.refuse());
        }
        let make = || {
            let (family, kind) = (AddressFamily::from_raw(family as u16), SocketType::from_raw(kind as u32));
            let protocol = NonZeroU32::new(protocol as u32).map(Protocol::from_raw);
            socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
        };
        let namespace = travellers.namespace_of(self.call.thread)?;
        let made = match namespace {
            None => make(),
            Some(namespace) => in_namespace(&namespace, make),
        };
        made.map(Answer::Descriptor)
    }

    /// `setns(fd, kind)`, of network namespaces: the thread is given out as being there.
    pub(super) fn travel(&self, travellers: &Travellers) -> Result<Answer, Errno> {
        let namespace = self.caller.descriptor(self.argument(0))?;
        if self.argument(1) as i32 != libc::CLONE_NEWNET {
            return Err(self.refuse());
        }
        in_namespace(&namespace, || Ok(()))?;
        travellers.put(self.call.thread, namespace)?;
        Ok(Answer::Value(0))
    }

    /// `bind(socket, address, len)`.
    pub(super) fn bind(&self) -> Result<Answer, Errno> {
        let (socket, address) = (self.caller.descriptor(self.argument(0))?, self.address()?);
        // Of AF_XDP: memory shared with the socket of a number, which would be one of ours.
        let shares = family(&address) == libc::AF_XDP && address.get(2).is_some_and(|flags| flags & 1 != 0);
        if shares {
            return Err(self.refuse());
        }
        bind_bytes(&socket, &address).map(|()| Answer::Value(0))
    }

    /// `connect(socket, address, len)`.
    pub(super) fn connect(&self) -> Result<Answer, Errno> {
        let (socket, address) = (self.caller.descriptor(self.argument(0))?, self.address()?);
        // A path that leads nowhere is the kernel's to refuse.
        let real = path_in(&address).and_then(|path| fs::canonicalize(path).ok());
        if real.is_some_and(|real| !self.policy.may_connect(&real)) {
            return Err(self.refuse());
        }
        connect_bytes(&socket, &address).map(|()| Answer::Value(0))
    }

    fn address(&self) -> Result<Vec<u8>, Errno> {
        let len = self.argument(2);
        if len > ADDRESS_LEN_MAX {
            return Err(Errno::INVAL);
        }
        let mut address = self.caller.read(self.argument(1), len as usize)?;
        if let Some(path) = path_in(&address) {
            let meant = self.caller.meant(path.as_os_str().as_bytes(), self.call.thread);
            address.truncate(PATH_AT);
            address.extend(meant.as_os_str().as_bytes());
            address.push(0);
            if address.len() > size_of::<libc::sockaddr_un>() {
                return Err(Errno::NAMETOOLONG);
            }
        }
        Ok(address)
    }

    /// `setsockopt(socket, level, option, value, len)`: buffers beyond what others may have.
    pub(super) fn set_option(&self) -> Result<Answer, Errno> {
        let [level, option] = [1, 2].map(|at| self.argument(at) as i32);
        let forced = [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE].contains(&option);
        if level != libc::SOL_SOCKET || !forced || self.argument(4) != 4 {
            return Err(self.refuse());
        }
        let socket = self.caller.descriptor(self.argument(0))?;
        let value = self.caller.read_number(self.argument(3))?;
        let option = if option == libc::SO_SNDBUFFORCE {
            option::SEND_BUFFER_FORCE
        } else {
            option::RECEIVE_BUFFER_FORCE
        };
        option::set(&socket, option, value).map(|()| Answer::Value(0))
    }

    /// `ioctl(fd, request, argument)`.
    pub(super) fn request(&self) -> Result<Answer, Errno> {
        let request = self.argument(1) as u32;
        let fd = self.caller.descriptor(self.argument(0))?;
        match request {
            TUNSETIFF => {
                let mut bytes = [0; tap::INTERFACE_REQUEST_LEN];
                bytes.copy_from_slice(&self.caller.read(self.argument(2), tap::INTERFACE_REQUEST_LEN)?);
                let flags = i16::from_ne_bytes([bytes[libc::IFNAMSIZ], bytes[libc::IFNAMSIZ + 1]]);
                if libc::c_int::from(flags) & libc::IFF_TAP == 0 {
                    return Err(self.refuse());
                }
                let made = tap::set_interface_as_bytes(&fd, &mut bytes)?;
                self.caller.write(self.argument(2), &bytes)?;
                Ok(Answer::Value(made.into()))
            }
            CREATE_DEV => {
                let bytes = self.caller.read(self.argument(2), DevConfig::LEN)?;
                let mut config = DevConfig::of_bytes(&bytes).ok_or(Errno::FAULT)?;
                vduse::create(&fd, &mut config).map(|made| Answer::Value(made.into()))
            }
            TUNGETDEVNETNS => tap::namespace(&fd).map(Answer::Descriptor),
            tap::SIOCGSKNS => tap::home(&fd).map(Answer::Descriptor),
            _ => Err(self.refuse()),
        }
    }
}

impl Travellers {
    fn namespace_of(&self, thread: i32) -> Result<Option<OwnedFd>, Errno> {
        let travellers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = travellers.get(&thread).map(OwnedFd::try_clone).transpose();
        found.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Notes where a thread is; one that is at home again is forgotten.
    fn put(&self, thread: i32, namespace: OwnedFd) -> Result<(), Errno> {
        let (there, home) = (rustix::fs::fstat(&namespace)?, rustix::fs::stat("/proc/self/ns/net")?);
        let mut travellers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (there.st_dev, there.st_ino) == (home.st_dev, home.st_ino) {
            travellers.remove(&thread);
        } else {
            travellers.insert(thread, namespace);
        }
        Ok(())
    }
}

/// Does `work` on a thread that is in a network namespace.
fn in_namespace<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    let body = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(body).join()).unwrap_or(Err(Errno::IO))
}

/// The path of a unix socket.
fn path_in(address: &[u8]) -> Option<&Path> {
    let path = address.get(PATH_AT..)?.split(|&byte| byte == 0).next()?;
    let is_path = family(address) == libc::AF_UNIX && !path.is_empty();
    is_path.then(|| Path::new(OsStr::from_bytes(path)))
}

fn family(address: &[u8]) -> i32 {
    address.first_chunk().map_or(libc::AF_UNSPEC, |&family| u16::from_ne_bytes(family).into())
}

const CREATE_DEV: u32 = vduse::CREATE_DEV as u32;
const TUNSETIFF: u32 = libc::TUNSETIFF as u32;
const TUNGETDEVNETNS: u32 = libc::TUNGETDEVNETNS as u32;
/// The protocol's number.
const L2TP: i32 = 115;

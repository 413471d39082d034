//! `tap`: a network interface of the host, or descriptors of one.

use std::sync::Arc;

use ringyard_drivers::tap::VnetHeader;
use serde_json::{Map, Value};

use super::FdRef;
use super::netdev::{Members, NetdevKind};
use crate::ports::{Script, TapSource, TapSpec};
use crate::qapi::{QapiError, Size, options, written};

options! {
    /// The members of a `tap` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Tap as "NetdevTapOptions" {
        /// The interface's name, or a pattern such as `tap%d`.
        pub ifname: Option<String>,
        /// An open descriptor.
        pub fd: Option<String>,
        /// Open descriptors of the queues, between colons.
        pub fds: Option<String>,
        /// Run when the interface is up; `no` or nothing: none.
        pub script: Option<String>,
        /// Run before the interface goes; `no` or nothing: none.
        pub downscript: Option<String>,
        /// The helper's bridge.
        pub br: Option<String>,
        /// A program that opens the tap for us.
        pub helper: Option<String>,
        /// The kernel's limit of bytes under way; 0: none.
        pub sndbuf: Option<Size>,
        /// Whether frames carry a virtio-net header.
        pub vnet_hdr: Option<bool> = "vnet_hdr",
        /// Whether the kernel's vhost-net moves the frames; only `false` here.
        pub vhost: Option<bool>,
        /// A descriptor of vhost-net.
        pub vhostfd: Option<String>,
        /// Descriptors of vhost-net, between colons.
        pub vhostfds: Option<String>,
        /// The same as `vhost`.
        pub vhostforce: Option<bool>,
        /// Queue pairs.
        pub queues: Option<u32>,
        /// How long vhost-net polls; without effect here.
        pub poll_us: Option<u32>,
    }
}

impl Members for Tap {
    fn type_name(&self) -> &'static str {
        "tap"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(self.spec()?)))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl Tap {
    fn spec(&self) -> Result<TapSpec, QapiError> {
        let source = self.source()?;
        self.refuse_vhost()?;
        let sndbuf = self.sndbuf.filter(|Size(bytes)| *bytes != 0);
        let sndbuf_bytes = sndbuf.map_or(i32::MAX, |Size(bytes)| i32::try_from(bytes).unwrap_or(i32::MAX));
        Ok(TapSpec { source, sndbuf_bytes })
    }

    fn source(&self) -> Result<TapSource, QapiError> {
        let named = self.ifname.is_some() || self.script.is_some() || self.downscript.is_some();
        let shaped = named || self.vnet_hdr.is_some() || self.queues.is_some();
        let (fds, helper) = (self.fds.is_some(), self.helper.is_some());
        let (vhostfd, vhostfds) = (self.vhostfd.is_some(), self.vhostfds.is_some());
        if let Some(fd) = &self.fd {
            if shaped || helper || fds || vhostfds {
                return refused(INVALID_WITH_FD);
            }
            return FdRef::parse(fd).map(TapSource::Fd);
        }
        if let Some(fds) = &self.fds {
            if shaped || helper || vhostfd {
                return refused(INVALID_WITH_FDS);
            }
            let fds: Vec<FdRef> = fds.split(':').map(FdRef::parse).collect::<Result<_, _>>()?;
            if self.vhostfds.as_ref().is_some_and(|vhostfds| vhostfds.split(':').count() != fds.len()) {
                return refused("The number of fds passed does not match the number of vhostfds passed");
            }
            return Ok(TapSource::Fds(fds));
        }
        if let Some(helper) = &self.helper {
            if shaped || vhostfds {
                return refused(INVALID_WITH_HELPER);
            }
            let bridge = self.br.clone().unwrap_or_else(|| BRIDGE.into());
            return Ok(TapSource::Helper { helper: helper.clone(), bridge });
        }
        if vhostfds {
            return refused("vhostfds= is invalid if fds= wasn't specified");
        }
        self.named_source()
    }

    fn named_source(&self) -> Result<TapSource, QapiError> {
        let queues = match self.queues.unwrap_or(1) {
            0 => return refused("queues must be greater than zero"),
            queues => u16::try_from(queues).ok().filter(|queues| *queues <= QUEUES_MAX),
        };
        let too_many = || QapiError::generic(format!("queues must not be greater than {QUEUES_MAX}"));
        let ifname = self.ifname.clone().filter(|name| !name.is_empty());
        ifname.as_deref().map_or(Ok(()), check_interface_name)?;
        Ok(TapSource::Name {
            ifname,
            script: script(self.script.as_deref(), "/etc/qemu-ifup"),
            downscript: script(self.downscript.as_deref(), "/etc/qemu-ifdown"),
            queues: queues.ok_or_else(too_many)?,
            vnet_hdr: match self.vnet_hdr {
                None => VnetHeader::IfSupported,
                Some(true) => VnetHeader::Required,
                Some(false) => VnetHeader::Off,
            },
        })
    }

    fn refuse_vhost(&self) -> Result<(), QapiError> {
        let fds = self.vhostfd.is_some() || self.vhostfds.is_some();
        match self.vhost {
            Some(false) if fds => refused("vhostfd(s)= is not valid without vhost"),
            Some(false) => Ok(()),
            Some(true) => refused(NO_VHOST),
            None if fds || self.vhostforce == Some(true) => refused(NO_VHOST),
            None => Ok(()),
        }
    }
}

fn script(given: Option<&str>, default: &str) -> Script {
    match given {
        None => Script::Default(default.into()),
        Some("" | "no") => Script::Off,
        Some(path) => Script::Run(path.into()),
    }
}

/// Errors: a name that no interface can have.
pub(super) fn check_interface_name(name: &str) -> Result<(), QapiError> {
    if is_interface_name(name) {
        return Ok(());
    }
    refused(&format!("'{name}' is no interface name: at most 15 bytes, without '/', ':' and spaces"))
}

/// What the kernel accepts as the name of an interface.
fn is_interface_name(name: &str) -> bool {
    let valid = |byte: u8| byte != b'/' && byte != b':' && byte != 0 && !byte.is_ascii_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(valid)
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

/// The bridge that a helper is told, if nothing was said.
pub(super) const BRIDGE: &str = "br0";
/// The kernel's limit for one interface.
const QUEUES_MAX: u16 = 256;

const INVALID_WITH_FD: &str =
    "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=";
const INVALID_WITH_FDS: &str =
    "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=";
const INVALID_WITH_HELPER: &str =
    "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=";
const NO_VHOST: &str = "vhost=on is not available: ringyard forwards the frames itself, the kernel's vhost-net has no part in it";

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;

//! `ringyard doctor`: what this host lets us do, and what each thing that is missing would add.
//!
//! Everything is tried as a netdev would try it, short of making anything.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ringyard_drivers::sandbox::is_supported;
use ringyard_drivers::user::helper::library_version;
use rustix::fs::{Access, access};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities, sched_getaffinity};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is for: a netdev type, or a property of the host.
    pub what: &'static str,
    /// Whether it is there.
    pub state: State,
}

/// How it is with a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be used.
    Yes(String),
    /// It cannot, and what to do about that.
    No(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match &self.state {
            State::Yes(text) => ("yes", text),
            State::No(text) => ("no ", text),
        };
        write!(out, "{mark}  {:<22}  {text}", self.what)
    }
}

/// Looks at all of it.
pub fn examine() -> Vec<Finding> {
    let host = Host::look();
    vec![
        found("cores", Ok(format!("{} for workers: run --cores LIST", host.cores))),
        found(
            "sandbox",
            is_supported().map(|()| "an opener, seccomp for all threads; run says what is in force".into()),
        ),
        found("locked memory", host.locked_memory()),
        found("vhost-user", Ok("guests need shared memory, no right of ours, no hugepages".into())),
        found("stream, dgram, socket", Ok("sockets where you may make them".into())),
        found("l2tpv3 (udp=on)", Ok("any port above 1023".into())),
        found("l2tpv3 (IP)", raw_socket(host.may(CapabilitySet::NET_RAW))),
        found("tap", host.tap()),
        found("bridge, tap helper=", bridge_helper()),
        found("af-packet", packet_socket()),
        found("af-xdp", host.xdp()),
        found("vde", vde_switch()),
        found("user", library_version().map(|version| format!("libslirp {version}"))),
        found("netmap", readable_device("/dev/netmap", "the netmap module", "netmap")),
        found("vhost-vdpa", vdpa()),
        found("x-vduse", readable_device("/dev/vduse/control", "the vduse module", "vduse")),
    ]
}

/// What is known of the process before anything is tried.
struct Host {
    effective: CapabilitySet,
    cores: u32,
}

impl Host {
    fn look() -> Host {
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        Host { effective, cores: sched_getaffinity(None).map_or(1, |cores| cores.count()) }
    }

    fn may(&self, capability: CapabilitySet) -> bool {
        self.effective.contains(capability)
    }

    fn locked_memory(&self) -> Result<String, String> {
        match getrlimit(Resource::Memlock).current {
            None => Ok("no limit".into()),
            Some(bytes) if bytes >= XDP_BYTES || self.may(CapabilitySet::IPC_LOCK) => {
                Ok(format!("up to {} MiB", bytes >> 20))
            }
            Some(bytes) => Err(format!(
                "{} KiB; kernels before 5.11 need more for af-xdp: ulimit -l unlimited",
                bytes >> 10
            )),
        }
    }

    fn tap(&self) -> Result<String, String> {
        readable_device("/dev/net/tun", "the tun module", "tun")?;
        match self.may(CapabilitySet::NET_ADMIN) {
            true => Ok("makes interfaces".into()),
            false => Err("needs CAP_NET_ADMIN; without it: an interface that somebody made for you \
                          (ip tuntap add NAME mode tap user USER), fd=, or helper="
                .into()),
        }
    }

    fn xdp(&self) -> Result<String, String> {
        let opened = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None);
        match opened.map_err(io::Error::from) {
            Ok(_) if self.may(CapabilitySet::NET_ADMIN) && self.may(CapabilitySet::BPF) => {
                Ok("loads its program itself".into())
            }
            Ok(_) => Err("needs CAP_NET_ADMIN and CAP_BPF; without them: inhibit=on and sock-fds=".into()),
            Err(error) => {
                Err(format!("opening a socket: {error}; needs CAP_NET_RAW and a kernel with AF_XDP"))
            }
        }
    }
}

fn found(what: &'static str, state: Result<String, String>) -> Finding {
    Finding { what, state: state.map_or_else(State::No, State::Yes) }
}

fn raw_socket(may: bool) -> Result<String, String> {
    const L2TP: u32 = 115;
    let protocol = std::num::NonZero::new(L2TP).map(Protocol::from_raw);
    match socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, protocol) {
        Ok(_) => Ok("protocol 115".into()),
        Err(error) if may => Err(format!("opening a raw socket: {error}")),
        Err(_) => Err("needs CAP_NET_RAW; without it: udp=on".into()),
    }
}

fn packet_socket() -> Result<String, String> {
    // Of no protocol: nothing reaches it.
    match socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Ok("any interface of this network namespace".into()),
        Err(error) => Err(format!("opening a packet socket: {error}; needs CAP_NET_RAW")),
    }
}

fn readable_device(path: &str, what: &str, module: &str) -> Result<String, String> {
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(path.to_owned()),
        Err(rustix::io::Errno::NOENT) => Err(format!("{path} is missing: load {what} (modprobe {module})")),
        Err(error) => Err(format!("{path}: {error}; its owner and mode say who may")),
    }
}

fn bridge_helper() -> Result<String, String> {
    let found = HELPERS.into_iter().find(|path| Path::new(path).exists());
    found.map(str::to_owned).ok_or_else(|| {
        "there is no qemu-bridge-helper (Debian: qemu-system-common); it makes taps for users without rights".into()
    })
}

fn vde_switch() -> Result<String, String> {
    let found = VDE_CONTROLS.into_iter().find(|path| Path::new(path).join("ctl").exists());
    match found {
        Some(path) => Ok(format!("a switch at {path}")),
        None => Ok("no switch at the usual places: name it with sock=".into()),
    }
}

fn vdpa() -> Result<String, String> {
    let entries = fs::read_dir("/dev").map_err(|error| format!("reading /dev: {error}"))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut devices: Vec<String> = names.filter(|name| name.starts_with("vhost-vdpa-")).collect();
    devices.sort();
    if devices.is_empty() {
        return Err("there is no /dev/vhost-vdpa-N: bind a vDPA device to vhost_vdpa".into());
    }
    Ok(devices.join(" "))
}

const HELPERS: [&str; 2] = ["/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"];
const VDE_CONTROLS: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];
/// What one af-xdp queue takes, generously.
const XDP_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_looked_at_and_said_in_a_line() {
        let findings = examine();
        assert!(findings.len() > 10);
        for finding in findings {
            let line = finding.to_string();
            assert!(line.starts_with("yes  ") || line.starts_with("no   "), "{line}");
            assert!(!line.contains('\n') && line.len() > 30, "{line}");
        }
    }

    #[test]
    fn what_is_missing_comes_with_what_to_do() {
        let missing = readable_device("/no/such/device", "the x module", "x");
        assert_eq!(missing, Err("/no/such/device is missing: load the x module (modprobe x)".into()));
        let host = Host { effective: CapabilitySet::empty(), cores: 1 };
        assert!(host.tap().is_err_and(|why| why.contains("CAP_NET_ADMIN") || why.contains("modprobe")));
        assert!(raw_socket(true).is_ok() || raw_socket(false).is_err_and(|why| why.contains("udp=on")));
    }
}

//! What a `user` port is to be, with every default filled in. It crosses to the helper process as JSON.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileTypeExt;

use serde::{Deserialize, Serialize};

/// All that the helper needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserOptions {
    /// Whether guests reach nothing but what rules forward.
    pub restrict: bool,
    /// IPv4; its addresses hold even where it is off, for rules name them.
    pub ipv4: Ipv4Side,
    /// IPv6.
    pub ipv6: Ipv6Side,
    /// The name that DHCP gives to guests.
    pub hostname: Option<String>,
    /// The directory that TFTP serves.
    pub tftp: Option<String>,
    /// The name of the TFTP server in DHCP's answers.
    pub tftp_server_name: Option<String>,
    /// The boot file in DHCP's answers.
    pub bootfile: Option<String>,
    /// Domains that DHCP has guests search.
    pub dns_search: Vec<String>,
    /// The domain that DHCP gives to guests.
    pub domain_name: Option<String>,
    /// What Samba serves.
    pub smb: Option<SmbShare>,
    /// In the order in which they are set up.
    pub host_forwards: Vec<HostForward>,
    /// In the order in which they are set up; before the others.
    pub guest_forwards: Vec<GuestForward>,
}

/// The IPv4 network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Side {
    /// Whether there is one.
    pub enabled: bool,
    /// Its address.
    pub network: Ipv4Addr,
    /// Its mask.
    pub mask: Ipv4Addr,
    /// The host's address in it.
    pub host: Ipv4Addr,
    /// The first address that DHCP gives away.
    pub dhcp_start: Ipv4Addr,
    /// The name server's address in it.
    pub dns: Ipv4Addr,
}

/// The IPv6 network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Side {
    /// Whether there is one.
    pub enabled: bool,
    /// Its address.
    pub prefix: Ipv6Addr,
    /// Bits of it, at most 126.
    pub prefix_len: u8,
    /// The host's address in it.
    pub host: Ipv6Addr,
    /// The name server's address in it.
    pub dns: Ipv6Addr,
}

/// A directory that guests find as `\\SERVER\qemu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmbShare {
    /// The directory.
    pub directory: String,
    /// The server's address; 0.0.0.0 stands for the network's fourth.
    pub server: Ipv4Addr,
}

/// What comes in on the host and goes to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostForward {
    /// As it was written, for error texts.
    pub rule: String,
    /// Where it comes in.
    pub from: HostEnd,
    /// The guest; 0.0.0.0 stands for the first address of DHCP.
    pub guest: Ipv4Addr,
    /// The guest's port.
    pub guest_port: u16,
}

impl HostForward {
    /// Checks that its unix socket would take the place of no other file. May block: it looks at the file.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.from {
            HostEnd::Unix(path)
                if fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) =>
            {
                let reason = "file exists and it's not unix socket";
                Err(format!("Invalid host forwarding rule '{}' ({reason})", self.rule))
            }
            _ => Ok(()),
        }
    }
}

/// Where the host listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostEnd {
    /// TCP.
    Tcp(Ipv4Addr, u16),
    /// UDP.
    Udp(Ipv4Addr, u16),
    /// A unix socket, whose path is absolute and short enough.
    Unix(String),
}

/// What a guest connects to and the host answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestForward {
    /// As it was written, for error texts.
    pub rule: String,
    /// The address that guests connect to; 0.0.0.0 stands for the network's fourth.
    pub server: Ipv4Addr,
    /// The port that guests connect to.
    pub port: u16,
    /// Who answers.
    pub target: GuestTarget,
}

/// Who answers a guest's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestTarget {
    /// A program a connection, with its arguments.
    Command(Vec<String>),
    /// A stream that is connected once, when the port is opened, and serves every connection.
    Device(Device),
}

/// A stream of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// Takes everything, says nothing.
    Null,
    /// A unix socket that listens.
    Unix(String),
    /// A TCP server.
    Tcp(String, u16),
    /// There is no such device: opening it fails.
    Unknown,
}

//! What joins a switch and its two peers, and where: every contender has a directory and a network namespace of its own,
//! so the names in them are the same for all.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// The kind of socket on both sides of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    DgramUnix,
    DgramUdp,
    /// Datagrams come many as one (UDP_SEGMENT), and are taken so (UDP_GRO), as between two ringyards on one host.
    DgramUdpGso,
    StreamUnix,
    StreamTcp,
    L2tpv3Udp,
    L2tpv3UdpGso,
    Vde,
    AfPacket,
}

/// One of the switch's two sides. Frames come in at A and go out at B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// Whose end of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Switch,
    Peer,
}

impl Medium {
    pub const ALL: [Medium; 9] = [
        Medium::DgramUnix,
        Medium::DgramUdp,
        Medium::DgramUdpGso,
        Medium::StreamUnix,
        Medium::StreamTcp,
        Medium::L2tpv3Udp,
        Medium::L2tpv3UdpGso,
        Medium::Vde,
        Medium::AfPacket,
    ];

    /// As the command line and the report name it.
    pub fn flag(self) -> &'static str {
        match self {
            Medium::DgramUnix => "dgram-unix",
            Medium::DgramUdp => "dgram-udp",
            Medium::DgramUdpGso => "dgram-udp-gso",
            Medium::StreamUnix => "stream-unix",
            Medium::StreamTcp => "stream-tcp",
            Medium::L2tpv3Udp => "l2tpv3-udp",
            Medium::L2tpv3UdpGso => "l2tpv3-udp-gso",
            Medium::Vde => "vde",
            Medium::AfPacket => "af-packet",
        }
    }

    /// Whether the switch gets many datagrams as one, if it takes them so, and the sink does.
    pub fn gso(self) -> bool {
        matches!(self, Medium::DgramUdpGso | Medium::L2tpv3UdpGso)
    }

    /// Whether datagrams go over UDP.
    pub fn is_udp(self) -> bool {
        matches!(self, Medium::DgramUdp | Medium::L2tpv3Udp) || self.gso()
    }

    pub fn is_l2tpv3(self) -> bool {
        matches!(self, Medium::L2tpv3Udp | Medium::L2tpv3UdpGso)
    }

    /// Frames under way at most: what the smallest buffer on the way takes without loss. A ring is filled by the block,
    /// so it takes several of them to keep it going.
    pub fn window(self, frame_len: usize) -> u64 {
        match self {
            Medium::AfPacket => 4096,
            // The kernel says when it has enough; this only bounds how much it holds.
            Medium::StreamUnix | Medium::StreamTcp => (2 << 20) / frame_len as u64,
            _ if frame_len > 256 => 96,
            _ => 256,
        }
    }

    /// Frames that are sent before the sink has its turn again.
    pub fn burst(self, frame_len: usize) -> usize {
        match self {
            Medium::StreamUnix | Medium::StreamTcp => (128 << 10) / frame_len,
            _ => 64,
        }
    }

    /// What has not come is lost when nothing has for so long. A stream loses its place if we are wrong.
    pub fn silence(self) -> Duration {
        match self {
            Medium::StreamUnix | Medium::StreamTcp => Duration::from_secs(1),
            _ => Duration::from_millis(200),
        }
    }

    /// The netdev of a switch on `side`, in the words of QEMU's schema.
    pub fn netdev(self, directory: &Path, side: Side) -> Value {
        let unix = |end| json!({"type": "unix", "path": path(directory, side, end)});
        let inet = |end| {
            let address = address(side, end);
            json!({"type": "inet", "host": address.ip(), "port": address.port().to_string()})
        };
        let listen = || json!({"type": "inet", "host": "127.0.0.1", "port": tcp(side).port().to_string()});
        let mut netdev = match self {
            Medium::DgramUnix => {
                json!({"type": "dgram", "local": unix(End::Switch), "remote": unix(End::Peer)})
            }
            Medium::DgramUdp | Medium::DgramUdpGso => {
                json!({"type": "dgram", "local": inet(End::Switch), "remote": inet(End::Peer)})
            }
            Medium::StreamUnix => json!({"type": "stream", "server": true, "addr": unix(End::Switch)}),
            Medium::StreamTcp => json!({"type": "stream", "server": true, "addr": listen()}),
            Medium::L2tpv3Udp | Medium::L2tpv3UdpGso => l2tpv3(side),
            Medium::Vde => json!({"type": "vde", "sock": path(directory, side, End::Peer)}),
            Medium::AfPacket => json!({"type": "af-packet", "ifname": interface(side, End::Switch)}),
        };
        netdev["id"] = side.name().into();
        netdev
    }
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    pub fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The L2TPv3 session of what `end` receives there.
    pub fn session(self, end: End) -> u32 {
        match (self, end) {
            (Side::A, End::Switch) => 0x1001,
            (Side::A, End::Peer) => 0x1002,
            (Side::B, End::Switch) => 0x2001,
            (Side::B, End::Peer) => 0x2002,
        }
    }
}

fn l2tpv3(side: Side) -> Value {
    let (ours, theirs) = (address(side, End::Switch), address(side, End::Peer));
    json!({
        "type": "l2tpv3", "udp": true,
        "src": ours.ip(), "srcport": ours.port().to_string(),
        "dst": theirs.ip(), "dstport": theirs.port().to_string(),
        "rxsession": side.session(End::Switch), "txsession": side.session(End::Peer),
    })
}

/// A unix socket, or a VDE switch's directory.
pub fn path(directory: &Path, side: Side, end: End) -> PathBuf {
    directory.join(format!("{}.{}", side.name(), end.name()))
}

/// Where UDP comes from and goes to: at A from another namespace, at B over the loopback interface.
pub fn address(side: Side, end: End) -> SocketAddrV4 {
    let host = |number| Ipv4Addr::new(10, 9, 0, number);
    match (side, end) {
        (Side::A, End::Switch) => SocketAddrV4::new(host(1), 4000),
        (Side::A, End::Peer) => SocketAddrV4::new(host(2), 4001),
        (Side::B, End::Switch) => SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000),
        (Side::B, End::Peer) => SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5001),
    }
}

/// Where the switch listens for a TCP stream.
pub fn tcp(side: Side) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, if side == Side::A { 4000 } else { 5000 })
}

/// One end of a veth pair.
pub fn interface(side: Side, end: End) -> String {
    format!("{}-{}", side.name(), end.name())
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Switch => "switch",
            End::Peer => "peer",
        }
    }
}

/// What stands before a frame in L2TPv3 over UDP without cookie and counter (RFC 3931, 4.1.2.1).
pub fn l2tpv3_header(session: u32) -> [u8; 8] {
    let mut header = [0, 3, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&session.to_be_bytes());
    header
}

//! The other end of a port of every kind.

use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::GuestConfig;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::{self, Netns};
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use ringyard_tests::vde::Port;
use ringyard_tests::{Doing, Error, Result};
use serde_json::{Value, json};

/// Whoever is behind a port.
pub trait Host {
    /// The port's netdev.
    fn name(&self) -> &'static str;

    /// Sends a frame.
    fn send(&mut self, frame: &[u8]) -> Result<()>;

    /// The next frame; `None` when none comes within the time.
    fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>>;

    /// The longest frame that the medium carries, with tags of `tag_len` bytes in it.
    fn longest(&self, _tag_len: usize) -> usize {
        LONGEST
    }

    /// Whether the medium carries less than an Ethernet header.
    fn can_send_runts(&self) -> bool {
        true
    }
}

/// All of them on one hub.
pub struct Hosts {
    pub all: Vec<Box<dyn Host>>,
    pub switch: Switch,
    _netns: Netns,
}

impl Hosts {
    /// Starts a switch with a port of every kind, and waits until all of them are up.
    pub fn plug() -> Result<Hosts> {
        let netns = Netns::new()?;
        // Nothing but the test's frames.
        netns.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        let mut switch = Switch::start_in(&netns, &[])?;
        let all = vec![
            stream(&mut switch)?,
            dgram_unix(&mut switch)?,
            udp(&mut switch, &netns, "dgram-udp", dgram_udp(), Vec::new(), Vec::new())?,
            udp(&mut switch, &netns, "l2tpv3", l2tpv3(), L2TPV3_TO_SWITCH.into(), L2TPV3_FROM_SWITCH.into())?,
            vde(&mut switch)?,
            tap(&mut switch, &netns)?,
            af_packet(&mut switch, &netns)?,
            guest(&mut switch)?,
        ];
        for host in &all {
            switch.wait_carrier(host.name(), SOON)?;
        }
        Ok(Hosts { all, switch, _netns: netns })
    }

    /// Checks the books.
    pub fn finish(self) -> Result<()> {
        drop(self.all);
        self.switch.finish()
    }
}

fn plug(switch: &mut Switch, name: &str, mut netdev: Value) -> Result<()> {
    netdev["id"] = name.into();
    switch.order("netdev_add", netdev)?;
    let port = json!({"type": "hubport", "id": format!("{name}-hubport"), "hubid": 0, "netdev": name});
    switch.order("netdev_add", port).map(drop)
}

/// A frame a datagram, with something before it.
struct Datagrams<S> {
    name: &'static str,
    socket: S,
    sent: Vec<u8>,
    received: Vec<u8>,
    datagram_max: usize,
}

/// What unix and UDP sockets have in common.
trait DatagramSocket {
    fn send(&self, datagram: &[u8]) -> std::io::Result<usize>;
    fn receive(&self, room: &mut [u8], within: Duration) -> std::io::Result<usize>;
}

impl DatagramSocket for UnixDatagram {
    fn send(&self, datagram: &[u8]) -> std::io::Result<usize> {
        UnixDatagram::send(self, datagram)
    }

    fn receive(&self, room: &mut [u8], within: Duration) -> std::io::Result<usize> {
        self.set_read_timeout(Some(within))?;
        self.recv(room)
    }
}

impl DatagramSocket for UdpSocket {
    fn send(&self, datagram: &[u8]) -> std::io::Result<usize> {
        UdpSocket::send(self, datagram)
    }

    fn receive(&self, room: &mut [u8], within: Duration) -> std::io::Result<usize> {
        self.set_read_timeout(Some(within))?;
        self.recv(room)
    }
}

impl<S: DatagramSocket> Host for Datagrams<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        let datagram = [&self.sent, frame].concat();
        self.socket.send(&datagram).doing(format!("sending {} bytes to {}", frame.len(), self.name)).map(drop)
    }

    fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let mut room = vec![0; ROOM];
        let len = match self.socket.receive(&mut room, within) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).doing(format!("receiving from {}", self.name)),
        };
        let frame = room[..len].strip_prefix(self.received.as_slice());
        frame
            .map(|frame| Some(frame.to_vec()))
            .ok_or_else(|| Error::new(format!("{} wraps frames wrongly", self.name)))
    }

    fn longest(&self, _tag_len: usize) -> usize {
        self.datagram_max - self.sent.len()
    }
}

fn dgram_unix(switch: &mut Switch) -> Result<Box<dyn Host>> {
    let (name, ours, theirs) = ("dgram-unix", switch.path("ours"), switch.path("theirs"));
    let unix = |path: &Path| json!({"type": "unix", "path": path});
    let socket = UnixDatagram::bind(&ours).doing("binding a unix socket")?;
    plug(switch, name, json!({"type": "dgram", "local": unix(&theirs), "remote": unix(&ours)}))?;
    socket.connect(&theirs).doing("connecting to a unix socket")?;
    Ok(unix_datagrams(name, socket))
}

fn vde(switch: &mut Switch) -> Result<Box<dyn Host>> {
    let (name, directory) = ("vde", switch.path("vde"));
    let port = Port::open(directory.clone())?;
    plug(switch, name, json!({"type": "vde", "sock": directory}))?;
    let plugged = port.plugged()?;
    // The port lasts as long as the stream beside it.
    std::mem::forget(plugged.control);
    Ok(unix_datagrams(name, plugged.frames))
}

fn unix_datagrams(name: &'static str, socket: UnixDatagram) -> Box<dyn Host> {
    Box::new(Datagrams { name, socket, sent: Vec::new(), received: Vec::new(), datagram_max: LONGEST })
}

fn dgram_udp() -> Value {
    let inet = |port: &str| json!({"type": "inet", "host": "127.0.0.1", "port": port});
    json!({"type": "dgram", "local": inet("4000"), "remote": inet("4001")})
}

fn l2tpv3() -> Value {
    json!({
        "type": "l2tpv3", "udp": true, "src": "127.0.0.1", "srcport": "5000", "dst": "127.0.0.1", "dstport": "5001",
        "rxsession": 0x0101_0101, "txsession": 0x0202_0202,
    })
}

/// `netdev` sends from its first port to its second one, which is one more.
fn udp(
    switch: &mut Switch,
    netns: &Netns,
    name: &'static str,
    netdev: Value,
    sent: Vec<u8>,
    received: Vec<u8>,
) -> Result<Box<dyn Host>> {
    let ours = if sent.is_empty() { 4001 } else { 5001 };
    let socket = netns.enter(|| UdpSocket::bind(("127.0.0.1", ours)).doing("binding a UDP socket"))?;
    plug(switch, name, netdev)?;
    socket.connect(("127.0.0.1", ours - 1)).doing("connecting a UDP socket")?;
    Ok(Box::new(Datagrams { name, socket, sent, received, datagram_max: UDP_MAX }))
}

/// Frames with their length before them.
struct Stream {
    socket: UnixStream,
    received: Vec<u8>,
}

fn stream(switch: &mut Switch) -> Result<Box<dyn Host>> {
    let path = switch.path("stream");
    let addr = json!({"type": "unix", "path": path});
    plug(switch, STREAM, json!({"type": "stream", "server": true, "addr": addr}))?;
    let socket = wait_for("a listener", SOON, || Ok(UnixStream::connect(&path).ok()))?;
    Ok(Box::new(Stream { socket, received: Vec::new() }))
}

impl Host for Stream {
    fn name(&self) -> &'static str {
        STREAM
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        let record = [&(frame.len() as u32).to_be_bytes(), frame].concat();
        self.socket.write_all(&record).doing("writing to a stream")
    }

    fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + within;
        let mut room = vec![0; ROOM];
        loop {
            if let Some((length, rest)) = self.received.split_first_chunk::<4>()
                && rest.len() >= u32::from_be_bytes(*length) as usize
            {
                let frame = rest[..u32::from_be_bytes(*length) as usize].to_vec();
                self.received.drain(..4 + frame.len());
                return Ok(Some(frame));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).doing("setting a time limit")?;
            match self.socket.read(&mut room) {
                Ok(0) => return Err(Error::new("the stream was closed")),
                Ok(len) => self.received.extend_from_slice(&room[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).doing("reading from a stream"),
            }
        }
    }
}

/// An interface of the kernel's.
struct Interface {
    name: &'static str,
    socket: PacketSocket,
    frame_max: usize,
    /// Whether the kernel checks what is sent here against the interface's MTU, which a tag of 802.1Q may exceed.
    mtu: usize,
}

fn tap(switch: &mut Switch, netns: &Netns) -> Result<Box<dyn Host>> {
    let name = "tap";
    plug(switch, name, json!({"type": "tap", "ifname": name, "script": "no", "downscript": "no"}))?;
    interface(netns, name, name, TAP_MTU)
}

fn af_packet(switch: &mut Switch, netns: &Netns) -> Result<Box<dyn Host>> {
    let (name, theirs) = ("af-packet", "veth-theirs");
    netns::join((netns, theirs), (netns, "veth-ours"))?;
    netns.ip(&format!("link set {theirs} mtu {VETH_MTU} up"))?;
    plug(switch, name, json!({"type": "af-packet", "ifname": theirs}))?;
    interface(netns, name, "veth-ours", VETH_MTU)
}

fn interface(netns: &Netns, name: &'static str, interface: &str, mtu: usize) -> Result<Box<dyn Host>> {
    netns.ip(&format!("link set {interface} mtu {mtu}"))?;
    netns.bring_up(interface, &[])?;
    let socket = PacketSocket::open(netns, interface)?;
    Ok(Box::new(Interface { name, socket, frame_max: mtu + 14, mtu }))
}

impl Host for Interface {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).doing(format!("{} bytes, MTU {}", frame.len(), self.mtu))
    }

    fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        self.socket.receive_tagged(within)
    }

    fn longest(&self, _tag_len: usize) -> usize {
        self.frame_max.min(LONGEST)
    }

    fn can_send_runts(&self) -> bool {
        false
    }
}

/// A guest of ours.
struct Guest {
    front_end: FrontEnd,
}

fn guest(switch: &mut Switch) -> Result<Box<dyn Host>> {
    let socket = switch.plug_listening(GUEST, 0)?;
    let config = GuestConfig { ring_size: 64, buffer_len: ROOM, ..GuestConfig::default() };
    Ok(Box::new(Guest { front_end: FrontEnd::connect(&socket, &config)? }))
}

impl Host for Guest {
    fn name(&self) -> &'static str {
        GUEST
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        let pair = self.front_end.guest.pair();
        pair.send.reclaim().doing("taking back sent buffers")?;
        if !pair.send.send(frame) {
            return Err(Error::new("the guest has no buffer left"));
        }
        pair.send.flush();
        Ok(())
    }

    fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + within;
        let receive = &mut self.front_end.guest.pair().receive;
        loop {
            let mut frame = None;
            receive.receive(1, |received| frame = Some(received.copy_to(&mut vec![0; ROOM]).to_vec()))?;
            let left = end.saturating_duration_since(Instant::now());
            if frame.is_some() || left.is_zero() {
                return Ok(frame);
            }
            receive.wait(left)?;
        }
    }
}

const STREAM: &str = "stream";
const GUEST: &str = "guest";
/// The longest frame that is sent.
const LONGEST: usize = 65_535;
/// For more than that.
const ROOM: usize = 68 << 10;
/// The longest UDP datagram over IPv4.
const UDP_MAX: usize = 65_507;
/// The most that the kernel allows.
const TAP_MTU: usize = 65_521;
const VETH_MTU: usize = 65_535;
const L2TPV3_TO_SWITCH: [u8; 8] = [0, 3, 0, 0, 1, 1, 1, 1];
const L2TPV3_FROM_SWITCH: [u8; 8] = [0, 3, 0, 0, 2, 2, 2, 2];
const SOON: Duration = Duration::from_secs(10);

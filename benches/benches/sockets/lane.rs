//! A contender between its two peers, at rest until it is measured.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringyard_benches::bench::packet::open_bound;
use ringyard_benches::interrupt;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::{self, Netns};
use ringyard_tests::running::Running;
use ringyard_tests::vde::{self, Plugged, Port};
use tempfile::TempDir;

use crate::batch::set_option;
use crate::contender::{Contender, VDE_SWITCH};
use crate::ends::{DatagramSink, DatagramSource, PacketSink, Sink, Source, StreamSink, StreamSource};
use crate::flood::{Flood, Round};
use crate::medium::{End, Medium, Side, address, interface, l2tpv3_header, path};
use crate::sockets::{Datagrams, Listener, PATIENCE, connect_stream, listen, prepare};

/// See the module.
pub struct Lane {
    pub contender: Contender,
    medium: Medium,
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    running: Running,
    _controls: Vec<UnixStream>,
    _directory: TempDir,
    _namespaces: Namespaces,
}

impl Lane {
    /// Puts `contender` between two peers, and waits until a frame passes.
    pub fn start(contender: Contender, medium: Medium) -> Result<Lane> {
        let namespaces = Namespaces::new(contender, medium)?;
        let directory = tempfile::tempdir().doing("making a contender's sockets' directory")?;
        let place = Place { medium, namespaces: &namespaces, directory: directory.path() };
        let peers = place.open(contender)?;
        let mut running = contender.start(medium, &namespaces.switch, directory.path())?;
        let joined = place.join(peers, contender);
        let (source, sink, controls) =
            joined.map_err(|error| Error::new(format!("{error}{}", running.last_words())))?;
        running.set_paused(true)?;
        let mut lane = Lane {
            contender,
            medium,
            source,
            sink,
            running,
            _controls: controls,
            _directory: directory,
            _namespaces: namespaces,
        };
        let opened = lane.open_way();
        opened.map_err(|error| Error::new(format!("{error}{}", lane.running.last_words())))?;
        Ok(lane)
    }

    /// Sends frames until one arrives.
    fn open_way(&mut self) -> Result<()> {
        let Lane { medium, source, sink, running, .. } = self;
        running.awake(|| {
            let mut flood = Flood::new(*medium, 64, source.as_mut(), sink.as_mut())?;
            wait_for("a first frame", PATIENCE, || Ok(flood.probe()?.then_some(())))?;
            flood.settle().map(drop)
        })
    }

    /// Floods the switch with frames of `frame_len` bytes for `time`, after it has warmed up.
    pub fn measure(&mut self, frame_len: usize, time: Duration) -> Result<Round> {
        let Lane { contender, medium, source, sink, running, .. } = self;
        interrupt::check()?;
        running.set_paused(false)?;
        let measured = Flood::new(*medium, frame_len, source.as_mut(), sink.as_mut())
            .and_then(|mut flood| flood.run(time, || running.cpu_time()))
            .doing(contender.title());
        running.set_paused(true)?;
        measured
    }
}

/// The switch's and the sink's namespace, and the source's if that is another one.
struct Namespaces {
    switch: Netns,
    source: Option<Netns>,
}

/// Where a contender's sockets are.
struct Place<'a> {
    medium: Medium,
    namespaces: &'a Namespaces,
    directory: &'a Path,
}

/// The peers' ends, before the switch is there.
enum Peers {
    Datagrams([Datagrams; 2]),
    /// VDE ports that the switch plugs into.
    Ports([Port; 2]),
    /// VDE plugs, to be plugged into the switch.
    Plugs,
    /// Streams connect to the switch, or to each other here.
    Streams(Option<Listener>),
    Interfaces,
}

type Joined = (Box<dyn Source>, Box<dyn Sink>, Vec<UnixStream>);

impl Place<'_> {
    /// What has to be there before the switch.
    fn open(&self, contender: Contender) -> Result<Peers> {
        let Place { medium, directory, .. } = *self;
        let straight = contender == Contender::Straight;
        match medium {
            Medium::AfPacket => Ok(Peers::Interfaces),
            Medium::StreamUnix | Medium::StreamTcp if straight => {
                let listener = self.namespaces.switch.enter(|| listen(medium, directory, Side::A))?;
                Ok(Peers::Streams(Some(listener)))
            }
            Medium::StreamUnix | Medium::StreamTcp => Ok(Peers::Streams(None)),
            Medium::Vde if contender == Contender::Vde => Ok(Peers::Plugs),
            Medium::Vde if contender.is_plug() => {
                let port = |side| Port::open(path(directory, side, End::Peer));
                Ok(Peers::Ports([port(Side::A)?, port(Side::B)?]))
            }
            _ => {
                let bind = |side, end| Datagrams::bind(medium, directory, side, end);
                let source = self.namespaces.source().enter(|| bind(Side::A, End::Peer))?;
                // Without a switch the sink takes its place.
                let (side, end) = if straight { (Side::A, End::Switch) } else { (Side::B, End::Peer) };
                let sink = self.namespaces.switch.enter(|| bind(side, end))?;
                Ok(Peers::Datagrams([source, sink]))
            }
        }
    }

    /// The peers, connected to the switch, or the source to the sink.
    fn join(&self, peers: Peers, contender: Contender) -> Result<Joined> {
        let Place { medium, .. } = *self;
        let straight = contender == Contender::Straight;
        let netns = &self.namespaces.switch;
        let (source, sink, controls) = netns.enter(|| self.connect(peers, straight))?;
        if medium.gso() {
            set_option(&sink, libc::SOL_UDP, libc::UDP_GRO, 1).doing("switching UDP_GRO on")?;
        }
        let prefix = |side: Side, end| match medium.is_l2tpv3() {
            true => l2tpv3_header(side.session(end)).to_vec(),
            false => Vec::new(),
        };
        let sent = prefix(Side::A, End::Switch);
        let received = if straight { sent.clone() } else { prefix(Side::B, End::Peer) };
        Ok(match medium {
            Medium::StreamUnix | Medium::StreamTcp => {
                let sink = StreamSink::new(sink, medium == Medium::StreamTcp)?;
                (Box::new(StreamSource::new(source)?), Box::new(sink), controls)
            }
            Medium::AfPacket => {
                let source = DatagramSource::new(source, sent, false)?;
                (Box::new(source), Box::new(PacketSink::new(sink)?), controls)
            }
            _ => {
                let source = DatagramSource::new(source, sent, medium.is_udp())?;
                (Box::new(source), Box::new(DatagramSink::new(sink, received, medium.gso())?), controls)
            }
        })
    }

    /// The source's socket and the sink's; what has to stay open beside them.
    fn connect(&self, peers: Peers, straight: bool) -> Result<(OwnedFd, OwnedFd, Vec<UnixStream>)> {
        let Place { medium, directory, .. } = *self;
        let (source, sink) = match peers {
            Peers::Datagrams([a, b]) => {
                let from = if straight { (Side::A, End::Peer) } else { (Side::B, End::Switch) };
                let source = a.connect(medium, directory, Side::A, End::Switch)?;
                (source, b.connect(medium, directory, from.0, from.1)?)
            }
            Peers::Ports([a, b]) => {
                return plugs(a.plugged()?, b.plugged()?);
            }
            Peers::Plugs => {
                let switch = directory.join(VDE_SWITCH);
                let plug = |side| vde::plug(&switch, &path(directory, side, End::Peer));
                return plugs(plug(Side::A)?, plug(Side::B)?);
            }
            Peers::Streams(Some(listener)) => {
                (connect_stream(medium, directory, Side::A)?, listener.accept()?)
            }
            Peers::Streams(None) => {
                let connect = |side| connect_stream(medium, directory, side);
                (connect(Side::A)?, connect(Side::B)?)
            }
            Peers::Interfaces => {
                let sink = if straight { (Side::A, End::Switch) } else { (Side::B, End::Peer) };
                (open_bound(&interface(Side::A, End::Peer))?, open_bound(&interface(sink.0, sink.1))?)
            }
        };
        Ok((source, sink, Vec::new()))
    }
}

fn plugs(a: Plugged, b: Plugged) -> Result<(OwnedFd, OwnedFd, Vec<UnixStream>)> {
    let (source, sink) = (prepare(a.frames.into(), true)?, prepare(b.frames.into(), true)?);
    Ok((source, sink, vec![a.control, b.control]))
}

impl Namespaces {
    fn new(contender: Contender, medium: Medium) -> Result<Namespaces> {
        let switch = Netns::new()?;
        let mut source = None;
        if medium == Medium::AfPacket {
            lay_wires(&switch, contender)?;
        } else if medium.is_udp() {
            source = Some(lay_udp_wire(&switch, medium)?);
        }
        Ok(Namespaces { switch, source })
    }

    fn source(&self) -> &Netns {
        self.source.as_ref().unwrap_or(&self.switch)
    }
}

/// A veth pair on each side of the switch; without one, a single pair. The namespace's own kernel says nothing there.
fn lay_wires(netns: &Netns, contender: Contender) -> Result<()> {
    netns.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")?;
    let sides: &[Side] = if contender == Contender::Straight { &[Side::A] } else { &Side::BOTH };
    for side in sides {
        let ends = [End::Switch, End::Peer].map(|end| interface(*side, end));
        netns::join((netns, &ends[0]), (netns, &ends[1]))?;
        ends.iter().try_for_each(|end| netns.bring_up(end, &[]))?;
    }
    Ok(())
}

/// The source is on another host, so that it costs less than what it measures: it hands the kernel many datagrams as one,
/// and unless the switch is to have them so, they are cut as they leave there.
fn lay_udp_wire(switch: &Netns, medium: Medium) -> Result<Netns> {
    let source = Netns::new()?;
    let ends = [(switch, End::Switch), (&source, End::Peer)];
    let names = ends.map(|(_, end)| interface(Side::A, end));
    netns::join((switch, &names[0]), (&source, &names[1]))?;
    for ((netns, end), name) in ends.into_iter().zip(&names) {
        netns.ip(&format!("link set {name} mtu {WIRE_MTU}"))?;
        netns.bring_up(name, &[&format!("{}/24", address(Side::A, end).ip())])?;
    }
    if !medium.gso() {
        source.run(&format!("ethtool -K {} tx-udp-segmentation off", names[1]))?;
    }
    Ok(source)
}

/// As the loopback interface's, so that no datagram is cut into fragments.
const WIRE_MTU: u32 = 65_535;

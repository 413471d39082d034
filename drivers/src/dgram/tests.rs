//! Ports over real sockets, in network namespaces of their own where interfaces come and go.

use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ringyard_dataplane::frame::{BurstScratch, Taken};
use ringyard_dataplane::port::{EgressScratch, IngressScratch, Tally};

use super::*;
use crate::line::{News, PortKey, Switchboard};
use crate::testing::in_namespace;

fn open(wire: Wire) -> DgramPort {
    DgramPort::open(wire, &SocketAccess::default()).unwrap()
}

fn refused(wire: Wire) -> String {
    DgramPort::open(wire, &SocketAccess::default()).err().expect("it is wrong")
}

fn path(path: &Path) -> UnixName {
    UnixName::Path(path.into())
}

fn address(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// Sends one frame of 60 times `number`, if there is room.
fn send(attachment: &Attachment, number: u8) -> Tally {
    let frame = [number; 60];
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&frame).unwrap();
    let mut egress = EgressScratch::default();
    attachment.egress[0].send(&mut egress, &builder.burst(), &[0]);
    egress.tally
}

/// The first bytes of what came, once that are `count` frames, and of what was there besides.
fn received(attachment: &Attachment, count: usize) -> Vec<u8> {
    let (mut first, end) = (Vec::new(), &attachment.ingress[0]);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let enough = first.len() >= count;
        assert!(enough || Instant::now() < deadline, "{first:?}");
        let mut scratch = IngressScratch::default();
        end.doorbell.disarm();
        let gone = end.ingress.poll(&mut scratch, &mut |burst| {
            first.extend(burst.frames().map(|frame| frame.header()[0]));
            Taken::ALL
        });
        if gone == 0 && enough {
            return first;
        }
    }
}

/// A port that is looked after, and what it says.
struct Minded {
    _port: DgramPort,
    board: Switchboard,
    attachment: Attachment,
    shown: String,
}

impl Minded {
    fn start(wire: Wire) -> Minded {
        let board = Switchboard::new().unwrap();
        let mut port = open(wire);
        let attachment = port.attachment();
        port.start(board.line(PortKey(1)), "fine".into()).unwrap();
        Minded { _port: port, board, attachment, shown: "fine".into() }
    }

    /// Does what it is told until it shows `text`.
    fn wait_until_shown(&mut self, text: &str) {
        self.meanwhile_until_shown(text, |_| ());
    }

    /// The same, sending frames. A child that another test is starting may have the peer's descriptor for a moment.
    fn send_until_shown(&mut self, text: &str) {
        self.meanwhile_until_shown(text, |attachment| {
            if !attachment.egress.is_empty() {
                send(attachment, 1);
            }
        });
    }

    fn meanwhile_until_shown(&mut self, text: &str, meanwhile: impl Fn(&Attachment)) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.shown != text || self.attachment.carrier != (text == "fine") {
            assert!(Instant::now() < deadline, "it shows {}", self.shown);
            meanwhile(&self.attachment);
            for report in self.board.drain() {
                match report.news {
                    News::Attached { attachment, done } => {
                        self.attachment = attachment;
                        done.send(()).unwrap();
                    }
                    News::State { text } => self.shown = text,
                    _ => panic!("it has no other news"),
                }
            }
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// A namespace with an interface `v0` that has the address 10.0.0.1.
fn with_interface(body: impl FnOnce() + Send + 'static) {
    in_namespace(|| {
        ip("link set lo up");
        add_interface();
        body();
    });
}

fn add_interface() {
    ip("link add v0 type veth peer name v1");
    ip("addr add 10.0.0.1/24 dev v0");
    ip("link set v1 up");
    ip("link set v0 up");
}

#[test]
fn inet_sends_to_its_peer_and_hears_everybody() {
    in_namespace(|| {
        ip("link set lo up");
        let peer = UdpSocket::bind("127.0.0.1:2").unwrap();
        let stranger = UdpSocket::bind("127.0.0.2:3").unwrap();
        let port = open(Wire::Inet { local: address("0.0.0.0:1"), remote: address("127.0.0.1:2") });
        assert_eq!(send(&port.attachment(), 7).frames, 1);
        assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
        for (number, socket) in [(1, &peer), (2, &stranger)] {
            socket.send_to(&[number; 60], "127.0.0.1:1").unwrap();
            socket.send_to(&[], "127.0.0.1:1").unwrap();
        }
        assert_eq!(received(&port.attachment(), 2), [1, 2]);
        // Two may have one address, as with QEMU.
        drop(open(Wire::Inet { local: address("0.0.0.0:1"), remote: address("127.0.0.1:2") }));
        let error = refused(Wire::Inet { local: address("10.9.9.9:1"), remote: address("127.0.0.1:2") });
        assert_eq!(error, "can't bind ip=10.9.9.9 to socket: Cannot assign requested address");
    });
}

#[test]
fn inet_follows_its_address() {
    with_interface(|| {
        let wire = Wire::Inet { local: address("10.0.0.1:1"), remote: address("10.0.0.2:2") };
        let mut port = Minded::start(wire);
        let peer = UdpSocket::bind("0.0.0.0:2").unwrap();
        for _ in 0..2 {
            ip("link del v0");
            port.wait_until_shown("error: Cannot assign requested address");
            add_interface();
            port.wait_until_shown("fine");
            peer.send_to(&[5; 60], "10.0.0.1:1").unwrap();
            assert_eq!(received(&port.attachment, 1), [5]);
        }
        ip("link set v0 down");
        port.wait_until_shown("error: Network is unreachable");
        ip("link set v0 up");
        port.wait_until_shown("fine");
    });
}

fn group(interface: Option<&str>) -> Wire {
    let interface = interface.map(|text| text.parse().unwrap());
    Wire::Multicast { group: address("230.0.0.1:1234"), interface, socket: None }
}

#[test]
fn members_of_a_group_hear_each_other_once_and_never_themselves() {
    with_interface(|| {
        let ports = [(); 3].map(|()| open(group(Some("10.0.0.1"))).attachment());
        for (number, port) in (0..).zip(&ports) {
            assert_eq!(send(port, number).frames, 1);
        }
        assert_eq!(ports.each_ref().map(|port| received(port, 2)), [vec![1, 2], vec![0, 2], vec![0, 1]]);
        let outsider = UdpSocket::bind("10.0.0.1:0").unwrap();
        outsider.send_to(&[9; 60], "230.0.0.1:1234").unwrap();
        outsider.send_to(&[8; 60], "10.0.0.1:1234").unwrap_or_default();
        assert_eq!(ports.each_ref().map(|port| received(port, 1)), [[9], [9], [9]]);
    });
}

#[test]
fn group_needs_a_multicast_address_and_an_interface() {
    with_interface(|| {
        let error = "can't add socket to multicast group 230.0.0.1: No such device";
        assert_eq!(refused(group(None)), error, "there is no route");
        assert_eq!(refused(group(Some("10.9.9.9"))), error);
        ip("route add 224.0.0.0/4 dev v0");
        drop(open(group(None)));
        let wire = Wire::Multicast { group: address("127.0.0.1:1234"), interface: None, socket: None };
        let error = "specified mcastaddr 127.0.0.1 (0x7f000001) does not contain a multicast address";
        assert_eq!(refused(wire), error);
    });
}

#[test]
fn group_follows_its_interface() {
    with_interface(|| {
        let mut port = Minded::start(group(Some("10.0.0.1")));
        for _ in 0..3 {
            ip("link del v0");
            port.wait_until_shown("error: can't add socket to multicast group 230.0.0.1: No such device");
            add_interface();
            port.wait_until_shown("fine");
            let other = open(group(Some("10.0.0.1"))).attachment();
            assert_eq!((send(&other, 1).frames, send(&port.attachment, 2).frames), (1, 1));
            assert_eq!((received(&other, 1), received(&port.attachment, 1)), (vec![2], vec![1]));
        }
    });
}

#[test]
fn group_is_heard_with_a_socket_that_was_passed() {
    with_interface(|| {
        ip("route add 224.0.0.0/4 dev v0");
        let bound = inet::bound(address("230.0.0.1:1234")).unwrap();
        let fresh = inet::socket().unwrap();
        let other = open(group(None)).attachment();
        for socket in [bound, fresh] {
            let port = open(Wire::Multicast {
                group: address("230.0.0.1:1234"),
                interface: None,
                socket: Some(socket),
            })
            .attachment();
            assert_eq!((send(&other, 1).frames, send(&port, 2).frames), (1, 1));
            assert_eq!((received(&other, 1), received(&port, 1)), (vec![2], vec![1]));
        }
        let pair = UnixDatagram::pair().unwrap().0;
        let group =
            Wire::Multicast { group: address("230.0.0.1:1234"), interface: None, socket: Some(pair.into()) };
        assert!(refused(group).contains("is not IPv4"));
    });
}

#[test]
fn group_is_not_joined_across_network_namespaces() {
    let (give, given) = std::sync::mpsc::channel();
    in_namespace(move || give.send(inet::socket().unwrap()).unwrap());
    with_interface(move || {
        let socket = Some(given.recv().unwrap());
        let error = refused(Wire::Multicast { group: address("230.0.0.1:1234"), interface: None, socket });
        assert_eq!(
            error,
            "can't set up multicast to 230.0.0.1:1234 on a socket of another network namespace"
        );
    });
}

#[test]
fn unix_takes_its_path_over_with_the_rights_that_were_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
    std::fs::write(&ours, "old").unwrap();
    let wire = || Wire::Unix { local: path(&ours), remote: path(&theirs) };
    for mode in [0o600, 0o666, 0o620] {
        let port = DgramPort::open(wire(), &SocketAccess { mode, group: None }).unwrap();
        let file = std::fs::metadata(&ours).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        assert_eq!(send(&port.attachment(), 1).dropped(), 1, "the peer need not be there");
        let peer = UnixDatagram::bind(&theirs).unwrap();
        assert_eq!(send(&port.attachment(), 1).frames, 1);
        assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
        peer.send_to(&[3; 60], &ours).unwrap();
        assert_eq!(received(&port.attachment(), 1), [3]);
        std::fs::remove_file(&theirs).unwrap();
    }
}

#[test]
fn unix_says_what_is_wrong_with_a_path_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let wire =
        |local: &str, remote: &str| Wire::Unix { local: path(local.as_ref()), remote: path(remote.as_ref()) };
    assert_eq!(refused(wire(&at.to_string(), "b")), format!("failed to unlink socket {at}: Is a directory"));
    let missing = format!("{at}/no/socket");
    let expected = format!("can't bind unix={missing} to socket: No such file or directory");
    assert_eq!(refused(wire(&missing, "b")), expected);
    let long = "a".repeat(108);
    let expected = format!("UNIX socket path '{long}' is too long");
    assert_eq!(refused(wire(&long, "b")), expected);
    let ours = format!("{at}/ours");
    assert_eq!(refused(wire(&ours, &long)), expected);
    assert!(!Path::new(&ours).exists());
}

#[test]
fn server_with_one_path_and_a_client_without_any_find_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let known = directory.path().join("known");
    let server = open(Wire::Unix { local: path(&known), remote: UnixName::Unnamed }).attachment();
    let client = || open(Wire::Unix { local: UnixName::Unnamed, remote: path(&known) }).attachment();
    let first = client();
    assert_eq!(send(&server, 1).dropped(), 1);
    send(&first, 2);
    assert_eq!(received(&server, 1), [2]);
    send(&server, 3);
    assert_eq!(received(&first, 1), [3]);
    drop(first);
    let second = client();
    let deadline = Instant::now() + Duration::from_secs(10);
    // A child that another test is starting may have its descriptor for a moment.
    while send(&server, 4).dropped() == 0 {
        assert!(Instant::now() < deadline);
    }
    send(&second, 5);
    assert_eq!(received(&server, 1), [5]);
    send(&server, 6);
    assert_eq!(received(&second, 1), [6]);
}

#[test]
fn abstract_names_are_met_with_and_without_zeros_behind_them() {
    for exact in [true, false] {
        let name = |name: &str, tight| UnixName::Abstract {
            name: format!("ringyard-dgram-{name}-{exact}-{}", std::process::id()),
            tight,
        };
        let one = open(Wire::Unix { local: name("one", exact), remote: name("other", exact) }).attachment();
        let other = open(Wire::Unix { local: name("other", exact), remote: name("one", exact) }).attachment();
        let differs = open(Wire::Unix { local: UnixName::Unnamed, remote: name("one", !exact) }).attachment();
        assert_eq!((send(&one, 1).frames, send(&other, 2).frames), (1, 1));
        assert_eq!((received(&one, 1), received(&other, 1)), (vec![2], vec![1]));
        assert_eq!(send(&differs, 3).frames, 0);
    }
}

#[test]
fn given_pair_works_until_the_other_end_is_closed() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut port = Minded::start(Wire::Given(ours.into()));
    theirs.send(&[4; 60]).unwrap();
    assert_eq!(received(&port.attachment, 1), [4]);
    assert_eq!(send(&port.attachment, 1).frames, 1);
    drop(theirs);
    port.send_until_shown("error: the peer is gone");
}

#[test]
fn given_socket_finds_a_peer_that_comes_back_to_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let known = directory.path().join("known");
    let peer = UnixDatagram::bind(&known).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(&known).unwrap();
    let mut port = Minded::start(Wire::Given(socket.into()));
    assert_eq!(send(&port.attachment, 1).frames, 1);
    drop(peer);
    std::fs::remove_file(&known).unwrap();
    port.send_until_shown("error: the peer is gone: No such file or directory");
    let peer = UnixDatagram::bind(&known).unwrap();
    port.wait_until_shown("fine");
    assert_eq!(send(&port.attachment, 2).frames, 1);
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
}

#[test]
fn given_socket_without_a_peer_answers_the_first() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let port = open(Wire::Given(socket.into())).attachment();
    assert_eq!(send(&port, 1).dropped(), 1);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.send_to(&[2; 60], at).unwrap();
    assert_eq!(received(&port, 1), [2]);
    assert_eq!(send(&port, 3).frames, 1);
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
}

#[test]
fn what_is_no_datagram_socket_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let text = "Unable to query local socket address: Socket operation on non-socket";
    assert_eq!(refused(Wire::Given(file.into())), text);
    let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(
        refused(Wire::Given(stream.into())),
        "a socket of type 1 is passed where SOCK_DGRAM is needed"
    );
}

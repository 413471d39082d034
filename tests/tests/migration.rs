//! Guests that move from one host to another: two QEMUs, two switches, and the network between them. The guest sends and
//! receives numbered frames all the time.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringyard_tests::deadline::{Deadline, wait_for};
use ringyard_tests::flow::{Flow, FlowConfig, FlowReport, number_of};
use ringyard_tests::guest::{Background, Guest, GuestConfig, Incoming, NetAttach};
use ringyard_tests::migration::compare;
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result};
use serde_json::{Value, json};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// What the guest sends: length, and frames a second.
const OURS: (usize, u32) = (1000, 50);
/// What its neighbour sends. So long that the guest takes most of a frame as it lies in its buffers, and writes nothing
/// beside it; so seldom that it posted these buffers before it began to move.
const THEIRS: (usize, u32) = (9000, 10);

/// Two hosts, each with a switch, joined by a stream; a neighbour is at the first.
struct Hosts {
    switches: [Switch; 2],
    sockets: [PathBuf; 2],
    neighbour: Netns,
    neighbour_mac: [u8; 6],
}

impl Hosts {
    fn new() -> Result<Hosts> {
        let (mut first, mut second) = (Switch::start(&[])?, Switch::start(&[])?);
        let link = first.path("link.sock");
        for (switch, server) in [(&mut first, true), (&mut second, false)] {
            let stream = json!({"type": "stream", "id": "link", "server": server, "addr": {"type": "unix", "path": link}});
            switch.order("netdev_add", stream)?;
            let hubport = json!({"type": "hubport", "id": "link-hubport", "hubid": 0, "netdev": "link"});
            switch.order("netdev_add", hubport)?;
            // A client tries once.
            wait_for("the hosts' link", WAIT, || {
                Ok((!server || switch.info("link")?.contains("listening")).then_some(()))
            })?;
        }
        first.wait_carrier("link", WAIT)?;
        let neighbour = Netns::new()?;
        first.plug_tap("t0", 0, &neighbour, &["10.0.0.100/24"])?;
        neighbour.ip("link set t0 mtu 9000")?;
        let neighbour_mac = neighbour.mac("t0")?;
        let sockets = [first.plug_listening("vm", 0)?, second.plug_listening("vm", 0)?];
        Ok(Hosts { switches: [first, second], sockets, neighbour, neighbour_mac })
    }

    /// What a guest on host `at` is.
    fn guest(&self, at: usize, options: &[&str]) -> GuestConfig {
        GuestConfig {
            device_options: options.iter().map(|option| option.to_string()).collect(),
            programs: vec![env!("CARGO_BIN_EXE_numbered").into()],
            ..GuestConfig::new(1, NetAttach::connect(self.sockets[at].clone()))
        }
    }

    fn socket(&self) -> Result<PacketSocket> {
        PacketSocket::open(&self.neighbour, "t0")
    }

    fn finish(self) -> Result<()> {
        self.switches.into_iter().try_for_each(Switch::finish)
    }
}

/// What became of a flow, and the runs that are missing.
type Fate = (FlowReport, Vec<(u64, u64)>);

/// The numbered frames between the guest and its neighbour.
struct Traffic {
    theirs: Flow,
    ours: Background,
}

impl Traffic {
    fn start(hosts: &Hosts, guest: &mut Guest) -> Result<Traffic> {
        let config =
            FlowConfig { destination: GUEST, source: hosts.neighbour_mac, length: THEIRS.0, rate: THEIRS.1 };
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let (own, neighbour) = (mac(GUEST), mac(hosts.neighbour_mac));
        let (counting, witness) = (hosts.socket()?, hosts.socket()?);
        let ours =
            guest.spawn(&format!("numbered eth0 {own} {neighbour} {} {} /run/stop", OURS.0, OURS.1))?;
        // Who sends listens.
        wait_for("the guest's first frame", WAIT, || {
            Ok(witness.receive(WAIT)?.filter(|frame| number_of(frame, GUEST).is_some()))
        })?;
        Ok(Traffic { theirs: Flow::exchange(hosts.socket()?, counting, config, GUEST), ours })
    }

    /// What became of the guest's frames, and what of its neighbour's: report and gaps of each.
    fn finish(self, guest: &mut Guest) -> Result<[Fate; 2]> {
        self.theirs.stop_sending();
        guest.expect("touch /run/stop")?;
        let output = guest.wait(&self.ours, WAIT)?;
        let said: Value = serde_json::from_str(output.stdout.trim()).doing(format!("reading {output:?}"))?;
        let (mut from_guest, guest_gaps) = self.theirs.finish_with_gaps()?;
        let number = |at: usize| said["numbers"][at].as_u64().ok_or_else(|| Error::new(said.to_string()));
        let from_neighbour = FlowReport {
            sent: std::mem::replace(&mut from_guest.sent, number(0)?),
            received: number(1)?,
            doubled: number(2)?,
            overtaken: number(3)?,
        };
        let gaps = serde_json::from_value(said["gaps"].clone()).doing("reading the guest's gaps")?;
        Ok([(from_guest, guest_gaps), (from_neighbour, gaps)])
    }
}

/// Waits for the guest to be announced at the neighbour's, by `kinds` of announcements; when that was, in seconds since
/// 1970.
fn announcement(witness: &PacketSocket, kinds: &[Announcement]) -> Result<f64> {
    let deadline = Deadline::after(WAIT);
    while let Some(left) = deadline.remaining() {
        let Some(frame) = witness.receive(left)? else { break };
        if Announcement::of(&frame).is_some_and(|kind| kinds.contains(&kind)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).doing("reading the clock")?;
            return Ok(now.as_secs_f64());
        }
    }
    Err(Error::new("nobody announced the guest"))
}

/// How a guest is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announcement {
    /// A reverse ARP request, by the switch, which QEMU has asked for it.
    ByUs,
    /// An ARP for its own address, by the guest, which QEMU has asked for it.
    ByTheGuest,
}

impl Announcement {
    fn of(frame: &[u8]) -> Option<Announcement> {
        let is_broadcast = frame[..6] == [0xff; 6] && frame[6..12] == GUEST;
        match frame[12..14] {
            [0x80, 0x35] if is_broadcast => Some(Announcement::ByUs),
            // From the address that is asked for.
            [8, 6] if is_broadcast && frame[28..32] == frame[38..42] => Some(Announcement::ByTheGuest),
            _ => None,
        }
    }
}

/// Moves a guest with these device options there and back while it sends and receives, compares all of its memory each
/// time, and lets it go on.
fn guest_moves(options: &[&str], announced_by: &[Announcement]) -> Result<()> {
    let slot = Slot::take()?;
    let hosts = Hosts::new()?;
    let mut guest = Guest::boot(&slot, hosts.guest(0, options))?;
    guest.expect("ping -c 2 -W 5 10.0.0.100")?;
    let changes = guest.expect("cat /sys/class/net/eth0/carrier_changes")?;
    let traffic = Traffic::start(&hosts, &mut guest)?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut away = 0.0;
    for round in 1..=ROUNDS {
        let socket = directory.path().join(format!("{round}.sock"));
        // In the last round nobody looks into it, so it goes on at once.
        let paused = round < ROUNDS;
        let incoming = Some(Incoming { socket: socket.clone(), paused });
        let config = GuestConfig { incoming, ..hosts.guest(round % 2, options) };
        let mut next = Guest::start(&slot, config)?;
        let witness = hosts.socket()?;
        let moved = guest.move_to(&mut next, &socket)?;
        let mut back = moved.stopped_at;
        if paused {
            let comparison = compare(&guest.memory()?, &next.memory()?)?;
            assert!(comparison.different.is_empty(), "round {round}: {comparison:x?}");
            assert!(comparison.used > PAGES_USED_MIN, "{comparison:?}");
            back = next.resume()?;
        }
        back = back.max(announcement(&witness, announced_by)?);
        println!("round {round}: away for {:.3} s; {}", back - moved.stopped_at, moved.figures);
        away += back - moved.stopped_at;
        guest.kill()?;
        guest = next;
        let report = guest.expect("ping -c 3 -i 0.2 -W 5 10.0.0.100")?;
        assert!(report.contains(" 0% packet loss"), "{report}");
    }
    let fates = traffic.finish(&mut guest)?;
    println!("{fates:?}, away for {away:.3} s in all");
    let [(from_guest, _), (from_neighbour, gaps)] = fates;
    assert_eq!((from_guest.lost(), from_guest.doubled, from_guest.overtaken), (0, 0, 0));
    // What comes for a guest that is not there is lost, and nothing else.
    let explained = (away + ROUNDS as f64 * LATE_S) * f64::from(THEIRS.1);
    assert!(from_neighbour.lost() as f64 <= explained, "{explained:.0} are explained");
    assert!(gaps.len() <= ROUNDS, "more gaps than absences");
    assert_eq!((from_neighbour.doubled, from_neighbour.overtaken), (0, 0));
    assert_eq!(guest.expect("cat /sys/class/net/eth0/carrier_changes")?, changes, "the link stayed up");
    guest.kill()?;
    hosts.finish()
}

#[test]
fn guest_moves_there_and_back_and_every_page_of_it_with_it() -> Result<()> {
    guest_moves(&["guest_announce=off"], &[Announcement::ByUs])
}

#[test]
fn guest_with_packed_rings_moves_and_announces_itself() -> Result<()> {
    guest_moves(&["packed=on"], &[Announcement::ByTheGuest])
}

const ROUNDS: usize = 3;
/// How much longer than it seems the guest may be away, when sender or witness wait for a core.
const LATE_S: f64 = 0.5;
/// A guest that has booted has used more.
const PAGES_USED_MIN: usize = 10_000;
const WAIT: Duration = Duration::from_secs(20);

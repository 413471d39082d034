//! Taps of this kernel. They need CAP_NET_ADMIN and /dev/net/tun.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use ringyard_dataplane::frame::{BurstScratch, Taken};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offloads, Sum};
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch, Tally};

use super::queue::TapQueue;
use super::*;
use crate::line::{PortKey, Switchboard};
use crate::sys::option;
use crate::testing::in_namespace;

fn named(ifname: &str) -> TapOptions {
    let source =
        TapSource::Name { ifname: Some(ifname.into()), queues: 1, vnet_hdr: VnetHeader::IfSupported };
    TapOptions { source, script: None, downscript: None, sndbuf_bytes: i32::MAX, drawer: Drawer::default() }
}

fn queue_of(device: Device) -> TapQueue {
    TapQueue::new(device, 0, Arc::new(Alarm::new().unwrap()))
}

fn open_error(options: TapOptions) -> String {
    TapPort::open(options).err().expect("an error").to_string()
}

/// Opens an interface again. A child that another test's thread is starting may have its old descriptor for a moment.
fn reopen(ifname: &str) -> TapPort {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TapPort::open(named(ifname)) {
            Ok(tap) => return tap,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn kernel_chooses_a_name_and_interface_goes_with_the_port() {
    in_namespace(|| {
        let mut options = named("");
        options.source = TapSource::Name { ifname: None, queues: 1, vnet_hdr: VnetHeader::IfSupported };
        let tap = TapPort::open(options).unwrap();
        assert_eq!(tap.ifname(), "tap0");
        assert!(open_error(named("tap0")).ends_with("(tap0): Device or resource busy"));
        tap.close().unwrap();
        assert_eq!(reopen("tap0").ifname(), "tap0");
    });
}

#[test]
fn errors_name_device_and_interface() {
    in_namespace(|| {
        assert_eq!(open_error(named("lo")), "could not configure /dev/net/tun (lo): Invalid argument");
        let long = open_error(named("a-name-of-16-byte"));
        assert_eq!(long, "could not configure /dev/net/tun (a-name-of-16-byte): Invalid argument");
    });
}

#[test]
fn descriptor_that_is_no_tap_is_refused() {
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let options = TapOptions { source: TapSource::Fds(vec![null]), ..named("") };
    let text = open_error(options);
    assert!(text.starts_with("Unable to query TUNGETIFF on FD "), "{text}");
    assert!(text.ends_with(": Inappropriate ioctl for device"), "{text}");
}

#[test]
fn failing_script_fails_the_open_and_takes_the_interface_back() {
    in_namespace(|| {
        let script = |ifname, path: &str| TapOptions { script: Some(path.into()), ..named(ifname) };
        assert_eq!(
            open_error(script("t0", "/bin/false")),
            "network script /bin/false failed with status 256"
        );
        let missing = open_error(script("t1", "/nonexistent"));
        assert_eq!(missing, "network script /nonexistent failed with status 256");
        reopen("t0");
    });
}

#[test]
fn several_queues_are_one_interface() {
    in_namespace(|| {
        let source = TapSource::Name { ifname: Some("t0".into()), queues: 3, vnet_hdr: VnetHeader::Required };
        let tap = TapPort::open(TapOptions { source, ..named("") }).unwrap();
        let attachment = tap.attachment();
        assert_eq!((attachment.ingress.len(), attachment.egress.len()), (3, 3));
        assert!(attachment.carrier);
    });
}

#[test]
fn started_port_gives_its_first_queues_away() {
    in_namespace(|| {
        let mut tap = TapPort::open(named("t0")).unwrap();
        let board = Switchboard::new().unwrap();
        tap.start(board.line(PortKey(1)), "well".into()).unwrap();
        assert_eq!(tap.attachment().ingress.len(), 1);
        assert_eq!((tap.attachment().ingress.len(), tap.queues()), (0, 1));
    });
}

#[test]
fn frame_written_by_the_kernel_is_read_and_ours_is_counted() {
    in_namespace(|| {
        let device = Device::open(Some("t0"), false, VnetHeader::IfSupported).unwrap();
        let queue = queue_of(device);
        let up = Command::new("ip").args(["link", "set", "t0", "up"]).status().expect("iproute2");
        assert!(up.success());
        let mut scratch = IngressScratch::default();
        queue.disarm();
        // IPv6 announces itself on an interface that comes up.
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while seen.is_empty() && Instant::now() < deadline {
            queue.disarm();
            queue.poll(&mut scratch, &mut |burst| {
                seen.extend(burst.frames().map(|frame| (frame.destination(), frame.len())));
                Taken::ALL
            });
        }
        assert!(
            seen.iter().all(|(mac, len)| mac.is_multicast() && *len >= 14) && !seen.is_empty(),
            "{seen:?}"
        );
        let mut burst = BurstScratch::default();
        let mut builder = burst.begin(0);
        let bytes = [0xffu8; 200];
        builder.push_slice(&bytes).unwrap();
        let mut scratch = EgressScratch::default();
        assert_eq!(queue.send(&mut scratch, &builder.burst(), &[0]), 1);
        assert_eq!((scratch.tally.frames, scratch.tally.bytes), (1, 200));
        let received = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(received.lines().any(|line| line.contains("t0:") && line.contains(" 200 ")), "{received}");
    });
}

#[test]
fn frames_that_are_held_are_lent_again_before_others() {
    in_namespace(|| {
        let queue = queue_of(Device::open(Some("t0"), false, VnetHeader::IfSupported).unwrap());
        assert!(Command::new("ip").args(["link", "set", "t0", "up"]).status().expect("iproute2").success());
        let (mut scratch, mut held) = (IngressScratch::default(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(10);
        while held.is_empty() && Instant::now() < deadline {
            queue.disarm();
            let gone = queue.poll(&mut scratch, &mut |burst| {
                held.extend(burst.frames().map(|frame| frame.header().to_vec()));
                Taken(0)
            });
            assert_eq!(gone, 0);
        }
        assert_eq!(queue.arm(), Arming::Work);
        let mut again = Vec::new();
        let gone = queue.poll(&mut scratch, &mut |burst| {
            again.extend(burst.frames().map(|frame| frame.header().to_vec()));
            Taken::ALL
        });
        assert_eq!((&again, gone), (&held, held.len()));
        while queue.poll(&mut scratch, &mut |_| Taken::ALL) > 0 {}
        assert_eq!(queue.arm(), Arming::Quiet);
    });
}

const NEAR: &str = "02:00:00:00:00:01";
const FAR: &str = "02:00:00:00:00:02";
const SIZE: usize = 1000;
const PAYLOAD: usize = 4500;

/// A tap whose interface has the addresses 10.0.0.1 and fd00::1, and knows 10.0.0.2 and fd00::2.
fn tap_with_addresses(header: VnetHeader) -> TapQueue {
    let device = Device::open(Some("t0"), false, header).unwrap();
    for arguments in [
        &format!("link set t0 address {NEAR} up"),
        "addr add 10.0.0.1/24 dev t0",
        "addr add fd00::1/64 dev t0 nodad",
        &format!("neigh add 10.0.0.2 lladdr {FAR} dev t0"),
        &format!("neigh add fd00::2 lladdr {FAR} dev t0"),
    ] {
        assert!(Command::new("ip").args(arguments.split(' ')).status().expect("iproute2").success());
    }
    queue_of(device)
}

fn payload() -> Vec<u8> {
    (0..PAYLOAD).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A UDP packet from 10.0.0.2 or fd00::2, whose checksum is partial, and the net header that asks for segments, or for
/// the checksum alone.
fn asking(v6: bool, cut: bool) -> (Vec<u8>, [u8; NET_HEADER_LEN]) {
    let payload = &payload()[..if cut { PAYLOAD } else { SIZE }];
    let udp_len = 8 + payload.len() as u16;
    let [high, low] = udp_len.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let addresses;
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, 17, 64]);
        addresses =
            [2u8, 1].map(|last| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).octets());
        frame.extend(addresses.as_flattened());
    } else {
        let [total_high, total_low] = (20 + udp_len).to_be_bytes();
        frame.extend([8, 0, 0x45, 0, total_high, total_low, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 2, 10, 0, 0, 1]);
        let sum = Sum::of(&frame[14..34]).folded();
        frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    }
    let start = frame.len();
    let mut pseudo = Sum::of(&frame[start - if v6 { 32 } else { 8 }..]);
    pseudo += Sum::of(&[0, 17, high, low]);
    frame.extend([0x23, 0x29, 0x23, 0x28, high, low]);
    frame.extend(pseudo.folded().to_be_bytes());
    frame.extend(payload);
    let [size_low, size_high] = (SIZE as u16).to_le_bytes();
    let (gso_type, size) = if cut { (5, [size_low, size_high]) } else { (0, [0, 0]) };
    (frame, [1, gso_type, 0, 0, size[0], size[1], start as u8, 0, 6, 0])
}

#[test]
fn kernel_gets_datagrams_whatever_its_tap_takes() {
    for header in [VnetHeader::IfSupported, VnetHeader::Off] {
        in_namespace(move || {
            let queue = tap_with_addresses(header);
            let whole = queue.device().offloads().has(Offloads::USO4.with(Offloads::USO6));
            for v6 in [false, true] {
                let near = if v6 { "[fd00::1]:9000" } else { "10.0.0.1:9000" };
                let socket = UdpSocket::bind(near).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                for cut in [false, true] {
                    let (frame, net) = asking(v6, cut);
                    let expected = &payload()[..if cut { PAYLOAD } else { SIZE }];
                    let deadline = Instant::now() + Duration::from_secs(10);
                    let mut received = Vec::new();
                    // The queue into a kernel's protocols is shared by all namespaces, and a busy machine's may be full.
                    while received.len() < expected.len() && Instant::now() < deadline {
                        let tally = send_asking(&queue, &frame, &net);
                        assert_eq!((tally.frames, tally.bytes), (1, frame.len() as u64));
                        let segments = if cut && !whole { PAYLOAD.div_ceil(SIZE) } else { 0 };
                        assert_eq!(tally.segments, segments as u64);
                        received = datagrams(&socket, expected.len());
                    }
                    assert_eq!(received, expected, "v6 {v6}, cut {cut}, {header:?}");
                }
            }
        });
    }
}

fn send_asking(queue: &TapQueue, frame: &[u8], net: &[u8; NET_HEADER_LEN]) -> Tally {
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    builder.push_asking(net, frame, Offloads::ALL).unwrap();
    let mut scratch = EgressScratch::default();
    assert_eq!(queue.send(&mut scratch, &builder.burst(), &[0]), 1);
    scratch.tally
}

/// Datagrams of at most [`SIZE`] bytes, one behind the other, until they have `len` bytes or no more come.
fn datagrams(socket: &UdpSocket, len: usize) -> Vec<u8> {
    let (mut received, mut datagram) = (Vec::new(), [0; 2 * SIZE]);
    while received.len() < len
        && let Ok(here) = socket.recv(&mut datagram)
    {
        assert!(here <= SIZE, "{here} bytes");
        received.extend(&datagram[..here]);
    }
    received
}

#[test]
fn datagrams_of_a_burst_arrive_each_and_pass_the_stack_once() {
    const COUNT: usize = 40;
    for header in [VnetHeader::IfSupported, VnetHeader::Off] {
        in_namespace(move || {
            let queue = tap_with_addresses(header);
            let offloads = queue.device().offloads();
            for (v6, near) in [(false, "10.0.0.1:9000"), (true, "[fd00::1]:9000")] {
                let socket = UdpSocket::bind(near).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let (frame, net) = asking(v6, false);
                let mut burst = BurstScratch::default();
                let mut builder = burst.begin(0);
                (0..COUNT).for_each(|_| builder.push_asking(&net, &frame, Offloads::ALL).unwrap());
                let picks: Vec<u8> = (0..COUNT as u8).collect();
                let (mut scratch, before) = (EgressScratch::default(), packets_received());
                assert_eq!(queue.send(&mut scratch, &builder.burst(), &picks), COUNT);
                let tally = scratch.tally;
                let sent = (tally.frames, tally.bytes, tally.segments);
                assert_eq!(sent, (COUNT as u64, (COUNT * frame.len()) as u64, 0));
                let whole = offloads.has(if v6 { Offloads::USO6 } else { Offloads::USO4 });
                assert_eq!(packets_received() - before, if whole { 1 } else { COUNT as u64 }, "v6 {v6}");
                for _ in 0..COUNT {
                    let mut datagram = [0; 2 * SIZE];
                    let len = socket.recv(&mut datagram).unwrap();
                    assert_eq!(&datagram[..len], &payload()[..SIZE], "v6 {v6}, {header:?}");
                }
                socket.set_nonblocking(true).unwrap();
                assert!(socket.recv(&mut [0; SIZE]).is_err(), "no more than were sent");
            }
        });
    }
}

/// Of the interface, in this thread's namespace.
fn packets_received() -> u64 {
    let report = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = report.lines().find(|line| line.trim_start().starts_with("t0:")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn kernel_leaves_to_us_what_its_tap_has_and_nothing_else() {
    for header in [VnetHeader::IfSupported, VnetHeader::Off] {
        in_namespace(move || {
            let queue = tap_with_addresses(header);
            for v6 in [false, true] {
                let (near, far) = if v6 {
                    ("[fd00::1]:9001", "[fd00::2]:9000")
                } else {
                    ("10.0.0.1:9001", "10.0.0.2:9000")
                };
                let socket = UdpSocket::bind(near).unwrap();
                segment_by(&socket, SIZE as libc::c_int);
                socket.send_to(&payload(), far).unwrap();
                let (asking, received) = udp_frames(&queue);
                let has = queue.device().offloads().has(if v6 { Offloads::USO6 } else { Offloads::USO4 });
                assert_eq!(asking, if has { vec![Some(SIZE as u16)] } else { vec![None; 5] }, "v6 {v6}");
                assert_eq!(received, payload());
            }
        });
    }
}

/// UDP_SEGMENT: the kernel cuts what is sent, as late as it can.
fn segment_by(socket: &UdpSocket, size: libc::c_int) {
    option::set(socket, option::UDP_SEGMENT, size).unwrap();
}

/// What each UDP frame asks to be cut into, and the payloads one behind the other; until all of it is there.
fn udp_frames(queue: &TapQueue) -> (Vec<Option<u16>>, Vec<u8>) {
    let (mut asking, mut received) = (Vec::new(), Vec::new());
    let mut scratch = IngressScratch::default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while received.len() < PAYLOAD && Instant::now() < deadline {
        queue.disarm();
        queue.poll(&mut scratch, &mut |burst| {
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes).unwrap();
                let start = match bytes[12..14] {
                    [0x08, 0x00] if bytes[23] == 17 => 34,
                    [0x86, 0xdd] if bytes[20] == 17 => 54,
                    _ => continue,
                };
                asking.push(frame.offload().and_then(|offload| offload.segmentation()).map(|cut| cut.size));
                received.extend(&bytes[start + 8..]);
            }
            Taken::ALL
        });
    }
    assert_eq!(scratch.tally.dropped(), 0);
    (asking, received)
}

#[test]
fn s06_descriptors_with_different_headers_are_refused_together() {
    in_namespace(|| {
        let fd = |name, header| {
            let device = Device::open(Some(name), false, header).unwrap();
            device.as_fd().try_clone_to_owned().unwrap()
        };
        let fds = vec![fd("t0", VnetHeader::Required), fd("t1", VnetHeader::Off)];
        let options = TapOptions { source: TapSource::Fds(fds), ..named("") };
        assert_eq!(open_error(options), "vnet_hdr not consistent across given tap fds");
    });
}

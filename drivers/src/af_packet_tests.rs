//! Ports on veths of this kernel. They need CAP_NET_ADMIN and CAP_NET_RAW.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BurstScratch, Taken};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offloads, Segments};
use ringyard_dataplane::port::{Arming, EgressScratch, IngressEnd, IngressScratch, Tally};

use super::*;
use crate::sys::option;
use crate::testing::in_namespace;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Two interfaces that are joined, both up, without IPv6 so that nobody speaks unasked.
fn veths() {
    for name in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").expect("procfs");
    }
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
}

fn options(ifname: &str) -> AfPacketOptions {
    AfPacketOptions {
        ifname: ifname.into(),
        queues: 1,
        fanout: Fanout::Hash,
        promiscuous: true,
        offloads: true,
    }
}

fn open(ifname: &str) -> AfPacketPort {
    AfPacketPort::open(options(ifname)).unwrap()
}

fn open_with(ifname: &str, offloads: bool) -> AfPacketPort {
    AfPacketPort::open(AfPacketOptions { offloads, ..options(ifname) }).unwrap()
}

/// What a port lends until `count` frames have come: each as a receiver without offloads gets it.
fn receive(port: &AfPacketPort, count: usize) -> (Vec<Vec<u8>>, Tally) {
    let mut scratch = IngressScratch::default();
    let mut frames = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while frames.len() < count && Instant::now() < deadline {
        for end in port.attachment().ingress {
            end.ingress.poll(&mut scratch, &mut |burst| {
                burst.frames().for_each(|frame| frames.extend(finished(&frame)));
                Taken::ALL
            });
        }
    }
    assert_eq!(frames.len(), count, "dropped: {:?}", scratch.tally.drops);
    (frames, scratch.tally)
}

fn finished(frame: &ringyard_dataplane::frame::Frame<'_>) -> Vec<Vec<u8>> {
    let Some(mut segments) = Segments::of(frame) else {
        let mut whole = vec![0; frame.len()];
        frame.copy_to(&mut whole).unwrap();
        return vec![whole];
    };
    let mut frames = Vec::new();
    while let Some(payload) = segments.next_payload() {
        let mut bytes = vec![0; payload.len()];
        let sum = payload.copy_to(&mut bytes).unwrap();
        frames.push([segments.header(sum), &bytes].concat());
    }
    frames
}

fn send(port: &AfPacketPort, net: &[u8; NET_HEADER_LEN], frames: &[Vec<u8>]) -> (usize, Tally) {
    let mut burst = BurstScratch::default();
    let mut builder = burst.begin(0);
    frames.iter().for_each(|frame| builder.push_asking(net, frame, Offloads::ALL).unwrap());
    let picks: Vec<u8> = (0..frames.len() as u8).collect();
    let mut scratch = EgressScratch::default();
    let settled = port.attachment().egress[0].send(&mut scratch, &builder.burst(), &picks);
    (settled, scratch.tally)
}

const PLAIN: [u8; NET_HEADER_LEN] = [0; NET_HEADER_LEN];

fn frame(number: usize, kind: &[u8], len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind);
    frame.extend((number as u32).to_be_bytes());
    frame.extend((frame.len()..len).map(|at| at as u8));
    frame
}

#[test]
fn errors_name_the_interface_and_what_failed() {
    in_namespace(|| {
        let error = |options| AfPacketPort::open(options).err().expect("an error").to_string();
        assert_eq!(error(options("nobody")), "could not find the interface nobody: No such device");
        let queues = AfPacketOptions { queues: 257, ..options("lo") };
        assert_eq!(error(queues), "af-packet number of queues must be in range [1, 256]");
    });
}

#[test]
fn frames_of_all_lengths_and_tags_pass_both_ways_as_they_are() {
    for offloads in [true, false] {
        in_namespace(move || {
            veths();
            ip("link set v0 mtu 9000");
            ip("link set v1 mtu 9000");
            let (left, right) = (open_with("v0", offloads), open_with("v1", offloads));
            let kinds: [&[u8]; 6] = [
                &[0x88, 0xb5],
                &[0x81, 0x00, 0x6a, 0xbc, 0x88, 0xb5],
                &[0x88, 0xa8, 0x20, 0x05, 0x88, 0xb5],
                &[0x81, 0x00, 0x00, 0x05, 0x81, 0x00, 0x00, 0x07, 0x88, 0xb5],
                &[0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x60, 0x07, 0x08, 0x06],
                &[0x88, 0xa8, 0x00, 0x05, 0x88, 0xa8, 0x60, 0x07, 0x08, 0x00],
            ];
            for (from, to) in [(&left, &right), (&right, &left)] {
                for kind in kinds {
                    let lens = [60, 64, 65, 300, 1514, 1518, 1900, 2100, 9014];
                    let frames: Vec<_> =
                        lens.iter().enumerate().map(|(number, &len)| frame(number, kind, len)).collect();
                    let (settled, tally) = send(from, &PLAIN, &frames);
                    assert_eq!((settled, tally.frames, tally.dropped()), (lens.len(), 9, 0));
                    assert_eq!(receive(to, lens.len()).0, frames, "{kind:x?}");
                }
            }
            // Neither heard what it sent itself.
            for port in [&left, &right] {
                let mut scratch = IngressScratch::default();
                let gone = port.attachment().ingress[0].ingress.poll(&mut scratch, &mut |_| Taken::ALL);
                assert_eq!(gone, 0);
            }
        });
    }
}

#[test]
fn frame_longer_than_the_mtu_is_too_long_and_keeps_no_other_back() {
    in_namespace(|| {
        veths();
        let (left, right) = (open("v0"), open("v1"));
        let kind = [0x88, 0xb5];
        let frames =
            [frame(0, &kind, 100), frame(1, &kind, 1519), frame(2, &kind, 65_000), frame(3, &kind, 1514)];
        let (settled, tally) = send(&left, &PLAIN, &frames);
        assert_eq!((settled, tally.frames), (4, 2));
        assert_eq!(tally.drops[DropReason::TooLong as usize], 2);
        assert_eq!(receive(&right, 2).0, [frames[0].clone(), frames[3].clone()]);
        ip("link set v0 mtu 1000");
        let (settled, tally) = send(&left, &PLAIN, &frames);
        assert_eq!((settled, tally.frames, tally.drops[DropReason::TooLong as usize]), (4, 1, 3));
    });
}

#[test]
fn unsettled_frames_are_lent_again_in_order_before_others() {
    in_namespace(|| {
        veths();
        let (left, right) = (open("v0"), open("v1"));
        let frames: Vec<_> = (0..40).map(|number| frame(number, &[0x88, 0xb5], 100)).collect();
        send(&left, &PLAIN, &frames[..20]);
        let end: Arc<IngressEnd> = right.attachment().ingress[0].clone();
        let mut scratch = IngressScratch::default();
        let mut poll = |taken: u64| {
            let mut lent = Vec::new();
            let gone = end.ingress.poll(&mut scratch, &mut |burst| {
                lent.extend(burst.frames().map(|frame| frame.header()[17]));
                Taken(taken)
            });
            (lent, gone)
        };
        assert_eq!(poll(0b101), ((0..20).collect(), 2));
        send(&left, &PLAIN, &frames[20..]);
        assert_eq!(end.doorbell.arm(), Arming::Work);
        let rest: Vec<u8> = [1].into_iter().chain(3..20).collect();
        assert_eq!(poll(0), (rest.clone(), 0));
        assert_eq!(poll(u64::MAX), (rest, 18));
        assert_eq!(poll(u64::MAX), ((20..40).collect(), 20));
        assert_eq!(end.doorbell.arm(), Arming::Quiet);
    });
}

#[test]
fn frames_that_the_ring_had_no_room_for_are_counted() {
    in_namespace(|| {
        veths();
        let (left, right) = (open("v0"), open("v1"));
        let slots = ring::RING_LEN / 2048;
        let sent = slots + 1000;
        let mut number = 0;
        while number < sent {
            let burst: Vec<_> = (0..50).map(|at| frame(number + at, &[0x88, 0xb5], 60)).collect();
            let (settled, _) = send(&left, &PLAIN, &burst);
            number += settled;
        }
        let (frames, _) = receive(&right, slots);
        assert_eq!(frames[slots - 1], frame(slots - 1, &[0x88, 0xb5], 60));
        // The next one that comes says that there were losses.
        send(&left, &PLAIN, &[frame(7, &[0x88, 0xb5], 60)]);
        let (_, tally) = receive(&right, 1);
        let dropped = tally.drops[DropReason::NoRoom as usize] as usize;
        assert_eq!(dropped, number - slots);
        send(&left, &PLAIN, &[frame(7, &[0x88, 0xb5], 60)]);
        assert_eq!(receive(&right, 1).1.dropped(), 0, "counted once");
    });
}

/// A kernel that sends UDP over `v1` to somebody behind `v0`.
fn sender() -> UdpSocket {
    veths();
    ip("addr add 10.0.0.1/24 dev v1");
    ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v1");
    let socket = UdpSocket::bind("10.0.0.1:9001").unwrap();
    socket.connect("10.0.0.2:9000").unwrap();
    socket
}

/// What a UDP packet over IPv4 carries, if its checksums are right.
fn payload_of(frame: &[u8]) -> Vec<u8> {
    use ringyard_dataplane::offload::Sum;
    assert_eq!(frame[12..14], [8, 0]);
    assert_eq!(Sum::of(&frame[14..34]).folded(), 0xffff);
    let udp_len = u16::from_be_bytes([frame[38], frame[39]]);
    assert_eq!(usize::from(udp_len), frame.len() - 34);
    let mut sum = Sum::of(&frame[26..34]);
    sum += Sum::of(&[0, 17]);
    sum += Sum::of_word(udp_len);
    sum += Sum::of(&frame[34..]);
    assert_eq!(sum.folded(), 0xffff, "the UDP checksum");
    frame[42..].to_vec()
}

#[test]
fn checksum_that_the_kernel_left_open_is_completed() {
    for offloads in [true, false] {
        in_namespace(move || {
            let socket = sender();
            let port = open_with("v0", offloads);
            for len in [1, 100, 999, 1472] {
                let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
                socket.send(&payload).unwrap();
                let (frames, tally) = receive(&port, 1);
                assert_eq!((payload_of(&frames[0]), tally.dropped()), (payload, 0));
            }
        });
    }
}

/// UDP_SEGMENT: the kernel cuts what is sent, as late as it can.
fn segment_by(socket: &UdpSocket, size: libc::c_int) {
    option::set(socket, option::UDP_SEGMENT, size).unwrap();
}

#[test]
fn segments_that_are_longer_than_a_slot_come_whole_and_in_order() {
    in_namespace(|| {
        let socket = sender();
        let port = open("v0");
        let payload: Vec<u8> = (0..60_000u32).map(|at| (at * 7 + at / 251) as u8).collect();
        socket.send(b"before").unwrap();
        segment_by(&socket, 1400);
        for _ in 0..5 {
            socket.send(&payload).unwrap();
        }
        segment_by(&socket, 0);
        socket.send(b"behind").unwrap();
        let cuts = payload.len().div_ceil(1400);
        let (frames, tally) = receive(&port, 2 + 5 * cuts);
        assert_eq!(tally.dropped(), 0);
        let got: Vec<Vec<u8>> = frames.iter().map(|frame| payload_of(frame)).collect();
        assert_eq!((&got[0][..], &got[1 + 5 * cuts][..]), (&b"before"[..], &b"behind"[..]));
        assert_eq!(got[1..=5 * cuts].concat(), payload.repeat(5));
    });
}

#[test]
fn long_frame_from_before_its_interface_went_down_is_read_behind_the_error() {
    in_namespace(|| {
        let socket = sender();
        let port = open("v0");
        segment_by(&socket, 1400);
        for byte in 1..3 {
            socket.send(&[byte; 2800]).unwrap();
        }
        ip("link set v0 down");
        let (frames, tally) = receive(&port, 4);
        assert_eq!(tally.dropped(), 0);
        let got: Vec<_> = frames.iter().map(|frame| payload_of(frame)).collect();
        assert_eq!(got, [[1; 1400], [1; 1400], [2; 1400], [2; 1400]]);
    });
}

/// A UDP packet of `len` bytes of payload to 10.0.0.1:9001, and a net header that asks for segments of 1000 bytes.
fn datagrams(len: usize, tags: &[u8]) -> (Vec<u8>, [u8; NET_HEADER_LEN]) {
    use ringyard_dataplane::offload::Sum;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    ip[2..4].copy_from_slice(&(28 + len as u16).to_be_bytes());
    let sum = Sum::of(&ip).folded();
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let udp_len = (8 + len as u16).to_be_bytes();
    let mut pseudo = Sum::of(&ip[12..20]);
    pseudo += Sum::of(&[0, 17, udp_len[0], udp_len[1]]);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(tags);
    frame.extend([8, 0]);
    frame.extend(&ip);
    let start = frame.len() as u8;
    frame.extend([0x23, 0x28, 0x23, 0x29, udp_len[0], udp_len[1]]);
    frame.extend(pseudo.folded().to_be_bytes());
    frame.extend((0..len).map(|at| (at * 7 + at / 251) as u8));
    (frame, [1, 5, 0, 0, 0xe8, 3, start, 0, 6, 0])
}

#[test]
fn kernel_gets_datagrams_whatever_its_interface_takes() {
    for (offloads, off) in [(true, false), (true, true), (false, false)] {
        in_namespace(move || {
            veths();
            ip("link set v1 address 02:00:00:00:00:01");
            ip("addr add 10.0.0.1/24 dev v1");
            if off {
                let mut ethtool = Command::new("ethtool");
                ethtool.args(["-K", "v0", "tx-udp-segmentation", "off"]);
                assert!(ethtool.status().expect("ethtool").success());
            }
            let port = open_with("v0", offloads);
            let socket = UdpSocket::bind("10.0.0.1:9001").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (frame, net) = datagrams(4500, &[]);
            let (settled, tally) = send(&port, &net, std::slice::from_ref(&frame));
            let segments = if !offloads || off { 5 } else { 0 };
            assert_eq!((settled, tally.frames, tally.segments), (1, 1, segments), "{:?}", tally.drops);
            let mut received: Vec<u8> = Vec::new();
            while received.len() < 4500 {
                let mut datagram = [0; 2000];
                let len = socket.recv(&mut datagram).unwrap();
                assert!(len <= 1000);
                received.extend(&datagram[..len]);
            }
            assert_eq!(received, frame[42..]);
        });
    }
}

#[test]
fn segments_behind_two_tags_are_cut_by_us() {
    in_namespace(|| {
        veths();
        let (left, right) = (open("v0"), open("v1"));
        let two = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 7];
        for (tags, cut) in [(&two[4..], 0), (&two[..], 5)] {
            let (frame, net) = datagrams(4500, tags);
            let (_, tally) = send(&left, &net, std::slice::from_ref(&frame));
            assert_eq!((tally.frames, tally.segments), (1, cut), "{:?}", tally.drops);
            let (frames, _) = receive(&right, 5);
            let head = 42 + tags.len();
            let payload: Vec<u8> = frames.iter().flat_map(|frame| frame[head..].to_vec()).collect();
            assert_eq!(payload, frame[head..]);
            assert!(frames.iter().all(|frame| frame[12..12 + tags.len()] == *tags));
        }
    });
}

#[test]
fn queues_of_a_group_share_the_frames_each_of_which_comes_once() {
    for fanout in [
        Fanout::Hash,
        Fanout::LoadBalance,
        Fanout::Cpu,
        Fanout::Rollover,
        Fanout::Random,
        Fanout::QueueMapping,
    ] {
        in_namespace(move || {
            veths();
            let left = open("v0");
            let right = AfPacketPort::open(AfPacketOptions { queues: 3, fanout, ..options("v1") }).unwrap();
            assert_eq!(right.attachment().ingress.len(), 3);
            let frames: Vec<_> = (0..60).map(|number| frame(number, &[0x88, 0xb5], 60)).collect();
            send(&left, &PLAIN, &frames);
            let (mut received, _) = receive(&right, 60);
            received.sort();
            assert_eq!(received, frames, "{fanout:?}");
            // What a queue sends none of them hears.
            send(&right, &PLAIN, &frames);
            assert_eq!(receive(&left, 60).0, frames);
            let mut scratch = IngressScratch::default();
            for end in right.attachment().ingress {
                assert_eq!(end.ingress.poll(&mut scratch, &mut |_| Taken::ALL), 0);
            }
        });
    }
}

#[test]
fn interface_that_goes_raises_the_alarm_and_frames_are_io_errors() {
    for away in ["link set v0 down", "link del v0"] {
        in_namespace(move || {
            veths();
            let alarm = Arc::new(Alarm::new().unwrap());
            let (_life, attachment) =
                Life::begin(options("v0"), Links::open().unwrap(), alarm.clone()).unwrap();
            let end = &attachment.ingress[0];
            assert_eq!(end.doorbell.arm(), Arming::Quiet);
            ip(away);
            end.doorbell.disarm();
            assert_eq!(end.ingress.poll(&mut IngressScratch::default(), &mut |_| Taken::ALL), 0);
            assert_eq!((end.doorbell.arm(), alarm.is_raised()), (Arming::Dead, true));
            alarm.clear();
            let mut burst = BurstScratch::default();
            let mut builder = burst.begin(0);
            let bytes = frame(0, &[0x88, 0xb5], 60);
            builder.push_slice(&bytes).unwrap();
            builder.push_slice(&bytes).unwrap();
            let mut scratch = EgressScratch::default();
            assert_eq!(attachment.egress[0].send(&mut scratch, &builder.burst(), &[0, 1]), 2);
            assert_eq!(scratch.tally.drops[DropReason::IoError as usize], 2);
            assert!(alarm.is_raised());
        });
    }
}

#[test]
fn interface_that_is_down_can_be_opened_and_has_no_carrier() {
    in_namespace(|| {
        veths();
        ip("link set v0 down");
        let port = open("v0");
        assert!(!port.attachment().carrier && port.attachment().ingress.is_empty());
        assert!(!open("v1").attachment().carrier, "its other side is down");
    });
}

#[test]
fn doorbell_rings_for_a_frame() {
    in_namespace(|| {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        veths();
        let (left, right) = (open("v0"), open("v1"));
        let end = right.attachment().ingress[0].clone();
        let fd = end.doorbell.fd().unwrap();
        let rings = |limit| {
            poll(
                &mut [PollFd::new(&fd.as_fd(), PollFlags::IN)],
                Some(&Timespec { tv_sec: limit, tv_nsec: 0 }),
            )
            .unwrap()
        };
        assert_eq!(rings(0), 0);
        send(&left, &PLAIN, &[frame(0, &[0x88, 0xb5], 60)]);
        assert_eq!(rings(10), 1);
        receive(&right, 1);
        assert_eq!(rings(0), 0);
    });
}

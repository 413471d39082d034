use std::process::Command;
use std::time::{Duration, Instant};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, BurstScratch, Taken};
use ringyard_dataplane::port::{Egress as _, EgressScratch, Ingress as _, IngressScratch, Tally};
use rustix::process::{Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::umem::{CHUNKS_IN, CHUNKS_OUT};
use super::*;
use crate::testing::in_namespace;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

fn options(name: &str) -> AfXdpOptions {
    AfXdpOptions {
        ifname: name.into(),
        mode: Some(Attach::Native),
        force_copy: false,
        queues: 1,
        start_queue: 0,
        source: Source::Own,
    }
}

/// Runs `test` with the two ends of a veth pair.
fn with_pair(test: impl FnOnce([Sockets; 2]) + Send + 'static) {
    in_namespace(|| {
        ip("link add v0 mtu 9000 type veth peer name v1 mtu 9000");
        ip("link set v0 up");
        ip("link set v1 up");
        let open = |name| Sockets::open(&options(name), Vec::new()).map_err(|error| error.text).unwrap();
        test([open("v0"), open("v1")]);
    });
}

/// A frame that says its number.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; len];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Offers the frames as one burst; how many are settled, and what was counted.
fn send(sockets: &Sockets, frames: &[Vec<u8>]) -> (usize, Tally) {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
    let picks: Vec<u8> = (0..frames.len() as u8).collect();
    let mut egress = EgressScratch::default();
    let settled = sockets.queues[0].send(&mut egress, &builder.burst(), &picks);
    (settled, egress.tally)
}

/// Polls once; numbers and lengths of our frames among those that were lent, and how many are gone.
fn poll(sockets: &Sockets, taken: Taken) -> (Vec<(u32, usize)>, usize) {
    let mut scratch = IngressScratch::default();
    let mut lent = Vec::new();
    let gone = sockets.queues[0].poll(&mut scratch, &mut |burst: &Burst<'_>| {
        for frame in burst.frames() {
            let header = frame.header();
            let ours = header[12..14] == [0x88, 0xb5];
            let number = u32::from_be_bytes([header[14], header[15], header[16], header[17]]);
            lent.extend(ours.then_some((number, frame.len())));
        }
        taken
    });
    (lent, gone)
}

/// Polls until `count` of our frames were lent and taken.
fn receive(sockets: &Sockets, count: usize) -> Vec<(u32, usize)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut received = Vec::new();
    while received.len() < count {
        assert!(Instant::now() < deadline, "{} of {count}", received.len());
        received.extend(poll(sockets, Taken::ALL).0);
    }
    received
}

#[test]
fn chunks_come_back_however_many_frames_pass() {
    with_pair(|[near, far]| {
        let lens = [60, 1514, 5000, 9014];
        let mut number = 0;
        for round in 0..3 * (CHUNKS_IN + CHUNKS_OUT) / 16 {
            let frames: Vec<Vec<u8>> =
                (0..16).map(|at| frame(number + at, lens[(round + at as usize) % lens.len()])).collect();
            let (settled, tally) = send(&near, &frames);
            assert_eq!((settled, tally.frames, tally.dropped()), (16, 16, 0), "round {round}");
            let expected: Vec<(u32, usize)> = (number..).zip(frames.iter().map(Vec::len)).collect();
            assert_eq!(receive(&far, 16), expected, "round {round}");
            number += 16;
        }
    });
}

#[test]
fn held_frames_are_lent_again_in_order_and_keep_their_chunks() {
    with_pair(|[near, far]| {
        let first: Vec<Vec<u8>> = (0..40).map(|number| frame(number, 5000)).collect();
        assert_eq!(send(&near, &first).0, 40);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut held = Vec::new();
        while held.is_empty() {
            assert!(Instant::now() < deadline);
            held = poll(&far, Taken(0)).0;
        }
        // As many as there are chunks, so that the kernel comes round: what is held is not overwritten.
        for round in 0..CHUNKS_IN as u32 / 32 {
            let more: Vec<Vec<u8>> = (0..32).map(|at| frame(1000 + round * 32 + at, 60)).collect();
            assert_eq!(send(&near, &more).0, 32);
        }
        assert_eq!(poll(&far, Taken(0b10)).0, held);
        held.remove(1);
        let mut rest = poll(&far, Taken::ALL).0;
        assert!(rest.starts_with(&held), "{rest:?}");
        rest.extend(receive(&far, 39 - rest.len()));
        let numbers: Vec<u32> = rest.iter().map(|(number, _)| *number).take(39).collect();
        assert_eq!(numbers, (0..40).filter(|number| *number != 1).collect::<Vec<_>>());
    });
}

#[test]
fn what_no_chunks_can_hold_is_too_long_and_what_finds_none_waits() {
    with_pair(|[near, _far]| {
        near.health.set_mtu(9000);
        let (settled, tally) = send(&near, &[frame(0, 9015), frame(1, 9014)]);
        assert_eq!((settled, tally.frames, tally.drops[DropReason::TooLong as usize]), (2, 1, 1));
        // Nobody gives the chunks back: the far end's frames stay where they are.
        let burst: Vec<Vec<u8>> = (0..BURST_FRAMES as u32).map(|number| frame(number, 60)).collect();
        let mut sent = 0;
        for _ in 0..4 * CHUNKS_OUT / BURST_FRAMES {
            let (settled, tally) = send(&near, &burst);
            assert_eq!((settled as u64, tally.dropped()), (tally.frames, 0));
            sent += settled;
        }
        assert!(sent >= CHUNKS_OUT / 2, "{sent}");
    });
}

#[test]
fn interface_that_is_down_costs_the_frames_and_wakes_the_thread() {
    with_pair(|[near, _far]| {
        ip("link set v0 down");
        let (settled, tally) = send(&near, &[frame(0, 60), frame(1, 60)]);
        assert_eq!((settled, tally.frames, tally.drops[DropReason::IoError as usize]), (2, 0, 2));
        assert!(near.health.has_failed());
        assert_eq!(send(&near, &[frame(0, 60)]).1.drops[DropReason::IoError as usize], 1);
    });
}

#[test]
fn memory_that_may_not_be_locked_is_named() {
    in_namespace(|| {
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        let mut without = capabilities(None).unwrap();
        without.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, without).unwrap();
        // Of the whole process: the others have the capability.
        setrlimit(Resource::Memlock, Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) }).unwrap();
        let error = Sockets::open(&options("v0"), Vec::new()).err().unwrap();
        let expected = "queue_id: 0: registering the memory of it: No buffer space available; it needs 16777216 \
                        bytes and RLIMIT_MEMLOCK is 1048576";
        assert!(error.text.ends_with(expected), "{}", error.text);
        assert!(!error.busy);
    });
}

#[test]
fn interface_is_free_again_when_its_port_goes() {
    in_namespace(|| {
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        let first = AfXdpPort::open(options("v0")).map_err(|error| assert_eq!(error, "")).unwrap();
        assert_eq!((first.queues(), first.info(0)), (1, "af-xdp0 to v0".into()));
        assert_eq!(first.attachment().ingress.len(), 1);
        let busy = AfXdpPort::open(options("v0")).err().unwrap();
        assert!(busy.starts_with("failed to load an XDP program on 'v0', ifindex: "), "{busy}");
        drop(first);
        assert!(AfXdpPort::open(options("v0")).is_ok());
    });
}

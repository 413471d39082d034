//! The engine over real sockets of this kernel: UDP on the loopback, and unix.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringyard_dataplane::frame::{BURST_FRAMES, BurstBuilder, BurstScratch, HEADER_LEN, Piece};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::Tally;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socketpair};

use super::*;
use crate::testing::in_namespace;

fn queue<E: Encapsulation>(
    encapsulation: E,
    socket: impl Into<OwnedFd>,
    destination: Destination,
) -> DatagramQueue<E> {
    let socket = Arc::new(socket.into());
    let alarm = Arc::new(Alarm::new().unwrap());
    DatagramQueue::new(
        encapsulation,
        DatagramOptions { receive: socket.clone(), send: socket, destination, queue: 0, alarm },
    )
}

fn connected(socket: impl Into<OwnedFd>) -> DatagramQueue<Bare> {
    queue(Bare, socket, Destination::Connected)
}

/// Two UDP sockets, connected to each other.
fn udp_pair() -> (UdpSocket, UdpSocket) {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (one, other) = (bind(), bind());
    one.connect(other.local_addr().unwrap()).unwrap();
    other.connect(one.local_addr().unwrap()).unwrap();
    (one, other)
}

/// A frame of `len` bytes with `number` in all of them.
fn frame(number: u8, len: usize) -> Vec<u8> {
    vec![number; len]
}

/// Sends `frames` as one burst; how many were settled, and the tally.
fn send<E: Encapsulation>(queue: &DatagramQueue<E>, frames: &[Vec<u8>]) -> (usize, Tally) {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    for frame in frames {
        builder.push_slice(frame).unwrap();
    }
    let picks: Vec<u8> = (0..frames.len() as u8).collect();
    let mut egress = EgressScratch::default();
    (queue.send(&mut egress, &builder.burst(), &picks), egress.tally)
}

/// One poll: the frames that were lent, how many are gone, and the tally.
fn poll_once<E: Encapsulation>(queue: &DatagramQueue<E>, taken: Taken) -> (Vec<Vec<u8>>, usize, Tally) {
    let mut scratch = IngressScratch::default();
    let mut lent = Vec::new();
    let gone = queue.poll(&mut scratch, &mut |burst| {
        for frame in burst.frames() {
            let mut bytes = vec![0; frame.len()];
            frame.copy_to(&mut bytes).unwrap();
            lent.push(bytes);
        }
        taken
    });
    (lent, gone, scratch.tally)
}

/// Rings the bell and polls until `count` datagrams came and no more do: all frames, and all tallies together.
fn drain<E: Encapsulation>(queue: &DatagramQueue<E>, count: usize) -> (Vec<Vec<u8>>, Tally) {
    let (mut frames, mut sum) = (Vec::new(), Tally::default());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let enough = frames.len() + sum.dropped() as usize >= count;
        assert!(enough || Instant::now() < deadline, "{} frames, {sum:?}", frames.len());
        queue.disarm();
        let (lent, gone, tally) = poll_once(queue, Taken::ALL);
        frames.extend(lent);
        (0..DropReason::COUNT).for_each(|reason| sum.drops[reason] += tally.drops[reason]);
        if gone == 0 && queue.arm() != Arming::Work && enough {
            return (frames, sum);
        }
    }
}

/// Lengths that fit together in one message and lengths that do not.
fn mixed_frames() -> Vec<Vec<u8>> {
    let lens = [60, 60, 60, 59, 60, 1500, 1500, 14, 1514, 9000, 9000, 65_000, 65_507, 60, 61, 62, 62];
    (0..).zip(lens).map(|(number, len)| frame(number, len)).collect()
}

#[test]
fn frames_of_any_length_pass_in_order_between_two_queues() {
    let (one, other) = udp_pair();
    let (from, to) = (connected(one), connected(other));
    let (unix_from, unix_to) = UnixDatagram::pair().unwrap();
    let (unix_from, unix_to) = (connected(unix_from), connected(unix_to));
    for _ in 0..3 {
        let frames = mixed_frames();
        let (settled, tally) = send(&from, &frames);
        assert_eq!((settled, tally.frames), (frames.len(), frames.len() as u64));
        assert_eq!(tally.bytes, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!(drain(&to, frames.len()), (frames, Tally::default()));
        for frame in mixed_frames() {
            assert_eq!(send(&unix_from, std::slice::from_ref(&frame)).0, 1);
            assert_eq!(drain(&unix_to, 1), (vec![frame], Tally::default()));
        }
    }
}

#[test]
fn peer_that_knows_nothing_of_trains_gets_a_frame_a_datagram() {
    let (one, peer) = udp_pair();
    let queue = connected(one);
    let frames: Vec<_> = (0..64).map(|number| frame(number, if number < 60 { 64 } else { 63 })).collect();
    assert_eq!(send(&queue, &frames).0, 64);
    let mut bytes = [0; 100];
    for frame in &frames {
        let len = peer.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], &frame[..]);
    }
}

#[test]
fn held_frames_come_again_first_and_in_order() {
    let (one, other) = udp_pair();
    let (from, to) = (connected(one), connected(other));
    // More than one burst in one datagram of the kernel's, twice.
    let frames = |numbers: std::ops::Range<u8>| numbers.map(|number| frame(number, 60)).collect::<Vec<_>>();
    assert_eq!(send(&from, &frames(0..64)).0, 64);
    assert_eq!(send(&from, &frames(64..128)).0, 64);
    wait_readable(&to);
    let (lent, gone, _) = poll_once(&to, Taken(0));
    assert_eq!((lent.as_slice(), gone), (&frames(0..64)[..], 0));
    let left = to.left();
    assert!([64, 128].contains(&left), "{left}");
    let (lent, gone, _) = poll_once(&to, Taken(!0b10));
    assert_eq!((lent.len(), gone), (64, 63));
    assert_eq!(to.left(), left - 63);
    assert_eq!(to.arm(), Arming::Work);
    let (lent, gone, _) = poll_once(&to, Taken(0));
    assert_eq!((lent[0][0], gone), (1, 0));
    assert_eq!(drain(&to, 65).0, [frames(1..2), frames(64..128)].concat());
    assert_eq!((to.arm(), to.left()), (Arming::Quiet, 0));
}

#[test]
fn what_came_together_is_lent_together() {
    let (one, other) = udp_pair();
    let (from, to) = (connected(one), connected(other));
    let frames = |count| (0..count).map(|number| frame(number, 100)).collect::<Vec<_>>();
    for count in [40, 40, 24, 24, 16] {
        assert_eq!(send(&from, &frames(count)).0, usize::from(count));
    }
    let (mut lent, deadline) = (0, Instant::now() + Duration::from_secs(10));
    while lent < 144 {
        assert!(Instant::now() < deadline);
        to.disarm();
        lent += poll_once(&to, Taken::ALL).0.len();
        // Whether all five come in one read or not, none is torn.
        assert!([0, 40, 80, 104, 128, 144].contains(&lent), "{lent}");
    }
}

/// Waits until something came, and has it read at the next poll.
fn wait_readable<E: Encapsulation>(queue: &DatagramQueue<E>) {
    let mut fds = [PollFd::from_borrowed_fd(queue.fd().unwrap(), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })), Ok(1));
    queue.disarm();
}

#[test]
fn what_is_no_frame_is_counted_and_the_rest_goes_on() {
    let (peer, socket) = UnixDatagram::pair().unwrap();
    let queue = connected(socket);
    for len in [0, 13, 60, 80_000, 0, 61, 65_557, 65_558] {
        assert_eq!(peer.send(&frame(7, len)).unwrap(), len);
        let (frames, tally) = drain(&queue, 1);
        let drop = match len {
            0..14 => Some(DropReason::Runt),
            65_558.. => Some(DropReason::TooLong),
            _ => None,
        };
        assert_eq!(frames.len(), usize::from(drop.is_none()), "{len}");
        assert_eq!(tally.dropped(), u64::from(drop.is_some()), "{len}");
        assert_eq!(drop.map_or(1, |reason| tally.drops[reason as usize]), 1, "{len}");
    }
}

#[test]
fn burst_of_nothing_but_empty_datagrams_is_work_like_any_other() {
    let (peer, socket) = udp_pair();
    let queue = connected(socket);
    for _ in 0..200 {
        peer.send(&[]).unwrap();
    }
    peer.send(&frame(7, 60)).unwrap();
    let (frames, tally) = drain(&queue, 201);
    assert_eq!((frames.len(), tally.drops[DropReason::Runt as usize]), (1, 200));
    assert!(!queue.alarm.is_raised());
}

#[test]
fn full_receiver_leaves_the_rest_unsettled() {
    let (one, other) = UnixDatagram::pair().unwrap();
    let (from, to) = (connected(one), connected(other));
    let frames: Vec<_> = (0..64).map(|number| frame(number, 65_000)).collect();
    let (settled, tally) = send(&from, &frames[..2]);
    assert_eq!((settled, tally.dropped()), (2, 0));
    let (settled, tally) = send(&from, &frames[2..]);
    assert!(settled < 62, "a socket's buffer has no room for 4 MB");
    assert_eq!((tally.frames, tally.dropped()), (settled as u64, 0));
    let (received, _) = drain(&to, 2 + settled);
    assert_eq!(received, frames[..2 + settled]);
    assert_eq!(send(&from, &frames[2 + settled..][..1]).0, 1, "there is room again");
}

#[test]
fn refused_datagrams_are_drops_until_somebody_listens() {
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    drop(listener);
    let queue = connected(socket);
    let frames: Vec<_> = (0..64).map(|number| frame(number, 60 + usize::from(number))).collect();
    for _ in 0..5 {
        let (settled, tally) = send(&queue, &frames);
        assert_eq!((settled, tally.frames + tally.dropped()), (64, 64));
        assert_eq!(tally.dropped(), tally.drops[DropReason::IoError as usize]);
        assert_eq!(drain(&queue, 0), (vec![], Tally::default()), "an ICMP message is no frame and no end");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let peer = loop {
        match UdpSocket::bind(address) {
            Ok(peer) => break peer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    // One pending error is eaten.
    let (settled, tally) = send(&queue, &frames);
    assert_eq!((settled, tally.frames), (64, 64));
    assert_eq!(peer.recv(&mut [0; 2000]).unwrap(), 60);
    assert!(!queue.alarm.is_raised());
}

#[test]
fn absent_unix_peer_is_a_drop_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let destination = Destination::Fixed(SocketAddrUnix::new(&path).unwrap().into());
    let queue = queue(Bare, UnixDatagram::unbound().unwrap(), destination);
    for _ in 0..2 {
        let (settled, tally) = send(&queue, &mixed_frames());
        assert_eq!(settled as u64, tally.drops[DropReason::IoError as usize]);
        let peer = UnixDatagram::bind(&path).unwrap();
        assert_eq!(send(&queue, &[frame(1, 60)]).1.frames, 1);
        assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(!queue.alarm.is_raised());
}

#[test]
fn first_source_is_answered_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, first, second] = ["ours", "first", "second"].map(|name| dir.path().join(name));
    let queue = queue(Bare, UnixDatagram::bind(&ours).unwrap(), Destination::FirstSource);
    let not_ready = |tally: Tally| tally.drops[DropReason::NotReady as usize];
    assert_eq!(not_ready(send(&queue, &[frame(0, 60)]).1), 1);
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(&frame(1, 60), &ours).unwrap();
    assert_eq!(drain(&queue, 1).0.len(), 1, "frames of a nameless sender are taken");
    assert_eq!(not_ready(send(&queue, &[frame(0, 60)]).1), 1, "but cannot be answered");
    let peer = UnixDatagram::bind(&first).unwrap();
    let other = UnixDatagram::bind(&second).unwrap();
    peer.send_to(b"VFKT", &ours).unwrap();
    other.send_to(&frame(2, 60), &ours).unwrap();
    assert_eq!(drain(&queue, 2).0.len(), 1);
    assert_eq!(send(&queue, &[frame(3, 60)]).1.frames, 1);
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 60);
    other.set_nonblocking(true).unwrap();
    assert!(other.recv(&mut [0; 100]).is_err(), "while the first is there it is nobody else's");
    drop(peer);
    let deadline = Instant::now() + Duration::from_secs(10);
    // A child that another test is starting may have its descriptor for a moment.
    while send(&queue, &[frame(4, 60)]).1.dropped() == 0 {
        assert!(Instant::now() < deadline);
    }
    other.send_to(&frame(5, 60), &ours).unwrap();
    drain(&queue, 1);
    assert_eq!(send(&queue, &[frame(6, 60)]).1.frames, 1);
    assert_eq!(other.recv(&mut [0; 100]).unwrap(), 60);
    assert!(!queue.alarm.is_raised());
}

#[test]
fn socket_that_is_shut_down_is_dead_and_says_so() {
    let (peer, socket) = UnixDatagram::pair().unwrap();
    let queue = connected(socket.try_clone().unwrap());
    peer.send(&frame(1, 60)).unwrap();
    assert_eq!(drain(&queue, 1).0.len(), 1);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_dies(&queue);
}

/// Polls until the queue is dead, of which nothing may come.
fn assert_dies<E: Encapsulation>(queue: &DatagramQueue<E>) {
    for _ in 0..100 {
        queue.disarm();
        assert_eq!(poll_once(queue, Taken::ALL), (vec![], 0, Tally::default()));
        if queue.arm() == Arming::Dead {
            break;
        }
    }
    assert_eq!(queue.arm(), Arming::Dead);
    assert!(queue.alarm.is_raised());
}

#[test]
fn end_of_a_socket_that_has_one_is_no_datagram() {
    let flags = SocketFlags::CLOEXEC;
    let (peer, socket) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let queue = connected(socket);
    rustix::io::write(&peer, &frame(1, 60)).unwrap();
    assert_eq!(drain(&queue, 1).0, [frame(1, 60)]);
    // Not by closing it: a child that another test is starting may have the descriptor for a moment.
    rustix::net::shutdown(&peer, rustix::net::Shutdown::Both).unwrap();
    assert_dies(&queue);
}

#[test]
fn end_of_a_socket_behind_a_frame_is_no_datagram() {
    let flags = SocketFlags::CLOEXEC;
    let (peer, socket) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let queue = connected(socket);
    rustix::io::write(&peer, &frame(1, 60)).unwrap();
    rustix::net::shutdown(&peer, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(drain(&queue, 1), (vec![frame(1, 60)], Tally::default()));
    assert_dies(&queue);
}

#[allow(unsafe_code)] // a socket option that rustix does not have
#[test]
fn errors_that_the_kernel_keeps_do_not_ring_for_ever() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let on: libc::c_int = 1;
    let (value, len) = (std::ptr::from_ref(&on).cast(), size_of_val(&on) as u32);
    // SAFETY: an int, by its address and size.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_RECVERR, value, len) };
    assert_eq!(set, 0);
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    socket.connect(nobody).unwrap();
    for _ in 0..3 {
        // The second gets the first one's error.
        let _ = socket.send(&frame(1, 60));
    }
    let watched = socket.try_clone().unwrap();
    let queue = connected(socket);
    let rings = || {
        let mut fds = [PollFd::from_borrowed_fd(watched.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    };
    assert!(rings());
    for _ in 0..100 {
        queue.disarm();
        assert_eq!(poll_once(&queue, Taken::ALL), (vec![], 0, Tally::default()));
    }
    assert!(!rings() && queue.arm() == Arming::Quiet && !queue.alarm.is_raised());
}

#[test]
fn over_ip_only_a_frame_makes_a_peer_and_silence_makes_place_for_another() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (socket, stray, first, second) = (bind(), bind(), bind(), bind());
    let ours = socket.local_addr().unwrap();
    let queue = queue(Bare, socket, Destination::FirstSource);
    let send_to_us = |from: &UdpSocket, len| {
        from.send_to(&frame(1, len), ours).unwrap();
        drain(&queue, 1);
    };
    let is_answered = |peer: &UdpSocket| {
        assert_eq!(send(&queue, &[frame(2, 60)]).1.frames, 1);
        peer.set_nonblocking(true).unwrap();
        peer.recv(&mut [0; 100]).is_ok()
    };
    send_to_us(&stray, 13);
    assert_eq!(send(&queue, &[frame(2, 60)]).1.drops[DropReason::NotReady as usize], 1);
    send_to_us(&first, 14);
    send_to_us(&second, 60);
    assert!(is_answered(&first) && !is_answered(&second));
    let long_ago = || {
        let mut peer = queue.peer.as_ref().unwrap().lock().unwrap();
        peer.as_mut().unwrap().heard -= SILENCE;
    };
    long_ago();
    send_to_us(&first, 13);
    send_to_us(&second, 60);
    assert!(is_answered(&first), "it was heard again");
    long_ago();
    send_to_us(&stray, 13);
    assert!(is_answered(&first), "no frame came");
    send_to_us(&second, 60);
    assert!(is_answered(&second) && !is_answered(&stray));
}

#[test]
fn descriptor_that_is_no_socket_raises_the_alarm() {
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let queue = connected(file);
    let (settled, tally) = send(&queue, &mixed_frames());
    assert_eq!(settled as u64, tally.drops[DropReason::IoError as usize]);
    assert!(queue.alarm.is_raised());
    assert_eq!((drain(&queue, 0).0.len(), queue.arm()), (0, Arming::Dead));
}

/// Four bytes that count, of which odd numbers are refused and 2 is ignored.
#[derive(Default)]
struct Numbered(AtomicUsize);

impl Encapsulation for Numbered {
    const PREFIX_MAX: usize = 8;
    const WANTS_SOURCE: bool = true;

    fn wrap(&self, prefix: &mut [u8]) -> usize {
        let number = self.0.fetch_add(1, Ordering::Relaxed) as u32;
        prefix[..4].copy_from_slice(&number.to_be_bytes());
        4
    }

    fn take_back(&self, frames: usize) {
        self.0.fetch_sub(frames, Ordering::Relaxed);
    }

    fn unwrap(&self, datagram: &[u8], source: Source<'_>) -> Result<usize, Refusal> {
        assert_eq!(source.ipv4().unwrap().ip(), &Ipv4Addr::LOCALHOST);
        match datagram[3] {
            2 => Err(Refusal::Ignore),
            number if number % 2 == 1 => Err(Refusal::Drop(DropReason::Malformed)),
            _ => Ok(4),
        }
    }
}

#[test]
fn encapsulation_stands_before_each_frame_and_says_which_are_none() {
    let (one, other) = udp_pair();
    let (from, to) = (queue(Numbered::default(), one, Destination::Connected), connected(other));
    let frames: Vec<_> = (0..10).map(|number| frame(number, 60)).collect();
    assert_eq!(send(&from, &frames).0, 10);
    let (wrapped, _) = drain(&to, 10);
    for (number, bytes) in (0u32..).zip(&wrapped) {
        assert_eq!((&bytes[..4], &bytes[4..]), (&number.to_be_bytes()[..], &frames[number as usize][..]));
    }
    assert_eq!(send(&to, &wrapped).0, 10);
    let (unwrapped, tally) = drain(&from, 9);
    let taken = [0, 4, 6, 8].map(|number| frame(number, 60));
    assert_eq!((unwrapped.as_slice(), tally.drops[DropReason::Malformed as usize]), (&taken[..], 5));
    assert_eq!(tally.dropped(), 5, "what is ignored is not counted");
}

#[test]
fn frames_that_found_no_room_are_taken_back_from_the_encapsulation() {
    let (one, other) = UnixDatagram::pair().unwrap();
    let (from, to) = (queue(Numbered::default(), one, Destination::Connected), connected(other));
    let frames: Vec<_> = (0..64).map(|number| frame(number, 65_000)).collect();
    let (settled, _) = send(&from, &frames[..2]);
    let more = send(&from, &frames[2..]).0;
    assert!(settled == 2 && more < 62);
    drain(&to, 2 + more);
    assert_eq!(send(&from, &frames[2 + more..][..1]).0, 1);
    assert_eq!(drain(&to, 1).0[0][..4], (2 + more as u32).to_be_bytes());
}

/// UDP over IPv4 with 600 bytes of payload, to be cut into datagrams of 100.
const NET: [u8; 10] = [1, 5, 42, 0, 100, 0, 34, 0, 6, 0];

fn datagrams() -> Vec<u8> {
    let mut frame = frame(9, 642);
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[20..22].fill(0);
    frame[23] = 17;
    frame
}

#[test]
fn frames_that_leave_work_to_the_receiver_are_finished_before_they_are_sent() {
    let (one, peer) = udp_pair();
    let queue = connected(one);
    let whole = datagrams();
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    let plain = frame(1, 60);
    builder.push_slice(&plain).unwrap();
    for _ in 0..20 {
        builder.push_asking(&NET, &whole, Offloads::ALL).unwrap();
    }
    let mut egress = EgressScratch::default();
    let picks: Vec<u8> = (0..21).collect();
    assert_eq!(queue.send(&mut egress, &builder.burst(), &picks), 21);
    assert_eq!((egress.tally.frames, egress.tally.segments), (21, 120));
    let mut bytes = [0; 1000];
    assert_eq!(peer.recv(&mut bytes).unwrap(), 60);
    for number in 0..120 {
        assert_eq!(peer.recv(&mut bytes).unwrap(), 142);
        assert_eq!((bytes[16], bytes[17]), (0, 128), "the IP packet's own length");
        assert_eq!(bytes[42..142], whole[42..142]);
        assert_ne!(bytes[40..42], whole[40..42], "the checksum is complete in datagram {number}");
    }
}

/// Adds `bytes` as a frame in pieces of `len` bytes, the first of which is longer by 64.
#[allow(unsafe_code)]
fn push_pieces<'m>(builder: &mut BurstBuilder<'_, 'm>, net: Option<&[u8; 10]>, bytes: &'m [u8], len: usize) {
    let (first, rest) = bytes.split_at(64 + len);
    let pieces = std::iter::once(first).chain(rest.chunks(len));
    let pieces: Vec<_> = pieces.map(|piece| Piece::at(piece.as_ptr(), piece.len() as u32)).collect();
    assert!(!builder.is_full(pieces.len()));
    let pushed = match net {
        // SAFETY: the bytes live as long as the burst, and it has room for the pieces.
        None => unsafe { builder.push_lent(&pieces) },
        // SAFETY: as above.
        Some(net) => unsafe { builder.push_lent_asking(net, &pieces, Offloads::ALL) },
    };
    pushed.unwrap();
}

#[test]
fn frames_of_as_many_pieces_as_a_burst_may_have_go_out_whole() {
    let (one, other) = udp_pair();
    let (from, to) = (queue(Numbered::default(), one, Destination::Connected), connected(other));
    // The header copy leaves something of every piece: with prefix and header it is more than a message can have, and just
    // more and just less than what goes without another copy.
    for (frames, pieces) in [(1, 1024), (1, 1001), (1, 1000), (64, 16), (2, 500)] {
        let bytes: Vec<u8> = (0..64 + pieces * 16).map(|at| (at / 3) as u8).collect();
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        (0..frames).for_each(|_| push_pieces(&mut builder, None, &bytes, 16));
        let picks: Vec<u8> = (0..frames).collect();
        let mut egress = EgressScratch::default();
        assert_eq!(from.send(&mut egress, &builder.burst(), &picks), usize::from(frames));
        assert_eq!(egress.tally.frames, u64::from(frames));
        let (received, _) = drain(&to, frames.into());
        assert!(received.iter().all(|frame| frame[4..] == bytes), "{frames} frames of {pieces} pieces");
    }
}

#[test]
fn segments_of_frames_in_pieces_go_out_whole() {
    let (one, other) = udp_pair();
    let (from, to) = (connected(one), connected(other));
    let whole = datagrams();
    for piece in [1, 7, 64, 99, 578] {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        let mut frames = 0;
        while frames < 64 && !builder.is_full(whole.len().div_ceil(piece)) {
            push_pieces(&mut builder, Some(&NET), &whole, piece);
            frames += 1;
        }
        let picks: Vec<u8> = (0..frames).collect();
        let mut egress = EgressScratch::default();
        assert_eq!(from.send(&mut egress, &builder.burst(), &picks), usize::from(frames));
        assert_eq!(egress.tally.segments, u64::from(frames) * 6);
        let (received, _) = drain(&to, usize::from(frames) * 6);
        for segment in received {
            assert_eq!((segment.len(), &segment[42..]), (142, &whole[42..142]), "pieces of {piece} bytes");
        }
    }
}

/// Runs `body` in a network namespace of its own whose loopback has the given MTU.
fn with_loopback(mtu: u32, body: impl FnOnce() + Send + 'static) {
    in_namespace(move || {
        set_mtu(mtu);
        body();
    });
}

fn set_mtu(mtu: u32) {
    let status = Command::new("ip").args(["link", "set", "lo", "up", "mtu", &mtu.to_string()]).status();
    assert!(status.expect("iproute2 is installed").success());
}

#[test]
fn frames_longer_than_the_path_takes_go_in_fragments() {
    with_loopback(65_536, || {
        let (one, other) = udp_pair();
        let (from, to) = (connected(one), connected(other));
        for mtu in [65_536, 1500, 1000, 65_536] {
            set_mtu(mtu);
            for len in [1514, 60] {
                let frames: Vec<_> = (0..64).map(|number| frame(number, len)).collect();
                let (settled, tally) = send(&from, &frames);
                assert_eq!((settled, tally.frames), (64, 64), "at an MTU of {mtu}");
                assert_eq!(drain(&to, 64).0, frames);
            }
        }
    });
}

#[test]
fn interface_that_is_down_costs_frames_and_nothing_else() {
    with_loopback(1500, || {
        let (one, other) = udp_pair();
        let (from, to) = (connected(one), connected(other));
        let frames: Vec<_> = (0..BURST_FRAMES as u8).map(|number| frame(number, HEADER_LEN)).collect();
        for link in ["down", "up"] {
            assert!(Command::new("ip").args(["link", "set", "lo", link]).status().unwrap().success());
            let (settled, tally) = send(&from, &frames);
            assert_eq!((settled, tally.frames + tally.dropped()), (64, 64));
            // The kernel says of what it sends to a loopback that is down that it was sent.
            let expected = if link == "up" { 64 } else { 0 };
            assert_eq!(drain(&to, expected).0.len(), expected);
            assert!(!from.alarm.is_raised());
        }
    });
}

#[test]
fn given_socket_stays_as_it_is_and_is_read_right_either_way() {
    for coalescing in [false, true] {
        let (one, other) = udp_pair();
        if coalescing {
            // Somebody had asked for it before the socket was given away.
            drop(Inbox::new(other.as_fd(), Maker::Us, false));
        }
        let (from, fd) = (connected(one), Arc::new(OwnedFd::from(other)));
        let to = DatagramQueue::over_given(
            Bare,
            DatagramOptions {
                receive: fd.clone(),
                send: fd.clone(),
                destination: Destination::Connected,
                queue: 0,
                alarm: Arc::new(Alarm::new().unwrap()),
            },
        );
        let frames: Vec<_> = (0..64).map(|number| frame(number, 60)).collect();
        assert_eq!(send(&from, &frames).0, 64);
        assert_eq!(drain(&to, 64).0, frames);
        drop(to);
        assert_eq!(send(&from, &frames).0, 64);
        let mut bytes = [0; 5000];
        let socket = UdpSocket::from(Arc::into_inner(fd).unwrap());
        assert_eq!(socket.recv(&mut bytes).unwrap(), if coalescing { 64 * 60 } else { 60 });
    }
}

#[test]
fn source_is_an_address_as_the_kernel_writes_it() {
    let (one, other) = udp_pair();
    let SocketAddr::V4(address) = one.local_addr().unwrap() else { panic!("it is bound to IPv4") };
    one.send(&[0; 60]).unwrap();
    let mut inbox = Inbox::new(other.as_fd(), Maker::Us, true);
    while inbox.is_empty() {
        inbox.receive(other.as_fd());
    }
    assert_eq!(inbox.first_source(), Some(address.into()));
}

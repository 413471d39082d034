//! A connection against plain sockets, without a switch around it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, BurstScratch, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::offload::{Offloads, Segments};
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch, Tally};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::connection::{Connection, Ending};
use super::*;

/// A connection with the test at its other end.
struct Rig<P> {
    connection: Arc<Connection>,
    peer: P,
    incoming: IngressScratch,
    outgoing: EgressScratch,
}

fn unix() -> Rig<UnixStream> {
    let (ours, peer) = UnixStream::pair().expect("a pair can be made");
    rig(ours.into(), peer)
}

fn tcp() -> Rig<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let peer = TcpStream::connect(address).expect("it listens");
    let (ours, _) = listener.accept().expect("somebody connected");
    rig(ours.into(), peer)
}

fn rig<P>(ours: OwnedFd, peer: P) -> Rig<P> {
    let connection = Connection::new(ours).expect("eventfds can be made");
    Rig { connection, peer, incoming: IngressScratch::default(), outgoing: EgressScratch::default() }
}

/// What one poll lent, and how many frames are gone.
type Polled = (Vec<Vec<u8>>, usize);

impl<P> Rig<P> {
    fn poll(&mut self, taken: Taken) -> Polled {
        let mut lent = Vec::new();
        let gone = self.connection.poll(&mut self.incoming, &mut |burst| {
            lent.extend(burst.frames().map(|frame| {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes).expect("there is room");
                bytes
            }));
            taken
        });
        (lent, gone)
    }

    /// As a worker does it: polls until idle, waits for the doorbell, until `count` frames have come or it is dead.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while frames.len() < count {
            let (lent, gone) = self.poll(Taken::ALL);
            frames.extend(lent);
            if gone > 0 {
                continue;
            }
            match self.connection.arm() {
                Arming::Work => {}
                Arming::Quiet => {
                    wait_for(self.connection.fd().expect("it has one"), PollFlags::IN);
                    self.connection.disarm();
                }
                Arming::Dead => break,
            }
        }
        frames
    }

    /// Sends whole frames; how many are settled, and what was counted.
    fn send(&mut self, frames: &[Vec<u8>]) -> (usize, Tally) {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).expect("they are frames"));
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        self.outgoing.tally = Tally::default();
        let settled = self.connection.send(&mut self.outgoing, &builder.burst(), &picks);
        (settled, self.outgoing.tally)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.incoming.tally.drops[reason as usize]
    }
}

fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags) {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&limit)), Ok(1), "in 10 seconds");
}

fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at * 31 + (at >> 8)) as u8).collect()
}

fn record(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn records(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| record(frame)).collect()
}

/// Reads frames out of a stream, as a peer does.
fn read_frame(peer: &mut impl Read) -> Vec<u8> {
    let mut word = [0; 4];
    peer.read_exact(&mut word).expect("a length comes");
    let mut frame = vec![0; u32::from_be_bytes(word) as usize];
    peer.read_exact(&mut frame).expect("a frame comes");
    frame
}

#[test]
fn records_are_lent_wherever_reads_cut_them() {
    let frames: Vec<Vec<u8>> = [14, 60, 64, 65, 100].iter().map(|&len| frame(len, len)).collect();
    let bytes = records(&frames);
    for cut in 1..bytes.len() {
        let mut rig = unix();
        rig.peer.write_all(&bytes[..cut]).expect("there is room");
        let whole = frames.iter().scan(0, |end, frame| {
            *end += frame.len() + 4;
            Some(*end)
        });
        let mut arrived = rig.receive(whole.filter(|&end| end <= cut).count());
        rig.peer.write_all(&bytes[cut..]).expect("there is room");
        arrived.extend(rig.receive(frames.len() - arrived.len()));
        assert_eq!(arrived, frames, "cut at {cut}");
    }
}

#[test]
fn records_that_come_byte_by_byte_are_put_together() {
    let frames: Vec<Vec<u8>> = (0..3).map(|number| frame(number, 70)).collect();
    let mut rig = unix();
    let mut arrived = Vec::new();
    for byte in records(&frames) {
        rig.peer.write_all(&[byte]).expect("there is room");
        rig.connection.disarm();
        arrived.extend(rig.poll(Taken::ALL).0);
    }
    assert_eq!(arrived, frames);
}

#[test]
fn stream_of_all_lengths_arrives_whole_and_in_order() {
    let lens = (14..1700).chain([9000, 16_384, 65_535, FRAME_LEN_MAX]).chain((14..1700).rev());
    let frames: Vec<Vec<u8>> = lens.enumerate().map(|(number, len)| frame(number, len)).collect();
    let mut rig = tcp();
    let (mut peer, bytes) = (rig.peer.try_clone().expect("it can be duplicated"), records(&frames));
    let writer = thread::spawn(move || peer.write_all(&bytes));
    let arrived = rig.receive(frames.len());
    assert!(arrived == frames);
    writer.join().expect("it ends").expect("all was written");
}

#[test]
fn many_records_of_one_read_are_lent_a_burst_at_a_time() {
    let frames: Vec<Vec<u8>> = (0..1000).map(|number| frame(number, 64)).collect();
    let mut rig = unix();
    rig.peer.write_all(&records(&frames)).expect("there is room");
    rig.connection.disarm();
    let mut bursts = Vec::new();
    for _ in 0..1000 / BURST_FRAMES + 1 {
        let (lent, gone) = rig.poll(Taken::ALL);
        assert_eq!(lent.len(), gone);
        bursts.push(gone);
    }
    assert_eq!(bursts, [vec![64; 15], vec![40]].concat());
    assert_eq!(rig.poll(Taken::ALL), (vec![], 0));
    assert_eq!(rig.connection.arm(), Arming::Quiet);
}

#[test]
fn held_frames_are_lent_again_before_those_behind_them() {
    let frames: Vec<Vec<u8>> = (0..70).map(|number| frame(number, 60 + number)).collect();
    let mut rig = unix();
    rig.peer.write_all(&records(&frames)).expect("there is room");
    rig.connection.disarm();
    let (lent, gone) = rig.poll(Taken(!0b110));
    assert_eq!((lent.as_slice(), gone), (&frames[..64], 62));
    assert_eq!(rig.connection.arm(), Arming::Work, "what is held is work");
    let (lent, gone) = rig.poll(Taken(0b1));
    assert_eq!((&lent[..2], &lent[2..], gone), (&frames[1..3], &frames[64..], 1));
    let (lent, gone) = rig.poll(Taken::ALL);
    assert_eq!((lent[0].as_slice(), lent.len(), gone), (&frames[2][..], 7, 7));
}

#[test]
fn what_is_no_frame_is_counted_and_what_is_empty_is_nothing() {
    let mut rig = unix();
    let whole = frame(1, 60);
    for len in [0, 1, 13, 0, FRAME_LEN_MAX + 1, RECORD_LEN_MAX] {
        let bytes = record(&vec![7; len]);
        let mut peer = rig.peer.try_clone().expect("it can be duplicated");
        let writer = thread::spawn(move || peer.write_all(&bytes));
        while !writer.is_finished() {
            rig.connection.disarm();
            assert_eq!(rig.poll(Taken::ALL).0, Vec::<Vec<u8>>::new());
        }
        writer.join().expect("it ends").expect("all was written");
    }
    rig.peer.write_all(&record(&whole)).expect("there is room");
    assert_eq!(rig.receive(1), [whole]);
    assert_eq!((rig.drops(DropReason::Runt), rig.drops(DropReason::TooLong)), (2, 2));
}

#[test]
fn record_that_is_too_long_ends_the_connection_once_the_frames_before_it_are_gone() {
    for len in [RECORD_LEN_MAX as u32 + 1, 1 << 31, u32::MAX] {
        let mut rig = unix();
        let before = frame(1, 60);
        rig.peer.write_all(&record(&before)).expect("there is room");
        rig.peer.write_all(&len.to_be_bytes()).expect("there is room");
        rig.connection.disarm();
        assert_eq!(rig.poll(Taken(0)), (vec![before.clone()], 0));
        assert_eq!((rig.connection.ending(), rig.drops(DropReason::TooLong)), (None, 0));
        assert_eq!(rig.poll(Taken::ALL), (vec![before], 1));
        assert_eq!(rig.poll(Taken::ALL), (vec![], 1));
        assert_eq!((rig.connection.ending(), rig.drops(DropReason::TooLong)), (Some(Ending::Oversized), 1));
        assert_eq!((rig.poll(Taken::ALL).1, rig.connection.arm()), (0, Arming::Dead));
    }
}

#[test]
fn poll_over_empty_records_is_bounded() {
    let mut rig = unix();
    rig.peer.write_all(&[0; 4 * 5000]).expect("there is room");
    rig.peer.write_all(&record(&frame(1, 60))).expect("there is room");
    rig.connection.disarm();
    let mut polls = 0;
    while rig.poll(Taken::ALL).1 == 0 {
        polls += 1;
    }
    assert_eq!(polls, 5000 / reader::RECORDS_MAX);
}

#[test]
fn end_of_the_peer_is_found_behind_what_it_sent() {
    let mut rig = unix();
    let last = frame(1, 60);
    rig.peer.write_all(&record(&last)).expect("there is room");
    rig.peer.write_all(&[0, 0, 0]).expect("there is room");
    drop(std::mem::replace(&mut rig.peer, UnixStream::pair().expect("a pair can be made").0));
    assert_eq!(rig.receive(2), [last]);
    assert_eq!(rig.connection.ending(), Some(Ending::Closed));
    let mut alarm = [PollFd::from_borrowed_fd(rig.connection.over(), PollFlags::IN)];
    assert_eq!(poll(&mut alarm, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1));
}

#[test]
fn burst_is_sent_in_order_with_its_lengths() {
    let lens = [14, 60, 63, 64, 65, 100, 1514, 9014, 30_000, 64];
    let frames: Vec<Vec<u8>> = lens.iter().enumerate().map(|(number, &len)| frame(number, len)).collect();
    let mut rig = unix();
    let (settled, tally) = rig.send(&frames);
    assert_eq!((settled, tally.frames, tally.dropped()), (10, 10, 0));
    assert_eq!(tally.bytes, lens.iter().sum::<usize>() as u64);
    for frame in &frames {
        assert_eq!(&read_frame(&mut rig.peer), frame);
    }
}

#[test]
fn frames_that_are_cut_are_completed_before_the_next() {
    for len in [64, 1514, 20_000, FRAME_LEN_MAX] {
        let mut rig = unix();
        sockopt::set_socket_send_buffer_size(rig.connection.socket(), 1).expect("it is a socket");
        let count = 2_000_000 / len.max(1000);
        let mut peer = rig.peer.try_clone().expect("it can be duplicated");
        let reader = thread::spawn(move || {
            for number in 0..count {
                assert!(read_frame(&mut peer) == frame(number, len), "number {number} of {len} bytes");
            }
        });
        let (mut sent, mut refused) = (0, 0);
        while sent < count {
            let burst_len = ((1 << 17) / len).clamp(1, BURST_FRAMES).min(count - sent);
            let burst: Vec<Vec<u8>> = (sent..sent + burst_len).map(|number| frame(number, len)).collect();
            let (settled, tally) = rig.send(&burst);
            assert_eq!((tally.frames, tally.dropped()), (settled as u64, 0));
            sent += settled;
            refused += usize::from(settled < burst_len);
        }
        while !rig.connection.flush() {
            wait_for(rig.connection.socket(), PollFlags::OUT);
        }
        reader.join().expect("all arrived");
        assert!(refused > 0, "there was room for all, of {len} bytes");
    }
}

#[test]
fn rest_of_a_cut_frame_calls_for_help() {
    let mut rig = unix();
    let long = vec![frame(0, 30_000), frame(1, 30_000)];
    let mut sent = 0;
    loop {
        let (settled, _) = rig.send(&long);
        sent += settled;
        if settled < 2 {
            break;
        }
    }
    // Unix sockets cut at lengths of their own; whether one was cut, the alarm says.
    let mut cut = [PollFd::from_borrowed_fd(rig.connection.cut(), PollFlags::IN)];
    let is_cut = poll(&mut cut, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1);
    assert_eq!(is_cut, !rig.connection.flush());
    rig.peer.set_nonblocking(false).expect("it is a socket");
    for number in 0..sent {
        assert!(read_frame(&mut rig.peer) == long[number % 2], "number {number} of {sent}");
        rig.connection.flush();
    }
}

#[test]
fn full_socket_takes_nothing_and_nothing_is_lost_by_it() {
    let mut rig = unix();
    let burst: Vec<Vec<u8>> = (0..64).map(|number| frame(number, 64)).collect();
    let mut sent = 0;
    while let (64, _) = rig.send(&burst) {
        sent += 64;
    }
    let (settled, tally) = rig.send(&burst);
    assert_eq!((settled, tally), (0, Tally::default()));
    assert_eq!(read_frame(&mut rig.peer), burst[0]);
    for number in 1..sent {
        assert_eq!(read_frame(&mut rig.peer), burst[number % 64]);
    }
    assert_eq!(rig.send(&burst).0, 64);
}

#[test]
fn frames_for_a_peer_that_has_gone_are_counted_and_the_end_is_found() {
    let mut rig = unix();
    drop(std::mem::replace(&mut rig.peer, UnixStream::pair().expect("a pair can be made").0));
    let burst: Vec<Vec<u8>> = (0..3).map(|number| frame(number, 64)).collect();
    for _ in 0..2 {
        let (settled, tally) = rig.send(&burst);
        assert_eq!((settled, tally.frames, tally.drops[DropReason::IoError as usize]), (3, 0, 3));
    }
    assert_eq!(rig.receive(1), Vec::<Vec<u8>>::new());
    assert_eq!(rig.connection.ending(), Some(Ending::Failed(Errno::PIPE)));
}

/// A virtio-net header that asks for UDP segments of `size` bytes, and a frame of UDP over IPv4 with `len` bytes of
/// payload.
fn datagrams(size: u16, len: usize) -> ([u8; 10], Vec<u8>) {
    let mut net = [1, 5, 42, 0, 0, 0, 34, 0, 6, 0];
    net[4..6].copy_from_slice(&size.to_le_bytes());
    let mut bytes = vec![0; 42];
    (bytes[12], bytes[14], bytes[22], bytes[23]) = (8, 0x45, 64, 17);
    bytes[16..18].copy_from_slice(&(28 + len as u16).to_be_bytes());
    bytes[38..40].copy_from_slice(&(8 + len as u16).to_be_bytes());
    bytes.extend(frame(0, len));
    (net, bytes)
}

#[test]
fn frame_with_an_offload_goes_out_as_the_segments_that_stand_for_it() {
    // Two vectors for each of the last one's thousand are more than a call takes.
    for (size, len, count) in [(1000, 300, 0), (100, 1000, 10), (1472, 60_000, 41), (60, 60_000, 1000)] {
        let mut rig = unix();
        let (net, whole) = datagrams(size, len);
        let (mut scratch, last) = (BurstScratch::default(), frame(9, 100));
        let mut builder = scratch.begin(0);
        builder.push_slice(&last).expect("it is a frame");
        builder.push_asking(&net, &whole, Offloads::ALL).expect("its net header is true");
        builder.push_slice(&last).expect("it is a frame");
        let burst = builder.burst();
        let mut peer = rig.peer.try_clone().expect("it can be duplicated");
        let reader = thread::spawn(move || {
            let read: Vec<Vec<u8>> = (0..2 + count.max(1)).map(|_| read_frame(&mut peer)).collect();
            read
        });
        let mut picks = &[0, 1, 2][..];
        rig.outgoing.tally = Tally::default();
        while !picks.is_empty() {
            picks = &picks[rig.connection.send(&mut rig.outgoing, &burst, picks)..];
        }
        while !rig.connection.flush() {
            wait_for(rig.connection.socket(), PollFlags::OUT);
        }
        let read = reader.join().expect("all arrived");
        let mut expected = vec![last.clone()];
        let mut segments = Segments::of(&burst.frame(1)).expect("it asks");
        while let Some(payload) = segments.next_payload() {
            let mut bytes = vec![0; payload.len()];
            let sum = payload.copy_to(&mut bytes).expect("there is room");
            expected.push([segments.header(sum), &bytes].concat());
        }
        expected.push(last.clone());
        assert!(read == expected, "{len} bytes by {size}");
        let tally = rig.outgoing.tally;
        let bytes = (whole.len() + 2 * last.len()) as u64;
        assert_eq!((tally.frames, tally.bytes, tally.segments, tally.dropped()), (3, bytes, count as u64, 0));
    }
}

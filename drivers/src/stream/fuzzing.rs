//! A fuzz target: a connection whose peer sends any records, cut anywhere.

use std::io::Write;
use std::os::unix::net::UnixStream;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{ETHERNET_LEN, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::{Arming, Doorbell, Ingress, IngressScratch};

use super::connection::{Connection, Ending};
use super::{RECORD_LEN_MAX, WORD_LEN};

/// Runs the target: a byte that says how the bytes are cut, one that says how they are made, and what they are made of.
/// What comes out must be what somebody finds who reads it all at once.
pub fn run(input: &[u8]) {
    let Some((&[cuts, made], rest)) = input.split_first_chunk() else { return };
    let bytes = if made & 1 == 0 { records(rest) } else { rest.to_vec() };
    let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a flag");
    peer.set_nonblocking(true).expect("a flag");
    let connection = Connection::new(ours.into()).expect("descriptors");
    let (mut scratch, mut frames) = (IngressScratch::default(), Vec::new());
    // Few bytes at a time only where there are few.
    let most = if cuts & 1 == 0 && bytes.len() < 4000 { 7 } else { 60_000 };
    let (mut rest, mut turn) = (&bytes[..], 1);
    while !rest.is_empty() && connection.ending().is_none() {
        let len = 1 + usize::from(cuts).wrapping_mul(turn * turn * 31) % most;
        let (now, later) = rest.split_at(len.min(rest.len()));
        peer.write_all(now).expect("it fits into a socket that is read");
        drain(&connection, &mut scratch, &mut frames);
        (rest, turn) = (later, turn + 1);
    }
    drop(peer);
    drain(&connection, &mut scratch, &mut frames);
    let expected = Expected::of(&bytes);
    assert!(frames == expected.frames, "{} frames of {}", frames.len(), expected.frames.len());
    let drops = &scratch.tally.drops;
    assert_eq!(drops[DropReason::Runt as usize], expected.runts);
    assert_eq!(drops[DropReason::TooLong as usize], expected.too_long);
    let ending = connection.ending();
    assert_eq!(ending == Some(Ending::Oversized), expected.oversized, "{ending:?}");
}

/// Takes all that has come.
fn drain(connection: &Connection, scratch: &mut IngressScratch, frames: &mut Vec<Vec<u8>>) {
    connection.disarm();
    while connection.arm() == Arming::Work {
        connection.poll(scratch, &mut |burst| {
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                frame.copy_to(&mut bytes);
                frames.push(bytes);
            }
            Taken::ALL
        });
    }
}

/// Records of two bytes each: how long it says it is, and what it is filled with.
fn records(code: &[u8]) -> Vec<u8> {
    const LENS: [usize; 16] = [
        0,
        1,
        13,
        14,
        60,
        63,
        64,
        65,
        1514,
        4096,
        9000,
        65_557,
        65_558,
        RECORD_LEN_MAX,
        RECORD_LEN_MAX + 1,
        1 << 31,
    ];
    let mut bytes = Vec::new();
    for pair in code.chunks_exact(2) {
        // Most are short, or the largest would be all that there is time for.
        let long = pair[0] >= 240;
        let len = if long { LENS[usize::from(pair[0]) - 240] } else { usize::from(pair[0]) % 100 };
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend((0..len.min(RECORD_LEN_MAX)).map(|at| pair[1].wrapping_add(at as u8)));
    }
    bytes
}

/// What is to come out.
#[derive(Default)]
struct Expected {
    frames: Vec<Vec<u8>>,
    runts: u64,
    too_long: u64,
    oversized: bool,
}

impl Expected {
    fn of(mut bytes: &[u8]) -> Expected {
        let mut expected = Expected::default();
        while let Some((word, rest)) = bytes.split_first_chunk::<WORD_LEN>() {
            let len = u32::from_be_bytes(*word) as usize;
            if len > RECORD_LEN_MAX {
                // What cannot be read any further counts as one frame.
                expected.too_long += 1;
                expected.oversized = true;
                break;
            }
            let Some((record, rest)) = rest.split_at_checked(len) else { break };
            match len {
                0 => {}
                1..ETHERNET_LEN => expected.runts += 1,
                ETHERNET_LEN..=FRAME_LEN_MAX => expected.frames.push(record.to_vec()),
                _ => expected.too_long += 1,
            }
            bytes = rest;
        }
        expected
    }
}

//! Any two ports that are no guests' own: frames of every length that both can carry, with and without VLAN tags, pass
//! from each to each untouched. A port of every kind is on one hub, and each frame is a broadcast, so that one that is
//! sent must come to all others as it was.

mod hosts;

use std::time::Duration;

use hosts::{Host, Hosts};
use ringyard_tests::{Error, Result};

/// Shorter and longer than what each medium pads to or can carry.
const LENGTHS: [usize; 9] = [14, 15, 60, 64, 1514, 9018, 65_499, 65_507, 65_535];
/// What stands between the addresses and the type.
const TAGS: [(&str, &[u8]); 4] = [
    ("untagged", &[]),
    ("802.1Q", &[0x81, 0x00, 0x60, 0x7b]),
    ("priority", &[0x81, 0x00, 0xa0, 0x00]),
    ("QinQ", &[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x0f, 0xfe]),
];
const BROADCAST: [u8; 6] = [0xff; 6];
/// IEEE 802, local experimental 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// More than a frame needs on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn frames_of_every_length_and_tag_pass_between_any_two_ports_that_can_carry_them() -> Result<()> {
    let mut hosts = Hosts::plug()?;
    let mut number = 0;
    for from in 0..hosts.all.len() {
        for len in LENGTHS {
            for (tag, bytes) in TAGS.iter().filter(|(_, bytes)| len >= 14 + bytes.len()) {
                if len > hosts.all[from].longest(bytes.len()) {
                    continue;
                }
                number += 1;
                let frame = frame(from as u8, number, bytes, len);
                hosts.all[from].send(&frame)?;
                for to in (0..hosts.all.len()).filter(|to| *to != from) {
                    let what = format!("{len} bytes {tag} from {} to", hosts.all[from].name());
                    expect(hosts.all[to].as_mut(), &frame, bytes.len(), &what)?;
                }
            }
        }
    }
    assert!(number > 200, "only {number} frames were sent");
    // What was too long for one was dropped there and nowhere else, and nobody got a frame of its own.
    for from in 0..hosts.all.len() {
        let name = hosts.all[from].name();
        let last = frame(0xff, from as u32, &[], 60);
        hosts.all[from].send(&last)?;
        for to in (0..hosts.all.len()).filter(|to| *to != from) {
            expect(hosts.all[to].as_mut(), &last, 0, &format!("a last frame from {name} to"))?;
        }
    }
    hosts.finish()
}

/// The next frame is `frame`, if there is a way for it.
fn expect(host: &mut dyn Host, frame: &[u8], tag_len: usize, what: &str) -> Result<()> {
    if frame.len() > host.longest(tag_len) {
        return Ok(());
    }
    let what = format!("{what} {}", host.name());
    let Some(got) = next(host, SOON)? else { return Err(Error::new(format!("nothing of {what}"))) };
    if got == frame {
        return Ok(());
    }
    let differs = got.iter().zip(frame).position(|(got, sent)| got != sent);
    let start = &got[..got.len().min(32)];
    Err(Error::new(format!("{what} came {} bytes, different from {differs:?} on: {start:02x?}", got.len())))
}

/// The next frame of the test's.
fn next(host: &mut dyn Host, within: Duration) -> Result<Option<Vec<u8>>> {
    while let Some(frame) = host.receive(within)? {
        // Anything shorter than a header is the test's as well, and must not have come.
        let ours = frame.len() < 14 || frame[6..10] == SOURCE;
        if ours {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

#[test]
fn nothing_shorter_than_a_header_leaves_its_port() -> Result<()> {
    let mut hosts = Hosts::plug()?;
    for from in 0..hosts.all.len() {
        if !hosts.all[from].can_send_runts() {
            continue;
        }
        let name = hosts.all[from].name();
        for len in [1, 2, 13] {
            hosts.all[from].send(&frame(from as u8, 0, &[], 14)[..len])?;
        }
        let after = frame(from as u8, 1, &[], 14);
        hosts.all[from].send(&after)?;
        for to in (0..hosts.all.len()).filter(|to| *to != from) {
            expect(hosts.all[to].as_mut(), &after, 0, &format!("what came after runts from {name} to"))?;
        }
        let stats = hosts.switch.stats()?;
        let runts = stats.port(name).and_then(|port| port.ingress.drops.get("runt").copied());
        assert_eq!(runts, Some(3), "runts of {name}: {stats:#?}");
    }
    hosts.finish()
}

/// The first bytes of every sender's address.
const SOURCE: [u8; 4] = [0x02, 0x70, 0x61, 0x69];

/// A frame of `len` bytes from sender `from`, of which no two are alike.
fn frame(from: u8, number: u32, tag: &[u8], len: usize) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &SOURCE, &[0, from], tag, &ETHERTYPE].concat();
    let mut word = number.wrapping_mul(0x9e37_79b9) ^ u32::from(from);
    while frame.len() < len {
        frame.extend_from_slice(&word.to_be_bytes());
        word = word.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
    }
    frame.truncate(len);
    frame
}

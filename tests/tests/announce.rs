//! Announcements: what is heard, where, how often, and where nothing is.

use std::time::{Duration, Instant};

use ringyard_tests::Result;
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

/// Two namespaces on taps of one hub, each with a nic.
struct Pair {
    switch: Switch,
    left: PacketSocket,
    right: PacketSocket,
    _namespaces: [Netns; 2],
}

impl Pair {
    fn new() -> Result<Pair> {
        let mut switch = Switch::start(&[])?;
        let namespaces = [Netns::new()?, Netns::new()?];
        for (name, mac, netns) in [("left", LEFT, &namespaces[0]), ("right", RIGHT, &namespaces[1])] {
            switch.plug_tap(name, 0, netns, &[])?;
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            switch.plug_nic(name, &mac)?;
        }
        let left = PacketSocket::open(&namespaces[0], "left")?;
        let right = PacketSocket::open(&namespaces[1], "right")?;
        Ok(Pair { switch, left, right, _namespaces: namespaces })
    }

    fn announce(&mut self, members: Value) -> Result<()> {
        let mut arguments = json!({"initial": 50, "max": 130, "rounds": 4, "step": 60});
        members.as_object().into_iter().flatten().for_each(|(name, value)| arguments[name] = value.clone());
        self.switch.order("announce-self", arguments).map(drop)
    }
}

/// When announcements of `mac` arrived, until none came for a while.
fn heard(socket: &PacketSocket, mac: [u8; 6]) -> Result<Vec<Instant>> {
    let mut times = Vec::new();
    while let Some(frame) = socket.receive(QUIET)? {
        // The namespace's own kernel speaks there too.
        if frame[12..14] == [0x80, 0x35] {
            assert_eq!((&frame[..6], &frame[6..12], frame.len()), (&[0xff; 6][..], &mac[..], 60));
            times.push(Instant::now());
        }
    }
    Ok(times)
}

#[test]
fn nics_are_heard_by_all_others_as_often_as_was_said_and_at_its_pace() -> Result<()> {
    let mut pair = Pair::new()?;
    let begin = Instant::now();
    pair.announce(json!({}))?;
    let times = heard(&pair.right, LEFT)?;
    assert_eq!(times.len(), 4);
    // At once, then after 50, 110 and 130 ms; never too early.
    let since: Vec<u128> = times.iter().map(|time| (*time - begin).as_millis()).collect();
    assert!(since[1] >= 50 && since[2] >= 160 && since[3] >= 290, "{since:?}");
    assert_eq!(heard(&pair.left, RIGHT)?.len(), 4);
    pair.switch.finish()
}

#[test]
fn only_nics_that_are_named_and_up_are_announced() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.announce(json!({"interfaces": ["left-nic", "nobody"], "rounds": 1}))?;
    assert_eq!((heard(&pair.right, LEFT)?.len(), heard(&pair.left, RIGHT)?.len()), (1, 0));
    pair.switch.order("set_link", json!({"name": "left-nic", "up": false}))?;
    pair.announce(json!({"rounds": 1}))?;
    assert_eq!((heard(&pair.right, LEFT)?.len(), heard(&pair.left, RIGHT)?.len()), (0, 0));
    pair.switch.finish()
}

#[test]
fn no_rounds_end_what_is_under_way_by_that_name() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.announce(json!({"id": "a", "rounds": 1_000_000, "initial": 10_000, "max": 10_000}))?;
    pair.announce(json!({"id": "b", "rounds": 2, "initial": 200}))?;
    pair.announce(json!({"id": "a", "rounds": 0}))?;
    assert_eq!(heard(&pair.right, LEFT)?.len(), 3, "one of a, two of b");
    pair.switch.finish()
}

const LEFT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const RIGHT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// Longer than any pause between two announcements here.
const QUIET: Duration = Duration::from_millis(700);

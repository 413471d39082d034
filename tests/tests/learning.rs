//! A hub that learns: between taps in namespaces, who hears what.

use std::time::Duration;

use ringyard_tests::Result;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{FlowConfig, numbered_frame};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

/// Three taps on hub 0, and a socket at each that speaks as the station of that number.
struct Yard {
    switch: Switch,
    sockets: Vec<PacketSocket>,
    sent: u64,
    /// Last: the taps are in them.
    _hosts: Vec<Netns>,
}

/// How long a frame that must not come is waited for, after one that must has passed the same way.
const SILENCE: Duration = Duration::from_millis(100);
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);

/// The address of station `number`, which no kernel has.
fn station(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0xaa, 0, number]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Yard {
    fn new(args: &[&str]) -> Result<Yard> {
        let mut switch = Switch::start(args)?;
        let (mut sockets, mut hosts) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let (name, host) = (format!("t{number}"), Netns::new()?);
            // Its kernel shall keep quiet: what is heard is what the test sends.
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 2>/dev/null || true")?;
            switch.plug_tap(&name, 0, &host, &[])?;
            sockets.push(PacketSocket::open(&host, &name)?);
            hosts.push(host);
        }
        Ok(Yard { switch, sockets, sent: 0, _hosts: hosts })
    }

    /// Sends a frame from tap `from`, by the station of that number, to `destination`. Which other taps heard it, in
    /// order: a broadcast that follows it says when each has heard all there is.
    fn heard(&mut self, from: u8, destination: [u8; 6]) -> Result<Vec<u8>> {
        for destination in [destination, [0xff; 6]] {
            let config = FlowConfig { destination, source: station(from), length: 60, rate: 1 };
            self.sockets[usize::from(from)].send(&numbered_frame(config, self.sent))?;
            self.sent += 1;
        }
        let mut heard = Vec::new();
        for to in (0..3).filter(|to| *to != from) {
            if self.hears_before_broadcast(to, from)? {
                heard.push(to);
            }
        }
        Ok(heard)
    }

    /// Whether tap `to` gets a frame of station `from` to somebody before the next broadcast of it.
    fn hears_before_broadcast(&self, to: u8, from: u8) -> Result<bool> {
        let mut heard = false;
        wait_for("the broadcast that follows", ARRIVAL_TIME_MAX, || {
            let Some(frame) = self.sockets[usize::from(to)].receive(SILENCE)? else { return Ok(None) };
            if frame[6..12] != station(from) {
                return Ok(None);
            }
            let is_broadcast = frame[..6] == [0xff; 6];
            heard |= !is_broadcast;
            Ok(is_broadcast.then_some(heard))
        })
    }

    /// What the hub knows of the stations: their numbers and netdevs.
    fn known(&mut self) -> Result<Vec<(u8, String)>> {
        let answer = self.switch.order("x-query-fdb", json!({"hubid": 0}))?;
        let entries = answer["entries"].as_array().cloned().unwrap_or_default();
        let number = |entry: &Value| (0..3).find(|number| entry["mac"] == text(station(*number)).as_str());
        let netdev = |entry: &Value| entry["netdev"].as_str().unwrap_or_default().to_owned();
        Ok(entries.iter().filter_map(|entry| Some((number(entry)?, netdev(entry)))).collect())
    }

    fn fdb(&mut self, counter: &str) -> Result<u64> {
        let stats = self.switch.order("x-query-stats", json!({}))?;
        Ok(stats["hubs"][0]["fdb"][counter].as_u64().unwrap_or(u64::MAX))
    }
}

#[test]
fn third_port_hears_a_station_until_the_hub_has_learned_where_it_is() -> Result<()> {
    let mut yard = Yard::new(&[])?;
    assert_eq!(yard.heard(0, station(1))?, [1, 2], "nobody knows where station 1 is");
    assert_eq!(yard.heard(1, station(0))?, [0], "it was heard from there");
    assert_eq!(yard.heard(0, station(1))?, [1]);
    assert_eq!(yard.heard(2, station(1))?, [1]);
    assert_eq!(yard.known()?, [(0, "t0".into()), (1, "t1".into()), (2, "t2".into())]);
    yard.switch.finish()
}

#[test]
fn learned_is_forgotten_by_age_flush_and_link() -> Result<()> {
    let mut yard = Yard::new(&[])?;
    let learn = |yard: &mut Yard| -> Result<()> {
        yard.heard(1, [0xff; 6])?;
        assert_eq!(yard.heard(0, station(1))?, [1]);
        Ok(())
    };
    learn(&mut yard)?;
    yard.switch.order("x-fdb-flush", json!({"netdev": "t1"}))?;
    assert_eq!(yard.heard(0, station(1))?, [1, 2]);

    learn(&mut yard)?;
    yard.switch.order("x-fdb-del", json!({"hubid": 0, "mac": text(station(1))}))?;
    assert_eq!(yard.heard(0, station(1))?, [1, 2]);

    learn(&mut yard)?;
    yard.switch.order("set_link", json!({"name": "t1", "up": false}))?;
    yard.switch.order("set_link", json!({"name": "t1", "up": true}))?;
    assert!(yard.known()?.iter().all(|(number, _)| *number != 1));
    assert_eq!(yard.heard(0, station(1))?, [1, 2]);

    learn(&mut yard)?;
    yard.switch.order("x-set-hub", json!({"hubid": 0, "ageing": 1}))?;
    wait_for("the addresses to age", ARRIVAL_TIME_MAX, || Ok(yard.known()?.is_empty().then_some(())))?;
    assert_eq!(yard.heard(0, station(1))?, [1, 2]);
    wait_for("the sweep", Duration::from_secs(40), || Ok((yard.fdb("entries")? == 0).then_some(())))?;
    assert!(yard.fdb("aged")? >= 2);
    yard.switch.finish()
}

#[test]
fn station_that_moves_is_followed_and_a_static_one_is_not() -> Result<()> {
    let mut yard = Yard::new(&[])?;
    yard.heard(1, [0xff; 6])?;
    assert_eq!(yard.heard(0, station(1))?, [1]);
    let config = FlowConfig { destination: [0xff; 6], source: station(1), length: 60, rate: 1 };
    yard.sockets[2].send(&numbered_frame(config, 1 << 32))?;
    wait_for("the move", ARRIVAL_TIME_MAX, || Ok((yard.fdb("moved")? == 1).then_some(())))?;
    assert_eq!(yard.heard(0, station(1))?, [2]);

    yard.switch.order("x-fdb-add", json!({"hubid": 0, "mac": text(station(1)), "netdev": "t1"}))?;
    assert_eq!(yard.heard(0, station(1))?, [1]);
    yard.sockets[2].send(&numbered_frame(config, 2 << 32))?;
    yard.heard(2, [0xff; 6])?;
    assert_eq!(yard.heard(0, station(1))?, [1], "whoever claims its address");
    yard.switch.finish()
}

#[test]
fn frame_between_stations_behind_one_port_is_dropped_with_a_name() -> Result<()> {
    let mut yard = Yard::new(&[])?;
    yard.heard(0, [0xff; 6])?;
    let config = FlowConfig { destination: station(0), source: station(7), length: 60, rate: 1 };
    let dropped = |yard: &mut Yard| -> Result<u64> {
        let stats = yard.switch.stats()?;
        Ok(stats.port("t0").and_then(|port| port.ingress.drops.get("no_receiver").copied()).unwrap_or(0))
    };
    let before = dropped(&mut yard)?;
    yard.sockets[0].send(&numbered_frame(config, 0))?;
    wait_for("the drop", ARRIVAL_TIME_MAX, || Ok((dropped(&mut yard)? == before + 1).then_some(())))?;
    yard.switch.finish()
}

#[test]
fn hub_with_learning_off_floods_always() -> Result<()> {
    let mut yard = Yard::new(&["--hub", "0,learning=off"])?;
    for _ in 0..2 {
        assert_eq!(yard.heard(0, station(1))?, [1, 2]);
        assert_eq!(yard.heard(1, station(0))?, [0, 2]);
    }
    yard.switch.order("x-set-hub", json!({"hubid": 0, "learning": true}))?;
    yard.heard(1, [0xff; 6])?;
    assert_eq!(yard.heard(0, station(1))?, [1], "until it is told to learn");
    yard.switch.finish()
}

#[test]
fn flood_of_sources_leaves_others_where_they_are() -> Result<()> {
    let mut yard = Yard::new(&[])?;
    yard.heard(1, [0xff; 6])?;
    let learned = yard.fdb("learned")?;
    for number in 0..20_000u32 {
        let [a, b, c, d] = number.to_be_bytes();
        let config = FlowConfig { destination: station(1), source: [2, a, b, c, d, 1], length: 60, rate: 1 };
        yard.sockets[2].send(&numbered_frame(config, number.into()))?;
    }
    // A tap's queue is short: some of them may be lost before they are the switch's.
    wait_for("the flood", ARRIVAL_TIME_MAX, || Ok((yard.fdb("learned")? > learned + 1000).then_some(())))?;
    let mine = yard.switch.order("x-query-fdb", json!({"hubid": 0, "netdev": "t1"}))?;
    assert_eq!(mine["entries"][0]["mac"], text(station(1)).as_str());
    // The end of the flood may come after a flush.
    wait_for("nothing to be left of the flood", ARRIVAL_TIME_MAX, || {
        yard.switch.order("x-fdb-flush", json!({"netdev": "t2"}))?;
        let entries = yard.switch.order("x-query-fdb", json!({"netdev": "t2"}))?;
        Ok((entries == json!({"entries": [], "more": false})).then_some(()))
    })?;
    yard.switch.finish()
}

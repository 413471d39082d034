//! A multicast group with several members on one host.

use ringyard_tests::Result;
use ringyard_tests::probe::Probe;
use ringyard_tests::switch::Switch;
use serde_json::json;

use crate::bench::{ARRIVAL_TIME_MAX, SILENCE, Station, add_interface, frame, info, network, plug};

/// Frames of each member.
const FRAMES: u64 = 20;

#[test]
fn two_switches_and_a_qemu_hear_each_other_once_and_no_switch_itself() -> Result<()> {
    let netns = network()?;
    let group = json!({"type": "dgram", "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"}});
    let mut switches = [Switch::start_in(&netns, &[])?, Switch::start_in(&netns, &[])?];
    let mut stations = Vec::new();
    for switch in &mut switches {
        stations.push(Station::plug(switch, "station", 0)?);
        plug(switch, "group", 0, group.clone())?;
    }
    let mut probe = Probe::start(&netns)?;
    probe.plug(&group)?;
    for number in 0..FRAMES {
        for (from, station) in (0..).zip(&stations) {
            let frame = frame(from, number, 60 + 70 * number as usize);
            station.send(&frame)?;
            stations[usize::from(1 - from)].expect(&frame)?;
            assert_eq!(probe.receive(ARRIVAL_TIME_MAX)?.as_ref(), Some(&frame));
        }
        let theirs = frame(2, number, 60);
        probe.send(&theirs)?;
        for station in &stations {
            station.expect(&theirs)?;
        }
        assert_eq!(probe.receive(ARRIVAL_TIME_MAX)?, Some(theirs), "QEMU does hear itself");
    }
    assert_eq!(probe.receive(SILENCE)?, None);
    for (station, switch) in stations.iter().zip(&mut switches) {
        assert_eq!(station.receive(SILENCE)?, None);
        let stats = switch.stats()?;
        let port = stats.port("group").expect("it is plugged");
        assert_eq!((port.ingress.frames, port.ingress.drops.values().sum::<u64>()), (2 * FRAMES, 0));
        assert_eq!(port.egress.frames, FRAMES);
    }
    Ok(())
}

#[test]
fn group_goes_and_comes_with_its_interface() -> Result<()> {
    let netns = network()?;
    let group = json!({
        "type": "dgram",
        "remote": {"type": "inet", "host": "230.0.0.1", "port": "1234"},
        "local": {"type": "inet", "host": "10.0.0.1", "port": "0"},
    });
    let mut switches = [Switch::start_in(&netns, &[])?, Switch::start_in(&netns, &[])?];
    let mut stations = Vec::new();
    for switch in &mut switches {
        stations.push(Station::plug(switch, "station", 0)?);
        plug(switch, "group", 0, group.clone())?;
    }
    for number in 0..2 {
        netns.ip("link del v0")?;
        for switch in &mut switches {
            switch.wait_stats("the carrier's end", ARRIVAL_TIME_MAX, |stats| {
                stats.port("group").is_some_and(|port| !port.carrier)
            })?;
            let shown = info(switch, "group")?;
            let error = "error: can't add socket to multicast group 230.0.0.1: No such device";
            assert_eq!(shown, format!("type=dgram,{error}"));
        }
        add_interface(&netns)?;
        for switch in &mut switches {
            switch.wait_carrier("group", ARRIVAL_TIME_MAX)?;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let frame = frame(from as u8, number, 60);
            stations[from].send(&frame)?;
            stations[to].expect(&frame)?;
            assert_eq!(stations[from].receive(SILENCE)?, None);
        }
        assert_eq!(info(&mut switches[0], "group")?, "type=dgram,mcast=230.0.0.1:1234");
    }
    Ok(())
}
